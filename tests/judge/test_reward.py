"""Judging with a reward model: what is asked about, and what the numbers mean."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.judge.config import JudgeConfig
from rlaif.judge.reward import RewardPairwiseJudge, RewardRatingJudge
from rlaif.records import Candidates, Comparison, Judgment, Rating, Reward, RewardRequest, Turn

PROMPT = (Turn("user", "Why?"),)
PAIRWISE, RATING = RewardPairwiseJudge(JudgeConfig()), RewardRatingJudge(JudgeConfig())


def outcome(judge, row, rewards: Mapping[str, float]):
    """What the judge makes of a row whose responses have these rewards."""
    readings = {}
    for call in judge.plan(row):
        conversation = judge.ask(row, call)
        request = next(conversation)
        assert request == RewardRequest(PROMPT, call.response)
        with pytest.raises(StopIteration) as finished:
            conversation.send(Reward(rewards[request.response]))
        readings[call] = finished.value.value
    return judge.combine(row, readings)


def compared(a: str, b: str, rewards: Mapping[str, float]) -> Judgment:
    return outcome(PAIRWISE, Comparison("row", PROMPT, a, b), rewards)


def test_the_sigmoid_of_the_difference_in_both_orders():
    judgment = compared("good", "poor", {"good": 1.5, "poor": 0.5})
    # 1 / (1 + exp(-1)) = 0.7310586
    assert judgment.prob_a == pytest.approx(0.7310585786)
    assert judgment.prob_a_ab == judgment.prob_a_ba == judgment.prob_a
    assert (judgment.calls, judgment.label_mass_ab, judgment.label_mass_ba) == (2, None, None)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_swapped_it_is_the_complement_and_a_shift_changes_nothing(one, other, shift):
    prob_a = compared("x", "y", {"x": one, "y": other}).prob_a
    assert 0.0 <= prob_a <= 1.0
    assert compared("y", "x", {"x": one, "y": other}).prob_a == pytest.approx(1.0 - prob_a, abs=1e-12)
    assert compared("x", "y", {"x": one + shift, "y": other + shift}).prob_a == pytest.approx(prob_a, abs=1e-9)


def test_identical_responses_are_a_half_without_a_call():
    judgment = compared("same", "same", {})
    assert (judgment.prob_a, judgment.prob_a_ab, judgment.prob_a_ba, judgment.calls) == (0.5, None, None, 0)


def test_each_response_has_its_reward_and_equal_ones_are_asked_about_once():
    rewards = {"x": -3.25, "y": 12.0}
    ratings = outcome(RATING, Candidates("row", PROMPT, ("x", "y", "x"), is_single=False), rewards)
    assert [rating.reward for rating in ratings] == [-3.25, 12.0, -3.25]
    assert [rating.calls for rating in ratings] == [1, 1, 0]
    assert all((rating.rating, rating.probs, rating.label_mass) == (None, None, None) for rating in ratings)


def test_the_calls_are_named_by_their_place():
    assert [call.words for call in PAIRWISE.plan(Comparison("row", PROMPT, "x", "y"))] == [
        ("response a",),
        ("response b",),
    ]
    several = RATING.plan(Candidates("row", PROMPT, ("x", "x", "y"), is_single=False))
    assert [call.words for call in several] == [("response 1",), ("response 3",)]
    (single,) = RATING.plan(Candidates("row", PROMPT, ("x",)))
    assert single.words == ("rating",)


def test_a_rating_has_one_scale():
    assert Rating(None, own_score=2.0).unit_reward == pytest.approx(1 / (1 + math.exp(-2.0)))
    assert Rating((0.0,) * 9 + (1.0,)).unit_reward == 1.0
    for probs, own_score in ((None, None), ((0.1,) * 10, 1.0)):
        with pytest.raises(ValueError, match="either"):
            Rating(probs, own_score=own_score)
