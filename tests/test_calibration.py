"""What a calibration does to a probability, and the file it stands in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.calibration import (
    Calibration,
    FittedOn,
    as_json,
    calibrated,
    clipped_logit,
    length_ratio,
    load_calibration,
    save_calibration,
)
from rlaif.errors import InputError, RunFolderError
from rlaif.records import Order

CALIBRATION = Calibration(2.0, 0.3, -0.1)

probs = st.floats(0.0, 1.0)
lengths = st.integers(0, 100_000)
calibrations = st.builds(Calibration, st.floats(0.01, 100.0), st.floats(-20, 20), st.floats(-10, 10))


class TestFormula:
    def test_by_hand(self) -> None:
        # odds 0.8 / 0.2 = 4 -> sqrt(4) = 2; the first slot's odds over exp(0.3); 9 and 0 characters: ratio 10, and
        # 10^-0.1 -> 2 * exp(-0.3) * 10^-0.1 = 1.17690; p = odds / (1 + odds)
        odds = 2 * math.exp(-0.3) * 10**-0.1
        assert float(calibrated(0.8, Order.AB, 9, 0, CALIBRATION)) == pytest.approx(odds / (1 + odds))
        # B first: what the first slot loses, A gains
        odds = 2 * math.exp(0.3) * 10**-0.1
        assert float(calibrated(0.8, Order.BA, 9, 0, CALIBRATION)) == pytest.approx(odds / (1 + odds))

    def test_no_change_from_the_neutral_calibration(self) -> None:
        values = np.array([0.0002, 0.3, 0.5, 0.9])
        assert calibrated(values, Order.AB, np.arange(4), np.arange(4)[::-1], Calibration()) == pytest.approx(values)

    def test_certainty_is_clipped_and_what_was_not_asked_stays_so(self) -> None:
        assert clipped_logit(1.0) == pytest.approx(math.log(0.9999 / 0.0001))
        assert clipped_logit(0.0) == pytest.approx(-clipped_logit(1.0))
        found = calibrated(np.array([np.nan, 1.0]), Order.AB, np.array([1, 1]), np.array([1, 1]), Calibration())
        assert np.isnan(found[0])
        assert found[1] == pytest.approx(0.9999)

    def test_extreme_numbers_overflow_nowhere(self) -> None:
        steep = Calibration(0.001, 1000.0, 50.0)
        assert calibrated(np.array([0.0, 1.0]), Order.AB, 10**9, 0, steep).tolist() == [0.0, 1.0]

    def test_lengths_of_nothing(self) -> None:
        assert length_ratio(0, 0) == 0.0
        assert length_ratio(1, 0) == pytest.approx(math.log(2))

    @given(probs, lengths, lengths, calibrations)
    def test_exchanging_a_and_b_turns_p_into_1_minus_p(self, prob: float, a: int, b: int, each: Calibration) -> None:
        there = float(calibrated(prob, Order.AB, a, b, each))
        back = float(calibrated(1.0 - prob, Order.BA, b, a, each))
        assert 0.0 <= there <= 1.0
        assert back == pytest.approx(1.0 - there, abs=1e-9)

    @given(probs, probs, lengths, lengths, calibrations)
    def test_a_larger_probability_never_becomes_the_smaller(
        self, one: float, other: float, a: int, b: int, each: Calibration
    ) -> None:
        low, high = calibrated(np.array(sorted([one, other])), Order.BA, a, b, each)
        assert low <= high


class TestNumbers:
    @pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
    def test_a_temperature_is_above_0(self, wrong: float) -> None:
        with pytest.raises(ValueError, match="temperature"):
            Calibration(wrong)

    def test_the_fingerprint_is_of_what_changes_a_value(self) -> None:
        assert Calibration(2, 0.0).fingerprint == Calibration(2.0, -0.0, 0, FittedOn(7)).fingerprint
        others = {Calibration(2.0, 0.1), Calibration(2.0, 0.0, 0.1), Calibration(1.0), Calibration(2.0)}
        assert len({each.fingerprint for each in others}) == 4


class TestDifferences:
    fitted = Calibration(fitted_on=FittedOn(100, ("openai:a",), "helpfulness", "f1", "mean-prob"))

    def test_none_where_all_is_equal_or_unknown(self) -> None:
        assert self.fitted.differences(("openai:a",), "helpfulness", "f1", "mean-prob") == ()
        assert self.fitted.differences() == ()
        assert Calibration().differences(("openai:b",), "x", "f2", "mean-logit") == ()

    def test_each_is_named(self) -> None:
        assert self.fitted.differences(("openai:b",), "harmlessness", "f2", "mean-logit") == (
            "judge openai:a, not openai:b",
            "another prompt template (task helpfulness, not harmlessness)",
            "--debias mean-prob, not mean-logit",
        )


class TestFile:
    def test_comes_back_as_it_was(self, tmp_path: Path) -> None:
        origin = FittedOn(
            300, ("openai:a", "openai:b"), "helpfulness", "f1", "mean-prob", 5, {"brier": 0.25}, {"brier": 0.2}
        )
        calibration = Calibration(1.7, -0.2, 0.05, origin)
        save_calibration(calibration, tmp_path / "new" / "f.json")
        assert load_calibration(tmp_path / "new" / "f.json") == calibration
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["f.json"]

    def test_says_what_it_is(self) -> None:
        assert as_json(Calibration(2.0)) == {
            "kind": "rlaif-calibration",
            "version": 1,
            "temperature": 2.0,
            "slot_bias": 0.0,
            "length_slope": 0.0,
        }

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"temperature": 0}, "temperature is 0.0, expected a number above 0"),
            ({"temperature": "2"}, "temperature is '2', expected a number"),
            ({"temperature": 10**400}, "int too large"),
            ({"slot_bias": True}, "slot_bias is True, expected a number"),
            ({"slot_bias": math.nan}, "slot_bias is nan, expected a finite number"),
            ({"length_slope": None}, "length_slope is None, expected a number"),
            ({"temprature": 1}, "'temprature' is an unknown key .did you mean 'temperature'"),
            ({"version": 2}, "version is 2, expected 1"),
            ({"kind": "x"}, "is no calibration"),
            ({"fitted_on": {"rows": 3, "judge": "x"}}, "'judge' is an unknown key .did you mean 'judges'"),
            ({"fitted_on": {}}, "rows is missing"),
            ({"fitted_on": {"rows": 3, "judges": "openai:x"}}, "judges is 'openai:x', expected a list"),
            ({"fitted_on": {"rows": 3, "judges": 5}}, "judges is 5, expected a list"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path: Path, changes: dict[str, object], message: str) -> None:
        path = tmp_path / "f.json"
        path.write_text(json.dumps({**as_json(CALIBRATION), **changes}))
        with pytest.raises(InputError, match=message) as caught:
            load_calibration(path)
        assert str(path) in str(caught.value)

    @pytest.mark.parametrize("content", ["", "[]", "{", "3"])
    def test_other_files_are_refused(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "f.json").write_text(content)
        with pytest.raises(InputError, match="f.json"):
            load_calibration(tmp_path / "f.json")

    def test_a_missing_file_and_one_that_cannot_be_written(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="No such file"):
            load_calibration(tmp_path / "none.json")
        (tmp_path / "file").write_text("")
        with pytest.raises(RunFolderError, match="cannot be written"):
            save_calibration(CALIBRATION, tmp_path / "file" / "f.json")
