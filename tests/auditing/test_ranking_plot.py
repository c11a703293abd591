from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from auditing.matches import matches_of

from rlaif.auditing.ranking import rank_by_matches, rank_by_ratings
from rlaif.auditing.ranking_plot import save_ranking_plot
from rlaif.auditing.ranking_results import Ratings


@pytest.mark.parametrize("name", ["plain", "$x^{2$ and \\alpha", "<b>&amp;", "日本 😀", "long " * 40, "\x1b[31m"])
def test_any_name_is_drawn(tmp_path: Path, name: str) -> None:
    ranking = rank_by_matches(matches_of([(name, "b", 0.7), (name, "b", 0.8)] * 4), resamples=100, orders=2)
    assert save_ranking_plot(ranking, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_ranking_makes_the_same_bytes(tmp_path: Path) -> None:
    ratings = Ratings(("a", "b"), np.tile([0, 1], 20), np.linspace(2, 9, 40), np.repeat(np.arange(20), 2))
    ranking = rank_by_ratings(ratings, resamples=100)
    for name in ("a", "b"):
        save_ranking_plot(ranking, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_one_policy_is_no_plot(tmp_path: Path) -> None:
    alone = rank_by_ratings(Ratings(("a",), np.zeros(3, dtype=np.int64), np.array([1.0, 2, 3]), np.arange(3)))
    assert not save_ranking_plot(alone, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []
