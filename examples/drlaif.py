"""Direct RLAIF: a policy learns from the judge's own score of what it writes, watched by a judge it never learns from.

The policy and the judge are the small ones that ship, so this runs without a GPU or a download, in some minutes. The
watching judge is a reward model of the human labels beside the example comparisons. It shows the way, and the numbers
of so short a run mean little: `benchmarks/drlaif.py` compares methods over seeds, `benchmarks/RESULTS.md` has figures.

python examples/drlaif.py [FOLDER]    FOLDER keeps the policy, with its card and curves
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).parent / "data"
STEPS = 8


def rlaif(*words: object) -> None:
    """A command, as in a terminal."""
    subprocess.run([sys.executable, "-m", "rlaif", *map(str, words)], check=True)


def main(folder: Path) -> None:
    rlaif(
        "train", "rm", "--model", "builtin:tiny-policy", "--data", DATA / "comparisons.jsonl", "--labels", "human",
        "-o", folder / "watching", "--batch-size", 16, "--epochs", 1, "--learning-rate", "1e-3", "--quiet",
    )  # fmt: skip
    rlaif(
        "train", "drlaif", "--model", "builtin:tiny-policy", "--data", DATA / "prompts.jsonl", "-o", folder / "policy",
        "--judge", "builtin:tiny", "--watch-judge", f"hf-reward:{folder / 'watching'}", "--watch-prompts", 20,
        "--batch-size", 32, "--max-steps", STEPS, "--eval-every", STEPS // 2, "--learning-rate", "1e-4",
        "--schedule", "constant", "--value", "critic", "--value-weight", 1, "--max-grad-norm", 5,
        "--response-tokens", 96, "--missing-eos-penalty", 1, "--suite", "none",
    )  # fmt: skip
    report(folder / "policy")


def report(policy: Path) -> None:
    """What the policy was worth on prompts that were held out, by both judges."""
    lines = [json.loads(line) for line in (policy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    evaluations = [line for line in lines if "eval_reward" in line]
    print("\nstep  judge's rating (1-10)  KL (nats)  reward of the judge that only watches")
    for one in evaluations:
        rating = 5.5 + 4.5 * one["eval_reward"]
        print(f"{one['step']:4}  {rating:21.2f}  {one['eval_kl']:9.2f}  {one['eval_watched_reward']:37.2f}")
    last = evaluations[-1]
    print(
        f"wins against the start, by the judge that only watches: {last['eval_win_rate']:.0%} "
        f"({last['eval_win_low']:.0%} to {last['eval_win_high']:.0%})"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
