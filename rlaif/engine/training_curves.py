"""The curves of a training run as PNG: loss, accuracy, margins, rewards, step by step, on the rows trained on and on
those held out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlaif.auditing.plots import ON_WHITE, framed, save_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FOLDER = "curves"

_SMOOTHED_FROM = 60
"""Points from which single steps become a faint line behind their running mean."""

_MARKED_UP_TO = 40
"""Points that each get a mark."""

_LOSS_UNITS = {
    "sft": "nats per token",
    "rm": "nats per row",
    "ipo": "squared distance from the goal",
    "kto": "per response",
    "hpo": "preference and auxiliary terms",
    "rrhf": "per prompt",
}
"""What a method's loss is a mean of; the others': nats per comparison."""


@dataclass(frozen=True)
class Curve:
    """One plot.

    Attributes:
        name: Of its file.
        axis: What the vertical axis says.
        lines: Name in the log -> what it is called; for a single one "".
        is_share: Whether the values are shares, shown in per cent.
        is_noisy: Whether each step's figure is of few rows, so that many steps need smoothing.
        has_coin: Of a share, whether a half is what chance alone would give, and is marked.
    """

    name: str
    axis: str
    lines: Mapping[str, str]
    is_share: bool = False
    is_noisy: bool = True
    has_coin: bool = True


_COLOURS = (ON_WHITE.series, ON_WHITE.other, ON_WHITE.ink)
"""Of the lines of a plot."""


class _Points(NamedTuple):
    steps: list[float]
    values: list[float]


def curves(method: str) -> tuple[Curve, ...]:
    """All plots that there can be of a method, such as "dpo"."""
    sides = ("preferred", "other") if method != "kto" else ("desirable", "undesirable")

    def both(name: str) -> Mapping[str, str]:
        return {f"{name}_better": f"{sides[0]} response", f"{name}_worse": f"{sides[1]} response"}

    reward = "Reward before the shift (log-odds)" if method == "rm" else "Implied reward"
    return (
        Curve("loss", f"Loss ({_LOSS_UNITS.get(method, 'nats per comparison')})", {"loss": ""}),
        Curve("accuracy", "Preferred response ranked first", {"accuracy": ""}, is_share=True),
        Curve("margin", f"Margin ({'log-odds' if method == 'rm' else 'implied reward'})", {"margin": ""}),
        Curve("rewards", reward, both("reward")),
        Curve("logprobs", "Log-probability of a response (nats)", both("logprob")),
        Curve("aux_loss", "Weighed negative log-likelihood (nats)", {"aux_loss": ""}),
        Curve("learning_rate", "Learning rate", {"learning_rate": ""}, is_noisy=False),
        Curve("gradient_norm", "Norm of the gradient", {"grad_norm": ""}),
    )


def plot_curves(
    log_history: Sequence[Mapping[str, float]],
    folder: Path,
    *,
    method: str = "",
    which: Sequence[Curve] | None = None,
) -> list[str]:
    """Draw what was logged.

    Args:
        log_history: Lines with "step" and figures by name; those on held-out rows begin with "eval_". A step that was
            logged twice, as after a resume, counts as it was the last time; what is not finite is left out.
        folder: Of the trained model; the files go into `curves/` in it.
        method: Of the training, for the words on the axes.
        which: The plots; None for those of offline training.

    Returns:
        Paths of the files, relative to `folder`, in a fixed order; only those with data.
    """
    written = []
    for curve in curves(method) if which is None else which:
        trained = {name: points for name in curve.lines if (points := _points(log_history, name)).steps}
        held_out = {name: points for name in curve.lines if (points := _points(log_history, f"eval_{name}")).steps}
        if not trained and not held_out:
            continue
        (folder / FOLDER).mkdir(parents=True, exist_ok=True)
        drawing, axes = framed(ON_WHITE)
        _draw(axes, curve, trained, held_out)
        save_png(drawing, folder / FOLDER / f"{curve.name}.png")
        written.append(f"{FOLDER}/{curve.name}.png")
    return written


def _points(log_history: Sequence[Mapping[str, float]], name: str) -> _Points:
    """Steps and values of a figure, in the order of the steps."""
    found = {
        float(entry["step"]): float(entry[name])
        for entry in log_history
        if "step" in entry and isinstance(entry.get(name), int | float) and math.isfinite(entry[name])
    }
    steps = sorted(found)
    return _Points(steps, [found[step] for step in steps])


def _draw(axes: Axes, curve: Curve, trained: Mapping[str, _Points], held_out: Mapping[str, _Points]) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    is_single = len(curve.lines) == 1
    for number, (name, called) in enumerate(curve.lines.items()):
        colour = _COLOURS[number]
        if name in trained:
            _draw_trained(axes, trained[name], colour, called or "training", is_noisy=curve.is_noisy)
        if name in held_out:
            label = "held-out prompts" if is_single else f"{called}, held out"
            axes.plot(
                *held_out[name], color=ON_WHITE.other if is_single else colour, linewidth=1.8, label=label,
                linestyle=(0, (4, 2)), marker="s" if number or is_single else "D", markersize=4,
            )  # fmt: skip
    if curve.is_share:
        if curve.has_coin:
            axes.axhline(0.5, color=ON_WHITE.faint, linewidth=1.2, linestyle=(0, (1, 2)), label="a coin")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axes.set_ylim(-0.03, 1.03)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.set_xlabel("Optimizer step")
    axes.set_ylabel(curve.axis)
    if len(axes.get_legend_handles_labels()[1]) > 1:
        axes.legend(frameon=False, fontsize=9, labelcolor=ON_WHITE.ink)


def _draw_trained(axes: Axes, points: _Points, colour: str, label: str, *, is_noisy: bool) -> None:
    """One line; of many noisy steps, their running mean in front of them."""
    if len(points.steps) < _SMOOTHED_FROM or not is_noisy:
        marker = "o" if len(points.steps) <= _MARKED_UP_TO else ""
        axes.plot(*points, color=colour, linewidth=1.6, marker=marker, markersize=3.5, label=label)
        return
    reach = max(2, len(points.values) // 30)
    smooth = [
        statistics.fmean(points.values[max(0, place - reach) : place + reach + 1])
        for place in range(len(points.values))
    ]
    axes.plot(*points, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(points.steps, smooth, color=colour, linewidth=1.8, label=f"{label} (running mean)")
