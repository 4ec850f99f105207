"""All faults, in the order in which the table has them."""

from __future__ import annotations

from loadtests.faults import (
    book_faults,
    broker_faults,
    gateway_faults,
    network_faults,
    payment_faults,
    redis_faults,
    replica_faults,
)
from loadtests.faults.fault import FAULTS as REGISTERED
from loadtests.faults.fault import Fault

GROUPS = (
    gateway_faults,
    redis_faults,
    replica_faults,
    broker_faults,
    book_faults,
    network_faults,
    payment_faults,
)
"""Each has registered its own as it was imported."""
FAULTS: dict[str, Fault] = {
    name: fault
    for group in GROUPS
    for name, fault in REGISTERED.items()
    if fault.inject.__module__ == group.__name__
}

__all__ = ["FAULTS", "GROUPS", "Fault"]
