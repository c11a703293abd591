"""What a fitted calibration is worth on rows it was not fitted to, and whether known parameters are found again.

    python benchmarks/audit_calibration.py                          # labels the shared comparisons itself, minutes
    python benchmarks/audit_calibration.py runs/helpful runs/harmless
    python benchmarks/audit_calibration.py --only simulated

Real: the built-in judge on HH-RLHF's test pairs, which lie beside some checkouts; fitted to a random half of the
prompts, scored on the other half. Simulated: people prefer A with the probability 1 / (1 + exp(-s)) and the judge's
logits are T * (s +/- b - k * length), so that T, b and k are what calibrating takes away again; a noisy judge errs by a
normal draw of standard deviation 1 in each order, before T. What is best for a noisy judge are other numbers than those
it was made with (it should be believed less): "best" are those, found on 200,000 rows. The column of intervals says how
often they hold the best T, b and k.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
sys.path.insert(0, str(REPOSITORY))

from rlaif.auditing.fitting import SCORES, average, calibrated_prob, fit_calibration  # noqa: E402
from rlaif.auditing.reliability import probability_statistics  # noqa: E402
from rlaif.auditing.table import AuditTable, build_table  # noqa: E402
from rlaif.calibration import Calibration  # noqa: E402
from rlaif.records import Comparison, JudgedComparison, Turn, Verdict  # noqa: E402
from tests.auditing.simulated import simulated_judge  # noqa: E402

SETS = {"helpfulness": "hh_helpful_dev.jsonl", "harmlessness": "hh_harmless_dev.jsonl"}
JUDGES = tuple(product((0.5, 1.0, 2.5), (0.0, 0.8), (0.0, 0.5)))
ROWS = (500, 2000)
ROWS_THAT_TELL = 200_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="run folders of rlaif label on rows with human labels")
    parser.add_argument("--splits", type=int, default=20, metavar="N", help="random halves a set")
    parser.add_argument("--seeds", type=int, default=50, metavar="N", help="data sets a simulated judge")
    parser.add_argument("--only", choices=("real", "simulated"), help="default: both")
    arguments = parser.parse_args()
    if arguments.only != "real":
        simulated(arguments.seeds)
    if arguments.only != "simulated":
        real(arguments.runs, arguments.splits)


def real(runs: list[Path], splits: int) -> None:
    """The table of real judges."""
    print("\n| run | rows | fitted to | score | before | after | better in |\n|---|---|---|---|---|---|---|")
    if runs:
        for run in runs:
            report(run, splits)
        return
    if not SHARED.is_dir():
        print("the comparisons are not beside this checkout: give run folders of your own", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        for task, name in SETS.items():
            run = Path(folder) / name.removesuffix(".jsonl")
            command = [sys.executable, "-m", "rlaif", "label", str(SHARED / name), "-o", str(run), "--task", task]
            subprocess.run([*command, "--truncate", "--quiet"], check=True, cwd=REPOSITORY)
            report(run, splits)


def report(run: Path, splits: int) -> None:
    """A run's lines of the table: mean and standard deviation over the splits."""
    table = table_of(run)
    before: list[list[float]] = []
    after: list[list[float]] = []
    fits = []
    for seed in range(splits):
        is_first = np.random.default_rng(seed).permutation(int(table.clusters.max()) + 1) % 2 == 0
        fitted, held_out = table.take(is_first[table.clusters]), table.take(~is_first[table.clusters])
        fit = fit_calibration(fitted, seed=seed)
        fits.append([*fit.calibration.parameters.values()])
        raw = average(held_out.prob_a_ab, held_out.prob_a_ba, "mean-prob")
        before.append(scores(replace(held_out, prob_a=raw)))
        after.append(scores(replace(held_out, prob_a=calibrated_prob(held_out, fit.calibration))))
    for place, name in enumerate(SCORES):
        old, new = (np.array(values)[:, place] for values in (before, after))
        better = f"{np.mean(new < old):.0%} of {splits} splits"
        print(f"| {run.name} | {len(table)} | half | {name} | {spread(old)} | {spread(new)} | {better} |", flush=True)
    temperature, bias, slope = np.array(fits).T
    found = f"T {spread(temperature)}, b {spread(bias)}, k {spread(slope)}"
    print(f"| {run.name} | {len(table)} | half | parameters | | {found} | |", flush=True)


def table_of(run: Path) -> AuditTable:
    """The rows of a run folder with a human label; one cluster a prompt."""
    import pyarrow.parquet as parquet

    return build_table([judged(row) for row in parquet.read_table(run / "data").to_pylist() if row["human_label"]])


def judged(row: dict) -> JudgedComparison:
    """A row of `rlaif label` as the audit takes it."""
    prompt = row["prompt"] if isinstance(row["prompt"], str) else repr(row["prompt"])
    comparison = Comparison(
        row["id"],
        (Turn("user", prompt),),
        row["response_a"],
        row["response_b"],
        human_label=Verdict(row["human_label"]),
    )
    return JudgedComparison(comparison, row["prob_a"], row["prob_a_ab"], row["prob_a_ba"], cluster=prompt)


def scores(table: AuditTable) -> list[float]:
    """Brier score, log loss and ECE."""
    found = probability_statistics(table)
    return [found[name].value() for name in SCORES]


def simulated(seeds: int) -> None:
    """The table of simulated judges: mean and standard deviation over data sets."""
    print("| judge | noise | best | rows | T | b | k | intervals hold T, b, k | log loss before | after, out of fold |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for noise, (temperature, bias, slope), rows in product((0.0, 1.0), JUDGES, ROWS):
        fits = [
            fit_calibration(simulated_judge(seed, rows, temperature, bias, slope, noise=noise), seed=seed)
            for seed in range(seeds)
        ]
        known = best(temperature, bias, slope, noise)
        found = [spread(np.array([fit.calibration.parameters[name] for fit in fits])) for name in known]
        covered = [
            f"{np.mean([fit.parameters[name].low <= value <= fit.parameters[name].high for fit in fits]):.0%}"
            for name, value in known.items()
        ]
        losses = [spread(np.array([getattr(fit, when)["log_loss"] for fit in fits])) for when in ("before", "after")]
        judge = f"T {temperature:g}, b {bias:g}, k {slope:g}"
        told = ", ".join(f"{value:.2f}" for value in known.values())
        print(
            "|",
            " | ".join([judge, f"{noise:g}", told, str(rows), *found, ", ".join(covered), *losses]),
            "|",
            flush=True,
        )


@cache
def best(temperature: float, bias: float, slope: float, noise: float) -> dict[str, float]:
    """The parameters that make a judge's probabilities true."""
    if not noise:
        return Calibration(temperature, bias, slope).parameters
    table = simulated_judge(10**6, ROWS_THAT_TELL, temperature, bias, slope, noise=noise)
    return fit_calibration(table, folds=2).calibration.parameters


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation."""
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


if __name__ == "__main__":
    main()
