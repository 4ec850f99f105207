"""What `locust -f loadtests/locustfile.py` loads: who shops, in what shape, and what is made of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

# Locust looks for modules beside this file; `loadtests` is one level up, wherever Locust is started.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from locust import events
from locust.event import EventHook

from loadtests.conclusion import conclude
from loadtests.opening import open_sale
from loadtests.options import add_options
from loadtests.patience import let_shoppers_finish, remember_defaults
from loadtests.shape import ScenarioShape
from loadtests.shopper import Shopper
from loadtests.tally import add_workers_counts, report_counts_to_master
from loadtests.timeline import add_workers_rows, report_rows_to_master

__all__ = ["ScenarioShape", "Shopper"]

LISTENERS: list[tuple[EventHook, Callable[..., None]]] = [
    (events.init_command_line_parser, add_options),
    (events.init, let_shoppers_finish),
    (events.init, remember_defaults),
    (events.test_start, open_sale),
    (events.report_to_master, report_counts_to_master),
    (events.report_to_master, report_rows_to_master),
    (events.worker_report, add_workers_counts),
    (events.worker_report, add_workers_rows),
    (events.test_stop, conclude),
]
for event, listener in LISTENERS:
    event.add_listener(listener)  # type: ignore[no-untyped-call]
