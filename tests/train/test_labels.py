"""What `--labels` makes of a row."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from rlaif.records import Verdict
from rlaif.train.labels import Labels, target_prob

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE


@pytest.mark.parametrize("prob", [0.0, 0.2, 0.5, 0.55, 1.0])
def test_soft_is_the_probability_as_it_is(prob: float) -> None:
    assert target_prob("soft", prob, [A, A], A) == prob


@pytest.mark.parametrize(
    ("prob", "expected"), [(0.0, 0.0), (0.49, 0.0), (0.5, None), (0.5 + 5e-10, None), (0.51, 1.0), (1.0, 1.0)]
)
def test_hard_is_the_larger_side_and_drops_ties(prob: float, expected: float | None) -> None:
    assert target_prob("hard", prob, [B, B], B) == expected


def test_a_wider_tie_band_drops_more() -> None:
    assert target_prob("hard", 0.54, tie_band=0.05) is None


@pytest.mark.parametrize(
    ("votes", "label", "expected"),
    [
        ([A, A, A, B], None, 0.75),
        ([A, B], None, 0.5),  # no plurality is a share of one half all the same
        ([A, TIE], None, 0.75),
        ([TIE], None, 0.5),
        ([B, B, A], A, 1 / 3),  # with votes the label is ignored
        ([], A, 1.0),
        ([], B, 0.0),
        ([], TIE, 0.5),
    ],
)
def test_human_is_the_share_of_the_votes(votes: list[Verdict], label: Verdict | None, expected: float) -> None:
    assert target_prob("human", 0.9, votes, label) == pytest.approx(expected)


@pytest.mark.parametrize("labels", ["soft", "hard"])
@pytest.mark.parametrize("prob", [-0.01, 1.01, math.nan, math.inf])
def test_a_probability_out_of_range_is_refused(labels: Labels, prob: float) -> None:
    with pytest.raises(ValueError, match=r"prob_a must lie in \[0, 1\]"):
        target_prob(labels, prob)


def test_a_row_without_the_label_is_no_tie() -> None:
    with pytest.raises(ValueError, match="no prob_a, which --labels hard needs"):
        target_prob("hard", None, [A], A)
    with pytest.raises(ValueError, match="no human label"):
        target_prob("human", 0.9)


@pytest.mark.parametrize("prob", [0.0, 0.25, 0.5, 0.875, 1.0])
def test_exchanging_the_responses_exchanges_the_label(prob: float) -> None:
    other = {A: B, B: A, TIE: TIE}
    votes = [A, A, TIE, B]
    for labels in ("soft", "hard", "human"):
        ours = target_prob(labels, prob, votes)
        swapped = target_prob(labels, 1 - prob, [other[vote] for vote in votes])
        assert ours == (None if swapped is None else pytest.approx(1 - swapped))


def test_labels_are_read_without_torch() -> None:
    program = "import rlaif.train.labels, sys; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
