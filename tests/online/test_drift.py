"""A figure over the steps of a run: start, now, and the noise between."""

from __future__ import annotations

import json
import math
import random

import pytest

from rlaif.online.drift import START_STEPS, WINDOW_STEPS, Series, share_noise


def series_of(values: list[float]) -> Series:
    series = Series()
    for value in values:
        series.add(value)
    return series


def test_start_now_and_rise_by_hand() -> None:
    series = series_of([1.0, 3.0, 1.0, 3.0, 2.0] + [4.0, 6.0] * 5)
    assert (series.first, series.now) == (2.0, 5.0)  # the latest 8 of 4, 6, 4, 6, ...
    # Differences: 2, -2, 2, -1, 2, then nine of +-2: squares 4 + 4 + 4 + 1 + 4 + 36 = 53 over 14 differences.
    assert series.noise() == pytest.approx(math.sqrt(53 / 28))
    error = math.sqrt(53 / 28) * math.sqrt(1 / 5 + 1 / 8)
    assert series.rise() == pytest.approx(3 / error)
    assert series.above(4.0) == pytest.approx(1 / (math.sqrt(53 / 28) / math.sqrt(8)))
    assert series.noise(floor=9.0) == 9.0


def test_nothing_is_known_before_there_is_enough_after_the_start() -> None:
    series = series_of([0.0] * (START_STEPS + 4))
    assert not series.is_known
    series.add(0.0)
    assert series.is_known
    assert series.rise() == 0.0  # no noise at all is no division by zero


def test_a_slow_drift_is_no_noise() -> None:
    rng = random.Random(0)
    noise = [rng.gauss(0, 1) for _ in range(400)]
    still, drifting = series_of(noise), series_of([value + step / 10 for step, value in enumerate(noise)])
    assert still.noise() == pytest.approx(1, rel=0.1)
    assert drifting.noise() == pytest.approx(still.noise(), rel=0.05)
    assert drifting.rise() > 20 > 4 > abs(still.rise())


def test_it_comes_back_exactly() -> None:
    rng = random.Random(1)
    values = [rng.gauss(0, 1) for _ in range(30)]
    whole = series_of(values)
    for cut in (0, 1, 3, START_STEPS, 7, 20):
        half = Series.from_json(json.loads(json.dumps(series_of(values[:cut]).as_json())))
        for value in values[cut:]:
            half.add(value)
        assert half == whole
    assert len(whole.window) == WINDOW_STEPS


def test_the_noise_of_a_share_is_above_zero_at_its_ends() -> None:
    # (1 * 4 + 1) / 6 = 5/6: sqrt(5/36 / 4)
    assert share_noise(1.0, 4) == pytest.approx(math.sqrt(5) / 12)
    assert share_noise(0.0, 4) == pytest.approx(share_noise(1.0, 4))
