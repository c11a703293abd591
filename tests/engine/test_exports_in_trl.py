"""TRL trains one step on each of its formats, as exported: METHODS check 58 by the consumer itself. One process for all
of it: importing TRL is the slow part, and its warnings are not ours."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import pytest
from tiny_models import save_model

from rlaif.engine.export_config import ExportConfig
from rlaif.engine.exporting import export_rows

pytest.importorskip("trl")

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Q?"}]
PROBS = (0.9, 0.2, 0.7, 0.6)

SCRIPT = """
import json, sys
import datasets, torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, RewardConfig, RewardTrainer

torch.set_num_threads(1)
tokenizer = AutoTokenizer.from_pretrained("model")
tokenizer.pad_token = tokenizer.eos_token
kinds = {
    "dpo": (DPOTrainer, DPOConfig, AutoModelForCausalLM, {}),
    "kto": (KTOTrainer, KTOConfig, AutoModelForCausalLM, {}),
    "reward": (RewardTrainer, RewardConfig, AutoModelForSequenceClassification, {"num_labels": 1}),
}
found = {}
for kind, file in json.loads(sys.argv[1]):
    trainer_class, config_class, model_class, more = kinds[kind]
    loader = "parquet" if file.endswith(".parquet") else "json"
    data = datasets.load_dataset(loader, data_files=file, split="train")
    torch.manual_seed(0)
    model = model_class.from_pretrained("model", **more)
    config = config_class(
        output_dir="out", max_steps=1, per_device_train_batch_size=8, report_to="none", use_cpu=True, bf16=False,
        save_strategy="no", disable_tqdm=True, gradient_checkpointing=False,
    )
    trainer = trainer_class(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    result = trainer.train()
    texts = [tokenizer.decode(ids) for ids in trainer.train_dataset[0:2].get("chosen_ids", [])]
    found[f"{kind} {file}"] = [trainer.state.global_step, len(trainer.train_dataset), result.training_loss, texts]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """Kind of training and file -> steps, rows, loss, two texts that were chosen."""
    folder = tmp_path_factory.mktemp("exports")
    save_model(folder / "model")
    for name, prompt in (("plain", "Q?"), ("talk", TALK)):
        rows = [
            {
                "prompt": prompt,
                "response_a": f"yes {n}",
                "response_b": f"no {n}",
                "prob_a": prob,
                "margin": 9,
                "tools": "x",
            }
            for n, prob in enumerate(PROBS)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exports: list[tuple[str, str, str, dict[str, Any]]] = [
        ("plain", "trl", "texts.jsonl", {}),
        ("plain", "trl", "margins.json", {"margin": True}),
        ("talk", "trl-conversational", "messages.parquet", {}),
        ("plain", "kto", "kto-texts.jsonl.gz", {}),
        ("talk", "kto", "kto-messages.jsonl", {}),
    ]
    for source, name, out, more in exports:
        export_rows(ExportConfig(str(folder / f"{source}.jsonl"), name, str(folder / out), **more))  # type: ignore[arg-type]
    runs = [
        *[(kind, file) for kind in ("dpo", "reward") for file in ("texts.jsonl", "messages.parquet")],
        ("reward", "margins.json"),
        *[("kto", file) for file in ("kto-texts.jsonl.gz", "kto-messages.jsonl")],
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(runs)],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_format_trains_a_step(trained: dict[str, list[Any]]) -> None:
    assert len(trained) == 7
    for name, (steps, rows, loss, _) in trained.items():
        assert (steps, rows) == (1, 8 if name.startswith("kto") else 4)
        assert math.isfinite(loss)


def test_policy_and_reference_begin_equal(trained: dict[str, list[Any]]) -> None:
    # -log sigmoid(0) = ln 2; KTO's 1 - sigmoid(0) = 0.5
    assert trained["dpo texts.jsonl"][2] == pytest.approx(math.log(2), abs=1e-5)
    assert trained["dpo messages.parquet"][2] == pytest.approx(math.log(2), abs=1e-5)
    assert trained["kto kto-messages.jsonl"][2] == pytest.approx(0.5, abs=1e-5)


def test_what_is_chosen_is_what_the_label_prefers(trained: dict[str, list[Any]]) -> None:
    assert [text.removesuffix("</s>") for text in trained["dpo texts.jsonl"][3]] == ["yes 0", "no 1"]
    first = trained["reward messages.parquet"][3][0]
    assert all(text in first for text in ("Be brief.", "Q?", "yes 0"))


def test_a_margin_moves_the_loss_only_where_it_was_asked_for(trained: dict[str, list[Any]]) -> None:
    # the user's own margin of 9 would have; asked for, the logits do: the loss grows
    with_margin, without = trained["reward margins.json"][2], trained["reward texts.jsonl"][2]
    assert without < with_margin < without + max(math.log(prob / (1 - prob)) for prob in (0.9, 0.8, 0.7, 0.6))
