"""What probabilities on held-out pairs are worth: hand-worked figures."""

from __future__ import annotations

import math

import pytest

from rlaif.engine.training_evaluation import evaluate_pairs
from rlaif.records import Comparison, Turn, Verdict
from rlaif.training_records import LabeledPair

A, B = Verdict.A, Verdict.B


def pairs_of(*human: Verdict | None) -> list[LabeledPair]:
    return [
        LabeledPair(Comparison(f"r{number}", (Turn("user", f"P{number}"),), "x", "y", human_label=label), 0.5)
        for number, label in enumerate(human)
    ]


def values(section):
    return {name: figure.value for name, figure in section.items()}


def logit(prob: float) -> float:
    return math.log(prob / (1 - prob))


def test_figures_beside_the_labels() -> None:
    labels = [1.0, 0.5, 0.25, 0.1]
    probs = [0.9, 0.6, 0.75, 0.1]
    rewards = [(logit(prob), 0.0) for prob in probs]
    found = evaluate_pairs(pairs_of(None, None, None, None), labels, rewards, is_probability=True)
    assert found.keys() == {"labels"}
    figures = values(found["labels"])
    assert figures["agreement"] == pytest.approx(2 / 3)  # the tie is left out, the third is on the other side
    assert figures["squared_error"] == pytest.approx((0.01 + 0.01 + 0.25 + 0.0) / 4)
    assert figures["calibration_error"] == pytest.approx((0.1 + 0.1 + 0.5 + 0.0) / 4)  # each a bin of its own
    for figure in found["labels"].values():
        assert figure.low is not None
        assert figure.high is not None
        assert figure.low <= figure.value <= figure.high
        assert figure.n == (3 if figure is found["labels"]["agreement"] else 4)


def test_figures_beside_people() -> None:
    probs = [0.9, 0.2, 0.6, 0.7]
    rewards = [(1.0 + logit(prob), 1.0) for prob in probs]
    found = evaluate_pairs(pairs_of(A, B, B, None), [0.5] * 4, rewards, is_probability=True)
    people = values(found["human"])
    assert people["agreement"] == pytest.approx(2 / 3)
    assert people["brier"] == pytest.approx((0.01 + 0.04 + 0.36) / 3)
    assert people["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4)) / 3)
    assert people["auc"] == 1.0
    assert found["labels"]["agreement"].value is None  # every label is a tie


def test_where_a_difference_of_rewards_is_no_probability_only_its_side_is_judged() -> None:
    found = evaluate_pairs(pairs_of(A, B), [1.0, 1.0], [(5.0, 4.0), (1.0, 3.0)], is_probability=False)
    assert values(found["labels"]) == {"agreement": 0.5}
    assert values(found["human"]) == {"agreement": 1.0, "auc": 1.0}


def test_exchanging_a_and_b_changes_no_figure() -> None:
    labels, rewards = [0.9, 0.3, 0.6], [(2.0, 0.5), (0.1, 0.4), (-1.0, 1.0)]
    one = evaluate_pairs(pairs_of(A, B, A), labels, rewards, is_probability=True)
    turned = [(b, a) for a, b in rewards]
    other = evaluate_pairs(pairs_of(B, A, B), [1.0 - label for label in labels], turned, is_probability=True)
    for section, figures in values(one["labels"]).items():
        assert values(other["labels"])[section] == pytest.approx(figures)
    for name in ("agreement", "brier", "log_loss", "auc"):
        assert values(other["human"])[name] == pytest.approx(values(one["human"])[name])


def test_rewards_far_apart_are_no_overflow() -> None:
    found = evaluate_pairs(pairs_of(A, B), [1.0, 0.0], [(1e4, -1e4), (-1e4, 1e4)], is_probability=True)
    assert values(found["labels"])["squared_error"] == 0.0
    assert values(found["human"])["agreement"] == 1.0
