"""The guard rails of a run: told the figures of each batch and evaluation, they name signs of reward hacking.

The figures are made in `guard_figures`, what is a sign is decided in `guard_signs`; here is what is remembered between
steps, so that a sign is said once until it is over, and a run that is resumed says what it would have said. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlaif.online import guard_signs as signs
from rlaif.online.drift import START_STEPS, WINDOW_STEPS, Series
from rlaif.online.guard_config import GuardConfig
from rlaif.online.guard_figures import BatchFigures, EvaluationFigures
from rlaif.online.guard_signs import Estimate, Evaluation, Finding, Sign
from rlaif.online.phrases import PromptTexts, lengthened, mean_shares, only_prompt, paid, runs_of, shared_runs

_LEAST_WINDOW = 5
"""Batches after the start before a phrase is named."""

_SERIES = (
    "reward",
    "kl",
    "entropy",
    "tokens",
    "truncated",
    "repeated",
    "junk",
    "empty",
    "silent_groups",
)
"""Figures of a batch that are followed."""


@dataclass
class _Batch:
    """What is remembered of a batch's texts: the shares of the runs that its prompts share, how many prompts it has,
    the fingerprint of its only one, and what its rewards have to do with the runs (`phrases.Paid`)."""

    shares: dict[str, float]
    prompts: int
    only: str | None
    spread: float
    paid: dict[str, tuple[float, float]]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Batch:
        """From its attributes; JSON has lists for tuples."""
        pairs = {run: (weight, gain) for run, (weight, gain) in value["paid"].items()}
        return cls(**{**value, "paid": pairs})


@dataclass
class _State:
    """All that is remembered; JSON values only."""

    series: dict[str, Series] = field(default_factory=lambda: {name: Series() for name in _SERIES})
    first_batches: list[_Batch] = field(default_factory=list)
    last_batches: list[_Batch] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    win_rates: list[Estimate] = field(default_factory=list)
    accuracies: list[Estimate] = field(default_factory=list)
    said: set[str] = field(default_factory=set)
    phrases: list[str] = field(default_factory=list)


class GuardRails:
    """Watches one run.

    Args:
        config: What is watched; with `guards` off nothing is, and nothing is remembered.
    """

    def __init__(self, config: GuardConfig) -> None:
        self.config = config
        self._state = _State()

    @property
    def active(self) -> tuple[str, ...]:
        """The names of the signs that are there now, sorted."""
        return tuple(sorted({*self._state.said, *(["phrase"] if self._state.phrases else [])}))

    def add_batch(self, figures: BatchFigures, texts: Sequence[PromptTexts] = ()) -> list[Sign]:
        """Take the figures of the next batch.

        Args:
            figures: Of its completions.
            texts: Its prompts and completions (`guard_figures.texts_of`); without them phrases are not looked at.

        Returns:
            The signs that are new.
        """
        if self.config.guards == "off":
            return []
        state = self._state
        for name, series in state.series.items():
            value = getattr(figures, name)
            if value is not None:
                series.add(float(value))
        found = self._findings(figures.completions)
        return [*self._new(found, figures.step), *(self._new_phrases(texts, figures.step) if texts else ())]

    def add_evaluation(self, figures: EvaluationFigures) -> list[Sign]:
        """Take what the next evaluation found; the first one is of the policy at the start, or as near as there is.

        Returns:
            The signs that are new.
        """
        if self.config.guards == "off":
            return []
        state = self._state
        reward = state.series["reward"]
        start = self._start_reward()
        found: dict[str, Finding] = {}
        if figures.watched_reward is not None and figures.watched_error is not None:
            now = self._reward_now()
            state.evaluations.append(
                Evaluation(
                    figures.step,
                    figures.watched_reward,
                    figures.watched_error,
                    None if now is None else now.value,
                    None if now is None else now.error,
                )
            )
            found["reward-up-watched-down"] = signs.watched_fell(state.evaluations, start)
        if figures.win_rate is not None and figures.win_low is not None and figures.win_high is not None:
            error = (figures.win_high - figures.win_low) / (2 * 1.96)
            state.win_rates = [*state.win_rates, Estimate(figures.win_rate, error)][-3:]
            found["win-rate"] = signs.win_rate_low(state.win_rates, reward)
        if figures.reward_accuracy is not None and figures.reward_accuracy_error is not None:
            state.accuracies.append(Estimate(figures.reward_accuracy, figures.reward_accuracy_error))
            found["reward-accuracy"] = signs.accuracy_fell(state.accuracies)
        if figures.kl is not None and not state.series["kl"].count:  # batches that measure it are more, and sooner
            found["kl"] = signs.kl_exceeded(figures.kl, state.series["tokens"], self.config.max_kl)
        return self._new(found, figures.step)

    def as_json(self) -> dict[str, Any]:
        """All that is remembered, as JSON values: numbers come back exactly, so that a resumed run says the same."""
        state = self._state
        return {
            "series": {name: series.as_json() for name, series in state.series.items()},
            "first_batches": [vars(batch) for batch in state.first_batches],
            "last_batches": [vars(batch) for batch in state.last_batches],
            "evaluations": [list(one) for one in state.evaluations],
            "win_rates": [list(one) for one in state.win_rates],
            "accuracies": [list(one) for one in state.accuracies],
            "said": sorted(state.said),
            "phrases": list(state.phrases),
        }

    @classmethod
    def from_json(cls, config: GuardConfig, value: Mapping[str, Any]) -> GuardRails:
        """The guard rails of a run that goes on, from `as_json`."""
        rails = cls(config)
        rails._state = _State(
            series={name: Series.from_json(value["series"][name]) for name in _SERIES},
            first_batches=[_Batch.from_json(batch) for batch in value["first_batches"]],
            last_batches=[_Batch.from_json(batch) for batch in value["last_batches"]],
            evaluations=[Evaluation(*one) for one in value["evaluations"]],
            win_rates=[Estimate(*one) for one in value["win_rates"]],
            accuracies=[Estimate(*one) for one in value["accuracies"]],
            said=set(value["said"]),
            phrases=list(value["phrases"]),
        )
        return rails

    def _findings(self, completions: int) -> dict[str, Finding]:
        """What the figures of batches tell so far."""
        of = self._state.series
        found = {
            "length": signs.length_changed(of["tokens"], of["reward"]),
            "repetition": signs.share_risen(of["repeated"], signs.REPEATED_RISE, completions, "go in circles"),
            "truncation": signs.share_risen(
                of["truncated"], signs.TRUNCATED_RISE, completions, "are cut off at the most tokens"
            ),
            "junk": signs.share_risen(of["junk"], signs.JUNK_RISE, completions, "end in symbols that end no sentence"),
            "empty": signs.share_risen(of["empty"], signs.EMPTY_RISE, completions, "are empty"),
            "entropy-collapse": signs.entropy_collapsed(of["entropy"]),
            "constant": signs.groups_silent(of["silent_groups"], completions),
        }
        if of["kl"].is_known:  # else evaluations tell
            found["kl"] = signs.kl_exceeded(of["kl"].now, of["tokens"], self.config.max_kl)
        return found

    def _new(self, found: Mapping[str, Finding], step: int) -> list[Sign]:
        """The signs among the findings that were not said yet; those that are over may be said again."""
        said = self._state.said
        said -= {name for name, finding in found.items() if finding.effect < signs.OVER}
        new = [name for name, finding in found.items() if finding.is_sign and name not in said]
        said.update(new)
        return [signs.sign(name, step, found[name]) for name in new]

    def _new_phrases(self, texts: Sequence[PromptTexts], step: int) -> list[Sign]:
        """The sign that a phrase spreads, where one does that has no three words in common with those already named."""
        state = self._state
        shares = shared_runs(texts)
        rewarded = paid(texts, shares)
        batch = _Batch(shares, len(texts), only_prompt(texts), rewarded.spread, rewarded.runs)
        if len(state.first_batches) < START_STEPS:
            state.first_batches.append(batch)
            return []
        state.last_batches = [*state.last_batches, batch][-WINDOW_STEPS:]
        prompts = {one.only for one in state.last_batches}
        if len(state.last_batches) < _LEAST_WINDOW or (len(prompts) == 1 and prompts != {None}):
            return []  # with one prompt all along, sharing phrases is what converging looks like
        start = mean_shares([one.shares for one in state.first_batches])
        now = mean_shares([one.shares for one in state.last_batches])
        sizes = (sum(one.prompts for one in state.first_batches), sum(one.prompts for one in state.last_batches))

        def finding(run: str, phrase: str) -> Finding:
            pay, gain = self._pay(run)
            return signs.phrase_spread(start.get(run, 0.0), now.get(run, 0.0), sizes, phrase, pay=pay, gain=gain)

        state.phrases = [
            phrase
            for phrase in state.phrases
            if max(finding(run, phrase).effect for run in runs_of(phrase)) >= signs.OVER
        ]
        named = {run for phrase in state.phrases for run in runs_of(phrase)}
        # What is no longer said is not spreading, whatever its mean.
        spread = [run for run in batch.shares if run not in named and finding(run, run).is_sign]
        if not spread:
            return []
        run = min(spread, key=lambda run: (start.get(run, 0.0) - now[run], run))
        phrase = lengthened(run, texts)
        if named & runs_of(phrase):
            return []  # a phrase that was named, with a word more or less
        state.phrases.append(phrase)
        return [signs.sign("phrase", step, finding(run, phrase))]

    def _pay(self, run: str) -> tuple[float, float | None]:
        """Over the latest batches, each compared within itself: the part of the rewards' variance that a run explains,
        below 0 where rewards are lower with it, and how much higher they are; None where nothing is to be compared."""
        batches = self._state.last_batches
        found = [batch.paid[run] for batch in batches if run in batch.paid]
        weight = math.fsum(weight for weight, _ in found)
        spread = math.fsum(batch.spread for batch in batches)
        if not weight or not spread:
            return 0.0, None
        explained = math.fsum(weight * gain * abs(gain) for weight, gain in found)
        return explained / spread, math.fsum(weight * gain for weight, gain in found) / weight

    def _start_reward(self) -> Estimate | None:
        reward = self._state.series["reward"]
        if not reward.start:
            return None
        # A single value says nothing of its noise.
        error = reward.noise() / len(reward.start) ** 0.5 if reward.count > 1 else abs(reward.first)
        return Estimate(reward.first, error)

    def _reward_now(self) -> Estimate | None:
        """Of the latest batches; None where those are the first ones, which are the start."""
        reward = self._state.series["reward"]
        if not reward.window:
            return None
        return Estimate(reward.now, reward.noise() / len(reward.window) ** 0.5)
