"""What labels of suggested rows are worth: coverage, width and bias of the estimates, beside uniform draws.

    python benchmarks/audit_suggest.py                     # 1,000 simulations a judge: some minutes
    python benchmarks/audit_suggest.py --simulations 200 --labels 50

Each simulation draws 3,000 rows with a judge's `prob_a` and what people would say, then lets people label 100 of them.
People prefer A with probability q, which differs by row; the judge knows q, or a distortion of it. One row of the
table is one judge and one estimate:

- `suggested`: prediction-powered from the rows of `--suggest`; `covers` is the share of 95 % intervals that hold the
  truth (goal 93 to 97 %), `width` their mean width
- `uniform`: prediction-powered from as many rows drawn uniformly
- `plain`: the weighted mean of the uniformly drawn rows' labels alone, with the audit's bootstrap interval
- `naive`: the unweighted mean over the suggested rows: its bias

Last, labels for training: the judge's, with those of 300 of 3,000 rows replaced by people's. Their error is the share
of rows whose label differs from people's, by which rows are replaced: the least confident, suggested, or uniform ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlaif.auditing.intervals import estimate, mean_statistic
from rlaif.auditing.prediction_powered import prediction_powered
from rlaif.auditing.results import Figure
from rlaif.auditing.suggesting import draw, sampling_probs
from rlaif.auditing.table import AuditTable, FloatArray, IntArray, build_table, verdicts
from rlaif.records import Comparison, JudgedComparison, Turn

ROWS = 3000
FIGURES = ("agreement", "win_rate")


class Judge(NamedTuple):
    """How people and a judge are drawn.

    Attributes:
        shape: q ~ Beta(shape, 0.8 * shape): small is easy rows.
        distort: From q to `prob_a`.
        human_ties: Share of rows that people call a tie.
        clusters: Rows to a cluster, which share q; 1 is none.
    """

    shape: float
    distort: Callable[[FloatArray, np.random.Generator], FloatArray]
    human_ties: float = 0.0
    clusters: int = 1


def logit_line(slope: float, shift: float = 0.0, noise: float = 0.0) -> Callable[..., FloatArray]:
    def distort(q: FloatArray, rng: np.random.Generator) -> FloatArray:
        logit = np.log(q / (1 - q))
        return np.asarray(1 / (1 + np.exp(-(slope * logit + shift + noise * rng.normal(size=len(q))))))

    return distort


JUDGES = {
    "calibrated": Judge(0.5, logit_line(1.0)),
    "calibrated, sure of most": Judge(0.15, logit_line(1.0)),
    "overconfident": Judge(0.8, logit_line(3.0)),
    "overconfident, errs": Judge(0.5, logit_line(2.0, noise=3.0)),
    "underconfident": Judge(0.4, logit_line(0.3)),
    "leans to A": Judge(0.7, logit_line(1.0, shift=1.0)),
    "random": Judge(0.5, lambda q, rng: rng.random(len(q))),
    "people tie in 15 %": Judge(0.5, logit_line(1.5), human_ties=0.15),
    "clusters of 3": Judge(0.5, logit_line(1.5), clusters=3),
}


class World(NamedTuple):
    prob_a: FloatArray
    people: FloatArray
    clusters: IntArray


def world_of(judge: Judge, rng: np.random.Generator, rows: int) -> World:
    drawn = rng.beta(judge.shape, 0.8 * judge.shape, -(-rows // judge.clusters))
    q = np.clip(np.repeat(drawn, judge.clusters)[:rows], 1e-4, 1 - 1e-4)
    people = (rng.random(rows) < q).astype(np.float64)
    people[rng.random(rows) < judge.human_ties] = 0.5
    return World(judge.distort(q, rng), people, np.arange(rows) // judge.clusters)


def truth_of(judge: Judge) -> dict[str, float]:
    world = world_of(judge, np.random.default_rng(1_000_003), 3_000_000)
    decided = world.people != 0.5
    agrees = (world.prob_a > 0.5) == (world.people > 0.5)
    return {"agreement": float(agrees[decided].mean()), "win_rate": float(world.people.mean())}


def blank_table(rows: int) -> AuditTable:
    turn = (Turn("user", ""),)
    return build_table([JudgedComparison(Comparison(str(row), turn, "", ""), 0.5) for row in range(rows)])


def labelled(table: AuditTable, people: FloatArray, rows: IntArray, probs: FloatArray) -> AuditTable:
    human, weights = np.full(len(table), np.nan), np.ones(len(table))
    human[rows], weights[rows] = people[rows], 1 / probs[rows]
    return replace(table, human=human, weights=weights, is_sampled=True)


def plain(table: AuditTable) -> dict[str, Figure]:
    known = np.isfinite(table.human)
    agrees = (verdicts(table.prob_a) == table.human).astype(np.float64)
    statistics = {
        "agreement": mean_statistic(agrees, known & (table.human != 0.5), table.weights),
        "win_rate": mean_statistic(table.human, known, table.weights),
    }
    return estimate(statistics, table.clusters, resamples=400)


def simulate(name: str, judge: Judge, simulations: int, labels: int, share: float) -> None:
    truth = truth_of(judge)
    base = blank_table(ROWS)
    found: dict[tuple[str, str], list[Figure]] = {}
    naive: dict[str, list[float]] = {figure: [] for figure in FIGURES}
    for number in range(simulations):
        rng = np.random.default_rng([number, 4])
        world = world_of(judge, rng, ROWS)
        table = replace(base, prob_a=world.prob_a, clusters=world.clusters)
        for way in ("suggested", "uniform"):
            probs = sampling_probs(table, labels, uniform_share=share if way == "suggested" else 1.0)
            rows = draw(probs, number)
            sample = labelled(table, world.people, rows, probs)
            for figure, value in prediction_powered(sample).items():
                assert isinstance(value, Figure)
                found.setdefault((way, figure), []).append(value)
            if way == "uniform":
                for figure, value in plain(sample.take(rows)).items():
                    found.setdefault(("plain", figure), []).append(value)
            else:
                people = world.people[rows]
                agrees = (verdicts(world.prob_a[rows]) == people)[people != 0.5]
                naive["agreement"].append(float(agrees.mean()))
                naive["win_rate"].append(float(people.mean()))
    for figure in FIGURES:
        cells = [f"{name:25} {figure:9} {truth[figure]:6.3f}"]
        widths = {}
        for way in ("suggested", "uniform", "plain"):
            values = found[way, figure]
            covers = np.mean([value.low <= truth[figure] <= value.high for value in values])  # type: ignore[operator]
            widths[way] = float(np.mean([value.high - value.low for value in values]))  # type: ignore[operator]
            bias = float(np.mean([value.value for value in values])) - truth[figure]  # type: ignore[arg-type]
            cells.append(f"{100 * covers:5.1f} {widths[way]:.3f} {bias:+.3f}")
        cells.append(f"{100 * (widths['suggested'] / widths['uniform'] - 1):+4.0f} %")
        cells.append(f"{100 * (widths['suggested'] / widths['plain'] - 1):+4.0f} %")
        cells.append(f"{np.mean(naive[figure]) - truth[figure]:+.3f}")
        print(" | ".join(cells), flush=True)


def hybrid(name: str, judge: Judge, simulations: int, labels: int) -> None:
    errors: dict[str, list[float]] = {"nobody": [], "least confident": [], "suggested": [], "uniform": []}
    base = blank_table(ROWS)
    for number in range(simulations):
        world = world_of(judge, np.random.default_rng([number, 5]), ROWS)
        table = replace(base, prob_a=world.prob_a)
        wrong = (verdicts(world.prob_a) != world.people) & (world.people != 0.5)
        asked = {
            "nobody": np.array([], dtype=np.int64),
            "least confident": np.argsort(np.abs(world.prob_a - 0.5))[:labels],
            "suggested": draw(sampling_probs(table, labels), number),
            "uniform": draw(sampling_probs(table, labels, uniform_share=1.0), number),
        }
        for way, rows in asked.items():
            left = wrong.copy()
            left[rows] = False
            errors[way].append(float(left.mean()))
    print(f"{name:25} " + "  ".join(f"{way} {100 * np.mean(values):.2f} %" for way, values in errors.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--uniform-share", type=float, default=0.5)
    parser.add_argument("--judge", choices=list(JUDGES), action="append")
    options = parser.parse_args()
    judges = options.judge or list(JUDGES)
    print(f"{ROWS} rows, {options.labels} labels, {options.simulations} simulations")
    print(f"{'judge':25} {'figure':9} {'truth':6} | suggested: covers %, width, bias | uniform | plain"
          " | width of suggested against uniform | against plain | bias of naive")  # fmt: skip
    for name in judges:
        simulate(name, JUDGES[name], options.simulations, options.labels, options.uniform_share)
    print(f"\nshare of wrong labels, {3 * options.labels} of {ROWS} replaced by people's")
    for name in judges:
        hybrid(name, JUDGES[name], min(options.simulations, 200), 3 * options.labels)


if __name__ == "__main__":
    main()
