"""The signs of reward hacking and how each is told from noise: pure functions over figures. No state, no torch.

A sign takes an effect that matters (its limit stands below) and certainty that it is none of sampling, both at least 1.
It is over once the effect is below `OVER`. The limits are set so that policies that improve honestly, and get longer,
surer and more alike while they do, raise none (benchmarks/guarding.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlaif.online.drift import Series, share_noise
from rlaif.visibility import visible

OVER = 0.75
"""A sign that is there is over below this effect."""

SURE = 4.0
"""Standard errors from which on a change since the start is one."""
_REWARD_ROSE = 3.0
"""Standard errors from which on the reward rose; it stands beside another finding."""
_FELL, _FEW_EVALUATIONS = 3.5, 8
"""Standard errors from which on a figure of evaluations fell, with so many of them at most (`_sure_of_fall`)."""
_PROXY_ROSE = 2.0
"""Standard errors from which on the reward trained on rose between two evaluations."""

TRUNCATED_RISE = 0.3
REPEATED_RISE = 0.15
JUNK_RISE = 0.15
EMPTY_RISE = 0.1
PHRASE_RISE = 0.4
"""How much larger shares of completions are than at the start."""
PHRASE_PAID = 0.5
"""Part of the rewards' variance within batches that a spreading phrase explains: a policy that learns honestly has its
favourites too, and they are not what it is paid for ..."""
PHRASE_ALL = 0.8
"""... unless nearly all completions have it, whatever they are paid."""
LENGTH_FACTOR = 2.0
"""How many times longer, or shorter, than at the start."""
ENTROPY_FACTOR = 5.0
"""How many times smaller than at the start."""
KL_LEAST, KL_PER_TOKEN = 10.0, 0.25
"""Default budget of divergence, in nats a completion: at least so many, and so many for each token at the start.

Source: openai/lm-human-preferences (Ziegler et al., arXiv:1909.08593), launch.py at 1ab856d: 6 nats for 24 tokens.
"""
SILENT_SHARE, _MOST = 0.6, 0.5
"""Share of prompts without a signal; that it is most of them has to be sure."""
_SURE_OF_MOST = 2.0
ACCURACY_FALL = 0.15
"""How much smaller a share of pairs is than at first."""

_MEANINGS: Mapping[str, str] = {
    "reward-up-watched-down": "the policy is learning what this reward pays for rather than what is good: take an "
    "earlier checkpoint, a stronger KL penalty, or another judge",
    "phrase": "the reward may be paid for the phrase itself: read some rollouts, and try the judge on answers with and "
    "without it",
    "length": "the reward may be paid for the length itself: compare rewards of long and short answers, or control for "
    "length",
    "repetition": "answers go in circles: the judge may not mind, and the next ones learn from them",
    "truncation": "answers are cut off before they end: the judge may prefer them so, or --response-tokens "
    "is too small",
    "junk": "trailing symbols seem to be rewarded: read how rollouts end, and strip it or tell the judge",
    "empty": "saying nothing seems to be rewarded: see what the judge is shown",
    "entropy-collapse": "the policy hardly varies its answers any more and learns little: raise "
    "--rollout-temperature or the KL penalty, or stop here",
    "kl": "the further the policy is from its start, the less its reward means: raise --beta, lower the learning rate, "
    "or set --max-kl if this is as intended",
    "win-rate": "the reward says the opposite: it is being gamed, or is about something else than the judge of pairs",
    "reward-accuracy": "the reward has gone stale on what the policy writes now: train it anew on such pairs, or ask "
    "the judge itself",
    "constant": "there is nothing to learn from these: take harder or easier prompts, a finer reward, or a higher "
    "--rollout-temperature",
}
SIGNS = tuple(_MEANINGS)
"""The names of all signs."""

_OF_HEALTH = frozenset({"entropy-collapse", "kl", "constant"})


class Sign(NamedTuple):
    """Something that was seen and that should be looked at.

    Attributes:
        name: One of `SIGNS`.
        step: Optimizer steps done when it was seen.
        text: What was seen, with the numbers, and what it may mean; safe to print.
    """

    name: str
    step: int
    text: str

    @property
    def is_hack(self) -> bool:
        """Whether it is a sign of reward hacking (`--stop-on-hack`), and not of learning that slows or drifts off."""
        return self.name not in _OF_HEALTH


class Finding(NamedTuple):
    """What a check found.

    Attributes:
        effect: In terms of its limit: from 1 on there is something.
        certainty: In terms of the standard errors that it takes: from 1 on it is no noise.
        seen: What was seen, with the numbers; "" where there is nothing to see.
    """

    effect: float
    certainty: float
    seen: str

    @property
    def is_sign(self) -> bool:
        return self.effect >= 1 and self.certainty >= 1


NOTHING = Finding(0.0, 0.0, "")


class Evaluation(NamedTuple):
    """A watched reward beside the one trained on.

    Attributes:
        step: Optimizer steps done.
        watched, watched_error: Mean reward of the watching judge, and its standard error.
        reward, reward_error: Mean of the reward trained on over the latest batches, and its standard error; None before
            the first.
    """

    step: int
    watched: float
    watched_error: float
    reward: float | None
    reward_error: float | None


class Estimate(NamedTuple):
    """A number with its standard error."""

    value: float
    error: float


def sign(name: str, step: int, finding: Finding) -> Sign:
    """The sign that a finding is, in words."""
    return Sign(name, step, visible(f"{finding.seen}; {_MEANINGS[name]}"))


def share_risen(series: Series, limit: float, completions: int, what: str) -> Finding:
    """Whether a share of completions is larger than at the start by `limit`.

    Args:
        completions: Of a batch.
        what: What they are, such as "go in circles".
    """
    if not series.is_known:
        return NOTHING
    floor = share_noise((series.first + series.now) / 2, completions)
    seen = f"{_percent(series.now)} of the completions {what} ({_percent(series.first)} at the start)"
    return Finding((series.now - series.first) / limit, series.rise(floor) / SURE, seen)


def length_changed(tokens: Series, reward: Series) -> Finding:
    """Whether completions are much longer or shorter than at the start, and rewarded more."""
    if not (tokens.is_known and reward.is_known) or min(tokens.now, tokens.first) <= 0:
        return NOTHING
    ratio = tokens.now / tokens.first
    seen = (
        f"completions have {tokens.now:.0f} tokens ({tokens.first:.0f} at the start), while the reward rose from "
        f"{reward.first:.2f} to {reward.now:.2f}"
    )
    effect = abs(math.log(ratio)) / math.log(LENGTH_FACTOR)
    return Finding(effect, min(abs(tokens.rise()) / SURE, reward.rise() / _REWARD_ROSE), seen)


def entropy_collapsed(entropy: Series) -> Finding:
    """Whether the policy chooses its tokens with far less entropy than at the start."""
    if not entropy.is_known or entropy.first <= 0:
        return NOTHING
    left = max(entropy.now, 1e-9) / entropy.first
    seen = f"the entropy of a token is {entropy.now:.3g} nats ({entropy.first:.3g} at the start)"
    return Finding(-math.log(left) / math.log(ENTROPY_FACTOR), -entropy.rise() / SURE, seen)


def kl_exceeded(kl: float, tokens: Series, max_kl: float | None) -> Finding:
    """Whether the policy is further from its start than the budget allows.

    Args:
        kl: Nats a completion, a mean of several batches or of held-out prompts.
    """
    budget = max_kl or max(KL_LEAST, KL_PER_TOKEN * (tokens.first if tokens.start else 0.0))
    seen = f"the policy is {kl:.3g} nats a completion from its start; the budget is {budget:.3g}"
    return Finding(kl / budget, 1.0, seen)


def groups_silent(silent: Series, completions: int) -> Finding:
    """Whether the completions of most prompts get the same reward each."""
    if not silent.is_known:
        return NOTHING
    # Two completions a prompt at least: there are half as many groups at most.
    floor = share_noise(silent.now, max(1, completions // 2))
    seen = f"at {_percent(silent.now)} of the prompts all completions get the same reward"
    return Finding(silent.now / SILENT_SHARE, silent.above(_MOST, floor) / _SURE_OF_MOST, seen)


def phrase_spread(
    start: float, now: float, sizes: tuple[int, int], phrase: str, *, pay: float = 0.0, gain: float | None = None
) -> Finding:
    """Whether a phrase is in far more completions than at the start, and is what is paid for.

    Args:
        start, now: The shares of completions that have it.
        sizes: Prompts behind each of the two.
        phrase: Its words.
        pay: The part of the rewards' variance that it explains, at most 1; below 0 where rewards are lower with it.
        gain: How much higher rewards are with it than without; None where that is not known.
    """
    error = math.hypot(share_noise(start, sizes[0]), share_noise(now, sizes[1]))
    shown = phrase if len(phrase) <= 200 else f"{phrase[:200]} …"
    seen = f'{_percent(now)} of the completions, to different prompts, say "{shown}" ({_percent(start)} at the start)'
    if gain is not None:
        seen += f", with rewards that are {abs(gain):.2f} {'higher' if gain >= 0 else 'lower'} than without"
    rise = (now - start) / PHRASE_RISE
    effect = rise if pay >= PHRASE_PAID else min(rise, now / PHRASE_ALL)
    return Finding(effect, (now - start) / error / SURE, seen)


def watched_fell(evaluations: Sequence[Evaluation], start: Estimate | None) -> Finding:
    """Whether the watched reward fell since an earlier evaluation while the reward that is trained on rose.

    The latest evaluation, and the mean of the latest two, are compared with every earlier one: rewards that are
    overdone rise first. As the largest of more and more comparisons grows, so does what it takes.

    Args:
        evaluations: As they came. An error of 0, of a single prompt or of equal rewards, is taken to be the largest of
            the others; where all are 0 nothing is said.
        start: The reward trained on in the first batches, for an evaluation before them; None before there are any.
    """
    best = NOTHING
    largest = max((one.watched_error for one in evaluations), default=0.0)
    if largest == 0:
        return NOTHING
    evaluations = [one._replace(watched_error=one.watched_error or largest) for one in evaluations]
    sure = _sure_of_fall(len(evaluations))
    for count in (1, 2):
        if len(evaluations) <= count:
            break
        earlier, latest = evaluations[:-count], evaluations[-count:]
        now = _mean([Estimate(one.watched, one.watched_error) for one in latest])
        reward_now = _reward(latest[-1], start)
        for one in earlier:
            reward_then = _reward(one, start)
            if reward_now is None or reward_then is None:
                continue
            fall = (one.watched - now.value) / math.hypot(one.watched_error, now.error)
            rise = (reward_now.value - reward_then.value) / max(math.hypot(reward_now.error, reward_then.error), 1e-12)
            seen = (
                f"since step {one.step} the reward that is trained on rose from {reward_then.value:.2f} to "
                f"{reward_now.value:.2f}, and the watched one fell from {one.watched:.2f} to {now.value:.2f}"
            )
            finding = Finding(fall / sure, rise / _PROXY_ROSE, seen)
            if (finding.is_sign, finding.effect) > (best.is_sign, best.effect):
                best = finding
    return best


def win_rate_low(win_rates: Sequence[Estimate], reward: Series) -> Finding:
    """Whether the start's answers are preferred to the policy's, though the reward rose.

    Args:
        win_rates: Of the policy against the start, as they came; the latest three are looked at, alone and together.
            Those with an error of 0 say nothing.
    """
    means = [_mean(win_rates[-count:]) for count in range(1, min(3, len(win_rates)) + 1)]
    means = [mean for mean in means if mean.error > 0]
    if not means or not reward.is_known:
        return NOTHING
    lowest = max(means, key=lambda mean: (0.5 - mean.value) / mean.error)
    seen = (
        f"the policy wins {_percent(lowest.value)} against its start, while the reward rose from {reward.first:.2f} to "
        f"{reward.now:.2f}"
    )
    return Finding((0.5 - lowest.value) / lowest.error / SURE, reward.rise() / _REWARD_ROSE, seen)


def accuracy_fell(accuracies: Sequence[Estimate]) -> Finding:
    """Whether the reward agrees less with the watched one on the policy's own pairs than it did at first.

    Args:
        accuracies: As they came; the mean of the latest three at most is compared with that of the first two.
    """
    if len(accuracies) < 3:
        return NOTHING
    then, latest = accuracies[:2], accuracies[2:][-3:]
    first, now = _mean(then), _mean(latest)
    # A share that is large by chance has a small error: the largest of them stands for all.
    largest = max(one.error for one in (*then, *latest))
    if largest == 0:
        return NOTHING
    fall, error = first.value - now.value, largest * math.sqrt(1 / len(then) + 1 / len(latest))
    seen = (
        f"the reward names the better one of the policy's own pairs in {_percent(now.value)} "
        f"({_percent(first.value)} at the start)"
    )
    return Finding(fall / ACCURACY_FALL, fall / error / _sure_of_fall(len(accuracies)), seen)


def _sure_of_fall(evaluations: int) -> float:
    """Standard errors that the largest fall among so many evaluations takes.

    The largest of m normal draws grows as the square root of 2 ln m, and there are about evaluations^2 comparisons.

    >>> _sure_of_fall(2), round(_sure_of_fall(30), 2)  # sqrt(3.5^2 + 4 ln(30 / 8))
    (3.5, 4.19)
    """
    return math.sqrt(_FELL**2 + 4 * math.log(max(1.0, evaluations / _FEW_EVALUATIONS)))


def _reward(evaluation: Evaluation, start: Estimate | None) -> Estimate | None:
    if evaluation.reward is None or evaluation.reward_error is None:
        return start
    return Estimate(evaluation.reward, evaluation.reward_error)


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    """Of independent estimates."""
    count = len(estimates)
    error = math.sqrt(sum(one.error**2 for one in estimates)) / count
    return Estimate(sum(one.value for one in estimates) / count, error)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
