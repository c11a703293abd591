"""Direct RLAIF: a policy learns from the judge's score of what it writes, watched by a judge that it never learns from.

Policy and judge are the small ones that ship, so this runs without a GPU or a download, in about a minute on a core
that has nothing else to do. The judge that watches is a reward model of the human labels beside the example
comparisons. It shows the way, and the numbers of so few steps and prompts mean little: `benchmarks/drlaif.py` trains
for longer, compares other methods, and measures on more prompts.

python examples/drlaif.py [FOLDER [STEPS]]    FOLDER keeps the policy, with its card, curves and some of what it wrote
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

DATA = Path(__file__).parent / "data"


def rlaif(*words: object) -> None:
    """A command, as in a terminal."""
    subprocess.run([sys.executable, "-m", "rlaif", *map(str, words)], check=True)


def main(folder: Path, steps: int) -> None:
    watching, policy = folder / "watching", folder / "policy"
    rlaif(
        "train", "rm", "--model", "builtin:tiny-policy", "--data", DATA / "comparisons.jsonl", "--labels", "human",
        "-o", watching, "--batch-size", 16, "--learning-rate", "1e-3", "--quiet",
    )  # fmt: skip
    rlaif(
        "train", "drlaif", "--model", "builtin:tiny-policy", "--data", DATA / "prompts.jsonl", "-o", policy,
        "--judge", "builtin:tiny", "--watch-judge", f"hf-reward:{watching}", "--watch-prompts", 12,
        "--batch-size", 32, "--max-steps", steps, "--eval-every", steps, "--suite", "none",
        "--response-tokens", 96, "--missing-eos-penalty", 1, "--value", "critic", "--value-weight", 1,
        "--learning-rate", "2e-4", "--warmup", 0,
    )  # fmt: skip
    report(policy)


def report(policy: Path) -> None:
    """What the policy was worth while it learnt, and on prompts that were held out, by both judges."""
    lines = [json.loads(line) for line in (policy / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    written = [line for line in lines if "reward" in line]
    print("\nwritten in steps  judge's rating (1-10)  KL (nats)")
    parts = min(4, len(written))
    for part in range(parts):
        first, last = len(written) * part // parts, len(written) * (part + 1) // parts
        reward, kl = (statistics.fmean(line[name] for line in written[first:last]) for name in ("reward", "kl"))
        print(f"{f'{first + 1} to {last}':>16}  {5.5 + 4.5 * reward:21.2f}  {kl:9.2f}")
    start, end = (line for line in lines if "eval_reward" in line)
    print(
        f"on held-out prompts: the judge's rating {5.5 + 4.5 * start['eval_reward']:.2f}, then "
        f"{5.5 + 4.5 * end['eval_reward']:.2f}; reward by the judge that only watches "
        f"{start['eval_watched_reward']:.2f}, then {end['eval_watched_reward']:.2f}, where the policy wins "
        f"{end['eval_win_rate']:.0%} against its start ({end['eval_win_low']:.0%} to {end['eval_win_high']:.0%})"
    )


if __name__ == "__main__":
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 12
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]), steps)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary), steps)
