import json
import math
from pathlib import Path

import krippendorff
import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.inter_rater import fleiss_kappa

from rlaif.auditing.agreement import confusion_terms, human_statistics, judge_statistics, left_out_pairs
from rlaif.auditing.table import verdicts

A, TIE, B, NONE = 1.0, 0.5, 0.0, None


def values(statistics):
    return {name: each.value() for name, each in statistics.items()}


def counted(statistics):
    return {name: int(each.counted.sum()) for name, each in statistics.items()}


def of_counts(a_a, a_b, b_a, b_b):
    """A table with so many rows of (people, judge)."""
    human = [A] * (a_a + a_b) + [B] * (b_a + b_b)
    judge = [A] * a_a + [B] * a_b + [A] * b_a + [B] * b_b
    return table_of(judge, human)


def with_votes(votes, **arrays):
    votes = np.array(votes)
    return table_of([A] * len(votes), [NONE] * len(votes), votes=votes, **arrays)


def test_hand_worked_agreement_under_each_convention():
    #                right  wrong  tie of judge, of people, of both; no label, no verdict
    table = table_of([0.9, 0.2, 0.6, 0.5, 0.7, 0.5, 0.8, NONE], [A, B, B, A, TIE, TIE, NONE, A])
    found = judge_statistics(table)
    assert values(found) == pytest.approx(
        {
            "agreement": 2 / 3,  # the first three rows
            "agreement_human_decided": 2 / 4,  # and the fourth, wrong
            "agreement_tie_half": 2.5 / 4,  # half right
            "agreement_with_ties": 3 / 6,  # and the tie of both, right, and the fifth, wrong
            # people: 2 a, 2 tie, 2 b; judge: 3 a, 2 tie, 1 b: chance (6 + 4 + 2) / 36 = 1/3
            "cohen_kappa": (1 / 2 - 1 / 3) / (1 - 1 / 3),
            # shares 5/12, 4/12, 3/12: chance (35 + 32 + 27) / 144 / 2 = 47/144
            "gwet_ac1": (1 / 2 - 47 / 144) / (1 - 47 / 144),
        }
    )
    assert list(counted(found).values()) == [3, 4, 4, 6, 6, 6]


def test_the_tie_band_widens_ties():
    table = table_of([0.9, 0.55], [A, A])
    assert judge_statistics(table)["agreement_human_decided"].value() == 1.0
    assert judge_statistics(table, tie_band=0.1)["agreement_human_decided"].value() == 0.5


def test_weights_count_a_row_as_often():
    weighted = table_of([A, B, A], [A, A, B], weights=np.array([3.0, 1.0, 2.0]))
    repeated = table_of([A, A, A, B, A, A], [A, A, A, A, B, B])
    assert values(judge_statistics(weighted)) == pytest.approx(values(judge_statistics(repeated)))


@pytest.mark.parametrize(
    ("counts", "kappa", "ac1"),
    [
        # The same 85 % of agreement: Feinstein and Cicchetti, "High agreement but low kappa: I", Journal of Clinical
        # Epidemiology 43 (1990), give kappa 0.70 and 0.32. AC1 by hand: chance 2 * 0.475 * 0.525, 2 * 0.875 * 0.125.
        ((40, 9, 6, 45), 0.70, (0.85 - 0.49875) / 0.50125),
        ((80, 10, 5, 5), 0.32, (0.85 - 0.21875) / 0.78125),
    ],
)
def test_kappa_paradox_of_feinstein_and_cicchetti(counts, kappa, ac1):
    found = values(judge_statistics(of_counts(*counts)))
    assert found["agreement"] == pytest.approx(0.85)
    assert found["cohen_kappa"] == pytest.approx(kappa, abs=0.005)
    assert found["gwet_ac1"] == pytest.approx(ac1)


def test_ac1_counts_ties_among_the_classes_only_where_somebody_says_tie():
    # Chance with three classes is (sum of share * (1 - share)) / 2: half of what two classes make of the same shares.
    with_tie = table_of([A, A, B, B, TIE], [A, B, B, A, TIE])
    shares = np.array([0.4, 0.2, 0.4])
    chance = (shares * (1 - shares)).sum() / 2
    assert judge_statistics(with_tie)["gwet_ac1"].value() == pytest.approx((0.6 - chance) / (1 - chance))
    without = table_of([A, A, B, B], [A, B, B, A])
    assert judge_statistics(without)["gwet_ac1"].value() == pytest.approx(0.0)


@given(st.integers(0, 10_000))
def test_kappa_is_the_librarys(seed):
    table = make_table(np.random.default_rng(seed), 60, human_ties=0.2, judge_ties=0.2, unlabelled=0.1, unanswered=0.1)
    judge = verdicts(table.prob_a)
    both = np.isfinite(judge) & np.isfinite(table.human)
    expected = cohen_kappa_score(2 * table.human[both], 2 * judge[both])
    assert judge_statistics(table)["cohen_kappa"].value() == pytest.approx(expected)


@given(st.integers(0, 10_000))
def test_no_figure_knows_which_response_is_called_a(seed):
    table = make_table(np.random.default_rng(seed), 40, human_ties=0.2, judge_ties=0.2, unlabelled=0.2)
    assert values(judge_statistics(table.swapped())) == pytest.approx(values(judge_statistics(table)))
    votes = np.random.default_rng(seed).integers(0, 3, (40, 3))
    voted = with_votes(votes)
    assert values(human_statistics(voted.swapped())) == pytest.approx(
        {**values(human_statistics(voted)), **judge_side(voted.swapped())}, nan_ok=True
    )


def judge_side(table):
    """The judge of `with_votes` always says A and, swapped, B: its own figures follow from the votes alone."""
    found = values(human_statistics(table))
    return {name: found[name] for name in ("against_rest.judge", "against_rest.difference")}


def test_the_judge_against_the_rest_follows_a_swap():
    rng = np.random.default_rng(3)
    table = make_table(rng, 50, judge_ties=0.2)
    table = table_of(table.prob_a.tolist(), table.human.tolist(), votes=rng.integers(0, 3, (50, 3)))
    assert values(human_statistics(table.swapped())) == pytest.approx(values(human_statistics(table)), nan_ok=True)


def test_hand_worked_figures_of_people():
    # Pairs: row 1: 3 equal of 3; row 2: 1 of 3 (none of its pairs without tie but a-a); row 3: 0 of 1; row 4: one vote.
    table = with_votes([[3, 0, 0], [2, 1, 0], [1, 0, 1], [0, 0, 1]])
    found = human_statistics(table)
    assert found["human_pairwise_agreement"].value() == pytest.approx(4 / 7)
    assert found["human_pairwise_agreement_without_ties"].value() == pytest.approx(4 / 5)
    assert found["unanimous_rate"].value() == pytest.approx(1 / 3)
    # Left out in turn: row 1 thrice right; row 2: an a leaves a against tie (no plurality), the tie leaves two a:
    # wrong; row 3: the rest is one vote, which differs, twice; row 4: nobody is left.
    assert found["human_ceiling"].value() == pytest.approx(3 / 6)
    assert left_out_pairs(table.votes).tolist() == [3, 1, 2, 0]
    # The judge says a: right thrice, once, and once of two.
    assert found["against_rest.judge"].value() == pytest.approx(5 / 6)
    assert found["against_rest.difference"].value() == pytest.approx(2 / 6)
    assert math.isnan(found["fleiss_kappa"].value())
    assert "from 2 to 3 human votes" in found["fleiss_kappa"].why


def test_krippendorffs_example_of_two_observers():
    # "Computing Krippendorff's alpha-reliability" (2011), section A: alpha 0.095. 14 zeros, 6 ones, 4 unequal pairs:
    # 1 - 19 * 4 / (14 * 6).
    first, second = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    votes = [[2 - one - two, 0, one + two] for one, two in zip(first, second, strict=True)]
    assert human_statistics(with_votes(votes))["krippendorff_alpha"].value() == pytest.approx(1 - 19 * 4 / 84)


def test_hand_worked_fleiss_kappa():
    # Rows of 3 votes: agreement 1, 1/3, 0, 1: mean 7/12. Shares: 5/12, 2/12, 5/12: chance 54/144 = 3/8.
    table = with_votes([[3, 0, 0], [1, 0, 2], [1, 1, 1], [0, 0, 0], [0, 1, 2]])
    observed = (1 + 1 / 3 + 0 + 1 / 3) / 4
    chance = (5**2 + 2**2 + 5**2) / 144
    found = human_statistics(table)["fleiss_kappa"]
    assert found.value() == pytest.approx((observed - chance) / (1 - chance))
    assert found.counted.sum() == 4


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_fleiss_and_krippendorff_are_the_libraries(seed, raters):
    rng = np.random.default_rng(seed)
    votes = rng.multinomial(raters, [0.5, 0.2, 0.3], size=30)
    found = human_statistics(with_votes(votes))
    assert found["fleiss_kappa"].value() == pytest.approx(fleiss_kappa(votes))
    ragged = rng.integers(0, 3, (30, 3))
    alpha = krippendorff.alpha(value_counts=ragged[ragged.sum(axis=1) > 0], level_of_measurement="nominal")
    assert human_statistics(with_votes(ragged))["krippendorff_alpha"].value() == pytest.approx(alpha)


@given(st.integers(0, 10_000))
def test_equal_weights_change_nothing(seed):
    votes = np.random.default_rng(seed).integers(0, 3, (20, 3))
    heavy = with_votes(votes, weights=np.full(20, 7.0))
    assert values(human_statistics(heavy)) == pytest.approx(values(human_statistics(with_votes(votes))), nan_ok=True)


def test_what_is_missing_is_said():
    def whys(table):
        found = {**judge_statistics(table), **human_statistics(table)}
        assert all(math.isnan(each.value()) for each in found.values())
        return {name: each.why for name, each in found.items()}

    assert set(whys(table_of([0.7], [NONE])).values()) == {"there are no human labels"}
    assert whys(table_of([NONE], [A]))["agreement"] == "the judge gave no verdict"
    assert whys(table_of([NONE, 0.3], [A, NONE]))["cohen_kappa"] == (
        "no row has both a human label and a verdict of the judge"
    )
    assert whys(table_of([], []))["human_ceiling"] == "there are no human labels"


def test_what_cannot_be_told_apart_is_said():
    only_ties = judge_statistics(table_of([0.7, 0.2], [TIE, TIE]))
    assert only_ties["agreement"].why == only_ties["agreement_human_decided"].why == "people call every row a tie"
    assert judge_statistics(table_of([0.5], [A]))["agreement"].why == "the judge only says tie"
    same = {**judge_statistics(of_counts(5, 0, 0, 0)), **human_statistics(with_votes([[2, 0, 0], [2, 0, 0]]))}
    for name in ("cohen_kappa", "krippendorff_alpha", "fleiss_kappa"):
        assert math.isnan(same[name].value())
    assert same["cohen_kappa"].why == "people and judge say the same of every row"
    assert same["krippendorff_alpha"].why == same["fleiss_kappa"].why == "all votes are the same"
    labels_only = human_statistics(table_of([A], [A], votes=np.zeros((1, 3), dtype=np.int64)))
    assert labels_only["human_ceiling"].why == "there are no human votes, only labels"
    one_each = human_statistics(with_votes([[1, 0, 0], [0, 1, 0]]))
    assert {each.why for each in one_each.values()} == {"no row has two human votes or more"}


def test_confusion_counts_people_by_judge():
    human, judge = np.array([1.0, 1.0, 0.5, 0.0, np.nan]), np.array([1.0, 0.0, 1.0, 0.5, 1.0])
    sums = confusion_terms(human, judge, np.array([1.0, 2.0, 3.0, 4.0, 5.0])).sum(axis=0).reshape(3, 3)
    assert sums.tolist() == [[1, 0, 2], [3, 0, 0], [0, 4, 0]]


SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


@pytest.mark.skipif(not SHARED.exists(), reason="recorded data is not at hand")
def test_figures_of_people_in_recorded_data():
    lines = (SHARED / "pandalm_dev.jsonl").read_text(encoding="utf-8").splitlines()
    votes = [[json.loads(line)["human_votes"].count(vote) for vote in (1, 0, 2)] for line in lines]
    expected = json.loads((SHARED / "reference_audit.json").read_text(encoding="utf-8"))["sets"]["pandalm_dev"]["human"]
    table = with_votes(votes)
    found = values(human_statistics(table))
    names = {
        "human_pairwise_agreement": "pairwise_agreement_3class",
        "human_pairwise_agreement_without_ties": "pairwise_agreement_excluding_any_tie",
        "unanimous_rate": "unanimous_rate",
        "fleiss_kappa": "fleiss_kappa_3class",
        "krippendorff_alpha": "krippendorff_alpha_nominal",
        "human_ceiling": "leave_one_out_vs_majority_of_rest",
    }
    for ours, theirs in names.items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-6), ours
    assert left_out_pairs(table.votes).sum() == expected["n_leave_one_out"]
