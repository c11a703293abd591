"""The dataset card of a run folder: `README.md`, for the person who finds the folder a year later. Pure: facts in,
text out.

What came from the data or the user is never live in it: no HTML, no Markdown, no fence that it can close.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from rlaif.data.statistics import LabelStatistics
from rlaif.visibility import visible

_MOST_SHOWN = 1_200
"""Characters of a text in the example row."""

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~$:@-])")


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        judges: `BACKEND:MODEL` of each judge.
        is_demonstration: A judge is the built-in one, whose labels are for trying things out.
        task: The task or the template's file name.
        template_fingerprint: SHA-256 of the prompt template and all it includes.
        settings: Further settings of the judge that can change a label, in the order to show: name -> value.
        constitution, constitution_fingerprint: Name and fingerprint; None without one.
        principles: (id, text) of all the constitution's.
        principle_choice: What `--principles` was.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        failed: Rows in `failures.jsonl`.
        statistics: Counts over the labels.
        prompt_tokens, completion_tokens: All calls together.
        cost_usd: At the prices given; None when none were.
        seconds: Wall time of the run, all sessions together; None when unknown.
        command: What makes the folder again.
        version: Of rlaif.
        example: A row as written; None when there is none.
        columns: Names of all columns, in their order.
    """

    title: str
    judges: tuple[str, ...]
    task: str
    template_fingerprint: str
    source: str
    source_sha256: str
    statistics: LabelStatistics
    command: str
    version: str
    is_demonstration: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    constitution: str | None = None
    constitution_fingerprint: str | None = None
    principles: tuple[tuple[str, str], ...] = ()
    principle_choice: str = "all"
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float | None = None
    example: Mapping[str, Any] | None = None
    columns: tuple[str, ...] = ()


def render_card(facts: CardFacts) -> str:
    """The text of `README.md`; its YAML header lets `datasets.load_dataset(FOLDER)` find the files."""
    header = {
        "pretty_name": _visible(facts.title),
        "tags": ["rlaif", "preference", "ai-feedback", "soft-labels"],
        "size_categories": [_size_category(facts.statistics.rows)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {_inline(facts.title)}",
        _introduction(facts),
        _judge_section(facts),
        _principles_section(facts),
        _counts_section(facts),
        _position_section(facts.statistics),
        _mass_section(facts.statistics),
        _cost_section(facts),
        _example_section(facts),
        _use_section(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(facts: CardFacts) -> str:
    is_sampled = facts.settings.get("scoring") == "sample"
    how = "counted over sampled verdicts" if is_sampled else "read from the model's own log-probabilities"
    text = (
        "Pairs of responses with soft preference labels: for each pair, the probability that a language model prefers "
        f"one response over the other, {how}. No person made these labels; they carry the judge's tastes and mistakes."
    )
    if facts.statistics.rows == 0:
        text += "\n\nThere are no rows: none could be labeled. `failures.jsonl` says why."
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: made by the demonstration judge.** `builtin:tiny` is a model of a few million parameters "
            "that ships with rlaif to show and test the pipeline. Its labels say little about the responses: do not "
            "train a model for use on them, and do not publish them as preferences. The same command with another "
            "`--judge` makes labels worth using."
        )
    return text


def _judge_section(facts: CardFacts) -> str:
    judges = facts.judges
    rows = [
        ("Judge" if len(judges) == 1 else f"Panel of {len(judges)} judges", ", ".join(map(_code, judges))),
        ("Task", _code(facts.task)),
        ("Prompt template (SHA-256)", _code(facts.template_fingerprint)),
        *((_inline(name), _code(_plain(value))) for name, value in facts.settings.items()),
        ("Made with", _code(f"rlaif {facts.version}")),
        ("Input", _code(facts.source)),
        ("Input content (SHA-256)", _code(facts.source_sha256)),
    ]
    return f"## How the labels were made\n\n{_table(('', ''), rows)}"


def _principles_section(facts: CardFacts) -> str:
    if facts.constitution is None:
        return ""
    how = {
        "all": "Each comparison was judged under every principle, and the labels were averaged by weight.",
        "sample": "Each comparison was judged under one principle, drawn from the seed; column `principle` names it.",
    }.get(facts.principle_choice, "Each comparison was judged under these principles, averaged by weight.")
    asked = {each.strip() for each in facts.principle_choice.split(",")}
    is_part = facts.principle_choice not in ("all", "sample")
    listed = "\n".join(
        f"- {_code(name)}: {_inline(text)}" for name, text in facts.principles if name in asked or not is_part
    )
    fingerprint = facts.constitution_fingerprint
    stamp = f" (SHA-256 {_code(fingerprint)})" if fingerprint else ""
    return f"## Principles\n\nConstitution {_code(facts.constitution)}{stamp}. {how}\n\n{listed}"


def _counts_section(facts: CardFacts) -> str:
    counts = facts.statistics
    rows = [
        ("Labeled pairs", _number(counts.rows)),
        ("Failed, in `failures.jsonl` and not in the data", _number(facts.failed)),
        ("Identical responses, 0.5 without asking", _number(counts.identical)),
        ("Ties (within 1e-9 of 0.5; A stands as chosen)", _number(counts.ties)),
        ("Judge calls behind the labels", _number(counts.calls)),
    ]
    return f"## Rows\n\n{_table(('', 'Count'), rows)}"


def _position_section(counts: LabelStatistics) -> str:
    if not (counts.in_ab.first_rate is not None or counts.in_ba.first_rate is not None or counts.both_orders):
        return ""
    rows = []
    if counts.both_orders:
        same = f"{_share(counts.same_position_rate)} ({counts.same_first:,} first, {counts.same_second:,} second)"
        rows += [
            ("Swap consistency: same verdict in both orders", _share(counts.swap_consistency)),
            ("Same slot preferred in both orders (ideal 0 %)", same),
        ]
    rows += [
        ("First slot preferred when A is shown first", _share(counts.in_ab.first_rate)),
        ("First slot preferred when B is shown first", _share(counts.in_ba.first_rate)),
    ]
    note = (
        f"Over {_number(counts.both_orders)} pairs judged in both orders. `prob_a` is the average of the two: a judge "
        "that looks only at position comes out at 0.5, and a pair whose verdict flips with the order comes out near it."
        if counts.both_orders
        else "Each pair was judged in one order only, so position bias, if there is any, is in the labels."
    )
    return f"## Position bias\n\n{_table(('', 'Share'), rows)}\n\n{note}"


def _mass_section(counts: LabelStatistics) -> str:
    if counts.label_mass_mean is None or counts.label_mass_min is None:
        return ""
    return (
        "## Label mass\n\n"
        f"The share of the judge's next-token probability that fell on the two labels: {counts.label_mass_mean:.4f} on "
        f"average, {counts.label_mass_min:.4f} at least. Where it is low, the judge wanted to say something else. "
        "Where a label was not among the tokens the server returned, its mass is an upper bound (`is_bounded`): rows "
        f"with such a bound: {_number(counts.bounded)}."
    )


def _cost_section(facts: CardFacts) -> str:
    spent = [f"{_number(facts.prompt_tokens)} prompt and {_number(facts.completion_tokens)} completion tokens"]
    if facts.cost_usd is not None:
        per_row = f", {facts.cost_usd / facts.statistics.rows:.5f} a row" if facts.statistics.rows else ""
        spent.append(f"{facts.cost_usd:.4f} US dollars{per_row}")
    if facts.seconds is not None:
        spent.append(f"{facts.seconds:.1f} seconds")
    return f"## Cost\n\n{'; '.join(spent)}."


def _example_section(facts: CardFacts) -> str:
    example = facts.example
    if example is None:
        return ""
    shown = ("prompt", "response_a", "response_b")
    texts = [f"{_code(name)}\n\n{fence(_example_text(example[name]))}" for name in shown if name in example]
    figures = ["prob_a", "prob_a_ab", "prob_a_ba", "chosen_prob", "is_tie", "human_label"]
    if facts.constitution is not None and facts.principle_choice == "sample":  # else the column is the user's own
        figures.append("principle")
    rows = [(_code(name), _code(_plain(example[name]))) for name in figures if name in example]
    return f"## A row\n\nIts id: {_code(_plain(example.get('id')))}\n\n" + "\n\n".join(
        [*texts, _table(("Column", "Value"), rows)]
    )


def _use_section(facts: CardFacts) -> str:
    listed = f"\n\nColumns: {', '.join(map(_code, facts.columns))}." if facts.columns else ""
    load = (
        "import datasets, pandas\n\n"
        'rows = datasets.load_dataset("FOLDER", split="train")\n'
        'frame = pandas.read_parquet("FOLDER/data")'
    )
    return (
        f"## How to load it\n\n{fence(load, 'python')}\n\n"
        "`prob_a` is P(response A preferred); `chosen` and `rejected` follow from it, with `chosen_prob` at least 0.5. "
        f"Train on the probability rather than the hard choice where the trainer can.{listed}\n\n"
        f"## How to make it again\n\n{fence(facts.command, 'sh')}\n\n"
        "The same command on this folder resumes or confirms the run; replies in `journal/` are not asked for again. "
        "`run.json` holds the full configuration."
    )


def fence(text: str, language: str = "") -> str:
    """Text as a fenced block that it cannot close: the fence is longer than any run of backticks in it.

    >>> print(fence("a ``` b"))
    ````
    a ``` b
    ````
    """
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{_visible(text, keep_lines=True)}\n{ticks}"


def _visible(text: str, *, keep_lines: bool = False) -> str:
    """Control and direction characters as escapes, so that what is shown is what is there."""
    if not keep_lines:
        text = text.replace("\r\n", " ").replace("\n", " ").replace("\t", " ")
    return visible(text.replace("\r\n", "\n"))


def _inline(text: str) -> str:
    """Foreign text inside a sentence: one line, no markup."""
    return _MARKDOWN.sub(r"\\\1", html.escape(_visible(text), quote=False))


def _code(text: str) -> str:
    """Foreign text as inline code, safe in a table: as HTML where backticks would not hold it."""
    if re.fullmatch(r"[\w .,:/@=+-]+", text) and text == text.strip():
        return f"`{text}`"
    return f"<code>{_inline(text)}</code>"


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_plain, value))
    return str(value)


def _example_text(value: Any) -> str:
    text = value if isinstance(value, str) else "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in value)
    left_out = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}\n[... {left_out:,} more characters]" if left_out > 0 else text


def _table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)]
    return "\n".join(lines)


def _number(count: int) -> str:
    return f"{count:,}"


def _share(value: float | None) -> str:
    return "not asked" if value is None else f"{100 * value:.1f} %"


def _size_category(rows: int) -> str:
    """The hub's own words for sizes."""
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")
