"""The dataset card of a run of `rlaif filter`. Pure: facts in, text out; foreign text is never live in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlaif.data.card_layout import again_section, render_layout
from rlaif.data.filter_inputs import SelectionCounts
from rlaif.data.filtering import Filter, FilterCount
from rlaif.data.markdown import code, fence, plain, table
from rlaif.data.selecting import SelectionOptions

_MEANINGS = {
    Filter.LABEL_MASS: "share of the judge's next-token probability on the two labels, in the order where it is less",
    Filter.TIES: "`prob_a` this close to 0.5",
    Filter.SWAP: "judged in both orders, and the verdict is another one in each",
    Filter.CONFIDENCE: "probability of the preferred response",
    Filter.LENGTH_RATIO: "characters of the longer response over those of the shorter",
    Filter.CUT_OFF: "a response was cut off at the most tokens",
    Filter.DUPLICATES: "an earlier pair has the same prompt and responses, exactly or nearly",
    Filter.PER_PROMPT: "more pairs of its prompt are labeled with more confidence",
}


@dataclass(frozen=True, slots=True)
class FilterFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        made_by: The command of the run that is the input; None for a file.
        judges: `BACKEND:MODEL` of each of its judges.
        is_demonstration: A judge is the built-in one.
        before, rows: Pairs before all filters, and those that are left.
        failed: Rows in `failures.jsonl`.
        counts: What each filter did.
        selection, selection_counts: How pairs were made of candidates; None where the input holds pairs.
        command: What makes the folder again.
        columns: Names of all columns, in their order.
    """

    title: str
    source: str
    source_sha256: str
    made_by: str | None
    judges: tuple[str, ...]
    is_demonstration: bool
    before: int
    rows: int
    failed: int
    counts: Sequence[FilterCount]
    selection: SelectionOptions | None
    selection_counts: SelectionCounts | None
    command: str
    columns: tuple[str, ...]


def render_filter_card(facts: FilterFacts) -> str:
    """The text of `README.md`; its YAML header lets `datasets.load_dataset(FOLDER)` find the files."""
    sections = [
        _introduction(facts),
        _origin_section(facts),
        _selection_section(facts.selection, facts.selection_counts),
        _filters_section(facts),
        _use_section(facts),
        again_section(facts.command, "It asks no judge, and writes the same again."),
    ]
    return render_layout(facts.title, ("preference", "ai-feedback", "soft-labels"), facts.rows, sections)


def _introduction(facts: FilterFacts) -> str:
    text = (
        f"Pairs of responses with soft preference labels: {facts.rows:,} of {facts.before:,} pairs, those that the "
        "filters below left. Labels of a judge carry its tastes and mistakes, and a filter adds its own: what is left "
        "is no sample of what was there."
    )
    if facts.rows == 0:
        text += (
            "\n\nThere are no rows: the filters dropped all. pandas reads the empty file in `data/`; `datasets` "
            "refuses a data set without rows."
        )
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: labeled by the demonstration judge.** `builtin:tiny` is a model of a few million "
            "parameters that ships with rlaif to show and test the pipeline. Its labels say little about the "
            "responses: do not train a model for use on them, and do not publish them as preferences."
        )
    return text


def _origin_section(facts: FilterFacts) -> str:
    rows = [
        ("Input", code(facts.source)),
        ("Input content (SHA-256)", code(facts.source_sha256)),
        *([("Made by", code(f"rlaif {facts.made_by}"))] if facts.made_by else []),
        *(
            [("Judges" if len(facts.judges) > 1 else "Judge", ", ".join(map(code, facts.judges)))]
            if facts.judges
            else []
        ),
        ("Rows that could not be read, in `failures.jsonl`", f"{facts.failed:,}"),
    ]
    return f"## Where they come from\n\n{table(('', ''), rows)}"


def _selection_section(options: SelectionOptions | None, counts: SelectionCounts | None) -> str:
    if options is None or counts is None:
        return ""
    rule = {
        "all": "every two candidates of a prompt",
        "best-worst": "the candidate with the highest score against the one with the lowest",
        "rs-dpo": (
            f"all pairs of a prompt where the better one is preferred with a probability of at least {options.eta:g} "
            "(RS-DPO, arXiv:2402.10038)"
        ),
        "rso": (
            f"of at most {options.keep} candidates accepted with probability exp((score - highest) / {options.beta:g}) "
            "by statistical rejection sampling, each in one pair (RSO, arXiv:2309.06657, first round)"
        ),
    }[options.pairs or "all"]
    rows = [
        ("Rows of candidates", f"{counts.rows:,}"),
        ("Candidates", f"{counts.candidates:,}"),
        ("Pairs", f"{counts.pairs:,}"),
        ("Rows that made no pair", f"{counts.without_pair:,}"),
        *([("Accepted without a partner", f"{counts.left_over:,}")] if options.pairs == "rso" else []),
    ]
    return (
        f"## How pairs were made\n\nOf rated candidates: {rule}. `prob_a` is sigmoid((score of A - score of B) / "
        f"{options.tau:g}), which no judge was asked for: it is as right as the scores, and their scale, are.\n\n"
        f"{table(('', 'Count'), rows)}"
    )


def _filters_section(facts: FilterFacts) -> str:
    if not facts.counts:
        return "## Filters\n\nNone was asked for."
    rows = [
        (
            code(f"--{each.filter}"),
            _MEANINGS[each.filter],
            "yes" if each.asked is True else code(plain(each.asked)),
            *(f"{count:,}" for count in (each.before, each.dropped, each.after, each.untold)),
        )
        for each in facts.counts
    ]
    head = ("Filter", "Looks at", "Asked", "Before", "Dropped", "After", "Does not tell")
    return (
        f"## Filters\n\n{table(head, rows)}\n\nEach filter sees what the ones above it left. `dropped.jsonl` names "
        "every pair that was dropped, the filter, and what it found. Pairs that do not tell what a filter looks at are "
        "kept."
    )


def _use_section(facts: FilterFacts) -> str:
    load = 'import datasets\n\nrows = datasets.load_dataset("FOLDER", split="train")'
    listed = f"\n\nColumns: {', '.join(map(code, facts.columns))}." if facts.columns else ""
    meaning = "" if facts.selection is not None else "\n\nThe columns are those of the input."
    return f"## How to load it\n\n{fence(load, 'python')}{meaning}{listed}"


def settings_of(options: SelectionOptions) -> dict[str, Any]:
    """The settings that matter for a rule, by flag."""
    of_rule = {"rs-dpo": {"eta": options.eta}, "rso": {"beta": options.beta, "keep": options.keep}}
    return {"pairs": options.pairs, "tau": options.tau, **of_rule.get(options.pairs or "", {})}
