"""Which rows people should label next."""

from __future__ import annotations

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given
from hypothesis import strategies as st

from rlaif.auditing.suggesting import draw, sampling_probs


def test_hand_worked() -> None:
    # sqrt(c (1 - c)): 0.3 for 0.9 and 0.1, 0.5 near one half, 0 for the judge's tie.
    table = table_of([0.9, 0.1, 0.5 + 1e-8, 0.5, None], [None] * 5)
    # Half of 2 draws evenly over 4 rows: 0.25 each; the other half as 3 : 3 : 5 : 0 of 11.
    assert sampling_probs(table, 2) == pytest.approx([0.25 + 3 / 11, 0.25 + 3 / 11, 0.25 + 5 / 11, 0.25, 0.0])
    assert sampling_probs(table, 2, uniform_share=1.0) == pytest.approx([0.5] * 4 + [0.0])


def test_recorded_verdicts_are_all_alike() -> None:
    table = table_of([1.0, 0.0, 1.0, 0.5], [None] * 4)
    # Half of 2 draws evenly over 4 rows, the other over the 3 that the judge decided.
    assert sampling_probs(table, 2) == pytest.approx([0.25 + 1 / 3] * 3 + [0.25])
    ties = table_of([0.5] * 4, [None] * 4)
    assert sampling_probs(ties, 1) == pytest.approx([0.25] * 4)


def test_probabilities_above_one_are_dealt_to_the_others() -> None:
    table = table_of([0.6] + [0.5] * 9, [None] * 10)
    # Sizes 0.05 + 0.5 and nine times 0.05: times 4 the first would be 2.2. It gets 1, the others share the 3 left.
    assert sampling_probs(table, 4) == pytest.approx([1.0] + [3 / 9] * 9)


@given(
    st.lists(st.none() | st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40),
    st.integers(1, 50),
    st.floats(0.05, 1.0),
)
def test_probabilities_are_such(probs: list[float | None], count: int, uniform_share: float) -> None:
    table = table_of(probs, [None] * len(probs))
    answered = np.isfinite(table.prob_a)
    found = sampling_probs(table, count, uniform_share=uniform_share)
    assert (found[~answered] == 0).all()
    assert (found[answered] > 0).all()
    assert (found <= 1).all()
    assert found.sum() == pytest.approx(min(count, answered.sum()))
    size = int(answered.sum())
    if count < size:
        assert found[answered].min() >= uniform_share * count / size * (1 - 1e-9)  # bounds the weights
    assert sampling_probs(table.swapped(), count, uniform_share=uniform_share) == pytest.approx(found)
    assert len(draw(found, 0)) == min(count, size)


def test_rows_with_a_human_label_are_eligible_too() -> None:
    table = make_table(np.random.default_rng(0), 30, unlabelled=0.5)
    unlabelled = table_of(table.prob_a.tolist(), [None] * 30)
    assert sampling_probs(table, 10).tolist() == sampling_probs(unlabelled, 10).tolist()


def test_what_is_refused() -> None:
    table = make_table(np.random.default_rng(0), 10)
    for count, share in ((0, 0.5), (3, 0.0), (3, 1.5)):
        with pytest.raises(ValueError, match="expected at least 1"):
            sampling_probs(table, count, uniform_share=share)
    for probs in ([0.5, 0.7], [1.5, 0.5]):
        with pytest.raises(ValueError, match="expected probabilities"):
            draw(np.array(probs), 0)


@given(st.integers(1, 30), st.integers(0, 1000), st.integers(0, 1000))
def test_a_draw_has_each_row_once(count: int, maker: int, seed: int) -> None:
    table = make_table(np.random.default_rng(maker), 30, unanswered=0.2)
    probs = sampling_probs(table, count)
    rows = draw(probs, seed)
    assert len(set(rows.tolist())) == len(rows) == round(probs.sum())
    assert (probs[rows] > 0).all()
    assert set(np.flatnonzero(probs == 1)) <= set(rows.tolist())
    assert rows.tolist() == draw(probs, seed).tolist()


def test_inclusion_probabilities_are_what_they_say() -> None:
    probs = np.array([1.0, 0.9, 0.7, 0.5, 0.5, 0.3, 0.1, 0.0])
    times = 4000
    counts = np.zeros(8)
    first = np.zeros(8)
    for seed in range(times):
        rows = draw(probs, seed)
        counts[rows] += 1
        first[rows[0]] += 1
    standard_errors = np.sqrt(probs * (1 - probs) / times)
    assert (np.abs(counts / times - probs) <= 4 * standard_errors).all()
    # The order is shuffled: each drawn row is first as often as another.
    assert first / times == pytest.approx(probs / 4, abs=4 * np.sqrt(0.25 * 0.75 / times))


def test_people_mend_more_labels_where_the_judge_is_unsure() -> None:
    # A calibrated judge's labels, 100 of 1000 replaced by people's: how many of its errors that takes away.
    rng = np.random.default_rng(0)
    mended = {"least confident": 0, "suggested": 0, "uniform": 0}
    for seed in range(80):
        prob_a = rng.beta(0.4, 0.4, 1000)
        wrong = (rng.random(1000) < prob_a) != (prob_a > 0.5)
        table = table_of(prob_a.tolist(), [None] * 1000)
        mended["least confident"] += int(wrong[np.argsort(np.abs(prob_a - 0.5))[:100]].sum())
        mended["suggested"] += int(wrong[draw(sampling_probs(table, 100), seed)].sum())
        mended["uniform"] += int(wrong[draw(sampling_probs(table, 100, uniform_share=1.0), seed)].sum())
    assert mended["suggested"] > 1.1 * mended["uniform"]
    # The part that is drawn evenly, so that estimates hold, has its price here.
    assert mended["least confident"] > 1.5 * mended["suggested"]
