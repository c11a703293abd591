"""What is made of revised responses: rows to imitate, and comparisons whose labels are taken for granted, asked of a
judge, or left out."""

from __future__ import annotations

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.backends.base import Backend
from rlaif.data.revised import (
    RevisedSchema,
    assumed_row,
    assumed_schema,
    comparison_row,
    comparisons_schema,
    demonstration_rows,
    demonstrations_schema,
    is_unchanged,
)
from rlaif.data.revision_statistics import RevisionPreference
from rlaif.data.shards import RowWriter, written_rows
from rlaif.data.sources import ReadOptions, scan
from rlaif.engine.config import LabelConfig
from rlaif.engine.labeling import LabelOutcome, run_label
from rlaif.engine.listening import Listener
from rlaif.engine.revision_config import Labels, ReviseConfig
from rlaif.engine.run_folder import RunFolder

SFT = "sft"
COMPARISONS = "comparisons"
UNLABELED = "unlabeled"
"""Folders in the run folder; the last holds the judge's input."""


@dataclass(frozen=True)
class Tables:
    """What was written beside the chains.

    Attributes:
        demonstrations: Revisions to imitate.
        comparisons: Of an initial response and its last revision.
        unchanged: Chains without one, since the last revision is the initial response; only where the label is taken
            for granted. A judge's label for these is 0.5, without a call.
    """

    demonstrations: int
    comparisons: int
    unchanged: int

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`."""
        return {
            "sft_rows": self.demonstrations,
            "comparisons": self.comparisons,
            "comparisons_left_out_unchanged": self.unchanged,
        }


def write_tables(folder: Path, schema: RevisedSchema, labels: Labels, *, seed: int) -> Tables:
    """Read the chains in `data/`, and write what is made of them to folders beside it.

    Args:
        folder: The run folder.
        schema: Of its rows.
        labels: Whether the comparisons are for a judge, whose input is then written.
        seed: Of the draw which response is A.

    Raises:
        RunFolderError: Something cannot be read or written.
    """
    is_assumed = labels == "assumed"
    of_pairs = assumed_schema(schema) if is_assumed else comparisons_schema(schema)
    place = UNLABELED if labels == "judge" else COMPARISONS
    unchanged = 0
    with (
        RowWriter(folder / SFT, demonstrations_schema(schema)) as demonstrations,
        RowWriter(folder / place, of_pairs) as comparisons,
    ):
        for row in written_rows(folder):
            for demonstration in demonstration_rows(row):
                demonstrations.write(demonstration)
            if is_assumed and is_unchanged(row):
                unchanged += 1
            elif (comparison := comparison_row(row, schema, seed=seed)) is not None:
                comparisons.write(assumed_row(comparison) if is_assumed else comparison)
    return Tables(demonstrations.rows, comparisons.rows, unchanged)


async def ask_judges(
    config: ReviseConfig,
    folder: Path,
    judges: tuple[Backend, ...],
    listener: Listener,
    command: str,
    *,
    spent: float,
) -> LabelOutcome:
    """Label the comparisons: a run of `rlaif label` inside the run folder.

    Args:
        config: How the judges are asked.
        folder: The run folder.
        judges: Who is asked; closed by the caller.
        listener: Told how far it is.
        command: How a person would repeat the whole run.
        spent: USD that the calls before came to, which count against `--max-cost`.

    Raises:
        RlaifError: As `run_label`.
    """
    calls = config.calls
    if calls.max_cost is not None:
        calls = dataclasses.replace(calls, max_cost=max(0.0, calls.max_cost - spent))
    label = LabelConfig(
        str(folder / UNLABELED),
        str(folder / COMPARISONS),
        judging=config.judging,
        backend=config.backend,
        calls=calls,
        seed=config.seed,
    )
    _forget_other_rows(
        RunFolder(folder / COMPARISONS, "label"), scan(label.input, ReadOptions(seed=config.seed)).content_sha256
    )
    return await run_label(label, listener, backends=judges, command=command)


def preference_of(folder: Path) -> RevisionPreference:
    """What the judge makes of the revisions of a run whose comparisons are labeled.

    Raises:
        RunFolderError: The labels cannot be read.
    """
    found = RevisionPreference()
    for row in written_rows(folder / COMPARISONS):
        initial, revision, prob = row["response_a"], row["response_b"], 1.0 - row["prob_a"]
        if row["revised"] == "a":
            initial, revision, prob = revision, initial, row["prob_a"]
        found.add(initial, revision, prob)
    return found


def _forget_other_rows(folder: RunFolder, input_sha256: str) -> None:
    """Remove the labels of other comparisons, made under a lower `--limit`: all is written anew from the journal, which
    stays, so that no judge is asked again."""
    known = folder.read()
    if known is None or known.get("decisive", {}).get("input") == input_sha256:
        return
    shutil.rmtree(folder.path / "data", ignore_errors=True)
    for name in ("README.md", "failures.jsonl", "run.json"):  # without the last, the others would be a stranger's
        (folder.path / name).unlink(missing_ok=True)
