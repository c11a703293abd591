"""How many independent votes a panel amounts to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import friedmanchisquare
from sklearn.metrics import matthews_corrcoef

from rlaif.auditing.panels import effective_votes, panel_result
from rlaif.auditing.results import PanelResult
from rlaif.auditing.table import AuditTable


def result_of(table: AuditTable, *, resamples: int = 200) -> PanelResult:
    result = panel_result(table, resamples=resamples)
    assert result is not None
    return result


def test_fewer_than_two_judges_are_no_panel() -> None:
    rng = np.random.default_rng(0)
    assert panel_result(make_table(rng, 10)) is None
    assert panel_result(make_table(rng, 10, judges=1)) is None


def test_hand_worked() -> None:
    people = [1.0, 1.0, 0.0, 0.0, 0.5, 1.0]
    judges = {
        "x": [0.9, 0.4, 0.2, 0.7, 0.9, None],  # errs in rows 1 and 3
        "y": [0.8, 0.5, 0.3, 0.1, 0.9, 0.9],  # errs in row 1, with a tie
    }
    result = result_of(table_of([None] * 6, people, by_judge=judges))
    # Rows 0 to 3 count: 4 has a tie of people's, 5 lacks an answer.
    assert {name: (figure.value, figure.n) for name, figure in result.judges.items()} == {"x": (0.5, 4), "y": (0.75, 4)}
    # phi = (1/4 - 2/4 * 1/4) / sqrt(1/4 * 3/16) = (1/8) / (sqrt(3) / 8) = 1 / sqrt(3)
    phi = 1 / 3**0.5
    (pair,) = result.error_correlations
    assert (pair.first, pair.second) == ("x", "y")
    assert pair.correlation.value == pytest.approx(phi)
    assert result.mean_error_correlation.value == pytest.approx(phi)
    assert result.effective_votes.value == pytest.approx(2 / (1 + phi))


def test_correlations_are_pearson_s() -> None:
    table = make_table(np.random.default_rng(1), 500, judges=4, error_correlation=0.3)
    result = result_of(table)
    errors = {name: (values > 0.5) != (table.human == 1) for name, values in table.by_judge.items()}
    found = []
    for pair in result.error_correlations:
        expected = matthews_corrcoef(errors[pair.first], errors[pair.second])
        assert pair.correlation.value == pytest.approx(expected)
        found.append(expected)
    assert len(found) == 6
    assert result.mean_error_correlation.value == pytest.approx(np.mean(found))
    assert result.effective_votes.value == pytest.approx(4 / (1 + 3 * np.mean(found)))


@pytest.mark.parametrize(("correlation", "votes"), [(0.0, 3.0), (0.5, 1.5), (1.0, 1.0)])
def test_effective_votes_of_known_panels(correlation: float, votes: float) -> None:
    result = result_of(make_table(np.random.default_rng(2), 4000, judges=3, error_correlation=correlation))
    assert result.effective_votes.value == pytest.approx(votes, rel=0.06)
    assert result.effective_votes.low is not None
    assert result.effective_votes.high is not None
    assert 1.0 <= result.effective_votes.low <= votes + 0.05
    assert votes - 0.05 <= result.effective_votes.high <= 3.0


def test_errors_that_cancel_make_no_more_votes_than_judges() -> None:
    assert effective_votes(np.array([-0.4, np.nan]), 3) == pytest.approx([3.0, np.nan], nan_ok=True)
    opposite = table_of([None] * 4, [1.0] * 4, by_judge={"x": [0.9, 0.9, 0.1, 0.1], "y": [0.1, 0.1, 0.9, 0.9]})
    result = result_of(opposite)
    assert result.mean_error_correlation.value == pytest.approx(-1.0)
    assert result.effective_votes.value == pytest.approx(2.0)


def test_a_judge_that_never_errs_has_no_correlation() -> None:
    people = [1.0, 1.0, 1.0, 1.0]
    judges = {"good": [0.9] * 4, "x": [0.1, 0.9, 0.9, 0.9], "y": [0.1, 0.1, 0.9, 0.9]}
    result = result_of(table_of([None] * 4, people, by_judge=judges))
    by_pair = {(pair.first, pair.second): pair.correlation for pair in result.error_correlations}
    assert by_pair["good", "x"].value is None
    assert by_pair["good", "x"].why == "it takes two judges that are each right in some rows and wrong in others"
    assert result.mean_error_correlation.value == pytest.approx(by_pair["x", "y"].value)


@pytest.mark.parametrize("decimals", [1, 6])  # with 1 most rows are tied
def test_kendall_w_is_friedman_s_chi_square(decimals: int) -> None:
    rng = np.random.default_rng(3)
    quality = rng.random(40)
    judges = {f"j{number}": np.round((quality + rng.random(40)) / 2, decimals) for number in range(4)}
    table = table_of([None] * 40, [None] * 40, by_judge={name: values.tolist() for name, values in judges.items()})
    chi_square = friedmanchisquare(*np.stack(list(judges.values())).T).statistic
    result = result_of(table)
    assert result.kendall_w.value == pytest.approx(chi_square / (4 * (40 - 1)))  # chi-square = m (n - 1) W
    assert result.kendall_w.n == 40


def test_kendall_w_by_hand() -> None:
    # Three judges rank four rows 1 2 3 4, 1 3 2 4 and 2 1 3 4. Sums 4 6 8 12, mean 7.5, squares 12.25 + 2.25 + 0.25 +
    # 20.25 = 35; W = 12 * 35 / (9 * (64 - 4)) = 420 / 540.
    judges = {"x": [0.1, 0.2, 0.3, 0.4], "y": [0.1, 0.3, 0.2, 0.4], "z": [0.2, 0.1, 0.3, 0.4]}
    result = result_of(table_of([None] * 4, [None] * 4, by_judge=judges))
    assert result.kendall_w.value == pytest.approx(7 / 9)
    assert result.judges["x"].value is None
    assert result.judges["x"].why == "no row has a human majority for one response and an answer of every judge"


def test_kendall_w_at_its_ends() -> None:
    same = table_of([None] * 5, [None] * 5, by_judge={name: [0.1, 0.2, 0.2, 0.6, 0.9] for name in "xyz"})
    assert result_of(same).kendall_w.value == pytest.approx(1.0)
    constant = table_of([None] * 5, [None] * 5, by_judge={name: [0.5] * 5 for name in "xyz"})
    assert result_of(constant).kendall_w.value is None


def test_interval_of_kendall_w_covers() -> None:
    # Two judges whose scores are bivariate normal with correlation r: Spearman's is 6/pi asin(r/2), W = (1 + it) / 2.
    rng = np.random.default_rng(4)
    truth = (1 + 6 / np.pi * np.arcsin(0.6 / 2)) / 2
    covered = 0
    for _ in range(200):
        scores = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=80)
        probs = 1 / (1 + np.exp(-scores))
        table = table_of([None] * 80, [None] * 80, by_judge={"x": probs[:, 0].tolist(), "y": probs[:, 1].tolist()})
        figure = result_of(table, resamples=300).kendall_w
        assert figure.low is not None
        assert figure.high is not None
        covered += figure.low <= truth <= figure.high
    assert covered >= 0.90 * 200


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_a_and_b_can_change_places(seed: int) -> None:
    table = make_table(
        np.random.default_rng(seed), 60, judges=3, clusters=20, human_ties=0.1, judge_ties=0.1, unanswered=0.05
    )
    table = replace(table, weights=np.random.default_rng(seed).uniform(1, 4, 60))
    result, exchanged = result_of(table), result_of(table.swapped())
    assert exchanged.judges == result.judges
    assert exchanged.error_correlations == result.error_correlations
    assert exchanged.effective_votes == result.effective_votes
    for end in ("value", "low", "high"):
        assert getattr(exchanged.kendall_w, end) == pytest.approx(getattr(result.kendall_w, end))


def test_judges_can_change_places() -> None:
    table = make_table(np.random.default_rng(5), 100, judges=3, error_correlation=0.4)
    reverse = replace(table, by_judge=dict(reversed(table.by_judge.items())))
    result, other = result_of(table), result_of(reverse)
    assert other.judges == result.judges
    assert other.effective_votes.value == pytest.approx(result.effective_votes.value)
    assert other.kendall_w.value == pytest.approx(result.kendall_w.value)
