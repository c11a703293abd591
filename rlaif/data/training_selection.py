"""Which rows are trained on and which are held out: filters, rows of one response joined to rankings, the split by
prompt, and counts of each. Pure functions over records."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Generic, NamedTuple, TypeVar

from rlaif.data.training_methods import KEEP_ALL, RowFilters, check_share
from rlaif.errors import ConfigError
from rlaif.randomness import seeded_random
from rlaif.records import Turn, Verdict, verdict_of
from rlaif.training_records import LabeledPair, RatedCandidates, TrainingRow

RowT = TypeVar("RowT", bound=TrainingRow)
KeyT = TypeVar("KeyT", bound=Hashable)


class Dropped(StrEnum):
    """Why a row is left out; the value says it in messages."""

    NO_HUMAN_LABEL = "without a human label"
    NO_LABEL = "without a label"
    TIE = "ties"
    UNSURE = "under the least confidence"
    TOO_FEW = "with too few responses"


@dataclass(frozen=True, slots=True)
class FilterCounts:
    """How many rows there were, how many of them are left out for which reason, and how many are left."""

    before: int
    dropped: Mapping[Dropped, int]
    after: int

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.dropped.items() if count)
        return f"{self.after} of {self.before} rows kept{f' (dropped: {reasons})' if reasons else ''}"


class Filtered(NamedTuple, Generic[RowT]):
    """The rows that are left, in their order, and how many are not."""

    rows: tuple[RowT, ...]
    counts: FilterCounts


def filter_rows(
    rows: Iterable[RowT],
    filters: RowFilters = KEEP_ALL,
    *,
    prob_of: Callable[[LabeledPair], float | None] | None = None,
    fewest_responses: int = 1,
) -> Filtered[RowT]:
    """Leave rows out.

    Args:
        rows: Records.
        filters: Which are left out.
        prob_of: The P(A preferred) of a pair that ties and confidence are told by; None for `prob_a`.
        fewest_responses: Candidates with fewer are left out.

    Returns:
        The rest; a row that could be left out for several reasons is counted under the first of `Dropped`.
    """
    kept = []
    dropped = Counter(dict.fromkeys(Dropped, 0))
    before = 0
    for row in rows:
        before += 1
        reason = why_dropped(row, filters, prob_of=prob_of, fewest_responses=fewest_responses)
        if reason is None:
            kept.append(row)
        else:
            dropped[reason] += 1
    return Filtered(tuple(kept), FilterCounts(before, dict(dropped), len(kept)))


def why_dropped(
    row: TrainingRow,
    filters: RowFilters = KEEP_ALL,
    *,
    prob_of: Callable[[LabeledPair], float | None] | None = None,
    fewest_responses: int = 1,
) -> Dropped | None:
    """Why a row is left out; None for one that is kept. Arguments are those of `filter_rows`.

    Exchanging A and B changes nothing.
    """
    if isinstance(row, RatedCandidates):
        if len(row.scores) < fewest_responses:
            return Dropped.TOO_FEW
        is_tie = len(row.scores) > 1 and min(row.scores) == max(row.scores)
        return Dropped.TIE if is_tie and filters.ties == "drop" else None
    if not isinstance(row, LabeledPair):
        return None
    if filters.only_human and not row.has_human_label:
        return Dropped.NO_HUMAN_LABEL
    prob = row.prob_a if prob_of is None else prob_of(row)
    if prob is None:
        return Dropped.NO_LABEL if filters.min_confidence > 0.5 or filters.ties == "drop" else None
    if filters.ties == "drop" and verdict_of(prob, filters.tie_band) is Verdict.TIE:
        return Dropped.TIE
    return Dropped.UNSURE if max(prob, 1.0 - prob) < filters.min_confidence else None


def join_by_prompt(rows: Iterable[RatedCandidates]) -> tuple[RatedCandidates, ...]:
    """Join rows of one rated response to one row a prompt, which can be ranked.

    Args:
        rows: Those that are lists of responses are left as they are.

    Returns:
        In the order in which prompts come first; each has the id of its first row.
    """
    together: dict[object, list[RatedCandidates]] = {}
    for place, row in enumerate(rows):
        together.setdefault(row.prompt if row.candidates.is_single else place, []).append(row)
    return tuple(group[0] if len(group) == 1 else _joined(group) for group in together.values())


def _joined(group: Sequence[RatedCandidates]) -> RatedCandidates:
    responses = tuple(response for row in group for response in row.candidates.responses)
    candidates = replace(group[0].candidates, responses=responses, is_single=False)
    return RatedCandidates(candidates, tuple(score for row in group for score in row.scores))


@dataclass(frozen=True, slots=True)
class SplitCounts:
    """How many rows, and how many prompts, stand on each side."""

    train_rows: int
    train_prompts: int
    held_out_rows: int
    held_out_prompts: int

    def __str__(self) -> str:
        return (
            f"{self.train_rows} rows of {self.train_prompts} prompts to train on, "
            f"{self.held_out_rows} rows of {self.held_out_prompts} prompts held out"
        )


class Split(NamedTuple, Generic[RowT]):
    """The rows of each side, in their order."""

    train: tuple[RowT, ...]
    held_out: tuple[RowT, ...]
    counts: SplitCounts


def split_by_prompt(rows: Iterable[RowT], share: float, seed: int) -> Split[RowT]:
    """Hold out all rows of some prompts.

    Each prompt is drawn for itself: rows that are added, left out or reordered move no other prompt to the other side,
    and a larger share holds out the same prompts and more. Only where a side would be empty does the prompt that was
    drawn nearest to it go there. Prompts are equal where every turn is, to the letter.

    Args:
        rows: Records.
        share: Probability with which a prompt is held out, in [0, 1); 0 holds out none.
        seed: Of the draw.

    Raises:
        ConfigError: `share` is outside [0, 1); or it is not 0 and there are fewer than two prompts.
    """
    check_share(share)
    kept = tuple(rows)
    prompts = dict.fromkeys(row.prompt for row in kept)
    held_out: set[tuple[Turn, ...]] = set()
    if share > 0.0:
        held_out = held_out_of({prompt: held_out_draw(prompt, seed) for prompt in prompts}, share)
    train = tuple(row for row in kept if row.prompt not in held_out)
    rest = tuple(row for row in kept if row.prompt in held_out)
    counts = SplitCounts(len(train), len(prompts) - len(held_out), len(rest), len(held_out))
    return Split(train, rest, counts)


def held_out_of(draws: Mapping[KeyT, float], share: float) -> set[KeyT]:
    """Which prompts are held out, of the numbers drawn for them; at least one, and not all.

    Args:
        draws: What `held_out_draw` gave for each prompt, by whatever tells the prompts apart.
        share: As in `split_by_prompt`, above 0.

    Raises:
        ConfigError: There are fewer than two prompts.

    >>> sorted(held_out_of({"a": 0.1, "b": 0.7, "c": 0.2}, 0.5)), held_out_of({"a": 0.6, "b": 0.7}, 0.5)
    (['a', 'c'], {'a'})
    """
    if len(draws) < 2:
        raise ConfigError(f"held_out: {share}, but there is {len(draws)} prompt, expected two to be split, or 0")
    held_out = {prompt for prompt, draw in draws.items() if draw < share}
    if not held_out:
        return {min(draws, key=draws.__getitem__)}
    if len(held_out) == len(draws):
        held_out.remove(max(draws, key=draws.__getitem__))
    return held_out


def held_out_draw(prompt: tuple[Turn, ...], seed: int) -> float:
    """The number from 0 to 1 that is drawn for a prompt: it is held out where the share is larger.

    >>> held_out_draw((Turn("user", "Why?"),), 0) == held_out_draw((Turn("user", "Why?"),), 0)
    True
    """
    turns = json.dumps([list(turn) for turn in prompt])
    return seeded_random(seed, hashlib.sha256(turns.encode()).hexdigest(), "held-out prompt").random()
