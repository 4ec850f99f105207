"""Who comes to the opening: distinct shoppers, each with a token and one wish. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

from loadtests.openloop.reservations import RequestOf, requests_of

Sign = Callable[[str, str | None], str]
"""The token of a user, and of their tier."""


@dataclass(frozen=True, slots=True)
class Shopper:
    user: str
    sku: str
    token: str
    order_id: str | None
    """The main order, where it takes one."""

    @property
    def body(self) -> bytes:
        wish: dict[str, object] = {"sku": self.sku, "quantity": 1}
        if self.order_id is not None:
            wish["order_id"] = self.order_id
        return json.dumps(wish, separators=(",", ":")).encode()


def crowd(
    shoppers: int, wanted: Sequence[tuple[str, str | None]], run: str, sign: Sign, *, takes_orders: bool
) -> list[Shopper]:
    """So many shoppers, who want these (SKU, tier) in turn."""
    made = []
    for n in range(shoppers):
        sku, tier = wanted[n % len(wanted)]
        user = f"rehearsal-{run}-{n}"
        made.append(Shopper(user, sku, sign(user, tier), user if takes_orders else None))
    return made


def opening(url: SplitResult, shoppers: Sequence[Shopper], run: str) -> RequestOf:
    """The shoppers' reservations, in turn: who has had a turn comes again, with another key."""
    return requests_of(url, [(one.token, one.body) for one in shoppers], run=run)
