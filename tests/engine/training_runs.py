"""Training runs on made-up rows with a tiny random model: what the tests of training share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlaif.engine.training import TrainOutcome, train
from rlaif.engine.training_config import TRAIN_CONFIGS, ReferenceConfig, RowsConfig
from rlaif.engine.training_listening import SilentTrainingListener
from rlaif.train.config import CheckpointConfig, OptimizationConfig

GOOD, BAD = ("gladly", "yes", "of course", "sure thing"), ("no", "never", "go away", "not today, no")
FAST = {"batch_size": 4, "max_steps": 6, "learning_rate": 5e-3, "schedule": "constant", "warmup": 0.0}
SAVED_ONCE = CheckpointConfig(save_every=1000)


def pair_rows(count: int = 16, **more: Any) -> list[dict[str, Any]]:
    """Pairs of a good and a bad answer, either first; the labels say so, more or less surely."""
    rows = []
    for number in range(count):
        good, bad = GOOD[number % 4], BAD[number // 4 % 4]
        is_first = number % 3 != 0
        prob = (0.9, 0.75, 1.0)[number % 3]
        rows.append(
            {
                "id": f"r{number}",
                "prompt": f"Do {number}",
                "response_a": good if is_first else bad,
                "response_b": bad if is_first else good,
                "prob_a": prob if is_first else 1.0 - prob,
                **more,
            }
        )
    return rows


def aux_rows(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Pairs with how short their answers are."""
    return [{**row, "aux_rewards": {"brevity": [-len(row["response_a"]), -len(row["response_b"])]}} for row in rows]


def rated_rows(count: int = 12) -> list[dict[str, Any]]:
    """Two to four rated answers."""
    return [
        {
            "id": f"c{number}",
            "prompt": f"Do {number}",
            "responses": [GOOD[number % 4], BAD[number % 4], "maybe", "perhaps"][: 2 + number % 3],
            "ratings": [9.0, 1.5, 5.0, 4.0][: 2 + number % 3],
        }
        for number in range(count)
    ]


def feedback_rows(count: int = 12) -> list[dict[str, Any]]:
    """Single answers that were liked or not."""
    return [
        {"prompt": f"Do {number}", "response": (GOOD if number % 2 else BAD)[number % 4], "label": bool(number % 2)}
        for number in range(count)
    ]


def demonstration_rows(count: int = 12) -> list[dict[str, Any]]:
    return [{"prompt": f"Do {number}", "response": GOOD[number % 4]} for number in range(count)]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config_of(method: str, model: Path | str, data: Path | str, out: Path, **settings: Any) -> Any:
    """A config of few fast steps on the CPU; nothing is held out, and settings replace these."""
    optimization = OptimizationConfig(**{**FAST, **settings.pop("optimization", {})})
    values: dict[str, Any] = {
        "device": "cpu",
        "rows": RowsConfig(held_out=0.0),
        "checkpoints": SAVED_ONCE,
        "optimization": optimization,
    }
    kind = TRAIN_CONFIGS[method]
    if issubclass(kind, ReferenceConfig):
        values["reference_cache"] = str(out.parent / "reference cache")
    return kind(model=str(model), data=str(data), out=str(out), **{**values, **settings})


def run(method: str, model: Path | str, data: Path | str, out: Path, **settings: Any) -> TrainOutcome:
    """Train; a listener may be among the settings."""
    listener = settings.pop("listener", None)
    return train(method, config_of(method, model, data, out, **settings), listener, command="rlaif train")


def metrics(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in metrics(out) if "loss" in line]


def run_json(out: Path) -> dict[str, Any]:
    known: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return known


class StopsAfter(SilentTrainingListener):
    """Asks to stop after a step."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.is_stopping = False

    def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
        self.is_stopping = step >= self._step
