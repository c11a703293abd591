"""The card of an export that is uploaded: `README.md` of a data set on the hub. Pure: facts in, text out. What came
from the data or the user is never live in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlaif.data.export_loading import Hint
from rlaif.data.markdown import code, inline, table

_MEANINGS = {
    "chosen_prob": "the probability with which the label prefers `chosen`, from 0.5 to 1",
    "score_chosen": "half of its logit; `score_rejected` is minus that, so that their difference is the logit",
    "margin": "its logit, at most 13.8; trainers that read it take it off the difference of rewards",
    "reward_A": "half of the logit of the probability that A is preferred (1 or -1 where the input has none); "
    "`reward_B` is minus that",
    "label": "true for a response that was chosen, false for one that was rejected; of halos 1 where A is preferred",
    "system": "the system turn of `messages`, empty where there is none; for reward models",
    "input": "the user turn of `messages`; for reward models",
}


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """All that the card tells.

    Attributes:
        title: Name of the data set.
        format: Of the export.
        files: Split -> (name in the repository, rows, prompts).
        columns: Of every row.
        judges: `BACKEND:MODEL` of each; empty where the input says of none.
        labels: "soft" for a judge's, "human" for people's.
        is_demonstration: Whether a judge is the one that ships.
        left_out: What was left out, in words, such as "2 ties".
        hints: How to load it.
        command: How a person would repeat this.
        version: Of rlaif.
    """

    title: str
    format: str
    files: Mapping[str, tuple[str, int, int]]
    columns: tuple[str, ...]
    judges: tuple[str, ...]
    labels: str
    is_demonstration: bool
    left_out: tuple[str, ...]
    hints: tuple[Hint, ...]
    command: str
    version: str


def render_export_card(facts: ExportFacts) -> str:
    """The card as Markdown, with the header that tells `datasets` which file is which split."""
    return (
        "\n\n".join(
            (
                _header(facts),
                f"# {inline(facts.title)}",
                f"Preference data written by `rlaif export --format {facts.format}` (rlaif {inline(facts.version)}). "
                f"{_labeled_by(facts)}",
                table(
                    ("split", "rows", "prompts"),
                    [(split, f"{rows:,}", f"{prompts:,}") for split, (_, rows, prompts) in facts.files.items()],
                ),
                *([f"Left out: {inline('; '.join(facts.left_out))}."] if facts.left_out else []),
                "## Columns",
                "\n".join(f"- `{name}`{f': {_MEANINGS[name]}' if name in _MEANINGS else ''}" for name in facts.columns),
                "## To load it",
                "\n".join(f"- {hint.title}: {code(hint.text)}" for hint in facts.hints),
                f"Made with {code(facts.command)}.",
            )
        )
        + "\n"
    )


def _header(facts: ExportFacts) -> str:
    splits = [f"  - split: {split}\n    path: {name}" for split, (name, _, _) in facts.files.items()]
    return "\n".join(
        (
            "---",
            "tags:",
            *(f"- {tag}" for tag in ("preference", "ai-feedback", "rlaif")),
            "configs:",
            "- config_name: default",
            "  data_files:",
            *splits,
            "---",
        )
    )


def _labeled_by(facts: ExportFacts) -> str:
    if facts.labels == "human":
        return "Which response was chosen is told by the share of people's votes."
    if not facts.judges:
        return ""
    said = f"Which response was chosen is told by {', '.join(map(code, facts.judges))}."
    return (
        f"{said} **It is a demonstration judge: train nothing real on its labels.**" if facts.is_demonstration else said
    )
