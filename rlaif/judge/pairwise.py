"""A comparison to requests, and replies to a judgment. Nothing here awaits: each call is a generator that yields
requests and is sent the replies, so that the same code serves the engine, tests and a resumed run.

    judge.plan(comparison)            which calls the label needs: order, principle, sample
    judge.ask(comparison, call)       yields ScoreRequest or GenerateRequest, is sent the reply, returns a Reading
    judge.combine(comparison, ...)    readings -> Judgment
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlaif.judge.base import Ask, LabelJudge, Reading, mean_of_known, unreadable
from rlaif.judge.constitutions import Principle
from rlaif.judge.parsing import StatedLabel, find_verdict
from rlaif.judge.reward import RewardPairwiseJudge
from rlaif.judge.scoring import combine_orders, mean_label
from rlaif.judge.templates import PairwiseTemplate
from rlaif.randomness import seeded_random
from rlaif.records import Comparison, Judgment, NamedLabel, Order, Slot, SoftLabel


class Call(NamedTuple):
    """One of the calls behind a label: an order, a principle (None: the task's own question), the n-th sample."""

    order: Order
    principle: Principle | None
    sample: int

    @property
    def words(self) -> tuple[str, ...]:
        """The call in a few words, such as ("ab", "concise"), without the sample."""
        return (self.order.value, *([self.principle.id] if self.principle else []))


class PairwiseJudge(LabelJudge):
    """What is asked about a comparison, and what the answers mean. The arguments are `LabelJudge`'s."""

    labels = (Slot.FIRST.value, Slot.SECOND.value)
    label_tokens = 8
    template_class = PairwiseTemplate
    reward_class = RewardPairwiseJudge
    """Judges the same rows with a reward model."""

    template: PairwiseTemplate

    def find(self, text: str) -> StatedLabel:
        return find_verdict(text)

    def plan(self, comparison: Comparison) -> tuple[Call, ...]:
        """The calls a label needs, orders of one principle side by side; none for identical responses."""
        return () if comparison.response_a == comparison.response_b else self.calls_of(comparison)

    def calls_of(self, comparison: Comparison) -> tuple[Call, ...]:
        """The calls of `plan`, identical responses or not."""
        principles: Sequence[Principle | None] = self.principles_of(comparison.id) or (None,)
        orders = self._orders_of(comparison)
        samples = range(self.config.samples)
        return tuple(
            Call(order, principle, sample) for sample in samples for principle in principles for order in orders
        )

    def _orders_of(self, comparison: Comparison) -> tuple[Order, ...]:
        if self.config.orders == "both":
            return Order.AB, Order.BA
        if self.config.orders == "random":
            return (seeded_random(self.seed, comparison.id, "order").choice((Order.AB, Order.BA)),)
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
            verdict_in_reply=self.verdict_in_reply,
        )
        purpose = f"sample {call.sample} {call.order.value} {call.principle.id if call.principle else ''}"
        return (yield from self.converse(messages, comparison.id, purpose))

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
            label_mass_ab=mean_of_known(r.label_mass for c, r in readings.items() if c.order is Order.AB),
            label_mass_ba=mean_of_known(r.label_mass for c, r in readings.items() if c.order is Order.BA),
            is_bounded=any(reading.is_bounded for reading in readings.values()),
            rationale_ab=_first_rationale(readings, Order.AB),
            rationale_ba=_first_rationale(readings, Order.BA),
            by_principle=tuple(named) if len(named) > 1 else (),
            sampled_principle=named[0].name if named and self.config.principles == "sample" else None,
            unreadable_samples=unreadable(readings.values()),
            calls=len(readings),
        )

    def _label_under(self, principle: Principle | None, readings: Mapping[Call, Reading]) -> SoftLabel:
        by_order: dict[Order, float] = {}
        for order in Order:
            of_order = [r for call, r in readings.items() if call.order is order and call.principle == principle]
            if of_order:
                by_order[order] = self.average(of_order)[0]
        prob_ba = 1.0 - by_order[Order.BA] if Order.BA in by_order else None
        return combine_orders(by_order.get(Order.AB), prob_ba, self.config.debias)


def combine_panel(judgments: Sequence[tuple[str, Judgment]], missing: Sequence[str] = ()) -> Judgment:
    """One judgment from several judges' (name, judgment) pairs: the mean of their labels, each one's kept.

    Args:
        judgments: At least one.
        missing: Judges of the panel that failed.

    Principles, rationale and the sampled principle are those of the first judge where the judges share them.
    """
    if len(judgments) == 1 and not missing:
        return judgments[0][1]
    all_judgments = [judgment for _, judgment in judgments]
    first = all_judgments[0]
    return Judgment(
        mean_label([judgment.label for judgment in all_judgments]),
        label_mass_ab=mean_of_known(judgment.label_mass_ab for judgment in all_judgments),
        label_mass_ba=mean_of_known(judgment.label_mass_ba for judgment in all_judgments),
        is_bounded=any(judgment.is_bounded for judgment in all_judgments),
        rationale_ab=first.rationale_ab,
        rationale_ba=first.rationale_ba,
        by_principle=tuple(
            NamedLabel(named.name, mean_label([judgment.by_principle[index].label for judgment in all_judgments]))
            for index, named in enumerate(first.by_principle)
        ),
        by_judge=tuple(NamedLabel(name, judgment.label) for name, judgment in judgments),
        sampled_principle=first.sampled_principle,
        missing_judges=tuple(missing),
        unreadable_samples=sum(judgment.unreadable_samples for judgment in all_judgments),
        calls=sum(judgment.calls for judgment in all_judgments),
    )


def _first_rationale(readings: Mapping[Call, Reading], order: Order) -> str | None:
    return next((reading.rationale for call, reading in readings.items() if call.order is order), None)
