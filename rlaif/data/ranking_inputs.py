"""Rows that policies and candidates are ranked by: comparisons with `prob_a` and who wrote their responses, or rated
responses. Streamed; each is read once more than the scan that checks it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import orjson

from rlaif.data.answers import LabelAnswers
from rlaif.data.candidates import CandidatesReader
from rlaif.data.columns import RowFault, described, finite_number
from rlaif.data.comparisons import ComparisonReader
from rlaif.data.files import RowSource
from rlaif.data.judged import cluster_of
from rlaif.data.paths import value_at
from rlaif.data.preferences import OUR_COLUMNS
from rlaif.data.schema import ColumnType
from rlaif.data.sources import InputSummary, ReadOptions, input_failure, read_rows, scan_rows
from rlaif.errors import ConfigError, InputError
from rlaif.records import Candidates, Comparison, Failure

POLICY_COLUMNS = ("policy_a", "policy_b")
CANDIDATE_COLUMNS = ("candidates_id", "candidate_a", "candidate_b")

Kind = Literal["labels", "ratings"]

_FIRST_ROWS = 50


@dataclass(frozen=True, slots=True)
class RankingOptions:
    """How rows are read.

    Attributes:
        reading: As for labeling.
        by: Paths to what names the policies: of A and of B, or, of rated responses, one; None for the columns that
            `rlaif generate` writes, where they are there.
        cluster: Path to the column whose equal values belong together; None for the prompt.
    """

    reading: ReadOptions = field(default_factory=ReadOptions)
    by: tuple[str, ...] | None = None
    cluster: str | None = None


class CandidatePair(NamedTuple):
    """Which two candidates of one prompt a comparison is of."""

    id: str
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class LabeledMatch:
    """A labeled comparison as a match.

    Attributes:
        line: Where it stands.
        comparison: Its `extra` holds the input's columns but ours, those of the label and of the candidates.
        prob_a: P(A preferred), in [0, 1]; None where the judge gave no usable answer.
        policies: Who wrote A, and who B; None where the input does not say.
        candidates: None where the input does not say.
        cluster: What is resampled together.
    """

    line: int
    comparison: Comparison
    prob_a: float | None
    policies: tuple[str, str] | None
    candidates: CandidatePair | None
    cluster: str


@dataclass(frozen=True, slots=True)
class ScoredCandidates:
    """Rated responses to one prompt.

    Attributes:
        candidates: Its `extra` holds all the input's other columns.
        scores: One for each response.
        policies: Who wrote each; None where the input does not say.
        cluster: What is resampled together.
    """

    candidates: Candidates
    scores: tuple[float, ...]
    policies: tuple[str, ...] | None
    cluster: str


def kind_of_input(source: RowSource) -> Kind:
    """Whether the rows are labeled comparisons, or rated responses. Raises `InputError` where they are neither."""
    rows = (row.values for row in itertools.islice(source.read(), _FIRST_ROWS))
    first: Mapping[str, Any] = next((row for row in rows if isinstance(row, dict)), {})
    if "prob_a" in first:
        return "labels"
    if not {"rating", "reward", "ratings", "rewards"}.isdisjoint(first):
        return "ratings"
    raise InputError(
        "holds neither labels nor ratings; expected a column prob_a, as rlaif label writes it, or ratings or rewards, "
        f"as rlaif rate does; the first row has: {', '.join(map(str, first)) or 'nothing'}",
        path=source.name,
    )


@dataclass
class _Rows:
    """The rows of one input, and what was found out about it.

    Attributes:
        source: The rows.
        options: How they are read.
        summary: What the scan found.
        failures: Of rows that cannot be read, where they are skipped: those of the scan, and more as rows are read.
    """

    source: RowSource
    options: RankingOptions
    summary: InputSummary = field(init=False)
    failures: list[Failure] = field(init=False)

    def fail(self, line: int, row_id: str, fault: RowFault) -> None:
        """Count a row as one that cannot be read. Raises `InputError` where such rows are not skipped."""
        error = InputError(fault.reason, path=self.source.name, line=line, column=fault.column)
        if not self.options.reading.skip_bad_rows:
            raise error from None
        self.failures.append(input_failure(row_id, error))


@dataclass
class LabeledMatches(_Rows):
    """Labeled comparisons; iterated once.

    Raises:
        InputError: A row cannot be read and bad rows are not skipped; or the rows name neither policies nor candidates.
        ConfigError: The options name no two columns of policies.
    """

    by: tuple[str, ...] | None = field(init=False)
    has_candidates: bool = field(init=False)

    def __post_init__(self) -> None:
        self.summary = scan_rows(self.source, self.options.reading, ComparisonReader)
        self.failures = list(self.summary.failures)
        present = self.summary.extras.keys()
        self.by = self.options.by
        if self.by is None and set(POLICY_COLUMNS) <= present:
            self.by = POLICY_COLUMNS
        elif self.by is not None and len(self.by) != 2:
            raise ConfigError(
                f"by_columns: {','.join(self.by)}, expected two columns, of A and of B, joined by a comma"
            )
        self.has_candidates = set(CANDIDATE_COLUMNS) <= present
        if self.by is None and not self.has_candidates:
            raise InputError(
                f"names no policies; expected columns {' and '.join(POLICY_COLUMNS)}, or the columns that name who "
                "wrote A and who wrote B with --by-columns A,B (or candidates_id, candidate_a and candidate_b, to rank "
                f"the candidates of each prompt); the rows have: {', '.join(present) or 'no other columns'}",
                path=self.source.name,
            )

    @property
    def kept_columns(self) -> tuple[str, ...]:
        """The input's columns that a row of ranked candidates may keep."""
        taken = {*OUR_COLUMNS, "principle", *CANDIDATE_COLUMNS, *(self.by or ())}
        return tuple(name for name in self.summary.extras if name not in taken)

    def __iter__(self) -> Iterator[LabeledMatch]:
        answers = LabelAnswers()
        kept = self.kept_columns
        reader = ComparisonReader(self.source.name, self.options.reading.columns, self.options.reading.seed)
        for line, row, comparison in read_rows(self.source, self.options.reading, ComparisonReader, self.summary):
            try:
                answer = answers.take(row, comparison, is_ranked=reader.is_ranked(row))()
                yield LabeledMatch(
                    line=line,
                    comparison=_with_extra(comparison, kept),
                    prob_a=answer.prob_a,
                    policies=None if self.by is None else (_name(row, self.by[0]), _name(row, self.by[1])),
                    candidates=_candidate_pair(row) if self.has_candidates else None,
                    cluster=cluster_of(row, comparison.prompt, self.options.cluster),
                )
            except RowFault as fault:
                self.fail(line, comparison.id, fault)


@dataclass
class RatedRows(_Rows):
    """Rated responses; iterated once.

    Raises:
        InputError: A row cannot be read and bad rows are not skipped.
        ConfigError: The options name more than one column of policies.
    """

    by: str | None = field(init=False)
    is_single: bool = field(init=False)
    scores: str = field(init=False)
    """The column that the scores stand in."""

    def __post_init__(self) -> None:
        self.summary = scan_rows(self.source, self.options.reading, CandidatesReader)
        self.failures = list(self.summary.failures)
        self.is_single = self.summary.is_single
        present = self.summary.extras
        if self.options.by is not None and len(self.options.by) != 1:
            given = ",".join(self.options.by)
            raise ConfigError(
                f"by_columns: {given}, expected one column: each of these rows names who wrote what is rated"
            )
        usual = "policy" if self.is_single else "policies"
        self.by = self.options.by[0] if self.options.by else usual if usual in present else None
        names = ("rating", "reward") if self.is_single else ("ratings", "rewards")
        known = [name for name in names if name in present and not _is_empty(present[name])]
        if not known:
            found = f"has no {names[0]} and no {names[1]}; rate the rows first (rlaif rate)"
            raise InputError(f"{found}; the rows have: {', '.join(present)}", path=self.source.name, column=names[0])
        self.scores = known[0]
        if self.by is None and self.is_single:
            raise InputError(
                "names no policies; expected a column policy, or the column that names who wrote the response with "
                f"--by-columns; the rows have: {', '.join(present)}",
                path=self.source.name,
            )

    def __iter__(self) -> Iterator[ScoredCandidates]:
        for line, row, candidates in read_rows(self.source, self.options.reading, CandidatesReader, self.summary):
            try:
                count = len(candidates.responses)
                scores = [row.get(self.scores)] if self.is_single else _list(row.get(self.scores), self.scores, count)
                yield ScoredCandidates(
                    candidates=candidates,
                    scores=tuple(_score(each, self.scores) for each in scores),
                    policies=self._policies(row, count),
                    cluster=cluster_of(row, candidates.prompt, self.options.cluster),
                )
            except RowFault as fault:
                self.fail(line, candidates.id, fault)

    def _policies(self, row: Mapping[str, Any], count: int) -> tuple[str, ...] | None:
        if self.by is None:
            return None
        if self.is_single:
            return (_name(row, self.by),)
        return tuple(_name_of(each, self.by) for each in _list(_value(row, self.by), self.by, count))


def _is_empty(column: ColumnType) -> bool:
    """Whether a column holds nulls only, or lists of nulls, as a reward model leaves its ratings."""
    return column.kind == "null" or (column.item is not None and column.item.kind == "null")


def _with_extra(comparison: Comparison, kept: Sequence[str]) -> Comparison:
    return Comparison(
        id=comparison.id,
        prompt=comparison.prompt,
        response_a=comparison.response_a,
        response_b=comparison.response_b,
        extra={name: comparison.extra.get(name) for name in kept},
        is_conversational=comparison.is_conversational,
    )


def _value(row: Mapping[str, Any], path: str) -> Any:
    try:
        return value_at(row, path)
    except KeyError:
        raise RowFault(f"is missing; the row has: {', '.join(row)}", path) from None


def _name(row: Mapping[str, Any], path: str) -> str:
    return _name_of(_value(row, path), path)


def _name_of(value: Any, path: str) -> str:
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and value == value:  # a number names a policy too
        return str(value)
    raise RowFault(f"is {'empty' if value == '' else described(value)}, expected the name of a policy", path)


def _candidate_pair(row: Mapping[str, Any]) -> CandidatePair:
    name, first, second = (_value(row, column) for column in CANDIDATE_COLUMNS)
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise RowFault(f"is {described(name)}, expected the id of the candidates", CANDIDATE_COLUMNS[0])
    places = [_place(each, column) for each, column in zip((first, second), CANDIDATE_COLUMNS[1:], strict=True)]
    if places[0] == places[1]:
        raise RowFault(f"is {places[1]} as candidate_a is, expected another candidate", CANDIDATE_COLUMNS[2])
    return CandidatePair(str(name), places[0], places[1])


def _place(value: Any, column: str) -> int:
    number = finite_number(value)  # a text, in CSV
    if number is None or number < 0 or number != int(number):
        raise RowFault(f"is {described(value)}, expected the number of a candidate, from 0", column)
    return int(number)


def _list(value: Any, column: str, count: int) -> Sequence[Any]:
    if isinstance(value, str):  # CSV has no lists
        with suppress(orjson.JSONDecodeError):  # what is no list is refused below
            value = orjson.loads(value)
    if not isinstance(value, list | tuple) or len(value) != count:
        raise RowFault(f"is {described(value)}, expected a list of {count}, one a response", column)
    return value


def _score(value: Any, column: str) -> float:
    score = finite_number(value)
    if score is None:
        raise RowFault(f"holds {'nothing' if value == '' else described(value)}, expected a finite number", column)
    return score
