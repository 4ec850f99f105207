"""What the demo prints."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from doorbuster.demo.checks import Violation
from doorbuster.demo.log import Log, View

PROMISES = {
    "I1": "sold + held + available = stock, and every counter is what its reservations claim",
    "I2": "sold + held <= stock: nothing was oversold",
    "I3": "nobody has more than their quota",
    "I4": "every acknowledged reservation is exactly one order, in one state, which its log explains",
    "I5": "no order without a reservation",
    "I6": "the same key got the same reservation, every time",
    "I7": "one charge for each sale, to the unit; every other charge was refunded once",
    "I8": "the backlog drained by itself",
    "I9": "no gift and no entitlement beyond its number",
    "API": "every answer is one that the contract names; prices are as quoted; the line keeps its order",
}
_SHOWN_MAX = 10
_RESERVE_BUCKET = re.compile(
    r'doorbuster_request_duration_seconds_bucket\{le="([^"]+)",method="POST",'
    r'route="/v1/campaigns/\{campaign\}/reservations"'
)
_REFUSALS = frozenset(
    {
        "sold_out",
        "quota_exceeded",
        "not_eligible",
        "not_started",
        "ended",
        "wrong_state",
        "payment_window_closed",
        "overloaded",
    }
)


@dataclass(frozen=True, slots=True)
class Played:
    """A campaign that is over: what there is to say of it, and what was found broken."""

    campaign: str
    lines: list[str]
    violations: list[Violation]
    requests: int
    """For reservations, that shoppers were answered."""


def progress_line(log: Log, campaign: View) -> str:
    left = sum(offer["remaining"] for offer in campaign["offers"])
    return (
        f"  {campaign['server_time'][11:19]}  {campaign['kind']:<10}  {campaign['phase']:<9}"
        f" {log.requests:>7,} requests  {len(log.followed):>5,} reserved  {log.paid:>5,} paid"
        f"  {left:>6,} left"
    )


def figures(found: Mapping[str, int]) -> str:
    """One line of figures, without those that are nothing."""
    return "   ".join(f"{name} {value:,}" for name, value in found.items() if value)


def funnel(found: Mapping[str, int]) -> list[str]:
    """Figures side by side, each under its name."""
    names = "".join(f"  {name}" for name in found)
    return [names, "".join(f"  {count:>{len(name)},}" for name, count in found.items())]


def refusals(log: Log) -> str:
    """What shoppers were told instead of what they wanted, most often first."""
    return figures({code: count for code, count in log.outcomes.most_common() if code in _REFUSALS})


def states(ends: Collection[View]) -> Counter[str]:
    return Counter(str(view["state"]) for view in ends)


def latency(log: Log, metrics: Mapping[str, float]) -> str:
    """How long it took to reserve, as shoppers saw it and in the gateway."""
    took = sorted(log.reserve_ms)
    p50, p95, p99 = (took[int(len(took) * q)] for q in (0.5, 0.95, 0.99))
    return (
        f"reserve took p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms as shoppers saw it;"
        f" in the gateway p50 {_quantile(metrics, 0.5)}, p99 {_quantile(metrics, 0.99)}"
    )


def _quantile(metrics: Mapping[str, float], q: float) -> str:
    """The bound below which this share of reserve requests was answered, from the gateway's histogram."""
    counts: Counter[float] = Counter()
    for name, count in metrics.items():
        match = _RESERVE_BUCKET.match(name)
        if match is not None:
            counts[float(match[1].replace("+Inf", "inf"))] += int(count)
    for bound, count in sorted(counts.items()):
        if count >= q * counts[float("inf")]:
            return f"<= {bound * 1000:g} ms"
    return "unknown"


def offers_table(offers: Iterable[View]) -> list[str]:
    lines = [f"  {'offer':<12}{'stock':>8}{'sold':>8}{'held':>8}{'available':>11}"]
    for offer in offers:
        lines.append(
            f"  {offer['sku']:<12}{offer['stock']:>8,}{offer['sold']:>8,}"
            f"{offer['held']:>8,}{offer['available']:>11,}"
        )
    return lines


def print_verdict(violations: Collection[Violation], seconds: float) -> int:
    """The audit; 0 when every promise was kept."""
    print("\naudit, from Redis, PostgreSQL, the bank's book and the shoppers' own log")
    for name, promise in PROMISES.items():
        broken = [one.detail for one in violations if one.promise == name]
        print(f"  {name:<3} {'BROKEN' if broken else 'held  '}  {promise}")
        for detail in broken[:_SHOWN_MAX]:
            print(f"        {detail}")
    said = "Every invariant held." if not violations else f"{len(violations)} violations."
    print(f"\n{said} ({seconds:.0f} s)")
    return 1 if violations else 0
