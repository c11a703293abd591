"""What `rlaif filter` reads: labeled pairs as they stand in a file or a run folder, or pairs made of rated candidates.
Each can be read again and again, with bounded memory; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.data.candidate_pairs import OF_CANDIDATES, OUR_COLUMNS, PairSchema, RatedRow, arrow_schema, to_pair_row
from rlaif.data.columns import RowFault, described, finite_number, other_columns
from rlaif.data.files import RowSource
from rlaif.data.filtering import FilterRow
from rlaif.data.pairing import FINISH_COLUMNS, in_drawn_order
from rlaif.data.schema import (
    ColumnType,
    ColumnTypes,
    name_user_columns,
    prompt_value,
    user_fields,
    user_values,
)
from rlaif.data.selecting import SelectionOptions, preference, select_pairs
from rlaif.data.sources import InputSummary, ReadOptions, read_rows, scan_rows
from rlaif.data.training_methods import MethodNeeds, TrainingOptions
from rlaif.data.training_readers import PairPlan, PairReader, RatedPlan, RatedReader
from rlaif.errors import InputError
from rlaif.randomness import seeded_random
from rlaif.records import Candidates, Comparison

if TYPE_CHECKING:
    import pyarrow as pa

_OPTIONS = TrainingOptions(MethodNeeds("rlaif filter"))
_TEXT = ColumnType("text")
_MESSAGES = ColumnType("list", ColumnType("struct", fields=(("role", _TEXT), ("content", _TEXT))))


class InputPair(NamedTuple):
    """A labeled pair.

    Attributes:
        line: Where it comes from, 1-based.
        row: What filters look at.
        values: Its columns.
    """

    line: int
    row: FilterRow
    values: Mapping[str, Any]


class RowLayout(NamedTuple):
    """How pairs are written: the Arrow schema of all rows, and what makes a row of a pair."""

    schema: pa.Schema
    to_row: Callable[[InputPair], dict[str, Any]]


@dataclass
class _LabeledReader(PairReader):
    """Reads labeled pairs; says what is wrong with a row without a label in the words of this command."""

    options: TrainingOptions = field(default_factory=lambda: _OPTIONS)

    def plan_of(self, row: Mapping[str, Any]) -> PairPlan:
        plan = self._plan_of(tuple(row))
        assert isinstance(plan, PairPlan)
        return plan

    def _check_label(
        self, row: Mapping[str, Any], plan: PairPlan, prob_a: float | None, comparison: Comparison
    ) -> None:
        if prob_a is None:
            found = "is missing" if plan.prob is None else f"is {described(plan.prob.of(row))}"
            raise RowFault(
                f"{found}, expected a probability from 0 to 1; label the rows first (rlaif label)",
                "prob_a" if plan.prob is None else plan.prob.path,
            )


class LabeledPairs:
    """The labeled pairs of an input.

    Args:
        source: The input.
        reading: How it is read; the seed draws which of chosen and rejected is A, which no filter looks at.

    Raises:
        InputError: A row cannot be read or has no label, and bad rows are not skipped; or no row is left.
    """

    def __init__(self, source: RowSource, reading: ReadOptions) -> None:
        self.source = source
        self._reading = reading
        self.summary: InputSummary = scan_rows(source, reading, _LabeledReader)
        _check_any(self.summary)

    def read(self) -> Iterator[InputPair]:
        """Each pair, its values as they stand in the input."""
        for line, values, comparison in read_rows(self.source, self._reading, _LabeledReader, self.summary):
            yield InputPair(line, _filter_row(values, comparison), values)

    def layout(self) -> RowLayout:
        """How the pairs are written: with the input's own columns. Reads the input once.

        Raises:
            InputError: `chosen` and `rejected` are texts in some rows and messages in others.
        """
        import pyarrow as pa

        reader = _LabeledReader(self.source.name, self._reading.columns, self._reading.seed)
        types, parts = ColumnTypes(), dict[str, str]()
        for pair in self.read():
            types.update(pair.values)
            parts.update(_parts_of(reader.plan_of(pair.values)))
        mixed = {name: parts[name] for name, column in types.types.items() if column.is_json and name in parts}
        for name, part in mixed.items():
            if part == "ranked":
                reason = "holds texts in some rows and messages in others, expected one kind in all"
                raise InputError(reason, path=self.source.name, column=name)
        known = {name: _MESSAGES if part == "prompt" else _TEXT for name, part in mixed.items()}
        columns = name_user_columns({**types.types, **known}, set())

        def to_row(pair: InputPair) -> dict[str, Any]:
            row = pair.row
            plain = {
                "id": row.id,
                "prompt": prompt_value(row.prompt, is_conversational=True),
                "a": row.response_a,
                "b": row.response_b,
            }
            repaired = {name: plain[part] for name, part in mixed.items() if pair.values.get(name) is not None}
            return user_values({**pair.values, **repaired}, columns)

        return RowLayout(pa.schema(user_fields(columns)), to_row)


def _parts_of(plan: PairPlan) -> dict[str, str]:
    """Column -> what it is of a pair."""
    responses = ("ranked", "ranked") if plan.is_ranked else ("a", "b")
    cells = zip((plan.id, plan.prompt, plan.first, plan.second), ("id", "prompt", *responses), strict=True)
    return {cell.path: part for cell, part in cells if cell is not None and cell.is_column}


def _filter_row(values: Mapping[str, Any], comparison: Comparison) -> FilterRow:
    def number(name: str) -> float | None:
        return finite_number(values.get(name))

    masses = (number("label_mass_ab"), number("label_mass_ba"))
    reasons = (values.get(name) for name in FINISH_COLUMNS)
    return FilterRow(
        id=comparison.id,
        prompt=comparison.prompt,
        response_a=comparison.response_a,
        response_b=comparison.response_b,
        prob_a=comparison.extra["prob_a"],
        prob_a_ab=number("prob_a_ab"),
        prob_a_ba=number("prob_a_ba"),
        label_masses=tuple(mass for mass in masses if mass is not None),
        finish_reasons=tuple(reason for reason in reasons if isinstance(reason, str) and reason),
    )


def _check_any(summary: InputSummary) -> None:
    if summary.rows == 0:
        first = summary.failures[0].error
        raise InputError(
            f"none of its {len(summary.failures)} rows can be read; the first: {first}", path=summary.source
        )


@dataclass
class _RatedReader(RatedReader):
    """Reads rated candidates, and tells which of their columns pairs keep."""

    options: TrainingOptions = field(default_factory=lambda: _OPTIONS)

    def kept_columns(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Columns of a row that can be read which are not of its candidates."""
        plan = self._plan_of(tuple(row))
        assert isinstance(plan, RatedPlan)
        cells = (plan.id, plan.prompt, plan.responses, *(cell for _, cell in plan.scores))
        return tuple(name for name in other_columns(tuple(row), cells) if name not in OF_CANDIDATES)


@dataclass
class SelectionCounts:
    """What became of the candidates.

    Attributes:
        rows: Rows of candidates.
        candidates: Responses in them.
        pairs: Pairs made of them.
        without_pair: Rows that made no pair.
        left_over: Candidates that rejection sampling accepted and that found no partner.
        largest: The largest probability with which one candidate of a row is preferred to another, and that row's id.
        largest_difference: Of the scores of these two.
    """

    rows: int = 0
    candidates: int = 0
    pairs: int = 0
    without_pair: int = 0
    left_over: int = 0
    largest: tuple[float, str] = (0.5, "")
    largest_difference: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """As it stands in `run.json`."""
        return {
            "rows": self.rows,
            "candidates": self.candidates,
            "pairs": self.pairs,
            "rows_without_pair": self.without_pair,
            "left_over": self.left_over,
            "largest_preference": self.largest[0],
            "largest_preference_id": self.largest[1] or None,
        }


class CandidatePairs:
    """Pairs made of rated candidates.

    Args:
        source: The input.
        reading: How it is read; the seed draws for rejection sampling, and which of a pair is A.
        options: Which candidates become pairs.

    Attributes:
        counts: Of the last complete pass.

    Raises:
        InputError: A row cannot be read, has no list of responses or no scores, and bad rows are not skipped; or no row
            is left.
    """

    def __init__(self, source: RowSource, reading: ReadOptions, options: SelectionOptions) -> None:
        self.source = source
        self.counts = SelectionCounts()
        self._reading = reading
        self._options = options
        self.summary: InputSummary = scan_rows(source, reading, _RatedReader)
        _check_any(self.summary)
        if self.summary.is_single:
            raise InputError(
                "holds one response a row, and pairs are made of several; expected rows with the columns responses and "
                "ratings or rewards",
                path=source.name,
            )
        self._schema: PairSchema | None = None

    def read(self) -> Iterator[InputPair]:
        """Each pair, its values those of the row that is written."""
        schema = self._find_schema()
        counts, seed = SelectionCounts(), self._reading.seed
        for line, rated in self._rated():
            candidates, scores = rated.candidates, rated.scores
            rng = seeded_random(seed, candidates.id, "rejection sampling")
            selection = select_pairs(scores, self._options, rng)
            _count(counts, candidates.id, scores, len(selection.pairs), selection.left_over, self._options.tau)
            for first, second in selection.pairs:
                pair = in_drawn_order(first, second, seed=seed, row_id=candidates.id)
                values = to_pair_row(rated, pair, self._options.tau, schema)
                yield InputPair(line, _pair_filter_row(candidates, values), values)
        self.counts = counts

    def layout(self) -> RowLayout:
        """How the pairs are written."""
        return RowLayout(arrow_schema(self._find_schema()), lambda pair: dict(pair.values))

    def _find_schema(self) -> PairSchema:
        """Which columns the pairs have; reads the input at the first call."""
        if self._schema is None:
            types = ColumnTypes()
            has_policies = has_finish_reasons = False
            for _, rated in self._rated():
                types.update(rated.candidates.extra)
                has_policies |= bool(rated.policies)
                has_finish_reasons |= bool(rated.finish_reasons)
            self._schema = PairSchema(
                is_conversational=self.summary.is_conversational,
                has_policies=has_policies,
                has_finish_reasons=has_finish_reasons,
                extras=name_user_columns(types.types, OUR_COLUMNS),
            )
        return self._schema

    def _rated(self) -> Iterator[tuple[int, RatedRow]]:
        reader = _RatedReader(self.source.name, self._reading.columns, self._reading.seed)
        for line, values, candidates in read_rows(self.source, self._reading, _RatedReader, self.summary):
            extra = {name: values[name] for name in reader.kept_columns(values)}
            lists = [
                _one_each(values.get(name), len(candidates.responses), self.source.name, line, name)
                for name in ("policies", "finish_reasons")
            ]
            yield line, RatedRow(replace(candidates, extra=extra), candidates.extra["scores"], *lists)


def _one_each(value: Any, count: int, path: str, line: int, column: str) -> tuple[str | None, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or len(value) != count:
        reason = f"is {described(value)}, expected a list of {count} texts, one a response"
        raise InputError(reason, path=path, line=line, column=column)
    return tuple(each if isinstance(each, str) else None for each in value)


def _count(
    counts: SelectionCounts, row_id: str, scores: tuple[float, ...], pairs: int, left_over: int, tau: float
) -> None:
    counts.rows += 1
    counts.candidates += len(scores)
    counts.pairs += pairs
    counts.without_pair += pairs == 0
    counts.left_over += left_over
    difference = max(scores) - min(scores)
    if difference > counts.largest_difference:
        counts.largest_difference = difference
        counts.largest = (preference(max(scores), min(scores), tau), row_id)


def _pair_filter_row(candidates: Candidates, values: Mapping[str, Any]) -> FilterRow:
    reasons = (values.get(name) for name in FINISH_COLUMNS)
    return FilterRow(
        id=values["id"],
        prompt=candidates.prompt,
        response_a=values["response_a"],
        response_b=values["response_b"],
        prob_a=values["prob_a"],
        finish_reasons=tuple(reason for reason in reasons if reason),
    )
