from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.filtering import Filter, FilterOptions, FilterRow, PairFilter, dropped_line, is_dropped, measured
from rlaif.records import Turn

PROMPT = (Turn("user", "Why?"),)


def row(prob_a: float = 0.9, **values: Any) -> FilterRow:
    defaults: dict[str, Any] = {"id": "r", "prompt": PROMPT, "response_a": "yes", "response_b": "no"}
    return FilterRow(prob_a=prob_a, **{**defaults, **values})


def exchanged(one: FilterRow) -> FilterRow:
    def other(prob: float | None) -> float | None:
        return None if prob is None else 1.0 - prob

    return replace(
        one,
        response_a=one.response_b,
        response_b=one.response_a,
        prob_a=1.0 - one.prob_a,
        prob_a_ab=other(one.prob_a_ba),
        prob_a_ba=other(one.prob_a_ab),
        label_masses=one.label_masses[::-1],
        finish_reasons=one.finish_reasons[::-1],
    )


def run(options: FilterOptions, rows: list[FilterRow]) -> PairFilter:
    found = PairFilter(options)
    for each in rows:
        found.add(each)
    return found


def kept(found: PairFilter) -> list[int]:
    return [number for number in range(found.rows) if found.reason(number) is None]


class TestOneRow:
    @pytest.mark.parametrize(
        ("kind", "given", "expected"),
        [
            (Filter.LABEL_MASS, row(label_masses=(0.9, 0.5)), False),
            (Filter.LABEL_MASS, row(label_masses=(0.9, 0.49)), True),
            (Filter.LABEL_MASS, row(label_masses=(0.49,)), True),
            (Filter.LABEL_MASS, row(), None),
            (Filter.TIES, row(0.56), False),
            (Filter.TIES, row(0.46), True),
            (Filter.SWAP, row(prob_a_ab=0.9, prob_a_ba=0.6), False),
            (Filter.SWAP, row(prob_a_ab=0.9, prob_a_ba=0.4), True),
            (Filter.SWAP, row(prob_a_ab=0.9, prob_a_ba=0.54), True),  # a and, within the band, a tie
            (Filter.SWAP, row(prob_a_ab=0.46, prob_a_ba=0.54), False),  # two ties
            (Filter.SWAP, row(prob_a_ab=0.9), None),
            (Filter.CONFIDENCE, row(0.75), False),
            (Filter.CONFIDENCE, row(0.25), False),
            (Filter.CONFIDENCE, row(0.74), True),
            (Filter.LENGTH_RATIO, row(response_a="1234", response_b="12"), False),
            (Filter.LENGTH_RATIO, row(response_a="12", response_b="12345"), True),
            (Filter.LENGTH_RATIO, row(response_a="", response_b="1"), True),
            (Filter.LENGTH_RATIO, row(response_a="", response_b=""), False),
            (Filter.CUT_OFF, row(finish_reasons=("stop", "length")), True),
            (Filter.CUT_OFF, row(finish_reasons=("stop", "content_filter")), False),
            (Filter.CUT_OFF, row(), None),
        ],
    )
    def test_by_hand(self, kind: Filter, given: FilterRow, expected: bool | None) -> None:
        options = FilterOptions(min_label_mass=0.5, min_confidence=0.75, max_length_ratio=2.0, tie_band=0.05)
        assert is_dropped(kind, given, options) is expected
        assert is_dropped(kind, exchanged(given), options) is expected

    def test_what_is_told_of_a_dropped_row(self) -> None:
        one = row(0.6, prob_a_ab=0.9, prob_a_ba=0.3, response_a="", label_masses=(0.4, 0.2), finish_reasons=("length",))
        found = {kind: measured(kind, one) for kind in Filter}
        assert found == {
            Filter.LABEL_MASS: 0.2,
            Filter.TIES: 0.6,
            Filter.SWAP: [0.9, 0.3],
            Filter.CONFIDENCE: 0.6,
            Filter.LENGTH_RATIO: None,
            Filter.CUT_OFF: ["length"],
            Filter.DUPLICATES: 0.6,
            Filter.PER_PROMPT: 0.6,
        }


class TestDuplicates:
    ROWS = (
        row(id="1", response_a="one two three four", response_b="five"),
        row(id="2", response_a="five", response_b="one two three four"),
        row(id="3", response_a="One, two: three four", response_b="five!"),
        row(id="4", response_a="one two three four", response_b="six"),
        row(id="5", response_a="one two three four", response_b="five", prompt=(Turn("user", "How?"),)),
        row(id="6", response_a="one two three four", response_b="five", prompt=(Turn("system", "?"), *PROMPT)),
    )

    def test_exact(self) -> None:
        found = run(FilterOptions(duplicates="exact"), list(self.ROWS))
        assert kept(found) == [0, 2, 3, 4, 5]
        assert found.earlier(1) == 0
        assert found.originals == {0}

    def test_near(self) -> None:
        found = run(FilterOptions(duplicates="near"), list(self.ROWS))
        # the last one's prompt reads "?\nWhy?", normalized "why" as the first's
        assert kept(found) == [0, 3, 4]
        assert [found.earlier(number) for number in (1, 2, 5)] == [0, 0, 0]

    def test_the_original_is_named(self) -> None:
        found = run(FilterOptions(duplicates="exact"), list(self.ROWS))
        count = found.reason(1)
        assert count is not None
        assert dropped_line(self.ROWS[1], count, "1") == {
            "id": "2", "filter": "duplicates", "value": "1", "asked": "exact",
        }  # fmt: skip

    def test_a_row_that_was_dropped_before_makes_no_other_a_duplicate(self) -> None:
        rows = [row(0.6), row(0.9)]
        found = run(FilterOptions(duplicates="exact", min_confidence=0.8), rows)
        assert kept(found) == [1]


class TestMaxPerPrompt:
    def test_the_most_confident_then_the_earlier(self) -> None:
        # confidences .6 .9 .8 .9 .8 of one prompt: the two of .9, then the first of .8
        rows = [row(prob, id=str(number)) for number, prob in enumerate((0.6, 0.1, 0.8, 0.9, 0.2))]
        rows.append(row(0.5, id="other", prompt=(Turn("user", "How?"),)))
        for most, expected in ((1, [1, 5]), (2, [1, 3, 5]), (3, [1, 2, 3, 5]), (9, [0, 1, 2, 3, 4, 5])):
            found = run(FilterOptions(max_per_prompt=most), rows)
            assert kept(found) == expected
            assert found.counts[0].as_json() == {
                "filter": "max-per-prompt", "asked": most, "before": 6, "dropped": 6 - len(expected),
                "after": len(expected), "untold": 0,
            }  # fmt: skip


class TestAllTogether:
    def test_in_their_order_each_counts_what_comes_to_it(self) -> None:
        both = {"prob_a_ab": 0.9, "prob_a_ba": 0.9, "label_masses": (1.0, 1.0)}
        rows = [
            row(0.9, id="kept", **both),
            row(0.5, id="little mass, and a tie", label_masses=(0.1,)),
            row(0.5, id="a tie", label_masses=(1.0,)),
            row(0.5, id="a tie of an unknown mass"),
            row(0.6, id="flips", prob_a_ab=0.9, prob_a_ba=0.3, label_masses=(1.0, 1.0)),
            row(0.6, id="unsure", prob_a_ab=0.6, label_masses=(1.0,)),
            row(0.9, id="long", response_a="yes " * 10, **both),
            row(0.9, id="cut off", finish_reasons=("length", "stop"), **both),
            row(0.9, id="again", **both),
            row(0.8, id="crowded out", response_b="other", **both),
        ]
        options = FilterOptions(
            min_label_mass=0.5, drop_ties=True, swap_consistent=True, min_confidence=0.7, max_length_ratio=5.0,
            drop_cut_off=True, duplicates="exact", max_per_prompt=1,
        )  # fmt: skip
        found = run(options, rows)
        reasons = [found.reason(number) for number in range(found.rows)]
        assert [each and each.filter.value for each in reasons] == [
            None, "min-label-mass", "drop-ties", "drop-ties", "swap-consistent", "min-confidence", "max-length-ratio",
            "drop-cut-off", "duplicates", "max-per-prompt",
        ]  # fmt: skip
        assert [(each.before, each.dropped, each.untold) for each in found.counts] == [
            (10, 1, 1), (9, 2, 0), (7, 1, 1), (6, 1, 0), (5, 1, 0), (4, 1, 3), (3, 1, 0), (2, 1, 0),
        ]  # fmt: skip
        assert found.kept == 1
        json.dumps([dropped_line(each, count, "x") for each, count in zip(rows, reasons, strict=True) if count])

    def test_without_filters_all_are_kept(self) -> None:
        found = run(FilterOptions(), [row(0.5), row(0.5), row(0.5)])
        assert found.counts == []
        assert kept(found) == [0, 1, 2]

    PROBS = st.floats(0, 1).map(lambda value: round(value, 2))
    ROWS = st.lists(
        st.builds(
            row,
            PROBS,
            prompt=st.sampled_from([PROMPT, (Turn("user", "How?"),)]),
            response_a=st.text("ab ", max_size=6),
            response_b=st.text("ab ", max_size=6),
            prob_a_ab=st.none() | PROBS,
            prob_a_ba=st.none() | PROBS,
            label_masses=st.lists(PROBS, max_size=2).map(tuple),
            finish_reasons=st.lists(st.sampled_from(["stop", "length"]), max_size=2).map(tuple),
        ),
        max_size=12,
    )

    @settings(max_examples=60, deadline=None)
    @given(ROWS, st.sampled_from(["keep", "exact", "near"]))
    def test_exchanging_a_and_b_changes_no_count_and_no_row(self, rows: list[FilterRow], duplicates: Any) -> None:
        options = FilterOptions(0.3, True, 0.015, True, 0.55, 3.0, True, duplicates, 0.8, 2)
        found, other = run(options, rows), run(options, [exchanged(each) for each in rows])
        assert found.counts == other.counts
        assert kept(found) == kept(other)
        assert found.kept == len(kept(found))
        for earlier, later in zip(found.counts, found.counts[1:], strict=False):
            assert later.before == earlier.after
