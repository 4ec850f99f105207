"""The steps that a sequence is made of. Each says what it does, given what there is to do it to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from reservation import paying, steps
from reservation.administration import Action
from reservation.campaign import Campaign, Status, rfc3339
from reservation.catalog import parse_campaign
from reservation.desk import Request, Reserved
from reservation.ids import PaymentId, Stage, digest_of
from reservation.kernel import Claim, optional
from reservation.main_order import ReportedOrder
from reservation.outcomes import Outcome
from reservation.paying import Notice, NoticeType
from reservation.record import LIVE, RefundStatus, Reservation, State
from reservation.validation import parse
from tests.properties.campaigns import changed, moved
from tests.properties.clock import START_MS
from tests.properties.worlds import ORDERS, TIERS, Seen, World

Act = Callable[[World], Awaitable[object]]
SWEEPS_MAX = 50


class Pick(NamedTuple):
    """One of the reservations that there are."""

    number: int = 0
    """From the newest on."""
    among: str = "any"
    """any, live, or a state; any where there is none of that."""

    def of(self, seen: Seen) -> Reservation | None:
        found = seen.reservations[::-1]
        if self.among != "any":
            states = LIVE if self.among == "live" else {State(self.among)}
            found = [one for one in found if one.state in states] or found
        return found[self.number % len(found)] if found else None


NEWEST = Pick()


@dataclass(frozen=True)
class Step:
    """One step. `act` is None where there is nothing to do it to."""

    def act(self, seen: Seen) -> Act | None:
        raise NotImplementedError


@dataclass(frozen=True)
class Reserve(Step):
    user: str
    key: int
    sku: str
    quantity: int
    order: str | None = None
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        request = Request(self.sku, self.quantity, self.order)
        return lambda world: world.desk.reserve(campaign, self.user, TIERS[self.user], str(self.key), request)


@dataclass(frozen=True)
class Crowd(Step):
    """Several ask for the same at once, some of them more than once."""

    who: tuple[tuple[str, int], ...]
    """User and key."""
    tier: str | None
    sku: str
    quantity: int
    campaign: int = 0
    spare: bool = False
    """Something goes with it that not all of them get. No kind of campaign has such, and the kernel does."""

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)

        def one(user: str, key: int) -> Act:
            if self.spare:
                return lambda world: self._with_spare(world, campaign, user, key)
            request = Request(self.sku, self.quantity)
            return lambda world: world.desk.reserve(campaign, user, self.tier, str(key), request)

        return lambda world: world.crowd([one(user, key) for user, key in self.who])

    async def _with_spare(self, world: World, campaign_id: str, user: str, key: int) -> object:
        campaign = await world.catalog.get(campaign_id)
        assert campaign is not None
        usual, _ = world.desk.usual_terms(campaign, self.tier, self.sku, self.quantity)
        if usual not in world.spare_terms:
            spare = (Claim("spare", 1, 2, optional("spare")), Claim("spare@", 1, 1, optional("spare")))
            world.spare_terms[usual] = replace(usual, claims=(*spare, *usual.claims))
        digest = digest_of(campaign_id, user, str(key))
        outcome, _, found = await world.store.reserve(world.spare_terms[usual], digest, user)
        if outcome in (Outcome.MOVED, Outcome.REPLAYED) and found is not None:
            return Reserved(found, outcome is Outcome.REPLAYED)
        return ("refused", outcome, found)


@dataclass(frozen=True)
class Amend(Step):
    pick: Pick
    quantity: int
    by_another: bool = False

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        user = who(found, self.by_another)
        return (lambda world: world.desk.amend(found.id, user, self.quantity)) if found else None


@dataclass(frozen=True)
class Cancel(Step):
    pick: Pick
    by_another: bool = False

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        user = who(found, self.by_another)
        return (lambda world: world.desk.cancel(found.id, user)) if found else None


@dataclass(frozen=True)
class Ask(Step):
    """Ask to pay a stage; what is due, unless said otherwise."""

    pick: Pick
    stage: Stage | None = None

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        if found is None:
            return None
        due = steps.due(found)
        stage = self.stage or (due.stage if due else steps.kind_of(found).stages[-1])
        return lambda world: world.desk.request_payment(found.id, found.user, stage)


@dataclass(frozen=True)
class Notify(Step):
    """The provider's word on a payment."""

    pick: Pick
    type: NoticeType
    payment: int = 0
    """From the newest on; 0 is the one that is due, if any."""
    over: int = 0
    currency: str = "CNY"
    ref: str = "ref"
    says_refund: bool = True

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        if found is None:
            return None
        facts = found.facts
        refunds = sorted(facts.refunds.values(), key=lambda one: one.status is not RefundStatus.PENDING)
        if self.type is NoticeType.REFUND_SUCCEEDED and refunds:
            refund = refunds[self.payment % len(refunds)]
            name, amount, of = refund.payment, refund.amount, refund.name
        else:
            due, of = steps.due(found), None
            names = list(facts.payments)[::-1] or [steps.kind_of(found).stages[0]]
            name = names[self.payment % len(names)]
            asked = paying.payment_of(found, due.stage) if due else None
            if self.payment == 0 and asked:
                name = asked.name
            amount = facts.payments[name].amount if name in facts.payments else 100
        refund_name = of if self.says_refund else None
        notice = Notice(self.type, name, amount + self.over, self.currency, self.ref, refund_name)
        return lambda world: world.desk.take_notice(PaymentId(found.id, name), notice)


@dataclass(frozen=True)
class PayWithOrder(Step):
    pick: Pick
    over: int = 0
    to_another: bool = False
    ref: str = "order-ref"

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        if found is None:
            return None
        due = steps.due(found)
        amount = (due.amount if due else found.facts.price.amount(Stage.FULL)) + self.over
        order = "order-9" if self.to_another else found.facts.order_id or "order-1"
        return lambda world: world.desk.pay_with_order(found.id, order, amount, "CNY", self.ref)


@dataclass(frozen=True)
class Lapse(Step):
    """Look at one reservation's deadline, whether it has passed or not."""

    pick: Pick

    def act(self, seen: Seen) -> Act | None:
        found = self.pick.of(seen)
        return (lambda world: world.desk.lapse(found.id)) if found else None


@dataclass(frozen=True)
class Sweep(Step):
    """All that is due, until nothing is."""

    def act(self, seen: Seen) -> Act | None:
        return sweep


async def sweep(world: World) -> object:
    done: list[tuple[str, bool]] = []
    for _ in range(SWEEPS_MAX):
        due = sorted(await world.desk.due(1_000), key=str)
        if not due:
            return done
        done += [(str(one), await world.desk.lapse(one)) for one in due]
    raise AssertionError(f"the sweeper is never done: {due}")


@dataclass(frozen=True)
class Overdue(Step):
    """A sweeper learns what is due, and dies before it does anything about it."""

    def act(self, seen: Seen) -> Act | None:
        async def overdue(world: World) -> object:
            return sorted(map(str, await world.desk.due(1_000)))

        return overdue


@dataclass(frozen=True)
class Reschedule(Step):
    """All whose deposit is paid, by the windows as they are now."""

    def act(self, seen: Seen) -> Act | None:
        paid = [one.id for one in seen.reservations if one.state is State.DEPOSIT_PAID]

        async def keep(world: World) -> object:
            return [await world.desk.keep_appointments(one) for one in paid]

        return keep if paid else None


@dataclass(frozen=True)
class Join(Step):
    user: str
    sku: str
    quantity: int
    order: str | None = None
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        request = Request(self.sku, self.quantity, self.order)
        return lambda world: world.waitlist.join(campaign, self.user, TIERS[self.user], request)


@dataclass(frozen=True)
class Leave(Step):
    user: str
    sku: str | None
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        return lambda world: world.waitlist.leave(campaign, self.user, self.sku)


@dataclass(frozen=True)
class Serve(Step):
    def act(self, seen: Seen) -> Act | None:
        return lambda world: world.waitlist.serve()


@dataclass(frozen=True)
class Report(Step):
    """A main order, of so much for a tv and so much for the home."""

    order: str
    tv: int
    home: int
    user: str | None = None
    dies: bool = False

    def act(self, seen: Seen) -> Act | None:
        lines = [{"sku": "tv", "amount": self.tv}, {"sku": "lamp", "category": "home", "amount": self.home}]
        report = parse(
            ReportedOrder,
            {
                "order_id": self.order,
                "user": self.user or ORDERS[self.order],
                "paid_at": rfc3339(START_MS),
                "lines": [line for line in lines if line["amount"]],
            },
        )
        return lambda world: perhaps_dying(world, self.dies, lambda: world.orders.report(report))


@dataclass(frozen=True)
class CancelOrder(Step):
    order: str
    dies: bool = False

    def act(self, seen: Seen) -> Act | None:
        return lambda world: perhaps_dying(world, self.dies, lambda: world.orders.cancel(self.order))


async def perhaps_dying(world: World, dies: bool, act: Callable[[], Awaitable[object]]) -> object:
    world.orders.dies = dies
    try:
        return await act()
    finally:
        world.orders.dies = False


@dataclass(frozen=True)
class Finish(Step):
    """The orders whose campaigns were not told."""

    def act(self, seen: Seen) -> Act | None:
        return finish


async def finish(world: World) -> object:
    unfinished = await world.orders.unfinished()
    for order in unfinished:
        await world.orders.finish(order)
    return unfinished


@dataclass(frozen=True)
class Restock(Step):
    sku: str
    delta: int
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        return lambda world: world.office.restock(campaign, self.sku, self.delta)


@dataclass(frozen=True)
class MoveWindow(Step):
    window: str
    seconds: int
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        document = seen.campaigns[campaign_of(seen, self.campaign)].document
        return put(moved(document, self.window, self.seconds))


@dataclass(frozen=True)
class Change(Step):
    what: str
    value: Any
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        document = seen.campaigns[campaign_of(seen, self.campaign)].document
        return put(changed(document, self.what, self.value))


def put(document: dict[str, Any]) -> Act:
    async def act(world: World) -> object:
        return await world.office.put(parse_campaign(document))

    return act


@dataclass(frozen=True)
class Operate(Step):
    action: Action
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        return lambda world: world.office.act(campaign, self.action)


@dataclass(frozen=True)
class Rank(Step):
    user: str | None
    limit: int = 10
    campaign: int = 0

    def act(self, seen: Seen) -> Act | None:
        campaign = campaign_of(seen, self.campaign)
        return lambda world: world.store.ranking(campaign, self.user, self.limit)


@dataclass(frozen=True)
class Again(Step):
    """A move, or what a new reservation was asked for with, arrives once more, as it was sent before."""

    number: int

    def act(self, seen: Seen) -> Act | None:
        async def again(world: World) -> object:
            sent = world.watched.sent
            return await sent[-1 - self.number % len(sent)].again() if sent else None

        return again


@dataclass(frozen=True)
class Wait(Step):
    ms: int

    def act(self, seen: Seen) -> Act | None:
        return lambda world: go_on_to(world, world.clock.ms + self.ms)


@dataclass(frozen=True)
class Until(Step):
    """To one of the deadlines, the next being 0; or just before or after it."""

    number: int
    off_ms: int = 0

    def act(self, seen: Seen) -> Act | None:
        ahead = sorted(at for at in set(seen.deadlines.values()) if at > seen.now_ms)
        if not ahead:
            return None
        at = max(seen.now_ms, ahead[self.number % len(ahead)] + self.off_ms)
        return lambda world: go_on_to(world, at)


@dataclass(frozen=True)
class UntilWindow(Step):
    """To a window's edge of the first campaign that has it, or 1 ms before."""

    window: str
    off_ms: int = 0

    def act(self, seen: Seen) -> Act | None:
        edges = [edge_of(seen, name, self.window) for name in seen.campaigns]
        ahead = [at for at in edges if at is not None and at > seen.now_ms]
        return (lambda world: go_on_to(world, ahead[0] + self.off_ms)) if ahead else None


async def go_on_to(world: World, ms: int) -> None:
    world.clock.set(max(world.clock.ms, ms))


def edge_of(seen: Seen, campaign: str, window: str) -> int | None:
    """An edge of a campaign's windows, in ms."""

    found = Campaign(parse_campaign(seen.campaigns[campaign].document), 0, Status.RUNNING, 0)
    if not window.startswith("balance"):
        at: int = getattr(found, f"{window}_ms")
        return at
    if found.balance is None:
        return None
    return found.balance.opens_at_ms if window == "balance_opens_at" else found.balance.closes_at_ms


def campaign_of(seen: Seen, number: int) -> str:
    names = list(seen.campaigns)
    return names[number % len(names)]


def who(found: Reservation | None, another: bool) -> str:
    return "somebody" if found is None or another else found.user
