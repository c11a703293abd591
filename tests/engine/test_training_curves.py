"""Curves of a run: which files there are, and what is in them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from rlaif.engine import training_curves
from rlaif.engine.training_config import TRAIN_CONFIGS
from rlaif.engine.training_curves import curves, plot_curves

PNG = b"\x89PNG\r\n\x1a\n"


def history(steps: int = 3) -> list[dict[str, float]]:
    trained = [
        {"step": step, "loss": 0.7 - 0.01 * step, "accuracy": 0.5, "learning_rate": 1e-6}
        for step in range(1, steps + 1)
    ]
    return [*trained, {"step": steps, "eval_loss": 0.65}]


def test_only_what_was_logged_is_drawn(tmp_path: Path) -> None:
    names = plot_curves(history(), tmp_path, method="dpo")
    assert names == ["curves/loss.png", "curves/accuracy.png", "curves/learning_rate.png"]
    assert all((tmp_path / name).read_bytes().startswith(PNG) for name in names)
    assert sorted(path.name for path in (tmp_path / "curves").iterdir()) == sorted(name[7:] for name in names)


def test_nothing_logged_draws_nothing(tmp_path: Path) -> None:
    assert plot_curves([], tmp_path) == []
    assert plot_curves([{"step": 1, "train_runtime": 3.0}, {"loss": 1.0}], tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Sequence[Mapping[str, float]], method: str = "dpo"
) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """File name -> line -> points, as they were drawn."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def keep(drawing: object, path: Path) -> None:
        (axes,) = drawing.axes  # type: ignore[attr-defined]
        assert axes.get_xlabel() == "Optimizer step"
        assert axes.get_ylabel()
        found[path.stem] = {
            str(line.get_label()): [(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines
        }

    monkeypatch.setattr(training_curves, "save_png", keep)
    plot_curves(log, tmp_path, method=method)
    return found


def test_what_is_not_finite_is_left_out_and_a_step_counts_as_it_was_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = [
        {"step": 2, "loss": 9.0},
        {"step": 1, "loss": 0.7},
        {"step": 3, "loss": math.nan},
        {"step": 2, "loss": 0.6},  # the run was resumed
        {"step": 0, "eval_loss": 0.75},
    ]
    lines = drawn(monkeypatch, tmp_path, log)["loss"]
    assert lines == {"training": [(1, 0.7), (2, 0.6)], "held-out prompts": [(0, 0.75)]}


def test_many_steps_are_smoothed_without_a_shift(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = [{"step": step, "loss": 5.0 + (-1) ** step, "learning_rate": 0.1} for step in range(1, 301)]
    found = drawn(monkeypatch, tmp_path, log)
    smooth = found["loss"]["training (running mean)"]
    assert len(smooth) == 300
    assert all(abs(value - 5.0) < 0.2 for _, value in smooth)
    assert found["learning_rate"].keys() == {"training"}  # no noise there


def test_both_responses_stand_in_one_plot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    log = [{"step": 1, "reward_better": 0.1, "reward_worse": -0.1, "eval_reward_better": 0.2}]
    lines = drawn(monkeypatch, tmp_path, log)["rewards"]
    assert lines == {
        "preferred response": [(1, 0.1)],
        "preferred response, held out": [(1, 0.2)],
        "other response": [(1, -0.1)],
    }
    assert "desirable response" in drawn(monkeypatch, tmp_path, log, "kto")["rewards"]


@pytest.mark.parametrize("method", TRAIN_CONFIGS)
def test_the_loss_says_what_it_is_a_mean_of(method: str) -> None:
    axis = next(curve.axis for curve in curves(method) if curve.name == "loss")
    assert axis.startswith("Loss (")
