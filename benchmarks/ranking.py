"""Does `rlaif rank` find the order of policies, and do its 95 % intervals hold the truth?

Eight policies of known strengths meet in pairs; a judge's soft labels are drawn around what the strengths say. Each
data set is ranked by the soft labels, by votes drawn from them (a vote is A with probability prob_a) and by verdicts (A
where prob_a > 0.5), and the intervals of the strengths, of the Elo ratings and of the ranks are held against the truth.

    python benchmarks/ranking.py
    python benchmarks/ranking.py --sets 50

Settings: "wide" and "close" strengths, from -1 to 1 and from -0.25 to 0.25; "ties", where a tenth of the labels between
equals are ties; "noisy", where prompts differ in who is good at them, four pairs of a prompt are labeled, and the judge
errs. There the truth is what a fit finds with endless labels. Where choix is installed (it is not needed), its point
estimate stands beside ours on the votes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec

import numpy as np
from scipy.stats import spearmanr

from rlaif.auditing.elo import ELO_MEAN, ELO_UNIT
from rlaif.auditing.ranking import rank_by_matches
from rlaif.auditing.ranking_results import Matches, Ranking
from rlaif.auditing.strengths import fit_strengths
from rlaif.auditing.table import FloatArray

POLICIES = 8
NAMES = tuple(f"policy-{number}" for number in range(POLICIES))


@dataclass(frozen=True)
class Setting:
    """A judge and its policies.

    Attributes:
        name: For the table.
        reach: Strengths go from -reach to reach.
        prompt_spread: Standard deviation of a policy's strength over prompts.
        judge_spread: Standard deviation of the judge's error, on the log scale.
        pairs_of_prompt: Labels of one prompt.
        nu: Davidson's; 0 draws no ties.
    """

    name: str
    reach: float
    prompt_spread: float = 0.0
    judge_spread: float = 0.0
    pairs_of_prompt: int = 1
    nu: float = 0.0

    @property
    def strengths(self) -> FloatArray:
        return np.linspace(self.reach, -self.reach, POLICIES)

    def draw(self, rng: np.random.Generator, labels: int) -> Matches:
        """Labels of pairs drawn evenly."""
        prompts = np.arange(labels) // self.pairs_of_prompt
        first = rng.integers(0, POLICIES, labels)
        second = (first + rng.integers(1, POLICIES, labels)) % POLICIES
        at_prompt = self.strengths + rng.normal(0.0, self.prompt_spread, (prompts[-1] + 1, POLICIES))
        gap = at_prompt[prompts, first] - at_prompt[prompts, second] + rng.normal(0.0, self.judge_spread, labels)
        mean = 1.0 / (1.0 + np.exp(-gap))
        tie_share = self.nu / (self.nu + 2.0 * np.cosh(gap / 2.0))
        prob = rng.beta(CONCENTRATION * mean, CONCENTRATION * (1.0 - mean))
        is_tie = rng.random(labels) < tie_share
        return Matches(NAMES, first, second, np.where(is_tie, 0.5, prob), is_tie, prompts)

    def truth(self) -> FloatArray:
        """What a fit finds with endless labels, ties apart."""
        gap = self.strengths[:, None] - self.strengths[None, :]
        nodes, weights = np.polynomial.hermite_e.hermegauss(61)
        spread = np.sqrt(2.0 * self.prompt_spread**2 + self.judge_spread**2)
        wins = (1.0 / (1.0 + np.exp(-(gap[..., None] + spread * nodes)))) @ (weights / weights.sum())
        np.fill_diagonal(wins, 0.0)
        return np.asarray(fit_strengths(wins[None], np.zeros((1, POLICIES, POLICIES))).values[0])


CONCENTRATION = 4.0
"""Of the beta distribution that a soft label is drawn from; its mean is what the strengths say."""

SETTINGS = (
    Setting("wide", 1.0),
    Setting("close", 0.25),
    Setting("ties", 1.0, nu=0.2),
    Setting("noisy", 1.0, prompt_spread=1.0, judge_spread=1.0, pairs_of_prompt=4),
)

Labels = Callable[[Matches, np.random.Generator], Matches]

LABELS: dict[str, Labels] = {
    "soft labels": lambda matches, rng: matches,
    "drawn votes": lambda matches, rng: replace(
        matches, prob=np.where(matches.is_tie, 0.5, (rng.random(len(matches)) < matches.prob).astype(np.float64))
    ),
    "verdicts": lambda matches, rng: replace(
        matches, prob=np.where(matches.is_tie, 0.5, (matches.prob > 0.5).astype(np.float64))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=200, help="data sets of each setting")
    parser.add_argument("--labels", type=int, default=2000, help="labels of a data set")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--orders", type=int, default=50, help="of the online Elo")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(
        "| setting | ranked by | Spearman mean | least | at least 0.95 | strengths covered | width | "
        "differences covered | ranks covered | online Elo covered | by its orders alone |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for number, setting in enumerate(SETTINGS):
        for name, labels in LABELS.items():
            rng = np.random.default_rng([options.seed, number])
            found = []
            for _ in range(options.sets):
                matches = labels(setting.draw(rng, options.labels), rng)
                found.append(
                    rank_by_matches(matches, resamples=options.resamples, orders=options.orders, seed=len(found))
                )
            row = " | ".join(columns(found, setting.truth()))
            print(f"| {setting.name} | {name} | {row} |", flush=True)
    if find_spec("choix") is None:
        print("\nchoix is not installed: no peer")
    else:
        beside_choix(options.sets, options.labels, options.seed)


def columns(found: list[Ranking], truth: FloatArray) -> Iterator[str]:
    """What became of the data sets of one setting."""
    place = {name: number for number, name in enumerate(NAMES)}
    correlations, widths = [], []
    covered: dict[str, list[bool]] = {name: [] for name in ("strength", "difference", "rank", "online", "orders")}
    for ranking in found:
        standings = sorted(ranking.standings, key=lambda standing: place[standing.name])
        correlations.append(spearmanr([each.strength.value for each in standings], truth).statistic)
        for number, (standing, true) in enumerate(zip(standings, truth, strict=True)):
            strength, online, elo = standing.strength, standing.online_elo, ELO_MEAN + ELO_UNIT * true
            covered["strength"].append(strength.low <= true <= strength.high)
            covered["rank"].append(standing.rank.low <= number + 1 <= standing.rank.high)
            covered["online"].append(online.rating.low <= elo <= online.rating.high)
            covered["orders"].append(online.order_low <= elo <= online.order_high)
            widths.append(strength.high - strength.low)
        for pair in ranking.pairs:
            true = truth[place[pair.first]] - truth[place[pair.second]]
            covered["difference"].append(pair.strength_difference.low <= true <= pair.strength_difference.high)
    yield f"{np.mean(correlations):.3f}"
    yield f"{np.min(correlations):.3f}"
    yield f"{np.mean(np.array(correlations) >= 0.95):.1%}"
    yield f"{np.mean(covered['strength']):.1%}"
    yield f"{np.mean(widths):.3f}"
    for name in ("difference", "rank", "online", "orders"):
        yield f"{np.mean(covered[name]):.1%}"


def beside_choix(sets: int, labels: int, seed: int) -> None:
    """The point estimate of another library from the same votes, and the time of both."""
    import choix

    rng = np.random.default_rng([seed, len(SETTINGS)])
    furthest = ours = theirs = 0.0
    for _ in range(sets):
        votes = LABELS["drawn votes"](SETTINGS[0].draw(rng, labels), rng)
        is_won = votes.prob == 1.0
        pairs = np.stack(
            [np.where(is_won, votes.first, votes.second), np.where(is_won, votes.second, votes.first)], axis=1
        )
        started = time.perf_counter()
        wins = np.zeros((1, POLICIES, POLICIES))
        np.add.at(wins[0], (pairs[:, 0], pairs[:, 1]), 1.0)
        mine = fit_strengths(wins, np.zeros_like(wins)).values[0]
        between = time.perf_counter()
        other = choix.ilsr_pairwise(POLICIES, [tuple(pair) for pair in pairs.tolist()], alpha=0.0)
        ours, theirs = ours + between - started, theirs + time.perf_counter() - between
        furthest = max(furthest, float(np.abs(mine - (other - other.mean())).max()))
    apart = f"furthest apart {furthest:.1e}"
    times = f"{1e3 * ours / sets:.2f} ms here, {1e3 * theirs / sets:.2f} ms there"
    print(f"\nbeside choix (ilsr_pairwise) on {sets} sets of {labels} votes: {apart}; {times}")


if __name__ == "__main__":
    main()
