"""What reconciliation says to people."""

from __future__ import annotations

from doorbuster.reconcile import text
from settlement.reconcile import Difference, Drift, Gone, Reconciliation


def test_all_that_is_gone_is_named_since_nobody_can_name_it_again() -> None:
    gone = [Gone(f"night.{number}", 1, 0) for number in range(500)]
    mended = [Difference(Drift.RESERVATION_LOST, f"night.a{number}", "held", True) for number in range(500)]
    lines = text(Reconciliation(mended, gone, lifted=True), repair=True).splitlines()
    assert {one.split(":")[0].strip() for one in lines} >= {one.id for one in gone}
    assert lines[-1] == "reconcile: everything was mended that can be; 500 gone"
    assert text(Reconciliation(gone=gone), repair=True).endswith("Redis and PostgreSQL agree; 500 gone")


def test_nothing_is_said_to_be_gone_where_nothing_is() -> None:
    mended = [Difference(Drift.RESERVATION_LOST, "night.a", "held", True)]
    assert text(Reconciliation(mended), repair=True).endswith("reconcile: everything was mended")
    assert text(Reconciliation(), repair=False) == "reconcile: Redis and PostgreSQL agree"
