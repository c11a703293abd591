"""The dataset card of a run of `rlaif generate`. Pure: facts in, text out; foreign text is never live in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.card_layout import DEFAULT_CONFIG, again_section, render_layout
from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.data.markdown import code, fence, plain, table

_MOST_SHOWN = 600
"""Characters of a text in the example row."""


@dataclass(frozen=True, slots=True)
class GenerationFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        policies: `BACKEND:MODEL` of each.
        is_demonstration: One of them is the built-in one.
        settings: What can change a response: name -> value.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        failed: Rows in `failures.jsonl`.
        statistics: Counts over the responses.
        comparisons: Made of them.
        command: What makes the folder again.
        example: A row as written; None when there is none.
    """

    title: str
    policies: tuple[str, ...]
    is_demonstration: bool
    source: str
    source_sha256: str
    failed: int
    statistics: GenerationStatistics
    comparisons: int
    command: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] | None = None


def render_generation_card(facts: GenerationFacts) -> str:
    """The text of `README.md`; `datasets.load_dataset(FOLDER)` gives the candidates, and with "comparisons" those."""
    has_pairs = facts.comparisons > 0
    configs = {**DEFAULT_CONFIG, **({"comparisons": "comparisons/data/*.parquet"} if has_pairs else {})}
    sections = [
        _introduction(facts),
        f"## How they were sampled\n\n{table(('Setting', 'Value'), _settings(facts))}",
        f"## Responses\n\n{_counts(facts.statistics)}",
        _example(facts.example),
        _use(has_pairs),
        again_section(facts.command, "The same command on this folder resumes or confirms the run."),
    ]
    return render_layout(
        facts.title, ("synthetic", "ai-feedback", "candidates"), facts.statistics.rows, sections, configs
    )


def _introduction(facts: GenerationFacts) -> str:
    counts = facts.statistics
    text = (
        f"Responses of language models to prompts: {counts.responses:,} responses to {counts.rows:,} prompts, and "
        f"{facts.comparisons:,} comparisons of two of them, which nobody has labeled yet. No person wrote these "
        "responses, and nobody has checked them."
    )
    if facts.failed:
        text += f" {facts.failed:,} prompts got no usable response; `failures.jsonl` says why."
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: written by the demonstration policy.** `builtin:tiny-policy` is a model of a few million "
            "parameters that knows a made-up world only. It ships with rlaif to show and test the pipeline."
        )
    return text


def _settings(facts: GenerationFacts) -> list[tuple[str, str]]:
    return [
        ("policies", ", ".join(map(code, facts.policies))),
        ("prompts", f"{code(facts.source)} (SHA-256 {code(facts.source_sha256)})"),
        *((code(name), code(plain(value))) for name, value in facts.settings.items() if value is not None),
    ]


def _counts(counts: GenerationStatistics) -> str:
    reasons = [reason for reason in counts.dropped if counts.dropped[reason]]
    rows = [
        [
            code(policy),
            f"{each.sampled:,}",
            *(f"{each.dropped[reason]:,}" for reason in reasons),
            f"{each.kept:,}",
            f"{each.empty:,}",
            f"{each.cut_off:,}",
            "" if each.lengths.mean is None else f"{each.lengths.mean:,.0f}",
        ]
        for policy, each in counts.by_policy.items()
    ]
    head = ["Policy", "Sampled", *(f"Left out: {reason.value}" for reason in reasons), "Kept"]
    return table([*head, "Empty", "Cut off", "Characters, mean"], rows) + (
        "\n\nWhat is left out stands in the column `dropped`, with the reason. Responses that are empty or cut off at "
        "the most tokens are kept unless they were asked to be left out; `finish_reasons` tells them."
    )


def _example(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    prompt = row["prompt"]
    text = prompt if isinstance(prompt, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    shown = [f"`prompt`\n\n{fence(_cut(text))}"]
    for policy, response in list(zip(row["policies"], row["responses"], strict=True))[:2]:
        shown.append(f"{code(policy)}\n\n{fence(_cut(response))}")
    return f"## A row\n\nIts id: {code(row['id'])}\n\n" + "\n\n".join(shown)


def _use(has_pairs: bool) -> str:
    lines = ["import datasets\n", 'candidates = datasets.load_dataset("FOLDER", split="train")']
    if has_pairs:
        lines.append('comparisons = datasets.load_dataset("FOLDER", "comparisons", split="train")')
    label = "`rlaif label FOLDER/comparisons -o LABELS` asks a judge which of two is better; " if has_pairs else ""
    code_block = fence("\n".join(lines), "python")
    return (
        f"## How to use it\n\n{code_block}\n\n{label}`rlaif rate FOLDER -o RATINGS` rates each response from 1 to 10."
    )


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}\n[... {left_out:,} more characters]" if left_out > 0 else text
