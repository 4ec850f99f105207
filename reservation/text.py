"""Which strings from outside are let in."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def has_control_characters(text: str) -> bool:
    """Control characters, line separators and lone surrogates: nothing a name is made of."""
    return _CONTROL.search(text) is not None


def is_printable(found: object, chars_max: int) -> bool:
    """Whether this is a string of 1 to `chars_max` characters, none of them a control character."""
    return isinstance(found, str) and 0 < len(found) <= chars_max and not has_control_characters(found)
