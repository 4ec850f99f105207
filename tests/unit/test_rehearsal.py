"""A rehearsal's copies, readings and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest

from doorbuster.apply import read_campaigns, sample_files
from loadtests.rehearsal.crowd import crowd, opening
from loadtests.rehearsal.document import copy_id, main_order, sandbox_copy, wanted
from loadtests.rehearsal.exposition import Reading, gained, percentile_s
from loadtests.rehearsal.figures import Figures, Told, told
from loadtests.rehearsal.rehearse import Rehearsal
from loadtests.rehearsal.steps import rates
from loadtests.rehearsal.table import HEAD, conclusion, row
from loadtests.rehearsal.verdict import (
    ELSEWHERE,
    GATEWAY,
    GENERATOR,
    OUTBOX,
    POSTGRES,
    REDIS,
    WORKER,
    Limits,
    broken,
    verdict,
)
from reservation.campaign import Campaign, Status
from reservation.catalog import parse_campaign
from reservation.kinds import KINDS
from reservation.main_order import MainOrder, ReportedOrder
from reservation.validation import parse

SAMPLES = {one.kind: one.to_json() for path in sample_files() for one in read_campaigns(path)}
NOW = datetime(2026, 11, 4, 12, tzinfo=UTC)
WINDOWS = ("warm_up_at", "opens_at", "closes_at", "balance_opens_at", "balance_closes_at")


# --- The copy -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_copy_opens_now_and_is_otherwise_the_same(kind: str) -> None:
    document = SAMPLES[kind]

    made = sandbox_copy(document, copy_id(document["id"], "abcd1234", 1), NOW, open_seconds=600)

    copied = parse_campaign(made).to_json()
    assert copied["id"] == f"rehearsal-{document['id']}-abcd1234-1"
    assert datetime.fromisoformat(copied["opens_at"]) == NOW
    gaps = [
        datetime.fromisoformat(both["closes_at"]) - datetime.fromisoformat(both["opens_at"])
        for both in (copied, document)
    ]
    assert gaps[0] == gaps[1]
    assert copied["title"] == f"Rehearsal: {document['title']}", "who lists campaigns sees what it is"
    may = {"id", "title", "entitlement", *WINDOWS} | ({"offers"} if kind == "trade_in" else set())
    assert {name for name in copied if copied[name] != document[name]} <= may


def test_a_campaign_of_seconds_stays_open_for_its_rehearsal() -> None:
    document = SAMPLES["presale"] | {
        "opens_at": "2026-01-01T00:00:00Z",
        "closes_at": "2026-01-01T00:00:05Z",
        "balance_opens_at": "2026-01-01T00:01:05Z",
        "balance_closes_at": "2026-01-01T00:02:05Z",
    }

    made = sandbox_copy(document, "copy", NOW, open_seconds=600)

    at = {window: datetime.fromisoformat(made[window]) - NOW for window in WINDOWS if window in made}
    assert at["closes_at"] == timedelta(seconds=600)
    assert at["balance_opens_at"] == timedelta(seconds=660)
    parse_campaign(made)


def test_no_id_and_no_title_is_too_long_to_be_copied() -> None:
    name = copy_id("x" * 64, "abcd1234", 20)

    parse_campaign(sandbox_copy(SAMPLES["flash_sale"] | {"title": "x" * 200}, name, NOW, 600))
    assert len(name) == 64
    assert name.endswith("-abcd1234-20")


@pytest.mark.parametrize(
    "condition", [{"skus": ["tv-65"], "min_spend": 300_000}, {"categories": ["tv"]}, {"min_spend": 10_000}]
)
def test_a_copys_main_orders_entitle_there_and_nowhere_else(condition: dict[str, Any]) -> None:
    document = SAMPLES["trade_in"] | {"entitlement": condition | {"grants": 2}}
    copied = sandbox_copy(document, "copy", NOW, 600)
    order = MainOrder.of(parse(ReportedOrder, main_order("order-1", "ann")))

    def granted(found: dict[str, Any]) -> set[int]:
        campaign = Campaign(parse_campaign(found), 1, Status.RUNNING, 0)
        return set(KINDS["trade_in"].grants(campaign, order).values())

    assert granted(copied) == {2}, "of the campaign, and of each offer with a condition of its own"
    assert granted(document) == {0}


def test_shoppers_ask_for_each_offer_in_turn_with_the_tier_that_may_have_it() -> None:
    document = SAMPLES["trade_in"] | {"tiers": ["diamond", "silver"]}
    skus = wanted(document)

    assert ("console", "diamond") in skus
    assert len(skus) == 4
    people = crowd(6, skus, "run", lambda user, tier: f"{user}/{tier}", takes_orders=True)
    assert [one.sku for one in people] == [skus[n % 4][0] for n in range(6)]
    assert len({one.user for one in people}) == len({one.order_id for one in people}) == 6


def test_what_no_tier_may_have_cannot_be_rehearsed() -> None:
    document = {"tiers": ["silver"], "offers": [{"sku": "console", "tiers": ["gold"]}]}

    with pytest.raises(ValueError, match="no tier"):
        wanted(document)


def test_every_shopper_comes_once_before_any_comes_twice() -> None:
    people = crowd(3, [("phone", None)], "run", lambda user, tier: user, takes_orders=False)
    request_of = opening(urlsplit("http://h/v1/campaigns/c/reservations"), people, "run-1")

    asked = [request_of(n) for n in range(6)]
    users = [request.split(b"Bearer ")[1].split(b"\r\n")[0] for request in asked]
    keys = {request.split(b"Idempotency-Key: ")[1].split(b"\r\n")[0] for request in asked}
    assert users == [one.user.encode() for one in people] * 2
    assert len(keys) == 6


# --- What metrics say ---------------------------------------------------------------------------

BEFORE = """\
# TYPE lag histogram
lag_bucket{role="gateway",le="0.01"} 10
lag_bucket{role="gateway",le="0.1"} 10
lag_bucket{role="gateway",le="+Inf"} 10
# TYPE asked counter
asked_total{outcome="held"} 5
"""
AFTER = """\
# TYPE lag histogram
lag_bucket{role="gateway",le="0.01"} 10
lag_bucket{role="gateway",le="0.1"} 110
lag_bucket{role="gateway",le="+Inf"} 110
lag_bucket{role="worker",le="0.01"} 0
lag_bucket{role="worker",le="0.1"} 0
lag_bucket{role="worker",le="+Inf"} 900
# TYPE asked counter
asked_total{outcome="held"} 8
asked_total{outcome="sold_out"} 4
"""


def test_only_what_was_observed_in_between_counts() -> None:
    before, after = Reading(BEFORE), Reading(AFTER)

    assert gained(before, after, "asked_total") == 7
    assert gained(before, after, "asked_total", outcome="held") == 3
    assert percentile_s(before, after, "lag", 50, role="gateway") == pytest.approx(0.055)
    assert percentile_s(before, after, "lag", 99, role="worker") == 0.1, "more than the last bound"


def test_what_a_deployment_does_not_say_is_not_made_up() -> None:
    reading = Reading(AFTER)

    assert gained(reading, reading, "unheard_of_total") is None
    assert percentile_s(reading, reading, "lag", 99) is None, "nothing was observed meanwhile"
    assert told(reading, reading) == told(None, reading) == Told()


def test_redis_is_as_slow_as_what_shoppers_wait_for_there() -> None:
    def reading(reserved: int, looked: int) -> Reading:
        lines = [
            f'took_bucket{{command="{command}",role="gateway",le="{bound}"}} {count}'
            for command, counts in (("reserve", (reserved, reserved)), ("standing", (0, looked)))
            for bound, count in zip(("0.01", "+Inf"), counts, strict=True)
        ]
        name = "doorbuster_store_command_duration_seconds"
        return Reading("\n".join([f"# TYPE {name} histogram", *lines, ""]).replace("took", name))

    assert told(reading(0, 0), reading(100, 100)).store_p99_ms == pytest.approx(9.9)


# --- The verdict --------------------------------------------------------------------------------

LIMITS = Limits()
FINE = Figures(
    rate=100.0,
    arrivals=1000,
    seconds=10.0,
    admitted=200,
    refused=800,
    overloaded=0,
    other=0,
    unanswered=0,
    statuses={201: 200, 409: 800},
    faults={},
    p50_ms=3.0,
    p99_ms=20.0,
    generator_lag_p99_ms=1.0,
    generator_faults=[],
    told=Told(gateway_p99_ms=15.0, loop_lag_p99_ms=2.0, store_p99_ms=4.0, outbox_oldest_s=0.1),
    processes={"gateway": 2, "redis": 1, "worker": 1},
    cores={"gateway": 0.6, "redis": 0.2, "worker": 0.2, "postgres": 0.2},
)
SLOW = replace(FINE, rate=200.0, p99_ms=900.0)


def saturates(*steps: Figures) -> str | None:
    return verdict(steps, LIMITS, planned=9).saturates


def test_what_keeps_every_limit_up_to_the_peak_holds() -> None:
    found = verdict([FINE, replace(FINE, rate=200.0)], LIMITS, planned=2)

    assert (found.holds, found.rate_held, found.saturates) == (True, 200.0, None)
    assert conclusion(found, 200) == ["verdict: holds at 200 arrivals/s"]


def test_a_rehearsal_that_ended_early_does_not_hold() -> None:
    found = verdict([FINE], LIMITS, planned=2)

    assert not found.holds
    assert "not known" in conclusion(found, 200)[0]


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (replace(FINE, p99_ms=501.0), "p99"),
        (replace(FINE, overloaded=11), "overloaded"),
        (replace(FINE, unanswered=2, faults={"timed_out": 2}), "timed_out 2"),
        (replace(FINE, other=1, statuses={403: 1}), "403: 1"),
        (replace(FINE, told=replace(FINE.told, outbox_oldest_s=6.0)), "outbox"),
        (replace(FINE, told=replace(FINE.told, settlement_lag_p99_s=11.0)), "rows"),
    ],
)
def test_each_limit_can_be_broken(step: Figures, named: str) -> None:
    (reason,) = broken(step, LIMITS)
    found = verdict([FINE, replace(step, rate=300.0)], LIMITS, planned=2)

    assert named in reason
    assert (found.holds, found.rate_held) == (False, 100.0)
    assert found.saturates is not None
    assert reason in found.reasons


def busy(step: Figures, **cores: float) -> Figures:
    return replace(step, cores={**step.cores, **cores})


def saying(step: Figures, **figures: float) -> Figures:
    return replace(step, told=replace(step.told, **figures))


LAGGING = saying(FINE, outbox_oldest_s=30.0)
CULPRITS: dict[str, tuple[Figures, str]] = {
    "a late loop": (saying(SLOW, loop_lag_p99_ms=400.0, store_p99_ms=600.0), GATEWAY),
    "a slow store and a loop in time": (saying(SLOW, loop_lag_p99_ms=5.0, store_p99_ms=800.0), REDIS),
    "a store whose core is full": (busy(SLOW, redis=0.97), REDIS),
    "gateways whose cores are full": (busy(SLOW, gateway=1.9, redis=0.6), GATEWAY),
    "a store that fails": (saying(replace(SLOW, unanswered=500), store_failures=40.0), REDIS),
    "one gateway stands still, and the others are quick": (
        saying(replace(FINE, unanswered=420, p99_ms=11.0), gateway_p99_ms=11.0, store_p99_ms=9.0),
        GATEWAY,
    ),
    "nobody answers, and nothing is known": (
        replace(FINE, unanswered=1000, told=Told(), cores={}, processes={}),
        GATEWAY,
    ),
    "rows come late": (LAGGING, OUTBOX),
    "rows come late, the worker is busy": (busy(LAGGING, worker=0.95), WORKER),
    "rows come late, the database is busy": (busy(LAGGING, postgres=1.2), POSTGRES),
    "overloaded, as too much waits for the book": (replace(LAGGING, overloaded=500), OUTBOX),
    "a limiter in front": (replace(FINE, other=900, statuses={429: 900}), ELSEWHERE),
}


@pytest.mark.parametrize(("step", "culprit"), CULPRITS.values(), ids=CULPRITS)
def test_what_saturates_first_is_named(step: Figures, culprit: str) -> None:
    assert saturates(FINE, step) == culprit


def test_a_generator_that_did_not_keep_up_is_never_blamed_on_the_service() -> None:
    step = replace(SLOW, unanswered=900, generator_faults=["1 % of all arrivals were sent 90.0 ms late"])

    found = verdict([FINE, step], LIMITS, planned=2)

    assert found.saturates == GENERATOR
    assert not any("gateway" in reason or "p99" in reason for reason in found.reasons)
    assert "first comes the load generator" in conclusion(found, 200)[0]


def test_a_machine_that_is_full_of_generator_is_said_so() -> None:
    found = verdict([replace(SLOW, machine_full=0.99, generator_cores=0.9)], LIMITS, planned=1)

    assert any("rehearse from another machine" in reason for reason in found.reasons)


def test_a_row_stands_under_its_head() -> None:
    steps: Sequence[Figures] = (FINE, replace(SLOW, told=Told()))

    assert {len(row(number, step)) for number, step in enumerate(steps, 1)} == {len(HEAD)}


# --- What cannot be rehearsed -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "https://sale.example"}, "not http://HOST"),
        ({"host": "sale.example"}, "not http://HOST"),
        ({"host": "http://sale.example/shop"}, "not http://HOST"),
        ({"host": "http://h:99999"}, "[Pp]ort"),
        ({"peak": 0.0}, "peak"),
        ({"steps": 21}, "steps"),
        ({"seconds": 0.0}, "step"),
        ({"peak": 1e6, "seconds": 600.0}, "arrivals"),
        ({"peak": 9.0, "steps": 1}, "9.0 arrivals tells nothing"),
        ({"peak": 20.0, "steps": 20, "seconds": 5.0}, "5.0 arrivals tells nothing"),
        ({"shoppers": 0}, "shoppers"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(changes: dict[str, Any], reason: str) -> None:
    given: dict[str, Any] = {
        "document": SAMPLES["flash_sale"],
        "host": "http://h:8080",
        "service_key": "key",
        "sign": lambda user, tier: "token",
        "shoppers": 10,
        "peak": 100.0,
        "steps": 2,
        "seconds": 1.0,
    }
    Rehearsal(**given)

    with pytest.raises(ValueError, match=reason):
        Rehearsal(**(given | changes))


def test_steps_go_up_to_the_peak_evenly() -> None:
    assert rates(2000, 4) == [500, 1000, 1500, 2000]
