"""The plots of an audit: drawn once, saved as PNG on white or put into the report as SVG in the page's own colours."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rlaif.auditing.page_svg import svg_for_page
from rlaif.auditing.results import Audit, Figure
from rlaif.auditing.wording import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


class Palette(NamedTuple):
    """Colours by what they are for."""

    ink: str
    faint: str
    series: str
    other: str


ON_WHITE = Palette("#1d2330", "#b9bec8", "#1f5fb8", "#b4500f")

# Colours that nobody would draw with: in the SVG they become CSS classes, which the page colours for light and dark.
_SENTINELS = Palette("#010203", "#010204", "#010205", "#010206")

_SIZE = (4.7, 3.4)
"""Inches: 338 by 245 points, so that text of 10.5 points is still legible at the width of a phone."""


@dataclass(frozen=True)
class Plot:
    """One plot, drawn when it is asked for.

    Attributes:
        name: Of its file.
        title: In words.
        caption: What it shows and how to read it, for those who see it and those who do not.
        draw: Onto axes, in a palette; None where the data cannot support it.
        why: Why there is nothing to draw.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Axes, Palette], None] | None = None
    why: str = ""


def plots(audit: Audit) -> tuple[Plot, ...]:
    """All plots, those without data too."""
    return (_reliability(audit), _coverage(audit), _length_gaps(audit), _first_slot(audit), _confusion(audit))


def save_plots(audit: Audit, folder: Path) -> list[Path]:
    """Write the plots that have data as PNG into an existing folder.

    Returns:
        Paths of the files written.
    """
    saved = []
    for plot in plots(audit):
        if plot.draw is not None:
            path = folder / f"{plot.name}.png"
            save_png(_drawing(plot, ON_WHITE), path)
            saved.append(path)
    return saved


def framed(palette: Palette) -> tuple[Drawing, Axes]:
    """An empty drawing and its axes, in the style of all our plots; it belongs to no window and no global state."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=_SIZE, layout="constrained")
    axes = drawing.add_subplot()
    axes.tick_params(colors=palette.ink, labelsize=10, length=3)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(palette.faint)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(palette.ink)
        label.set_fontsize(10.5)
    return drawing, axes


def save_png(drawing: Drawing, path: Path) -> None:
    """Write a drawing on white; the same drawing makes the same bytes."""
    drawing.savefig(path, format="png", dpi=200, facecolor="white", metadata={"Software": None})


def plot_svg(plot: Plot) -> str:
    """The plot as an `<svg>` element to put into a page, whose element NAME-caption describes it.

    Text stays text, colours are the classes ink, faint, series and other (`fill-ink`, `stroke-ink` ...), ids begin with
    the plot's name, and there is no style, link or date in it.

    Raises:
        ValueError: The plot has no data.
    """
    import matplotlib

    drawing = _drawing(plot, _SENTINELS)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": plot.name}):
        drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    purposes = {getattr(_SENTINELS, name): name for name in Palette._fields}
    return svg_for_page(buffer.getvalue(), plot.name, plot.title, purposes)


def _drawing(plot: Plot, palette: Palette) -> Drawing:
    if plot.draw is None:
        raise ValueError(f"the plot {plot.name} has no data: {plot.why}")
    drawing, axes = framed(palette)
    plot.draw(axes, palette)
    return drawing


# ---------------------------------------------------------------------------------------------------------------------


def _reliability(audit: Audit) -> Plot:
    bins = [each for each in audit.reliability if each.human_a.value is not None]
    title = "Are the judge's probabilities right?"
    if not bins:
        return Plot("reliability", title, "", why=_why(audit, "ece", "no row has a probability and a human label"))

    def draw(axes: Axes, palette: Palette) -> None:
        axes.plot([0, 1], [0, 1], color=palette.ink, linewidth=1, linestyle=(0, (4, 3)))
        _points(axes, palette, [each.prob_a for each in bins], [each.human_a for each in bins], joined=True)
        _percent_axis(axes, "x", 0.0, 1.0)
        _percent_axis(axes, "y", 0.0, 1.0)
        axes.set_xlabel("The judge's probability that A is better")
        axes.set_ylabel("People prefer A")

    last, first = bins[-1], bins[0]
    least, most = (pick(each.human_a.n for each in bins) for pick in (min, max))
    # Rows of one probability stay together: verdicts make points of very different sizes.
    size = f"about {_count(most)}" if most <= 1.5 * least else f"{_count(least)} to {_count(most)}"
    caption = (
        f"Each point holds {size} rows of similar probability; the line through it is the "
        "95 % interval. On the dashed diagonal, people prefer A as often as the judge says. "
        f"Where the judge says {_percent(last.prob_a)} on average, people prefer A in {_percent(last.human_a.value)}; "
        f"where it says {_percent(first.prob_a)}, in {_percent(first.human_a.value)}. "
        "A curve flatter than the diagonal means a judge that is too sure of itself."
    )
    return Plot("reliability", title, caption, draw)


def _coverage(audit: Audit) -> Plot:
    points = sorted(
        (each for each in audit.coverage if each.agreement.value is not None), key=lambda each: each.share_kept
    )
    title = "What if only the surest labels are kept?"
    if not points:
        return Plot("coverage", title, "", why=_why(audit, "agreement", "no row that both judge and people decided"))
    # Like the agreement, without ties: the human ceiling counts them, and is no line to compare this curve with.
    people = _found(audit, "human_pairwise_agreement_without_ties")

    def draw(axes: Axes, palette: Palette) -> None:
        shares = [each.share_kept for each in points]
        values = [_value(each.agreement) for each in points]
        lows, highs = zip(*(_interval(each.agreement) for each in points), strict=True)
        axes.fill_between(shares, lows, highs, color=palette.series, alpha=0.18, linewidth=0)
        axes.plot(shares, values, color=palette.series, linewidth=2, marker="o", markersize=4)
        least = min(*lows, 0.5)
        if people is not None:
            axes.axhline(people, color=palette.other, linewidth=1.5, linestyle=(0, (4, 3)))
            axes.annotate(
                "two people", (1.0, people), xytext=(0, 4), textcoords="offset points", ha="right", va="bottom",
                color=palette.other, fontsize=10,
            )  # fmt: skip
            least = min(least, people)
        _percent_axis(axes, "y", math.floor(least * 10) / 10, 1.0)
        _percent_axis(axes, "x", 0.0, 1.0)
        axes.set_xlabel("Share of labels kept, the most confident first")
        axes.set_ylabel("Agreement with people")

    few, every = points[0], points[-1]
    caption = (
        f"With all labels the judge agrees with people in {_percent(every.agreement.value)}; with only the most "
        f"confident {100 * few.share_kept:.0f} % of them, in {_percent(few.agreement.value)}. A line that rises to the "
        "left means that dropping unsure labels buys agreement; a flat one, that the judge's confidence says little. "
        "The band is the 95 % interval."
    )
    if people is not None:
        caption += f" Two people agree in {_percent(people)} (dashed), where neither calls a tie."
    return Plot("coverage", title, caption, draw)


def _length_gaps(audit: Audit) -> Plot:
    bins = [each for each in audit.length_gaps if each.agreement.value is not None]
    title = "Does length decide?"
    if not bins:
        why = _why(audit, "length_bias.difference", "no row with unequal lengths that both decided")
        return Plot("length_gap", title, "", why=why)
    overall = _found(audit, "agreement")

    def draw(axes: Axes, palette: Palette) -> None:
        if overall is not None:
            axes.axhline(overall, color=palette.ink, linewidth=1, linestyle=(0, (4, 3)))
        axes.axvline(0, color=palette.faint, linewidth=1)
        _points(axes, palette, [each.gap for each in bins], [each.agreement for each in bins], joined=True)
        _percent_axis(axes, "y", 0.0, 1.0)
        _ratio_axis(axes, [each.gap for each in bins])
        axes.set_xlabel("Length of the preferred response / the other")
        axes.set_ylabel("Agreement with people")

    first, last = bins[0], bins[-1]
    caption = (
        "Left: people prefer the shorter response; right: the longer. The dashed line is the agreement over all rows. "
        f"Where the response that people prefer is about {_times(first.gap)} as long as the other, the judge agrees in "
        f"{_percent(first.agreement.value)}; where it is {_times(last.gap)} as long, in "
        f"{_percent(last.agreement.value)}. A line that climbs to the right means that the judge goes by length where "
        "people do not, or that the rarer kind of human label is often a slip."
    )
    return Plot("length_gap", title, caption, draw)


def _first_slot(audit: Audit) -> Plot:
    named = [("A shown first", "ab"), ("B shown first", "ba")]
    rows: list[tuple[str, Figure]] = []
    for label, order in named:
        figure = audit.orders.get(order, {}).get("first_slot_rate")
        if isinstance(figure, Figure) and figure.value is not None:
            rows.append((label, figure))
    both = audit.figures.get("first_position_rate")
    if len(rows) == len(named) and isinstance(both, Figure) and both.value is not None:
        rows.append(("both orders", both))
    title = "Does the place on the page decide?"
    if not rows:
        why = _why(audit, "first_position_rate", "the judge was not asked in a known order")
        return Plot("first_slot", title, "", why=why)

    def draw(axes: Axes, palette: Palette) -> None:
        heights = list(range(len(rows), 0, -1))
        axes.axvline(0.5, color=palette.ink, linewidth=1, linestyle=(0, (4, 3)))
        for height, (_, figure) in zip(heights, rows, strict=True):
            low, high = _interval(figure)
            axes.plot([low, high], [height, height], color=palette.series, linewidth=2.5, solid_capstyle="butt")
            axes.plot([_value(figure)], [height], color=palette.series, marker="o", markersize=8, linestyle="none")
            axes.annotate(
                _percent(figure.value), (_value(figure), height), xytext=(0, 9), textcoords="offset points",
                ha="center", va="bottom", color=palette.ink, fontsize=10,
            )  # fmt: skip
        axes.set_yticks(heights, [label for label, _ in rows])
        axes.set_ylim(0.4, len(rows) + 0.8)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        _percent_axis(axes, "x", 0.0, 1.0)
        axes.set_xlabel("The response in the first slot is preferred")

    told = "; ".join(f"{label}: {_percent(figure.value)}" for label, figure in rows)
    caption = (
        f"How often the judge prefers the response that it is shown first. {told}. Without position bias both orders "
        "together give 50 % (dashed); one order alone may differ from it, where A or B is simply better more often. "
        "The bar is the 95 % interval."
    )
    return Plot("first_slot", title, caption, draw)


def _confusion(audit: Audit) -> Plot:
    cells = audit.confusion
    title = "Where do the verdicts go?"
    if not cells or not sum(map(sum, cells)):
        return Plot("confusion", title, "", why="no row has both a human label and a verdict of the judge")
    names = ("A", "tie", "B")
    totals = [sum(row) for row in cells]
    shares = [[cell / total if total else 0.0 for cell in row] for row, total in zip(cells, totals, strict=True)]

    def draw(axes: Axes, palette: Palette) -> None:
        for down, row in enumerate(shares):
            for across, share in enumerate(row):
                # At most 0.45: text in ink stays legible on it, on a light page and on a dark one.
                axes.fill(
                    [across - 0.48, across + 0.48, across + 0.48, across - 0.48],
                    [down - 0.48, down - 0.48, down + 0.48, down + 0.48],
                    color=palette.series, alpha=0.04 + 0.41 * share, linewidth=0,
                )  # fmt: skip
                # One text a line: of several lines each would be placed by the width of matplotlib's own font.
                lines = (_percent(share) if totals[down] else "–", _count(cells[down][across]))
                for text, above in zip(lines, (7, -7), strict=True):
                    axes.annotate(
                        text, (across, down), xytext=(0, above), textcoords="offset points", ha="center", va="center",
                        color=palette.ink, fontsize=10.5,
                    )  # fmt: skip
        axes.set_xticks(range(3), names)
        axes.set_yticks(range(3), names)
        axes.set_xlim(-0.5, 2.5)
        axes.set_ylim(2.5, -0.5)
        axes.tick_params(length=0, labelsize=10.5)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.set_xlabel("The judge says")
        axes.set_ylabel("People say")

    parts = [
        f"{_percent(shares[index][index])} of the {_count(totals[index])} rows where people "
        + ("call it a tie" if name == "tie" else f"prefer {name}")
        for index, name in enumerate(names)
        if totals[index]
    ]
    caption = (
        "A row of the square holds the rows that people answered alike, split by what the judge says; the per cents of "
        f"a row add up to 100. The judge says the same as people in {'; in '.join(parts)}."
    )
    return Plot("confusion", title, caption, draw)


# ---------------------------------------------------------------------------------------------------------------------


def _points(
    axes: Axes, palette: Palette, across: Sequence[float], figures: Sequence[Figure], *, joined: bool = False
) -> None:
    if joined:
        values = [_value(figure) for figure in figures]
        axes.plot(across, values, color=palette.series, linewidth=1.2, alpha=0.6)
    for x, figure in zip(across, figures, strict=True):
        low, high = _interval(figure)
        axes.plot([x, x], [low, high], color=palette.series, linewidth=1.6, solid_capstyle="butt")
        axes.plot([x], [_value(figure)], color=palette.series, marker="o", markersize=5, linestyle="none")


def _percent_axis(axes: Axes, which: str, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlim if which == "x" else axes.set_ylim)(low - 0.02 * (high - low), high + 0.02 * (high - low))
    axis.set_major_locator(MultipleLocator(0.25 if high - low > 0.6 else 0.1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))


def _ratio_axis(axes: Axes, gaps: Sequence[float]) -> None:
    """Ticks at doublings: the axis is ln(length / length)."""
    most = max(1.0, *(math.ceil(abs(gap) / math.log(2)) for gap in gaps))
    step = max(1, math.ceil(most / 3))
    powers = [step * number for number in range(-math.ceil(most / step), math.ceil(most / step) + 1)]
    axes.set_xticks([power * math.log(2) for power in powers], [_power(power) for power in powers])
    axes.set_xlim(-most * math.log(2) * 1.05, most * math.log(2) * 1.05)


def _power(power: int) -> str:
    return f"{2**power}×" if power >= 0 else f"1/{2**-power}×"


def _times(gap: float) -> str:
    ratio = math.exp(gap)
    return f"{ratio:.1f} times" if ratio >= 0.095 else f"{ratio:.2f} times"


def _value(figure: Figure) -> float:
    assert figure.value is not None
    return figure.value


def _interval(figure: Figure) -> tuple[float, float]:
    """The interval; the value itself where there is none."""
    value = _value(figure)
    return (value if figure.low is None else figure.low, value if figure.high is None else figure.high)


def _found(audit: Audit, name: str) -> float | None:
    try:
        return audit.figure(name).value
    except KeyError:
        return None


def _why(audit: Audit, name: str, otherwise: str) -> str:
    try:
        return audit.figure(name).why or otherwise
    except KeyError:
        return otherwise


def _percent(value: float | None) -> str:
    return "–" if value is None else written(value, "share")


def _count(value: float) -> str:
    return f"{value:,.0f}" if abs(value - round(value)) < 0.05 else f"{value:,.1f}"
