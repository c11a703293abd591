"""Comparisons with what a judge made of them, as they come: rows of a run, a table with `prob_a`, or somebody's file
with recorded verdicts. Unlike the readers for labeling, this one keeps all rows: figures are of all of them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from rlaif.data.answers import Answer, AnswerFacts, Answers, LabelAnswers, RecordedAnswers, probability_of
from rlaif.data.columns import RowFault, described
from rlaif.data.comparisons import ComparisonReader
from rlaif.data.files import RowSource, open_source
from rlaif.data.paths import value_at
from rlaif.data.recorded import RecordedColumn, missing_column, verdict_like
from rlaif.data.schema import json_text
from rlaif.data.sources import InputSummary, ReadOptions, input_failure, read_comparisons_with_values, scan
from rlaif.errors import ConfigError, InputError
from rlaif.records import Comparison, Failure, JudgedComparison, Turn

GROUP_OF_NULL = "none"
DEFAULT_GROUP = "task"

_FIRST_ROWS = 50
"""Rows that are looked at to say what an input has."""


@dataclass(frozen=True, slots=True)
class JudgedOptions:
    """How judged comparisons are read.

    Attributes:
        reading: How their rows are.
        judge_column, judge_column_ba: Paths to recorded answers with A (B) shown first; without any, `prob_a` is read.
        by: Paths to the columns that figures are split by; empty for `task`, where there is one.
        cluster: Path to the column whose equal values belong together; None for the prompt.
        flag: What messages call the setting of `judge_column`.
    """

    reading: ReadOptions = field(default_factory=ReadOptions)
    judge_column: str | None = None
    judge_column_ba: str | None = None
    by: tuple[str, ...] = ()
    cluster: str | None = None
    flag: str = "--judge-column"


@dataclass(frozen=True, slots=True)
class JudgedInput:
    """All rows of an input.

    Attributes:
        name: What messages call the input.
        rows: Those that can be read, in input order.
        failures: Of rows that cannot, where they are skipped.
        content_sha256: Of the content.
        by: Columns that `groups` of every row has.
        answers: Where the judge's answers stood, and how they were read.
    """

    name: str
    rows: tuple[JudgedComparison, ...]
    failures: tuple[Failure, ...]
    content_sha256: str
    by: tuple[str, ...]
    answers: AnswerFacts


class _Taken(NamedTuple):
    """A row whose answer is told when all rows are taken."""

    line: int
    row: JudgedComparison
    answer: Callable[[], Answer]


def read_judged(source: object, options: JudgedOptions | None = None) -> JudgedInput:
    """Read an input whose comparisons a judge has judged.

    Args:
        source: As in `rlaif.data.files.open_source`; a run folder is one of them.
        options: How to read it.

    Raises:
        InputError: A row cannot be read and bad rows are not skipped; the input holds no answers of a judge; or a
            column that was asked for is in no row.
        ConfigError: `options` name a column of ours that there is not.
    """
    options = options or JudgedOptions()
    rows = source if isinstance(source, RowSource) else open_source(source)
    summary = scan(rows, options.reading)
    _check_any(summary.rows, summary.failures, rows.name)
    first = [row.values for row in itertools.islice(rows.read(), _FIRST_ROWS) if isinstance(row.values, dict)]
    answers = _answers_of(summary, options, first)
    by = options.by or ((DEFAULT_GROUP,) if DEFAULT_GROUP in summary.extras else ())
    context = _Context(by, options.cluster)
    failures = list(summary.failures)

    def fail(line: int, row_id: str, fault: RowFault) -> None:
        error = InputError(fault.reason, path=rows.name, line=line, column=fault.column)
        if not options.reading.skip_bad_rows:
            raise error from None
        failures.append(input_failure(row_id, error))

    taken: list[_Taken] = []
    reader = ComparisonReader(rows.name, options.reading.columns, options.reading.seed)
    for line, values, comparison in read_comparisons_with_values(rows, options.reading, summary=summary):
        try:
            answer = answers.take(values, comparison, is_ranked=reader.is_ranked(values))
            taken.append(_Taken(line, context.judged(values, comparison), answer))
        except RowFault as fault:
            fail(line, comparison.id, fault)
    try:
        facts = answers.facts()
    except RowFault as fault:
        raise InputError(fault.reason, path=rows.name, column=fault.column) from None
    for column in by:
        if column not in context.found:
            raise InputError(missing_column(column, first), path=rows.name, column=column)
    judged = []
    for each in taken:
        try:
            judged.append(replace(each.row, **each.answer()._asdict()))
        except RowFault as fault:
            fail(each.line, each.row.comparison.id, fault)
    _check_any(len(judged), failures, rows.name)
    return JudgedInput(rows.name, tuple(judged), tuple(failures), summary.content_sha256, by, facts)


def _check_any(count: int, failures: Sequence[Failure], name: str) -> None:
    if count == 0:
        raise InputError(f"none of its {len(failures)} rows can be read; the first: {failures[0].error}", path=name)


class Aligned(NamedTuple):
    """Another judge's rows with their responses named as in ours.

    Attributes:
        rows: Those whose id is in ours, with the same responses; and those whose id is not.
        reversed: How many of them had A and B the other way round.
        different: Rows that are left out: same id, other responses.
    """

    rows: tuple[JudgedComparison, ...]
    reversed: int
    different: int


def aligned_to(rows: Sequence[JudgedComparison], others: Sequence[JudgedComparison]) -> Aligned:
    """Name the responses of another input's rows as ours are: which of chosen and rejected is A depends on the seed.

    Args:
        rows: Ours.
        others: Joined to them by id.
    """
    ours = {row.comparison.id: row.comparison for row in rows}
    aligned = []
    turned = different = 0
    for other in others:
        mine, theirs = ours.get(other.comparison.id), other.comparison
        pair = (theirs.response_a, theirs.response_b)
        if mine is None or pair == (mine.response_a, mine.response_b):
            aligned.append(other)
        elif pair == (mine.response_b, mine.response_a):
            aligned.append(_exchanged(other))
            turned += 1
        else:
            different += 1
    return Aligned(tuple(aligned), turned, different)


def _exchanged(row: JudgedComparison) -> JudgedComparison:
    """The row with A and B exchanged; people's labels, which nobody reads there, are dropped."""

    def other(prob: float | None) -> float | None:
        return None if prob is None else 1.0 - prob

    comparison = row.comparison
    return replace(
        row,
        comparison=replace(
            comparison,
            response_a=comparison.response_b,
            response_b=comparison.response_a,
            human_votes=(),
            human_label=None,
        ),
        prob_a=other(row.prob_a),
        prob_a_ab=other(row.prob_a_ba),
        prob_a_ba=other(row.prob_a_ab),
        rationale_ab=row.rationale_ba,
        rationale_ba=row.rationale_ab,
        by_judge=(),
    )


def check_sampling(rows: Sequence[JudgedComparison], name: str) -> None:
    """Make sure that rows with human labels can be weighted: all of them have a sampling probability, or none.

    Args:
        rows: With their human labels.
        name: What messages call the input that the probabilities stand in.

    Raises:
        InputError: Only some have.
    """
    labelled = [row for row in rows if row.comparison.human_votes or row.comparison.human_label is not None]
    without = [row.comparison.id for row in labelled if row.sampling_prob is None]
    if without and len(without) < len(labelled):
        raise InputError(
            f"{len(without)} of {len(labelled)} rows with human labels have none (the first: {without[0]!r}), so that "
            "they cannot be weighted; expected one in each, or in no row",
            path=name,
            column="sampling_prob",
        )


def sampling_prob_of(value: Any, column: str = "sampling_prob") -> float | None:
    """A sampling probability, or the text of one; None for null.

    Raises:
        RowFault: It is outside (0, 1].
    """
    number = probability_of(value, column, "a number above 0, up to 1, or null")
    if number == 0.0:
        raise RowFault("is 0, expected a number above 0, up to 1, or null", column)
    return number


def cluster_of(row: Mapping[str, Any], prompt: Sequence[Turn], column: str | None) -> str:
    """What a row's cluster is called: what stands in a column or path, or else a hash of the prompt. Raises `RowFault`
    where nothing stands there."""
    if column is None:
        return hashlib.sha256(orjson.dumps([list(turn) for turn in prompt])).hexdigest()[:16]
    try:
        value = value_at(row, column)
    except KeyError:
        raise RowFault(f"is missing; the row has: {', '.join(row)}", column) from None
    if value is None or value == "" or value != value:
        raise RowFault(f"is {described(value)}, expected what the row's cluster is called", column)
    return _text(value)


@dataclass
class _Context:
    """What a row has beside the judge's answer."""

    by: tuple[str, ...]
    cluster: str | None
    found: set[str] = field(default_factory=set)

    def judged(self, row: Mapping[str, Any], comparison: Comparison) -> JudgedComparison:
        """The row without the judge's answer. Raises `RowFault`."""
        return JudgedComparison(
            replace(comparison, extra={}),  # not looked at again, and all rows stay in memory
            prob_a=None,
            cluster=cluster_of(row, comparison.prompt, self.cluster),
            groups={column: self._group(row, column) for column in self.by},
            sampling_prob=sampling_prob_of(row.get("sampling_prob")),
        )

    def _group(self, row: Mapping[str, Any], column: str) -> str:
        try:
            value = value_at(row, column)
        except KeyError:
            return GROUP_OF_NULL
        self.found.add(column)
        return GROUP_OF_NULL if value is None or value == "" or value != value else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text(value) or ""


def _answers_of(summary: InputSummary, options: JudgedOptions, first: Sequence[Mapping[str, Any]]) -> Answers:
    """Where the judge's answers stand. Raises `InputError` where nowhere, `ConfigError` for a path that is none."""
    if options.judge_column is not None or options.judge_column_ba is not None:
        if options.judge_column == options.judge_column_ba:
            given = f"{options.flag} and {options.flag}-ba name the same column {options.judge_column!r}"
            raise ConfigError(f"{given}, expected the verdicts of each order in one of its own")
        ab, ba = (_recorded_column(path) for path in (options.judge_column, options.judge_column_ba))
        return RecordedAnswers(ab, ba, first=first)
    if "prob_a" in summary.extras:
        return LabelAnswers()
    # AlpacaEval draws for each row which of the two is shown first, and does not write it down.
    if "preference" in summary.extras and any({"output_1", "output_2"} <= row.keys() for row in first):
        return RecordedAnswers(RecordedColumn("preference"), None, first=first, is_order_known=False)
    like = verdict_like(first)
    raise InputError(
        "holds no answers of a judge; expected a column prob_a as rlaif label writes it, or the column of recorded "
        f"verdicts named with {options.flag} (and {options.flag}-ba){f', {like}' if like else ''}",
        path=summary.source,
    )


def _recorded_column(path: str | None) -> RecordedColumn | None:
    if path is None:
        return None
    parts = path.split(",")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise ConfigError(f"judge column {path!r}: expected one path, or two paths to scores joined by a comma")
    return RecordedColumn(path)
