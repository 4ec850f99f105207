"""What may happen to payments, and to what the merchant is told."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from loadtests.faults.fault import Moment, fault
from loadtests.faults.shoppers import Load
from loadtests.faults.stack import Stack

ASTRAY = replace(Load(), pays=0.8, cancels=0.15, astray=0.7)


@fault(load=ASTRAY, quick=True)
async def payments_astray(stack: Stack, moment: Moment) -> None:
    """Payment webhooks come after the hold has ended, twice at once, failed before succeeded and after it;
    and somebody forges them."""
    await asyncio.sleep(2.0)
    turned_away = sum(stack.provider.turned_away.values())
    moment.seen.append(f"{turned_away} forged webhooks were turned away by then")


@fault()
async def merchant_down(stack: Stack, moment: Moment) -> None:
    """The merchant's notification endpoint hangs, and then fails; what it is to be told waits, and nothing
    else does."""
    stack.provider.notifications_answer = "hanging"
    await asyncio.sleep(2.0)
    stack.provider.notifications_answer = "refused"
    await asyncio.sleep(2.0)
    stack.provider.notifications_answer = "taken"
