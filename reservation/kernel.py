"""The kernel's seam: what a store promises, in its own words.

There are two stores: `redis_store.RedisStore`, which is Redis and the scripts in lua/, and
`model.ModelStore`, which is the same promise in plain Python: the executable specification and
the fast fake. tests/contract holds both to it.

The one rule is `used + n <= cap`. A reservation is a list of claims on capped counters, granted
exactly when every claim holds. A new one takes the claims of its terms; a move sets them to a new
list, and the store takes the difference. So making, amending, giving up and taking again follow
one rule.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from reservation.acknowledged import Acknowledged
from reservation.fence import Run
from reservation.ids import ReservationId
from reservation.outcomes import (
    AdjustOutcome,
    ConfigureOutcome,
    GrantOutcome,
    Outcome,
    PlaceOutcome,
    RestateOutcome,
    RestoreOutcome,
)
from reservation.record import Record, Reservation


class Claim(NamedTuple):
    """n of a counter, if that keeps it within its cap.

    A counter whose name ends in @ is each user's own; one that begins with # is ranked by user as well.
    `cap` None is the cap that the store keeps.
    """

    counter: str
    n: int
    cap: int | None
    refusal: str
    """What is answered when it does not hold. What begins with ? makes it optional: claims of one
    such name are taken together, or left out."""


def optional(name: str) -> str:
    """The refusal of claims that are taken together if all of them hold, and else left out."""
    return f"?{name}"


RANKED = "#spend@"
"""The one counter that a campaign's users are ranked by."""

UNCAPPED = 2**53 - 1
"""The cap of what is only counted: as far as the store's arithmetic goes."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A window by the store's clock, in ms, and what is answered outside it. 0 is no bound."""

    opens_at_ms: int = 0
    closes_at_ms: int = 0
    before: Outcome = Outcome.NOT_STARTED
    after: Outcome = Outcome.ENDED


ALWAYS = Gate()


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Terms:
    """What a new reservation is made on: what it takes and costs, until when, and to whom it is open.

    Who reserves on the same terms at the same moment is served together. So make terms once, not for
    each request: two that say the same are still two.
    """

    campaign: str
    sku: str
    quantity: int
    state: str
    claims: Sequence[Claim]
    event: str
    facts: bytes
    data: bytes = b"{}"
    """JSON that goes with the event."""
    hold_ms: int = 0
    """The deadline is this far from now; 0 is no deadline."""
    gate: Gate = ALWAYS
    revision: int = 0
    """Of the campaign; 0 when none matters."""
    fingerprint: str = ""
    """Tells the same request from another under the same key."""
    first_refusal: str = ""
    """Known beforehand, answered before the windows."""
    last_refusal: str = ""
    """Known beforehand, answered after the windows."""
    queued: str = ""
    """The counter that the queue of this sku is for."""
    serves: bool = False
    """Whether this serves the user's place in the queue, whose turn it must be."""


@dataclass(frozen=True, slots=True)
class Move:
    """One later step of one reservation, decided on `version` of it."""

    id: ReservationId
    version: int
    user: str
    sku: str
    quantity: int
    state: str
    claims: Sequence[Claim]
    event: str
    facts: bytes
    data: bytes = b"{}"
    """JSON that goes with the event."""
    hold_ms: int = 0
    """The deadline is this far from now; 0 takes `deadline_ms`."""
    deadline_ms: int = 0
    """0 is no deadline."""
    gate: Gate = ALWAYS
    revision: int = 0
    """Of the campaign; 0 when none matters."""
    heeds_status: bool = False
    """Whether a paused or closed campaign refuses this."""
    queued: str = ""
    """The counter that the queue of this sku is for."""


class Moved(NamedTuple):
    """The outcome of a move, by the store's clock.

    `reservation` is the one that the move made or met: after the move, the replay's original, or
    what a conflicting move left.
    """

    outcome: Outcome
    now_ms: int
    reservation: Reservation | None


class StoredCampaign(NamedTuple):
    id: str
    revision: int
    status: str
    document: bytes
    changed_at_ms: int


class Configured(NamedTuple):
    """The outcome of a change to a campaign; `counter` is the one whose cap would be below its use."""

    outcome: ConfigureOutcome
    now_ms: int
    revision: int
    counter: str


class Restored(NamedTuple):
    """The outcome of a restoration; `counter` is the one whose cap would be exceeded."""

    outcome: RestoreOutcome
    counter: str


class Changes(NamedTuple):
    """Campaigns changed since a cursor, and the cursor to ask with next."""

    now_ms: int
    campaigns: tuple[str, ...]
    cursor: tuple[int, ...]


class Place(NamedTuple):
    """A user's place in the queue for an offer."""

    user: str
    quantity: int
    details: bytes
    """What the domain keeps with it, unread here."""


class Placed(NamedTuple):
    """`position` counts from 1; 0 is none."""

    outcome: PlaceOutcome | Outcome
    now_ms: int
    position: int


class Ranking(NamedTuple):
    """A campaign's users by a ranked counter, highest first."""

    final: bool
    now_ms: int
    entries: tuple[tuple[str, int], ...]
    own: int | None
    """The score of the user who asked."""
    above: int
    """How many have more than that."""


class StoredOrder(NamedTuple):
    """A main order as it was last written down."""

    version: int
    body: bytes


class Level(NamedTuple):
    used: int
    cap: int


class Standing(NamedTuple):
    """Some counters and all tallies of a campaign, at one instant."""

    levels: tuple[Level, ...]
    tally: Mapping[str, int]
    """Units by "state/sku", and those that are stood in line for by "waiting/sku"."""
    known: bool = True
    """Whether the store has the campaign; what it does not have stands at nothing."""


class Snapshot(NamedTuple):
    """One campaign at one instant: what the audit reads."""

    used: Mapping[str, int]
    caps: Mapping[str, int]
    tally: Mapping[str, int]
    reservations: Sequence[Reservation]
    adjusted: int = 0
    """How often its counters had been adjusted."""


class Miscount(NamedTuple):
    """A counter that is not what the reservations claim of it."""

    counter: str
    """As a snapshot names it; or, where `tallied`, the units of a state and an offer: state/sku."""
    claimed: int
    counted: int
    tallied: bool = False

    @property
    def lacks(self) -> int:
        return self.claimed - self.counted


INDEX_IDS_MAX = 100
"""How many of a user's reservations a store's index keeps at least."""

START: tuple[int, ...] = ()
"""The cursor before every change."""


class Asking(Protocol):
    """Who asks for a reservation and is told by a call."""

    span_id: int
    """Of the operation that asks, where its reservation is sampled; 0: of none."""

    def answered(self, outcome: Outcome, now_ms: int, record: bytes | None) -> None:
        """The answer. Without a record, what was made is what the terms say."""
        ...

    def failed(self, error: Exception) -> None:
        """There is no answer: whether the reservation was made is not known."""
        ...


class Store(Protocol):
    """Live state. Every method may raise StoreUnavailable; every time is the store's."""

    async def now_ms(self) -> int: ...

    def wait(self) -> float:
        """For how many seconds a new reservation will have to wait, as far as can be told."""
        ...

    async def configure(
        self,
        campaign: str,
        revision: int,
        status: str,
        document: bytes,
        caps: Mapping[str, int],
        ends_at_ms: int,
        above: int = 0,
    ) -> Configured:
        """Create (revision 0) or change a campaign, if `revision` is still the current one.

        From `ends_at_ms` on its ranking stands. The new revision is above `above`: one that the book has
        is never given again.
        """
        ...

    async def campaign(self, campaign: str) -> StoredCampaign | None: ...

    async def changes(self, cursor: tuple[int, ...]) -> Changes: ...

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        """Make a new reservation, or find the one that is there under this digest."""
        ...

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        """As `reserve`, for who is told by a call."""
        ...

    async def move(self, move: Move) -> Moved: ...

    async def restore(self, reservation_id: ReservationId, record: Record) -> Restored:
        """Bring a reservation to where the book has it, unless the store has it there, or further."""
        ...

    async def restate(self, reservation_id: ReservationId, event: str) -> RestateOutcome:
        """Tell the book of a reservation once more, as it is."""
        ...

    async def adjust(self, campaign: str, adjusted: int, miscounts: Sequence[Miscount]) -> AdjustOutcome:
        """Move counters by what a snapshot found them to differ, if none was adjusted since that snapshot."""
        ...

    async def confirm(self, campaign: str) -> None:
        """Return once what has been read of a campaign may be acknowledged: where replicas must have what is
        acknowledged, they have it."""
        ...

    async def confirm_order(self, order_id: str) -> None:
        """The same of what has been read of a main order."""
        ...

    async def runs(self) -> Sequence[Run]:
        """The lives of the store's processes, one a shard; see fence.py."""
        ...

    async def fenced(self) -> str:
        """Why the store takes nothing; empty while it does."""
        ...

    async def fence(self, reason: str) -> None:
        """Have the store refuse every reservation, move, place and main order, until the fence is lifted."""
        ...

    async def missed(self) -> list[Acknowledged]:
        """What processes were acknowledged before the store lost its last writes, as far as they know."""
        ...

    async def lift(self) -> None:
        """Lift the fence: what the store had lost was brought back, as far as the book knows it."""
        ...

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        """None where there is none; a fenced store cannot know, and raises StoreUnavailable."""
        ...

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        """Those that the store has, fenced or not: what repair begins with."""
        ...

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        """The user's newest reservations, in no order across shards."""
        ...

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        """The levels of `counters` (at least one), and the tally, at one instant."""
        ...

    async def due(self, limit: int) -> list[ReservationId]:
        """Reservations whose deadline has passed, longest overdue first among those held equally long.

        At most `limit` of each place that a store looks in.
        """
        ...

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        """Some of a campaign's reservations and the cursor to go on with; 0 begins, and ends.

        All that are there from beginning to end are seen, some twice.
        """
        ...

    async def snapshot(self, campaign: str) -> Snapshot | None:
        """All of a campaign as it is at one instant, but for users who have no reservation."""
        ...

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        """Stand in line for what a reservation on these terms would take."""
        ...

    async def leave_place(self, campaign: str, sku: str, user: str) -> bool:
        """Give a place up; whether there was one."""
        ...

    async def places(self, campaign: str, user: str, skus: Sequence[str]) -> dict[str, tuple[int, Place]]:
        """The user's positions and places, by sku."""
        ...

    async def queues(self) -> list[tuple[str, str]]:
        """Campaign and sku of every queue that somebody stands in."""
        ...

    async def queue(self, campaign: str, sku: str, limit: int) -> list[Place]:
        """The first in line."""
        ...

    async def ranking(self, campaign: str, user: str | None, limit: int) -> Ranking: ...

    async def order(self, order_id: str) -> StoredOrder | None: ...

    def order_ids(self) -> AsyncIterator[list[str]]:
        """The ids of all main orders, a few at a time: each that is there all the while, some twice."""
        ...

    async def record_order(
        self,
        order_id: str,
        version: int,
        body: bytes,
        *,
        unfinished: bool | None,
        event: bool,
        above: int = 0,
    ) -> bool:
        """Write a main order down, if `version` is still the current one (0 when there is none).

        The new version is above `above`: one that the book has is never given again. Without `above`, a
        fenced store raises StoreUnavailable.
        An unfinished one is among `unfinished_orders` until it is written down as finished; None
        leaves it as it is.
        """
        ...

    async def unfinished_orders(self) -> list[str]: ...

    async def grant(
        self, campaign: str, revision: int, order_id: str, version: int, caps: Mapping[str, int]
    ) -> GrantOutcome:
        """Set the caps that a version of a main order grants in a campaign."""
        ...
