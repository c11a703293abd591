"""The example inputs in `examples/data/`: held-out comparisons and graded responses, the same every time."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from .grammar import Pair, Scene, draw_plan, make_comparison, make_response
from .lexicon import lexicon
from .principles import prefers, quality

COMPARISONS = 200
RESPONSES = 120


def write_examples(folder: Path) -> None:
    """Write comparisons.jsonl and responses.jsonl into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "comparisons.jsonl", example_comparisons())
    _write(folder / "responses.jsonl", example_responses())


def example_comparisons() -> list[dict[str, object]]:
    """Comparisons of the test split; `human_label` is what a helpful and harmless reader prefers."""
    rng, words = random.Random("example comparisons"), lexicon("test")
    rows: list[dict[str, object]] = []
    while len(rows) < COMPARISONS:
        pair = make_comparison(rng, words, "long" if len(rows) % 25 == 24 else "short")
        rows.append(
            {
                "id": f"example-{len(rows):03d}",
                "prompt": prompt_of(pair.scene),
                "response_a": pair.first.text,
                "response_b": pair.second.text,
                "human_label": label_of(pair),
            }
        )
    return rows


def example_responses() -> list[dict[str, object]]:
    """Single responses of the test split with their `quality`, 1 to 10; several to one prompt."""
    rng, words = random.Random("example responses"), lexicon("test")
    rows: list[dict[str, object]] = []
    while len(rows) < RESPONSES:
        scene = make_comparison(rng, words).scene
        for _ in range(4):
            response = make_response(rng, words, scene, draw_plan(rng, scene, "short"))
            rows.append(
                {
                    "id": f"response-{len(rows):03d}",
                    "prompt": prompt_of(scene),
                    "response": response.text,
                    "quality": round(quality(scene.situation, response), 2),
                }
            )
    return rows


def prompt_of(scene: Scene) -> str | list[Mapping[str, str]]:
    """A scene's prompt as a row holds it: text, or messages where there are several."""
    if len(scene.turns) == 1:
        return scene.turns[0][1]
    return [{"role": role, "content": text} for role, text in scene.turns]


def label_of(pair: Pair) -> str:
    """ "a", "b" or "tie" by the grammar's quality."""
    return {1.0: "a", 0.0: "b", 0.5: "tie"}[prefers("helpful", pair.scene.situation, pair.first, pair.second)]


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
