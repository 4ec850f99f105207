"""Ids say where they belong, and are the same for the same request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reservation.ids import PaymentId, ReservationId, Stage

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(names, names)
def test_an_id_is_derived_and_comes_back(user: str, key: str) -> None:
    derived = ReservationId.derive("singles-day", user, key)
    assert derived == ReservationId.derive("singles-day", user, key)
    assert ReservationId.parse(str(derived)) == derived
    payment = PaymentId(derived, Stage.FULL)
    assert PaymentId.parse(str(payment)) == payment


def test_campaign_user_and_key_are_told_apart() -> None:
    asked = [("c", "ab", "c"), ("c", "a", "bc"), ("d", "ab", "c"), ("c", "ab", "d"), ("c", "1:a", "b")]
    assert len({ReservationId.derive(*one).digest for one in asked}) == len(asked)


@pytest.mark.parametrize(
    "text", ["", "c", "c.", ".x", "c.short", "C." + "a" * 24, "c." + "a" * 24 + "\n", "c." + "1" * 24]
)
def test_what_is_no_id_is_none(text: str) -> None:
    assert ReservationId.parse(text) is None
    assert PaymentId.parse(text + ".full") is None
    assert PaymentId.parse("c." + "a" * 24 + ".gift") is None
