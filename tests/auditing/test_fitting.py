"""Calibrations fitted to judges whose parameters are known, and to those that have none."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from auditing.simulated import simulated_judge
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from rlaif.auditing.fitting import LEAST_ROWS, average, calibrated_prob, fit_calibration
from rlaif.auditing.results import Audit
from rlaif.auditing.table import AuditTable
from rlaif.calibration import Calibration
from rlaif.errors import CalibrationError
from rlaif.judge.scoring import combine_orders


def parameters(table: AuditTable, **options: object) -> list[float]:
    return [*fit_calibration(table, **options).calibration.parameters.values()]  # type: ignore[arg-type]


class TestKnownJudges:
    @pytest.mark.parametrize(("temperature", "bias", "slope"), [(0.5, 0.8, 0.0), (1.0, 0.0, 0.5), (2.5, -0.8, 0.5)])
    @pytest.mark.parametrize("debias", ["mean-prob", "mean-logit"])
    def test_are_recovered(self, temperature: float, bias: float, slope: float, debias: str) -> None:
        # standard errors at 4,000 rows: some 4 % of T and b, 0.04 of k
        found = parameters(simulated_judge(1, 4000, temperature, bias, slope), debias=debias)
        assert found[0] == pytest.approx(temperature, rel=0.15)
        assert found[1] == pytest.approx(bias, rel=0.15, abs=1e-9)
        assert found[2] == pytest.approx(slope, abs=0.15)

    def test_calibrating_makes_probabilities_true(self) -> None:
        result = fit_calibration(simulated_judge(2, 2000, 2.5, 0.8, 0.5))
        assert result.helps
        assert result.warnings == ()
        assert result.gain.low > 0
        assert result.after["ece"] < 0.6 * result.before["ece"]
        assert result.after["brier"] < result.before["brier"]
        assert (result.rows, result.clusters, result.folds) == (2000, 2000, 5)

    def test_the_slot_bias_takes_no_human_label(self) -> None:
        # 60 labels; the noise-free difference of the two orders is 2 T b in all rows, so T b is found exactly
        table = simulated_judge(3, 400, 2.0, 0.7)
        table = replace(table, human=np.where(np.arange(400) < 60, table.human, np.nan))
        result = fit_calibration(table)
        assert result.slot_bias_from == "both orders"
        assert result.rows == 60
        assert result.calibration.temperature * result.calibration.slot_bias == pytest.approx(2.0 * 0.7, rel=1e-9)

    def test_one_order_a_row_tells_the_slot_bias_by_likelihood(self) -> None:
        result = fit_calibration(simulated_judge(4, 4000, 2.0, 0.7, orders="random"))
        assert result.slot_bias_from == "likelihood"
        assert result.calibration.slot_bias == pytest.approx(0.7, abs=0.12)
        assert result.calibration.temperature == pytest.approx(2.0, rel=0.15)

    @pytest.mark.parametrize("orders", ["ab", "ba"])
    def test_a_fixed_order_cannot_tell_the_slot_bias(self, orders: str) -> None:
        result = fit_calibration(simulated_judge(5, 500, 2.0, 0.7, orders=orders))
        assert (result.slot_bias_from, result.calibration.slot_bias) == ("nothing", 0.0)
        assert any("slot bias could not be told" in warning for warning in result.warnings)
        assert result.parameters["slot_bias"].low is None

    def test_intervals_hold_what_is_true(self) -> None:
        # 95 % of 30 data sets is 28.5; fewer than 24 has a chance under 0.3 % (binomial)
        true = {"temperature": 1.5, "slot_bias": 0.4, "length_slope": 0.3}
        held = dict.fromkeys(true, 0)
        for seed in range(30):
            found = fit_calibration(simulated_judge(seed, 300, *true.values(), noise=0.0)).parameters
            for name, value in true.items():
                held[name] += found[name].low <= value <= found[name].high
        assert min(held.values()) >= 24

    def test_agrees_with_a_general_minimiser(self) -> None:
        # one order, so that the loss is plain logistic regression: logit = a * l + k * r, with a = 1 / T and the prior
        table = simulated_judge(6, 300, 2.0, 0.0, 0.4, noise=1.0, orders="ab")
        prob = np.clip(table.prob_a_ab, 1e-4, 1 - 1e-4)
        logits = np.log(prob / (1 - prob))
        ratio = np.log((table.length_a + 1) / (table.length_b + 1))
        signs = np.where(table.human == 1.0, 1.0, -1.0)

        def loss(theta: np.ndarray) -> float:
            scores = logits / math.exp(theta[0]) + theta[1] * ratio
            return float(np.logaddexp(0, -signs * scores).sum() + (theta**2).sum() / 2)

        best = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10})
        temperature, _, slope = parameters(table)
        assert temperature == pytest.approx(math.exp(best.x[0]), rel=1e-4)
        assert slope == pytest.approx(best.x[1], abs=1e-4)


class TestInvariance:
    @pytest.mark.parametrize("orders", ["both", "random"])
    def test_exchanging_a_and_b_changes_nothing(self, orders: str) -> None:
        table = simulated_judge(7, 400, 2.0, 0.5, 0.3, noise=0.5, orders=orders)
        there, back = fit_calibration(table), fit_calibration(table.swapped())
        assert [*back.calibration.parameters.values()] == pytest.approx(
            [*there.calibration.parameters.values()], rel=1e-4
        )
        assert back.after["log_loss"] == pytest.approx(there.after["log_loss"], rel=1e-5)
        assert calibrated_prob(table.swapped(), there.calibration) == pytest.approx(
            1.0 - calibrated_prob(table, there.calibration)
        )

    def test_the_unit_of_weights_does_not_matter_and_their_ratio_does(self) -> None:
        table = simulated_judge(8, 300, 2.0, 0.5, 0.3, noise=0.5)
        scaled = replace(table, weights=table.weights * 7.0)
        assert parameters(scaled) == pytest.approx(parameters(table), rel=1e-6)
        tilted = replace(table, weights=np.where(table.prob_a > 0.5, 5.0, 1.0))
        assert parameters(tilted) != pytest.approx(parameters(table), rel=1e-3)

    def test_whole_weights_are_copies_of_rows(self) -> None:
        # but for the prior, which sees Kish's number of rows: 2,000 make it negligible
        table = simulated_judge(9, 2000, 2.0, 0.0, 0.3, orders="ab")
        times = np.where(np.arange(2000) % 2, 3, 1)
        copied = table.take(np.repeat(np.arange(2000), times))
        weighted = replace(table, weights=times.astype(np.float64))
        assert parameters(weighted) == pytest.approx(parameters(copied), rel=2e-3)

    @given(
        st.lists(st.one_of(st.none(), st.floats(0.0, 1.0)), min_size=2, max_size=2).filter(any),
        st.sampled_from(["mean-prob", "mean-logit"]),
    )
    def test_orders_are_averaged_as_the_run_averages_them(self, probs: list[float | None], debias: str) -> None:
        arrays = [np.array([np.nan if prob is None else prob]) for prob in probs]
        expected = combine_orders(probs[0], probs[1], debias).prob_a  # type: ignore[arg-type]
        assert average(*arrays, debias)[0] == pytest.approx(expected, abs=1e-12)  # type: ignore[arg-type]

    def test_rows_without_an_order_stay_as_they_are(self) -> None:
        table = simulated_judge(10, 60)
        nothing = np.full(60, np.nan)
        identical = replace(table, prob_a=np.full(60, 0.5), prob_a_ab=nothing, prob_a_ba=nothing)
        assert (calibrated_prob(identical, Calibration(2.0, 0.5, 0.5)) == 0.5).all()


class TestDoubtfulJudges:
    def test_a_random_judge_is_not_helped_and_the_result_says_so(self) -> None:
        rng = np.random.default_rng(11)
        table = replace(simulated_judge(11, 200), human=(rng.random(200) < 0.5).astype(float))
        result = fit_calibration(table)
        # its confident labels all come near 0.5: a gain over the raw ones, of a judge that says nothing
        assert result.calibration.temperature > 5
        assert any("say little about what people prefer" in warning for warning in result.warnings)

    def test_a_calibrated_judge_gains_nothing_certain(self) -> None:
        result = fit_calibration(simulated_judge(12, 200))
        assert result.gain.low <= 0
        assert len(result.warnings) == 1
        assert "does not help" in result.warnings[0] or "not certain" in result.warnings[0]
        assert result.helps == ("not certain" in result.warnings[0])

    def test_labels_that_would_follow_length_alone_are_warned_of(self) -> None:
        rng = np.random.default_rng(17)
        table = simulated_judge(17, 400)  # a judge that knows nothing, and people who like the longer one
        longer = (table.length_a > table.length_b).astype(float)
        result = fit_calibration(replace(table, human=np.where(rng.random(400) < 0.8, longer, 1.0 - longer)))
        assert result.length_share > 0.5
        assert any("people prefer the longer one" in warning for warning in result.warnings)

    def test_a_judge_that_is_always_right_stays_finite(self) -> None:
        table = simulated_judge(13, 200)
        table = replace(table, human=(table.prob_a > 0.5).astype(float))
        result = fit_calibration(table)
        assert 0.01 < result.calibration.temperature < 1.0
        assert abs(result.calibration.length_slope) < 5

    def test_a_saturated_judge_is_warned_of(self) -> None:
        table = simulated_judge(14, 300, 30.0)
        result = fit_calibration(table)
        assert result.clipped_share > 0.5
        assert any("closer to 0 or 1 than 0.0001" in warning for warning in result.warnings)

    def test_one_cluster_each_two_rows_is_never_parted(self) -> None:
        table = replace(simulated_judge(15, 200), clusters=np.repeat(np.arange(100), 2))
        assert fit_calibration(table).clusters == 100


class TestRefusals:
    def test_too_few_rows(self) -> None:
        with pytest.raises(CalibrationError, match=f"expected at least {LEAST_ROWS}: 1 more are needed"):
            fit_calibration(simulated_judge(1, LEAST_ROWS - 1))
        assert fit_calibration(simulated_judge(1, LEAST_ROWS)).rows == LEAST_ROWS

    def test_ties_and_missing_answers_do_not_count(self) -> None:
        table = simulated_judge(1, 60)
        undecided = replace(table, human=np.where(np.arange(60) < 5, 0.5, np.where(np.arange(60) < 8, np.nan, 1.0)))
        unusable = replace(undecided, prob_a=np.where(np.arange(60) > 55, np.nan, table.prob_a))
        with pytest.raises(CalibrationError, match="^48 rows have both"):
            fit_calibration(unusable)

    def test_one_class(self) -> None:
        table = simulated_judge(1, 100)
        for human, side in ((1.0, "A"), (0.0, "B")):
            with pytest.raises(CalibrationError, match=f"people prefer response {side} in all of the 100 rows"):
                fit_calibration(replace(table, human=np.full(100, human)))

    @pytest.mark.parametrize("certain", [1.0, 1.0 - 1e-6])
    def test_hard_verdicts(self, certain: float) -> None:
        table = simulated_judge(1, 100)
        hard = np.where(table.prob_a > 0.6, certain, np.where(table.prob_a < 0.4, 1.0 - certain, 0.5))
        with pytest.raises(CalibrationError, match="no logit to calibrate"):
            fit_calibration(replace(table, prob_a=hard, prob_a_ab=hard, prob_a_ba=hard))

    def test_no_probability_by_order(self) -> None:
        nothing = np.full(100, np.nan)
        with pytest.raises(CalibrationError, match="no probability by order"):
            fit_calibration(replace(simulated_judge(1, 100), prob_a_ab=nothing, prob_a_ba=nothing))

    def test_one_cluster(self) -> None:
        table = replace(simulated_judge(1, 100), clusters=np.zeros(100, dtype=np.int64))
        with pytest.raises(CalibrationError, match="one cluster"):
            fit_calibration(table)


def test_what_is_told_fits_into_the_audit_and_the_file() -> None:
    result = fit_calibration(
        simulated_judge(16, 100, 2.0), judges=("openai:a",), task="helpfulness", template="f1", debias="mean-logit"
    )
    told = Audit({}, {}, {}, calibration=result.as_mapping()).as_json()["calibration"]
    assert json.loads(json.dumps(told)) == told
    assert told["temperature"] == result.calibration.temperature
    assert told["gain"]["n"] == told["n"] == 100
    assert set(told["before"]) == set(told["after"]) == {"brier", "log_loss", "ece"}
    origin = result.calibration.fitted_on
    assert origin is not None
    assert (origin.rows, origin.judges, origin.task, origin.template) == (100, ("openai:a",), "helpfulness", "f1")
    assert (origin.debias, origin.folds, origin.after) == ("mean-logit", 5, result.after)
