"""Errors are sentences for people."""

from __future__ import annotations

import inspect

import rlaif.errors
from rlaif.errors import InputError, RlaifError, did_you_mean


def test_nothing_near_gives_no_hint() -> None:
    assert did_you_mean("zzzz", ["temperature"]) == ""


def test_an_input_error_says_where() -> None:
    error = InputError("expected text", path="a.jsonl", line=3, column="prompt")
    assert str(error) == "a.jsonl, line 3, column 'prompt': expected text"
    assert str(InputError("is empty", path="a.jsonl")) == "a.jsonl: is empty"
    assert isinstance(error, ValueError)


def test_the_tree_in_the_docstring_is_complete() -> None:
    classes = [each for each in vars(rlaif.errors).values() if inspect.isclass(each) and issubclass(each, RlaifError)]
    assert len(classes) > 10
    missing = [each.__name__ for each in classes if each.__name__ not in (rlaif.errors.__doc__ or "")]
    assert missing == []
