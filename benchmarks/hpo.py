"""What auxiliary rewards do to a policy beside preferences: METHODS check 43, on the policy and the judge that ship.

    python benchmarks/hpo.py                # 3 seeds, some 20 minutes on a free core
    python benchmarks/hpo.py --prompts 40 --seeds 1 --coefs 0 0.01

`builtin:tiny-policy` answers prompts of the grammar four times each, `builtin:tiny` labels all pairs of the answers
(both orders, soft), and two auxiliary rewards stand beside every answer: its words, and its words a sentence. `rlaif
train hpo` then trains the same policy on the same pairs at several --aux-coef (lambda; 0 is KTO alone), with one of the
two rewards counted with a minus: shorter answers, or shorter sentences, are better. Half of the prompts is held out.

    accuracy    pairs of held-out prompts whose better answer, by the judge, the policy's implied reward ranks first
    change      of the accuracy from that of lambda 0 with the same seed: each seed holds out other prompts
    words, words a sentence    of answers sampled at temperature 1 to other prompts, four each
    rating      of these answers by the judge, 1 to 10

Means over seeds (of training and sampling; the data are the same), with 95 % intervals of Student's t.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import math
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from scipy.stats import t

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "examples"), str(REPOSITORY)]

from builtin_judge.example_data import prompt_of  # noqa: E402
from builtin_judge.grammar import SCENES  # noqa: E402
from builtin_judge.lexicon import lexicon  # noqa: E402
from builtin_policy.asking import answer, gather_in_parts, rate  # noqa: E402

from rlaif.backends.builtin import BuiltinBackend  # noqa: E402
from rlaif.backends.hf import HfBackend  # noqa: E402
from rlaif.cli.main import main as rlaif  # noqa: E402
from rlaif.records import Turn  # noqa: E402

SAMPLES = 4
FIGURES = ("accuracy", "change", "words", "words a sentence", "rating")


def words_of(text: str) -> float:
    """How many words a text has."""
    return float(len(text.split()))


def sentence_words_of(text: str) -> float:
    """Words a sentence, mean; 0 for an empty text."""
    sentences = [one for one in re.split(r"[.!?]+", text) if one.strip()]
    return words_of(text) / len(sentences) if sentences else 0.0


AUX = {"words": words_of, "words a sentence": sentence_words_of}


def draw_prompts(count: int, seed: str) -> list[Any]:
    """Different prompts of the grammar that the policy was not made from."""
    rng, words = random.Random(seed), lexicon("test")
    found: dict[str, Any] = {}
    while len(found) < count:
        prompt = prompt_of(SCENES["ask"](rng, words, "short"))
        found.setdefault(json.dumps(prompt), prompt)
    return list(found.values())


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def run(*words: object) -> None:
    """A command of rlaif; refuses to go on where it fails."""
    if code := rlaif([*map(str, words), "--quiet"]):
        raise SystemExit(f"rlaif {words[0]} ended with {code}")


def make_data(folder: Path, prompts: int) -> Path:
    """Labeled pairs with auxiliary rewards."""
    import pyarrow.parquet as pq

    drawn = [{"prompt": prompt} for prompt in draw_prompts(prompts, "hpo data")]
    run("generate", write_rows(folder / "prompts.jsonl", drawn), "-o", folder / "answers",
        "--samples", SAMPLES, "--max-tokens", 128, "--drop", "cut-off")  # fmt: skip
    run("label", folder / "answers" / "comparisons", "-o", folder / "labels")
    rows = list(
        itertools.chain.from_iterable(
            pq.read_table(shard).to_pylist() for shard in sorted((folder / "labels" / "data").glob("*.parquet"))
        )
    )
    kept = [
        {
            **{name: row[name] for name in ("id", "prompt", "response_a", "response_b", "prob_a")},
            "aux_rewards": {name: [of(row["response_a"]), of(row["response_b"])] for name, of in AUX.items()},
        }
        for row in rows
    ]
    return write_rows(folder / "pairs.jsonl", kept)


async def sampled(folder: Path, seed: int, prompts: Sequence[Any]) -> dict[str, float]:
    """Figures of what a trained policy writes."""
    policy, judge = HfBackend(str(folder), device="cpu"), BuiltinBackend("tiny")
    turns = [
        (Turn("user", one),) if isinstance(one, str) else tuple(Turn(each["role"], each["content"]) for each in one)
        for one in prompts
        for _ in range(SAMPLES)
    ]
    texts = await gather_in_parts(answer(policy, each, 1000 * seed + place) for place, each in enumerate(turns))
    ratings = await gather_in_parts(rate(judge, each, text) for each, text in zip(turns, texts, strict=True))
    await policy.aclose()
    await judge.aclose()
    return {name: float(np.mean([of(text) for text in texts])) for name, of in AUX.items()} | {
        "rating": float(np.mean(ratings))
    }


def measure(
    folder: Path, data: Path, aux: str, coef: float, seed: int, options: argparse.Namespace
) -> dict[str, float]:
    """One training run and what came of it."""
    out = folder / f"{aux}-{coef}-{seed}"
    run("train", "hpo", "--model", "builtin:tiny-policy", "--data", data, "-o", out, "--aux", f"{aux}=-1",
        "--aux-coef", coef, "--learning-rate", options.learning_rate, "--epochs", options.epochs, "--batch-size", 32,
        "--held-out", 0.5, "--seed", seed, "--device", "cpu", "--reference-cache", folder / "cache")  # fmt: skip
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    accuracy = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line][-1]
    return {"accuracy": accuracy} | asyncio.run(sampled(out, seed, draw_prompts(options.sampled, "hpo sampling")))


def figure(values: Sequence[float]) -> str:
    """A mean with its interval; of one value, the value."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return f"{mean:.3g}"
    half = float(t.ppf(0.975, len(values) - 1)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{mean:.3g} ± {half:.2g}"


def main() -> None:
    """Read the flags, train and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--sampled", type=int, default=40, help="other prompts, for what a policy writes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--coefs", type=float, nargs="+", help="0 first", default=[0.0, 0.003, 0.01])
    parser.add_argument("--aux", nargs="+", default=list(AUX), choices=list(AUX))
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--epochs", type=float, default=3.0)
    options = parser.parse_args()
    if options.coefs[0] != 0.0:
        parser.error("--coefs begins with 0, which the others are compared with")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = make_data(folder, options.prompts)
        print(f"{sum(1 for _ in data.open(encoding='utf-8')):,} pairs of {options.prompts} prompts\n")
        of_kto: list[dict[str, float]] = []
        for aux in options.aux:
            print(f"Fewer {aux} are better:\n\n| lambda | {' | '.join(FIGURES)} |\n|{'---|' * (len(FIGURES) + 1)}")
            for coef in options.coefs:
                found = of_kto if coef == 0.0 else []
                found = found or [measure(folder, data, aux, coef, seed, options) for seed in range(options.seeds)]
                of_kto = found if coef == 0.0 else of_kto
                for one, alone in zip(found, of_kto, strict=True):
                    one["change"] = one["accuracy"] - alone["accuracy"]
                cells = (figure([each[name] for each in found]) for name in FIGURES)
                print(f"| {coef:g} | {' | '.join(cells)} |", flush=True)
            print()
    print(f"{time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
