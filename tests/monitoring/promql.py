"""PromQL as far as tests have to read it: which series a query asks for."""

from __future__ import annotations

import re

GROUPINGS = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"
_TEXT = r'"(?:[^"\\]|\\.)*"'
_LABELS = rf'\{{(?:[^{{}}"]|{_TEXT})*\}}'
_WORDS = {
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
}


def selectors(promql: str) -> set[str]:
    """The series that PromQL asks for, with the labels that it wants of them."""
    bare = re.sub(rf"\[[^]]*]|{GROUPINGS}", " ", promql)
    found = re.findall(rf"(?<![\w:.$\"])([A-Za-z_:][\w:]*)\b(?!\s*\()\s*({_LABELS})?|{_TEXT}", bare)
    return {name + labels for name, labels in found if name and name not in _WORDS}


def names(promql: str) -> set[str]:
    """The metrics that PromQL asks for."""
    return {selector.partition("{")[0] for selector in selectors(promql)}
