import pytest

from rlaif.data.costs import cost_usd, human_cost_usd


def test_the_papers_figure_per_label():
    # 2 orders x (830 tokens x $30/M + 61 tokens x $60/M) = 2 x ($0.0249 + $0.00366) = $0.05712
    assert cost_usd(2 * 830, 2 * 61, 30, 60) == pytest.approx(0.05712, abs=1e-12)
    assert round(cost_usd(2 * 830, 2 * 61, 30, 60), 3) == 0.057


def test_the_papers_human_figure_and_ratio():
    # 304 words x $0.11 / 50 words = $0.6688, 11.7 times the above
    assert human_cost_usd(304) == pytest.approx(0.6688, abs=1e-12)
    assert round(human_cost_usd(304) / cost_usd(2 * 830, 2 * 61, 30, 60), 1) == 11.7


def test_each_kind_of_token_has_its_own_price():
    assert cost_usd(1_000_000, 0, 2.5, 10) == 2.5
    assert cost_usd(0, 1_000_000, 2.5, 10) == 10
