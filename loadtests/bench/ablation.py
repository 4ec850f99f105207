"""The part that asks what each measure of the hot path gives: the gateway without it, beside the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from loadtests.bench import peak
from loadtests.bench.figures import Figure
from loadtests.bench.subjects import DOORBUSTER, Bench, Subject, doorbuster
from loadtests.bench.without import MEASURES

PART = "ablation"


def measure(bench: Bench, subjects: Sequence[Subject], say: Callable[[str], None]) -> list[Figure]:
    """Doorbuster alone. Raises Unverified, ServerFailed, LoadFailed."""
    whole = [subject for subject in subjects if subject.name == DOORBUSTER]
    cut = [
        replace(subject, name=name, start=partial(doorbuster, program=("loadtests.bench.without", name)))
        for subject in whole
        for name in MEASURES
    ]
    return [replace(figure, part=PART) for figure in peak.measure(bench, [*whole, *cut], say)]
