"""What Doorbuster should come to, beside its peers on the same machine at the same time."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.bench import peak
from loadtests.bench.figures import Figures
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
class Target:
    """One subject's figure to another's: the ratio of their medians."""

    part: str
    name: str
    subject: str
    to: str
    ratio_min: float

    def ratio(self, figures: Figures) -> float | None:
        return figures.ratio(self.part, self.name, self.subject, self.to)

    def met(self, figures: Figures) -> bool | None:
        """None where it was not measured."""
        ratio = self.ratio(figures)
        return None if ratio is None else ratio >= self.ratio_min


TARGETS = (
    Target(peak.PART, peak.ANSWERS, DOORBUSTER, ECHO, 0.80),
    Target(peak.PART, peak.ANSWERS, DOORBUSTER_ALWAYS, ECHO, 0.70),
    Target(peak.PART, peak.ANSWERS, DOORBUSTER, ONE_EVALSHA, 2.5),
    Target(peak.PART, peak.ANSWERS, DOORBUSTER, FASTIFY_IOREDIS, 1.0),
    Target(peak.PART, peak.ANSWERS, DOORBUSTER, NGINX_LUA_REDIS, 0.5),
    Target(peak.PART, peak.ANSWERS, DOORBUSTER_SOLD_OUT, ECHO, 0.90),
)
