"""Label comparisons from Python, look at one label, and load what was written.

python examples/label_from_python.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets

import rlaif

COMPARISONS = Path(__file__).parent / "data" / "comparisons.jsonl"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, rlaif.Judge("builtin:tiny", constitution="concise") as judge:
        judgment = judge.compare("What is rain?", "Water that falls from clouds.", "Well, as for rain, " * 20)
        print(f"P(A preferred) = {judgment.prob_a:.3f}")
        print(f"    shown first {judgment.prob_a_ab:.3f}, shown second {judgment.prob_a_ba:.3f}")

        labeled = rlaif.label(str(COMPARISONS), judge, out=Path(folder) / "run", limit=20)
        print(f"{len(labeled)} rows; the first prefers {labeled[0]['chosen']!r} with {labeled[0]['chosen_prob']:.2f}")

        again = datasets.load_dataset("parquet", data_files=f"{folder}/run/data/*.parquet", split="train")
        assert again["prob_a"] == labeled["prob_a"]


if __name__ == "__main__":
    main()
