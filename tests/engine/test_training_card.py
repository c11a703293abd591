"""The model card: what it says, and that nothing foreign is live in it."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from rlaif.data.training_methods import RowKind
from rlaif.data.training_selection import Dropped, FilterCounts, SplitCounts
from rlaif.engine.training_card import HeldOutResult, ModelCardFacts, render_model_card
from rlaif.engine.training_config import TRAIN_CONFIGS
from rlaif.engine.training_origin import DataOrigin
from rlaif.train.items import Truncation

FACTS = ModelCardFacts(
    title="helpful-dpo",
    method="dpo",
    base_model="owner/base",
    base_fingerprint="b" * 64,
    source="runs/first",
    source_sha256="c" * 64,
    kind=RowKind.PAIRS,
    labels="soft",
    filtered=FilterCounts(1000, {Dropped.TIE: 40, Dropped.UNSURE: 0}, 960),
    split=SplitCounts(912, 456, 48, 24),
    command="rlaif train dpo --model owner/base --data runs/first -o helpful-dpo",
    seed=3,
    versions={"rlaif": "0.1.0", "torch": "2.13.0"},
    steps=28,
    epochs=0.9825,
    tokens=123_456,
)
ORIGIN = DataOrigin(
    command="label",
    run_id="d" * 64,
    status="finished",
    judges=("openai:gpt-4.1-mini",),
    is_demonstration=False,
    task="helpfulness",
    template="e" * 64,
    constitution="concise",
    constitution_fingerprint="f" * 64,
    failures=7,
)


def card(**changes: Any) -> str:
    return render_model_card(replace(FACTS, **changes))


def header(text: str) -> dict[str, Any]:
    _, between, _ = text.split("---\n", 2)
    loaded: dict[str, Any] = yaml.safe_load(between)
    return loaded


@pytest.mark.parametrize("method", TRAIN_CONFIGS)
def test_every_method_has_a_card_that_the_hub_can_read(method: str) -> None:
    found = header(card(method=method))
    assert found["base_model"] == "owner/base"
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == ("text-classification" if method == "rm" else "text-generation")
    assert method in found["tags"]
    assert "datasets" not in found


@pytest.mark.parametrize("name", ["builtin:tiny", "a b", "owner/name/more", "my-folder"])
def test_a_base_that_the_hub_cannot_have_is_named_in_the_text_only(name: str) -> None:
    text = card(base_model=name)
    assert "base_model" not in header(text)
    assert name in text


def test_data_from_the_hub_are_named_in_the_header() -> None:
    assert header(card(source="hf://owner/pairs@v1:train"))["datasets"] == ["owner/pairs"]


def test_it_says_what_was_trained_on_left_out_and_held_out() -> None:
    text = card(skipped=5, joined=2, truncation=Truncation(512, prompts=3, prompt_tokens=90))
    assert "| Trained on | 912 rows of 456 prompts |" in text
    assert "| Held out | 48 rows of 24 prompts |" in text
    assert "| Left out: ties | 40 |" in text
    assert "least confidence" not in text  # none was left out for that
    assert "| Could not be read, in `failures.jsonl` | 5 |" in text
    assert "3 prompts by 90 tokens in all" in text
    assert "a 0.55 counts as a 0.55" in text
    assert FACTS.command in text
    assert "28 (0.9825 epochs)" in text


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (RowKind.CANDIDATES, "the ratings of each prompt's responses"),
        (RowKind.FEEDBACK, "desirable or not"),
        (RowKind.DEMONSTRATIONS, "all responses are imitated"),
    ],
)
def test_labels_of_rows_that_are_no_pairs(kind: RowKind, words: str) -> None:
    text = card(kind=kind)
    assert words in text
    assert "0.55" not in text


def test_the_run_behind_the_labels_is_named_by_its_id_and_prompts() -> None:
    text = card(origin=ORIGIN)
    for known in ("d" * 64, "openai:gpt-4.1-mini", "helpfulness", "e" * 64, "concise", "f" * 64):
        assert known in text
    assert "| Rows without a label in that run | 7 |" in text
    assert "Warning" not in text


def test_labels_of_the_demonstration_judge_are_warned_of() -> None:
    demonstration = replace(ORIGIN, judges=("builtin:tiny",), is_demonstration=True)
    assert "**Warning: trained on labels of the demonstration judge.**" in card(origin=demonstration)


def test_results_stand_beside_those_before_training_with_their_intervals() -> None:
    results = (
        HeldOutResult("accuracy", 0.625, 0.5, 0.75, before=0.5, n=40),
        HeldOutResult("loss", 0.61),
    )
    text = card(results=results)
    assert "| Preferred response ranked first | 50.0 % | 62.5 % (50.0 % to 75.0 %) | 40 |" in text
    assert "| Loss |  | 0.61 | 48 |" in text
    assert "| On held-out prompts | Before training | After | Over |" in text
    assert "Before training" not in card(results=(HeldOutResult("loss", 0.61),))


def test_without_held_out_prompts_it_says_that_nothing_is_known() -> None:
    assert "None: no prompt was held out" in card(split=SplitCounts(10, 10, 0, 0))


def test_a_reward_model_says_how_to_judge_with_it_and_what_is_subtracted() -> None:
    text = card(method="rm", reward_shift=-0.25)
    assert "--judge hf-reward:FOLDER" in text
    assert "-0.25 is subtracted" in text
    assert "AutoModelForSequenceClassification" in text


def test_an_adapter_is_called_one() -> None:
    text = card(is_adapter=True)
    assert header(text)["library_name"] == "peft"
    assert header(text)["base_model_relation"] == "adapter"
    assert "AutoPeftModelForCausalLM" in text
    assert "builtin_folder('tiny')" in card(is_adapter=True, base_model="builtin:tiny")  # peft would look on the hub


def test_curves_are_shown_with_words_for_those_who_do_not_see_them() -> None:
    assert "![learning rate](curves/learning_rate.png)" in card(curves=("curves/learning_rate.png",))
    assert "## Curves" not in card()


def test_snippets_are_python() -> None:
    for changes in (
        {},
        {"is_adapter": True},
        {"is_adapter": True, "base_model": "builtin:tiny"},
        {"method": "rm"},
        {"method": "rm", "has_chat_template": False},
    ):
        blocks = re.findall(r"```python\n(.*?)```", card(**changes), re.DOTALL)
        assert blocks
        for block in blocks:
            compile(block, "card", "exec")


def test_settings_that_differ_from_their_defaults_are_listed_as_flags() -> None:
    text = card(settings={"held_out": 0.2, "lora_target": ["q_proj", "v_proj"]})
    assert "| `--held-out` | `0.2` |" in text
    assert "| `--lora-target` | `q_proj, v_proj` |" in text


HOSTILE = "</code>\n# Hi\n![x](javascript:1) <script>alert(1)</script> | ``` \x1b[31m\u202e"


def test_nothing_from_outside_is_live() -> None:
    text = card(
        title=HOSTILE,
        base_model=HOSTILE,
        source=HOSTILE,
        reference=HOSTILE,
        command=HOSTILE,
        origin=replace(ORIGIN, judges=(HOSTILE,), task=HOSTILE, constitution=HOSTILE, status=HOSTILE),
        settings={"trainer_arg": {HOSTILE: HOSTILE}},
        notes=(HOSTILE,),
        device=HOSTILE,
    )
    header(text)  # still YAML
    body = text.split("---\n", 2)[2]
    outside = re.sub(r"^(`{3,})\w*\n.*?^\1$", "", body, flags=re.DOTALL | re.MULTILINE)
    assert "<script" not in outside
    assert "](javascript" not in outside
    assert "\n# Hi" not in outside
    assert "\x1b" not in text
    assert "\u202e" not in text
    rows = [line for line in outside.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)  # no cell was broken open
