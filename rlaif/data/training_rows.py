"""What models are trained on, out of anything that holds rows: labeled pairs, unpaired feedback, rated candidates,
demonstrations. A run folder is one of these inputs. A first pass checks every row, a second one streams; loading also
filters them and splits them by prompt.

What a label comes to (soft, hard, of people) is told by `rlaif.train.labels`; tokens are no matter of this module.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from rlaif.data.columns import RowReader
from rlaif.data.comparisons import RESPONSE_PAIRS
from rlaif.data.files import RowSource, open_source
from rlaif.data.sources import InputSummary, read_rows, scan_rows
from rlaif.data.training_methods import COLUMNS_OF_KIND, RowKind, TrainingOptions
from rlaif.data.training_readers import DemonstrationReader, FeedbackReader, PairReader, RatedReader
from rlaif.data.training_selection import FilterCounts, SplitCounts, filter_rows, join_by_prompt, split_by_prompt
from rlaif.errors import ConfigError, InputError
from rlaif.records import Candidates, Comparison, Failure
from rlaif.training_records import Demonstration, Feedback, LabeledPair, RatedCandidates, TrainingRow


@dataclass(frozen=True, slots=True)
class TrainingSummary:
    """What the first pass found: what every row holds, and the summary of the input."""

    kind: RowKind
    input: InputSummary


def scan_training_rows(source: object, options: TrainingOptions) -> TrainingSummary:
    """Read every row once, before a model is loaded.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How to read it.

    Raises:
        InputError: A row cannot be read or trained on (no label, a label outside [0, 1], an empty response that the
            method cannot train on) and bad rows are not skipped; or none can.
        ConfigError: The method, a column of ours or a filter that there is not, for rows of this kind.
    """
    rows = source if isinstance(source, RowSource) else open_source(source)
    kind = _kind_of_source(rows, options)
    _check_filters(kind, options, rows.name)
    summary = scan_rows(rows, options.reading, _reader_of(kind, options))
    if summary.rows == 0:
        first = summary.failures[0].error
        raise InputError(
            f"none of its {len(summary.failures)} rows can be trained on; the first: {first}", path=rows.name
        )
    return TrainingSummary(kind, summary)


def read_training_rows(
    source: object, options: TrainingOptions, *, summary: TrainingSummary | None = None
) -> Iterator[TrainingRow]:
    """Stream the rows of an input, in its order, neither filtered nor split.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How to read it. Rows that are skipped stand in the summary's failures.
        summary: What `scan_training_rows` found with the same options; without it, the input is scanned first.

    Raises:
        InputError, ConfigError: As `scan_training_rows`.
    """
    rows = source if isinstance(source, RowSource) else open_source(source)
    summary = summary or scan_training_rows(rows, options)
    kind = summary.kind
    records = read_rows(rows, options.reading, _reader_of(kind, options), summary.input)
    return (_training_row(kind, each.record) for each in records)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """All rows that a model is trained and evaluated on.

    Attributes:
        name: What messages call the input.
        kind: What every row holds.
        train, held_out: The rows, in input order; no prompt stands in both.
        failures: Of rows that cannot be read, where they are skipped.
        joined: Rows of one rated response that joined another row of their prompt.
        filtered: How many rows the filters left out.
        split: How many rows and prompts stand on each side.
        content_sha256: Of the input's content.
    """

    name: str
    kind: RowKind
    train: tuple[TrainingRow, ...]
    held_out: tuple[TrainingRow, ...]
    failures: tuple[Failure, ...]
    joined: int
    filtered: FilterCounts
    split: SplitCounts
    content_sha256: str


def load_training_rows(
    source: object, options: TrainingOptions, prob_of: Callable[[LabeledPair], float | None] | None = None
) -> TrainingData:
    """Read, filter and split an input.

    Args:
        source: As in `rlaif.data.files.open_source`.
        options: How to read it. Where the method ranks responses, rows of one rated response are joined by prompt.
        prob_of: As in `filter_rows`.

    Raises:
        InputError, ConfigError: As `scan_training_rows`, `filter_rows` and `split_by_prompt`; or no row is left.
    """
    rows = source if isinstance(source, RowSource) else open_source(source)
    summary = scan_training_rows(rows, options)
    records: Iterable[TrainingRow] = read_training_rows(rows, options, summary=summary)
    joined = 0
    needs = options.needs
    if summary.kind is RowKind.CANDIDATES and summary.input.is_single and needs.fewest_responses > 1:
        records = join_by_prompt(cast("Iterable[RatedCandidates]", records))
        joined = summary.input.rows - len(records)
    kept, counts = filter_rows(records, options.filters, prob_of=prob_of, fewest_responses=needs.fewest_responses)
    if not kept:
        raise InputError(f"no row is left of {counts.before}: {counts}; filter less", path=rows.name)
    split = split_by_prompt(kept, options.held_out, options.reading.seed)
    return TrainingData(
        name=rows.name,
        kind=summary.kind,
        train=split.train,
        held_out=split.held_out,
        failures=summary.input.failures,
        joined=joined,
        filtered=counts,
        split=split.counts,
        content_sha256=summary.input.content_sha256,
    )


def _kind_of_source(rows: RowSource, options: TrainingOptions) -> RowKind:
    needs = options.needs
    if len(needs.kinds) == 1:
        return needs.kinds[0]
    first = next((values for _, values in itertools.islice(rows.read(), 50) if not isinstance(values, InputError)), {})
    keys = frozenset(key for key in first if isinstance(key, str))
    kind = kind_of(keys, needs.kinds, options.reading.columns)
    if kind is None and first:
        takes = " or ".join(f"{each} ({COLUMNS_OF_KIND[each]})" for each in needs.kinds)
        reason = f"holds nothing that {needs.method} trains on, expected {takes}; the first row has: {', '.join(first)}"
        raise InputError(reason, path=rows.name)
    return kind or needs.kinds[0]


def kind_of(keys: Set[str], kinds: Sequence[RowKind], columns: Mapping[str, str]) -> RowKind | None:
    """What rows with these columns hold.

    Args:
        keys: Names of the columns.
        kinds: Those it may be; the first that it could be is taken.
        columns: Our column name -> the input's (`--columns`).

    >>> kind_of({"prompt", "completion", "label"}, [RowKind.PAIRS, RowKind.FEEDBACK], {})
    <RowKind.FEEDBACK: 'unpaired feedback'>
    """
    named = keys | columns.keys()
    pairs = (("response_a", "response_b"), *RESPONSE_PAIRS, ("chosen", "rejected"))
    is_kind = {
        RowKind.PAIRS: any(set(pair) <= named for pair in pairs),
        RowKind.CANDIDATES: not named.isdisjoint({"responses", "rating", "reward"}),
        RowKind.FEEDBACK: "label" in named,
        RowKind.DEMONSTRATIONS: True,
    }
    return next((kind for kind in kinds if is_kind[kind]), None)


def _check_filters(kind: RowKind, options: TrainingOptions, name: str) -> None:
    """Refuse what is asked of pairs where there are none."""
    asked = {
        "labels: human": options.labels == "human" and kind is RowKind.CANDIDATES,
        "min_confidence": options.filters.min_confidence > 0.5,
        "only_human": options.filters.only_human,
        "with_margins": options.with_margins,
    }
    faults = [what for what, is_asked in asked.items() if is_asked]
    if faults and kind is not RowKind.PAIRS:
        raise ConfigError(f"{', '.join(faults)}: needs pairs with their labels, and {name} holds {kind}")


def _reader_of(kind: RowKind, options: TrainingOptions) -> Callable[..., RowReader[Any, Any]]:
    """What makes readers for the two passes; all of them ask the same of rows."""
    readers: Mapping[RowKind, Callable[..., RowReader[Any, Any]]] = {
        RowKind.PAIRS: PairReader,
        RowKind.CANDIDATES: RatedReader,
        RowKind.FEEDBACK: FeedbackReader,
        RowKind.DEMONSTRATIONS: DemonstrationReader,
    }
    return partial(readers[kind], options=options)


def _training_row(kind: RowKind, record: Comparison | Candidates) -> TrainingRow:
    """The record of a reader, whose `extra` holds what it made of the label."""
    bare = replace(record, extra={})  # training keeps all rows in memory, and looks at no other column
    if isinstance(bare, Comparison):
        if kind is RowKind.DEMONSTRATIONS:
            return Demonstration(bare.id, bare.prompt, bare.response_a, bare.is_conversational)
        return LabeledPair(bare, **record.extra)
    if kind is RowKind.FEEDBACK:
        label, aux = record.extra["label"], record.extra["aux_rewards"]
        return Feedback(bare.id, bare.prompt, bare.responses[0], label, bare.is_conversational, aux)
    return RatedCandidates(bare, record.extra["scores"])
