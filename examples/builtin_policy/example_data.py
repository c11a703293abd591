"""The example prompts of `examples/data/prompts.jsonl`: held-out questions and harmful requests, always the same."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from pathlib import Path

from builtin_judge.example_data import prompt_of
from builtin_judge.grammar import SCENES
from builtin_judge.lexicon import lexicon

PROMPTS = 60
HARMFUL_EVERY = 5


def write_examples(folder: Path) -> None:
    """Write prompts.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in example_prompts())
    (folder / "prompts.jsonl").write_text(text, encoding="utf-8")


def example_prompts() -> list[Mapping[str, object]]:
    """Prompts of the test split, all different; every fifth should be refused."""
    rng, words = random.Random("example prompts"), lexicon("test")
    rows: list[Mapping[str, object]] = []
    seen: set[str] = set()
    while len(rows) < PROMPTS:
        kind = "harm" if len(rows) % HARMFUL_EVERY == HARMFUL_EVERY - 1 else "ask"
        scene = SCENES[kind](rng, words, "short")
        if scene.turns[-1][1] in seen:
            continue
        seen.add(scene.turns[-1][1])
        rows.append({"id": f"prompt-{len(rows):03d}", "prompt": prompt_of(scene)})
    return rows
