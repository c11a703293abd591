"""The frame of every dataset card: a header that `datasets` reads, whatever the title says."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.card_layout import again_section, render_layout, size_category


def header_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("\n---\n", 1)[0].removeprefix("---\n"))
    return found


def test_the_header_names_every_table_and_sections_stand_below_each_other() -> None:
    text = render_layout("mine", ("a", "b"), 10, ["first", "", "second"], {"default": "data/*", "other": "o/data/*"})
    assert header_of(text) == {
        "pretty_name": "mine",
        "tags": ["rlaif", "a", "b"],
        "size_categories": ["n<1K"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "data/*"}]},
            {"config_name": "other", "data_files": [{"split": "train", "path": "o/data/*"}]},
        ],
    }
    assert text.endswith("---\n\n# mine\n\nfirst\n\nsecond\n")


@given(st.text(alphabet="-:#'\"\n\r{}[]*`<>&!|\x1b\u202ea ", max_size=30))
def test_no_title_breaks_out_of_the_header_or_its_heading(title: str) -> None:
    text = render_layout(title, (), 1, ["end"])
    header = header_of(text)
    assert header["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    body = text.split("\n---\n", 1)[1]
    heading, *others = body.strip("\n").split("\n\n")
    assert heading.startswith("#")
    assert "\n" not in heading
    assert others == ["end"]


@pytest.mark.parametrize("command", ["rlaif generate in.jsonl -o out", "echo '```\n# not live\n```'"])
def test_a_command_stays_inside_its_fence(command: str) -> None:
    text = again_section(command, "Again.")
    assert command in text
    fence = text.split("\n\n")[1].split("sh\n")[0]
    assert set(fence) == {"`"}
    assert fence not in command


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (999_999, "100K<n<1M"), (1_000_000, "1M<n<10M")],
)
def test_sizes_are_the_hubs(rows: int, category: str) -> None:
    assert size_category(rows) == category
