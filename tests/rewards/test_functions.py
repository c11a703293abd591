from __future__ import annotations

import asyncio
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rlaif.errors import ConfigError, RewardError
from rlaif.rewards.functions import RewardFunction, checked_rewards, load_function
from rlaif.rollout_records import Rollout
from tests.rewards.rollouts import rollout

SOURCE = """
import json

class Scorer:
    def score(self, completions, **columns):
        return [len(text) for text in completions]

scorer = Scorer()
number = 7

async def twice(prompts, completions):
    return [2.0 * len(text) for text in completions]
"""

Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Puts a module into the working directory, under a name that no other test has."""
    monkeypatch.chdir(tmp_path)
    written: list[str] = []

    def write(name: str, source: str) -> None:
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)

    yield write
    for name in written:
        sys.modules.pop(name, None)


def rewards(function: Callable[..., Any], rollouts: Sequence[Rollout]) -> list[tuple[float | None, ...]]:
    made = RewardFunction(function, "m:f")
    try:
        return asyncio.run(made.rewards(rollouts))
    finally:
        made.close()


# --- finding ----------------------------------------------------------------------------------------------------------


def test_a_function_is_found_in_the_working_directory(write: Write) -> None:
    write("reward_found", SOURCE)
    before = list(sys.path)
    bound, awaited = load_function("reward_found:scorer.score"), load_function("reward_found:twice")
    assert sys.path == before
    assert bound.source_sha256 == awaited.source_sha256 == hashlib.sha256(SOURCE.encode()).hexdigest()
    asked = [rollout(["a", ""]), rollout(["abc"])]
    assert asyncio.run(bound.rewards(asked)) == [(1.0, 0.0), (3.0,)]
    assert asyncio.run(awaited.rewards(asked)) == [(2.0, 0.0), (6.0,)]
    assert asyncio.run(awaited.rewards([])) == []
    for each in (bound, awaited):
        each.close()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("reward_nowhere.sub:f", r"no module 'reward_nowhere' in the working directory \(reward_nowhere/sub.py\)"),
        ("reward_faulty:scor", r"has no 'scor' \(did you mean 'score'\?\); callable there: score, blank"),
        ("reward_faulty:number", "is 7, expected a function"),
        ("reward_faulty:blank", r"takes \(texts\), expected \(prompts, completions, \*\*columns\)"),
        ("reward_broken:f", "reward_broken cannot be imported: ZeroDivisionError: division by zero"),
        ("reward_needing:f", "reward_needing needs a module that is missing: No module named 'reward_absent'"),
    ],
)
def test_what_cannot_be_used_is_said(write: Write, target: str, words: str) -> None:
    write("reward_faulty", "number = 7\ndef score(prompts, completions): ...\ndef blank(texts): ...")
    write("reward_broken", "1 / 0")
    write("reward_needing", "import reward_absent")
    with pytest.raises(ConfigError, match=words):
        load_function(target)


# --- what it is given -------------------------------------------------------------------------------------------------


def test_it_is_given_prompts_as_the_rows_gave_them_and_their_other_columns() -> None:
    seen: dict[str, Any] = {}

    def score(prompts: list[Any], completions: list[str], **columns: Any) -> list[int]:
        seen.update(prompts=prompts, completions=completions, **columns)
        return [0] * len(prompts)

    talk = rollout(["y"], [("system", "Be brief."), ("user", "Hi.")], answer=3)
    assert rewards(score, [rollout(["x", ""], "Why?", topic="t"), talk]) == [(0.0, 0.0), (0.0,)]
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}]
    assert seen == {
        "prompts": ["Why?", "Why?", messages],
        "completions": ["x", "", "y"],
        "topic": ["t", "t", None],
        "answer": [None, None, 3],
    }


def test_it_is_given_only_what_it_names() -> None:
    def score(completions: list[str], answer: list[str], weight: float = 2.0) -> list[float]:
        return [weight * (text == right) for text, right in zip(completions, answer, strict=True)]

    assert rewards(score, [rollout(["a", "b"], answer="b", topic="t")]) == [(0.0, 2.0)]
    with pytest.raises(RewardError, match="needs answer, and the rows have no such column; they have: topic"):
        rewards(score, [rollout(["a"], topic="t")])


def test_a_column_cannot_stand_for_what_is_given() -> None:
    with pytest.raises(RewardError, match="the rows' column 'completions'"):
        rewards(lambda **columns: [0], [rollout(["a"], completions="x")])


# --- what it returns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ([True, None, -1], [1.0, None, -1.0]),
        ((0.5, np.float32(0.25), np.bool_(False)), [0.5, 0.25, 0.0]),
        (np.array([1, 2, 3]), [1.0, 2.0, 3.0]),
        (torch.tensor([1.5, 2.5, 3.5], dtype=torch.bfloat16), [1.5, 2.5, 3.5]),
        ([torch.tensor(2.0), torch.tensor([True]), np.int64(3)], [2.0, 1.0, 3.0]),
    ],
)
def test_numbers_of_any_kind_are_floats(result: Any, expected: list[float | None]) -> None:
    values = checked_rewards(result, "m:f", ["a", "b", "c"])
    assert values == expected
    assert {type(value) for value in values} <= {float, type(None)}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("nan"), "NaN"),
        (float("-inf"), "-inf"),
        (np.float32("nan"), "nan"),
        (torch.tensor(float("inf")), "inf"),
        ("1.0", "'1.0'"),
        (1 + 0j, "(1+0j)"),
        (10**400, "1000"),
        (torch.ones(2), "tensor"),
        ([1.0], "a list of 1"),
    ],
)
def test_what_is_no_finite_number_stops_and_is_named(value: Any, shown: str) -> None:
    with pytest.raises(RewardError) as caught:
        rewards(lambda completions: [1.0, 2.0, value], [rollout(["a"]), rollout(["b", "c"], row="r2")])
    assert "reward m:f returned " in str(caught.value)
    assert shown in str(caught.value)
    assert "for row 'r2', completion 2 of 2; expected a finite number, or None" in str(caught.value)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ([1.0], "returned 1 values for 2 completions"),
        (None, "returned null, expected a list of 2 numbers"),
        ("ab", "returned 'ab', expected a list of 2 numbers"),
        (np.float64(1.0), "returned 1.0, expected a list of 2 numbers"),
        ({"a": 1, "b": 2}, "returned an object with a, b, expected a list"),
    ],
)
def test_as_many_values_as_completions_are_needed(result: Any, words: str) -> None:
    with pytest.raises(RewardError, match=words):
        rewards(lambda **_: result, [rollout(["a", "b"])])


@pytest.mark.parametrize("error", [KeyError("answer"), StopIteration(), SystemError("x" * 1000)])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_exception_in_it_is_named_and_kept(error: Exception, is_async: bool) -> None:
    async def fails_later(completions: list[str]) -> list[float]:
        raise error

    def fails(completions: list[str]) -> list[float]:
        raise error

    with pytest.raises(RewardError, match=r"reward m:f failed on 1 completions, the first of row 'row': \w+") as caught:
        rewards(fails_later if is_async else fails, [rollout(["a"])])
    assert len(str(caught.value)) < 400
    if not (is_async and isinstance(error, StopIteration)):  # a coroutine cannot raise that one
        assert caught.value.__cause__ is error


def test_an_object_that_can_be_awaited_and_one_without_a_signature() -> None:
    class Scorer:
        async def __call__(self, prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
            await asyncio.sleep(0)
            return [1.0 for _ in completions]

    class Bare:
        __signature__ = "none"

        def __call__(self, **given: Any) -> list[float]:
            return [float(len(given)) for _ in given["completions"]]

    with pytest.raises((TypeError, ValueError)):
        inspect.signature(Bare())
    assert rewards(Scorer(), [rollout(["a", "b"])]) == [(1.0, 1.0)]
    assert rewards(Bare(), [rollout(["a"], topic="t")]) == [(3.0,)]


def test_the_verifiers_that_ship_are_reward_functions() -> None:
    function = load_function("rlaif.rewards.verifiers:number_match")
    assert asyncio.run(function.rewards([rollout(["6 * 7 = 42", "41"], answer="#### 42")])) == [(1.0, 0.0)]
    with pytest.raises(RewardError, match="'answer' holds 'many', expected a number"):
        asyncio.run(function.rewards([rollout(["1"], answer="many")]))
    function.close()
