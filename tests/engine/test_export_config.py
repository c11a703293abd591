"""What `rlaif export` refuses before it reads a row."""

from __future__ import annotations

import pytest

from rlaif.config import resolve
from rlaif.data.exporting import EXPORT_FORMATS
from rlaif.engine.export_config import ExportConfig
from rlaif.errors import ConfigError
from rlaif.options import choices_of, options


def fault(**given: object) -> str:
    with pytest.raises(ConfigError) as caught:
        resolve(ExportConfig, None, {"input": "run", "format": "trl", "out": "p.jsonl", **given})
    return str(caught.value)


def test_the_choices_are_the_formats() -> None:
    (option,) = (option for option in options(ExportConfig) if option.name == "format")
    assert set(choices_of(option.annotation)) == set(EXPORT_FORMATS)


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_files_that_the_consumer_opens(name: str) -> None:
    for extension in EXPORT_FORMATS[name].extensions:
        resolve(ExportConfig, None, {"input": "run", "format": name, "out": f"p{extension}"})
    assert "expected a file for" in fault(format=name, out="p.csv")


@pytest.mark.parametrize(("name", "out"), [("halos", "p.jsonl"), ("openrlhf", "p.jsonl.gz"), ("trl", "p"), ("hh", "")])
def test_files_that_it_does_not(name: str, out: str) -> None:
    assert "with the extension" in fault(format=name, out=out)


def test_what_a_format_has_not() -> None:
    assert "margin: axolotl reads none" in fault(format="axolotl", margin=True)
    assert "conversational: is of --format kto" in fault(conversational=True)
    assert "no desirable side" in fault(format="kto", ties="keep")
    both = fault(format="halos", margin=True)
    assert "2 faults" in both


@pytest.mark.parametrize("name", ["owner", "a/b/c", "/b", "a/", "a b/c", "../x", "-/.."])
def test_names_on_the_hub(name: str) -> None:
    assert "expected OWNER/NAME" in fault(push_to_hub=name)
    resolve(ExportConfig, None, {"input": "run", "format": "trl", "out": "p.jsonl", "push_to_hub": "me/my-pairs_1.0"})


def test_private_is_of_an_upload() -> None:
    assert "private" in fault(private=True)
