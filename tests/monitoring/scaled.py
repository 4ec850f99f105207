"""Prometheus' own configuration, quick enough for a test.

The rules are those that are deployed, with every length of time divided: windows, `for`, and how often a
group is evaluated. Thresholds and labels stay, so an expression asks the same of a shorter past. A window
keeps room for four samples, or it would see none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

PROMETHEUS = Path(__file__).parents[2] / "monitoring" / "prometheus"
TIMES_FASTER = 30
SCRAPE_SECONDS = 1
WINDOW_SECONDS_MIN = 4
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LENGTH = r"(\d+)([smhd])"


def shorter(length: str, seconds_min: float = 1) -> str:
    """A length of time such as 5m, that many times shorter."""
    found = re.fullmatch(_LENGTH, length)
    assert found is not None, length
    seconds = int(found[1]) * _SECONDS[found[2]] / TIMES_FASTER
    return f"{max(seconds_min, round(seconds))}s"


def quick_rules(text: str) -> str:
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        if "interval" in group:
            group["interval"] = shorter(group["interval"])
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = shorter(rule["for"])
            rule["expr"] = re.sub(
                rf"\[{_LENGTH}\]",
                lambda window: f"[{shorter(window[0][1:-1], WINDOW_SECONDS_MIN)}]",
                rule["expr"],
            )
    return str(yaml.safe_dump(rules, sort_keys=False))


def write_configuration(home: Path, targets: Mapping[str, list[dict[str, Any]]]) -> Path:
    """The deployed configuration, with `targets` by job: static_configs in the place of services."""
    configuration = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    configuration["global"] = {
        "scrape_interval": f"{SCRAPE_SECONDS}s",
        "scrape_timeout": f"{SCRAPE_SECONDS}s",
        "evaluation_interval": "1s",
    }
    jobs = configuration["scrape_configs"]
    assert {job["job_name"] for job in jobs} == targets.keys()
    for job in jobs:
        job.pop("dns_sd_configs", None)
        job["static_configs"] = targets[job["job_name"]]
    for file in PROMETHEUS.glob("*.rules.yml"):
        (home / file.name).write_text(quick_rules(file.read_text()))
    written = home / "prometheus.yml"
    written.write_text(yaml.safe_dump(configuration))
    return written
