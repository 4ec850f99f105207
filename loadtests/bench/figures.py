"""What a part measures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that was measured once a round."""

    part: str
    subject: str
    name: str
    unit: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def least(self) -> float:
        return min(self.values)

    @property
    def most(self) -> float:
        return max(self.values)


class Figures:
    """All figures of a run, to look up."""

    def __init__(self, found: Iterable[Figure]) -> None:
        self._found = {(one.part, one.subject, one.name): one for one in found}

    def all(self) -> list[Figure]:
        return list(self._found.values())

    def get(self, part: str, subject: str, name: str) -> Figure | None:
        return self._found.get((part, subject, name))

    def subjects(self, part: str) -> list[str]:
        """Those measured in this part, in their order."""
        return list(dict.fromkeys(one.subject for one in self.all() if one.part == part))

    def ratio(self, part: str, name: str, subject: str, to: str) -> float | None:
        """One subject's median to another's; None where one of them was not measured, or is nothing."""
        one, other = self.get(part, subject, name), self.get(part, to, name)
        if one is None or other is None or other.median == 0:
            return None
        return one.median / other.median
