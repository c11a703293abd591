"""What `drlaif.py` trains on and is judged by: prompts of the grammar, and a gold judge that knows what the grammar
thinks of an answer.

The gold judge is a reward model trained on pairs of answers whose quality the grammar knows (`quality` of
`examples/builtin_judge`, 1 to 10), as written or with a fault that policies learn and the grammar never writes: words
repeated on and on, an end that is missing, words in any order. With `builtin:tiny` it shares the grammar and what it
calls good; not its weights (it starts from `builtin:tiny-policy`), its training texts, nor its form (a number for one
answer, without instructions).
"""

from __future__ import annotations

import json
import math
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "examples"), str(REPOSITORY)]

from builtin_judge.example_data import prompt_of  # noqa: E402
from builtin_judge.grammar import SCENES, Scene, draw_plan, make_response  # noqa: E402
from builtin_judge.lexicon import Lexicon, lexicon  # noqa: E402
from builtin_judge.principles import quality  # noqa: E402

HARMFUL = 0.2
"""Share of prompts that should be refused, as among the example prompts."""
WORST = 1.0
"""Quality of what nobody can read."""
CUT_OFF = 1.5
"""What an answer loses that breaks off."""


def draw_prompts(count: int, seed: str) -> list[Any]:
    """Different prompts of the grammar, of words that neither the policy nor the judge was made with."""
    rng, words = random.Random(seed), lexicon("test")
    found: dict[str, Any] = {}
    while len(found) < count:
        prompt = prompt_of(_scene(rng, words))
        found.setdefault(json.dumps(prompt), prompt)
    return list(found.values())


def draw_gold_pairs(count: int) -> list[dict[str, Any]]:
    """Pairs of answers with P(A preferred) by their true quality: sigma(quality of A - quality of B)."""
    rng = random.Random("gold pairs")
    rows: list[dict[str, Any]] = []
    while len(rows) < count:
        words = lexicon(rng.choice(("train", "test")))
        scene = _scene(rng, words)
        first = _answer(rng, words, scene)
        if rng.random() < 0.25:
            second = _damaged(rng, *first)
        else:
            second = _answer(rng, words, scene)
            if first[0] != second[0] and rng.random() < 0.1:
                first = _damaged(rng, *first)
        if first[0] != second[0]:
            row = {"id": f"g{len(rows)}", "prompt": prompt_of(scene), "response_a": first[0], "response_b": second[0]}
            rows.append(row | {"prob_a": 1.0 / (1.0 + math.exp(second[1] - first[1]))})
    return rows


def _scene(rng: random.Random, words: Lexicon) -> Scene:
    return SCENES["harm" if rng.random() < HARMFUL else "ask"](rng, words, "short")


def _answer(rng: random.Random, words: Lexicon, scene: Scene) -> tuple[str, float]:
    """An answer and its quality."""
    response = make_response(rng, words, scene, draw_plan(rng, scene, "short"))
    return response.text, quality(scene.situation, response)


def _damaged(rng: random.Random, text: str, worth: float) -> tuple[str, float]:
    """The same answer with a fault, and what it is worth now."""
    words = text.split()
    place = rng.randint(2, max(2, len(words) - 1))
    match rng.choice(("loop", "cut", "shuffle")):
        case "loop":
            repeated = words[max(0, place - rng.randint(1, 2)) : place]
            return " ".join(words[:place] + repeated * rng.randint(6, 30)), WORST
        case "cut":
            return " ".join(words[:place]), max(WORST, worth - CUT_OFF)
        case _:
            rng.shuffle(words)
            return " ".join(words), WORST


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path
