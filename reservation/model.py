"""The kernel in plain Python: the executable specification, and the fast fake.

Read this beside lua/*.lua: same steps, same order, same names. What a script does for many, as if one
had come after the other, is done here for one at a time; and nothing is kept short, but as it is.
Nothing here awaits between its first read and its last write, so it is as atomic as a script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reservation.acknowledged import Acknowledged
from reservation.fence import Run
from reservation.ids import ReservationId
from reservation.kernel import (
    INDEX_IDS_MAX,
    RANKED,
    UNCAPPED,
    Asking,
    Changes,
    Claim,
    Configured,
    Level,
    Miscount,
    Move,
    Moved,
    Place,
    Placed,
    Ranking,
    Restored,
    Snapshot,
    Standing,
    StoredCampaign,
    StoredOrder,
    Terms,
)
from reservation.outcomes import (
    AdjustOutcome,
    ConfigureOutcome,
    GrantOutcome,
    Outcome,
    PlaceOutcome,
    RestateOutcome,
    RestoreOutcome,
    StoreUnavailable,
)
from reservation.record import Facts, Record, Reservation, State


class ModelEvent(NamedTuple):
    """What the outbox holds."""

    type: str
    id: str
    reservation: Reservation | None
    data: bytes


_AHEAD_MAX = 100


@dataclass
class _Campaign:
    revision: int = 0
    status: str = ""
    document: bytes = b""
    changed_at_ms: int = 0
    used: Counter[str] = field(default_factory=Counter)
    caps: dict[str, int] = field(default_factory=dict)
    tally: Counter[str] = field(default_factory=Counter)
    reservations: dict[str, tuple[Reservation, str]] = field(default_factory=dict)
    """By digest: the reservation and the fingerprint of the body that made it."""
    ends_at_ms: int = 0
    final: tuple[int, dict[str, int]] | None = None
    """The end that the ranking was closed at, and the ranking as it was."""
    adjusted: int = 0
    queues: dict[str, list[Place]] = field(default_factory=dict)
    """By sku: who stands in line, in order."""

    def ranking(self) -> dict[str, int]:
        return {
            name.removeprefix(RANKED): score for name, score in self.used.items() if name.startswith(RANKED)
        }

    def close_ranking(self, now: int) -> bool:
        if now < self.ends_at_ms:
            return False
        if self.final is None or self.final[0] != self.ends_at_ms:
            self.final = (self.ends_at_ms, self.ranking())
        return True

    def place(self, sku: str, user: str) -> tuple[int, Place] | None:
        places = enumerate(self.queues.get(sku, ()), 1)
        return next(((position, one) for position, one in places if one.user == user), None)

    def suffices_for_some(self, asked: Terms | Move) -> bool:
        """Whether what is left would do for somebody among the first in line."""
        available = self.caps.get(asked.queued, 0) - self.used[asked.queued]
        first = self.queues.get(asked.sku, [])[: _AHEAD_MAX + 1]
        return any(one.quantity <= available for one in first)

    def has_turn(self, terms: Terms, user: str) -> bool:
        """Whether it is this user's turn: everybody ahead wants more than there is."""
        available = self.caps.get(terms.queued, 0) - self.used[terms.queued]
        found = self.place(terms.sku, user)
        if found is None or found[0] - 1 > _AHEAD_MAX:
            return False
        return all(one.quantity > available for one in self.queues[terms.sku][: found[0] - 1])

    def leave(self, sku: str, user: str) -> bool:
        found = self.place(sku, user)
        if found is not None:
            self.queues[sku].remove(found[1])
            self.tally[f"waiting/{sku}"] -= found[1].quantity
            if not self.queues[sku]:
                del self.queues[sku]
        return found is not None


class ModelStore:
    """kernel.Store in memory. `clock` gives ms and is the store's only clock."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._campaigns: dict[str, _Campaign] = {}
        self._deadlines: dict[ReservationId, int] = {}
        self._index: dict[tuple[str, str], list[ReservationId]] = {}
        """By user and campaign, newest first."""
        self._changes: list[str] = []
        self._orders: dict[str, StoredOrder] = {}
        self._unfinished: set[str] = set()
        self.outbox: list[ModelEvent] = []
        self._fence = ""

    def wait(self) -> float:
        return 0.0

    async def now_ms(self) -> int:
        return self._clock()

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
        now = self._clock()
        current = self._campaigns.get(campaign, _Campaign())
        if current.revision != revision:
            return Configured(ConfigureOutcome.CONFLICT, now, current.revision, "")
        for counter, cap in caps.items():
            if current.used[counter] > cap:
                return Configured(ConfigureOutcome.BELOW_USED, now, revision, counter)
        current.revision = max(current.revision, above) + 1
        current.status, current.document, current.changed_at_ms = status, document, now
        current.caps.update(caps)
        current.ends_at_ms = ends_at_ms
        self._campaigns[campaign] = current
        self._changes.append(campaign)
        self.outbox.append(ModelEvent("campaign_changed", campaign, None, document))
        return Configured(ConfigureOutcome.CONFIGURED, now, current.revision, "")

    async def campaign(self, campaign: str) -> StoredCampaign | None:
        found = self._campaigns.get(campaign)
        if found is None:
            return None
        return StoredCampaign(campaign, found.revision, found.status, found.document, found.changed_at_ms)

    async def changes(self, cursor: tuple[int, ...]) -> Changes:
        seen = cursor[0] if cursor else 0
        changed = dict.fromkeys(self._changes[seen:])
        return Changes(self._clock(), tuple(changed), (len(self._changes),))

    def ask(self, terms: Terms, digest: str, user: str, asking: Asking) -> None:
        outcome, now_ms, reservation = self._reserve(terms, digest, user)
        said_by_terms = reservation is None or outcome is Outcome.MOVED
        asking.answered(outcome, now_ms, None if said_by_terms else b"")

    async def reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        return self._reserve(terms, digest, user)

    def _reserve(self, terms: Terms, digest: str, user: str) -> Moved:
        now = self._clock()
        reservation_id = ReservationId(terms.campaign, digest)
        campaign = self._campaigns.get(terms.campaign)

        # 1. The reservations that are there already, and the campaign: as the caller knows it, and open.
        found = campaign.reservations.get(digest) if campaign else None
        if found is not None:
            same = found[1] == terms.fingerprint
            return Moved(Outcome.REPLAYED if same else Outcome.IDEMPOTENCY_MISMATCH, now, found[0])
        refusal = self._closed(campaign, terms, now, True, terms.first_refusal, terms.last_refusal)
        if refusal or campaign is None:
            return Moved(Outcome(refusal), now, None)
        queued = None
        if terms.serves:
            if not campaign.has_turn(terms, user):
                return Moved(Outcome.CONFLICT, now, None)
        elif campaign.suffices_for_some(terms):
            queued = terms.queued

        # 2. The one rule: used + n <= cap, for every claim.
        refusal, left_out = self._weigh(campaign, {}, terms.claims, user, queued)
        if refusal:
            return Moved(Outcome(refusal), now, None)
        taken = [claim for claim in terms.claims if claim.refusal not in left_out]

        # 3. Nothing can refuse any more: write.
        self._take(campaign, {claim.counter: claim.n for claim in taken}, user, now)
        if terms.serves:
            campaign.leave(terms.sku, user)
        deadline = now + terms.hold_ms if terms.hold_ms else 0
        if deadline:
            self._deadlines[reservation_id] = deadline
        self._remember(user, reservation_id)
        campaign.tally[f"{terms.state}/{terms.sku}"] += terms.quantity
        made = Reservation(
            id=reservation_id,
            state=State(terms.state),
            version=1,
            user=user,
            sku=terms.sku,
            quantity=terms.quantity,
            claims=tuple((claim.counter, claim.n) for claim in taken),
            created_at_ms=now,
            updated_at_ms=now,
            deadline_ms=deadline,
            facts=Facts.unpack(terms.facts),
        )
        campaign.reservations[digest] = (made, terms.fingerprint)
        self.outbox.append(ModelEvent(terms.event, str(reservation_id), made, terms.data))
        return Moved(Outcome.MOVED, now, made)

    async def move(self, move: Move) -> Moved:
        now = self._clock()
        campaign = self._campaigns.get(move.id.campaign)

        # 1. The reservation: in the version that was decided on.
        found = campaign.reservations.get(move.id.digest) if campaign else None
        if found is None:
            return Moved(Outcome.RESERVATION_NOT_FOUND, now, None)
        reservation, fingerprint = found
        if reservation.version != move.version:
            return Moved(Outcome.CONFLICT, now, reservation)

        # 2. The campaign: there, as the caller knows it, and in its window by this clock.
        refusal = self._closed(campaign, move, now, move.heeds_status)
        if refusal or campaign is None:
            return Moved(Outcome(refusal), now, None)

        # 3. The one rule: used + n <= cap, for every claim.
        queued = move.queued if campaign.suffices_for_some(move) else None
        held = dict(reservation.claims)
        refusal, left_out = self._weigh(campaign, held, move.claims, move.user, queued)
        if refusal:
            return Moved(Outcome(refusal), now, None)
        taken = [claim for claim in move.claims if claim.refusal not in left_out]

        # 4. Nothing can refuse any more: write.
        self._take(campaign, _difference(held, taken), move.user, now)
        deadline = now + move.hold_ms if move.hold_ms > 0 else move.deadline_ms
        if deadline > 0:
            self._deadlines[move.id] = deadline
        else:
            self._deadlines.pop(move.id, None)
        campaign.tally[f"{reservation.state}/{move.sku}"] -= reservation.quantity
        campaign.tally[f"{move.state}/{move.sku}"] += move.quantity
        moved = replace(
            reservation,
            state=State(move.state),
            version=move.version + 1,
            quantity=move.quantity,
            claims=tuple((claim.counter, claim.n) for claim in taken),
            updated_at_ms=now,
            deadline_ms=deadline,
            facts=Facts.unpack(move.facts),
        )
        campaign.reservations[move.id.digest] = (moved, fingerprint)
        self.outbox.append(ModelEvent(move.event, str(move.id), moved, move.data))
        return Moved(Outcome.MOVED, now, moved)

    async def restore(self, reservation_id: ReservationId, record: Record) -> Restored:
        campaign = self._campaigns.get(reservation_id.campaign)
        if campaign is None:
            return Restored(RestoreOutcome.ABSENT, "")
        found = campaign.reservations.get(reservation_id.digest)
        known = found[0] if found else None
        if known is not None and known.version >= record.version:
            return Restored(RestoreOutcome.UNCHANGED, "")

        # A cap that came with the claim, and is not kept here, held when the claim was taken.
        claims = [
            Claim(name, n, campaign.caps.get(self._counter(name, record.user), UNCAPPED), name)
            for name, n in record.claims
        ]
        held = dict(known.claims) if known else {}
        refusal, _ = self._weigh(campaign, held, claims, record.user, None)
        if refusal:
            return Restored(RestoreOutcome.OVER_CAP, refusal)

        self._count(campaign, _difference(held, claims), record.user)
        if known is None:
            self._remember(record.user, reservation_id)
        else:
            campaign.tally[f"{known.state}/{record.sku}"] -= known.quantity
        campaign.tally[f"{record.state}/{record.sku}"] += record.quantity
        if record.deadline > 0:
            self._deadlines[reservation_id] = record.deadline
        else:
            self._deadlines.pop(reservation_id, None)
        campaign.reservations[reservation_id.digest] = (
            Reservation.of(reservation_id, record),
            record.fingerprint,
        )
        return Restored(RestoreOutcome.RESTORED, "")

    async def restate(self, reservation_id: ReservationId, event: str) -> RestateOutcome:
        found = self._found(reservation_id)
        if found is None:
            return RestateOutcome.ABSENT
        self.outbox.append(ModelEvent(event, str(reservation_id), found, b"{}"))
        return RestateOutcome.RESTATED

    async def adjust(self, campaign: str, adjusted: int, miscounts: Sequence[Miscount]) -> AdjustOutcome:
        found = self._campaigns.get(campaign)
        if found is None:
            return AdjustOutcome.ABSENT
        if found.adjusted != adjusted:
            return AdjustOutcome.CONFLICT
        for one in miscounts:
            (found.tally if one.tallied else found.used)[one.counter] += one.lacks
        found.adjusted += 1
        return AdjustOutcome.ADJUSTED

    def _take(self, campaign: _Campaign, steps: Mapping[str, int], user: str, now: int) -> None:
        if any(step != 0 and name.startswith("#") for name, step in steps.items()):
            campaign.close_ranking(now)
        self._count(campaign, steps, user)

    def _count(self, campaign: _Campaign, steps: Mapping[str, int], user: str) -> None:
        for name, step in steps.items():
            counter = self._counter(name, user)
            campaign.used[counter] += step
            if campaign.used[counter] == 0:
                del campaign.used[counter]

    def _remember(self, user: str, reservation_id: ReservationId) -> None:
        ids = self._index.setdefault((user, reservation_id.campaign), [])
        if reservation_id in ids:
            return
        ids.insert(0, reservation_id)
        del ids[INDEX_IDS_MAX:]

    def _weigh(
        self,
        campaign: _Campaign,
        held: Mapping[str, int],
        wanted: Sequence[Claim],
        user: str,
        queued: str | None,
    ) -> tuple[str, set[str]]:
        """The refusal of the first claim that does not hold, or nothing, and the options to leave out."""
        left_out: set[str] = set()
        for claim in wanted:
            counter = self._counter(claim.counter, user)
            step = claim.n - held.get(claim.counter, 0)
            over = step > 0 and campaign.used[counter] + step > self._cap(campaign, claim, counter)
            if over or (step > 0 and claim.counter == queued):
                if not claim.refusal.startswith("?"):
                    return claim.refusal, set()
                left_out.add(claim.refusal)
        return "", left_out

    def _closed(
        self,
        campaign: _Campaign | None,
        asked: Terms | Move,
        now: int,
        heeds_status: bool,
        first_refusal: str = "",
        last_refusal: str = "",
    ) -> str:
        """The refusal that the campaign and its windows give, or nothing."""
        gate = asked.gate
        if campaign is None or self._fence:
            return Outcome.STORE_UNAVAILABLE
        if asked.revision not in (0, campaign.revision):
            return Outcome.STALE
        if first_refusal:
            return first_refusal
        if heeds_status and campaign.status == "closed":
            return Outcome.ENDED
        if 0 < gate.closes_at_ms <= now:
            return gate.after
        if now < gate.opens_at_ms:
            return gate.before
        if heeds_status and campaign.status == "paused":
            return Outcome.PAUSED
        return last_refusal

    @staticmethod
    def _counter(name: str, user: str) -> str:
        return name + user if name.endswith("@") else name

    @staticmethod
    def _cap(campaign: _Campaign, claim: Claim, counter: str) -> int:
        return campaign.caps.get(counter, 0) if claim.cap is None else claim.cap

    async def confirm(self, campaign: str) -> None:
        """There are no replicas."""

    async def confirm_order(self, order_id: str) -> None:
        """There are no replicas."""

    async def runs(self) -> list[Run]:
        return []  # it lives once, and loses nothing

    async def fenced(self) -> str:
        return self._fence

    async def fence(self, reason: str) -> None:
        self._fence = reason

    async def missed(self) -> list[Acknowledged]:
        """Nothing is lost by itself here."""
        return []

    async def lift(self) -> None:
        self._fence = ""

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        found = self._found(reservation_id)
        if found is None and self._fence:
            raise StoreUnavailable(f"the store is fenced, and may have lost {reservation_id}")
        return found

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        return [self._found(one) for one in ids]

    def _found(self, reservation_id: ReservationId) -> Reservation | None:
        campaign = self._campaigns.get(reservation_id.campaign)
        found = campaign.reservations.get(reservation_id.digest) if campaign else None
        return found[0] if found else None

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        if self._fence:
            raise StoreUnavailable(f"the store is fenced, and may have lost some of {user}'s")
        return [one for (owner, _), ids in self._index.items() if owner == user for one in ids]

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        found = self._campaigns.get(campaign, _Campaign())
        levels = (Level(found.used[counter], found.caps.get(counter, 0)) for counter in counters)
        return Standing(tuple(levels), dict(found.tally), campaign in self._campaigns)

    async def due(self, limit: int) -> list[ReservationId]:
        now = self._clock()
        overdue = sorted((at, one) for one, at in self._deadlines.items() if at <= now)
        return [one for _, one in overdue[:limit]]

    async def snapshot(self, campaign: str) -> Snapshot | None:
        found = self._campaigns.get(campaign)
        if found is None:
            return None
        return Snapshot(
            dict(found.used),
            dict(found.caps),
            dict(found.tally),
            [reservation for reservation, _ in found.reservations.values()],
            found.adjusted,
        )

    async def scan(self, campaign: str, cursor: int) -> tuple[int, list[Reservation]]:
        found = self._campaigns.get(campaign, _Campaign())
        return 0, [reservation for reservation, _ in found.reservations.values()]

    async def take_place(self, terms: Terms, user: str, details: bytes) -> Placed:
        now = self._clock()
        campaign = self._campaigns.get(terms.campaign)
        refusal = self._closed(campaign, terms, now, True, terms.first_refusal, terms.last_refusal)
        if refusal or campaign is None:
            return Placed(Outcome(refusal), now, 0)
        others = [claim for claim in terms.claims if claim.counter != terms.queued]
        refusal, _ = self._weigh(campaign, {}, others, user, None)
        if refusal:
            return Placed(Outcome(refusal), now, 0)
        cap = campaign.caps.get(terms.queued, 0)
        found = campaign.place(terms.sku, user)
        no_line = found is None and terms.sku not in campaign.queues
        if no_line and campaign.used[terms.queued] + terms.quantity <= cap:
            return Placed(Outcome.WRONG_STATE, now, 0)
        queue = campaign.queues.setdefault(terms.sku, [])
        place = Place(user, terms.quantity, details)
        if found is not None and found[1].quantity == terms.quantity:
            queue[found[0] - 1] = place
            return Placed(PlaceOutcome.PLACED, now, found[0])
        if found is not None:
            queue.remove(found[1])
        queue.append(place)
        campaign.tally[f"waiting/{terms.sku}"] += terms.quantity - (found[1].quantity if found else 0)
        return Placed(PlaceOutcome.PLACED, now, len(queue))

    async def leave_place(self, campaign: str, sku: str, user: str) -> bool:
        found = self._campaigns.get(campaign)
        return found is not None and found.leave(sku, user)

    async def places(self, campaign: str, user: str, skus: Sequence[str]) -> dict[str, tuple[int, Place]]:
        found = self._campaigns.get(campaign, _Campaign())
        places = {sku: found.place(sku, user) for sku in skus}
        there = {sku: place for sku, place in places.items() if place is not None}
        if not there and self._fence:
            raise StoreUnavailable(f"the store is fenced, and may have lost the line for {campaign}")
        return there

    async def queues(self) -> list[tuple[str, str]]:
        return sorted((name, sku) for name, campaign in self._campaigns.items() for sku in campaign.queues)

    async def queue(self, campaign: str, sku: str, limit: int) -> list[Place]:
        return self._campaigns.get(campaign, _Campaign()).queues.get(sku, [])[:limit]

    async def ranking(self, campaign: str, user: str | None, limit: int) -> Ranking:
        now = self._clock()
        found = self._campaigns.get(campaign, _Campaign())
        final = found.close_ranking(now)
        scores = found.final[1] if final and found.final else found.ranking()
        entries = sorted(scores.items(), key=lambda entry: (entry[1], entry[0].encode()), reverse=True)
        own = scores.get(user) if user is not None else None
        above = sum(own is not None and score > own for score in scores.values())
        return Ranking(final, now, tuple(entries[:limit]), own, above)

    async def order(self, order_id: str) -> StoredOrder | None:
        return self._orders.get(order_id)

    async def order_ids(self) -> AsyncIterator[list[str]]:
        yield list(self._orders)

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
        if self._fence and not above:
            raise StoreUnavailable("the store is fenced")
        current = self._orders.get(order_id)
        if (current.version if current else 0) != version:
            return False
        self._orders[order_id] = StoredOrder(max(version, above) + 1, body)
        if unfinished is not None:
            (self._unfinished.add if unfinished else self._unfinished.discard)(order_id)
        if event:
            self.outbox.append(ModelEvent("main_order_changed", order_id, None, body))
        return True

    async def unfinished_orders(self) -> list[str]:
        return sorted(self._unfinished)

    async def grant(
        self, campaign: str, revision: int, order_id: str, version: int, caps: Mapping[str, int]
    ) -> GrantOutcome:
        found = self._campaigns.get(campaign, _Campaign())
        if found.revision != revision:
            return GrantOutcome.STALE
        if found.caps.get(f"order:{order_id}", 0) > version:
            return GrantOutcome.OUTDATED
        found.caps.update({f"order:{order_id}": version, **caps})
        return GrantOutcome.GRANTED


def _difference(held: Mapping[str, int], wanted: Sequence[Claim]) -> dict[str, int]:
    """The steps from the claims that are held to those that are wanted."""
    steps = {name: -n for name, n in held.items()}
    return steps | {claim.counter: claim.n - held.get(claim.counter, 0) for claim in wanted}
