"""The campaign that all sell, and the one command that reserves in it, for who is not Doorbuster.

Only here does the bench know how a reservation is written. The peers are given a plan: a JSON file with
`script`, `keys`, `args` in base64 (some are bytes), `digest_at` and `user_at`, the places among `args` that
each request fills anew, `digest_chars`, how long a digest is, `outcome_at`, the place of the outcome in the
reply, which is `moved` or a refusal, and `campaign`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import orjson

from reservation.administration import Administration
from reservation.catalog import Catalog, parse_campaign
from reservation.clock import StoreClock
from reservation.desk import Desk
from reservation.ids import DIGEST_CHARS
from reservation.kernel import Terms
from reservation.keys import campaign_keys, offer_keys
from reservation.redis_store import RedisStore, connect_redis
from reservation.reserver import reserve_arguments
from reservation.scripts import script

CAMPAIGN = "bench"
SKU = "widget"
BODY = orjson.dumps({"sku": SKU, "quantity": 1})
STOCK = 1_000_000_000
PER_USER = 1_000_000
RESERVATIONS = campaign_keys(CAMPAIGN).reservations
"""Hash: as many fields as reservations were made."""


def sale(stock: int) -> dict[str, Any]:
    """A flash sale that is open, and in which only the stock can end."""
    return {
        "id": CAMPAIGN,
        "kind": "flash_sale",
        "currency": "CNY",
        "opens_at": "2020-01-01T00:00:00Z",
        "closes_at": "2100-01-01T00:00:00Z",
        "per_user": PER_USER,
        "offers": [{"sku": SKU, "price": 399_900, "stock": stock}],
    }


async def put_on_sale(redis_url: str, stock: int) -> dict[str, Any]:
    """Put the sale into this Redis; the plan for it."""
    client = connect_redis(redis_url)
    try:
        terms = await terms_on_sale(RedisStore(client), sale(stock))
    finally:
        await client.aclose()
    args = [*reserve_arguments(terms), "digest", "user"]
    return {
        "script": script("reserve").source,
        "keys": offer_keys(CAMPAIGN, SKU).for_reserve(terms.hold_ms),
        "args": [b64encode(one if isinstance(one, bytes) else str(one).encode()).decode() for one in args],
        "digest_at": len(args) - 2,
        "digest_chars": DIGEST_CHARS,
        "user_at": len(args) - 1,
        "outcome_at": 2,
        "campaign": CAMPAIGN,
    }


async def terms_on_sale(store: RedisStore, document: dict[str, Any]) -> Terms:
    """Put the sale into this store; the terms on which one unit is reserved."""
    clock = StoreClock()
    catalog = Catalog(store, clock)
    await Administration(store, catalog, _NothingBefore()).put(parse_campaign(document))
    campaign = await catalog.load(document["id"])
    if campaign is None:
        raise RuntimeError("the campaign was put there just now")
    terms, _ = Desk(store, catalog, clock).usual_terms(campaign, None, SKU, 1)
    return terms


class _NothingBefore:
    async def remembers(self, campaign: str) -> bool:
        return False
