"""From a response to its rating, with a judge made of a function: what is asked, and what the answers come to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import LabelsUnseenError, LowLabelMassError, TooFewVerdictsError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, Principle
from rlaif.judge.rating import RatingJudge, combine_rating_panel
from rlaif.records import (
    RATING_LABELS,
    CandidateLogprobs,
    Candidates,
    GeneratedToken,
    GenerateRequest,
    Generation,
    Rating,
    Reply,
    Request,
    ScoreRequest,
    TokenLogprob,
    Turn,
)

PROMPT = (Turn("user", "Why?"),)
ONE = Candidates("row", PROMPT, ("because",))
THREE = Candidates("row", PROMPT, ("because", "no idea", "because"), is_single=False)
TWO = Constitution("two", (Principle("short", "Which is shorter?"), Principle("kind", "Which is kinder?", weight=3.0)))


def probs_of(**scores: float) -> tuple[float, ...]:
    """`probs_of(s7=0.5, s10=0.5)`."""
    return tuple(scores.get(f"s{label}", 0.0) for label in RATING_LABELS)


def logprobs(probs: Sequence[float], *, is_exhaustive: bool = True) -> CandidateLogprobs:
    tokens = [(label, prob) for label, prob in zip(RATING_LABELS, probs, strict=True) if prob]
    return CandidateLogprobs(tuple(TokenLogprob(label, math.log(prob)) for label, prob in tokens), is_exhaustive)


def run(judge: RatingJudge, candidates: Candidates, answer: Callable[[Request], Reply]) -> tuple[Rating, ...]:
    readings = {}
    for call in judge.plan(candidates):
        conversation = judge.ask(candidates, call)
        request = next(conversation)
        while True:
            try:
                request = conversation.send(answer(request))
            except StopIteration as finished:
                readings[call] = finished.value
                break
    return judge.combine(candidates, readings)


@pytest.mark.parametrize(
    ("probs", "rating", "reward"),
    [
        ((0.1,) * 10, 5.5, 0.0),
        (probs_of(s10=1.0), 10.0, 1.0),
        (probs_of(s1=1.0), 1.0, -1.0),
        (probs_of(s7=0.25, s8=0.5, s10=0.25), 8.25, 2.75 / 4.5),
    ],
)
def test_the_rating_is_the_expectation_and_the_reward_its_place_on_the_scale(
    probs: tuple[float, ...], rating: float, reward: float
) -> None:
    (rated,) = run(RatingJudge(JudgeConfig()), ONE, lambda _: logprobs(probs))
    assert rated.rating == pytest.approx(rating, abs=1e-12)
    assert rated.reward == pytest.approx(reward, abs=1e-12)
    assert rated.label_mass == pytest.approx(1.0)
    assert rated.calls == 1


@given(st.lists(st.floats(0.001, 1.0), min_size=10, max_size=10), st.floats(0.05, 1.0))
def test_a_distribution_whatever_its_mass_gives_a_reward_within_bounds(weights: list[float], mass: float) -> None:
    scaled = [mass * weight / math.fsum(weights) for weight in weights]
    (rated,) = run(RatingJudge(JudgeConfig()), ONE, lambda _: logprobs(scaled))
    assert math.fsum(rated.probs) == pytest.approx(1.0)
    assert -1.0 <= rated.reward <= 1.0
    assert rated.label_mass == pytest.approx(mass)
    mirrored = [*reversed(scaled)]
    (other,) = run(RatingJudge(JudgeConfig()), ONE, lambda _: logprobs(mirrored))
    assert other.reward == pytest.approx(-rated.reward)


def test_the_response_and_the_prompt_are_shown_once_and_the_ten_scores_asked_for() -> None:
    judge = RatingJudge(JudgeConfig())
    (call,) = judge.plan(ONE)
    request = next(judge.ask(ONE, call))
    assert isinstance(request, ScoreRequest)
    assert request.labels == ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10")
    content = request.messages[0].content
    assert content.count("because") == 1
    assert content.endswith("Rating (1 to 10):")
    assert call.words == ("rating",)


def test_digits_outside_the_top_k_are_bounded_and_reported_not_zeroed() -> None:
    # Seen: 8 at 0.6, 7 at 0.25, something else at 0.05: left over is 0.1, for eight unseen scores 0.0125 each.
    reply = CandidateLogprobs(
        (TokenLogprob("8", math.log(0.6)), TokenLogprob("7", math.log(0.25)), TokenLogprob("The", math.log(0.05)))
    )
    (rated,) = run(RatingJudge(JudgeConfig()), ONE, lambda _: reply)
    assert rated.is_bounded
    total = 0.85 + 8 * 0.0125
    assert rated.probs[7] == pytest.approx(0.6 / total)
    assert rated.probs[0] == rated.probs[9] == pytest.approx(0.0125 / total)
    assert rated.label_mass == pytest.approx(0.85)


def test_a_bound_is_never_above_the_lowest_probability_returned() -> None:
    tokens = [TokenLogprob(str(score), math.log(prob)) for score, prob in ((5, 0.3), (6, 0.2), (4, 0.01))]
    (rated,) = run(RatingJudge(JudgeConfig()), ONE, lambda _: CandidateLogprobs(tuple(tokens)))
    assert rated.probs[9] == pytest.approx(0.01 / (0.51 + 7 * 0.01))


def test_no_score_among_the_tokens_is_a_failure_and_so_is_too_little_mass() -> None:
    judge = RatingJudge(JudgeConfig(min_label_mass=0.1))
    with pytest.raises(LabelsUnseenError):
        run(judge, ONE, lambda _: CandidateLogprobs((TokenLogprob("Well", -0.1),)))
    with pytest.raises(LowLabelMassError):
        run(judge, ONE, lambda _: logprobs(probs_of(s7=0.05)))


def test_candidates_are_rated_each_and_equal_responses_asked_about_once() -> None:
    judge = RatingJudge(JudgeConfig())
    assert [call.words for call in judge.plan(THREE)] == [("response 1",), ("response 2",)]
    asked = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return logprobs(probs_of(s9=1.0) if "because" in request.messages[0].content else probs_of(s2=1.0))

    ratings = run(judge, THREE, answer)
    assert [rated.rating for rated in ratings] == [9.0, 2.0, 9.0]
    assert [rated.calls for rated in ratings] == [1, 1, 0]
    assert len(asked) == 2


def test_principles_are_averaged_by_weight_and_each_is_kept() -> None:
    judge = RatingJudge(JudgeConfig(), TWO)

    def answer(request: Request) -> Reply:
        is_short = "Which is shorter?" in request.messages[0].content
        return logprobs(probs_of(s4=1.0) if is_short else probs_of(s8=1.0))

    (rated,) = run(judge, ONE, answer)
    assert rated.rating == pytest.approx((4 + 3 * 8) / 4)
    assert [(named.name, named.rating) for named in rated.by_principle] == [("short", 4.0), ("kind", 8.0)]
    assert rated.calls == 2


def test_a_sampled_principle_is_named_and_asked_alone() -> None:
    judge = RatingJudge(JudgeConfig(principles="sample"), TWO)
    (call,) = judge.plan(ONE)
    (rated,) = run(judge, ONE, lambda _: logprobs(probs_of(s4=1.0)))
    assert call.principle is not None
    assert rated.sampled_principle == call.principle.id
    assert rated.by_principle == ()


def test_reasons_first_then_the_scores_in_a_call_of_their_own() -> None:
    judge = RatingJudge(JudgeConfig(cot=True))
    asked = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        return Generation("It is short. ", "stop") if isinstance(request, GenerateRequest) else logprobs((0.1,) * 10)

    (rated,) = run(judge, ONE, answer)
    assert rated.rationale == "It is short."
    assert [message.role for message in asked[1].messages] == ["user", "assistant", "user"]
    assert asked[1].messages[2].content == "Rating (1 to 10):"


def stated(number: str, alternatives: dict[str, float]) -> Generation:
    tokens = [GeneratedToken("Fine. Rating: ", ())]
    tokens.append(GeneratedToken(number, tuple(TokenLogprob(t, math.log(p)) for t, p in alternatives.items())))
    return Generation(f"Fine. Rating: {number}", "stop", tuple(tokens))


def test_the_rating_is_read_from_the_reply_where_its_tokens_tell_all() -> None:
    judge = RatingJudge(JudgeConfig(cot=True), verdict_in_reply=True)
    reply = stated("10", {"10": 0.5, "9": 0.25, "8": 0.25})
    (rated,) = run(judge, ONE, lambda request: reply)
    assert rated.rationale == "Fine."
    assert rated.is_bounded
    assert rated.rating == pytest.approx(0.5 * 10 + 0.25 * 9 + 0.25 * 8)


def test_a_one_that_may_go_on_to_ten_is_asked_about_in_a_call_of_its_own() -> None:
    judge = RatingJudge(JudgeConfig(cot=True), verdict_in_reply=True)
    asked = []

    def answer(request: Request) -> Reply:
        asked.append(request)
        if isinstance(request, GenerateRequest):
            return stated("9", {"9": 0.6, "1": 0.4})  # "1" alone, or the beginning of "10": the reply does not say
        return logprobs(probs_of(s9=0.6, s10=0.39, s1=0.01))

    (rated,) = run(judge, ONE, answer)
    assert len(asked) == 2
    assert rated.probs[9] == pytest.approx(0.39)


def test_samples_are_counted_with_one_pseudo_sample_and_the_unreadable_ones_are_counted_too() -> None:
    judge = RatingJudge(JudgeConfig(scoring="sample", samples=4))
    texts = iter(["7", "Rating: 8/10", "no idea", "7"])
    (rated,) = run(judge, ONE, lambda _: Generation(next(texts), "stop"))
    assert rated.probs[6] == pytest.approx(2.1 / 4)
    assert rated.probs[7] == pytest.approx(1.1 / 4)
    assert rated.probs[0] == pytest.approx(0.1 / 4)
    assert rated.unreadable_samples == 1
    assert rated.label_mass is None
    with pytest.raises(TooFewVerdictsError, match="1 of 4"):
        run(judge, ONE, lambda request: Generation("9" if request.seed == first_seed(judge) else "?", "stop"))  # type: ignore[union-attr]


def first_seed(judge: RatingJudge) -> int | None:
    request = next(judge.ask(ONE, judge.plan(ONE)[0]))
    assert isinstance(request, GenerateRequest)
    return request.seed


def test_a_panel_averages_distributions_and_keeps_each_judge() -> None:
    high, low = Rating(probs_of(s9=1.0), label_mass=1.0, calls=1), Rating(probs_of(s4=1.0), label_mass=0.5, calls=1)
    (rated,) = combine_rating_panel([("x", (high,)), ("y", (low,))])
    assert rated.rating == pytest.approx(6.5)
    assert rated.label_mass == pytest.approx(0.75)
    assert [(named.name, named.rating) for named in rated.by_judge] == [("x", 9.0), ("y", 4.0)]
    assert combine_rating_panel([("x", (high,))]) == (high,)
    (partial,) = combine_rating_panel([("x", (high,))], ["y"])
    assert partial.missing_judges == ("y",)
    assert partial.rating == 9.0
    assert [named.name for named in partial.by_judge] == ["x"]


@pytest.mark.parametrize("alternatives", [("1", " 1"), (" 1", "1")])
def test_a_one_may_go_on_whichever_of_its_tokens_is_the_likely_one(alternatives: tuple[str, str]) -> None:
    judge = RatingJudge(JudgeConfig(cot=True), verdict_in_reply=True)
    likely, unlikely = alternatives
    listed = [TokenLogprob(likely, math.log(0.9)), TokenLogprob(unlikely, math.log(1e-9))]
    for seen in (tuple(listed), tuple(reversed(listed))):
        reply = Generation("Rating: 10", "stop", (GeneratedToken("Rating: ", ()), GeneratedToken("1", seen)))
        answers = {GenerateRequest: reply, ScoreRequest: logprobs(probs_of(s10=1.0))}
        (rated,) = run(judge, ONE, lambda request, answers=answers: answers[type(request)])  # type: ignore[misc]
        assert rated.rating == 10.0


@pytest.mark.parametrize(("text", "finish", "unreadable"), [
    ("I would give this a rating: 1", "length", 1),
    ("I would give this a rating: 1", "stop", 0),
    ("I would give this a rating: 1,", "length", 0),
    ("\n1\nIt is", "length", 0),
])  # fmt: skip
def test_a_sample_cut_short_at_its_score_states_none(text: str, finish: str, unreadable: int) -> None:
    judge = RatingJudge(JudgeConfig(scoring="sample", samples=2))
    replies = iter([Generation(text, finish), Generation("1", "stop")])
    (rated,) = run(judge, ONE, lambda _: next(replies))
    assert rated.unreadable_samples == unreadable
