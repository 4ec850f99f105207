"""The shape of the load: quiet, then everybody at once."""

from __future__ import annotations

from locust import LoadTestShape
from locust.runners import WORKER_REPORT_INTERVAL, MasterRunner

from loadtests.options import Options
from loadtests.stages import Stage, stage_at

CLOSING = Stage("closing", seconds=int(WORKER_REPORT_INTERVAL) + 2, users=0)
"""A master concludes as soon as the shape ends, and its workers report every few seconds. So before
the end there is a time without shoppers, in which every worker's last report comes in."""


class OpeningSpike(LoadTestShape):
    """A warm-up trickle, a spike in one step at the opening, a plateau, a tail. See stages.py."""

    def tick(self) -> tuple[int, float] | None:
        """How many shoppers there should be now, and how many may come or go a second; None at the end."""
        if self.runner is None:
            raise RuntimeError("Locust sets the runner before the first tick")
        # Read at every tick: options do not exist yet at import, and Locust's page may change them.
        options = Options.of(self.runner.environment)
        stages = options.stages
        if isinstance(self.runner, MasterRunner):
            stages += (CLOSING,)
        stage = stage_at(stages, self.get_run_time())  # type: ignore[no-untyped-call]
        # As many a second as there are: each stage is one step.
        return None if stage is None else (stage.users, options.peak_users)
