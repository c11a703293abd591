"""The dataset card of a run of `rlaif evaluate`. Pure: facts in, text out; foreign text is never live in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlaif.auditing.evaluation_summary import figure_rows, outcome_text
from rlaif.auditing.results import Section
from rlaif.data.card_layout import again_section, render_layout
from rlaif.data.markdown import code, fence, inline, plain, table

_MOST_SHOWN = 600
"""Characters of a text in the example row."""


@dataclass(frozen=True, slots=True)
class EvaluationFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        sides: Names of A and of B.
        written_by: Of A and of B, whether a model answered the prompts for this run.
        judges: `BACKEND:MODEL` of each judge.
        is_demonstration: A model among them is a built-in one.
        settings: What can change a verdict or a response: name -> value.
        template, harmless_template: SHA-256 of the prompts; None where they were not used.
        failed: Rows in `failures.jsonl`.
        counts, figures: As in `evaluation.json`.
        command: What makes the folder again.
        example: A row as written; None when there is none.
    """

    title: str
    sides: tuple[str, str]
    written_by: tuple[bool, bool]
    judges: tuple[str, ...]
    is_demonstration: bool
    settings: Mapping[str, Any]
    template: str | None
    harmless_template: str | None
    failed: int
    counts: Mapping[str, int]
    figures: Section
    command: str
    example: Mapping[str, Any] | None


def render_evaluation_card(facts: EvaluationFacts) -> str:
    """The text of `README.md`; `datasets.load_dataset(FOLDER)` gives the judged comparisons."""
    sections = [
        _introduction(facts),
        _figures(facts),
        f"## How it was judged\n\n{table(('Setting', 'Value'), _settings(facts))}",
        _example(facts.example),
        again_section(facts.command, "The same command on this folder resumes or confirms the run."),
    ]
    return render_layout(facts.title, ("evaluation", "ai-feedback"), facts.counts["rows"], sections)


def _introduction(facts: EvaluationFacts) -> str:
    a, b = map(code, facts.sides)
    text = (
        f"Responses of two policies to the same prompts, A ({a}) and B ({b}), compared by a judge. "
        f"{outcome_text(facts.counts)}. No person made these verdicts; they carry the judge's tastes and "
        "mistakes, and the intervals tell only how the figures would differ on other prompts. A judge that a policy "
        "was trained on says little about it: ask another one."
    )
    if facts.failed:
        text += f"\n\n{facts.failed:,} responses were not compared, or not judged; `failures.jsonl` names each."
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: a demonstration model took part.** The built-in judge and policy ship with rlaif to show "
            "and test the pipeline; what they say of each other says little about any other model."
        )
    return text


def _figures(facts: EvaluationFacts) -> str:
    rows = [
        (row.label, row.value, row.interval.strip("()") or inline(row.why), f"{row.n:,}", row.meaning)
        for row in figure_rows(facts.figures)
    ]
    return (
        f"## Figures\n\n{table(('Figure', 'Value', '95 % interval', 'Rows', 'Meaning'), rows)}\n\n"
        "Intervals are clustered by prompt. `evaluation.json` holds them all as numbers."
    )


def _settings(facts: EvaluationFacts) -> list[tuple[str, str]]:
    names = ((letter, name, wrote) for letter, name, wrote in zip("AB", facts.sides, facts.written_by, strict=True))
    return [
        *(
            (letter, f"{code(name)}{f' (answers in `answers_{letter.lower()}`)' if wrote else ''}")
            for letter, name, wrote in names
        ),
        ("judge", ", ".join(map(code, facts.judges))),
        *([("prompt template (SHA-256)", code(facts.template))] if facts.template else []),
        *([("harmless template (SHA-256)", code(facts.harmless_template))] if facts.harmless_template else []),
        *((code(name), code(plain(value))) for name, value in facts.settings.items() if value is not None),
    ]


def _example(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    prompt = row["prompt"]
    text = prompt if isinstance(prompt, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    shown = [f"`{name}`\n\n{fence(_cut(value))}" for name, value in
             (("prompt", text), ("response_a", row["response_a"]), ("response_b", row["response_b"]))]  # fmt: skip
    names = ("prob_a", "prob_a_ab", "prob_a_ba", "harmless_prob_a", "harmless_prob_b")
    labels = [(code(name), plain(row[name])) for name in names if name in row]
    return f"## A row\n\nIts id: {code(row['id'])}\n\n" + "\n\n".join([*shown, table(("Column", "Value"), labels)])


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}\n[... {left_out:,} more characters]" if left_out > 0 else text
