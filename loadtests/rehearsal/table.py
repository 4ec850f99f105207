"""A rehearsal as a person reads it. Pure."""

from __future__ import annotations

from loadtests.rehearsal.figures import Figures
from loadtests.rehearsal.verdict import Verdict

HEAD = (
    f"{'step':<5}{'offered':>10}{'answered':>10}{'p50':>9}{'p99':>9}{'held':>9}{'refused':>9}"
    f"{'overloaded':>12}{'outbox age':>12}{'settled after':>15}"
)


def row(number: int, step: Figures) -> str:
    told = step.told
    return (
        f"{number:<5}{f'{step.rate:.0f}/s':>10}{f'{step.answered / step.seconds:.0f}/s':>10}"
        f"{_ms(step.p50_ms):>9}{_ms(step.p99_ms):>9}{step.admitted:>9}{step.refused:>9}"
        f"{step.share(step.overloaded):>12.1%}{_s(told.outbox_oldest_s):>12}{_s(told.settlement_lag_p99_s):>15}"
    )


def conclusion(verdict: Verdict, peak: float) -> list[str]:
    if verdict.holds:
        return [f"verdict: holds at {peak:g} arrivals/s"]
    held = f"held at {verdict.rate_held:g}/s" if verdict.rate_held else "no step held"
    if verdict.saturates is None:
        return [f"verdict: not known: the rehearsal ended before its peak ({held})"]
    lines = [f"verdict: does not hold at {peak:g} arrivals/s: {held}; first comes {verdict.saturates}"]
    return lines + [f"  {reason}" for reason in verdict.reasons]


def _ms(value: float) -> str:
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms"


def _s(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"
