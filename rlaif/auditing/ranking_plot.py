"""The plot of a ranking: each policy's strength, or mean rating, with its interval."""

from __future__ import annotations

import warnings
from pathlib import Path

from rlaif.auditing.evidence import short_name
from rlaif.auditing.plots import ON_WHITE, framed, save_png
from rlaif.auditing.ranking_results import Ranking
from rlaif.auditing.results import Figure

MOST_SHOWN = 40
"""Policies that are drawn, the best."""

_LONGEST = 32
"""Characters of a name."""

_ROW = 0.28
"""Inches of a policy."""


def save_ranking_plot(ranking: Ranking, path: Path) -> bool:
    """Draw a ranking as PNG.

    Args:
        ranking: What is drawn.
        path: To be written.

    Returns:
        Whether there was anything to draw.
    """
    figures = [(each.name, each.rating or each.strength) for each in ranking.standings[:MOST_SHOWN]]
    drawn = [(name, figure) for name, figure in figures if figure is not None and figure.value is not None]
    if len(drawn) < 2:
        return False
    palette = ON_WHITE
    drawing, axes = framed(palette)
    width, height = drawing.get_size_inches()
    drawing.set_size_inches(width + 1.0, max(height - 1.0, 0.8 + _ROW * len(drawn)))
    heights = list(range(len(drawn), 0, -1))
    for place, (_, figure) in zip(heights, drawn, strict=True):
        low, value, high = _ends(figure)
        axes.plot([low, high], [place, place], color=palette.series, linewidth=2, solid_capstyle="butt")
        axes.plot([value], [place], color=palette.series, marker="o", markersize=6, linestyle="none")
    axes.set_yticks(heights, [_label(name) for name, _ in drawn])
    for label in axes.get_yticklabels():
        label.set_parse_math(False)  # a name with $ is no formula
    axes.set_ylim(0.4, len(drawn) + 0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    is_rated = ranking.standings[0].rating is not None
    if not is_rated:
        axes.axvline(0, color=palette.faint, linewidth=1)
    axes.set_xlabel("Mean rating, with 95 % interval" if is_rated else "Strength (log scale), with 95 % interval")
    with warnings.catch_warnings():
        # A name in a script that the font has not is drawn as boxes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        save_png(drawing, path)
    return True


def _label(name: str) -> str:
    shown = short_name(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _ends(figure: Figure) -> tuple[float, float, float]:
    """The value between the ends of its interval; the value itself where there is none."""
    value = figure.value
    assert value is not None
    return (value if figure.low is None else figure.low, value, value if figure.high is None else figure.high)
