"""The Lua scripts: read once, includes pasted in, named after their files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from hashlib import sha1
from importlib.resources import files

_INCLUDE = re.compile(r"^ *--@include (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Script:
    name: str
    source: str

    @cached_property
    def sha(self) -> str:
        return sha1(self.source.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str) -> Script:
    """The script in lua/<name>.lua, whole."""
    lua = files("reservation") / "lua"

    def included(match: re.Match[str]) -> str:
        return (lua / "include" / f"{match[1]}.lua").read_text("utf-8")

    source = (lua / f"{name}.lua").read_text("utf-8")
    return Script(name, _INCLUDE.sub(included, source))
