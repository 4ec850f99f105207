"""What a deployment's /metrics says, at one time and between two. Pure.

Every figure is None where the deployment does not give it: a role may have a /metrics of its own, that nobody
has shown us.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families

Series = tuple[tuple[str, str], ...]
"""Labels, in order."""


class Reading:
    """All samples of one exposition."""

    def __init__(self, text: str) -> None:
        """Raises ValueError for what is no exposition."""
        self._samples: dict[str, dict[Series, float]] = defaultdict(dict)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._samples[sample.name][tuple(sorted(sample.labels.items()))] = sample.value

    def series(self, name: str, **labels: str) -> dict[Series, float]:
        """The samples of this name that have these labels."""
        wanted = set(labels.items())
        found = self._samples.get(name, {})
        return {series: value for series, value in found.items() if wanted <= set(series)}

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of these samples."""
        found = self.series(name, **labels)
        return sum(found.values()) if found else None


def gained(before: Reading, after: Reading, name: str, **labels: str) -> float | None:
    """By how much a counter has grown. A process that ended in between takes nothing away."""
    found = after.series(name, **labels)
    if not found:
        return None
    known = before.series(name, **labels)
    return sum(max(0.0, value - known.get(series, 0.0)) for series, value in found.items())


def percentile_s(
    before: Reading, after: Reading, histogram: str, percent: float, **labels: str
) -> float | None:
    """What so many percent of all that was observed in between took at most, in seconds; as exact as the
    histogram's buckets are. None where nothing was observed."""
    buckets = _observed(before, after, histogram, labels)
    observed = buckets.get(math.inf, 0.0)
    if not observed:
        return None
    lower, below = 0.0, 0.0
    for bound, count in sorted(buckets.items()):
        if count >= observed * percent / 100:
            if math.isinf(bound):
                return lower
            # Within a bucket nobody knows; as if all were evenly spread.
            part = (observed * percent / 100 - below) / (count - below) if count > below else 1.0
            return lower + (bound - lower) * part
        lower, below = bound, count
    return lower


def _observed(
    before: Reading, after: Reading, histogram: str, labels: Mapping[str, str]
) -> dict[float, float]:
    """By bucket's bound, how many observations up to it."""
    name, known = f"{histogram}_bucket", before.series(f"{histogram}_bucket", **labels)
    buckets: dict[float, float] = defaultdict(float)
    for series, value in after.series(name, **labels).items():
        bound = float(dict(series)["le"])
        buckets[bound] += max(0.0, value - known.get(series, 0.0))
    return buckets
