"""A comparison to requests, and replies to a judgment. Nothing here awaits: each call is a generator that yields
requests and is sent the replies, so that the same code serves the engine, tests and a resumed run.

    judge.plan(comparison)            which calls the label needs: order, principle, sample
    judge.ask(comparison, call)       yields ScoreRequest or GenerateRequest, is sent the reply, returns a Reading
    judge.combine(comparison, ...)    readings -> Judgment
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlaif.errors import JudgmentError, TooFewVerdictsError, UnreadableVerdictError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import Constitution, Principle, choose_principles
from rlaif.judge.parsing import StatedVerdict, find_verdict, token_at
from rlaif.judge.scoring import candidate_distribution, combine_orders, mean_label, sampled_distribution
from rlaif.judge.templates import PairwiseTemplate, render_verdict_cue
from rlaif.randomness import seeded_random
from rlaif.records import (
    CandidateLogprobs,
    Comparison,
    GenerateRequest,
    Generation,
    Judgment,
    Message,
    NamedLabel,
    Order,
    Reply,
    Request,
    ScoreRequest,
    Segment,
    Slot,
    SoftLabel,
)

LABELS = (Slot.FIRST.value, Slot.SECOND.value)

_VERDICT_TOKENS = 8
"""Tokens a sampled verdict without reasons may take: the digit, and a word or two around it."""

_READABLE_SHARE = 0.5
"""Least share of the samples of one label that must be readable."""


class Call(NamedTuple):
    """One of the calls behind a label: an order, a principle (None: the task's own question), the n-th sample."""

    order: Order
    principle: Principle | None
    sample: int


@dataclass(frozen=True, slots=True)
class Reading:
    """What one call said.

    Attributes:
        prob_first: P(first slot preferred), in [0, 1]; None for a sample that states no verdict.
        label_mass: Share of the next-token probability on the labels; None for a sampled verdict.
        is_bounded: Whether a label's mass is a bound.
        rationale: The reasons given, with chain of thought.
    """

    prob_first: float | None
    label_mass: float | None = None
    is_bounded: bool = False
    rationale: str | None = None


Ask = Generator[Request, Reply, Reading]


class PairwiseJudge:
    """What is asked about a comparison, and what the answers mean.

    Args:
        config: The judge's settings.
        constitution: Principles to judge by; None asks the task's own question.
        seed: Of the draws of order, principle and samples.
        verdict_in_reply: With chain of thought, ask for reasons and verdict in one reply whose tokens come with
            log-probabilities; otherwise the verdict is a call of its own.
    """

    def __init__(
        self,
        config: JudgeConfig,
        constitution: Constitution | None = None,
        *,
        seed: int = 0,
        verdict_in_reply: bool = False,
    ) -> None:
        self.config = config
        self.constitution = constitution
        self.template = PairwiseTemplate(config.task, preamble=config.preamble, shots=config.shots, cot=config.cot)
        self._seed = seed
        self._verdict_in_reply = verdict_in_reply or config.scoring == "sample"
        if constitution is not None:
            choose_principles(constitution, config.principles, seed=seed, row_id="")  # unknown ids are refused now

    def plan(self, comparison: Comparison) -> tuple[Call, ...]:
        """The calls a label needs, orders of one principle side by side; none for identical responses."""
        if comparison.response_a == comparison.response_b:
            return ()
        principles: Sequence[Principle | None] = self.principles_of(comparison) or (None,)
        orders = self._orders_of(comparison)
        samples = range(self.config.samples)
        return tuple(
            Call(order, principle, sample) for sample in samples for principle in principles for order in orders
        )

    def principles_of(self, comparison: Comparison) -> tuple[Principle, ...]:
        """The principles this comparison is judged by; empty without a constitution."""
        if self.constitution is None:
            return ()
        return choose_principles(self.constitution, self.config.principles, seed=self._seed, row_id=comparison.id)

    def _orders_of(self, comparison: Comparison) -> tuple[Order, ...]:
        if self.config.orders == "both":
            return Order.AB, Order.BA
        if self.config.orders == "random":
            return (seeded_random(self._seed, comparison.id, "order").choice((Order.AB, Order.BA)),)
        return (Order(self.config.orders),)

    def ask(self, comparison: Comparison, call: Call) -> Ask:
        """Yield what to ask for one call, be sent the replies, return what they said.

        Raises:
            JudgmentError: The replies hold no verdict.
            PromptError: The template cannot be rendered for this comparison.
        """
        messages = self.template.render(
            comparison,
            call.order,
            principle=call.principle.text if call.principle else None,
            verdict_in_reply=self._verdict_in_reply,
        )
        if self.config.scoring == "sample":
            return (yield from self._ask_sampled(comparison, call, messages))
        if self.config.cot:
            return (yield from self._ask_with_reasons(comparison, call, messages))
        reply = yield ScoreRequest(messages, LABELS)
        return self._read(reply)

    def _ask_sampled(self, comparison: Comparison, call: Call, messages: tuple[Message, ...]) -> Ask:
        max_tokens = self.config.max_tokens if self.config.cot else _VERDICT_TOKENS
        reply = yield self._sample_request(comparison, call, messages, max_tokens, self.config.temperature)
        assert isinstance(reply, Generation)
        try:
            verdict = self._verdict_of(reply)
        except UnreadableVerdictError:
            return Reading(None, rationale=reply.text if self.config.cot else None)
        rationale = _before(reply.text, verdict) if self.config.cot else None
        return Reading(1.0 if verdict.slot is Slot.FIRST else 0.0, rationale=rationale)

    def _verdict_of(self, sampled: Generation) -> StatedVerdict:
        if self.config.cot:
            if sampled.finish_reason == "length":
                raise UnreadableVerdictError("the reply was cut short before its verdict; raise --max-tokens")
            return find_verdict(sampled.text)
        try:
            return find_verdict(sampled.text.strip().partition("\n")[0])  # "2", and then the reasons nobody asked for
        except UnreadableVerdictError:
            return find_verdict(sampled.text)

    def _ask_with_reasons(self, comparison: Comparison, call: Call, messages: tuple[Message, ...]) -> Ask:
        """Reasons, then the verdict: from the reply's own tokens where they can be read, else in a second call."""
        temperature = self.config.temperature if self.config.samples > 1 else 0.0
        reply = yield self._sample_request(comparison, call, messages, self.config.max_tokens, temperature)
        assert isinstance(reply, Generation)
        rationale = reply.text.strip()
        if self._verdict_in_reply and reply.finish_reason != "length":  # cut short, it has not come to its verdict
            try:
                verdict = find_verdict(reply.text)
            except UnreadableVerdictError:
                pass
            else:
                rationale = _before(reply.text, verdict)
                if (token := token_at(reply.tokens, reply.text, verdict.start)) is not None:
                    try:
                        return self._read(CandidateLogprobs(token.alternatives), rationale)
                    except JudgmentError:
                        pass  # the digit is no token of its own there: ask for it alone
        follow_up = (Message("assistant", (Segment(rationale, False),)), render_verdict_cue())
        reply = yield ScoreRequest((*messages, *follow_up), LABELS)
        return self._read(reply, rationale)

    def _sample_request(
        self, comparison: Comparison, call: Call, messages: tuple[Message, ...], max_tokens: int, temperature: float
    ) -> GenerateRequest:
        purpose = f"sample {call.sample} {call.order.value} {call.principle.id if call.principle else ''}"
        seed = seeded_random(self._seed, comparison.id, purpose).getrandbits(31) if temperature > 0 else None
        labels = LABELS if self._verdict_in_reply and self.config.scoring == "logprobs" else ()
        return GenerateRequest(messages, max_tokens, temperature, seed, labels)

    def _read(self, reply: Reply, rationale: str | None = None) -> Reading:
        assert isinstance(reply, CandidateLogprobs)
        distribution = candidate_distribution(reply, LABELS, self.config.min_label_mass)
        return Reading(distribution.probs[0], distribution.mass, distribution.is_bounded, rationale)

    def combine(self, comparison: Comparison, readings: Mapping[Call, Reading]) -> Judgment:
        """The judgment from what each of `plan`'s calls said.

        Samples are averaged within an order, then orders, then principles by their weights.

        Raises:
            TooFewVerdictsError: Under half of the samples of one order could be read.
        """
        if not readings:
            return Judgment(SoftLabel(0.5, None, None))
        principles = list(dict.fromkeys(call.principle for call in readings))
        labels = [self._label_under(principle, readings) for principle in principles]
        weights = [principle.weight if principle else 1.0 for principle in principles]
        named = [
            NamedLabel(principle.id, label) for principle, label in zip(principles, labels, strict=True) if principle
        ]
        return Judgment(
            mean_label(labels, weights),
            label_mass_ab=_mean(r.label_mass for c, r in readings.items() if c.order is Order.AB),
            label_mass_ba=_mean(r.label_mass for c, r in readings.items() if c.order is Order.BA),
            is_bounded=any(reading.is_bounded for reading in readings.values()),
            rationale_ab=_first_rationale(readings, Order.AB),
            rationale_ba=_first_rationale(readings, Order.BA),
            by_principle=tuple(named) if len(named) > 1 else (),
            sampled_principle=named[0].name if named and self.config.principles == "sample" else None,
            calls=len(readings),
        )

    def _label_under(self, principle: Principle | None, readings: Mapping[Call, Reading]) -> SoftLabel:
        by_order: dict[Order, float] = {}
        for order in Order:
            of_order = [r for call, r in readings.items() if call.order is order and call.principle == principle]
            if of_order:
                by_order[order] = self._prob_first(of_order)
        prob_ba = 1.0 - by_order[Order.BA] if Order.BA in by_order else None
        return combine_orders(by_order.get(Order.AB), prob_ba, self.config.debias)

    def _prob_first(self, samples: Sequence[Reading]) -> float:
        readable = [reading.prob_first for reading in samples if reading.prob_first is not None]
        if len(readable) < max(1.0, _READABLE_SHARE * len(samples)):
            raise TooFewVerdictsError(
                f"{len(readable)} of {len(samples)} sampled replies state a verdict; at least "
                f"{math.ceil(max(1.0, _READABLE_SHARE * len(samples)))} are needed: raise --max-tokens, or use a judge "
                "that follows the prompt's format"
            )
        if self.config.scoring == "sample":
            firsts = sum(prob == 1.0 for prob in readable)
            return sampled_distribution([firsts, len(readable) - firsts])[0]
        return math.fsum(readable) / len(readable)


def combine_panel(judgments: Sequence[tuple[str, Judgment]]) -> Judgment:
    """One judgment from several judges' (name, judgment) pairs: the mean of their labels, each one's kept.

    Principles, rationale and the sampled principle are those of the first judge where the judges share them.
    """
    if len(judgments) == 1:
        return judgments[0][1]
    all_judgments = [judgment for _, judgment in judgments]
    first = all_judgments[0]
    return Judgment(
        mean_label([judgment.label for judgment in all_judgments]),
        label_mass_ab=_mean(judgment.label_mass_ab for judgment in all_judgments),
        label_mass_ba=_mean(judgment.label_mass_ba for judgment in all_judgments),
        is_bounded=any(judgment.is_bounded for judgment in all_judgments),
        rationale_ab=first.rationale_ab,
        rationale_ba=first.rationale_ba,
        by_principle=tuple(
            NamedLabel(named.name, mean_label([judgment.by_principle[index].label for judgment in all_judgments]))
            for index, named in enumerate(first.by_principle)
        ),
        by_judge=tuple(NamedLabel(name, judgment.label) for name, judgment in judgments),
        sampled_principle=first.sampled_principle,
        calls=sum(judgment.calls for judgment in all_judgments),
    )


def _before(text: str, verdict: StatedVerdict) -> str:
    return text[: verdict.statement].rstrip(" \n*#_")


def _first_rationale(readings: Mapping[Call, Reading], order: Order) -> str | None:
    return next((reading.rationale for call, reading in readings.items() if call.order is order), None)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
