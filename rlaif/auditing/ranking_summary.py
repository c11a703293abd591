"""A ranking of policies as rows of text: for a terminal, and for the card. Pure."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from rlaif.auditing.evidence import short_name
from rlaif.auditing.ranking_results import Ranking, Standing
from rlaif.auditing.results import Figure
from rlaif.auditing.wording import written, written_interval

WIDTH = 100
MOST_SHOWN = 40
"""Policies that are shown; the file has them all."""


class TextRow(NamedTuple):
    """One policy: the name as it came, and what stands beside it, column by column."""

    name: str
    cells: tuple[str, ...]


def ranking_head(ranking: Ranking) -> tuple[str, ...]:
    """What stands above the cells of `ranking_rows`, without the name's column."""
    if _is_by_ratings(ranking):
        return ("rank", "mean rating (95 %)", "responses")
    return ("rank", "strength (95 %)", "Elo scale", "win rate", "matches")


def ranking_rows(ranking: Ranking) -> list[TextRow]:
    """The best first."""
    of = _rating_cells if _is_by_ratings(ranking) else _match_cells
    return [TextRow(each.name, of(each)) for each in ranking.standings]


def ranking_text(ranking: Ranking, *, width: int = WIDTH) -> str:
    """The ranking for a terminal: a table, then what a person should know."""
    rows = ranking_rows(ranking)
    head = ranking_head(ranking)
    lines = [(head[0], "policy", *head[1:])]
    lines += [(row.cells[0], short_name(row.name), *row.cells[1:]) for row in rows[:MOST_SHOWN]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    blocks = ["\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)]
    if len(rows) > MOST_SHOWN:
        blocks.append(f"and {len(rows) - MOST_SHOWN} more")
    blocks += [f"! {sentence}" for sentence in ranking.notes]
    blocks += ranking_remarks(ranking)
    return "\n".join(line for block in blocks for line in _wrapped(block, width))


def ranking_remarks(ranking: Ranking) -> list[str]:
    """What is known beside the standings, in sentences."""
    remarks = []
    if ranking.separability.value is not None:
        share, pairs = written(ranking.separability.value, "share"), ranking.separability.n
        of_pairs = "the 1 pair" if pairs == 1 else f"the {pairs:,} pairs"
        remarks.append(f"told apart: {share} of {of_pairs} of policies (the interval of the difference leaves out 0)")
    triples = ranking.cyclic_triples_of_prompts
    if triples is not None and triples.value is not None:
        interval = written_interval(triples, "share")
        share = written(triples.value, "share") + (f" ({interval})" if interval else "")
        remarks.append(f"going round in circles: {share} of the triples judged within a prompt")
    if ranking.cyclic_triples is not None and ranking.cyclic_triples.value:
        share = written(ranking.cyclic_triples.value, "share")
        remarks.append(
            f"by their win rates, {share} of the {ranking.cyclic_triples.n:,} triples of policies go round in circles"
        )
    ties = ranking.tie_parameter
    if ties is not None and ties.value:
        between_equals = written(ties.value / (2.0 + ties.value), "share")
        remarks.append(f"ties: {between_equals} between equals, by Davidson's model")
    return remarks


def _wrapped(block: str, width: int) -> list[str]:
    if "\n" in block:  # the table
        return block.split("\n")
    return textwrap.wrap(block, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _is_by_ratings(ranking: Ranking) -> bool:
    return any(each.rating is not None for each in ranking.standings)


def _rating_cells(standing: Standing) -> tuple[str, ...]:
    rating = standing.rating
    assert rating is not None
    return (_rank(standing.rank), _number(rating), f"{rating.n:,}")


def _match_cells(standing: Standing) -> tuple[str, ...]:
    strength = standing.strength
    assert strength is not None
    win_rate = "-" if standing.win_rate is None else written(standing.win_rate.value or 0.0, "share")
    return (_rank(standing.rank), _number(strength), _points(standing.elo), win_rate, f"{strength.n:,}")


def _rank(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.0f}"
    return f"{figure.value:.0f} ({figure.low:.0f} to {figure.high:.0f})"


def _number(figure: Figure) -> str:
    if figure.value is None:
        return "-"
    interval = written_interval(figure, "number")
    return written(figure.value, "number") + (f" ({interval})" if interval else "")


def _points(figure: Figure | None) -> str:
    if figure is None or figure.value is None:
        return "-"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.0f}"
    return f"{figure.value:.0f} ({figure.low:.0f} to {figure.high:.0f})".replace("-", "−")
