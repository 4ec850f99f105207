"""Sequences of steps, drawn so that the deep states are reached often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from hypothesis import strategies as st

from reservation.administration import Action
from reservation.ids import Stage
from reservation.paying import NoticeType
from tests.properties import steps as s
from tests.properties.campaigns import SCENES, quota, scenes
from tests.properties.steps import NEWEST, Pick, Step
from tests.properties.worlds import ORDERS, SKUS, USERS

Chain = list[Step]


class Taken(NamedTuple):
    """A step, and what is special about how it is taken."""

    step: Step
    stale: bool = False
    """The gateway has not heard of the campaigns' last changes."""
    amid: Step | None = None
    """Comes in before this step's first write."""


@dataclass(frozen=True)
class Sequence:
    """Campaigns, and what happens to them."""

    documents: list[dict[str, Any]]
    steps: list[Taken]


users, skus, orders = st.sampled_from(USERS), st.sampled_from(SKUS), st.sampled_from(list(ORDERS))
quantities = st.sampled_from([1, 1, 1, 2, 2, 3, 4])
wanted = st.sampled_from([*SKUS * 8, "ghost"])
campaigns = st.integers(0, 2)
often_none = st.sampled_from([False] * 7 + [True])
live = st.builds(Pick, st.integers(0, 5), st.just("live"))
picks = st.one_of(
    live,
    st.builds(Pick, st.integers(0, 5), st.sampled_from(["held", "deposit_paid", "confirmed", "forfeited"])),
    st.builds(Pick, st.integers(0, 9), st.sampled_from(["any", "expired", "cancelled", "refunded"])),
)
OK = NoticeType.PAYMENT_SUCCEEDED


def paid(pick: Pick) -> Chain:
    return [s.Ask(pick), s.Notify(pick, OK)]


reserves = st.builds(s.Reserve, users, st.integers(0, 30), wanted, quantities, campaign=campaigns)


crowds = st.builds(
    s.Crowd,
    # Few keys, so that some of a crowd come twice.
    st.lists(st.tuples(users, st.integers(0, 30) | st.integers(0, 1)), min_size=2, max_size=8).map(tuple),
    st.sampled_from(["gold", "gold", "gold", None]),
    wanted,
    st.sampled_from([1, 1, 2]),
    campaigns,
    st.booleans(),
)


@st.composite
def orders_used(draw: st.DrawFn) -> tuple[str, str | None]:
    """A user and their main order; now and then another's, or none."""
    order = draw(orders)
    user = draw(users) if draw(often_none) else ORDERS[order]
    return user, None if draw(often_none) else order


@st.composite
def reserves_to_order(draw: st.DrawFn) -> s.Reserve:
    user, order = draw(orders_used())
    return s.Reserve(user, draw(st.integers(0, 30)), draw(skus), draw(quantities), order, draw(campaigns))


@st.composite
def joins_to_order(draw: st.DrawFn) -> s.Join:
    user, order = draw(orders_used())
    return s.Join(user, draw(skus), draw(quantities), order, draw(campaigns))


wait = st.builds(s.Wait, st.sampled_from([1, 1_000, 5_000, 20_000, 41_000]))
until = st.builds(s.Until, st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([0, 0, -1, 1]))
notify = st.builds(
    s.Notify,
    picks,
    st.sampled_from([OK, OK, OK, NoticeType.PAYMENT_FAILED, NoticeType.REFUND_SUCCEEDED]),
    st.sampled_from([0, 0, 1, 2, 3]),
    st.sampled_from([0, 0, 0, 0, 1, -1]),
    st.sampled_from(["CNY", "CNY", "CNY", "CNY", "EUR"]),
    st.sampled_from(["ref", "another"]),
    st.booleans(),
)
refunded = st.builds(s.Notify, picks, st.just(NoticeType.REFUND_SUCCEEDED), st.integers(0, 2))
amend = st.builds(s.Amend, picks, quantities, often_none)
windows = st.builds(
    s.MoveWindow,
    st.sampled_from(["closes_at", "balance_opens_at", "balance_closes_at"] * 3 + ["opens_at"]),
    st.sampled_from([30, 60, 200, -60, -200]),
    campaigns,
)
change = st.one_of(
    st.builds(s.Change, st.just("price"), st.sampled_from([100, 150, 300]), campaigns),
    st.builds(s.Change, st.sampled_from(["per_user", "offer.per_user"]), quota, campaigns),
    st.builds(s.Change, st.sampled_from(["grants", "first", "gifts"]), st.sampled_from([1, 2, 4]), campaigns),
    st.builds(s.Change, st.just("min_spend"), st.sampled_from([0, 100, 100, 500]), campaigns),
    st.builds(s.Change, st.just("deposit"), st.sampled_from([10, 40]), campaigns),
    st.builds(s.Change, st.just("deposit_refundable"), st.sampled_from([None, True, False]), campaigns),
    st.builds(s.Change, st.sampled_from(["waitlist"]), st.sampled_from([None, False]), campaigns),
    st.builds(s.Change, st.just("offer gone"), st.none(), campaigns),
)  # fmt: skip
join = st.builds(s.Join, users, skus, quantities, campaign=campaigns)
rank = st.builds(s.Rank, st.none() | users, st.sampled_from([10, 1]), campaigns)
operate = st.builds(
    s.Operate,
    st.sampled_from([Action.PAUSE, Action.RESUME] * 8 + [Action.CLOSE]),
    campaigns,
)
report = st.builds(
    s.Report,
    orders,
    st.sampled_from([100, 100, 60, 0]),
    st.sampled_from([60, 60, 100, 0]),
    st.sampled_from([None] * 7 + ["dan"]),
    often_none,
)


LATE = [s.Until(0), s.Sweep(), s.Notify(NEWEST, OK)]


def with_order(step: s.Reserve) -> Chain:
    """With its main order paid."""
    return [s.Report(step.order, 100, 60), step] if step.order else [step]


@st.composite
def sold_out(draw: st.DrawFn, reserving: st.SearchStrategy[s.Reserve]) -> Chain:
    """The others take what there is of one offer, and some pay."""
    sku, campaign = draw(skus), draw(campaigns)
    chain: Chain = []
    for _ in range(3):
        step = replace(draw(reserving), sku=sku, campaign=campaign, quantity=draw(st.sampled_from([2, 1, 3])))
        chain += with_order(step)
        chain += paid(NEWEST) if draw(st.booleans()) else []
    return chain


def in_line(found: tuple[Chain, list[s.Join], s.Join | None, Chain]) -> Chain:
    """Some stand in line, perhaps one of them for another quantity then, and somebody makes room."""
    chain, joins, again, ends = found
    first = next(step for step in chain if isinstance(step, s.Reserve))
    line: Chain = []
    for join in joins:
        line += [s.Report(join.order, 100, 60)] if join.order else []
        line.append(replace(join, sku=first.sku, campaign=first.campaign))
    if again is not None:
        line.append(replace(joins[0], sku=first.sku, campaign=first.campaign, quantity=again.quantity))
    return [*chain, *line, *ends, s.Serve(), *paid(NEWEST)]


def ends_later(found: tuple[s.MoveWindow, s.Rank, s.Rank]) -> Chain:
    """An end that is moved away from a ranking that stood already."""
    later, first, last = found
    campaign = later.campaign
    ranks = (replace(first, campaign=campaign), replace(last, campaign=campaign))
    return [s.UntilWindow("ends_at"), ranks[0], later, ranks[1], s.UntilWindow("ends_at"), ranks[1]]


def superseded(found: tuple[s.Amend, int, bool]) -> Chain:
    first, quantity, both = found
    chain = [first, s.Ask(first.pick), s.Amend(first.pick, quantity), s.Ask(first.pick)]
    chain.append(s.Notify(first.pick, OK, 1))
    return [*chain, s.Notify(first.pick, OK)] if both else chain


def kept(step: s.Reserve) -> Chain:
    """A second deposit that is paid when the reservation was cancelled, and the first one perhaps kept."""
    more = [s.Amend(NEWEST, step.quantity + 1), s.Ask(NEWEST)]
    return [*with_order(step), *paid(NEWEST), *more, s.Cancel(NEWEST), s.Notify(NEWEST, OK)]


def forfeited(pick: Pick) -> Chain:
    """A balance that is asked for in time, and paid too late."""
    return [s.Ask(pick), s.UntilWindow("balance_closes_at"), s.Sweep(), s.Notify(Pick(0, "forfeited"), OK)]


def taken_back(found: tuple[s.Reserve, int]) -> Chain:
    """A trade-in, perhaps paid, whose main order is cancelled or given back in part."""
    step, how = found
    order = step.order or "order-1"
    pay: Chain = [s.PayWithOrder(NEWEST)] if how % 2 else []
    return [*with_order(step), *pay, s.CancelOrder(order) if how > 1 else s.Report(order, 0, 10)]


def one(step: st.SearchStrategy[Any]) -> st.SearchStrategy[Chain]:
    return step.map(lambda found: [found])


def weighted(*choices: tuple[int, st.SearchStrategy[Chain]]) -> st.SearchStrategy[Chain]:
    """So many parts of each; the first is the simplest."""
    indices = [index for index, (weight, _) in enumerate(choices) for _ in range(weight)]
    return st.sampled_from(indices).flatmap(lambda index: choices[index][1])


def chains(kinds: tuple[str, ...], selling: int) -> st.SearchStrategy[Chain]:
    """What happens; `selling` says how much of it is new."""
    takes_orders = "trade_in" in kinds
    reserving, joining = reserves, join
    if set(kinds) == {"trade_in"}:
        reserving, joining = reserves_to_order(), joins_to_order()
    elif takes_orders:
        reserving, joining = reserves | reserves_to_order(), join | joins_to_order()
    deposit_paid = st.builds(Pick, st.integers(0, 3), st.just("deposit_paid"))
    ends: st.SearchStrategy[Chain] = st.sampled_from(
        [[s.Cancel(Pick(0, "live"))], [s.Until(0), s.Sweep()], [s.Restock("phone", 1)]]
    )
    joins = st.lists(joining, min_size=1, max_size=3)
    later = st.builds(
        s.MoveWindow, st.sampled_from(["balance_closes_at", "closes_at"]), st.just(200), campaigns
    )
    choices: list[tuple[int, st.SearchStrategy[Chain]]] = [
        (1, one(wait)),
        (selling, reserving.map(with_order)),
        (2 * selling, reserving.map(lambda step: [*with_order(step), *paid(NEWEST)])),
        (2 * selling, st.tuples(crowds, picks).map(lambda found: [found[0], *paid(found[1])])),
        # Who stands in line until somebody makes room.
        (2 * selling, st.tuples(sold_out(reserving), joins, st.none() | joining, ends).map(in_line)),
        (2, live.map(paid)),
        (1, deposit_paid.map(paid)),
        (2, picks.map(paid)),
        (2, one(st.builds(s.Ask, picks, st.none() | st.sampled_from(list(Stage))))),
        (4, one(notify)),
        (1, live.map(lambda pick: [s.Ask(pick), s.Notify(pick, NoticeType.PAYMENT_FAILED), *paid(pick)])),
        (1, one(refunded)),
        (2, one(st.builds(s.Cancel, picks, often_none))),
        (2, st.just([s.Sweep(), s.Serve()])),
        (1, st.just([s.Sweep()])),
        (1, st.just([s.Until(0), s.Overdue()])),
        (1, one(st.builds(s.Lapse, picks))),
        (2, one(until)),
        (selling, one(joining)),
        # A payment that comes too late.
        (selling, reserving.map(lambda step: [*with_order(step), s.Ask(NEWEST), *LATE])),
        (1, one(st.builds(s.Leave, users, st.none() | skus, campaigns))),
        (1, st.just([s.Serve()])),
        (1, one(st.builds(s.Restock, skus, st.sampled_from([1, 2, -1, -3]), campaigns))),
        (1, one(change)),
        (1, one(windows)),
        (1, one(rank)),
        (0 if selling else 2, st.tuples(later, rank, rank).map(ends_later)),
        (1, one(st.builds(s.Again, st.integers(0, 8)))),
    ]
    if selling:
        choices.append((1, operate.map(lambda step: [step, s.Operate(Action.RESUME, step.campaign)])))
        choices.append((1, one(operate)))
    if "presale" in kinds:
        more = st.builds(s.Amend, deposit_paid, quantities)
        choices += [
            (2, one(amend)),
            (1 + 2 * selling, more.map(lambda step: [step, *paid(step.pick)])),
            # What is not paid of a change in time.
            (selling, more.map(lambda step: [step, s.Until(0), s.Sweep()])),
            # A payment that was asked for before the quantity was changed, and comes all the same.
            (1, st.tuples(more, quantities, st.booleans()).map(superseded)),
            (1, st.just([s.Reschedule()])),
            (selling, reserving.map(kept)),
            (0 if selling else 4, deposit_paid.map(forfeited)),
        ]
    if takes_orders:
        choices.append((2, one(report)))
        choices.append((1, one(st.builds(s.CancelOrder, orders, often_none))))
        choices.append((1, st.just([s.Finish()])))
        choices.append((2, st.tuples(reserves_to_order(), st.integers(0, 3)).map(taken_back)))
        choices.append((3, one(st.builds(s.PayWithOrder, picks, st.sampled_from([0, 0, 0, 1]), often_none))))
    return weighted(*choices)


def to_the_same(step: Step) -> st.SearchStrategy[Step]:
    """What may come in between a step's look at a reservation, or a main order, and its move."""
    pick, order = getattr(step, "pick", NEWEST), getattr(step, "order", None)
    if order is not None:
        return st.sampled_from(
            [s.CancelOrder(order), s.Report(order, 0, 10), s.CancelOrder(order, dies=True)]
        )
    return st.sampled_from(
        [
            s.Cancel(pick),
            s.Notify(pick, OK),
            s.Amend(pick, 2),
            s.Ask(pick),
            s.Sweep(),
            s.Notify(pick, NoticeType.REFUND_SUCCEEDED),
        ]
    )


@st.composite
def sequences(draw: st.DrawFn) -> Sequence:
    """Before the opening, while it sells, while the rest is paid, and after."""
    scene = draw(st.sampled_from(["presale"] * 4 + ["trade_in"] * 2 + ["all", "flash_sale"]))
    kinds = SCENES[scene]
    documents = draw(scenes(scene))
    selling, after = st.lists(chains(kinds, 2), min_size=3), st.lists(chains(kinds, 0), min_size=1)
    acts: list[Chain] = [[step for chain in draw(st.lists(chains(kinds, 1), max_size=3)) for step in chain]]
    if "trade_in" in kinds:
        acts += [draw(st.lists(report, max_size=4))]
    acts.append([s.UntilWindow("opens_at", -1)])
    acts.append([step for chain in draw(st.lists(chains(kinds, 2), max_size=2)) for step in chain])
    windows: list[str | None] = ["opens_at", None, None, None]
    presale = ["closes_at", "balance_opens_at", None, "balance_closes_at"]
    windows += presale if "presale" in kinds else ["ends_at"]
    for number, window in enumerate(windows):
        if window is not None:
            off_ms = draw(st.sampled_from([0] * 8 + [-1])) if number else 0
            acts.append([s.UntilWindow(window, off_ms)])
        if number == 0:
            acts.append(draw(st.lists(crowds, max_size=2)))
        acts.append([step for chain in draw(selling if number < 4 else after) for step in chain])
    taken = []
    between = chains(kinds, 2).map(lambda chain: chain[0])
    for step in (step for act in acts for step in act):
        special = draw(st.sampled_from([""] * 16 + ["stale"] * 4 + ["amid"] * 3))
        if special == "amid" and isinstance(step, s.Crowd):
            special = ""  # whom of a crowd it would come before is anybody's guess
        amid = draw(between | to_the_same(step)) if special == "amid" else None
        taken.append(Taken(step, special == "stale", amid))
    return Sequence(documents, taken)
