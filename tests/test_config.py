from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.config import as_dict, resolve
from rlaif.errors import ConfigError


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn."""

    temperature: Annotated[float, "at least 0"] = 1.0
    """Sampling temperature."""

    orders: Literal["both", "ab", "ba", "random"] = "both"
    """Order of presentation."""

    samples: Annotated[int, "at least 1"] = 1
    """Samples a label."""

    cot: bool = False
    """Reasons first."""

    def __post_init__(self) -> None:
        if self.samples > 1 and not self.cot:
            raise ValueError("samples: more than one needs --cot; or ask once; temperature: has no use here")


@dataclass(frozen=True)
class Example:
    """A command."""

    input: str
    """File to read."""

    sampling: Sampling = field(default_factory=Sampling)

    judge: tuple[str, ...] = ("builtin:tiny",)
    """Judges."""

    weights: dict[str, float] = field(default_factory=dict)
    """Weights by name."""

    limit: Annotated[int, "at least 1"] | None = None
    """Rows at most."""

    folder: Path | None = None
    """Where."""

    color: Color = Color.RED
    """Which."""


def in_yaml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "label.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def fault(yaml_path: str | None = None, flags: dict[str, object] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(Example, yaml_path, flags)
    return str(caught.value)


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    path = in_yaml(tmp_path, "input: in.jsonl\ntemperature: 0.5\nsamples: 1\n")
    config = resolve(Example, path, {"temperature": "0.25"})
    assert config == Example("in.jsonl", Sampling(temperature=0.25))


@pytest.mark.parametrize(
    "text",
    [
        "input: x\ntemperature: 0\ncot: true",
        "input: x\nsampling: {temperature: 0, cot: yes}",
        "input: x\nsampling:\n  cot: on\ntemperature: 0",
    ],
)
def test_yaml_may_be_flat_or_nested_by_section(tmp_path: Path, text: str) -> None:
    assert resolve(Example, in_yaml(tmp_path, text)).sampling == Sampling(temperature=0.0, cot=True)


def test_sections_are_named_at_the_top_however_deep_they_lie(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Wrapped:
        run: Example
        quiet: bool = False

    path = in_yaml(tmp_path, "quiet: true\ninput: x\nsampling: {orders: ab}\nrun: {sampling: {cot: true}, limit: 2}")
    # get_type_hints cannot see classes of a function by name
    Wrapped.__annotations__["run"] = Example
    assert resolve(Wrapped, path).run == Example("x", Sampling(orders="ab", cot=True), limit=2)


def test_yaml_names_may_have_dashes(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Dashed:
        max_tokens: int = 1

    assert resolve(Dashed, in_yaml(tmp_path, "max-tokens: 7")).max_tokens == 7


def test_the_sentence_of_the_style_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_yaml(tmp_path, "temprature: 1\norders: 3\ninput: x\n")
    monkeypatch.chdir(tmp_path)
    assert fault("label.yaml") == (
        "label.yaml has 2 faults: temprature: unknown key (did you mean 'temperature'?); "
        "orders: 3, expected both, ab, ba or random"
    )


def test_faults_of_all_layers_are_reported_together_each_with_its_place(tmp_path: Path) -> None:
    path = in_yaml(tmp_path, "orders: bth\nlimit: 0\n")
    assert fault(path, {"temperature": "hot", "cto": True}) == (
        f"{path} has 2 faults: orders: 'bth', expected both, ab, ba or random (did you mean 'both'?); "
        "limit: 0, expected a whole number of at least 1; "
        "the arguments has 3 faults: temperature: 'hot', expected a number of at least 0; "
        "cto: unknown argument (did you mean 'cot'?); input is missing"
    )


def test_what_post_init_refuses_is_told_apart_and_named_where_it_was_given(tmp_path: Path) -> None:
    path = in_yaml(tmp_path, "input: x\nsampling: {samples: 3}\n")
    assert fault(path) == (
        f"{path}: samples: more than one needs --cot; or ask once; the arguments: temperature: has no use here"
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limit", True, "limit: true, expected a whole number of at least 1"),
        ("limit", "2.5", "limit: '2.5', expected a whole number of at least 1"),
        ("temperature", None, "temperature: null, expected a number of at least 0"),
        ("temperature", float("nan"), "temperature: nan, expected a number of at least 0"),
        ("temperature", "inf", "temperature: 'inf', expected a number of at least 0"),
        ("temperature", -0.5, "temperature: -0.5, expected a number of at least 0"),
        ("cot", "maybe", "cot: 'maybe', expected true or false"),
        ("judge", 3, "judge: 3, expected a list of text"),
        ("input", 5, "input: 5, expected text in quotes"),
        ("weights", "a", "weights: 'a', expected name=number pairs"),
        ("weights", "a=b", "weights: 'a=b', expected name=number pairs"),
        ("weights", "a=1,a=2", "weights: 'a' is given twice"),
        ("color", "green", "color: 'green', expected red or blue"),
    ],
)
def test_a_wrong_value_is_shown_with_what_was_expected(name: str, value: object, expected: str) -> None:
    assert fault(None, {"input": "x", name: value}) == f"the arguments: {expected}"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("limit", "12", 12),
        ("judge", "openai:a,b", ("openai:a,b",)),
        ("judge", ["a", "b"], ("a", "b")),
        ("weights", ["a=1,b=2.5", "c=3"], {"a": 1.0, "b": 2.5, "c": 3.0}),
        ("weights", {"a": 1}, {"a": 1.0}),
        ("folder", "some/where", Path("some/where")),
        ("color", "blue", Color.BLUE),
    ],
)
def test_text_becomes_the_type_of_the_field(name: str, value: object, expected: object) -> None:
    assert getattr(resolve(Example, None, {"input": "x", name: value}), name) == expected


def test_numbers_with_an_exponent_are_numbers_although_yaml_reads_text(tmp_path: Path) -> None:
    assert resolve(Example, in_yaml(tmp_path, "input: x\ntemperature: 1e-3")).sampling.temperature == 0.001


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("limit: 1\nlimit: 2\n", "line 2: 'limit' stands here twice"),
        ("a: [1\nb: 2\n", "line 2: not YAML"),
        ("a: @label\n", "cannot start any token; put what begins with @ in quotes"),
        ("- a\n", "holds ['a'], expected options by name"),
        ("? [1, 2]\n: x\n", "line 1: not YAML (found unhashable key)"),
        ("input: x\nsampling: {limit: 3}\n", "sampling.limit: unknown key in sampling; known: temperature, orders"),
        ("input: x\ncot: true\nsampling: {cot: true}\n", "sampling.cot: given a second time, after cot"),
        ("input: x\n1: 2\n", "1: unknown key; known: input, temperature"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in fault(in_yaml(tmp_path, text))


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert resolve(Example, in_yaml(tmp_path, "# nothing\n"), {"input": "x"}) == Example("x")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in fault(str(tmp_path / "none.yaml"))
    assert "Is a directory" in fault(str(tmp_path))
    (tmp_path / "latin.yaml").write_bytes(b"input: caf\xe9\n")
    assert "not UTF-8 at byte 10" in fault(str(tmp_path / "latin.yaml"))


def test_as_dict_holds_json_values_and_can_be_resolved_again() -> None:
    config = Example("x", Sampling(orders="ab"), ("a", "b"), {"w": 2.0}, 3, Path("f"), Color.BLUE)
    nested, flat = as_dict(config), as_dict(config, is_flat=True)
    assert json.loads(json.dumps(nested)) == nested
    assert nested["sampling"]["orders"] == flat["orders"] == "ab"
    assert nested["color"] == "blue"
    assert resolve(Example, None, nested) == resolve(Example, None, flat) == config


@settings(deadline=None)  # the first call imports pydantic
@given(st.floats(0, 1e6), st.sampled_from(["both", "ab", "ba", "random"]), st.integers(1, 10**9) | st.none())
def test_what_can_be_configured_survives_a_round_trip(temperature: float, orders: str, limit: int | None) -> None:
    config = resolve(Example, None, {"input": "x", "temperature": temperature, "orders": orders, "limit": limit})
    assert resolve(Example, None, json.loads(json.dumps(as_dict(config)))) == config


def test_a_secret_of_the_wrong_type_is_not_shown() -> None:
    @dataclass(frozen=True)
    class Server:
        token: str | None = field(default=None, repr=False)

    with pytest.raises(ConfigError, match="token: expected text in quotes") as raised:
        resolve(Server, None, {"token": 12345})
    assert "12345" not in str(raised.value)
