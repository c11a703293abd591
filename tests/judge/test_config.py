"""What `--clamp` may say, and how it is written down."""

from __future__ import annotations

import dataclasses

import pytest

from rlaif.judge.config import ClampRange, JudgeConfig


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (None, None),
        (False, None),
        (True, "0.4-0.6"),
        ("0.4-0.6", "0.4-0.6"),
        (" .40 - 0.600 ", "0.4-0.6"),
        ("0.3-0.7", "0.3-0.7"),
        ("0.000001-0.999999", "0.000001-0.999999"),
    ],
)
def test_equal_ranges_are_written_in_one_way(given: str | bool | None, written: str | None) -> None:
    config = JudgeConfig(clamp=given)
    assert config.clamp == written
    assert dataclasses.replace(config, cot=True).clamp == written


def test_the_range_in_numbers() -> None:
    assert JudgeConfig().clamp_range is None
    assert JudgeConfig(clamp=True).clamp_range == ClampRange(0.4, 0.6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0.4-0.7", "is not symmetric around 0.5.* such as 0.4-0.6"),
        ("0.2-0.6", "is not symmetric around 0.5.* such as 0.2-0.8"),
        ("0-1", "expected LOW-HIGH with LOW above 0 and under 0.5, such as 0.4-0.6"),
        ("0.2-1.2", "expected LOW-HIGH"),
        ("-0.2-1.2", "expected LOW-HIGH"),
        ("0.6-0.4", "expected LOW-HIGH"),
        ("0.5-0.5", "expected LOW-HIGH"),
        ("0.4999999999-0.5000000001", "expected LOW-HIGH"),  # what is left would be a tie
        ("0.4,0.6", "expected LOW-HIGH"),
        ("0.4", "expected LOW-HIGH"),
        ("yes", "expected LOW-HIGH"),
        ("", "expected LOW-HIGH"),
    ],
)
def test_what_is_no_range_around_one_half(given: str, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^clamp: {given!r}.*{expected}"):
        JudgeConfig(clamp=given)


def test_all_faults_at_once() -> None:
    with pytest.raises(ValueError, match="clamp: .*; samples: "):
        JudgeConfig(clamp="x", samples=2)
