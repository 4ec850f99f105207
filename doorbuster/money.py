"""Money as people read it: minor units are for machines."""

from __future__ import annotations

_BY_DECIMALS = {
    0: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF",
    3: "BHD IQD JOD KWD LYD OMR TND",
    4: "CLF UYW",
}
_DECIMALS = {currency: decimals for decimals, found in _BY_DECIMALS.items() for currency in found.split()}
"""ISO 4217: how many decimals a currency has, where that is not 2."""


def decimal(amount: int, currency: str, *, thousands: str = "") -> str:
    """So many minor units as a number of the currency: 4650.00."""
    decimals = _DECIMALS.get(currency, 2)
    whole, part = divmod(abs(amount), 10**decimals)
    sign, text = "-" if amount < 0 else "", f"{whole:,}".replace(",", thousands)
    return f"{sign}{text}.{part:0{decimals}}" if decimals else f"{sign}{text}"


def money(amount: int, currency: str) -> str:
    """So many minor units, with their currency: 4,650.00 CNY."""
    return f"{decimal(amount, currency, thousands=',')} {currency}"
