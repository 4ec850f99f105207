"""The Grafana dashboards as code; `python -m monitoring.dashboards` writes the JSON that Grafana reads."""

from __future__ import annotations

import json
from pathlib import Path

from monitoring.dashboards.business import business
from monitoring.dashboards.sale_live import sale_live
from monitoring.dashboards.settlement import settlement
from monitoring.dashboards.system import system
from monitoring.panels import Json

DIRECTORY = Path(__file__).parents[1] / "grafana" / "dashboards"
DASHBOARDS = {
    "sale-live.json": sale_live,
    "system.json": system,
    "settlement.json": settlement,
    "business.json": business,
}
"""By file name."""


def text(found: Json) -> str:
    """A dashboard as its file has it."""
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
