"""`doorbuster reconcile`: every difference between Redis and PostgreSQL, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator

from doorbuster import bootstrap
from doorbuster.chosen import chosen_campaigns
from doorbuster.settings import Settings
from settlement.reconcile import Drift, Reconciliation

SHOWN_MAX = 20
"""Of one sort, in text. JSON has all."""


async def run_reconcile(settings: Settings, campaign: str | None, *, repair: bool) -> Reconciliation | None:
    """Reconcile one campaign or all that either store knows; None when there is no such campaign."""
    if repair:  # nothing is brought back into a store that would lose it again
        await bootstrap.check_store(settings)
    async with bootstrap.reconciler(settings) as (reconciler, catalog, book):
        chosen = await chosen_campaigns(catalog, book, campaign)
        if chosen is None:
            return None
        return await reconciler.reconcile(chosen, repair=repair, lift=campaign is None)


def text(found: Reconciliation, *, repair: bool) -> str:
    """The differences as a person reads them."""
    return "\n".join(_lines(found, repair))


def _lines(found: Reconciliation, repair: bool) -> Iterator[str]:
    for drift in Drift:
        of_it = [one for one in found.differences if one.drift is drift]
        if not of_it:
            continue
        mended = sum(one.mended for one in of_it)
        yield f"{drift}: {len(of_it):,}" + (f", {mended:,} mended" if repair else "")
        # What could not be mended is what somebody has to look at.
        for one in sorted(of_it, key=lambda one: one.mended)[:SHOWN_MAX]:
            yield f"  {one.id}: {one.detail}" + ("; mended" if one.mended else "")
        if len(of_it) > SHOWN_MAX:
            yield f"  and {len(of_it) - SHOWN_MAX:,} more; --json has all"
    if found.gone:
        yield f"gone: {len(found.gone):,}, of which somebody was told and which are nowhere"
        # All of them: once the fence is lifted, nobody can name them any more.
        for lost in found.gone:
            rest = f"version {lost.left}" if lost.left else "nothing"
            yield f"  {lost.id}: version {lost.version}; {rest} is left of it"
    for campaign in found.paused:
        yield f"{campaign} is paused: audit it, then resume it"
    if found.lifted:
        yield "the fence is lifted: Redis takes reservations again"
    if found.fenced:
        yield f"Redis is fenced, and takes nothing: {found.fenced}"
        yield "--repair of all campaigns lifts the fence"
    yield f"reconcile: {_verdict(found, repair)}" + (f"; {len(found.gone):,} gone" if found.gone else "")


def _verdict(found: Reconciliation, repair: bool) -> str:
    left = sum(not one.mended for one in found.differences)
    if not found.differences:
        return "Redis and PostgreSQL agree"
    if left == 0:
        return "everything was mended that can be" if found.gone else "everything was mended"
    return f"{left:,} difference{'' if left == 1 else 's'}" + (
        " could not be mended" if repair else "; --repair mends what can be mended"
    )
