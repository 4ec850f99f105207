"""The kinds of campaign. A kind is one small pure module, registered here."""

from __future__ import annotations

from reservation.kinds.flash_sale import FlashSale
from reservation.kinds.kind import Kind
from reservation.kinds.presale import Presale
from reservation.kinds.trade_in import TradeIn

KINDS: dict[str, Kind] = {kind.name: kind for kind in (FlashSale(), Presale(), TradeIn())}
