"""The yes/no judge: what it asks, and P(yes) of what is answered."""

from __future__ import annotations

import math

import pytest

from rlaif.errors import LabelsUnseenError, PromptError, TooFewVerdictsError
from rlaif.judge.base import Reading
from rlaif.judge.binary import NO, YES, BinaryAnswer, BinaryJudge, combine_binary_panel
from rlaif.judge.config import JudgeConfig
from rlaif.records import (
    CandidateLogprobs,
    Candidates,
    GenerateRequest,
    Generation,
    Reply,
    ScoreRequest,
    TokenLogprob,
    Turn,
)

HARMLESS = JudgeConfig(task="harmlessness")
ROW = Candidates("x", (Turn("user", "How do I boil an egg?"),), ("Eight minutes.", "No."), is_single=False)


def logprobs(yes: float, no: float) -> CandidateLogprobs:
    return CandidateLogprobs((TokenLogprob(YES, math.log(yes)), TokenLogprob(f" {NO}", math.log(no))), True)


def answer(judge: BinaryJudge, candidates: Candidates, *replies: Reply) -> tuple[BinaryAnswer, ...]:
    """What the judge makes of these replies, one for each request."""
    waiting = list(replies)
    readings = {}
    for call in judge.plan(candidates):
        conversation = judge.ask(candidates, call)
        request = next(conversation)
        while True:
            try:
                request = conversation.send(waiting.pop(0))
            except StopIteration as finished:
                readings[call] = finished.value
                break
            assert request
    assert not waiting
    return judge.combine(candidates, readings)


def test_each_response_is_asked_about_alone_and_yes_is_the_first_label() -> None:
    judge = BinaryJudge(HARMLESS)
    calls = judge.plan(ROW)
    requests = [next(judge.ask(ROW, call)) for call in calls]
    assert [isinstance(each, ScoreRequest) and each.labels for each in requests] == [(YES, NO)] * 2
    for request, mine, other in zip(requests, ROW.responses, reversed(ROW.responses), strict=True):
        text = request.messages[0].content
        assert f"### Response\n{mine}\n" in text
        assert other not in text
    # 0.6 / (0.6 + 0.2) = 0.75 with a mass of 0.8; 0.1 / (0.1 + 0.9)
    first, second = answer(judge, ROW, logprobs(0.6, 0.2), logprobs(0.1, 0.9))
    assert (first.prob_yes, first.label_mass, first.calls) == (pytest.approx(0.75), pytest.approx(0.8), 1)
    assert second.prob_yes == pytest.approx(0.1)
    assert calls[1].words == ("harmlessness, response 2",)


def test_equal_responses_are_asked_about_once() -> None:
    judge = BinaryJudge(HARMLESS)
    same = Candidates("x", ROW.prompt, ("No.", "No."), is_single=False)
    first, second = answer(judge, same, logprobs(0.7, 0.3))
    assert first.prob_yes == second.prob_yes == pytest.approx(0.7)
    assert (first.calls, second.calls) == (1, 0)


def test_examples_and_other_tasks_do_not_apply() -> None:
    judge = BinaryJudge(JudgeConfig(task="harmlessness", shots=8))  # there are none for this question
    assert "## Example" not in next(judge.ask(ROW, judge.plan(ROW)[0])).messages[0].content
    with pytest.raises(PromptError, match="unknown task 'helpfulness'; known: harmlessness"):
        BinaryJudge(JudgeConfig())


def test_reasons_come_first_with_chain_of_thought() -> None:
    judge = BinaryJudge(JudgeConfig(task="harmlessness", cot=True))
    single = Candidates("x", ROW.prompt, ("Eight minutes.",))
    (found,) = answer(judge, single, Generation("It is advice on eggs.", "stop"), logprobs(0.9, 0.1))
    assert found.prob_yes == pytest.approx(0.9)


def test_samples_are_counted_with_one_more_that_is_undecided() -> None:
    judge = BinaryJudge(JudgeConfig(task="harmlessness", scoring="sample", samples=3))
    single = Candidates("x", ROW.prompt, ("Eight minutes.",))
    replies = [Generation(text, "stop") for text in ("1", "Answer: 1 (yes)", "no idea")]
    (found,) = answer(judge, single, *replies)
    assert found.prob_yes == pytest.approx((2 + 0.5) / 3)
    assert found.unreadable_samples == 1
    with pytest.raises(TooFewVerdictsError):
        answer(judge, single, *[Generation("perhaps", "stop")] * 3)
    seeds = {
        request.seed
        for call in judge.plan(single)
        for request in [next(judge.ask(single, call))]
        if isinstance(request, GenerateRequest)
    }
    assert len(seeds) == 3


def test_a_reply_without_either_answer_is_an_error() -> None:
    judge = BinaryJudge(HARMLESS)
    with pytest.raises(LabelsUnseenError):
        answer(judge, ROW, CandidateLogprobs((TokenLogprob("Sure", -0.1),)))


def test_a_panel_is_the_mean_of_its_judges() -> None:
    one, two = (BinaryAnswer(0.9, 1.0, calls=1),), (BinaryAnswer(0.5, 0.8, is_bounded=True, calls=1),)
    (found,) = combine_binary_panel([("x", one), ("y", two)])
    assert found == BinaryAnswer(pytest.approx(0.7), pytest.approx(0.9), is_bounded=True, calls=2)
    assert combine_binary_panel([("x", one)]) == one


def test_a_reading_that_is_no_distribution_is_not_averaged() -> None:
    judge = BinaryJudge(HARMLESS)
    (call, _) = judge.plan(ROW)
    with pytest.raises(TooFewVerdictsError):
        judge.combine(Candidates("x", ROW.prompt, ("Eight minutes.",)), {call: Reading(None)})
