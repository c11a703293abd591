"""Reward functions of the tests, for `--reward`; a test sets `fault` to have one fail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tests.online.online_runs import arm_rewards

asked: list[int] = []
"""Completions of each call."""


def fault(call: int) -> str:
    """What is wrong with a call, counted from 1: nothing, "nan" or "error"."""
    return ""


def faulty(completions: Sequence[str], **columns: Any) -> list[float]:
    """As `arm_rewards`, as long as nothing is wrong."""
    asked.append(len(completions))
    what = fault(len(asked))
    if what == "error":
        raise OSError("the disk is gone")
    return [math.nan] * len(completions) if what == "nan" else arm_rewards(completions)


def equal(completions: Sequence[str], **columns: Any) -> list[float]:
    """The same for all."""
    return [0.7] * len(completions)


def none(completions: Sequence[str], **columns: Any) -> list[None]:
    """Nothing for all."""
    return [None] * len(completions)


def not_of_a(completions: Sequence[str], **columns: Any) -> list[float | None]:
    """None for what begins with an a."""
    return [
        None if text.startswith("a") else value
        for text, value in zip(completions, arm_rewards(completions), strict=True)
    ]


def silence(completions: Sequence[str], **columns: Any) -> list[float]:
    """For writing nothing."""
    return [float(not text) for text in completions]


def huge(completions: Sequence[str], **columns: Any) -> list[float]:
    return [1e20 * value for value in arm_rewards(completions)]


def best(completions: Sequence[str], **columns: Any) -> list[float]:
    """For a b alone."""
    return [float(text[:1] == "b") for text in completions]
