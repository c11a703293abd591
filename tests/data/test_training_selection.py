"""Filters, rows joined by prompt, and the split: what is kept, on which side, and how many of each are counted."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.training_methods import RowFilters
from rlaif.data.training_selection import (
    Dropped,
    filter_rows,
    held_out_draw,
    join_by_prompt,
    split_by_prompt,
    why_dropped,
)
from rlaif.errors import ConfigError
from rlaif.records import Candidates, Comparison, Turn, Verdict
from rlaif.training_records import Feedback, LabeledPair, RatedCandidates

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE


def labeled(number, prob_a, votes=(), prompt=None):
    turns = (Turn("user", prompt or f"P{number}"),)
    return LabeledPair(Comparison(f"r{number}", turns, "x", "y", human_votes=tuple(votes)), prob_a)


def swapped(row):
    comparison = row.comparison
    return LabeledPair(
        replace(comparison, response_a=comparison.response_b, response_b=comparison.response_a), 1.0 - row.prob_a
    )


class TestFilters:
    ROWS = (labeled(1, 0.5), labeled(2, 0.95), labeled(3, 0.1, [A]), labeled(4, 0.8, [B, A]), labeled(5, None, [TIE]))

    @pytest.mark.parametrize(
        ("filters", "kept", "dropped"),
        [
            (RowFilters(), [1, 2, 3, 4, 5], {}),
            (RowFilters(ties="drop"), [2, 3, 4], {Dropped.TIE: 1, Dropped.NO_LABEL: 1}),
            (RowFilters(ties="drop", tie_band=0.31), [2, 3], {Dropped.TIE: 2, Dropped.NO_LABEL: 1}),
            (RowFilters(min_confidence=0.8), [2, 3, 4], {Dropped.UNSURE: 1, Dropped.NO_LABEL: 1}),
            (RowFilters(min_confidence=0.9), [2, 3], {Dropped.UNSURE: 2, Dropped.NO_LABEL: 1}),
            (RowFilters(only_human=True), [3, 4, 5], {Dropped.NO_HUMAN_LABEL: 2}),
            (RowFilters("drop", 0.9, True), [3], {Dropped.NO_HUMAN_LABEL: 2, Dropped.UNSURE: 1, Dropped.NO_LABEL: 1}),
        ],
    )
    def test_counts(self, filters, kept, dropped):
        found = filter_rows(self.ROWS, filters)
        assert [row.id for row in found.rows] == [f"r{n}" for n in kept]
        assert {reason: count for reason, count in found.counts.dropped.items() if count} == dropped
        assert found.counts.before == found.counts.after + sum(found.counts.dropped.values()) == 5
        assert found.counts.after == len(kept)

    def test_by_another_probability(self):
        shares = {"r1": None, "r2": None, "r3": 1.0, "r4": 0.5, "r5": 0.5}
        found = filter_rows(self.ROWS, RowFilters(ties="drop"), prob_of=lambda row: shares[row.id])
        assert [row.id for row in found.rows] == ["r3"]

    def test_equal_scores_are_a_tie(self):
        def rated(*scores):
            return RatedCandidates(Candidates("1", (Turn("user", "P"),), ("x",) * len(scores)), scores)

        drop = RowFilters(ties="drop")
        assert why_dropped(rated(2.0, 2.0), drop) is Dropped.TIE
        assert why_dropped(rated(2.0, 2.0)) is None
        assert why_dropped(rated(2.0, 2.0, 3.0), drop) is None
        assert why_dropped(rated(2.0), drop) is None
        assert why_dropped(rated(2.0), fewest_responses=2) is Dropped.TOO_FEW
        assert why_dropped(Feedback("1", (Turn("user", "P"),), "x", True), drop) is None

    @given(st.floats(0.0, 1.0), st.floats(0.5, 1.0), st.sampled_from(["keep", "drop"]))
    def test_a_swap_changes_nothing(self, prob_a, floor, ties):
        row = labeled(1, prob_a)
        filters = RowFilters(ties, floor)
        assert why_dropped(row, filters) is why_dropped(swapped(row), filters)


def test_lists_are_not_joined():
    lists = tuple(
        RatedCandidates(Candidates(str(n), (Turn("user", "P"),), ("x", "y"), is_single=False), (1.0, 2.0))
        for n in range(2)
    )
    assert join_by_prompt(lists) == lists


class TestSplit:
    ROWS = tuple(labeled(n, 0.5, prompt=f"Q{n % 100}") for n in range(300))

    @given(st.floats(0.0, 0.99), st.integers(0, 5))
    def test_no_prompt_stands_on_both_sides(self, share, seed):
        split = split_by_prompt(self.ROWS, share, seed)
        train, held_out = ({row.prompt for row in side} for side in (split.train, split.held_out))
        assert not train & held_out
        assert sorted([*split.train, *split.held_out], key=self.ROWS.index) == list(self.ROWS)
        counts = split.counts
        assert (counts.train_rows, counts.held_out_rows) == (len(split.train), len(split.held_out))
        assert (counts.train_prompts, counts.held_out_prompts) == (len(train), len(held_out))
        assert train
        assert bool(held_out) is (share > 0.0)

    def test_order_and_other_rows_change_nothing(self):
        def held_out(rows=self.ROWS, share=0.2, seed=7):
            return {row.id for row in split_by_prompt(rows, share, seed).held_out}

        assert held_out(self.ROWS[::-1]) == held_out()
        assert held_out(self.ROWS[:150]) == held_out() & {row.id for row in self.ROWS[:150]}
        assert held_out(share=0.5) > held_out()
        assert held_out(seed=8) != held_out()

    def test_the_share_is_met_on_the_mean(self):
        rows = [labeled(n, 0.5) for n in range(2000)]
        # The standard deviation is sqrt(0.2 * 0.8 * 2000) = 18 prompts.
        assert abs(split_by_prompt(rows, 0.2, 0).counts.held_out_prompts - 400) < 72

    def test_neither_side_is_empty(self):
        rows = [labeled(n, 0.5) for n in range(2)]
        for share in (1e-9, 1 - 1e-9):
            split = split_by_prompt(rows, share, 0)
            assert (len(split.train), len(split.held_out)) == (1, 1)
            assert held_out_draw(split.held_out[0].prompt, 0) < held_out_draw(split.train[0].prompt, 0)
        assert str(split.counts) == "1 rows of 1 prompts to train on, 1 rows of 1 prompts held out"

    @pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
    def test_no_share(self, share):
        with pytest.raises(ConfigError, match="held_out: .* expected a share of the prompts from 0 to below 1"):
            split_by_prompt(self.ROWS, share, 0)

    def test_one_prompt_cannot_be_split(self):
        with pytest.raises(ConfigError, match=r"held_out: 0.1, but there is 1 prompt"):
            split_by_prompt([labeled(1, 0.5, prompt="P"), labeled(2, 0.5, prompt="P")], 0.1, 0)
        assert len(split_by_prompt([labeled(1, 0.5)], 0.0, 0).train) == 1

    def test_a_known_draw(self):
        # A change of it moves held-out prompts into the training of everybody's next run.
        assert held_out_draw((Turn("user", "Why?"),), 0) == 0.3140874496857978
