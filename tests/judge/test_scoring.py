"""Hand-worked numbers first, then what must hold for every input."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import LabelsUnseenError, LowLabelMassError
from rlaif.judge.scoring import (
    average_orders,
    candidate_distribution,
    clamp_probability,
    combine_orders,
    debias,
    mean_label,
    sampled_distribution,
)
from rlaif.records import CandidateLogprobs, SoftLabel, TokenLogprob

LABELS = ("1", "2")
probs = st.floats(0.0, 1.0)
inner_probs = st.floats(1e-6, 1 - 1e-6)


def reply(probabilities: dict[str, float], *, is_exhaustive: bool = False) -> CandidateLogprobs:
    return CandidateLogprobs(
        tuple(TokenLogprob(token, math.log(prob)) for token, prob in probabilities.items()), is_exhaustive
    )


def test_softmax_over_the_two_labels() -> None:
    # 0.6 and 0.2 of the mass: 0.6 / 0.8 = 0.75
    distribution = candidate_distribution(reply({"1": 0.6, "2": 0.2, "The": 0.1}), LABELS)
    assert distribution.probs == pytest.approx((0.75, 0.25))
    assert distribution.mass == pytest.approx(0.8)
    assert not distribution.is_bounded


def test_token_variants_of_a_label_are_summed() -> None:
    # "1": 0.3 + " 1": 0.2 + "▁1": 0.1 = 0.6; "2": 0.1 + "Ġ2": 0.1 = 0.2
    distribution = candidate_distribution(reply({"1": 0.3, " 1": 0.2, "▁1": 0.1, "2": 0.1, "Ġ2": 0.1}), LABELS)
    assert distribution.probs == pytest.approx((0.75, 0.25))
    assert distribution.mass == pytest.approx(0.8)


def test_the_same_text_twice_counts_twice() -> None:
    tokens = (TokenLogprob("1", math.log(0.2)), TokenLogprob("1", math.log(0.4)), TokenLogprob("2", math.log(0.2)))
    assert candidate_distribution(CandidateLogprobs(tokens), LABELS).probs == pytest.approx((0.75, 0.25))


def test_minus_infinity_bounds_nothing() -> None:
    # a token that was not computed says nothing of the lowest that was: "2" is at most 0.04, not 0
    tokens = (*reply({"1": 0.6, "A": 0.3, "B": 0.04}).tokens, TokenLogprob("C", -math.inf))
    assert candidate_distribution(CandidateLogprobs(tokens), LABELS).probs == pytest.approx((0.6 / 0.64, 0.04 / 0.64))


@pytest.mark.parametrize("token", ["1", "2", "x"])
def test_a_logprob_that_is_no_number_is_no_label(token: str) -> None:
    tokens = (TokenLogprob("1", -1.0), TokenLogprob("2", -1.0), TokenLogprob(token, math.nan))
    with pytest.raises(LabelsUnseenError, match="NaN"):
        candidate_distribution(CandidateLogprobs(tokens), LABELS)


def test_ten_is_not_one() -> None:
    assert candidate_distribution(reply({"1": 0.2, "10": 0.5, "2": 0.2}), LABELS).mass == pytest.approx(0.4)


def test_an_unseen_label_is_bounded_by_the_lowest_returned_token() -> None:
    # returned 0.6 + 0.3 + 0.04 = 0.94, left 0.06; the lowest returned is 0.04, so "2" is at most 0.04
    distribution = candidate_distribution(reply({"1": 0.6, "A": 0.3, "B": 0.04}), LABELS)
    assert distribution.is_bounded
    assert distribution.probs == pytest.approx((0.6 / 0.64, 0.04 / 0.64))
    assert distribution.mass == pytest.approx(0.6)


def test_an_unseen_label_is_bounded_by_what_is_left_of_one() -> None:
    # returned 0.9 + 0.08 = 0.98, left 0.02, which is less than the lowest returned 0.08
    distribution = candidate_distribution(reply({"1": 0.9, "A": 0.08}), LABELS)
    assert distribution.probs == pytest.approx((0.9 / 0.92, 0.02 / 0.92))


def test_in_an_exhaustive_reply_an_absent_label_is_impossible() -> None:
    distribution = candidate_distribution(reply({"1": 0.9}, is_exhaustive=True), LABELS)
    assert distribution.probs == (1.0, 0.0)
    assert not distribution.is_bounded


def test_no_label_seen_is_an_error_with_a_name() -> None:
    with pytest.raises(LabelsUnseenError, match="'The'"):
        candidate_distribution(reply({"The": 0.9}), LABELS)
    with pytest.raises(LabelsUnseenError, match="nothing"):
        candidate_distribution(CandidateLogprobs(()), LABELS)


def test_mass_under_the_floor_is_an_error_and_a_bound_does_not_lift_it() -> None:
    with pytest.raises(LowLabelMassError, match="0.004"):
        candidate_distribution(reply({"The": 0.5, "1": 0.004, "A": 0.003}), LABELS, min_mass=0.005)
    assert candidate_distribution(reply({"The": 0.5, "1": 0.006}), LABELS, min_mass=0.005).mass == pytest.approx(0.006)


@given(st.dictionaries(st.sampled_from(["1", " 1", "2", " 2", "x", "The"]), st.floats(-50, 0), min_size=1))
def test_probabilities_sum_to_one_and_a_relabelling_swaps_them(logprobs: dict[str, float]) -> None:
    total = math.fsum(math.exp(value) for value in logprobs.values())
    tokens = {token: math.exp(value) / max(total, 1.0) for token, value in logprobs.items()}
    swapped_names = str.maketrans("12", "21")
    swapped = {token.translate(swapped_names): prob for token, prob in tokens.items()}
    if not any(token.strip() in LABELS for token in tokens):
        return
    distribution = candidate_distribution(reply(tokens), LABELS)
    assert math.fsum(distribution.probs) == pytest.approx(1.0)
    assert 0.0 <= distribution.mass <= 1.0
    assert candidate_distribution(reply(swapped), LABELS).probs == pytest.approx(distribution.probs[::-1])


@given(inner_probs, st.floats(-20, -1e-3))
def test_a_constant_shift_of_the_logprobs_leaves_the_label(prob: float, shift: float) -> None:
    tokens = {"1": prob * math.exp(shift), "2": (1 - prob) * math.exp(shift)}
    assert candidate_distribution(reply(tokens), LABELS).probs[0] == pytest.approx(prob)


def test_debias_by_hand() -> None:
    # first slot 0.9 with A first, 0.4 with B first: P(A) = (0.9 + 0.6) / 2
    assert debias(0.9, 0.4) == pytest.approx(0.75)
    # logits: ln 9 = 2.1972 and ln 1.5 = 0.4055, mean 1.3013, sigmoid 0.78606
    assert debias(0.9, 0.4, "mean-logit") == pytest.approx(0.786061, abs=1e-6)


@given(probs)
def test_a_judge_that_looks_only_at_position_gets_one_half(prob: float) -> None:
    assert debias(prob, prob) == pytest.approx(0.5)
    assert debias(prob, prob, "mean-logit") == pytest.approx(0.5, abs=1e-4)


@given(probs, probs, st.sampled_from(["mean-prob", "mean-logit"]))
def test_swapping_the_responses_mirrors_the_label(p_first_ab: float, p_first_ba: float, method: str) -> None:
    # exchanging A and B exchanges which run is order ab
    assert debias(p_first_ba, p_first_ab, method) == pytest.approx(1.0 - debias(p_first_ab, p_first_ba, method))


@given(st.floats(-8, 8), st.floats(-8, 8))
def test_mean_logit_removes_an_additive_slot_bias_and_mean_prob_keeps_the_side(strength: float, bias: float) -> None:
    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    prob_a_ab, prob_a_ba = sigmoid(strength + bias), sigmoid(strength - bias)
    assert average_orders(prob_a_ab, prob_a_ba, "mean-logit") == pytest.approx(sigmoid(strength), abs=1e-9)
    if abs(strength) > 1e-3:
        assert (average_orders(prob_a_ab, prob_a_ba) > 0.5) == (strength > 0)


@pytest.mark.parametrize("prob", [float("nan"), -0.1, 1.1])
def test_debias_refuses_what_is_no_probability(prob: float) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        debias(0.5, prob)


def test_certain_orders_have_a_finite_logit_mean() -> None:
    assert debias(1.0, 0.0, "mean-logit") == pytest.approx(1.0)
    assert debias(1.0, 1.0, "mean-logit") == pytest.approx(0.5)


@given(probs, st.floats(0.01, 0.49))
def test_a_clamp_keeps_the_side_and_is_the_same_for_both_responses(prob: float, low: float) -> None:
    kept = clamp_probability(prob, low, 1 - low)
    assert low <= kept <= 1 - low
    assert (kept > 0.5, kept < 0.5) == (prob > 0.5, prob < 0.5)
    assert clamp_probability(1 - prob, low, 1 - low) == pytest.approx(1 - kept)
    assert clamp_probability(kept, low, 1 - low) == kept
    if low <= prob <= 1 - low:
        assert kept == prob


def test_one_order_alone_is_the_label() -> None:
    assert combine_orders(0.7, None, "mean-prob") == SoftLabel(0.7, 0.7, None)
    assert combine_orders(None, 0.2, "mean-prob") == SoftLabel(0.2, None, 0.2)
    with pytest.raises(ValueError, match="at least one order"):
        combine_orders(None, None, "mean-prob")


def test_weighted_mean_of_labels_by_hand() -> None:
    labels = [SoftLabel(0.8, 0.9, 0.7), SoftLabel(0.2, 0.3, None)]
    # (3 * 0.8 + 0.2) / 4 = 0.65; (3 * 0.9 + 0.3) / 4 = 0.75; only the first has order ba
    assert mean_label(labels, [3.0, 1.0]) == SoftLabel(pytest.approx(0.65), pytest.approx(0.75), pytest.approx(0.7))


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [-1.0, 2.0]])
def test_weights_that_make_no_mean_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weights"):
        mean_label([SoftLabel(0.5, 0.5, 0.5)] * len(weights), weights)


def test_sampled_distribution_never_reaches_certainty() -> None:
    # 4 of 4: (4 + 0.5) / (4 + 1) = 0.9
    assert sampled_distribution([4, 0]) == (0.9, 0.1)
