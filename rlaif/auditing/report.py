"""The report of an audit: one HTML page that needs nothing else, in which text from elsewhere stays text.

The page is ASCII throughout, other characters written as references and escapes: it reads the same under any encoding,
and Python keeps tens of megabytes of text at a byte a character.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from rlaif.auditing.disagreements import Disagreement, disagreements, entry_of, texts_of
from rlaif.auditing.plots import Plot, plot_svg, plots
from rlaif.auditing.results import Audit, Figure, Section
from rlaif.auditing.wording import named_figures, wording, written, written_interval
from rlaif.records import TIE_BAND, JudgedComparison
from rlaif.visibility import visible

MOST_ROWS = 20_000
"""Disagreements in a page, the worst first; a browser still opens it in seconds."""

MOST_WITHOUT_SCRIPT = 20

_HERE = Path(__file__).resolve().parent
_ROWS_GO_HERE = "<!--rows-->"  # no text from elsewhere can spell it: its "<" is escaped

_CARDS = (
    "agreement", "agreement_with_ties", "human_ceiling", "cohen_kappa", "swap_consistency", "first_position_rate",
    "length_bias.difference", "ece", "auc", "brier",
)  # fmt: skip
_MOST_CARDS = 8
_MAIN_SOURCE = {
    "judge": "judge", "input": "input", "human": "human labels from", "by": "split by", "cluster": "rows resampled by",
}  # fmt: skip
"""What the head of the page says of the source, and how it calls it; the rest stands at the end."""
_GROUP_COLUMNS = ("agreement", "cohen_kappa", "swap_consistency", "first_position_rate", "length_bias.difference")
_ORDER_NAMES = {"ab": "A shown first", "ba": "B shown first"}
_SEVERITIES = {"good": ("✓", "Good"), "note": ("i", "Note"), "warning": ("!", "Warning"), "serious": ("✕", "Serious")}
_SECTIONS = {
    "Agreement with people": (
        "agreement", "agreement_human_decided", "agreement_tie_half", "agreement_with_ties", "cohen_kappa", "gwet_ac1",
        "length_controlled_agreement", "style_controlled_agreement", "correct_in_both_orders",
        "mean_accuracy_two_orders",
    ),
    "People among themselves": (
        "human_ceiling", "human_pairwise_agreement", "human_pairwise_agreement_without_ties", "unanimous_rate",
        "krippendorff_alpha", "fleiss_kappa", "against_rest",
    ),
    "Position": (
        "swap_consistency", "swap_consistency_without_ties", "first_position_rate", "always_first_rate",
        "always_second_rate",
    ),
    "Length, formatting and words to the judge": (
        "length_bias", "length_effect", "human_prefers_longer", "style_bias", "style_effect", "addressed_bias",
        "addressed_effect",
    ),
    "The judge's probabilities": ("ece", "brier", "log_loss", "auc"),
}  # fmt: skip


class ShownFigure(NamedTuple):
    """A figure ready to be shown.

    Attributes:
        label, meaning: In words.
        value, interval: Written out; "" where there is none.
        n: Rows.
        why: Why there is no value, or no interval.
        gauge: Where value, interval and reference lie on a scale from 0 to 100; None where a scale says nothing.
    """

    label: str
    meaning: str
    value: str
    interval: str
    n: str
    why: str
    gauge: Mapping[str, float | None] | None


class ShownPlot(NamedTuple):
    """A plot ready to be shown; `svg` is None where `why` says what is missing."""

    name: str
    title: str
    caption: str
    svg: Markup | None
    why: str


def render_report(audit: Audit, rows: Sequence[JudgedComparison], *, title: str, tie_band: float = TIE_BAND) -> str:
    """The whole page.

    Args:
        audit: What was found.
        rows: What it was found on; those with a disagreement are shown, the worst first, at most `MOST_ROWS`.
        title: Of the page.
        tie_band: The one that the audit was made with.

    Returns:
        An HTML document of ASCII characters.
    """
    found = disagreements(rows, tie_band)
    shown = found[:MOST_ROWS]
    columns = list(dict.fromkeys(column for each in shown for column in each.row.groups))
    script, style = _asset("report.js"), _asset("report.css")
    page = _template().render(
        title=title,
        audit=audit,
        policy=_policy(script, style),
        script=Markup(script),
        style=Markup(style),
        severities=_SEVERITIES,
        order_names=_ORDER_NAMES,
        cards=[shown_figure(name, figure) for name, figure in _chosen(audit.figures, _CARDS)[:_MOST_CARDS]],
        plots=[_shown_plot(plot) for plot in plots(audit)],
        sections=_sections(audit.figures),
        by=_by(audit),
        orders={order: _shown(section) for order, section in audit.orders.items()},
        prediction_powered=_shown(audit.prediction_powered),
        against=_against(audit),
        panel=_panel(audit),
        calibration=_flat(audit.calibration or {}),
        source=_flat(audit.source),
        main_source=_flat(
            {label: audit.source[name] for name, label in _MAIN_SOURCE.items() if audit.source.get(name)}
        ),
        is_demonstration=audit.source.get("is_demonstration") is True,
        found=len(found),
        shown=len(shown),
        total=len(rows),
        has_people=any(row.comparison.human_label is not None for row in rows),
        columns=columns,
        index=Markup(_json(_index(shown, columns))),
        without_script=[texts_of(each, cut=2_000) | {"at": each} for each in shown[:MOST_WITHOUT_SCRIPT]],
        rows_go_here=Markup(_ROWS_GO_HERE),
    )
    head, tail = page.encode("ascii", "xmlcharrefreplace").decode("ascii").split(_ROWS_GO_HERE)
    # One row a line, so that the page's script can read single rows without parsing all of them.
    lines = ",\n".join(_json(texts_of(each)) for each in shown)
    return f"{head}[\n{lines}\n]{tail}"


def shown_figure(name: str, figure: Figure) -> ShownFigure:
    """A figure by its full name, ready to be shown."""
    words = wording(name)
    value = "" if figure.value is None else written(figure.value, words.scale)
    interval = written_interval(figure, words.scale)
    return ShownFigure(
        words.label, words.meaning, value, interval, f"{figure.n:,}", figure.why or "", _gauge(name, figure)
    )


def _gauge(name: str, figure: Figure) -> dict[str, float | None] | None:
    words = wording(name)
    low, high = (-0.5, 0.5) if words.scale == "points" else (0.0, 1.0)
    if figure.value is None or figure.low is None or figure.high is None:
        return None

    def place(value: float) -> float:
        return round(100 * min(1.0, max(0.0, (value - low) / (high - low))), 2)

    start, end = place(figure.low), place(figure.high)
    return {
        "start": start,
        "width": max(end - start, 0.5),  # a thinner bar could not be seen
        "value": place(figure.value),
        "reference": None if words.reference is None else place(words.reference),
    }


def _chosen(section: Section, names: Sequence[str]) -> list[tuple[str, Figure]]:
    """Those of these figures that the section has, in this order."""
    by_name = dict(named_figures(section))
    return [(name, by_name[name]) for name in names if name in by_name]


def _shown(section: Section) -> list[ShownFigure]:
    return [shown_figure(name, figure) for name, figure in named_figures(section)]


def _sections(figures: Section) -> dict[str, list[ShownFigure]]:
    """All figures under headings; what belongs under none of them comes last."""
    left = dict(figures)
    grouped = {
        heading: {name: left.pop(name) for name in names if name in left} for heading, names in _SECTIONS.items()
    }
    return {heading: _shown(section) for heading, section in {**grouped, "Other": left}.items() if section}


def _by(audit: Audit) -> dict[str, dict[str, Any]]:
    """For each column: labels of the figures, and each value with its figures (None where it has none)."""
    found = {}
    for column, values in audit.by.items():
        rows = {}
        for value, section in values.items():
            known = dict(named_figures(section))
            rows[value] = [shown_figure(name, known[name]) if name in known else None for name in _GROUP_COLUMNS]
        found[column] = {"labels": [wording(name).label for name in _GROUP_COLUMNS], "rows": rows}
    return found


def _against(audit: Audit) -> dict[str, Any] | None:
    if audit.against is None:
        return None
    other = audit.against
    named = {
        "This judge agrees with people": ("agreement", other.agreement),
        "The other judge agrees with people": ("agreement", other.other_agreement),
        "Difference": ("against_rest.difference", other.difference),
        "Both say the same": ("agreement", other.same_verdict),
    }
    return {
        "figures": [
            shown_figure(name, figure)._replace(label=label, meaning="") for label, (name, figure) in named.items()
        ],
        "result": other,
    }


def _panel(audit: Audit) -> dict[str, Any] | None:
    if audit.panel is None:
        return None
    panel = audit.panel
    together = {
        "effective_votes": panel.effective_votes,
        "mean_error_correlation": panel.mean_error_correlation,
        "kendall_w": panel.kendall_w,
    }
    return {
        "judges": {name: shown_figure("agreement", figure) for name, figure in panel.judges.items()},
        "together": [shown_figure(name, figure) for name, figure in together.items()],
        "pairs": [
            (each.first, each.second, shown_figure("mean_error_correlation", each.correlation))
            for each in panel.error_correlations
        ],
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested values as lines of name and text."""
    lines: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            lines += _flat(value, f"{name}: ")
        elif isinstance(value, float):
            lines.append((name, f"{value:.4g}"))
        elif value is not None:
            is_list = isinstance(value, list | tuple)
            lines.append((name, ", ".join(str(each) for each in value) if is_list else str(value)))
    return lines


def _shown_plot(plot: Plot) -> ShownPlot:
    svg = None if plot.draw is None else Markup(plot_svg(plot))  # our own drawing: no text from elsewhere is in it
    return ShownPlot(plot.name, plot.title, plot.caption, svg, plot.why)


def _index(shown: Sequence[Disagreement], columns: Sequence[str]) -> dict[str, Any]:
    """What the page's script sorts and filters by."""
    values = [list(dict.fromkeys(visible(each.row.groups.get(column, "")) for each in shown)) for column in columns]
    places = [{value: place for place, value in enumerate(known)} for known in values]
    rows = [
        [
            *entry_of(each),
            [where[visible(each.row.groups.get(column, ""))] for column, where in zip(columns, places, strict=True)],
        ]
        for each in shown
    ]
    return {"columns": [visible(column) for column in columns], "values": values, "rows": rows}


def _json(value: Any) -> str:
    """JSON in ASCII that may stand in a `<script>` element: nothing in it can end the element or begin a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _policy(script: str, style: str) -> str:
    """Content security policy: our one script and our one style sheet, and nothing else."""
    return (
        f"default-src 'none'; script-src {_source_hash(script)}; style-src {_source_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _source_hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def _asset(name: str) -> str:
    text = (_HERE / name).read_text(encoding="utf-8")
    assert text.isascii(), f"{name} must be ASCII: its hash is of what stands in the page"
    return text


_FLAG = re.compile(r"(--[a-z][a-z-]*)")


def _prose(text: str) -> Markup:
    """A sentence whose numbers keep their per cent signs, and whose flags stay whole, at the end of a line."""
    parts = _FLAG.split(visible(text).replace(" %", "\u00a0%"))
    whole = Markup('<span class="flag">{}</span>')
    return Markup("").join(whole.format(part) if at % 2 else part for at, part in enumerate(parts))


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = lambda value: visible(str(value))
    environment.filters["prose"] = _prose
    return environment.get_template("report.html.jinja")
