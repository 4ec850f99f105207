"""Whether a step held, and what saturated first where it did not. Pure.

A request that is slow in a gateway whose event loop is late waits for that gateway; one that is slow because
the store's commands are, waits for Redis. A generator that did not keep its own schedule has measured
itself, and then nothing is said of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from loadtests.rehearsal.figures import Figures

BUSY_CORE = 0.85
"""A process with one thread that uses so much of a core has hardly any left."""
FULL_MACHINE = 0.97
STORE_PART, LOOP_PART = 0.5, 0.25
"""Of what a request takes: from here on the store's commands, or the loop's lateness, explain it."""
GENERATOR = "the load generator"
GATEWAY = "the gateways"
REDIS = "Redis"
OUTBOX = "the way from the outbox to the book (relay, broker, worker or PostgreSQL)"
WORKER = "the worker"
POSTGRES = "PostgreSQL"
ELSEWHERE = "something else than the load"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a step must keep to hold."""

    p99_ms: float = 500.0
    """From when a shopper came to the answer."""
    overloaded_share: float = 0.01
    unanswered_share: float = 0.001
    other_share: float = 0.0
    outbox_oldest_s: float = 5.0
    settlement_lag_s: float = 10.0

    @property
    def generator_lag_p99_ms(self) -> float:
        """A generator this late distorts what it measures by a tenth of what is asked for."""
        return self.p99_ms / 10


@dataclass(frozen=True, slots=True)
class Verdict:
    """`holds` at the peak; else the highest rate that held (0: none), what saturates first, and why."""

    holds: bool
    rate_held: float
    saturates: str | None
    reasons: list[str]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def broken(step: Figures, limits: Limits) -> list[str]:
    """Which limits a step broke, in words."""
    told, found = step.told, []
    if step.share(step.unanswered) > limits.unanswered_share:
        whys = ", ".join(f"{fault} {count}" for fault, count in step.faults.items())
        found.append(f"{step.share(step.unanswered):.1%} of all shoppers got no answer ({whys})")
    if step.share(step.overloaded) > limits.overloaded_share:
        found.append(f"{step.share(step.overloaded):.1%} were turned away as overloaded")
    if step.share(step.other) > limits.other_share:
        usual = (201, 409, 410, 503)
        statuses = ", ".join(f"{one}: {n}" for one, n in step.statuses.items() if one not in usual)
        found.append(f"{step.share(step.other):.1%} were answered otherwise ({statuses})")
    if step.p99_ms > limits.p99_ms:
        found.append(f"p99 was {step.p99_ms:.0f} ms, more than {limits.p99_ms:g} ms")
    if told.outbox_oldest_s is not None and told.outbox_oldest_s > limits.outbox_oldest_s:
        found.append(f"the outbox's oldest event was {told.outbox_oldest_s:.1f} s old")
    if told.settlement_lag_p99_s is not None and told.settlement_lag_p99_s > limits.settlement_lag_s:
        found.append(f"one in a hundred rows came {told.settlement_lag_p99_s:.1f} s late or more")
    return found


def verdict(steps: Sequence[Figures], limits: Limits, *, planned: int) -> Verdict:
    """Of the steps that were made, in their order; `planned` of them, if none had broken anything."""
    held = 0.0
    for step in steps:
        # Before anything else: of a step that the generator did not keep, nothing else is known.
        if step.generator_faults:
            return Verdict(False, held, GENERATOR, [*step.generator_faults, *_machine(step)])
        reasons = broken(step, limits)
        if reasons:
            culprit, why = _saturated(step, limits)
            return Verdict(False, held, culprit, [*reasons, *why, *_machine(step)])
        held = step.rate
    return Verdict(len(steps) == planned, held, None, [])


def _saturated(step: Figures, limits: Limits) -> tuple[str, list[str]]:
    """What a step that broke something waited for, and what says so."""
    told = step.told
    if step.share(step.other) > limits.other_share and not (step.unanswered or step.overloaded):
        return ELSEWHERE, ["see docs/problems.md for what each status means"]
    late = (
        step.p99_ms > limits.p99_ms
        or step.share(step.overloaded) > limits.overloaded_share
        or step.share(step.unanswered) > limits.unanswered_share
    )
    if (
        told.outbox_oldest_s is not None
        and told.outbox_oldest_s > limits.outbox_oldest_s
        and not (step.p99_ms > limits.p99_ms or step.unanswered)
    ):
        return _settling(step)
    return _serving(step, limits) if late else _settling(step)


def _serving(step: Figures, limits: Limits) -> tuple[str, list[str]]:
    """A gateway, or the Redis behind it."""
    told, why = step.told, []
    if told.store_failures:
        return REDIS, [f"{told.store_failures:.0f} commands to it failed"]
    each = _each(step, "gateway")
    if told.loop_lag_p99_ms is not None:
        why.append(f"a gateway's event loop is {told.loop_lag_p99_ms:.0f} ms late (p99)")
    if told.store_p99_ms is not None:
        why.append(f"to reserve in Redis takes {told.store_p99_ms:.0f} ms (p99)")
    if each is not None:
        why.append(f"each gateway process uses {each:.0%} of a core")
    if (redis := _each(step, "redis")) is not None:
        why.append(f"Redis uses {redis:.0%} of a core")
        if redis > BUSY_CORE and redis > (each or 0.0):
            return REDIS, why
    slow_ms = max(told.gateway_p99_ms or 0.0, step.p99_ms)
    if step.share(step.unanswered) > limits.unanswered_share:
        slow_ms = max(slow_ms, limits.p99_ms)  # who got no answer waited longer than all who got one
    loop_is_late = told.loop_lag_p99_ms is not None and told.loop_lag_p99_ms > LOOP_PART * slow_ms
    store_is_slow = told.store_p99_ms is not None and told.store_p99_ms > STORE_PART * slow_ms
    # A late loop makes every command look slow; a slow store makes no loop late.
    if store_is_slow and not loop_is_late and (each is None or each < BUSY_CORE):
        return REDIS, why
    return GATEWAY, why or ["their metrics say nothing more"]


def _settling(step: Figures) -> tuple[str, list[str]]:
    """Whatever brings events from the outbox to the book."""
    worker, postgres = _each(step, "worker"), step.cores.get("postgres")
    if worker is not None and worker > BUSY_CORE:
        return WORKER, [f"it uses {worker:.0%} of a core"]
    if postgres is not None and postgres > BUSY_CORE:
        return POSTGRES, [f"it uses {postgres:.1f} cores"]
    return OUTBOX, []


def _each(step: Figures, role: str) -> float | None:
    count = step.processes.get(role, 0)
    return step.cores.get(role, 0.0) / count if count else None


def _machine(step: Figures) -> list[str]:
    if step.machine_full is None or step.machine_full < FULL_MACHINE:
        return []
    return [
        f"all cores of this machine are in use, {step.generator_cores:.1f} of them by the generator: "
        "rehearse from another machine, or a quieter one"
    ]
