"""What cannot be trained on is said before or at the step, and leaves what was there as it was."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, save_model, sentencepiece_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from rlaif.engine import training_session
from rlaif.engine.config import SourceConfig
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.training_config import RowsConfig
from rlaif.errors import ConfigError, InputError, NonFiniteLossError, PromptTooLongError, RunFolderError
from rlaif.train.config import AdapterConfig, CheckpointConfig, SequenceConfig
from tests.engine.training_runs import (
    StopsAfter,
    demonstration_rows,
    feedback_rows,
    losses,
    pair_rows,
    rated_rows,
    run,
    run_json,
    write_rows,
)

pytestmark = pytest.mark.usefixtures("quick_training")
ONCE = {"max_steps": 1}


@pytest.fixture
def loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are not even looked at."""

    def refuse(*given, **more):
        raise AssertionError("weights were loaded")

    for name in ("load_policy", "load_reward_model_for_training", "load_model"):
        monkeypatch.setattr(training_session, name, refuse)


def changed(row, **more):
    return {name: value for name, value in {**row, **more}.items() if value is not None}


@pytest.mark.parametrize(
    ("method", "rows", "change", "message"),
    [
        ("dpo", pair_rows, {"prob_a": None}, "'prob_a': is missing.*label the rows first"),
        ("rm", pair_rows, {"prob_a": 1.2}, r"'prob_a': is 1\.2, expected a probability from 0 to 1"),
        ("dpo", pair_rows, {"prob_a": -0.01}, r"'prob_a': is -0\.01, expected a probability from 0 to 1"),
        ("kto", pair_rows, {"prob_a": "often"}, "'prob_a': .*expected a probability from 0 to 1"),
        ("ipo", pair_rows, {"response_b": ""}, "'response_b': holds an empty response.* ipo averages over the tokens"),
        ("simpo", pair_rows, {"response_a": ""}, "'response_a': holds an empty response"),
        ("rrhf", rated_rows, {"responses": ["x", "", "y", "z"]}, "'responses': holds an empty response"),
        ("rrhf", rated_rows, {"responses": ["x"], "ratings": [1.0]}, "'responses': .*expected at least 2 responses"),
        ("rm", rated_rows, {"ratings": [1.0, "good", 2.0, 3.0]}, "'ratings': number 2 is .*expected a finite number"),
        ("sft", demonstration_rows, {"response": ""}, "'response': holds an empty response.*nothing to imitate"),
        ("kto", feedback_rows, {"label": "maybe"}, "'label': is 'maybe', expected true or false"),
    ],
)
@pytest.mark.usefixtures("loads_nothing")
def test_a_row_that_cannot_be_trained_on_is_named(method, rows, change, message, model, tmp_path):
    made = rows(4)
    made[2] = changed(made[2], **change)
    data, out = write_rows(tmp_path / "rows.jsonl", made), tmp_path / "out"
    with pytest.raises(InputError, match=rf"rows\.jsonl, line 3, column {message}"):
        run(method, model, data, out)
    assert not out.exists()


@pytest.mark.usefixtures("loads_nothing")
def test_peoples_labels_are_asked_for_where_they_are_missing(model, pairs, tmp_path):
    with pytest.raises(InputError, match="'human_label': is missing.*--labels soft"):
        run("dpo", model, pairs, tmp_path / "out", labels="human")


def test_an_empty_response_is_trained_on_where_its_end_is_a_token(model, tmp_path):
    rows = [*pair_rows(3), changed(pair_rows(1)[0], id="empty", response_b="")]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    for method in ("rm", "dpo", "kto"):
        run(method, model, data, tmp_path / method, optimization=ONCE)
        assert all(map(math.isfinite, losses(tmp_path / method)))


def test_a_prompt_that_is_too_long_is_refused_unless_it_may_be_cut(model, tmp_path):
    rows = [*pair_rows(7), changed(pair_rows(1)[0], id="long", prompt="Do " + "this and " * 20)]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    short = SequenceConfig(max_length=90)
    with pytest.raises(PromptTooLongError, match=r"1 of 8 rows are too long, the first: .*'long'.*--truncate prompt"):
        run("dpo", model, data, out, sequences=short)
    # Nothing was trained, so that the next try may have other settings.
    run("dpo", model, data, out, sequences=SequenceConfig(max_length=90, truncate="prompt"))
    cut = run_json(out)["rows"]["truncated"]
    assert (cut["max_length"], cut["prompts"], cut["completions"]) == (90, 1, 0)
    assert cut["prompt_tokens"] > 50
    assert f"1 prompt by {cut['prompt_tokens']}" in (out / "README.md").read_text()


@pytest.mark.usefixtures("loads_nothing")
def test_a_length_that_the_model_does_not_take_is_refused(model, pairs, tmp_path):
    with pytest.raises(ConfigError, match="max_length: 513, but the model takes 512 tokens at most"):
        run("dpo", model, pairs, tmp_path / "out", sequences=SequenceConfig(max_length=513))


@pytest.mark.usefixtures("loads_nothing")
def test_a_tokenizer_without_eos_is_refused(pairs, tmp_path):
    tokenizer = byte_level_tokenizer()
    tokenizer.eos_token = None
    folder = save_model(tmp_path / "model", tokenizer=tokenizer, eos=[3])
    with pytest.raises(ConfigError, match="no EOS token; a model trained with it would not learn where to end"):
        run("dpo", folder, pairs, tmp_path / "out")


@pytest.mark.parametrize("method", ["rm", "dpo"])
@pytest.mark.parametrize("kind", [byte_level_tokenizer, sentencepiece_tokenizer])
def test_a_model_without_chat_template_is_trained_on_what_it_is_given(method, kind, pairs, tmp_path):
    folder = save_model(tmp_path / "model", tokenizer=kind(None))
    run(method, folder, pairs, tmp_path / "out", optimization=ONCE)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template is None
    assert all(map(math.isfinite, losses(tmp_path / "out")))


@pytest.mark.usefixtures("loads_nothing")
def test_a_reference_of_another_vocabulary_is_refused(model, pairs, tmp_path):
    other = save_model(tmp_path / "other", tokenizer=byte_level_tokenizer(CHAT_TEMPLATE, has_ten=True))
    with pytest.raises(ConfigError, match=r"reference .*other.* has another vocabulary .*expected a model with the"):
        run("dpo", model, pairs, tmp_path / "out", reference=str(other))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("method", "settings", "changes"),
    [
        ("dpo", {"labels": "hard"}, "labels"),
        ("dpo", {"optimization": {"learning_rate": 1e-4}}, "learning_rate"),
        ("dpo", {"seed": 1}, "seed"),
        ("dpo", {"rows": RowsConfig(held_out=0.5)}, "held_out"),
        ("dpo", {"adapter": AdapterConfig(lora_rank=2)}, "lora_rank"),
    ],
)
def test_the_folder_of_another_run_is_not_touched(method, settings, changes, model, pairs, tmp_path):
    out = tmp_path / "out"
    _stopped("dpo", model, pairs, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(RunFolderError, match=rf"holds a run with other settings: .*\b{changes} \(was"):
        run(method, model, pairs, out, **settings)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_checkpoint_of_other_rows_or_another_model_is_not_gone_on_with(model, pairs, tmp_path):
    out = tmp_path / "out"
    _stopped("dpo", model, pairs, out)
    others = write_rows(tmp_path / "others.jsonl", pair_rows(15))
    with pytest.raises(RunFolderError, match=r"other settings: data \(was"):
        run("dpo", model, others, out)
    other_model = save_model(tmp_path / "other", likes_digits=True)
    with pytest.raises(RunFolderError, match=r"other settings: model \(was"):
        run("dpo", other_model, pairs, out)
    with pytest.raises(RunFolderError, match="holds a run of `rlaif train dpo`"):
        run("rm", model, pairs, out)
    assert run("dpo", model, pairs, out).steps == 6


@pytest.mark.usefixtures("loads_nothing")
def test_a_folder_with_something_else_is_not_touched(model, pairs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"is not empty and holds no run\.json"):
        run("dpo", model, pairs, out)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_what_does_not_change_a_weight_may_differ_when_a_run_is_resumed(model, pairs, tmp_path):
    out = tmp_path / "out"
    _stopped("dpo", model, pairs, out)
    resumed = run(
        "dpo", model, pairs, out,
        optimization={"max_tokens": 64, "gradient_checkpointing": True}, checkpoints=CheckpointConfig(save_every=2),
    )  # fmt: skip
    assert resumed.steps == 6


def test_with_early_stopping_the_evaluations_are_those_of_the_first_session(model, pairs, tmp_path):
    held_out = {"rows": RowsConfig(held_out=0.3), "optimization": {"max_steps": 9}}
    seldom, often = (CheckpointConfig(eval_every=every, early_stopping=9) for every in (3, 1))
    with pytest.raises(KeyboardInterrupt):
        run("rm", model, pairs, tmp_path / "out", listener=StopsAfter(1), checkpoints=seldom, **held_out)
    with pytest.raises(RunFolderError, match=r"eval_every \(was 3, now 1\)"):
        run("rm", model, pairs, tmp_path / "out", checkpoints=often, **held_out)


def test_weights_that_are_no_numbers_are_said_to_be_before_a_step(pairs, tmp_path):
    broken = _with_weight(tmp_path, torch.inf)
    with pytest.raises(NonFiniteLossError, match=r"the reference gives a response of row 'r\d+' a log-probability of"):
        run("dpo", broken, pairs, tmp_path / "out")
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_loss_that_is_no_number_stops_with_the_ids_of_its_rows(pairs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(NonFiniteLossError, match="loss of step 1 is nan"):
        run("simpo", _with_weight(tmp_path, torch.inf), pairs, out)
    said = json.loads((out / "checkpoints" / "not-finite-at-step-1.json").read_text())
    assert len(said["ids"]) == 4
    assert set(said["ids"]) <= {row["id"] for row in pair_rows()}
    assert run_json(out)["status"] == "interrupted"
    assert not (out / "model.safetensors").exists()


def test_a_learning_rate_that_is_too_high_leaves_the_last_checkpoint(model, pairs, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(NonFiniteLossError, match="stopped before it reached the weights"):
        run("dpo", model, pairs, out, optimization={"learning_rate": 1e30}, checkpoints=CheckpointConfig(save_every=1))
    (last,) = [path for path in (out / "checkpoints").iterdir() if path.is_dir()]
    assert (last / "complete").exists()
    AutoModelForCausalLM.from_pretrained(last)
    assert all(bool(value.isfinite().all()) for value in load_file(last / "model.safetensors").values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimization": {"batch_size": 17}}, "batch_size: 17, but there are 16 rows to train on; lower it"),
        ({"optimization": {"trainer_arg": {"max_stepz": "3"}}}, "trainer_arg: 'max_stepz'"),
        ({"model": "nowhere/at/all"}, "there is no such folder"),
        ({"device": "cuda:99"}, "device 'cuda:99' cannot be used"),
    ],
)
@pytest.mark.usefixtures("loads_nothing")
def test_settings_that_do_not_fit_are_refused(settings, message, model, pairs, tmp_path):
    values = {"model": model, **settings}
    with pytest.raises(ConfigError, match=message):
        run("dpo", values.pop("model"), pairs, tmp_path / "out", **values)


def test_kto_needs_two_prompts(model, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [changed(row, prompt="Do it") for row in pair_rows(4)])
    with pytest.raises(ConfigError, match="all rows have one prompt"):
        run("kto", model, data, tmp_path / "out")


def test_a_run_that_is_not_finished_is_not_trained_on(model, tmp_path):
    labels = tmp_path / "labels"
    labels.mkdir()
    known = {
        "command": "label",
        "decisive": {},
        "counts": {"rows": 3, "failures": 0},
        "judges": [],
        "status": "running",
    }
    (labels / "run.json").write_text(json.dumps(known))
    with pytest.raises(InputError, match="the run is running, not finished; run its command again first"):
        run("dpo", model, labels, tmp_path / "out")


def _stopped(method: str, model: Path, data: str, out: Path) -> None:
    """A run that was stopped after its second step."""
    with pytest.raises(KeyboardInterrupt):
        run(method, model, data, out, listener=StopsAfter(1))


def _with_weight(tmp_path: Path, value: float) -> Path:
    """A model with one weight that is no number, of a token that every chat prompt has."""
    folder = save_model(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_what_a_reward_model_is_centered_on_is_read_before_a_step(model, pairs, tmp_path):
    out, center = tmp_path / "out", tmp_path / "center.jsonl"
    with pytest.raises(InputError, match=r"center\.jsonl: does not exist"):
        run("rm", model, pairs, out, center_on=str(center))
    write_rows(center, [{"prompt": "Why?", "response": "because " * 500}])
    with pytest.raises(PromptTooLongError, match="1 of 1 rows are too long"):
        run("rm", model, pairs, out, center_on=str(center))
    assert not (out / "checkpoints").exists()
    write_rows(center, [{"prompt": "Why?", "response": "because"}])
    with pytest.raises(KeyboardInterrupt):
        run("rm", model, pairs, out, center_on=str(center), listener=StopsAfter(1))
    write_rows(center, [{"prompt": "Why?", "response": "why not"}])
    with pytest.raises(RunFolderError, match="center_on"):
        run("rm", model, pairs, out, center_on=str(center))


def test_rows_that_do_not_fit_are_left_out_and_named_where_bad_rows_are_skipped(model, tmp_path):
    rows = pair_rows(12)
    rows[3]["prompt"] = "far too long " * 40
    rows[7]["response_a"] = "word " * 200
    data = write_rows(tmp_path / "rows.jsonl", rows)
    too_long = SequenceConfig(max_length=120)
    with pytest.raises(PromptTooLongError, match=r"2 of 12 rows are too long.*--skip-bad-rows"):
        run("dpo", model, data, tmp_path / "refused", sequences=too_long, rows=RowsConfig(held_out=0.0))
    out = tmp_path / "left-out"
    outcome = run(
        "dpo",
        model,
        data,
        out,
        sequences=too_long,
        rows=RowsConfig(held_out=0.0),
        source=SourceConfig(skip_bad_rows=True),
    )
    assert (outcome.rows, outcome.skipped) == (10, 2)
    failures = [json.loads(line) for line in (out / "failures.jsonl").read_text().splitlines()]
    assert [(one["id"], one["stage"], one["error"].partition(":")[0]) for one in failures] == [
        ("r3", "encode", "PromptTooLongError"),
        ("r7", "encode", "PromptTooLongError"),
    ]


def test_a_folder_in_which_another_process_trains_is_left_to_it(model, pairs, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with RunFolder(out, "train dpo").locked(), pytest.raises(RunFolderError, match="another process is writing"):
        run("dpo", model, pairs, out)
    assert not (out / "run.json").exists()
    run("dpo", model, pairs, out)


def test_a_reward_model_is_no_policy(pairs, tmp_path):
    tokenizer = byte_level_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        tie_word_embeddings=True, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    with pytest.raises(ConfigError, match="is a reward model, expected a language model"):
        run("dpo", tmp_path / "reward", pairs, tmp_path / "out")
