"""The plots of online training: what is drawn, and that their words are within the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif.engine import training_curves
from rlaif.engine.training_curves import plot_curves
from rlaif.online.curves import CURVES

NAMES = {name for curve in CURVES for name in curve.lines}


def test_every_axis_is_within_its_picture_and_a_coin_beside_what_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels: dict[str, Any] = {}
    coins: set[str] = set()

    def look(drawing: Any, path: Path) -> None:
        drawing.canvas.draw()
        (axes,) = drawing.axes
        coins.update(path.stem for line in axes.lines if line.get_label() == "a coin")
        labels[path.stem] = (axes.yaxis.label.get_window_extent(), drawing.bbox)

    monkeypatch.setattr(training_curves, "save_png", look)
    history = [{"step": float(step), **dict.fromkeys(NAMES, 0.1 * step)} for step in range(1, 4)]
    assert plot_curves(history, tmp_path, which=CURVES) == [f"curves/{curve.name}.png" for curve in CURVES]
    assert len(labels) == len(CURVES)
    outside = [name for name, (label, page) in labels.items() if label.y0 < page.y0 or label.y1 > page.y1]
    assert outside == []
    assert coins == {"win_rate", "reward_accuracy"}
