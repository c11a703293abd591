"""What is said about loading an export."""

from __future__ import annotations

import pytest
import yaml

from rlaif.data.export_loading import loading_hints
from rlaif.data.exporting import EXPORT_FORMATS, FileLayout

ONE = {"train": "p.jsonl"}
TWO = {"train": "p.train.jsonl", "test": "p.test.jsonl"}


def hint(name: str, files: dict[str, str], layout: FileLayout | None = None) -> str:
    return loading_hints(name, files, layout or FileLayout())[0].text


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_every_format_names_every_file(name: str) -> None:
    said = " ".join(each.text for each in loading_hints(name, TWO, FileLayout()))
    assert all(path in said for path in TWO.values())


def test_datasets() -> None:
    assert hint("trl", TWO) == (
        'datasets.load_dataset("json", data_files={"train": "p.train.jsonl", "test": "p.test.jsonl"})'
    )
    assert hint("hh", {"train": "p.parquet"}).startswith('datasets.load_dataset("parquet"')


def test_plain_texts_are_no_chat() -> None:
    assert "trl-conversational" in loading_hints("trl", ONE, FileLayout())[1].text
    assert "--conversational" in loading_hints("kto", ONE, FileLayout())[1].text
    assert "--conversational" not in loading_hints("kto", ONE, FileLayout(is_conversational=True))[1].text


def test_openrlhf_finds_a_lone_file_as_split_train() -> None:
    assert hint("openrlhf", TWO).endswith("--eval.dataset p.test.jsonl --eval.split train")
    assert "margin" not in hint("openrlhf", ONE)
    assert hint("openrlhf", ONE, FileLayout(with_margin=True)).endswith("--model.margin_loss_enable")


def test_axolotl_is_yaml() -> None:
    hints = loading_hints("axolotl", TWO, FileLayout())
    dpo, reward = ("\n".join(each.text for each in part) for part in (hints[:3], hints[3:]))
    entry = {"ds_type": "json", "split": "train", "type": "chat_template.default"}
    assert yaml.safe_load(dpo) == {
        "rl": "dpo",
        "datasets": [{"path": "p.train.jsonl", **entry}],
        "test_datasets": [{"path": "p.test.jsonl", **entry}],
    }
    assert yaml.safe_load(reward)["test_datasets"][0]["type"] == "bradley_terry.chat_template"
    assert yaml.safe_load(reward)["reward_model"] is True
    assert loading_hints("axolotl", ONE, FileLayout(is_single_turn=False))[-1].text.startswith("none")


def test_halos_needs_a_test_file() -> None:
    assert "--test-share" in hint("halos", {"train": "p.json"})
