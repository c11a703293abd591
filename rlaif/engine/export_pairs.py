"""The pairs of `rlaif export`: out of the input, decided by a label, fit for a format or named as unfit; and what has
to be known of all of them before the first row is written. Only a digest of each prompt is held in memory."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from rlaif.data.columns import PROMPT_ALIASES
from rlaif.data.comparisons import RESPONSE_PAIRS
from rlaif.data.exporting import (
    EXPORT_FORMATS,
    ExportFormat,
    ExportPair,
    FileLayout,
    is_one_user_turn,
    pair_digest,
    unfit_reason,
)
from rlaif.data.files import RowSource, open_source
from rlaif.data.preferences import OUR_COLUMNS
from rlaif.data.sources import InputSummary, ReadOptions, read_rows
from rlaif.data.training_methods import MethodNeeds, RowFilters, TrainingOptions
from rlaif.data.training_readers import PairReader
from rlaif.data.training_rows import scan_training_rows
from rlaif.data.training_selection import Dropped, held_out_draw, held_out_of, why_dropped
from rlaif.engine.export_config import ExportConfig
from rlaif.errors import ConfigError, InputError
from rlaif.records import Failure
from rlaif.train.labels import target_prob
from rlaif.training_records import LabeledPair

_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d[\d:.Z]*)?$")

STAGE = "export"
"""Where, in `failures.jsonl`, a pair failed that the format cannot hold."""


class Pairs:
    """The pairs of the input, which can be read again and again."""

    def __init__(self, config: ExportConfig) -> None:
        self._labels = config.labels
        self._options = TrainingOptions(
            MethodNeeds("rlaif export"),
            ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows),
            config.labels,
            RowFilters(ties=config.ties, only_human=config.labels == "human"),
        )
        self.source: RowSource = open_source(config.input)
        self.summary: InputSummary = scan_training_rows(self.source, self._options).input

    def read(self) -> Iterator[tuple[int, ExportPair | Dropped]]:
        """Each pair with its line, or why it is left out."""
        make = partial(PairReader, options=self._options)
        reader = make(self.source.name, self._options.reading.columns, self._options.reading.seed)
        for line, values, comparison in read_rows(self.source, self._options.reading, make, self.summary):
            row = LabeledPair(comparison, **comparison.extra)
            reason = why_dropped(row, self._options.filters, prob_of=self._prob_of)
            if reason is not None:
                yield line, reason
                continue
            prob_a = self._prob_of(row)
            assert prob_a is not None  # the reader asks for it
            yield (
                line,
                ExportPair(
                    id=comparison.id,
                    prompt=comparison.prompt,
                    response_a=comparison.response_a,
                    response_b=comparison.response_b,
                    prob_a=prob_a,
                    is_given=self._labels == "soft" and reader.is_given(values),
                ),
            )

    def left_out(self) -> tuple[str, ...]:
        """Columns of the first row that are no part of a pair, and that we do not write ourselves."""
        columns = self._options.reading.columns
        ours = {*OUR_COLUMNS, *PROMPT_ALIASES, *(name for pair in RESPONSE_PAIRS for name in pair), *columns.values()}
        first = next((values for _, values in self.source.read() if not isinstance(values, InputError)), {})
        return tuple(name for name in first if name not in ours)

    def _prob_of(self, row: LabeledPair) -> float | None:
        if self._labels == "soft":
            return row.prob_a
        comparison = row.comparison
        return target_prob("human", None, comparison.human_votes, comparison.human_label)


@dataclass
class ExportPlan:
    """What the first pass over the pairs found.

    Attributes:
        layout: What is the same for all rows.
        dropped: Pairs that are left out, by why.
        failures: Of pairs that the format cannot hold.
        changed: Pairs that it holds with a small change.
        left: Pairs that are written.
        draws: By digest of the prompt, the number drawn for it.
        dates: Texts of every pair that are a date, and nothing else: "prompts", "chosen" or "rejected".
    """

    layout: FileLayout
    dropped: Counter[Dropped] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    changed: int = 0
    left: int = 0
    draws: dict[bytes, float] = field(default_factory=dict)
    dates: set[str] = field(default_factory=lambda: {"prompts", "chosen", "rejected"})


def plan_export(config: ExportConfig, pairs: Pairs) -> ExportPlan:
    """Look at every pair once: count what is left out, name what does not fit, and find what the file's rows share."""
    export_format = EXPORT_FORMATS[config.format]
    is_conversational = pairs.summary.is_conversational if config.conversational is None else config.conversational
    plan = ExportPlan(FileLayout(is_conversational=is_conversational, has_probs=False, with_margin=config.margin))
    has_probs, is_single_turn = False, True
    for pair in fitting(pairs, export_format, plan.layout, plan.dropped, plan.failures):
        plan.left += 1
        plan.changed += export_format.is_changed(pair)
        has_probs |= not pair.is_given
        is_single_turn &= is_one_user_turn(pair.prompt, or_after_system=True)
        plan.dates -= {name for name in plan.dates if not _DATE.match(_text_of(pair, name))}
        digest = pair_digest(pair.prompt, "")
        if digest not in plan.draws:
            plan.draws[digest] = held_out_draw(pair.prompt, config.seed) if config.test_share else 0.0
    plan.layout = replace(plan.layout, has_probs=has_probs, is_single_turn=is_single_turn)
    return plan


def _text_of(pair: ExportPair, name: str) -> str:
    return pair.prompt[-1].content if name == "prompts" else pair.chosen if name == "chosen" else pair.rejected


def fitting(
    pairs: Pairs,
    export_format: ExportFormat,
    layout: FileLayout,
    dropped: Counter[Dropped],
    failures: list[Failure],
) -> Iterator[ExportPair]:
    """The pairs that are written; the others are counted and named."""
    for line, pair in pairs.read():
        if isinstance(pair, Dropped):
            dropped[pair] += 1
        elif reason := unfit_reason(export_format, pair, layout):
            error = InputError(reason, path=pairs.source.name, line=line)
            failures.append(Failure(pair.id, STAGE, f"{error.error_name}: {error}", 0))
        else:
            yield pair


def nothing_left(plan: ExportPlan, summary: InputSummary) -> str:
    """Why an export would be empty, in words."""
    reasons = [f"{count:,} {reason}" for reason, count in plan.dropped.items()]
    if plan.failures:
        reasons.append(f"{len(plan.failures):,} that the format cannot hold, the first: {plan.failures[0].error}")
    return f"no pair is left of {summary.rows:,}: {'; '.join(reasons)}"


def held_out_prompts(config: ExportConfig, plan: ExportPlan) -> set[bytes]:
    """Digests of the prompts whose rows go to the test file. Raises `ConfigError` where there is one prompt only."""
    if config.test_share == 0.0:
        return set()
    if len(plan.draws) < 2:
        raise ConfigError(f"test_share: {config.test_share}, but there is one prompt, expected two to be split, or 0")
    return held_out_of(plan.draws, config.test_share)
