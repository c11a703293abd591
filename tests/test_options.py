from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Annotated, Literal

import pytest

from rlaif.engine.config import LabelConfig
from rlaif.options import expected, is_within, options


@dataclass(frozen=True)
class Inner:
    """Nested."""

    depth: Annotated[float, "0 to 1"] = 0.5
    """How deep
    it goes."""

    undescribed: int = 3


@dataclass(frozen=True)
class Outer:
    """Outermost."""

    path: str
    """Where."""

    inner: Inner = field(default_factory=Inner)

    names: tuple[str, ...] = ()
    """Which."""


def test_options_are_the_leaves_in_order_with_section_default_and_description() -> None:
    found = options(Outer)
    assert [option.name for option in found] == ["path", "depth", "undescribed", "names"]
    path, depth, undescribed, names = found
    assert path.is_required
    assert path.default is MISSING
    assert (depth.section, depth.default, depth.description) == (("inner",), 0.5, "How deep it goes.")
    assert (undescribed.description, names.section) == ("", ())


def test_two_options_of_one_name_are_our_mistake() -> None:
    @dataclass(frozen=True)
    class Twice:
        depth: int = 0
        inner: Inner = field(default_factory=Inner)

    with pytest.raises(TypeError, match="two options of the name depth"):
        options(Twice)


def test_every_option_of_label_is_described() -> None:
    assert [option.name for option in options(LabelConfig) if not option.description.endswith(".")] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, "at least 1"] | None, "a whole number of at least 1"),
        (Annotated[float, "above 0"], "a number above 0"),
        (Annotated[float, "0 to 1"], "a number from 0 to 1"),
        (Literal["a"] | int, "a or a whole number"),
        (list[str], "a list of text"),
        (dict[str, float], "name=number pairs"),
        (dict[str, str], "name=value pairs"),
    ],
)
def test_expected_values_in_words(annotation: object, words: str) -> None:
    assert expected(annotation) == words


@pytest.mark.parametrize(
    ("bound", "inside", "outside"),
    [("at least 1", (1, 2.5), (0, 0.99)), ("above 0", (0.001,), (0, -1)), ("0 to 1", (0, 0.5, 1), (-0.001, 1.001))],
)
def test_bounds_are_kept_to_the_number(bound: str, inside: tuple[float, ...], outside: tuple[float, ...]) -> None:
    annotation = Annotated[float, bound]
    assert all(is_within(annotation, value) for value in inside)
    assert not any(is_within(annotation, value) for value in outside)
