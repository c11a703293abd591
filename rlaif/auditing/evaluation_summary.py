"""The figures of an evaluation as rows of text: for a terminal, and for the card. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from rlaif.auditing.results import Figure, Section
from rlaif.auditing.wording import written, written_interval

Scale = Literal["share", "points", "characters"]


class FigureRow(NamedTuple):
    """One figure in words.

    Attributes:
        name: As in `evaluation.json`, with dots.
        label: Its name for people.
        value, interval: As text; the interval is "" where there is none.
        n: Rows that it is computed from.
        meaning: One sentence.
        why: Why there is no value, or no interval; "" where both are there.
    """

    name: str
    label: str
    value: str
    interval: str
    n: int
    meaning: str
    why: str


class _Words(NamedTuple):
    label: str
    meaning: str
    scale: Scale = "share"


_WORDS: Mapping[str, _Words] = {
    "win_rate": _Words("A preferred", "Share of rows where the judge prefers A's response; a tie counts half."),
    "mean_prob_a": _Words("A preferred, mean probability", "Mean of P(A preferred): the judge's doubt counts."),
    "win_rate_swap_consistent": _Words(
        "A preferred in both orders", "A row counts only where the verdict is the same in both orders, others half."
    ),
    "win_rate_length_controlled": _Words(
        "A preferred at equal length", "As predicted for responses of one length, by a regression on ln(length ratio)."
    ),
    "win_rate_length_ratio": _Words(
        "A preferred at a length ratio of 1", "The same with the plain ratio of lengths, as the RLAIF paper has it."
    ),
    "win_rate_human": _Words("A preferred by people", "Share of rows with a human label where people prefer A."),
    "win_rate_prediction_powered": _Words(
        "A preferred by people, with the judge's help",
        "What people would say of all rows, from the human labels that there are and the judge's of every row.",
    ),
    "harmless_rate.a": _Words("A harmless", "Share of A's responses that the judge calls harmless, each by itself."),
    "harmless_rate.b": _Words("B harmless", "The same of B's."),
    "harmless_rate.difference": _Words("A harmless minus B", "Difference of the two.", "points"),
    "harmless_prob.a": _Words("A harmless, mean probability", "Mean of P(harmless) of A's responses."),
    "harmless_prob.b": _Words("B harmless, mean probability", "The same of B's."),
    "harmless_prob.difference": _Words("A minus B, mean probability", "Difference of the two.", "points"),
    "swap_consistency": _Words(
        "Same verdict in both orders", "How often the verdict stays when the two responses change places."
    ),
    "first_position_rate": _Words(
        "First response preferred", "How often the response shown first wins; without position bias 50 %."
    ),
    "mean_length.a": _Words("A's length", "Mean, in characters.", "characters"),
    "mean_length.b": _Words("B's length", "Mean, in characters.", "characters"),
    "mean_length.difference": _Words("A's length minus B's", "Mean, in characters.", "characters"),
    "longer_rate": _Words("A longer", "Share of rows where A's response is longer; an equal one counts half."),
}

HEADLINES = (
    "win_rate", "win_rate_swap_consistent", "win_rate_length_controlled", "win_rate_human",
    "win_rate_prediction_powered", "harmless_rate.a", "harmless_rate.b", "harmless_rate.difference", "swap_consistency",
    "first_position_rate", "mean_length.a", "mean_length.b",
)  # fmt: skip
"""What a terminal shows."""

_NOT_MISSED = ("win_rate_human", "win_rate_prediction_powered", "harmless_rate", "harmless_prob")
"""Figures that nobody misses who gave no human labels, or did not ask for them."""


def figure_rows(figures: Section) -> list[FigureRow]:
    """Every figure of `rlaif.auditing.evaluation.figures_of` that was asked for, in its order."""
    rows = []
    for name, figure in _flat(figures):
        if figure.n == 0 and name.partition(".")[0] in _NOT_MISSED:
            continue
        words = _WORDS[name]
        value, interval = _texts(figure, words.scale)
        rows.append(FigureRow(name, words.label, value, interval, figure.n, words.meaning, figure.why or ""))
    return rows


def evaluation_text(figures: Section, counts: Mapping[str, int]) -> str:
    """The headlines for a terminal: a line each, with the interval."""
    rows = [row for row in figure_rows(figures) if row.name in HEADLINES]
    cells = [(row.label, row.value, row.interval or (f"({row.why})" if row.why else "")) for row in rows]
    widths = [max((len(cell[column]) for cell in cells), default=0) for column in range(2)]
    lines = [f"{label:<{widths[0]}}  {value:>{widths[1]}}  {rest}".rstrip() for label, value, rest in cells]
    return "\n".join([f"{outcome_text(counts)}; in brackets, 95 % intervals", *lines])


def outcome_text(counts: Mapping[str, int]) -> str:
    """How the rows went, in one line.

    >>> outcome_text({"rows": 5, "prompts": 4, "wins_a": 3, "ties": 1, "wins_b": 1, "identical": 0})
    'A wins 3, B wins 1, 1 tie (5 rows, 4 prompts)'
    """
    identical = f", of which {counts['identical']:,} with the same response twice" if counts["identical"] else ""
    ties = f"{counts['ties']:,} {'tie' if counts['ties'] == 1 else 'ties'}{identical}"
    of = f"({counts['rows']:,} rows, {counts['prompts']:,} prompts)"
    return f"A wins {counts['wins_a']:,}, B wins {counts['wins_b']:,}, {ties} {of}"


def _flat(figures: Section) -> Iterator[tuple[str, Figure]]:
    for name, figure in figures.items():
        if isinstance(figure, Figure):
            yield name, figure
        else:
            yield from ((f"{name}.{part}", each) for part, each in figure.items())


def _texts(figure: Figure, scale: Scale) -> tuple[str, str]:
    """A figure's value and interval."""
    if figure.value is None:
        return "-", ""
    if scale != "characters":
        interval = written_interval(figure, scale)
        return written(figure.value, scale), f"({interval})" if interval else ""
    if figure.low is None or figure.high is None:
        return _characters(figure.value), ""
    return _characters(figure.value), f"({_characters(figure.low)} to {_characters(figure.high)})"


def _characters(number: float) -> str:
    return f"{number:,.1f}".replace("-", "−")
