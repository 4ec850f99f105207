"""`doorbuster audit`: every invariant, for people and for programs."""

from __future__ import annotations

from doorbuster import bootstrap
from doorbuster.chosen import chosen_campaigns
from doorbuster.settings import Settings
from settlement.audit import Audit


async def run_audit(settings: Settings, campaign: str | None) -> Audit | None:
    """Audit one campaign or all that either store knows; None when there is no such campaign."""
    async with bootstrap.auditor(settings) as (auditor, catalog, book):
        chosen = await chosen_campaigns(catalog, book, campaign)
        return None if chosen is None else await auditor.audit(chosen)


def table(audit: Audit) -> str:
    """The audit as a person reads it."""
    lines = []
    for campaign in audit.campaigns:
        lines.append(campaign.id)
        lines.append(f"  {'offer':<24}{'stock':>10}{'held':>10}{'sold':>10}{'available':>10}")
        for o in campaign.offers:
            lines.append(f"  {o.sku:<24}{o.stock:>10}{o.held:>10}{o.sold:>10}{o.available:>10}")
        lines += [f"  VIOLATION {v.invariant}: {v.detail}" for v in campaign.violations]
    count = sum(len(campaign.violations) for campaign in audit.campaigns)
    lines.append("audit: every invariant holds" if audit.ok else f"audit: {count} violations")
    return "\n".join(lines)
