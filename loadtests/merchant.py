"""The merchant's side: what takes the service key. These few requests are not part of the load."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import requests

ANSWER_SECONDS_MAX = 60.0
"""An audit waits until every event is in the books."""
PAGE_SECONDS_MAX = 2.0


class MerchantError(Exception):
    """The service did not do what its merchant asked. The message is one line."""


class Merchant:
    """Puts a campaign on sale, and looks at the books afterwards."""

    def __init__(self, host: str, service_key: str | None) -> None:
        """Without a key, only what everybody may see."""
        self._host = host.rstrip("/")
        self._headers = {"Authorization": f"Bearer {service_key}"} if service_key else {}

    def put(self, document: dict[str, Any]) -> datetime:
        """Create the campaign, or change it; the service's time."""
        view = self._call("PUT", f"/v1/campaigns/{document['id']}", document)
        return datetime.fromisoformat(view["server_time"])

    def restock(self, campaign: str, sku: str, units: int) -> None:
        """Put so many more on sale."""
        self._call("POST", f"/v1/campaigns/{campaign}/offers/{sku}/stock", {"delta": units})

    def page(self, campaign: str) -> dict[str, Any]:
        """What everybody sees."""
        return self._call("GET", f"/v1/campaigns/{campaign}", seconds_max=PAGE_SECONDS_MAX)

    def audit(self, campaign: str) -> dict[str, Any]:
        return self._call("GET", f"/v1/campaigns/{campaign}/audit")

    def _call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> dict[str, Any]:
        try:
            answer = requests.request(
                method, self._host + path, json=body, headers=self._headers, timeout=seconds_max
            )
            if not answer.ok:
                raise MerchantError(f"{method} {path}: {answer.status_code} {answer.text}")
            found: dict[str, Any] = answer.json()
        except requests.RequestException as error:  # no answer, or one that is not JSON
            raise MerchantError(f"{method} {path}: {error}") from None
        return found
