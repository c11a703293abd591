"""Prices: what is read, and what is refused before a budget relies on it."""

from __future__ import annotations

import pytest

from rlaif.engine.config import CallConfig


def test_a_price_is_two_numbers() -> None:
    assert CallConfig(price="0.4/1.6").prices == (0.4, 1.6)
    assert CallConfig().prices is None


@pytest.mark.parametrize("price", ["1", "1/2/3", "a/b", "-1/1", "nan/nan", "1/inf", ""])
def test_anything_else_is_refused(price: str) -> None:
    with pytest.raises(ValueError, match="expected IN/OUT"):
        CallConfig(price=price, max_cost=1.0)
