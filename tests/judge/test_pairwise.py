"""From comparison to judgment, with a judge made of a function: what is asked, and what the answers come to."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import LabelsUnseenError, RequestRefusedError, TooFewVerdictsError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, Principle
from rlaif.judge.pairwise import PairwiseJudge, combine_panel
from rlaif.records import (
    CandidateLogprobs,
    Comparison,
    GeneratedToken,
    GenerateRequest,
    Generation,
    Judgment,
    Order,
    Reply,
    Request,
    ScoreRequest,
    SoftLabel,
    TokenLogprob,
    Turn,
)

COMPARISON = Comparison("row", (Turn("user", "Why?"),), "because", "no idea")
SWAPPED = Comparison("row", (Turn("user", "Why?"),), "no idea", "because")
TWO = Constitution("two", (Principle("short", "Which is shorter?"), Principle("kind", "Which is kinder?", weight=3.0)))


def logprobs(prob_first: float) -> CandidateLogprobs:
    return CandidateLogprobs(
        (TokenLogprob("1", math.log(prob_first)), TokenLogprob("2", math.log(1 - prob_first))), True
    )


def run(judge: PairwiseJudge, comparison: Comparison, answer: Callable[[Request], Reply]) -> Judgment:
    readings = {}
    for call in judge.plan(comparison):
        conversation = judge.ask(comparison, call)
        request = next(conversation)
        while True:
            try:
                request = conversation.send(answer(request))
            except StopIteration as finished:
                readings[call] = finished.value
                break
    return judge.combine(comparison, readings)


def because_first(request: Request) -> bool:
    content = request.messages[0].content
    return content.index("because") < content.index("no idea")


def test_both_orders_are_asked_and_averaged_by_hand() -> None:
    # P(first) is 0.9 with "because" first and 0.3 with it second: P(because) is 0.9 and 0.7, mean 0.8
    judgment = run(PairwiseJudge(JudgeConfig()), COMPARISON, lambda r: logprobs(0.9 if because_first(r) else 0.3))
    assert judgment.label == SoftLabel(pytest.approx(0.8), pytest.approx(0.9), pytest.approx(0.7))
    assert judgment.label_mass_ab == pytest.approx(1.0)
    assert judgment.calls == 2


@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.sampled_from(["mean-prob", "mean-logit"]))
def test_exchanging_the_responses_turns_p_into_one_minus_p(p_ab: float, p_ba: float, debias: str) -> None:
    judge = PairwiseJudge(JudgeConfig(debias=debias))  # type: ignore[arg-type]

    def answer(request: Request) -> Reply:
        return logprobs(p_ab if because_first(request) else p_ba)

    straight, swapped = run(judge, COMPARISON, answer).label, run(judge, SWAPPED, answer).label
    assert straight.prob_a == pytest.approx(1 - swapped.prob_a)
    assert straight.prob_a_ab == pytest.approx(1 - swapped.prob_a_ba)  # type: ignore[operator]


@given(st.floats(0.01, 0.99))
def test_a_judge_that_sees_only_position_gives_one_half(prob_first: float) -> None:
    for debias in ("mean-prob", "mean-logit"):
        judge = PairwiseJudge(JudgeConfig(debias=debias))  # type: ignore[arg-type]
        assert run(judge, COMPARISON, lambda _: logprobs(prob_first)).label.prob_a == pytest.approx(0.5)


def test_identical_responses_are_one_half_without_a_call() -> None:
    judge = PairwiseJudge(JudgeConfig(cot=True), TWO)
    same = Comparison("row", COMPARISON.prompt, "x", "x")
    assert judge.plan(same) == ()
    assert judge.combine(same, {}) == Judgment(SoftLabel(0.5, None, None), calls=0)


@pytest.mark.parametrize("orders", ["ab", "ba"])
def test_one_order_only(orders: str) -> None:
    judge = PairwiseJudge(JudgeConfig(orders=orders))  # type: ignore[arg-type]
    judgment = run(judge, COMPARISON, lambda r: logprobs(0.9 if because_first(r) else 0.3))
    assert judgment.label.prob_a == pytest.approx(0.9 if orders == "ab" else 0.7)
    assert (judgment.label.prob_a_ab is None) == (orders == "ba")
    assert judgment.calls == 1


def test_the_random_order_depends_on_seed_and_row_alone() -> None:
    def drawn(seed: int) -> list[Order]:
        judge = PairwiseJudge(JudgeConfig(orders="random"), seed=seed)
        rows = [Comparison(f"row {n}", COMPARISON.prompt, "a", "b") for n in range(64)]
        return [call.order for row in rows for call in judge.plan(row)]

    assert drawn(0) == drawn(0) != drawn(1)
    assert 16 < drawn(0).count(Order.AB) < 48


def test_every_principle_is_asked_in_both_orders_and_kept() -> None:
    def answer(request: Request) -> Reply:
        prob_because = 0.8 if "shorter" in request.messages[0].content else 0.4
        return logprobs(prob_because if because_first(request) else 1 - prob_because)

    judgment = run(PairwiseJudge(JudgeConfig(), TWO), COMPARISON, answer)
    assert [(named.name, round(named.label.prob_a, 6)) for named in judgment.by_principle] == [
        ("short", 0.8),
        ("kind", 0.4),
    ]
    # weights 1 and 3: (0.8 + 3 * 0.4) / 4 = 0.5
    assert judgment.label.prob_a == pytest.approx(0.5)
    assert judgment.calls == 4


def test_sampling_a_principle_asks_one_and_says_which() -> None:
    judge = PairwiseJudge(JudgeConfig(principles="sample"), TWO)
    rows = [Comparison(f"row {n}", COMPARISON.prompt, "because", "no idea") for n in range(40)]
    judgments = [run(judge, row, lambda _: logprobs(0.5)) for row in rows]
    assert {judgment.sampled_principle for judgment in judgments} == {"short", "kind"}
    assert all(judgment.by_principle == () and judgment.calls == 2 for judgment in judgments)


def test_an_unknown_principle_is_refused_before_any_row() -> None:
    with pytest.raises(ValueError, match="short"):
        PairwiseJudge(JudgeConfig(principles="shrt"), TWO)


def spoken(text: str, prob_first: float | None = None) -> Generation:
    """A reply in single-character tokens, whose digits carry log-probabilities."""

    def alternatives(char: str) -> tuple[TokenLogprob, ...]:
        return logprobs(prob_first).tokens if prob_first is not None and char in "12" else (TokenLogprob(char, -0.1),)

    return Generation(text, "stop", tuple(GeneratedToken(char, alternatives(char)) for char in text))


def test_with_reasons_the_verdict_is_read_at_its_own_token_in_one_call() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return spoken("The first says why; the other has 2 words.\nPreferred response: 1", 0.75)

    judgment = run(PairwiseJudge(JudgeConfig(cot=True, orders="ab"), verdict_in_reply=True), COMPARISON, answer)
    (request,) = requests
    assert isinstance(request, GenerateRequest)
    assert (request.temperature, request.max_tokens, request.labels) == (0.0, 512, ("1", "2"))
    assert judgment.label.prob_a == pytest.approx(0.75)
    assert judgment.rationale_ab == "The first says why; the other has 2 words."
    assert judgment.rationale_ba is None


@pytest.mark.parametrize(
    "reply", ["Both have merits, and then I ran out of", "Preferred response: 1 or maybe Preferred response: 2"]
)
def test_a_second_call_asks_for_the_verdict_where_none_was_found(reply: str) -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        return spoken(reply) if isinstance(request, GenerateRequest) else logprobs(0.6)

    judgment = run(PairwiseJudge(JudgeConfig(cot=True, orders="ab"), verdict_in_reply=True), COMPARISON, answer)
    first, second = requests
    assert isinstance(second, ScoreRequest)
    assert second.messages[0] == first.messages[0]
    assert [(message.role, message.content) for message in second.messages[1:]] == [
        ("assistant", reply),
        ("user", "Preferred response (1 or 2):"),
    ]
    assert not second.messages[1].segments[0].is_template
    assert judgment.label.prob_a == pytest.approx(0.6)
    assert judgment.rationale_ab == reply


def test_a_second_call_where_the_verdict_token_carries_no_label() -> None:
    def answer(request: Request) -> Reply:
        return spoken("Preferred response: 1") if isinstance(request, GenerateRequest) else logprobs(0.6)

    def blind(request: Request) -> Reply:
        reply = answer(request)
        if isinstance(reply, Generation):
            tokens = tuple(GeneratedToken(token.token, (TokenLogprob("x", -0.1),)) for token in reply.tokens)
            return Generation(reply.text, "stop", tokens)
        return reply

    judge = PairwiseJudge(JudgeConfig(cot=True, orders="ab"), verdict_in_reply=True)
    assert run(judge, COMPARISON, blind).label.prob_a == pytest.approx(0.6)


def test_in_process_reasons_and_verdict_are_two_calls_over_one_prefix() -> None:
    requests: list[Request] = []

    def answer(request: Request) -> Reply:
        requests.append(request)
        if isinstance(request, GenerateRequest):
            return Generation("Reasons.", "stop")
        return logprobs(0.9 if because_first(request) else 0.3)

    judgment = run(PairwiseJudge(JudgeConfig(cot=True)), COMPARISON, answer)
    assert [type(request) for request in requests] == [GenerateRequest, ScoreRequest] * 2
    assert "Do not name the winner yet." in requests[0].messages[0].content
    assert requests[1].messages[0] == requests[0].messages[0]
    assert judgment.label.prob_a == pytest.approx(0.8)


def test_self_consistency_averages_the_samples_distributions() -> None:
    seeds: list[int | None] = []

    def answer(request: Request) -> Reply:
        if isinstance(request, GenerateRequest):
            seeds.append(request.seed)
            return Generation(f"Reason {len(seeds)}", "stop")
        return logprobs(0.9 if request.messages[1].content == "Reason 1" else 0.5)

    judge = PairwiseJudge(JudgeConfig(cot=True, samples=4, temperature=0.7, orders="ab"))
    # (0.9 + 3 * 0.5) / 4 = 0.6
    assert run(judge, COMPARISON, answer).label.prob_a == pytest.approx(0.6)
    assert len(set(seeds)) == 4
    assert None not in seeds


def test_sampled_verdicts_are_counted_and_smoothed() -> None:
    replies = iter(["1", "1", "2", "I cannot say"])
    judge = PairwiseJudge(JudgeConfig(scoring="sample", samples=4, orders="ab"))
    judgment = run(judge, COMPARISON, lambda _: Generation(next(replies), "stop"))
    # 2 of 3 readable: (2 + 0.5) / (3 + 1) = 0.625
    assert judgment.label.prob_a == pytest.approx(0.625)
    assert judgment.label_mass_ab is None


@pytest.mark.parametrize("reply", ["1\n\nResponse 1 is", "Preferred response: 1\nbecause", "1", "**1**"])
def test_a_sampled_verdict_may_be_followed_by_reasons_nobody_asked_for(reply: str) -> None:
    judge = PairwiseJudge(JudgeConfig(scoring="sample", orders="ab"))
    # 1 of 1: (1 + 0.5) / (1 + 1) = 0.75
    assert run(judge, COMPARISON, lambda _: Generation(reply, "length")).label.prob_a == pytest.approx(0.75)


def test_reasons_cut_short_hold_no_verdict_yet() -> None:
    cut = Generation("They say Preferred response: 2 and that", "length")
    with pytest.raises(TooFewVerdictsError):
        run(PairwiseJudge(JudgeConfig(scoring="sample", cot=True, orders="ab")), COMPARISON, lambda _: cut)

    def answer(request: Request) -> Reply:
        return cut if isinstance(request, GenerateRequest) else logprobs(0.9)

    judge = PairwiseJudge(JudgeConfig(cot=True, orders="ab"), verdict_in_reply=True)
    assert run(judge, COMPARISON, answer).label.prob_a == pytest.approx(0.9)


def test_too_few_readable_samples_fail_by_name() -> None:
    judge = PairwiseJudge(JudgeConfig(scoring="sample", samples=4, orders="ab"))
    replies = iter(["1", "?", "?", "?"])
    with pytest.raises(TooFewVerdictsError, match="1 of 4"):
        run(judge, COMPARISON, lambda _: Generation(next(replies), "stop"))


def test_an_answer_without_labels_is_an_error_and_no_half() -> None:
    with pytest.raises(LabelsUnseenError):
        run(PairwiseJudge(JudgeConfig()), COMPARISON, lambda _: CandidateLogprobs((TokenLogprob("I", -0.1),)))


@pytest.mark.parametrize("fault", [{"samples": 2}, {"cot": True, "samples": 2, "temperature": 0.0}])
def test_settings_that_make_no_sense_are_refused(fault: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(fault)) if "cot" not in fault else "temperature"):
        JudgeConfig(**fault)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config", [JudgeConfig(cot=True), JudgeConfig(scoring="sample", cot=True), JudgeConfig(scoring="sample")]
)
def test_a_reply_that_the_providers_filter_cut_gives_no_verdict(config: JudgeConfig) -> None:
    cut = Generation("Preferred response: 1", "content_filter")
    with pytest.raises(RequestRefusedError, match="content filter cut the judge's reply short"):
        run(PairwiseJudge(config), COMPARISON, lambda _: cut)


def test_a_panel_is_the_mean_and_keeps_each_judge() -> None:
    one = Judgment(SoftLabel(0.9, 0.9, 0.9), 1.0, 0.8, calls=2)
    other = Judgment(SoftLabel(0.5, 0.6, 0.4), 0.5, 0.6, is_bounded=True, calls=2)
    panel = combine_panel([("x", one), ("y", other)])
    assert panel.label == SoftLabel(pytest.approx(0.7), pytest.approx(0.75), pytest.approx(0.65))
    assert (panel.label_mass_ab, panel.label_mass_ba) == (pytest.approx(0.75), pytest.approx(0.7))
    assert panel.is_bounded
    assert [named.name for named in panel.by_judge] == ["x", "y"]
    assert panel.calls == 4
    assert combine_panel([("x", one)]) is one
