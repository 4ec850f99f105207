"""What Doorbuster should come to, on this machine and beside its peers on it."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.bench import openload, peak, scale, settle
from loadtests.bench.figures import Figure, Figures
from loadtests.bench.subjects import (
    DOORBUSTER,
    DOORBUSTER_ALWAYS,
    DOORBUSTER_SOLD_OUT,
    ECHO,
    FASTIFY_IOREDIS,
    NGINX_LUA_REDIS,
    ONE_EVALSHA,
)


@dataclass(frozen=True, slots=True)
class Key:
    """Which figure."""

    part: str
    subject: str
    name: str

    def of(self, figures: Figures) -> Figure | None:
        return figures.get(self.part, self.subject, self.name)


@dataclass(frozen=True, slots=True)
class Target:
    """A figure's median, or its ratio to another's, and what it should be."""

    what: str
    of: Key
    to: Key | None = None
    least: float | None = None
    most: float | None = None

    def measured(self, figures: Figures) -> float | None:
        """None where one of them was not measured, or there is nothing to hold it against."""
        one = self.of.of(figures)
        if one is None or self.to is None:
            return None if one is None else one.median
        other = self.to.of(figures)
        return None if other is None or other.median == 0 else one.median / other.median

    def met(self, figures: Figures) -> bool | None:
        """None where it was not measured."""
        measured = self.measured(figures)
        if measured is None:
            return None
        return (self.least is None or measured >= self.least) and (self.most is None or measured <= self.most)


def _peak(subject: str) -> Key:
    return Key(peak.PART, subject, peak.ANSWERS)


def _peak_ratio(subject: str, to: str, least: float) -> Target:
    return Target(f"{subject} / {to}", _peak(subject), _peak(to), least)


def _open(subject: str, name: str) -> Key:
    return Key(openload.PART, subject, name)


def _scale(subject: str) -> Key:
    return Key(scale.PART, subject, "accepted")


TARGETS = (
    _peak_ratio(DOORBUSTER, ECHO, 0.80),
    _peak_ratio(DOORBUSTER_ALWAYS, ECHO, 0.70),
    _peak_ratio(DOORBUSTER, ONE_EVALSHA, 2.5),
    _peak_ratio(DOORBUSTER, FASTIFY_IOREDIS, 1.0),
    _peak_ratio(DOORBUSTER, NGINX_LUA_REDIS, 0.5),
    _peak_ratio(DOORBUSTER_SOLD_OUT, ECHO, 0.90),
    Target("settled / accepted", Key(settle.PART, DOORBUSTER, settle.SETTLED), _peak(DOORBUSTER), least=1.0),
    Target("settled / accepted, both at once", Key(settle.PART, DOORBUSTER, settle.MEANWHILE), least=0.99),
    Target("accept to row, p99, s", Key(settle.PART, DOORBUSTER, "lag, 99th percentile"), most=1.0),
    Target("5 x a slow store: goodput / peak", _open(openload.OVERLOAD, "goodput to peak"), least=0.9),
    Target("5 x a slow store: admitted p99, ms", _open(openload.OVERLOAD, "admitted p99"), most=250),
    Target("a crowd: goodput / peak", _open(openload.CROWDED, "goodput to peak"), least=0.9),
    Target(
        "a crowd: admitted p99 since sent, ms", _open(openload.CROWDED, "admitted p99 since sent"), most=250
    ),
    Target("at 70 % of peak: p99, ms", _open(openload.AT_70, "admitted p99"), most=20),
    Target("bytes a live reservation", Key(scale.PART, scale.FULL, "memory"), most=250),
    Target("millions of reservations / empty", _scale(scale.FULL), _scale(scale.EMPTY), least=0.9),
    Target("thousands of campaigns / empty", _scale(scale.MANY), _scale(scale.EMPTY), least=0.9),
)
