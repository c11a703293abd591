"""Everything that `rlaif rank` reads of an input, gathered: matches or ratings by policy, candidates by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlaif.auditing.ranking_results import Matches, Ratings
from rlaif.auditing.table import IntArray
from rlaif.data.columns import RowFault
from rlaif.data.files import open_source
from rlaif.data.ranking_inputs import (
    Kind,
    LabeledMatch,
    LabeledMatches,
    RankingOptions,
    RatedRows,
    ScoredCandidates,
    kind_of_input,
)
from rlaif.data.rankings import CandidateSet, RankingSchema, ranking_schema, types_of_extras
from rlaif.errors import InputError
from rlaif.records import Failure

MOST_POLICIES = 200


@dataclass(frozen=True)
class RankInputs:
    """What was read.

    Attributes:
        name: What messages call the input.
        kind: Whether it holds labels or ratings.
        by: The columns that name policies; None where none do.
        content_sha256: Of the input's content.
        counts: Of rows, by what became of them.
        failures: Rows that cannot be read, where they are skipped.
        matches, ratings: By policy; None where the input names none, or holds the other kind.
        sets: Candidates that were compared.
        rated: Candidates that were rated.
        schema: Of the rows that are written; None where the input does not say what is a candidate of what.
        left_out: Columns that differ between the comparisons of one prompt, and so are none of its row's.
    """

    name: str
    kind: Kind
    by: tuple[str, ...] | None
    content_sha256: str
    counts: Mapping[str, int]
    failures: tuple[Failure, ...]
    matches: Matches | None = None
    ratings: Ratings | None = None
    sets: tuple[CandidateSet, ...] = ()
    rated: tuple[ScoredCandidates, ...] = ()
    schema: RankingSchema | None = None
    left_out: tuple[str, ...] = ()


def read_rank_inputs(given: object, options: RankingOptions, *, tie_band: float) -> RankInputs:
    """Read an input.

    Args:
        given: As in `rlaif.data.files.open_source`.
        options: How it is read.
        tie_band: A probability this close to 0.5 is a tie.

    Raises:
        InputError, ConfigError: As `rlaif.data.ranking_inputs`; or the columns name more than `MOST_POLICIES` policies.
    """
    source = open_source(given)
    if kind_of_input(source) == "labels":
        return _labels(LabeledMatches(source, options), tie_band)
    return _ratings(RatedRows(source, options))


@dataclass
class _Gathered:
    """Matches as they come."""

    tie_band: float
    names: list[tuple[str, str]] = field(default_factory=list)
    probs: list[float] = field(default_factory=list)
    ties: list[bool] = field(default_factory=list)
    clusters: list[str] = field(default_factory=list)
    sets: dict[str, CandidateSet] = field(default_factory=dict)
    varying: set[str] = field(default_factory=set)
    labeled: int = 0
    unlabeled: int = 0
    identical: int = 0
    tied: int = 0
    same_policy: int = 0

    def add(self, match: LabeledMatch) -> None:
        """Take a row. Raises `RowFault` where it does not fit to the other candidates of its prompt."""
        if match.prob_a is None:
            self.unlabeled += 1
            return
        comparison = match.comparison
        is_identical = comparison.response_a == comparison.response_b
        is_tie = is_identical or abs(match.prob_a - 0.5) <= self.tie_band
        prob = 0.5 if is_tie else match.prob_a
        pair = match.candidates
        if pair is not None:
            fresh = CandidateSet(pair.id, comparison.prompt, comparison.extra)
            candidates = self.sets.get(pair.id, fresh)
            self.varying |= candidates.add(match, prob, is_tie=is_tie)
            self.sets[pair.id] = candidates
        self.labeled += 1
        self.identical += is_identical
        self.tied += is_tie
        if match.policies is None:
            return
        if match.policies[0] == match.policies[1]:
            self.same_policy += 1
            return
        self.names.append(match.policies)
        self.probs.append(prob)
        self.ties.append(is_tie)
        self.clusters.append(match.cluster)

    def matches(self, source: str, by: Sequence[str]) -> Matches:
        """As arrays; policies are numbered in the order of their names."""
        items, numbers = _numbered([name for pair in self.names for name in pair], source, by)
        pairs = numbers.reshape(len(self.names), 2)
        return Matches(
            items=items,
            first=pairs[:, 0],
            second=pairs[:, 1],
            prob=np.array(self.probs, dtype=np.float64),
            is_tie=np.array(self.ties, dtype=np.bool_),
            clusters=_clusters(self.clusters),
        )


def _labels(rows: LabeledMatches, tie_band: float) -> RankInputs:
    gathered = _Gathered(tie_band)
    for match in rows:
        try:
            gathered.add(match)
        except RowFault as fault:
            rows.fail(match.line, match.comparison.id, fault)
    if not gathered.labeled:
        first = f"; the first that cannot be read: {rows.failures[0].error}" if rows.failures else ""
        raise InputError(f"none of its rows has a label, expected prob_a{first}", path=rows.source.name)
    sets = tuple(gathered.sets.values())
    kept = types_of_extras(sets, gathered.varying)
    schema = ranking_schema(
        kept,
        is_conversational=rows.summary.is_conversational,
        has_policies=rows.by is not None,
        has_strengths=True,
    )
    counts = {
        "input": rows.summary.rows + len(rows.summary.failures),
        "labeled": gathered.labeled,
        "without_label": gathered.unlabeled,
        "ties": gathered.tied,
        "identical_responses": gathered.identical,
        "same_policy": gathered.same_policy,
        "failures": len(rows.failures),
    }
    return RankInputs(
        name=rows.source.name,
        kind="labels",
        by=rows.by,
        content_sha256=rows.summary.content_sha256,
        counts=counts,
        failures=tuple(rows.failures),
        matches=gathered.matches(rows.source.name, rows.by) if rows.by is not None else None,
        sets=sets,
        schema=schema if rows.has_candidates else None,
        left_out=tuple(name for name in rows.kept_columns if name in gathered.varying),
    )


def _ratings(rows: RatedRows) -> RankInputs:
    rated = tuple(rows)
    if not rated:
        raise InputError(
            f"none of its {len(rows.failures)} rows can be read; the first: {rows.failures[0].error}",
            path=rows.source.name,
        )
    ratings = None
    if rows.by is not None:
        names = [name for each in rated for name in each.policies or ()]
        items, item = _numbered(names, rows.source.name, (rows.by,))
        score = np.array([score for each in rated for score in each.scores], dtype=np.float64)
        ratings = Ratings(items, item, score, _clusters([each.cluster for each in rated for _ in each.scores]))
    extras = {name: kind for name, kind in rows.summary.extras.items() if name != rows.by}
    schema = ranking_schema(
        extras,
        is_conversational=rows.summary.is_conversational,
        has_policies=rows.by is not None,
        has_strengths=False,
    )
    counts = {
        "input": rows.summary.rows + len(rows.summary.failures),
        "responses": sum(len(each.scores) for each in rated),
        "failures": len(rows.failures),
    }
    return RankInputs(
        name=rows.source.name,
        kind="ratings",
        by=None if rows.by is None else (rows.by,),
        content_sha256=rows.summary.content_sha256,
        counts=counts,
        failures=tuple(rows.failures),
        ratings=ratings,
        rated=() if rows.is_single else rated,
        schema=None if rows.is_single else schema,
    )


def _numbered(names: Sequence[str], source: str, by: Sequence[str]) -> tuple[tuple[str, ...], IntArray]:
    """All different names in their order, and the number of each among them."""
    known = sorted(set(names))
    if len(known) > MOST_POLICIES:
        raise InputError(
            f"names {len(known):,} policies, expected at most {MOST_POLICIES} (the first: {known[0]!r}); do the "
            "columns hold who wrote the responses? Name others with --by-columns",
            path=source,
            column=", ".join(by),
        )
    places = {name: place for place, name in enumerate(known)}
    return tuple(known), np.array([places[name] for name in names], dtype=np.int64)


def _clusters(names: Sequence[str]) -> IntArray:
    return (
        np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]
        .astype(np.int64)
        .reshape(len(names))
    )
