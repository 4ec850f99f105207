"""The shape of the load: that of the scenario, until it is over, or a ramp until it breaks."""

from __future__ import annotations

import logging
import time

from locust import LoadTestShape
from locust.runners import WORKER_REPORT_INTERVAL, MasterRunner

from loadtests.opening import nothing_on_sale
from loadtests.options import OptionError, Options
from loadtests.stages import Stage, stage_at
from loadtests.thresholds import climb
from loadtests.timeline import TIMELINE

_log = logging.getLogger(__name__)
LATE_SECONDS = int(WORKER_REPORT_INTERVAL) + 2
"""A worker's report is in after so long."""
CLOSING = Stage("closing", seconds=LATE_SECONDS, users=0)
"""A master concludes as soon as the shape ends, and its workers report every few seconds. So before
the end there is a time without shoppers, in which every worker's last report comes in."""


class ScenarioShape(LoadTestShape):
    """The scenario's stages, one after another. See stages.py."""

    def tick(self) -> tuple[int, float] | None:
        """How many shoppers there should be now, and how many may come or go a second; None at the end."""
        if self.runner is None:
            raise RuntimeError("Locust sets the runner before the first tick")
        # Read at every tick: options do not exist yet at import, and Locust's page may change them.
        try:
            options = Options.of(self.runner.environment)
        except OptionError as error:
            nothing_on_sale(self.runner.environment)
            _log.error("The load test cannot start: %s", error)
            return None
        run_time_s: float = self.get_run_time()  # type: ignore[no-untyped-call]
        stages = options.stages
        distributed = isinstance(self.runner, MasterRunner)
        if distributed:
            stages += (CLOSING,)
        if options.scenario.climbs and _is_broken(options, run_time_s, LATE_SECONDS if distributed else 1):
            return None
        stage = stage_at(stages, run_time_s)
        # As many a second as there are: each stage is one step.
        return None if stage is None else (stage.users, options.sizes.peak_users)


def _is_broken(options: Options, run_time_s: float, late_s: int) -> bool:
    now_s = time.time()
    began_s = now_s - run_time_s
    found = climb(TIMELINE.rows(), options.stages, options.limits, began_s, now_s - late_s)
    return found.broke is not None
