"""A reward model trained on the built-in judge's labels and one trained on people's votes, on held-out human pairs.

    python benchmarks/training_reward_models.py                                           # half an hour on one core
    python benchmarks/training_reward_models.py --seeds 1 --folder runs/reward-models     # can be continued

Everything goes through the command line: `rlaif label` asks the built-in judge about the pairs of hh_train.jsonl (the
helpful and the harmless ones each by their own question), `rlaif train rm` trains on the same rows once with `--labels
soft` and once with `--labels human`, all else equal, and `rlaif label --judge hf-reward:` scores the pairs of
hh_helpful_dev.jsonl and hh_harmless_dev.jsonl, less those whose prompt was trained on. The base is the built-in judge's
own model (1.3 M parameters): the story models beside some checkouts take 512 tokens, and these rows have up to 1,400.

Beside them: the built-in judge itself, P(A) = characters of A / characters of both (whose side is the longer response),
and P(A) = 0.5. Columns: accuracy against people's votes (a tie is half right), Brier score, ECE (15 bins of equal mass)
and AUC, with 95 % intervals clustered by prompt, and how often the side is the built-in judge's.

The pairs are HH-RLHF's and lie beside some checkouts, in ../shared/data; without them there is nothing to measure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet

from rlaif.auditing.agreement import judge_statistics
from rlaif.auditing.intervals import estimate
from rlaif.auditing.reliability import probability_statistics
from rlaif.auditing.results import Figure
from rlaif.auditing.table import AuditTable, FloatArray, build_table, verdicts
from rlaif.records import Comparison, JudgedComparison, Turn, Verdict

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared" / "data"
TRAIN = "hh_train.jsonl"
DEV = {"helpfulness": "hh_helpful_dev.jsonl", "harmlessness": "hh_harmless_dev.jsonl"}
"""Task -> pairs of it."""

ARMS = {"soft": "RM of the judge's labels", "human": "RM of people's votes"}
"""--labels -> name."""

COLUMNS = ("id", "prompt", "response_a", "response_b", "prob_a", "human_label", "human_votes", "task")
FIGURES = ("agreement_tie_half", "brier", "ece", "auc")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run", nargs="+", type=Path, metavar="RUN", help="finished rlaif label runs of hh_train.jsonl"
    )
    parser.add_argument("--model", default="builtin:tiny", help="the base")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="reward models of each kind")
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--limit", type=int, metavar="N", help="so many rows of each file: whether it runs")
    parser.add_argument("--folder", type=Path, help="for all runs; what is finished there is not done again")
    arguments = parser.parse_args()
    missing = [name for name in (TRAIN, *DEV.values()) if not (SHARED / name).is_file()]
    if missing:
        print(f"skipped: {', '.join(missing)} must stand beside the checkout, in ../shared/data", file=sys.stderr)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments.folder or Path(scratch), arguments)
    return 0


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Every run, and a table for each held-out set."""
    folder.mkdir(parents=True, exist_ok=True)
    runs = arguments.run or [label_train(folder, task, arguments.limit) for task in DEV]
    rows = [row for run in runs for row in rows_of(run)]
    data = folder / "judged.parquet"
    parquet.write_table(pa.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows]), data)
    judged = table_of(rows)
    print(
        f"Base {arguments.model}; {len(rows):,} pairs, {arguments.epochs:g} epochs of 32 a step, learning rate "
        f"{arguments.learning_rate:g}. The judge's labels agree with {shown(judge_statistics(judged), judged)} of the "
        f"people they are trained beside."
    )
    models = {
        (name, seed): train(folder, data, labels, seed, arguments)
        for seed in range(arguments.seeds)
        for labels, name in ARMS.items()
    }
    prompts = {repr(row["prompt"]) for row in read_jsonl(SHARED / TRAIN)}
    for task, file in DEV.items():
        dev = folder / file
        known = read_jsonl(SHARED / file)[: arguments.limit]
        fresh = [row for row in known if repr(row["prompt"]) not in prompts]
        dev.write_text("".join(json.dumps(row) + "\n" for row in fresh), encoding="utf-8")
        judge = table_of(rows_of(label(dev, folder / f"{task}-builtin", ["--task", task])))
        print(f"\n{file}: {len(fresh)} pairs, {len(known) - len(fresh)} left out whose prompt was trained on\n")
        print("| | accuracy | Brier | ECE | AUC | side of the judge |\n|---|---|---|---|---|---|")
        for (name, seed), model in models.items():
            scored = label(dev, folder / f"{task}-{model.name}", ["--judge", f"hf-reward:{model}"])
            line(f"{name}, seed {seed}", table_of(rows_of(scored)), judge)
        line("the built-in judge", judge, judge)
        longer = judge.length_a / np.maximum(judge.length_a + judge.length_b, 1)
        line("longer response", replace(judge, prob_a=longer), judge)
        line("always 0.5", replace(judge, prob_a=np.full(len(judge), 0.5)), None)


# --- the command line -------------------------------------------------------------------------------------------------


def label_train(folder: Path, task: str, limit: int | None) -> Path:
    """The built-in judge on the rows of one task."""
    rows = [row for row in read_jsonl(SHARED / TRAIN) if row["task"] == task][:limit]
    source = folder / f"train-{task}.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return label(source, folder / f"train-{task}", ["--task", task])


def label(source: Path, out: Path, flags: Sequence[str]) -> Path:
    """`rlaif label`; rows that the judge cannot answer (exit code 3) are left out."""
    command(["label", str(source), "-o", str(out), *flags, "--truncate", "--quiet"], (0, 3))
    return out


def train(folder: Path, data: Path, labels: str, seed: int, arguments: argparse.Namespace) -> Path:
    """`rlaif train rm`."""
    out = folder / f"rm-{labels}-{seed}"
    flags = {
        "--model": arguments.model, "--data": data, "-o": out, "--labels": labels, "--seed": seed,
        "--epochs": arguments.epochs, "--learning-rate": arguments.learning_rate, "--held-out": 0, "--device": "cpu",
    }  # fmt: skip
    began = time.monotonic()
    command(["train", "rm", *(str(part) for flag in flags.items() for part in flag), "--quiet"], (0,))
    print(f"{out.name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return out


def command(arguments: Sequence[str], expected: Sequence[int]) -> None:
    done = subprocess.run([sys.executable, "-m", "rlaif", *arguments], cwd=REPOSITORY, check=False)
    if done.returncode not in expected:
        raise SystemExit(f"rlaif {' '.join(arguments)}: exit code {done.returncode}")


# --- figures ----------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def rows_of(run: Path) -> list[dict[str, Any]]:
    """The labeled rows of a run folder."""
    rows: list[dict[str, Any]] = parquet.read_table(run / "data").to_pylist()
    return rows


def table_of(rows: Sequence[Mapping[str, Any]]) -> AuditTable:
    """Rows of `rlaif label` with people's labels; one cluster a prompt."""
    return build_table(
        [
            JudgedComparison(
                Comparison(
                    row["id"], (Turn("user", repr(row["prompt"])),), row["response_a"], row["response_b"],
                    human_label=Verdict(row["human_label"]),
                ),
                row["prob_a"],
                cluster=repr(row["prompt"]),
            )
            for row in rows
        ]
    )  # fmt: skip


def line(name: str, table: AuditTable, judge: AuditTable | None) -> None:
    """One row of the table; without a judge that of a constant, which has no intervals and no side."""
    statistics = {**judge_statistics(table), **probability_statistics(table)}
    if judge is None:
        cells = [*(f"{statistics[each].value():.3f}" for each in FIGURES), "-"]
    else:
        figures = estimate({each: statistics[each] for each in FIGURES}, table.clusters)
        cells = [*(cell(figures[each]) for each in FIGURES), f"{same_side(table, judge):.3f}"]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def cell(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def shown(statistics: Mapping[str, Any], table: AuditTable) -> str:
    return cell(estimate({"it": statistics["agreement_tie_half"]}, table.clusters)["it"])


def same_side(table: AuditTable, judge: AuditTable) -> float:
    """Share of the rows that both answered in which the two prefer the same response."""
    of_judge = dict(zip(judge.ids.tolist(), verdicts(judge.prob_a).tolist(), strict=True))
    sides: FloatArray = verdicts(table.prob_a)
    both = [(side, of_judge[row]) for row, side in zip(table.ids.tolist(), sides, strict=True) if row in of_judge]
    return float(np.mean([side == other for side, other in both]))


if __name__ == "__main__":
    sys.exit(main())
