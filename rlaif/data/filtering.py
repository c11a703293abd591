"""Which labeled pairs are kept: filters in a fixed order, and what each of them found. Pure: what filters look at comes
in row by row, decisions come out. Where rows are read and written is told in `filter_inputs.py`."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from rlaif.data.duplicates import DuplicateIndex
from rlaif.records import CUT_OFF, TIE_BAND, Turn, Verdict, verdict_of


class Filter(StrEnum):
    """A filter by its flag; they run in this order."""

    LABEL_MASS = "min-label-mass"
    TIES = "drop-ties"
    SWAP = "swap-consistent"
    CONFIDENCE = "min-confidence"
    LENGTH_RATIO = "max-length-ratio"
    CUT_OFF = "drop-cut-off"
    DUPLICATES = "duplicates"
    PER_PROMPT = "max-per-prompt"


@dataclass(frozen=True)
class FilterOptions:
    """Which pairs are dropped. Exchanging A and B of a pair changes nothing for any of these."""

    min_label_mass: Annotated[float, "0 to 1"] | None = None
    """Drop pairs where less of the judge's next-token probability fell on the two labels, in either order."""

    drop_ties: bool = False
    """Drop pairs whose prob_a is within --tie-band of 0.5."""

    tie_band: Annotated[float, "0 to 0.5"] = TIE_BAND
    """A probability this close to 0.5 is a tie."""

    swap_consistent: bool = False
    """Drop pairs judged in both orders whose verdict is not the same in both; pairs judged in one order are kept, and
    counted."""

    min_confidence: Annotated[float, "0.5 to 1"] | None = None
    """Drop pairs whose preferred response is preferred with a lower probability."""

    max_length_ratio: Annotated[float, "at least 1"] | None = None
    """Drop pairs whose longer response has more than so many times the characters of the shorter one."""

    drop_cut_off: bool = False
    """Drop pairs with a response that was cut off at the most tokens allowed (finish_reason_a or _b is length)."""

    duplicates: Literal["keep", "exact", "near"] = "keep"
    """Drop pairs with the prompt and the two responses of an earlier one, in either order: to the letter, or nearly
    (--near-duplicate)."""

    near_duplicate: Annotated[float, "0.5 to 1"] = 0.8
    """Least similarity, of the prompts and of the responses, with which a pair is a near-duplicate: the share of their
    runs of three words that both have."""

    max_per_prompt: Annotated[int, "at least 1"] | None = None
    """Keep so many pairs of a prompt at most, those whose preferred response is preferred with the highest
    probability; of equal ones the earlier."""

    def asked(self) -> dict[Filter, Any]:
        """The filters that are on, in their order, with what is asked of pairs, as JSON values."""
        asked = {
            Filter.LABEL_MASS: self.min_label_mass,
            Filter.TIES: self.tie_band if self.drop_ties else None,
            Filter.SWAP: self.swap_consistent or None,
            Filter.CONFIDENCE: self.min_confidence,
            Filter.LENGTH_RATIO: self.max_length_ratio,
            Filter.CUT_OFF: self.drop_cut_off or None,
            Filter.DUPLICATES: {"keep": None, "exact": "exact", "near": f"near {self.near_duplicate:g}"}[
                self.duplicates
            ],
            Filter.PER_PROMPT: self.max_per_prompt,
        }
        return {each: asked[each] for each in Filter if asked[each] is not None}


@dataclass(frozen=True, slots=True)
class FilterRow:
    """What filters look at in a labeled pair.

    Attributes:
        id: Unique in its input.
        prompt, response_a, response_b: What was labeled.
        prob_a: P(A preferred), in [0, 1].
        prob_a_ab, prob_a_ba: The same in each order; None where the pair was not judged in it.
        label_masses: Share of the next-token probability on the labels, of each order that has one.
        finish_reasons: Of the two responses, as far as they are known.
    """

    id: str
    prompt: tuple[Turn, ...]
    response_a: str
    response_b: str
    prob_a: float
    prob_a_ab: float | None = None
    prob_a_ba: float | None = None
    label_masses: tuple[float, ...] = ()
    finish_reasons: tuple[str, ...] = ()

    @property
    def confidence(self) -> float:
        """Probability of the preferred response, at least 0.5."""
        return max(self.prob_a, 1.0 - self.prob_a)

    @property
    def length_ratio(self) -> float | None:
        """Characters of the longer response over those of the shorter; None where only the shorter is empty."""
        shorter, longer = sorted((len(self.response_a), len(self.response_b)))
        return 1.0 if longer == shorter else longer / shorter if shorter else None


@dataclass
class FilterCount:
    """What a filter did.

    Attributes:
        filter: Which one.
        asked: Its setting, as a JSON value.
        before: Pairs that came to it.
        dropped: Pairs that it dropped.
        untold: Pairs that say nothing of what it looks at: they are kept.
    """

    filter: Filter
    asked: Any
    before: int = 0
    dropped: int = 0
    untold: int = 0

    @property
    def after(self) -> int:
        """Pairs that it left."""
        return self.before - self.dropped

    def as_json(self) -> dict[str, Any]:
        """As it stands in `run.json`."""
        return {
            "filter": self.filter.value,
            "asked": self.asked,
            "before": self.before,
            "dropped": self.dropped,
            "after": self.after,
            "untold": self.untold,
        }


@dataclass
class PairFilter:
    """Takes the rows of an input once, in their order, and decides on each; it remembers a byte a row, and for some
    filters more (a digest a pair for duplicates, the confidences that are kept of each prompt).

    Attributes:
        counts: Of each filter that is on, in their order; right when all rows are taken.
        rows: Rows taken.
    """

    options: FilterOptions
    counts: list[FilterCount] = field(init=False)
    rows: int = field(default=0, init=False)
    _dropped_by: bytearray = field(default_factory=bytearray, init=False)
    """For each row the place of its filter in `counts`, plus 1; 0 where it is kept."""
    _duplicate_of: dict[int, int] = field(default_factory=dict, init=False)
    """Number of a duplicate row -> that of the earlier one."""
    _seen: dict[bytes, int] = field(default_factory=dict, init=False)
    _index: DuplicateIndex | None = field(default=None, init=False)
    _best: dict[bytes, list[tuple[float, int]]] = field(default_factory=dict, init=False)
    """Digest of a prompt -> (confidence, minus the row's number) of the rows kept of it, as a heap."""

    def __post_init__(self) -> None:
        self.counts = [FilterCount(each, asked) for each, asked in self.options.asked().items()]
        if self.options.duplicates == "near":
            self._index = DuplicateIndex(self.options.near_duplicate)

    @property
    def kept(self) -> int:
        """Rows that are kept of those taken so far."""
        return self.rows - sum(count.dropped for count in self.counts)

    def add(self, row: FilterRow) -> None:
        """Take the next row."""
        number = self.rows
        self.rows += 1
        self._dropped_by.append(0)
        for place, count in enumerate(self.counts):
            count.before += 1
            dropped = self._dropped(count, row, number)
            if dropped is not None:
                count.dropped += 1
                self._dropped_by[dropped] = place + 1
            if dropped == number:
                return

    def reason(self, number: int) -> FilterCount | None:
        """The filter that dropped a row, by its number from 0; None where it is kept. When all rows are taken."""
        place = self._dropped_by[number]
        return self.counts[place - 1] if place else None

    def earlier(self, number: int) -> int | None:
        """The number of the row that a row is a duplicate of."""
        return self._duplicate_of.get(number)

    @property
    def originals(self) -> set[int]:
        """Numbers of the rows that others are duplicates of."""
        return set(self._duplicate_of.values())

    def _dropped(self, count: FilterCount, row: FilterRow, number: int) -> int | None:
        """The number of the row that a filter drops on seeing this one; None of none."""
        if count.filter is Filter.PER_PROMPT:
            return self._crowded_out(row, number)
        if count.filter is Filter.DUPLICATES:
            return number if self._is_duplicate(row, number) else None
        is_bad = is_dropped(count.filter, row, self.options)
        count.untold += is_bad is None
        return number if is_bad else None

    def _is_duplicate(self, row: FilterRow, number: int) -> bool:
        if self._index is not None:
            prompt = "\n".join(turn.content for turn in row.prompt)
            found = self._index.find_or_add_pair(prompt, row.response_a, row.response_b, str(number))
            earlier = number if found is None else int(found)
        else:
            earlier = self._seen.setdefault(_digest(row.prompt, *sorted((row.response_a, row.response_b))), number)
        if earlier == number:
            return False
        self._duplicate_of[number] = earlier
        return True

    def _crowded_out(self, row: FilterRow, number: int) -> int | None:
        """The number of the row of this prompt that is now one too many, an earlier one or this; None of none."""
        assert self.options.max_per_prompt is not None
        best = self._best.setdefault(_digest(row.prompt), [])
        entry = (row.confidence, -number)
        if len(best) < self.options.max_per_prompt:
            heapq.heappush(best, entry)
            return None
        return -heapq.heappushpop(best, entry)[1]


def is_dropped(kind: Filter, row: FilterRow, options: FilterOptions) -> bool | None:
    """Whether a filter that looks at one row alone drops it; None where the row does not tell.

    Exchanging A and B, with their orders, changes nothing.
    """
    value = measured(kind, row)
    if value is None and kind is not Filter.LENGTH_RATIO:
        return None
    if kind is Filter.LABEL_MASS:
        return bool(value < options.min_label_mass)
    if kind is Filter.TIES:
        return verdict_of(row.prob_a, options.tie_band) is Verdict.TIE
    if kind is Filter.SWAP:
        verdict_ab, verdict_ba = (verdict_of(prob, options.tie_band) for prob in value)
        return verdict_ab is not verdict_ba
    if kind is Filter.CONFIDENCE:
        return bool(value < options.min_confidence)
    if kind is Filter.LENGTH_RATIO:
        assert options.max_length_ratio is not None
        return value is None or value > options.max_length_ratio
    return CUT_OFF in value


def measured(kind: Filter, row: FilterRow) -> Any:
    """What a filter looks at in a row, as a JSON value; None where there is none (of a length ratio: no bound)."""
    if kind is Filter.LABEL_MASS:
        return min(row.label_masses, default=None)
    if kind is Filter.TIES:
        return row.prob_a
    if kind is Filter.SWAP:
        return None if row.prob_a_ab is None or row.prob_a_ba is None else [row.prob_a_ab, row.prob_a_ba]
    if kind is Filter.LENGTH_RATIO:
        return row.length_ratio
    if kind is Filter.CUT_OFF:
        return list(row.finish_reasons) or None
    return row.confidence


def dropped_line(row: FilterRow, count: FilterCount, original: str | None) -> Mapping[str, Any]:
    """What `dropped.jsonl` tells of a row.

    Args:
        row: The one dropped.
        count: Of the filter that dropped it.
        original: Id of the row that it is a duplicate of.
    """
    value = original if count.filter is Filter.DUPLICATES else measured(count.filter, row)
    return {"id": row.id, "filter": count.filter.value, "value": value, "asked": count.asked}


def _digest(prompt: Sequence[Turn], *responses: str) -> bytes:
    content = json.dumps([[list(turn) for turn in prompt], *responses])
    return hashlib.blake2b(content.encode(), digest_size=16).digest()
