"""The card of a ranking's run folder: `README.md`. Pure: facts in, text out; what came from the data is never live."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import yaml

from rlaif.auditing.ranking_results import Ranking
from rlaif.auditing.ranking_summary import ranking_head, ranking_remarks, ranking_rows
from rlaif.auditing.strengths import PRIOR_MATCHES
from rlaif.data.markdown import code, fence, inline, one_line, table
from rlaif.engine.ranking_config import RankConfig
from rlaif.engine.ranking_inputs import RankInputs

_MOST_SHOWN = 1_200
"""Characters of a text in the example row."""


@dataclass(frozen=True)
class Origin:
    """What the run that was ranked says of itself.

    Attributes:
        status: None where the input is no run.
        judges: Who was asked in it.
        is_demonstration: Whether a judge is the built-in one.
    """

    status: str | None = None
    judges: tuple[str, ...] = ()
    is_demonstration: bool = False


@dataclass(frozen=True)
class RankingCard:
    """What a card tells.

    Attributes:
        title: The data set's name.
        inputs: What was ranked.
        origin: Of the run that it comes from.
        ranking: Of the policies; None without them.
        rows: Ranked candidates; None without `data/`.
        example: The first of them.
        has_plot: Whether policies.png is there.
        command: What makes the folder again.
        config: The run's.
    """

    title: str
    inputs: RankInputs
    origin: Origin
    ranking: Ranking | None
    rows: int | None
    example: dict[str, Any] | None
    has_plot: bool
    command: str
    config: RankConfig


def render_ranking_card(card: RankingCard) -> str:
    """The text of `README.md`; with candidates, its header lets `datasets.load_dataset(FOLDER)` find the files."""
    header: dict[str, Any] = {"pretty_name": one_line(card.title), "tags": ["rlaif", "ranking", "ai-feedback"]}
    if card.rows is not None:
        files = [{"split": "train", "path": "data/*.parquet"}]
        header["configs"] = [{"config_name": "default", "data_files": files}]
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {inline(card.title)}",
        _introduction(card),
        _policies(card),
        _candidates(card),
        _source(card),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(card: RankingCard) -> str:
    made = "a judge's soft labels of pairs" if card.inputs.kind == "labels" else "a judge's ratings"
    what = [
        *(["who writes better responses"] if card.ranking is not None else []),
        *(["which response to each prompt is best"] if card.rows is not None else []),
    ]
    warning = (
        "\n\n> **Warning: made by the demonstration judge.** `builtin:tiny` ships with rlaif to show the pipeline; "
        "what it prefers says little about the responses."
        if card.origin.is_demonstration
        else ""
    )
    return (
        f"{' and '.join(what).capitalize()}, from {made}. No person made this ranking; it carries the judge's tastes "
        "and mistakes, and its intervals tell only how it would differ on other prompts." + warning
    )


def _policies(card: RankingCard) -> str:
    ranking = card.ranking
    if ranking is None:
        return ""
    rows = ranking_rows(ranking)
    if card.inputs.kind == "labels":
        how = (
            "Strengths are those of Bradley and Terry's model, with ties by Davidson (1970), fitted to the soft labels "
            "as they are: the odds of one policy against another are exp(difference). On the Elo scale their mean is "
            "1000, and 400 points are odds of 10 to 1. `policies.json` has every figure, the online Elo (updated match "
            "by match, in many orders) and every pair."
        )
    else:
        how = "Policies are ranked by the mean rating of their responses. `policies.json` has every figure."
    intervals = "In brackets stand 95 % intervals, from a bootstrap over " + (
        "prompts." if card.config.cluster is None else f"the values of {code(card.config.cluster)}."
    )
    lines = [code(row.name) for row in rows]
    body = table(
        ("policy", *ranking_head(ranking)), [(name, *row.cells) for name, row in zip(lines, rows, strict=True)]
    )
    said = [*ranking.notes, *ranking_remarks(ranking)]
    remarks = "\n".join(f"- {inline(sentence)}" for sentence in said)
    plot = "![Policies with their intervals](policies.png)" if card.has_plot else ""
    parts = ["## Policies", how, intervals, body if rows else "No two policies were compared.", remarks, plot]
    return "\n\n".join(part for part in parts if part)


def _candidates(card: RankingCard) -> str:
    if card.rows is None:
        return ""
    scores = "strengths" if card.inputs.kind == "labels" else "ratings"
    text = (
        f"## Candidates\n\n{card.rows:,} prompts with their responses; `ranks` holds the rank of each (1 is best, "
        "equals share)"
    )
    if card.inputs.kind == "labels":
        text += (
            ", and `strengths` what it was ranked by: Bradley-Terry strengths within the prompt, of mean 0, where "
            f"every candidate was given {PRIOR_MATCHES:g} match more, half won and half lost, against one of strength "
            "0. `rewards` holds the same numbers, under the name that trainers read; `candidates` the numbers of the "
            "candidates in the input, `comparisons` and `ties` how many labels there were. Candidates that no label "
            "compares are not in it."
        )
    else:
        text += f", by the {scores} in the row."
    if card.inputs.left_out:
        names = ", ".join(map(code, card.inputs.left_out))
        text += f"\n\nColumns that differ between the comparisons of one prompt are left out: {names}."
    text += f"\n\n{fence(f'rlaif train rrhf --data {card.config.out} --model MODEL -o OUT', 'sh')}"
    if card.example is not None:
        shown = json.dumps(card.example, ensure_ascii=False, indent=2, default=str)
        text += (
            f"\n\nThe first row:\n\n{fence(shown[:_MOST_SHOWN] + ('…' if len(shown) > _MOST_SHOWN else ''), 'json')}"
        )
    return text


def _source(card: RankingCard) -> str:
    rows = [
        ("Input", code(card.inputs.name)),
        ("Input content (SHA-256)", code(card.inputs.content_sha256)),
        *([("Judges", ", ".join(map(code, card.origin.judges)))] if card.origin.judges else []),
        *([("Policies named by", code(", ".join(card.inputs.by)))] if card.inputs.by else []),
        *((inline(name.replace("_", " ")), f"{count:,}") for name, count in card.inputs.counts.items()),
    ]
    return f"## How it was made\n\n{table(('', ''), rows)}\n\n{fence(card.command or 'rlaif rank', 'sh')}"
