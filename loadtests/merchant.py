"""The merchant's side: what takes the service key. These few requests are not part of the load."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import requests

from loadtests.options import Options

SKU = "phone-hot"
ANSWER_SECONDS_MAX = 60.0
"""An audit waits until every event is in the books."""


class MerchantError(Exception):
    """The service did not do what its merchant asked. The message is one line."""


class Merchant:
    """Puts a campaign on sale, and looks at the books afterwards."""

    def __init__(self, host: str, service_key: str) -> None:
        self._host = host.rstrip("/")
        self._headers = {"Authorization": f"Bearer {service_key}"}

    def put_sale(self, campaign: str, options: Options, opens_at: datetime) -> datetime:
        """Create the sale, or move it; the service's time."""
        document = sale_document(campaign, options, opens_at)
        view = self._call("PUT", f"/v1/campaigns/{campaign}", document)
        return datetime.fromisoformat(view["server_time"])

    def audit(self, campaign: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/campaigns/{campaign}/audit")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = requests.request(
                method, self._host + path, json=body, headers=self._headers, timeout=ANSWER_SECONDS_MAX
            )
            if not answer.ok:
                raise MerchantError(f"{method} {path}: {answer.status_code} {answer.text}")
            found: dict[str, Any] = answer.json()
        except requests.RequestException as error:  # no answer, or one that is not JSON
            raise MerchantError(f"{method} {path}: {error}") from None
        return found


def sale_document(campaign: str, options: Options, opens_at: datetime) -> dict[str, Any]:
    """A flash sale that opens with the spike and is over when the tail begins."""
    open_seconds = options.spike_seconds + options.plateau_seconds
    return {
        "id": campaign,
        "kind": "flash_sale",
        "title": "Load test",
        "currency": "CNY",
        "opens_at": opens_at.isoformat(),
        "closes_at": (opens_at + timedelta(seconds=max(1, open_seconds))).isoformat(),
        "hold_seconds": options.hold_seconds,
        "per_user": options.per_user,
        "offers": [{"sku": SKU, "price": 399_900, "list_price": 599_900, "stock": options.stock}],
    }
