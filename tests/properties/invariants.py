"""What must hold after every step, whatever the step was."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

import orjson

from reservation.desk import Reserved, Taken
from reservation.ids import Stage
from reservation.main_order import MainOrder, OrderState
from reservation.outcomes import Refusal
from reservation.record import GIFT, LIVE, SOLD, PaymentStatus, Reservation, State
from tests.properties.reached import REACHED
from tests.properties.steps import Crowd, Join, Reserve, Serve, Step
from tests.properties.worlds import Event, Seen, SeenCampaign, tally_of

UNLIMITED = float("inf")


class History:
    """What a sequence has promised so far, and what was told of it."""

    def __init__(self) -> None:
        self.quotas: dict[tuple[str, str], float] = defaultdict(float)
        """By campaign and counter: the most generous that it ever had."""
        self.versions: Counter[str] = Counter()
        self.last: dict[str, Reservation] = {}

    def tell(self, event: Event) -> None:
        """Take in an event."""
        if event.type == "campaign_changed":
            self._promise(orjson.loads(event.data))
        elif event.reservation is not None:
            self.versions[event.id] += 1
            assert event.reservation.version == self.versions[event.id], "one event a version, in order"
            self.last[event.id] = event.reservation
            _note(event)

    def _promise(self, document: dict[str, Any]) -> None:
        name = document["id"]

        def promise(counter: str, cap: int | None) -> None:
            known = self.quotas[name, counter]
            self.quotas[name, counter] = max(known, UNLIMITED if cap is None else cap)

        promise("quota", document.get("per_user"))
        promise("entitlement", document.get("entitlement", {}).get("grants", 0))
        groups = document.get("groups", {})
        for group in ("hot", "new"):
            promise(f"group/{group}", groups.get(group, {}).get("per_user"))
            promise(f"order/{group}/", groups.get(group, {}).get("per_entitlement"))
        for offer in document["offers"]:
            promise(f"quota/{offer['sku']}", offer.get("per_user"))
            promise(f"order/{offer['sku']}", offer.get("per_entitlement"))
            for gift in offer.get("gifts", ()):
                promise(f"{GIFT}{offer['sku']}/{gift['sku']}", gift["first"])


def check(step: Step | None, before: Seen | None, after: Seen, result: object, history: History) -> None:
    """All invariants, after a step."""
    for event in after.all_events:
        history.tell(event)
    for name, campaign in after.campaigns.items():
        _check_counters(name, campaign)
        _check_limits(name, campaign, history, after.unfinished)
        for one in campaign.reservations.values():
            _check_reservation(one, history)
    _check_deadlines(after)
    _check_orders(after)
    if before is not None and step is not None:
        if not isinstance(step, Serve):
            _check_line(before, after)
        of_a_crowd = list(result) if isinstance(step, Crowd) and isinstance(result, tuple) else []
        if of_a_crowd:
            _note_crowd(of_a_crowd)
        if all(map(is_refused, of_a_crowd or [result])):
            _check_unchanged(step, before, after)


def _check_counters(name: str, seen: SeenCampaign) -> None:
    """I1, I2: every counter is what its reservations claim; stock is enough; the tally is right."""
    claimed = Counter[str]()
    for one in seen.reservations.values():
        for counter, n in one.claims:
            claimed[counter + one.user if counter.endswith("@") else counter] += n
    assert +claimed == seen.used, f"{name}: counters are what is claimed"
    reservations = list(seen.reservations.values())
    tally = {key: units for key, units in seen.tally.items() if units}
    records = dict(tally_of(reservations))
    for sku, queue in seen.queues.items():
        if queue:
            records[f"waiting/{sku}"] = sum(place.quantity for place in queue)
    assert records == tally, f"{name}: the tally is {tally}, the records say {records}"
    for sku in ("phone", "case"):
        taken = sum(one.quantity for one in reservations if one.sku == sku and one.state in LIVE | SOLD)
        assert taken == seen.used.get(f"stock/{sku}", 0), f"{name}: {sku} is held or sold, or available"
        assert taken <= seen.caps.get(f"stock/{sku}", 0), f"{name}: {sku} is oversold"


def _check_limits(name: str, seen: SeenCampaign, history: History, unfinished: set[str]) -> None:
    """I3, I9: nobody beyond a quota, no gift or entitlement beyond its number."""

    def limit(counter: str) -> float:
        return history.quotas[name, counter]

    by_user, by_order = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for one in seen.reservations.values():
        if one.state in LIVE | SOLD:
            by_user["quota", one.user] += one.quantity
            by_user[f"quota/{one.sku}", one.user] += one.quantity
            if one.facts.order_id is not None:
                by_order[f"order/{one.sku}", one.facts.order_id] += one.quantity
    for (counter, who), units in (by_user | by_order).items():
        assert units <= limit(counter), f"{name}: {who} has {units}, {counter} is {limit(counter)}"
    for counter, used in seen.used.items():
        assert used > 0, f"{name}: {counter}"
        if counter.startswith(GIFT):
            gift, is_own, user = counter.partition("@")
            assert used <= (1 if is_own else limit(gift)), f"{name}: {used} of {gift} given {user}"
        if counter.startswith("entitlement"):
            order = counter.partition(":")[2]
            assert used <= limit("entitlement"), f"{name}: {counter} used {used} times"
            taken_back = seen.caps.get(counter) == 0 and order not in unfinished
            assert not taken_back, f"{name}: {used} of {counter}, which was taken back"


def _check_reservation(one: Reservation, history: History) -> None:
    """I7: the money is where the state says; what has ended holds nothing."""
    facts, name = one.facts, str(one.id)
    assert history.last[name] == one, f"{name}: the last event tells how it is"
    assert bool(one.claims) == (one.state in LIVE | SOLD), f"{name}: {one.state} holds {one.claims}"
    agreed = facts.before.price if facts.before else facts.price
    owed = {State.CONFIRMED: agreed.payable, State.DEPOSIT_PAID: agreed.deposit}.get(one.state, 0)
    assert facts.received - facts.kept == owed, f"{name}: {one.state} for {owed}, {facts}"
    assert facts.kept >= 0, f"{name}: {facts}"
    stages = Counter[Stage]()
    for payment in facts.payments.values():
        assert 0 <= facts.left_of(payment) <= payment.amount, f"{name}: {payment} over-refunded"
        stages[payment.stage] += facts.left_of(payment)
    for refund in facts.refunds.values():
        payment = facts.payments[refund.payment]
        assert payment.status is PaymentStatus.SUCCEEDED, f"{name}: {refund} of {payment}"
        assert refund.amount > 0, f"{name}: {refund}"
    stages[Stage.DEPOSIT] -= facts.kept
    for stage, standing in stages.items():
        assert standing in (0, agreed.amount(stage)), f"{name}: {standing} was paid as {stage}: {facts}"


def _check_deadlines(seen: Seen) -> None:
    deadlines = {str(one.id): one.deadline_ms for one in seen.reservations if one.deadline_ms}
    assert seen.deadlines == deadlines, "deadlines are found"
    for one in seen.reservations:
        assert (one.deadline_ms > 0) == (one.state in LIVE), f"{one.id}: {one.state}, {one.deadline_ms}"


def _check_orders(seen: Seen) -> None:
    """Nothing hangs on a main order that was cancelled, once all campaigns were told of it."""
    for one in seen.reservations:
        order = seen.orders.get(one.facts.order_id or "")
        if order is not None and one.state in LIVE | SOLD and one.facts.order_id not in seen.unfinished:
            state = MainOrder.unpack("", order.version, order.body).state
            assert state is OrderState.PAID, f"{one.id}: {one.state}, and its order is {state}"


def _check_line(before: Seen, after: Seen) -> None:
    """Of what would have done for somebody in line, nothing is taken but by the first of those."""
    for name, campaign in before.campaigns.items():
        for sku, queue in campaign.queues.items():
            counter = f"stock/{sku}"
            was, now = campaign.used.get(counter, 0), after.campaigns[name].used.get(counter, 0)
            left = campaign.caps.get(counter, 0) - was
            first = next((place.user for place in queue if place.quantity <= left), None)
            if first is not None and now > was:
                still = {place.user for place in after.campaigns[name].queues[sku]}
                assert first not in still, f"{name}: {sku} was taken over the head of {first}"


def check_served(before: Seen, after: Seen, *, alone: bool) -> None:
    """Who was served had nobody ahead for whom it sufficed; and nobody is left for whom it suffices.

    `alone`: nothing else came in between.
    """
    for name, campaign in after.campaigns.items():
        stored, document = campaign.stored, campaign.document
        assert stored is not None
        for sku, queue in campaign.queues.items():
            opens, closes = (_ms(document[edge]) for edge in ("opens_at", "closes_at"))
            if after.now_ms >= closes:
                assert not queue, f"{name}: {queue} wait for what is over"
            elif stored.status == "running" and opens <= after.now_ms:
                enough = [one for one in queue if one.quantity <= campaign.available(sku)]
                assert not enough, f"{name}: {enough} wait for {sku}, and {campaign.available(sku)} are left"
            if not alone:
                continue
            left, line = before.campaigns[name].available(sku), list(before.campaigns[name].queues[sku])
            still = {one.user for one in queue}
            for event in after.all_events:
                one = event.reservation
                if one and event.type == "offered" and (one.id.campaign, one.sku) == (name, sku):
                    place = next(at for at, waiting in enumerate(line) if waiting.user == one.user)
                    passed = [w for w in line[:place] if w.user in still and w.quantity <= left]
                    assert not passed, f"{name}: {one.user} was served before {passed}"
                    left -= one.quantity
                    del line[place]


def is_refused(result: object) -> bool:
    """Whether this answer says that nothing was done."""
    if isinstance(result, tuple) and result:
        return result[0] in ("invalid", "refused", Taken.KNOWN, Taken.UNKNOWN)
    return isinstance(result, Refusal) or result is False


def _note_crowd(results: list[object]) -> None:
    """What a sequence has reached."""
    made = [one for one in results if isinstance(one, Reserved) and not one.replayed]
    if len(made) > 1:
        REACHED.note("several of a crowd served")
    if made and any(map(is_refused, results)):
        REACHED.note("some of a crowd refused")
    if any(isinstance(one, Reserved) and one.replayed for one in results):
        REACHED.note("one of a crowd came twice")


def _check_unchanged(step: Step, before: Seen, after: Seen) -> None:
    """A refusal changes nothing; but where a main order is used is noted before that is refused."""
    assert not after.all_events, f"a refusal has events: {after.all_events}"
    assert after.unfinished == before.unfinished
    for name, campaign in after.campaigns.items():
        was = before.campaigns[name]
        notes = isinstance(step, (Reserve, Join)) and step.order is not None
        for counter in was.caps.keys() | campaign.caps.keys():
            same = was.caps.get(counter) == campaign.caps.get(counter)
            assert same or (notes and not counter.startswith("stock/")), f"a refusal changed {counter}"
        for part in ("stored", "used", "tally", "reservations", "queues"):
            assert getattr(was, part) == getattr(campaign, part), f"a refusal changed {part}"
        if not notes:
            assert after.orders == before.orders, "a refusal changed orders"


def check_over(seen: Seen) -> None:
    """Long after everything, and swept: nothing is held, nobody waits, every refund was made."""
    assert not seen.unfinished
    for name, campaign in seen.campaigns.items():
        reservations = campaign.reservations.values()
        assert not [one for one in reservations if one.state in LIVE], f"{name}: live for ever"
        assert not any(campaign.queues.values()), f"{name}: waiting for ever"
        for sku in ("phone", "case"):
            sold = sum(one.quantity for one in reservations if one.sku == sku and one.state in SOLD)
            assert campaign.used.get(f"stock/{sku}", 0) == sold, f"{name}: {sku} is held for ever"
    assert not seen.deadlines


def _ms(at: str) -> int:

    return int(datetime.fromisoformat(at).timestamp() * 1000)


def _note(event: Event) -> None:
    """What a sequence has reached."""
    one = event.reservation
    assert one is not None
    facts = one.facts
    REACHED.note(f"event: {event.type}")
    REACHED.note(f"{facts.kind} {one.state}")
    if any(counter.startswith(GIFT) for counter, _ in one.claims):
        REACHED.note("gift given")
    if event.type == "confirmed":
        REACHED.note("confirmed with nothing left to pay")
    if event.type == "taken_back" and one.state is State.REFUNDED:
        REACHED.note("trade-in taken back and refunded")
    if event.type == "cancelled" and facts.kept:
        REACHED.note("cancelled, deposit kept")
    if event.type == "cancelled" and facts.refunds:
        REACHED.note("cancelled, deposit given back")
    if event.type == "amended" and any(r.reason == "amended" for r in facts.refunds.values()):
        REACHED.note("amended down, difference given back")
    if event.type == "payment_succeeded" and b'"late":true' in event.data:
        REACHED.note(f"paid late, taken again: {one.state}")
    if any(r.reason == "superseded" for r in facts.refunds.values()):
        REACHED.note("superseded payment given back")
    if len([p for p in facts.payments.values() if p.status is PaymentStatus.SUCCEEDED]) > 1:
        REACHED.note("two payments succeeded")
    if facts.items:
        REACHED.note("bundle")
    if facts.price.discounts and one.state is State.CONFIRMED:
        REACHED.note("spend-and-save, paid")
    if one.state is State.CONFIRMED and facts.price.deposit_worth > facts.price.deposit:
        REACHED.note("deposit expansion, paid")
