"""The policy watched on held-out prompts every so many steps: its rewards, those of a judge that it is not trained
against, its win rate against the start, its divergence; and each batch shown to the guard rails."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif.auditing.evaluation import figures_of
from rlaif.auditing.results import Figure
from rlaif.online.assessing import Assessed
from rlaif.online.feed import BatchListener
from rlaif.online.generation import Generator, RolloutJob
from rlaif.online.guard_config import GuardConfig
from rlaif.online.guard_figures import EvaluationFigures, texts_of
from rlaif.online.guard_signs import Sign
from rlaif.online.guarding import GuardRails
from rlaif.online.kept import KeptRollouts
from rlaif.online.source import Batch, JudgedCompletion, Scoring
from rlaif.online.visits import PromptRow
from rlaif.policies.sampling import sample_seed
from rlaif.records import Comparison, JudgedComparison
from rlaif.rewards.sources import PairLabel
from rlaif.rollout_records import Completion, Rollout, Score
from rlaif.train.online_config import RolloutConfig

_RESAMPLES = 500
"""Of the bootstrap behind the win rate's interval, every so many steps."""

START = "start.json"
"""What the policy answered before training, beside the evaluations."""


@dataclass(frozen=True)
class Watched:
    """Who is asked about the held-out prompts.

    Attributes:
        rewards: The rewards that are trained on.
        judge: A judge that is not trained against; None where there is none.
        compares: Who compares with the start: that judge, or else the one that is trained on; None where rewards come
            from no judge.
        reference: The start's log-probabilities of what the policy wrote.
    """

    rewards: Scoring
    judge: Scoring | None
    compares: Scoring | None
    reference: Callable[[Sequence[Rollout]], list[Assessed]]


class Evaluator:
    """Evaluates the policy as it is.

    Args:
        rows: Held-out prompts; perhaps none.
        generator: Who writes.
        watched: Who is asked.
        rollout: How the policy is sampled.
        decode: Token ids -> text.
        folder: Of the run; what was said is kept in evaluations/ in it.
        seed: Of the draws, which are the same each time.
        pairs: Whether two completions are written for a prompt, to see whether rewards and judge order them alike.
    """

    def __init__(
        self,
        rows: Sequence[PromptRow],
        generator: Generator,
        watched: Watched,
        rollout: RolloutConfig,
        *,
        decode: Callable[[Sequence[int]], str],
        folder: Path,
        seed: int,
        pairs: bool,
    ) -> None:
        self._rows, self._generator, self._watched, self._rollout = rows, generator, watched, rollout
        self._decode, self._folder, self._seed = decode, folder / "evaluations", seed
        self._samples = 2 if pairs else 1

    def evaluate(self, step: int) -> tuple[EvaluationFigures, dict[str, float]]:
        """Figures of the policy after so many steps, for the guard rails and by name.

            reward, reward_error        of what is trained on
            watched_reward, watched_error   of the judge that is not
            win_rate, win_low, win_high against the start, both orders, ties half
            win_rate_swap_consistent    where only a verdict that is the same in both orders counts
            reward_accuracy             share of pairs of own completions that rewards and judge order alike
            kl                          from the reference, nats a completion
            completion_tokens           mean

        Raises:
            BackendUnusableError: A judge is gone.
        """
        rollouts = self._written(step)
        first = [replace(each, completions=each.completions[:1]) for each in rollouts]
        judge = self._watched.judge
        asked = self._watched.rewards.submit(rollouts)  # all at once, and the two side by side
        judged = None if judge is None else judge.submit(first)
        compared = None if judge is None or self._samples < 2 else judge.compare(rollouts)
        rewards = asked.result()
        scores = [one[0] for one in rewards]
        found = {**_mean("reward", "reward_error", scores), **self._lengths_and_kl(first)}
        figures: dict[str, float] = {}
        if judged is not None:
            figures |= _mean("watched_reward", "watched_error", [one[0] for one in judged.result()])
        if compared is not None:
            figures |= _accuracy(rewards, compared.result())
        figures |= self._win_rate(first, step)
        self._keep(first, scores, step)
        swap = {name: figures.pop(name) for name in ("win_rate_swap_consistent",) if name in figures}
        guarded = EvaluationFigures(step, **figures, kl=found["kl"])
        return guarded, {**found, **figures, **swap}

    def _written(self, step: int) -> list[Rollout]:
        """What the policy answers now; the same draws each time, so that changes are the policy's."""
        config, size = self._rollout, self._samples
        jobs = [
            RolloutJob(
                row.ids, config.response_tokens, config.rollout_temperature, config.rollout_top_p,
                sample_seed(self._seed, f"{row.prompt.id}@watched", sample),
            )
            for row in self._rows for sample in range(size)
        ]  # fmt: skip
        written = self._generator.generate(jobs)
        completions = [
            Completion(one.ids, self._decode(one.ids[: len(one.ids) - one.is_stopped]), one.is_stopped, one.logprobs)
            for one in written
        ]
        return [
            Rollout(
                f"{row.prompt.id}@watched", row.prompt, row.ids,
                tuple(completions[place * size : (place + 1) * size]), step,
            )
            for place, row in enumerate(self._rows)
        ]  # fmt: skip

    def _lengths_and_kl(self, rollouts: Sequence[Rollout]) -> dict[str, float]:
        completions = [rollout.completions[0] for rollout in rollouts]
        own = [math.fsum(one.logprobs) for one in completions]
        reference = [math.fsum(each.logprobs[0]) for each in self._watched.reference(rollouts)]
        return {
            "completion_tokens": statistics.fmean(len(one.ids) for one in completions),
            "kl": statistics.fmean(ours - theirs for ours, theirs in zip(own, reference, strict=True)),
        }

    def _win_rate(self, rollouts: Sequence[Rollout], step: int) -> dict[str, float]:
        start = self._start(rollouts, step)
        if self._watched.compares is None or step == 0:
            return {}
        pairs = [
            replace(now, completions=(now.completions[0], start[now.prompt.id]))
            for now in rollouts if now.prompt.id in start
        ]  # fmt: skip
        labels = self._watched.compares.compare(pairs).result()
        judged = [
            JudgedComparison(
                Comparison(pair.id, pair.prompt.prompt, pair.completions[0].text, pair.completions[1].text),
                label.prob_a, label.prob_a_ab, label.prob_a_ba, cluster=pair.prompt.id,
            )
            for pair, label in zip(pairs, labels, strict=True)
        ]  # fmt: skip
        found = figures_of(judged, resamples=_RESAMPLES, seed=self._seed)
        rate, consistent = found["win_rate"], found["win_rate_swap_consistent"]
        figures: dict[str, float] = {}
        if isinstance(rate, Figure) and rate.value is not None and rate.low is not None and rate.high is not None:
            figures |= {"win_rate": rate.value, "win_low": rate.low, "win_high": rate.high}
        if isinstance(consistent, Figure) and consistent.value is not None:
            figures["win_rate_swap_consistent"] = consistent.value
        return figures

    def _start(self, rollouts: Sequence[Rollout], step: int) -> dict[str, Completion]:
        """What the policy answered before training, by prompt."""
        path = self._folder / START
        if step == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            content = {each.prompt.id: _completion_json(each.completions[0]) for each in rollouts}
            temporary = path.with_suffix(".new")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(path)
        if not path.exists():
            return {}
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return {
            each: Completion(tuple(one["ids"]), one["text"], one["is_finished"], tuple(one["logprobs"]))
            for each, one in known.items()
        }

    def _keep(self, rollouts: Sequence[Rollout], scores: Sequence[Score], step: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({
                "id": each.prompt.id, "prompt": [turn._asdict() for turn in each.prompt.prompt],
                "response": each.completions[0].text, "is_finished": each.completions[0].is_finished,
                "reward": score.value, "step": step,
            }, ensure_ascii=False)
            for each, score in zip(rollouts, scores, strict=True)
        ]  # fmt: skip
        path = self._folder / f"step-{step:06}.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", errors="backslashreplace")


class GuardedListener(BatchListener):
    """Shows batches and evaluations to the guard rails, and keeps some completions.

    Args:
        config: What is watched.
        kept: Where completions are kept.
        on_sign: Told of each sign of reward hacking.
    """

    def __init__(self, config: GuardConfig, kept: KeptRollouts, on_sign: Callable[[Sign], None]) -> None:
        self._config, self._kept, self._on_sign = config, kept, on_sign
        self.rails = GuardRails(config)
        self.signs: list[Sign] = []

    def on_batch(self, number: int, step: int, batch: Batch) -> Mapping[str, float]:
        self._kept.keep(number, batch.completions)
        by_prompt: dict[str, list[JudgedCompletion]] = {}
        for one in batch.completions:
            by_prompt.setdefault(one.rollout.id, []).append(one)
        rollouts = [
            replace(each[0].rollout, completions=tuple(one.rollout.completions[0] for one in each))
            for each in by_prompt.values()
        ]
        scores = [[one.score for one in each] for each in by_prompt.values()]
        self._said(self.rails.add_batch(batch.watched, texts_of(rollouts, scores)))
        return {}

    def on_evaluation(self, figures: EvaluationFigures) -> None:
        """Take what an evaluation found."""
        self._said(self.rails.add_evaluation(figures))

    def as_json(self) -> Mapping[str, Any] | None:
        return {"rails": self.rails.as_json(), "signs": [sign._asdict() for sign in self.signs]}

    def take_up(self, content: Mapping[str, Any] | None) -> None:
        if content is not None:
            self.rails = GuardRails.from_json(self._config, content["rails"])
            self.signs = [Sign(**each) for each in content["signs"]]

    def _said(self, signs: Sequence[Sign]) -> None:
        for sign in signs:
            self.signs.append(sign)
            self._on_sign(sign)


def _mean(name: str, error: str, scores: Sequence[Score]) -> dict[str, float]:
    values = [score.value for score in scores if score.value is not None]
    if not values:
        return {}
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {name: statistics.fmean(values), error: deviation / math.sqrt(len(values))}


def _accuracy(ours: Sequence[tuple[Score, ...]], theirs: Sequence[PairLabel]) -> dict[str, float]:
    """How often what is trained on and the other judge prefer the same of two completions."""
    agreed = []
    for (one, other), label in zip(ours, theirs, strict=True):
        if one.value is None or other.value is None or label.prob_a is None:
            continue
        if one.value != other.value and label.prob_a != 0.5:
            agreed.append(float((one.value > other.value) == (label.prob_a > 0.5)))
    if len(agreed) < 2:
        return {}
    # Agresti and Coull's: a share of 0 or 1 in few pairs is no certainty.
    smooth = (sum(agreed) + 2) / (len(agreed) + 4)
    return {
        "reward_accuracy": statistics.fmean(agreed),
        "reward_accuracy_error": math.sqrt(smooth * (1 - smooth) / (len(agreed) + 4)),
    }


def _completion_json(completion: Completion) -> dict[str, Any]:
    return {
        "ids": completion.ids, "text": completion.text, "is_finished": completion.is_finished,
        "logprobs": completion.logprobs,
    }  # fmt: skip
