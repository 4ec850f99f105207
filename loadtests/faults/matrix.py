"""All faults, in the order in which the table has them."""

from __future__ import annotations

from loadtests.faults import (
    book_faults,
    broker_faults,
    gateway_faults,
    network_faults,
    payment_faults,
    redis_faults,
)
from loadtests.faults.fault import FAULTS, Fault

GROUPS = (gateway_faults, redis_faults, broker_faults, book_faults, network_faults, payment_faults)
"""Each puts its own into FAULTS as it is imported."""

__all__ = ["FAULTS", "GROUPS", "Fault"]
