"""Rollouts as data: prompts are answered, judged, read by the models that the method asks, and become rows to learn.

A batch is begun (written, and its judging under way) and later finished (judged, weighed, made into rows), so that
there is time between the two. What is drawn depends on the seed, the visit and the completion's number alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

from rlaif.online.assessing import Assessed
from rlaif.online.generation import Generator, RolloutJob, Written
from rlaif.online.guard_figures import BatchFigures
from rlaif.online.recipes import JudgedRollout, Pairs, Recipe, RsDpoChoice
from rlaif.online.verdicts import (
    Verdict,
    is_silent,
    kls_of,
    logged_figures,
    prob_of,
    scores_of,
    watched_figures,
)
from rlaif.online.visits import Visit, Visits
from rlaif.policies.sampling import sample_seed
from rlaif.rewards.sources import PairLabel
from rlaif.rollout_records import Completion, Rollout, Score
from rlaif.train.experience import RunningSpread
from rlaif.train.items import TrainingItem
from rlaif.train.online_config import RolloutConfig

MOST_REPLACEMENTS = 3
"""How often, at most, prompts without a signal are replaced in one batch."""


Judging: TypeAlias = Future[list[tuple[Score, ...]]] | Future[list[PairLabel]]
"""A verdict under way, in a list of its own."""


class Scoring(Protocol):
    """Who says what completions are worth."""

    def submit(self, rollouts: Sequence[Rollout]) -> Future[list[tuple[Score, ...]]]: ...

    def compare(self, rollouts: Sequence[Rollout]) -> Future[list[PairLabel]]: ...


@dataclass(frozen=True)
class Readings:
    """What models say of rollouts that are finished.

    Attributes:
        policy: The policy's log-probabilities and values; None where what was noted while writing is enough.
        reference: The reference's log-probabilities; None where nobody asks for them.
        written: The policy's log-probabilities of what it has just written, where those that were noted are not what it
            would be trained with and it learns on before the batch is finished; None where they stay.
    """

    policy: Callable[[Sequence[Rollout]], list[Assessed]] | None = None
    reference: Callable[[Sequence[Rollout]], list[Assessed]] | None = None
    written: Callable[[Sequence[Rollout]], list[Assessed]] | None = None


@dataclass
class Begun:
    """Rollouts that were written and are being judged.

    Attributes:
        rollouts: In the order of their visits.
        verdicts: Of each, under way; empty where they are still to be asked for.
        seconds: That writing took.
    """

    rollouts: list[Rollout]
    verdicts: list[Judging]
    seconds: float = 0.0


@dataclass(frozen=True)
class JudgedCompletion:
    """A completion as it is kept to be looked at.

    Attributes:
        rollout: Its prompt, with this completion alone.
        score: What it is worth.
        kl: From the reference, nats; None where it was not asked.
    """

    rollout: Rollout
    score: Score
    kl: float | None


@dataclass(frozen=True)
class Batch:
    """What is learnt from a batch of rollouts.

    Attributes:
        items: Rows; those without a reward are not among them.
        completions: All that were judged, for whoever looks at them.
        watched: How they are, in the eyes of the guard rails.
        figures: The same and more, by the names of metrics.jsonl; what there is none of is missing.
        spread: Of rewards so far.
    """

    items: list[TrainingItem]
    completions: list[JudgedCompletion]
    watched: BatchFigures
    figures: Mapping[str, float]
    spread: RunningSpread = field(default_factory=RunningSpread)


class RolloutSource:
    """Makes batches.

    Args:
        visits: The prompts.
        generator: Who writes.
        scoring: Who judges.
        recipe: The method.
        readings: What else is asked about what was written.
        config: How the policy is sampled.
        group_size: Completions of each prompt.
        decode: Token ids -> text without special tokens.
        judges_meanwhile: Whether the judge can be asked while the policy writes.
        rates: Whether rewards are ratings mapped to [-1, 1]: pairs are then chosen on the scale of 1 to 10.
        seed: Of all draws.
        on_warning: Told of what is odd.
    """

    def __init__(
        self,
        visits: Visits,
        generator: Generator,
        scoring: Scoring,
        recipe: Recipe,
        readings: Readings,
        config: RolloutConfig,
        *,
        group_size: int,
        decode: Callable[[Sequence[int]], str],
        rates: bool,
        judges_meanwhile: bool = True,
        seed: int,
        on_warning: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.visits, self.recipe = visits, recipe
        self._generator, self._scoring, self._readings = generator, scoring, readings
        self._config, self._group_size, self._decode, self._rates = config, group_size, decode, rates
        self._seed, self._judges_meanwhile = seed, judges_meanwhile
        self._on_warning = on_warning
        self._warned: set[str] = set()

    def begin(self, numbers: Sequence[int], step: int) -> Begun:
        """Answer the prompts of these visits; each is judged as soon as it is answered.

        Args:
            numbers: Of the visits.
            step: Optimizer steps that the policy has done.

        Raises:
            BackendError: The policy cannot write.
        """
        began = time.monotonic()
        visits = [self.visits[number] for number in numbers]
        size, config = self._group_size, self._config
        jobs = [
            RolloutJob(
                visit.row.ids, config.response_tokens, config.rollout_temperature, config.rollout_top_p,
                sample_seed(self._seed, visit.id, sample),
            )
            for visit in visits for sample in range(size)
        ]  # fmt: skip
        written: dict[int, Written] = {}
        rollouts: dict[int, Rollout] = {}
        verdicts: dict[int, Judging] = {}

        def hear(index: int, one: Written) -> None:
            written[index] = one
            place = index // size
            group = range(place * size, (place + 1) * size)
            if all(each in written for each in group):
                rollouts[place] = self._rollout(visits[place], [written[each] for each in group], step)
                if self._judges_meanwhile:
                    verdicts[place] = self._judge(rollouts[place])

        self._generator.generate(jobs, on_finished=hear)
        seconds = time.monotonic() - began
        places = range(len(visits))
        for place in places:
            if place not in verdicts:
                verdicts[place] = self._judge(rollouts[place])
        return Begun(
            self._read([rollouts[place] for place in places]), [verdicts[place] for place in places], seconds
        )  # fmt: skip

    def taken_up(self, rollouts: Sequence[Rollout]) -> Begun:
        """Rollouts that an earlier session has written, to be judged; what was judged is not asked again."""
        # A judge that shares weights with the policy waits until a session has put its own in order.
        verdicts = [self._judge(rollout) for rollout in rollouts] if self._judges_meanwhile else []
        return Begun(list(rollouts), verdicts)

    def finish(
        self, begun: Begun, *, number: int, step: int, beta: float, spread: RunningSpread, more: Callable[[int], Begun]
    ) -> Batch:
        """Wait for the verdicts, and make rows of them.

        Args:
            begun: The batch.
            number: The batch's, from 0.
            step: Optimizer steps that are done.
            beta: The price of leaving the reference.
            spread: Of rewards so far.
            more: Answers so many further prompts, where those without a signal are replaced.

        Raises:
            BackendUnusableError: The judge is gone; nothing is made up.
            RewardError: A reward function gave something that is no reward.
        """
        waiting = time.monotonic()
        pairs = self._wait(begun)
        replaced = 0
        if self.recipe.replaces_silent:
            for _ in range(MOST_REPLACEMENTS):
                telling = [pair for pair in pairs if not is_silent(pair[1])]
                lacking = len(pairs) - len(telling)
                if not lacking:
                    break
                replaced += lacking
                pairs = telling + self._wait(more(lacking))
        waited = time.monotonic() - waiting
        kept = [(self._kept(*pair), pair[1]) for pair in pairs]
        present = [(rollout, verdict) for rollout, verdict in kept if rollout is not None]
        if self.recipe.scales_rewards:
            values = [score.value for _, verdict in present for score in scores_of(verdict) if score.value is not None]
            spread = spread.updated(values)
        judged = self._judged(present, spread)
        if not judged and "" not in self._warned:
            self._warned.add("")
            self._on_warning("no completion of a batch has a reward: there is nothing to learn from (dropped)")
        items = self.recipe.items(judged, beta, number)
        completions = _completions(pairs, judged)
        watched = watched_figures(pairs, judged, step)
        figures = {
            **logged_figures(watched),
            "staleness": math.fsum(step - rollout.step for rollout, _ in pairs) / len(pairs),
            "seconds_writing": begun.seconds,
            "seconds_waiting": waited,
        }
        if self.recipe.replaces_silent:
            figures["replaced_prompts"] = float(replaced)
        known = [prob for _, verdict in pairs if (prob := prob_of(verdict)) is not None]
        if known:  # how sure the judge is of the side that it prefers
            figures["sureness"] = math.fsum(max(prob, 1.0 - prob) for prob in known) / len(known)
        if isinstance(self.recipe, Pairs) and isinstance(self.recipe.choose, RsDpoChoice):
            figures["largest_preference"] = self.recipe.choose.largest(judged)
        return Batch(items, completions, watched, figures, spread)

    def _rollout(self, visit: Visit, written: Sequence[Written], step: int) -> Rollout:
        completions = tuple(
            Completion(one.ids, self._decode(one.ids[:-1] if one.is_stopped else one.ids), one.is_stopped, one.logprobs)
            for one in written
        )
        return Rollout(visit.id, visit.row.prompt, visit.row.ids, completions, step)

    def _read(self, rollouts: list[Rollout]) -> list[Rollout]:
        """The rollouts with log-probabilities as they are trained with."""
        if self._readings.written is None:
            return rollouts
        return [
            replace(
                rollout,
                completions=tuple(
                    replace(one, logprobs=logprobs)
                    for one, logprobs in zip(rollout.completions, found.logprobs, strict=True)
                ),
            )
            for rollout, found in zip(rollouts, self._readings.written(rollouts), strict=True)
        ]

    def _judge(self, rollout: Rollout) -> Judging:
        return self._scoring.submit([rollout]) if self.recipe.asks == "scores" else self._scoring.compare([rollout])

    def _wait(self, begun: Begun) -> list[tuple[Rollout, Verdict]]:
        begun.verdicts = begun.verdicts or [self._judge(rollout) for rollout in begun.rollouts]
        return [
            (rollout, verdict)
            for rollout, asked in zip(begun.rollouts, begun.verdicts, strict=True)
            for verdict in asked.result()
        ]

    def _kept(self, rollout: Rollout, verdict: Verdict) -> Rollout | None:
        """The rollout with those completions that have a reward; None where it has none."""
        if isinstance(verdict, PairLabel):
            self._warn(verdict.error)
            return rollout if verdict.prob_a is not None else None
        for score in verdict:
            self._warn(score.error)
        completions = tuple(
            one for one, score in zip(rollout.completions, verdict, strict=True) if score.value is not None
        )
        return replace(rollout, completions=completions) if completions else None

    def _warn(self, error: str) -> None:
        name = error.partition(":")[0]
        if error and name not in self._warned:
            self._warned.add(name)
            self._on_warning(f"a completion without a reward is left out ({error}); further ones are counted (dropped)")

    def _judged(self, present: Sequence[tuple[Rollout, Verdict]], spread: RunningSpread) -> list[JudgedRollout]:
        rollouts = [rollout for rollout, _ in present]
        readings = self._readings
        noted = [Assessed(tuple(one.logprobs for one in rollout.completions)) for rollout in rollouts]
        policy = readings.policy(rollouts) if readings.policy is not None and rollouts else noted
        reference = readings.reference(rollouts) if readings.reference is not None and rollouts else None
        judged = []
        for place, (rollout, verdict) in enumerate(present):
            values = [score.value for score in scores_of(verdict) if score.value is not None]
            penalties = [0.0 if one.is_finished else self._config.missing_eos_penalty for one in rollout.completions]
            scale = spread.value if self.recipe.scales_rewards else 1.0
            rewards = [value / scale - penalty for value, penalty in zip(values, penalties, strict=False)]
            selection = [value - penalty for value, penalty in zip(values, penalties, strict=False)]
            judged.append(
                JudgedRollout(
                    rollout,
                    tuple(rewards),
                    tuple(4.5 * value + 5.5 if self._rates else value for value in selection),
                    verdict.prob_a if isinstance(verdict, PairLabel) else None,
                    policy[place],
                    None if reference is None else reference[place].logprobs,
                )
            )
        return judged


def _completions(pairs: Sequence[tuple[Rollout, Verdict]], judged: Sequence[JudgedRollout]) -> list[JudgedCompletion]:
    kl_of = {
        (one.rollout.id, completion): kl
        for one in judged
        for completion, kl in zip(one.rollout.completions, kls_of(one), strict=True)
    }
    found = []
    for rollout, verdict in pairs:
        scores = scores_of(verdict) or (Score(None),) * len(rollout.completions)
        for completion, score in zip(rollout.completions, scores, strict=True):
            alone = replace(rollout, completions=(completion,))
            found.append(JudgedCompletion(alone, score, kl_of.get((rollout.id, completion))))
    return found
