"""Rewards from a Python function of the user's, MODULE:FUNCTION: found, called, and what it returns checked.

    def score(prompts, completions, answer, **columns) -> list[float | None]

A plain function is called in a thread, one batch after the other; an async one is awaited, several batches at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from rlaif.data.columns import described
from rlaif.errors import ConfigError, RewardError, did_you_mean
from rlaif.records import Prompt
from rlaif.rollout_records import Rollout

_GIVEN = ("prompts", "completions")
_SHOWN = 200
"""Characters of an error's words that a message repeats."""


class RewardFunction:
    """A function of the user's, with its answers checked.

    Args:
        function: Called with the keywords `prompts`, `completions` and the rows' other columns, of which only those
            that it names, unless it takes `**columns`. It returns one number or None a completion.
        name: MODULE:FUNCTION, for messages.
        source_sha256: Of the file that it stands in; None where there is none.

    Raises:
        ConfigError: It does not take `completions`.
    """

    def __init__(self, function: Callable[..., Any], name: str, source_sha256: str | None = None) -> None:
        self.name = name
        self.source_sha256 = source_sha256
        self._function = function
        self._parameters = _parameters(function, name)
        self._pool = ThreadPoolExecutor(1, "rlaif-reward")

    async def rewards(self, rollouts: Sequence[Rollout]) -> list[tuple[float | None, ...]]:
        """The rewards of each rollout's completions, all asked for in one call.

        Raises:
            RewardError: The function raised, cannot be given what it needs, or returned something else.
        """
        rows = [rollout.prompt for rollout in rollouts for _ in rollout.completions]
        texts = [completion.text for rollout in rollouts for completion in rollout.completions]
        if not rows:
            return [() for _ in rollouts]
        keywords = self._keywords(rows, texts)
        try:
            result, fault = await asyncio.get_running_loop().run_in_executor(self._pool, self._call, keywords)
            if fault is not None:
                raise fault
            if inspect.isawaitable(result):
                result = await result
        except Exception as error:
            words = f"{type(error).__name__}: {str(error)[:_SHOWN]}"
            raise RewardError(
                f"reward {self.name} failed on {len(rows)} completions, the first of row {rows[0].id!r}: {words}"
            ) from error
        places = [
            f"row {rollout.prompt.id!r}, completion {number} of {len(rollout.completions)}"
            for rollout in rollouts
            for number in range(1, len(rollout.completions) + 1)
        ]
        values = iter(checked_rewards(result, self.name, places))
        return [tuple(next(values) for _ in rollout.completions) for rollout in rollouts]

    def close(self) -> None:
        """Let its thread go; what it computes now is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, keywords: Mapping[str, Any]) -> tuple[Any, Exception | None]:
        # The error as a value: a future takes no StopIteration.
        try:
            return self._function(**keywords), None
        except Exception as error:
            return None, error

    def _keywords(self, rows: Sequence[Prompt], texts: list[str]) -> dict[str, Any]:
        names = dict.fromkeys(name for row in rows for name in row.extra)  # in their order
        if taken := [name for name in _GIVEN if name in names]:
            raise RewardError(
                f"reward {self.name} cannot be given the rows' column {taken[0]!r}: a reward function is given "
                f"{' and '.join(_GIVEN)} of its own; rename the column"
            )
        columns = {name: [row.extra.get(name) for row in rows] for name in names}
        given = {"prompts": [prompt_as_given(row) for row in rows], "completions": texts, **columns}
        if self._parameters is None:
            return given
        needed = [name for name, parameter in self._parameters.items() if _is_needed(parameter)]
        if missing := [name for name in needed if name not in given]:
            raise RewardError(
                f"reward {self.name} needs {', '.join(missing)}, and the rows have no such column; "
                f"they have: {', '.join(names) or 'none besides the prompt'}"
            )
        if _takes_any(self._parameters):
            return given
        return {name: values for name, values in given.items() if name in self._parameters}


def load_function(target: str) -> RewardFunction:
    """The function that MODULE:FUNCTION names. Its module is run; it may lie in the working directory.

    Raises:
        ConfigError: There is no such module or function, it cannot be imported, or it takes no `completions`.
    """
    module_name, _, path = target.partition(":")
    try:
        with _working_directory_in_path():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"reward {target}: {module_name} needs a module that is missing: {error}") from error
        raise ConfigError(
            f"reward {target}: no module {error.name!r} in the working directory ({module_name.replace('.', '/')}.py), "
            "nor installed; start the command where the file lies, or put its folder into PYTHONPATH"
        ) from error
    except Exception as error:
        words = f"{type(error).__name__}: {str(error)[:_SHOWN]}"
        raise ConfigError(f"reward {target}: {module_name} cannot be imported: {words}") from error
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            known = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
            raise ConfigError(
                f"reward {target}: {module_name} has no {path!r}{did_you_mean(path, known)}; "
                f"callable there: {', '.join(known) or 'nothing'}"
            ) from None
    if not callable(found):
        raise ConfigError(f"reward {target}: is {described(found)}, expected a function")
    return RewardFunction(found, target, _source_sha256(module))


def checked_rewards(result: Any, name: str, places: Sequence[str]) -> list[float | None]:
    """What a function returned, as one float or None a completion; True is 1 and False 0.

    Args:
        result: A list, tuple, array or tensor of numbers.
        name: The function's.
        places: Which completion each number is of, in words.

    Raises:
        RewardError: The number of values is another, or one is no finite number.

    >>> checked_rewards([True, None, 2], "f", ["a", "b", "c"])
    [1.0, None, 2.0]
    """
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise RewardError(f"reward {name} returned {described(values)}, expected a list of {len(places)} numbers")
    if len(values) != len(places):
        raise RewardError(
            f"reward {name} returned {len(values)} values for {len(places)} completions, expected one for each"
        )
    return [_checked(value, name, place) for value, place in zip(values, places, strict=True)]


def prompt_as_given(prompt: Prompt) -> str | list[dict[str, str]]:
    """A prompt as its row gave it: text, or a list of {role, content} messages."""
    if not prompt.is_conversational and len(prompt.prompt) == 1:
        return prompt.prompt[0].content
    return [turn._asdict() for turn in prompt.prompt]


def _checked(value: Any, name: str, place: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real) and hasattr(value, "item"):  # a tensor of one number, or NumPy's bool
        with contextlib.suppress(Exception):
            value = value.item()
    number = math.nan
    if isinstance(value, Real):
        with contextlib.suppress(OverflowError):
            number = float(value)
    if not math.isfinite(number):
        raise RewardError(
            f"reward {name} returned {described(value)} for {place}; expected a finite number, or None to leave the "
            "completion out"
        )
    return number


def _parameters(function: Callable[..., Any], name: str) -> Mapping[str, inspect.Parameter] | None:
    """What a function takes by name; None where it does not say."""
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):
        return None
    named = {
        each.name: each
        for each in parameters.values()
        if each.kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL)
    }
    has_nameless = any(each.kind is inspect.Parameter.POSITIONAL_ONLY for each in parameters.values())
    if has_nameless or not ("completions" in named or _takes_any(named)):
        raise ConfigError(
            f"reward {name} takes ({', '.join(parameters)}), expected (prompts, completions, **columns) by these names"
        )
    return named


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.kind is not inspect.Parameter.VAR_KEYWORD and parameter.default is inspect.Parameter.empty


@contextlib.contextmanager
def _working_directory_in_path() -> Iterator[None]:
    folder = os.getcwd()
    sys.path.insert(0, folder)
    importlib.invalidate_caches()  # the file may have been written a moment ago
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the module may have tidied up itself
            sys.path.remove(folder)


def _source_sha256(module: ModuleType) -> str | None:
    path = getattr(module, "__file__", None)
    if path is None:
        return None
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return None
