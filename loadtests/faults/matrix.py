"""All faults, in the order in which the table has them."""

from __future__ import annotations

from loadtests.faults import gateway_faults, redis_faults
from loadtests.faults.fault import FAULTS, Fault

__all__ = ["FAULTS", "Fault", "gateway_faults", "redis_faults"]
