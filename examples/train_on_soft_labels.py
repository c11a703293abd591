"""From comparisons to a reward model: label them, train on the probabilities, and judge others with what came of it.

The judge and the model to start from are the small one that ships, so this runs without a GPU or a download, in half a
minute. It shows the way, and the numbers of so few rows mean little: for real use, a real judge and a real model.

python examples/train_on_soft_labels.py [FOLDER]    FOLDER keeps labels and model, with its card and curves
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import datasets

import rlaif

COMPARISONS = Path(__file__).parent / "data" / "comparisons.jsonl"
TRAINED_ON = 48
JUDGED = 30


def main(folder: Path) -> None:
    rows = [json.loads(line) for line in COMPARISONS.read_text(encoding="utf-8").splitlines()]
    to_train_on, to_judge = rows[:TRAINED_ON], rows[TRAINED_ON : TRAINED_ON + JUDGED]
    with rlaif.Judge("builtin:tiny") as judge:
        labeled = rlaif.label(to_train_on, judge, out=folder / "labels")
        expected = rlaif.label(to_judge, judge)
    sure = sum(prob > 0.9 for prob in labeled["chosen_prob"])
    print(f"{len(labeled)} labels to train on, {sure} of them surer than 0.9", flush=True)

    command = [
        "train", "rm", "--model", "builtin:tiny", "--data", str(folder / "labels"), "-o", str(folder / "reward"),
        "--batch-size", "8", "--epochs", "2", "--learning-rate", "5e-4", "--held-out", "0.1",
    ]  # fmt: skip
    subprocess.run([sys.executable, "-m", "rlaif", *command], check=True)

    with rlaif.Judge(f"hf-reward:{folder / 'reward'}") as reward_model:
        found = rlaif.label(to_judge, reward_model)
    report("the reward model and its judge, on comparisons that it has not seen", expected, found)


def report(title: str, expected: datasets.Dataset, found: datasets.Dataset) -> None:
    """How often two judges take the same side, and how far their probabilities are apart."""
    pairs = list(zip(expected["prob_a"], found["prob_a"], strict=True))
    same = sum((one > 0.5) == (other > 0.5) for one, other in pairs)
    apart = sum(abs(one - other) for one, other in pairs) / len(pairs)
    print(f"{title}: the same side in {same} of {len(pairs)}, probabilities {apart:.2f} apart on average")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
