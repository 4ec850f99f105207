"""The kernel in plain Python: the executable specification, and the fast fake.

Read this beside lua/move.lua and lua/configure.lua: same steps, same order, same names. Nothing
here awaits between its first read and its last write, so it is as atomic as a script.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from reservation.ids import ReservationId
from reservation.kernel import (
    INDEX_IDS_MAX,
    Changes,
    Claim,
    Configured,
    Level,
    Move,
    Moved,
    Snapshot,
    Standing,
    StoredCampaign,
)
from reservation.outcomes import ConfigureOutcome, Outcome
from reservation.record import Facts, Reservation, State


class ModelEvent(NamedTuple):
    """What the outbox holds."""

    type: str
    id: str
    reservation: Reservation | None
    data: bytes


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


class ModelStore:
    """kernel.Store in memory. `clock` gives ms and is the store's only clock."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._campaigns: dict[str, _Campaign] = {}
        self._deadlines: dict[ReservationId, int] = {}
        self._index: dict[str, list[ReservationId]] = {}
        self._changes: list[str] = []
        self.outbox: list[ModelEvent] = []

    async def now_ms(self) -> int:
        return self._clock()

    async def configure(
        self, campaign: str, revision: int, status: str, document: bytes, caps: Mapping[str, int]
    ) -> Configured:
        now = self._clock()
        current = self._campaigns.get(campaign, _Campaign())
        if current.revision != revision:
            return Configured(ConfigureOutcome.CONFLICT, now, current.revision, "")
        for counter, cap in caps.items():
            if current.used[counter] > cap:
                return Configured(ConfigureOutcome.BELOW_USED, now, revision, counter)
        current.revision += 1
        current.status, current.document, current.changed_at_ms = status, document, now
        current.caps.update(caps)
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

    async def move(self, move: Move) -> Moved:
        now = self._clock()
        is_new = move.version == 0
        campaign = self._campaigns.get(move.id.campaign)

        # 1. The reservation as it stands: a replay, or the version that was decided on.
        found = campaign.reservations.get(move.id.digest) if campaign else None
        reservation, fingerprint = found or (None, "")
        if reservation is not None:
            if is_new:
                same = fingerprint == move.fingerprint
                outcome = Outcome.REPLAYED if same else Outcome.IDEMPOTENCY_MISMATCH
                return Moved(outcome, now, reservation)
            if reservation.version != move.version:
                return Moved(Outcome.CONFLICT, now, reservation)
        elif not is_new:
            return Moved(Outcome.RESERVATION_NOT_FOUND, now, None)

        # 2. The campaign: there, as the caller knows it, and in its window by this clock.
        refusal = self._closed(campaign, move, now, is_new)
        if refusal or campaign is None:
            return Moved(Outcome(refusal), now, None)

        # 3. The one rule: used + n <= cap, for every claim.
        held = dict(reservation.claims) if reservation else {}
        steps: dict[str, int] = {}
        for claim in move.claims:
            counter = self._counter(claim.counter, move.user)
            step = claim.n - held.pop(claim.counter, 0)
            if step > 0 and campaign.used[counter] + step > self._cap(campaign, claim, counter):
                return Moved(claim.refusal, now, None)
            steps[counter] = step
        for name, n in held.items():
            steps[self._counter(name, move.user)] = -n

        # 4. Nothing can refuse any more: write.
        for counter, step in steps.items():
            campaign.used[counter] += step
            if campaign.used[counter] == 0:
                del campaign.used[counter]
        deadline = now + move.hold_ms if move.hold_ms > 0 else move.deadline_ms
        if deadline > 0:
            self._deadlines[move.id] = deadline
        else:
            self._deadlines.pop(move.id, None)
        if reservation is None:
            fingerprint = move.fingerprint
            ids = self._index.setdefault(move.user, [])
            ids.insert(0, move.id)
            del ids[INDEX_IDS_MAX:]
        else:
            campaign.tally[f"{reservation.state}/{move.sku}"] -= reservation.quantity
        campaign.tally[f"{move.state}/{move.sku}"] += move.quantity
        moved = Reservation(
            id=move.id,
            state=State(move.state),
            version=move.version + 1,
            user=reservation.user if reservation else move.user,
            sku=reservation.sku if reservation else move.sku,
            quantity=move.quantity,
            claims=tuple((claim.counter, claim.n) for claim in move.claims),
            created_at_ms=reservation.created_at_ms if reservation else now,
            updated_at_ms=now,
            deadline_ms=deadline,
            facts=Facts.unpack(move.facts),
        )
        campaign.reservations[move.id.digest] = (moved, fingerprint)
        self.outbox.append(ModelEvent(move.event, str(move.id), moved, move.data))
        return Moved(Outcome.MOVED, now, replace(moved))

    @staticmethod
    def _closed(campaign: _Campaign | None, move: Move, now: int, is_new: bool) -> str:
        """The refusal that the campaign and its windows give, or nothing."""
        gate = move.gate
        if campaign is None:
            return Outcome.STORE_UNAVAILABLE
        if move.revision not in (0, campaign.revision):
            return Outcome.STALE
        if move.first_refusal:
            return move.first_refusal
        if is_new and campaign.status == "closed":
            return Outcome.ENDED
        if 0 < gate.closes_at_ms <= now:
            return gate.after
        if now < gate.opens_at_ms:
            return gate.before
        if is_new and campaign.status == "paused":
            return Outcome.PAUSED
        return move.last_refusal

    @staticmethod
    def _counter(name: str, user: str) -> str:
        return name + user if name.endswith("@") else name

    @staticmethod
    def _cap(campaign: _Campaign, claim: Claim, counter: str) -> int:
        return campaign.caps.get(counter, 0) if claim.cap is None else claim.cap

    async def reservation(self, reservation_id: ReservationId) -> Reservation | None:
        campaign = self._campaigns.get(reservation_id.campaign)
        found = campaign.reservations.get(reservation_id.digest) if campaign else None
        return found[0] if found else None

    async def reservations(self, ids: Sequence[ReservationId]) -> list[Reservation | None]:
        return [await self.reservation(one) for one in ids]

    async def reservation_ids_of(self, user: str) -> list[ReservationId]:
        return list(self._index.get(user, ()))

    async def standing(self, campaign: str, counters: Sequence[str]) -> Standing:
        found = self._campaigns.get(campaign, _Campaign())
        levels = (Level(found.used[counter], found.caps.get(counter, 0)) for counter in counters)
        return Standing(tuple(levels), dict(found.tally))

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
            frozenset(event.id for event in self.outbox),
        )
