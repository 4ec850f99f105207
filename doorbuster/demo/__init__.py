"""`make demo`: a campaign of each kind from nothing to the audit, with simulated shoppers on real servers."""

from __future__ import annotations

from doorbuster.demo.run import run_demo

__all__ = ["run_demo"]
