"""How a consumer loads what was exported for it: lines to print and to put on a card. Pure: names of files in, text
out. What stands in the files is told by `exporting`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from rlaif.data.exporting import FileLayout


class Hint(NamedTuple):
    """What a person does with a file: `title` names the step in a word or two, and is empty where a step goes on."""

    title: str
    text: str


def loading_hints(name: str, files: Mapping[str, str], layout: FileLayout) -> tuple[Hint, ...]:
    """How to load an export.

    Args:
        name: One of `EXPORT_FORMATS`.
        files: "train" and, where the rows are split, "test" -> path.
        layout: The files'.

    >>> loading_hints("openrlhf", {"train": "p.jsonl"}, FileLayout())[0].text
    '--data.dataset p.jsonl --data.prompt_key prompt --data.apply_chat_template'
    """
    if name == "openrlhf":
        return _openrlhf(files, layout)
    if name == "axolotl":
        return _axolotl(files, layout)
    if name == "halos":
        return _halos(files)
    return (Hint("load", dataset_call(files)), *_trainers(name, layout))


def dataset_call(files: Mapping[str, str]) -> str:
    """The call of `datasets` that loads the files.

    >>> dataset_call({"train": "p.parquet"})
    'datasets.load_dataset("parquet", data_files={"train": "p.parquet"})'
    """
    return f"datasets.load_dataset({json.dumps(_loader(files))}, data_files={json.dumps(files, ensure_ascii=False)})"


def _loader(files: Mapping[str, str]) -> str:
    return "parquet" if files["train"].endswith(".parquet") else "json"


def _trainers(name: str, layout: FileLayout) -> tuple[Hint, ...]:
    if name == "hh":
        return ()
    trainer = "trl.KTOTrainer" if name == "kto" else "trl.DPOTrainer, trl.RewardTrainer"
    if name == "trl" or (name == "kto" and not layout.is_conversational):
        other = "--conversational" if name == "kto" else "--format trl-conversational"
        return (Hint("train", f"{trainer}: prompt and response are joined as they stand; for a chat model {other}"),)
    return (Hint("train", f"{trainer}, with a tokenizer that has a chat template"),)


def _openrlhf(files: Mapping[str, str], layout: FileLayout) -> tuple[Hint, ...]:
    flags = f"--data.dataset {files['train']} --data.prompt_key prompt --data.apply_chat_template"
    if "test" in files:
        flags += f" --eval.dataset {files['test']} --eval.split train"  # a lone file is split train
    if layout.with_margin:
        flags += " --model.margin_loss_enable"
    return (Hint("flags", flags),)


def _axolotl(files: Mapping[str, str], layout: FileLayout) -> tuple[Hint, ...]:
    def entry(path: str, kind: str) -> str:
        return (
            f"[{{path: {json.dumps(path, ensure_ascii=False)}, ds_type: {_loader(files)}, split: train, type: {kind}}}]"
        )

    def lines(title: str, first: str, kind: str) -> tuple[Hint, ...]:
        keys = {"train": "datasets", "test": "test_datasets"}
        return (
            Hint(title, first),
            *(Hint("", f"{keys[split]}: {entry(path, kind)}") for split, path in files.items()),
        )

    dpo = lines("YAML", "rl: dpo", "chat_template.default")
    if not layout.is_single_turn:
        why = "bradley_terry.chat_template takes one user turn, and some rows have more"
        return (*dpo, Hint("reward model", f"none: {why}"))
    return (*dpo, *lines("or YAML", "reward_model: true", "bradley_terry.chat_template"))


def _halos(files: Mapping[str, str]) -> tuple[Hint, ...]:
    overrides = f"++train_datasets=[{files['train']}]"
    if "test" in files:
        return (Hint("launch.py", f"{overrides} ++test_datasets=[{files['test']}]"),)
    return (Hint("launch.py", f"{overrides} ++test_datasets=[...], which it needs; --test-share X makes one"),)
