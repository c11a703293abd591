"""The dataset card of a run of `rlaif revise`. Pure: facts in, text out; foreign text is never live in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.card_layout import DEFAULT_CONFIG, again_section, render_layout
from rlaif.data.markdown import code, fence, plain, table
from rlaif.data.revision_statistics import (
    LengthConfound,
    Preference,
    RevisionPreference,
    RevisionStatistics,
    TextCounts,
)

_MOST_SHOWN = 600
"""Characters of a text in the example row."""

_LABELS = {
    "assumed": (
        "**The labels of `comparisons` are assumed, not judged**: each says that the revision is better, with "
        "`prob_a` 1 or 0 and `label_source` {source}. Nobody has looked."
    ),
    "judge": "The labels of `comparisons` are those of {judges}; `comparisons/README.md` tells how they were asked.",
    "none": "The rows of `comparisons` have no labels; `rlaif label FOLDER/comparisons -o LABELS` asks a judge.",
}


@dataclass(frozen=True, slots=True)
class RevisionFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        policy: `BACKEND:MODEL` of who wrote.
        judges: Of those who labeled, if any.
        is_demonstration: The policy or a judge is the built-in one.
        constitution, constitution_fingerprint: By which principles.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        failed: Rows in `failures.jsonl`.
        statistics: Counts over the chains.
        labels: "assumed", "judge" or "none".
        demonstrations, comparisons: Rows of the other two tables.
        command: What makes the folder again.
        settings: What can change a text: name -> value.
        preference: What the judge makes of the revisions; None where none was asked.
        example: A row as written; None when there is none.
    """

    title: str
    policy: str
    judges: tuple[str, ...]
    is_demonstration: bool
    constitution: str
    constitution_fingerprint: str
    source: str
    source_sha256: str
    failed: int
    statistics: RevisionStatistics
    labels: str
    demonstrations: int
    comparisons: int
    command: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    preference: RevisionPreference | None = None
    example: Mapping[str, Any] | None = None


def render_revision_card(facts: RevisionFacts) -> str:
    """The text of `README.md`; `datasets.load_dataset(FOLDER)` gives the chains, and with "sft" or "comparisons" what
    was made of them."""
    tables = {"sft": facts.demonstrations, "comparisons": facts.comparisons}
    configs = {**DEFAULT_CONFIG, **{name: f"{name}/data/*.parquet" for name, rows in tables.items() if rows}}
    sections = [
        _introduction(facts),
        f"## How they were revised\n\n{table(('Setting', 'Value'), _settings(facts))}",
        _rounds(facts.statistics),
        _length(facts.statistics.lengths, facts.preference),
        _example(facts.example),
        _use([name for name, rows in tables.items() if rows], facts.labels),
        again_section(facts.command, "The same command on this folder resumes or confirms the run."),
    ]
    tags = ("synthetic", "ai-feedback", "constitutional-ai", *(["preference"] if facts.labels != "none" else []))
    return render_layout(facts.title, tags, facts.statistics.rows, sections, configs)


def length_text(lengths: LengthConfound) -> str:
    """How much longer revisions are, in a sentence without its end.

    >>> confound = LengthConfound()
    >>> confound.add("short", "twice short")
    >>> length_text(confound)
    '100.0% of 1 revisions are longer than the initial response, 0.0% shorter; 2.20 times as long on average'
    """
    if not lengths.count:
        return "no revision to compare"
    mean = lengths.log_ratios.mean
    ratio = "" if mean is None else f"; {math.exp(mean):.2f} times as long on average"
    return (
        f"{lengths.longer / lengths.count:.1%} of {lengths.count:,} revisions are longer than the initial response, "
        f"{lengths.shorter / lengths.count:.1%} shorter{ratio}"
    )


def preference_text(preference: RevisionPreference) -> str:
    """What a judge makes of revisions, in a sentence without its end."""
    return (
        f"prefers {_of(preference.overall)}; {_of(preference.where_longer)} that are longer, "
        f"{_of(preference.where_shorter)} that are shorter"
    )


def _of(preference: Preference) -> str:
    share = preference.share
    return "none of 0" if share is None else f"{share:.1%} of {preference.count:,}"


def _introduction(facts: RevisionFacts) -> str:
    counts = facts.statistics
    text = (
        f"{counts.rows:,} responses that a language model criticised and revised by the principles of the constitution "
        f"{code(facts.constitution)} (Constitutional AI, arXiv:2212.08073, section 3): the chains with every text in "
        f"between, {facts.demonstrations:,} revisions to imitate (`sft`), and {facts.comparisons:,} comparisons of an "
        "initial response with its last revision (`comparisons`). No person wrote these revisions, and nobody has "
        "checked them."
    )
    source, judges = code("assumed"), ", ".join(map(code, facts.judges))
    text += "\n\n" + _LABELS[facts.labels].format(source=source, judges=judges)
    if facts.failed:
        text += f"\n\n{facts.failed:,} rows have no chain; `failures.jsonl` says why."
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: made with demonstration models.** The models named `builtin:` have a few million "
            "parameters and know a made-up world only. They ship with rlaif to show and test the pipeline."
        )
    return text


def _settings(facts: RevisionFacts) -> list[tuple[str, str]]:
    fingerprint = code(facts.constitution_fingerprint)
    return [
        ("policy", code(facts.policy)),
        *([("judges", ", ".join(map(code, facts.judges)))] if facts.judges else []),
        ("constitution", f"{code(facts.constitution)} (SHA-256 {fingerprint})"),
        ("input", f"{code(facts.source)} (SHA-256 {code(facts.source_sha256)})"),
        *((code(name), code(plain(value))) for name, value in facts.settings.items() if value is not None),
    ]


def _rounds(counts: RevisionStatistics) -> str:
    texts = table(
        ("Texts", "Asked for", "Empty", "Refused", "Cut off", "Ran on", "Characters, mean"),
        [("critiques", *_cells(counts.critiques)), ("revisions", *_cells(counts.revisions))],
    )
    drawn = table(
        ("Principle", "Rounds"), [(code(name), f"{times:,}") for name, times in sorted(counts.by_principle.items())]
    )
    return (
        f"## Rounds\n\n{texts}\n\nA revision that is empty or refused ends its chain: {counts.ended_early:,} chains "
        f"ended before the last round, {counts.unrevised:,} of them without any revision. Texts that are cut off at "
        "the most tokens are passed on and told by their finish reason; `sft` leaves them out. Texts that ran on with "
        "the next section of the prompt are cut before it. Of "
        f"{counts.rows:,} initial responses the input brought {counts.brought:,}.\n\nOne principle was drawn for each "
        f"round:\n\n{drawn}"
    )


def _cells(counts: TextCounts) -> tuple[str, ...]:
    numbers = (counts.asked, counts.empty, counts.refused, counts.cut_off, counts.ran_on)
    mean = counts.lengths.mean
    return (*(f"{number:,}" for number in numbers), "" if mean is None else f"{mean:,.0f}")


def _length(lengths: LengthConfound, preference: RevisionPreference | None) -> str:
    text = (
        f"## Length\n\n{length_text(lengths).capitalize()} (characters, geometric mean). A model trained to prefer "
        "revisions may learn to prefer length."
    )
    if lengths.unchanged:
        text += f" {lengths.unchanged:,} last revisions are the initial response unchanged."
    if preference is not None:
        rows = [
            (name, f"{each.count:,}", _number(each.share), _number(each.probs.mean))
            for name, each in (
                ("all", preference.overall),
                ("where it is longer", preference.where_longer),
                ("where it is shorter", preference.where_shorter),
            )
        ]
        head = ("Revisions", "Compared", "Preferred by the judge", "P(revision preferred), mean")
        text += f"\n\n{table(head, rows)}\n\nA tie counts half; unchanged revisions are left out."
    return text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _example(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    prompt = row["prompt"]
    text = prompt if isinstance(prompt, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
    shown = [f"`prompt`\n\n{fence(_cut(text))}", f"`initial_response`\n\n{fence(_cut(row['initial_response']))}"]
    for number, each in enumerate(row["rounds"][:1], 1):
        shown.append(f"Round {number}, by {code(each['principle'])}: the critique\n\n{fence(_cut(each['critique']))}")
        shown.append(f"Round {number}: the revision\n\n{fence(_cut(each['revision']))}")
    return f"## A row\n\nIts id: {code(row['id'])}\n\n" + "\n\n".join(shown)


def _use(tables: list[str], labels: str) -> str:
    lines = ["import datasets\n", 'chains = datasets.load_dataset("FOLDER", split="train")']
    lines += [f'{name} = datasets.load_dataset("FOLDER", "{name}", split="train")' for name in tables]
    text = f"## How to use it\n\n{fence(chr(10).join(lines), 'python')}"
    if "sft" in tables:
        text += "\n\n`rlaif train sft --data FOLDER/sft -o MODEL` imitates the revisions."
    if "comparisons" in tables and labels != "none":
        text += " `rlaif train dpo --data FOLDER/comparisons -o MODEL` prefers what the labels prefer."
    return text


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}\n[... {left_out:,} more characters]" if left_out > 0 else text
