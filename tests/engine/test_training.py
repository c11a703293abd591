"""Training runs from rows to a folder: every method, every kind of rows, adapters, reward models, stopping early."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlaif.backends.builtin import builtin_folder
from rlaif.data.training_selection import held_out_draw
from rlaif.engine import training_results, training_session
from rlaif.engine.training_config import RowsConfig
from rlaif.engine.training_listening import SilentTrainingListener
from rlaif.errors import ConfigError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import find_model, stop_ids
from rlaif.records import Turn
from rlaif.train import reference
from rlaif.train.config import AdapterConfig, CheckpointConfig, KtoLossConfig, RewardLossConfig
from rlaif.train.models import load_reward_model_for_training
from tests.engine.training_runs import (
    GOOD,
    StopsAfter,
    aux_rows,
    demonstration_rows,
    feedback_rows,
    losses,
    metrics,
    pair_rows,
    rated_rows,
    run,
    run_json,
    write_rows,
)

pytestmark = pytest.mark.usefixtures("quick_training")
LORA = AdapterConfig(lora_rank=4)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("sft", demonstration_rows()),
        ("rm", pair_rows()),
        ("rm", rated_rows()),
        ("dpo", pair_rows()),
        ("ipo", pair_rows()),
        ("cdpo", pair_rows()),
        ("robust-dpo", pair_rows()),
        ("gdpo", pair_rows()),
        ("kto", pair_rows()),
        ("kto", feedback_rows()),
        ("hpo", aux_rows(pair_rows())),
        ("simpo", pair_rows()),
        ("rrhf", rated_rows()),
        ("rrhf", pair_rows()),
    ],
)
def test_every_method_learns_from_its_rows(method, rows, model, tmp_path):
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    outcome = run(method, model, data, out, optimization={"max_steps": 8, "learning_rate": 1e-2})
    assert (outcome.rows, outcome.held_out, outcome.steps) == (len(rows), 0, 8)
    found = losses(out)
    assert len(found) == 8
    assert sum(found[-2:]) < sum(found[:2])
    loads = AutoModelForSequenceClassification if method == "rm" else AutoModelForCausalLM
    loads.from_pretrained(out)
    AutoTokenizer.from_pretrained(out)
    assert run_json(out)["status"] == "finished"


def test_a_finished_run_explains_itself_and_is_not_done_again(model, pairs, tmp_path, draws_curves):
    out, rows = tmp_path / "out", RowsConfig(held_out=0.25)
    outcome = run("dpo", model, pairs, out, rows=rows)
    assert outcome.rows + outcome.held_out == 16
    assert outcome.held_out > 0
    assert outcome.metrics.keys() >= {"eval_loss", "eval_accuracy", "eval_margin"}
    assert outcome.metrics["eval_loss"] == metrics(out)[-1]["eval_loss"]
    steps = [line["step"] for line in metrics(out) if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in metrics(out) if "eval_loss" in line] == [0, 6]
    known = run_json(out)
    assert (known["command"], known["steps"], known["config"]["loss"]["beta"]) == ("train dpo", 6, 0.1)
    assert known["resolved"]["learning_rate"] > 0
    assert known["evaluation"].keys() == {"labels"}
    assert known["rows"]["train_rows"] == outcome.rows
    card = (out / "README.md").read_text()
    assert "rlaif train" in card
    assert (out / "curves" / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (out / "failures.jsonl").read_text() == ""
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    again = run("dpo", model, pairs, out, rows=rows)
    assert again.was_finished
    assert (again.steps, again.metrics, again.rows) == (outcome.steps, outcome.metrics, outcome.rows)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == written


@pytest.mark.parametrize(
    ("labels", "probs"),
    [("soft", [0.9, 0.5, 0.25]), ("hard", [1.0, 0.0]), ("human", [0.0, 0.75, 1.0])],
)
def test_a_reward_model_is_trained_towards_the_labels_that_were_asked_for(labels, probs, model, tmp_path):
    votes = [["b", "b"], ["a", "a", "a", "b"], ["a"]]
    rows = [
        {**row, "prob_a": prob, "human_votes": of_row}
        for row, prob, of_row in zip(pair_rows(3), [0.9, 0.5, 0.25], votes, strict=True)
    ]
    source = find_model(str(model), backend=None, device="cpu", dtype="auto")
    untrained = load_reward_model_for_training(source, AdapterConfig(), seed=0)
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    expected = []
    kept = [row for row in rows if labels != "hard" or row["prob_a"] != 0.5]
    for row, prob in zip(kept, probs, strict=True):
        rewards = _rewards(untrained, encoder, row["prompt"], (row["response_a"], row["response_b"]))
        lead = rewards[0] - rewards[1]
        expected.append(prob * math.log1p(math.exp(-lead)) + (1 - prob) * math.log1p(math.exp(lead)))
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    outcome = run("rm", model, data, out, labels=labels, optimization={"batch_size": len(kept), "max_steps": 1})
    assert outcome.rows == len(kept)
    assert losses(out) == [pytest.approx(sum(expected) / len(expected), rel=1e-4)]


def test_rows_are_left_out_by_confidence_ties_and_people(model, tmp_path):
    rows = pair_rows(12)
    for row, prob in zip(rows, [0.5, 0.55, 0.45, 0.9], strict=False):
        row["prob_a"] = prob
    for row in rows[:6]:
        row["human_label"] = "a"
    data = write_rows(tmp_path / "rows.jsonl", rows)
    filters = {
        "sure": RowsConfig(held_out=0.0, min_confidence=0.6),
        "sides": RowsConfig(held_out=0.0, ties="drop"),
        "people": RowsConfig(held_out=0.0, only_human=True),
    }
    found = {
        name: run("rm", model, data, tmp_path / name, rows=kept, optimization={"max_steps": 1}).rows
        for name, kept in filters.items()
    }
    assert found == {"sure": 9, "sides": 11, "people": 6}
    assert run_json(tmp_path / "sure")["rows"]["dropped"] == {"unsure": 3}


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_held_out_prompts_are_not_trained_on(model, tmp_path, monkeypatch, method):
    made = []

    class Watched(training_session.PreferenceTrainer):
        def __init__(self, *given, **more):
            made.append((more["steps"].items, more["held_out_items"]))
            super().__init__(*given, **more)

    monkeypatch.setattr(training_session, "PreferenceTrainer", Watched)
    rows = [{**row, "id": f"{row['id']}-{copy}"} for row in pair_rows() for copy in range(2)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    outcome = run(method, model, data, tmp_path / "out", rows=RowsConfig(held_out=0.4), optimization={"max_steps": 1})
    ((train, held_out),) = made
    trained, tested = ({item.example.prompt for item in items} for items in (train, held_out))
    assert len(trained) + len(tested) == 16
    assert trained.isdisjoint(tested)
    assert (outcome.rows, outcome.held_out) == (2 * len(trained), 2 * len(tested))
    expected = {row["id"] for row in rows if held_out_draw((Turn("user", row["prompt"]),), 0) < 0.4}
    assert {item.example.id for item in held_out} == expected
    if method == "kto":  # z0 is measured on rows that are trained on
        partners = {item.mismatched.example.id.partition(" with ")[2] for item in train}
        assert partners
        assert partners.isdisjoint(expected)


def _contrary(tmp_path: Path, share: float) -> str:
    """Pairs whose held-out prompts have the opposite labels: what is learnt makes them worse."""
    rows = pair_rows(24)
    for row in rows:
        if held_out_draw((Turn("user", row["prompt"]),), 0) < share:
            row["prob_a"] = 1.0 - row["prob_a"]
    return write_rows(tmp_path / "contrary.jsonl", rows)


EARLY = {
    "rows": RowsConfig(held_out=0.3),
    "checkpoints": CheckpointConfig(eval_every=1, early_stopping=3),
    "optimization": {"max_steps": 30, "learning_rate": 2e-3},
}


def test_early_stopping_takes_the_best_checkpoint(model, tmp_path):
    out = tmp_path / "out"
    outcome = run("rm", model, _contrary(tmp_path, 0.3), out, **EARLY)
    found = {line["step"]: line["eval_loss"] for line in metrics(out) if "eval_loss" in line and line["step"]}
    best = min(found, key=found.__getitem__)
    assert outcome.steps == run_json(out)["steps"] == max(found) == best + 3
    assert outcome.steps < 30
    assert outcome.metrics["eval_loss"] == found[best]
    kept = weights_of(out / "checkpoints" / f"checkpoint-{best}")
    assert all(torch.equal(value, kept[name]) for name, value in weights_of(out).items())
    assert f"| Weights kept are those of step | {best} |" in (out / "README.md").read_text()


def test_early_stopping_goes_on_counting_when_a_run_is_resumed(model, tmp_path):
    data = _contrary(tmp_path, 0.3)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = run("rm", model, data, whole, **EARLY)
    with pytest.raises(KeyboardInterrupt):
        run("rm", model, data, parts, listener=StopsAfter(expected.steps - 2), **EARLY)
    assert run_json(parts)["status"] == "interrupted"
    assert run("rm", model, data, parts, **EARLY).steps == expected.steps
    for name in ("loss", "eval_loss"):
        assert [line.get(name) for line in metrics(parts)] == [line.get(name) for line in metrics(whole)]


def test_a_run_that_was_over_but_not_saved_trains_no_further_where_its_folder_is_now(model, tmp_path, monkeypatch):
    data, whole, out = _contrary(tmp_path, 0.3), tmp_path / "whole", tmp_path / "out"
    expected = run("rm", model, data, whole, **EARLY)

    def killed(*given, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training_results, "save_trained", killed)
        with pytest.raises(KeyboardInterrupt):
            run("rm", model, data, out, **EARLY)
    assert not (out / "model.safetensors").exists()
    out = out.rename(tmp_path / "moved")
    found = run("rm", model, data, out, **EARLY)
    assert (found.steps, found.metrics) == (expected.steps, expected.metrics)
    theirs = weights_of(whole)
    assert all(torch.equal(value, theirs[name]) for name, value in weights_of(out).items())


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it by its old name
def test_with_an_adapter_the_reference_is_the_model_without_it(model, pairs, tmp_path):
    out = tmp_path / "adapter"
    run("dpo", model, pairs, out, adapter=LORA)
    assert losses(out)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses(out)[-1] < losses(out)[0]
    assert not (out / "model.safetensors").exists()
    assert "adapter" in (out / "README.md").read_text()
    run("dpo", model, pairs, tmp_path / "merged", adapter=AdapterConfig(lora_rank=4, merge=True))
    from peft import AutoPeftModelForCausalLM

    adapted = AutoPeftModelForCausalLM.from_pretrained(out)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(model)
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        found, expected, before = (one(input_ids=ids).logits for one in (adapted, merged, base))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, before, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # peft asks for it by its old name
def test_an_adapter_of_the_model_that_ships_names_no_path_of_this_machine(pairs, tmp_path):
    run("simpo", "builtin:tiny", pairs, tmp_path / "out", adapter=LORA, optimization={"max_steps": 1})
    texts = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.suffix in (".json", ".md", ".jsonl")]
    assert sum(b'"base_model_name_or_path": "builtin:tiny"' in text for text in texts) == 2  # and its checkpoint
    assert not any(str(builtin_folder("tiny")).encode() in text for text in texts)


@pytest.mark.parametrize(
    ("method", "adapter"),
    [("dpo", AdapterConfig()), ("dpo", AdapterConfig(lora_rank=4, lora_dropout=0.2)), ("rm", LORA)],
)
def test_a_stopped_run_goes_on_where_it_was(method, adapter, model, pairs, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(method, model, pairs, whole, adapter=adapter)
    with pytest.raises(KeyboardInterrupt):
        run(method, model, pairs, parts, adapter=adapter, listener=StopsAfter(2))
    assert len(losses(parts)) == 3  # asked to in the line of step 2, and stopped after the next one
    again = run(method, model, pairs, parts, adapter=adapter)
    assert again.steps == 6
    assert losses(parts) == losses(whole)
    name = "adapter_model.safetensors" if adapter.lora_rank and method == "dpo" else "model.safetensors"
    theirs = load_file(whole / name)
    assert all(torch.equal(value, theirs[key]) for key, value in load_file(parts / name).items())


def test_another_reference_holds_the_policy_to_it(model, pairs, tmp_path):
    other = save_model(tmp_path / "other", likes_digits=True)
    out = tmp_path / "out"
    run("dpo", model, pairs, out, reference=str(other))
    assert abs(losses(out)[0] - math.log(2)) > 1e-3
    decisive = run_json(out)["decisive"]
    assert decisive["reference"] != decisive["model"]
    assert "held to `other`" in (out / "README.md").read_text()


def test_the_reference_is_asked_once_for_all_runs(model, pairs, tmp_path, monkeypatch):
    run("dpo", model, pairs, tmp_path / "one")

    def refuse(*given, **more):
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(reference, "token_logprobs", refuse)
    run("dpo", model, pairs, tmp_path / "two")
    run("ipo", model, pairs, tmp_path / "ipo", adapter=LORA, optimization={"max_steps": 1})
    assert losses(tmp_path / "two") == losses(tmp_path / "one")


def _rewards(found, encoder, prompt, responses):
    example = encoder.example("r", (Turn("user", prompt),), responses)
    with torch.no_grad():
        return [
            float(found(input_ids=torch.tensor([example.prompt + completion])).logits)
            for completion in example.completions
        ]


@pytest.mark.parametrize("adapter", [AdapterConfig(), LORA])
def test_the_mean_reward_of_the_responses_trained_on_is_0_after_the_shift(adapter, model, pairs, tmp_path):
    out = tmp_path / "out"
    run("rm", model, pairs, out, adapter=adapter)
    found = AutoModelForSequenceClassification.from_pretrained(out)
    source = find_model(str(out), backend=None, device="cpu", dtype="auto")
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    rewards = [
        reward
        for row in pair_rows()
        for reward in _rewards(found, encoder, row["prompt"], (row["response_a"], row["response_b"]))
    ]
    assert found.config.reward_shift == run_json(out)["reward_shift"] == pytest.approx(sum(rewards) / 32, abs=1e-4)
    good = sum(rewards[2 * number + (number % 3 == 0)] for number in range(16)) / 16
    assert good > found.config.reward_shift


def test_a_reward_model_can_be_centered_on_other_responses(model, pairs, tmp_path):
    center = write_rows(tmp_path / "center.jsonl", [{"prompt": "Do 99", "response": GOOD[0]}])
    out = tmp_path / "out"
    run("rm", model, pairs, out, center_on=center)
    found = AutoModelForSequenceClassification.from_pretrained(out)
    source = find_model(str(out), backend=None, device="cpu", dtype="auto")
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    assert _rewards(found, encoder, "Do 99", GOOD[:1]) == [pytest.approx(found.config.reward_shift, abs=1e-4)]


def test_a_trained_reward_model_is_trained_on(model, pairs, tmp_path):
    run("rm", model, pairs, tmp_path / "one", optimization={"max_steps": 8})
    run("rm", tmp_path / "one", pairs, tmp_path / "two", optimization={"max_steps": 2, "learning_rate": 1e-4})
    assert losses(tmp_path / "two")[0] < losses(tmp_path / "one")[0]


def test_settings_of_a_loss_reach_it(model, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", feedback_rows())
    once = {"max_steps": 1, "batch_size": 12}
    run("kto", model, data, tmp_path / "kto", loss=KtoLossConfig(desirable_weight=3.0), optimization=once)
    assert losses(tmp_path / "kto") == [pytest.approx(0.5 * (3.0 * 6 + 6) / 12, abs=1e-5)]
    with_margins = write_rows(tmp_path / "margins.jsonl", pair_rows(margin=2.0))
    loss = RewardLossConfig(with_margins=True)
    run("rm", model, with_margins, tmp_path / "margins", loss=loss, optimization=once)
    run("rm", model, with_margins, tmp_path / "none", optimization=once)
    assert losses(tmp_path / "margins")[0] > losses(tmp_path / "none")[0] + 0.5


def test_pairs_are_evaluated_beside_people_too(model, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", pair_rows(human_label="a"))
    run("rm", model, data, tmp_path / "out", rows=RowsConfig(held_out=0.5), optimization={"max_steps": 2})
    evaluation = run_json(tmp_path / "out")["evaluation"]
    assert evaluation["labels"].keys() == {"agreement", "squared_error", "calibration_error"}
    assert evaluation["human"].keys() >= {"agreement", "brier", "ece"}


def test_rows_that_cannot_be_read_are_skipped_where_that_is_asked_for(model, tmp_path):
    from rlaif.engine.config import SourceConfig

    rows = [*pair_rows(8), {"id": "bad", "prompt": "Why", "response_a": "x", "response_b": "y", "prob_a": 7}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    outcome = run("dpo", model, data, tmp_path / "out", source=SourceConfig(skip_bad_rows=True))
    assert (outcome.rows, outcome.skipped) == (8, 1)
    assert '"id": "bad"' in (tmp_path / "out" / "failures.jsonl").read_text()


def test_early_stopping_without_held_out_rows_is_refused(model, pairs, tmp_path):
    with pytest.raises(ConfigError, match="early_stopping: needs held-out prompts"):
        run("dpo", model, pairs, tmp_path / "out", checkpoints=CheckpointConfig(early_stopping=2))


class Hears(SilentTrainingListener):
    """Remembers what it was warned of."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)


def test_kto_says_when_one_class_outweighs_the_other(model, tmp_path):
    rows = [{**row, "label": number < 10} for number, row in enumerate(feedback_rows(12))]
    heard = Hears()
    run("kto", model, write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out", listener=heard)
    assert any(text.startswith("desirable responses weigh 5 times") for text in heard.warnings)
