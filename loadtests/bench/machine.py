"""What the figures were measured on, and with which versions."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from doorbuster.embedded import find_redis
from loadtests.bench.subjects import FASTIFY, NGINX, NODE

PACKAGES = ("aiohttp", "uvloop", "orjson", "redis", "hiredis")
_VERSION = re.compile(r"v?(\d+\.\d+(?:\.\d+)?)")


def describe() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "versions": {"python": platform.python_version(), **_packages(), **_programs(), **_modules()},
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        name, _, model = line.partition(":")
        if name.strip() == "model name":
            return model.strip()
    return platform.machine()


def _packages() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def _programs() -> dict[str, str]:
    server, _ = find_redis()
    asked = {
        "redis-server": [str(server), "--version"],
        "wrk": ["wrk", "--version"],
        "nginx": [NGINX, "-v"],
        "node": [NODE, "--version"],
    }
    return {name: found for name, command in asked.items() if (found := _said(command))}


def _modules() -> dict[str, str]:
    """Those of the peer that runs in node."""
    packages = {name: FASTIFY / "node_modules" / name / "package.json" for name in ("fastify", "ioredis")}
    return {name: json.loads(path.read_text())["version"] for name, path in packages.items() if path.exists()}


def _said(command: Sequence[str]) -> str | None:
    """The version that a program says it has; None when it is not here."""
    if not command[0]:
        return None
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except OSError:
        return None
    found = _VERSION.search(said.stdout + said.stderr)
    return found[1] if found else None
