"""The card of an uploaded export."""

from __future__ import annotations

from dataclasses import replace

import yaml

from rlaif.data.export_card import ExportFacts, render_export_card
from rlaif.data.export_loading import Hint

FACTS = ExportFacts(
    title="pairs",
    format="trl",
    files={"train": ("train.jsonl", 1234, 900), "test": ("test.jsonl", 5, 4)},
    columns=("id", "prompt", "chosen", "rejected", "chosen_prob"),
    judges=("openai:gpt",),
    labels="soft",
    is_demonstration=False,
    left_out=("2 ties",),
    hints=(Hint("load", 'datasets.load_dataset("me/pairs")'),),
    command="rlaif export run",
    version="1.0",
)


def test_says_what_is_there() -> None:
    card = render_export_card(FACTS)
    _, header, body = card.split("---\n", 2)
    splits = [{"split": "train", "path": "train.jsonl"}, {"split": "test", "path": "test.jsonl"}]
    assert yaml.safe_load(header)["configs"] == [{"config_name": "default", "data_files": splits}]
    for text in ("| train | 1,234 | 900 |", "`openai:gpt`", "Left out: 2 ties.", "- `chosen_prob`: the probability",
                 "rlaif export run"):  # fmt: skip
        assert text in body
    assert "demonstration" not in card


def test_says_who_judged() -> None:
    assert "demonstration judge" in render_export_card(replace(FACTS, is_demonstration=True))
    assert "people's votes" in render_export_card(replace(FACTS, labels="human"))
    assert "is told by" not in render_export_card(replace(FACTS, judges=()))


def test_names_of_others_are_not_live() -> None:
    hostile = "<script>x</script>[a](http://b)"
    card = render_export_card(replace(FACTS, judges=(hostile,), title=hostile, command=hostile, left_out=(hostile,)))
    assert "<script" not in card
    assert "](http" not in card
