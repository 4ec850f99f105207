"""The service's audit, as a person reads it, and against what shoppers were told. Pure."""

from __future__ import annotations

from typing import Any


def audit_lines(audit: dict[str, Any]) -> list[str]:
    lines = []
    for campaign in audit["campaigns"]:
        lines.append(f"{campaign['id']:<40}{'stock':>10}{'held':>10}{'sold':>10}{'available':>10}")
        for offer in campaign["offers"]:
            units = "".join(f"{offer[name]:>10}" for name in ("stock", "held", "sold", "available"))
            lines.append(f"  {offer['sku']:<38}{units}")
        lines += [f"  VIOLATION {found['invariant']}: {found['detail']}" for found in campaign["violations"]]
    count = sum(len(campaign["violations"]) for campaign in audit["campaigns"])
    broken = f"audit: {count} violation{'' if count == 1 else 's'}"
    lines.append("audit: every invariant holds" if audit["ok"] else broken)
    return lines


def audit_says_less(audit: dict[str, Any], confirmed: int) -> list[str]:
    """What is wrong when the service has sold fewer units than shoppers were told are theirs.

    The service's books may agree with each other and still have lost a sale; only its clients know.
    Others may shop in the same campaign, so more is fine.
    """
    sold = sum(offer["sold"] for campaign in audit["campaigns"] for offer in campaign["offers"])
    return [f"{confirmed} units were confirmed to shoppers, {sold} are sold"] if sold < confirmed else []
