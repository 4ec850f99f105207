"""What was left of each offer, second by second, as everybody could see it; and a merchant who restocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import gevent

from loadtests.merchant import Merchant, MerchantError

LOOK_SECONDS = 1.0


@dataclass
class Monitor:
    """Looks at the campaign's page once a second, on the node that concludes."""

    merchant: Merchant
    campaign: str
    seconds_max: int
    """After so many looks it ends by itself, whatever happens to the test."""
    run_time_s: Callable[[], float]
    restock: tuple[int, str, int] | None = None
    """When to put more on sale, in seconds from the beginning; of which SKU; how many units."""
    began_s: float = field(default_factory=time.time)
    stock: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """By SKU: seconds since the epoch, and the units left then."""
    failed: list[str] = field(default_factory=list)
    """What the merchant could not do."""
    _looking: gevent.Greenlet | None = None

    def start(self) -> None:
        self._looking = gevent.spawn(self._look_on)

    def stop(self) -> None:
        if self._looking is not None:
            self._looking.kill()

    def _look_on(self) -> None:
        for _ in range(self.seconds_max):
            self._look()
            if self.restock is not None and self.run_time_s() >= self.restock[0]:
                _, sku, units = self.restock
                self.restock = None
                try:
                    self.merchant.restock(self.campaign, sku, units)
                except MerchantError as error:
                    self.failed.append(str(error))
            gevent.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        try:
            page = self.merchant.page(self.campaign)
        except MerchantError:
            return  # a look that is missing is a gap in the picture; the shoppers tell why
        now = time.time()
        for offer in page["offers"]:
            self.stock.setdefault(offer["sku"], []).append((now, offer["remaining"]))
