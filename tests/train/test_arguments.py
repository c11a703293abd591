"""Our settings as those of transformers."""

from __future__ import annotations

import pytest

from rlaif.errors import ConfigError
from rlaif.train.arguments import learning_rate_of, optimizer_steps, training_arguments
from rlaif.train.config import LEARNING_RATES, AdapterConfig, CheckpointConfig, OptimizationConfig

NO_ADAPTER = AdapterConfig()


def arguments(tmp_path, *, method="dpo", steps=100, is_evaluated=True, checkpoints=None, **optimization):
    return training_arguments(
        method, OptimizationConfig(**optimization), checkpoints or CheckpointConfig(), NO_ADAPTER,
        folder=tmp_path, steps=steps, device="cpu", seed=3, is_evaluated=is_evaluated,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("optimization", "rows", "steps"),
    [
        ({"batch_size": 4, "epochs": 1.0}, 20, 5),
        ({"batch_size": 4, "epochs": 3.0}, 10, 8),  # 7.5, to even
        ({"batch_size": 4, "epochs": 0.01}, 20, 1),
        ({"batch_size": 20, "epochs": 1.0}, 20, 1),
        ({"batch_size": 4, "epochs": 1.0, "max_steps": 999}, 20, 999),
    ],
)
def test_how_many_steps_a_run_has(optimization, rows, steps):
    assert optimizer_steps(OptimizationConfig(**optimization), rows) == steps


def test_a_step_of_more_rows_than_there_are_is_refused():
    with pytest.raises(ConfigError, match="batch_size: 8, but there are 7 rows to train on; lower it"):
        optimizer_steps(OptimizationConfig(batch_size=8, max_steps=1), 7)


@pytest.mark.parametrize("method", LEARNING_RATES)
def test_the_learning_rate_is_the_usual_one_unless_it_is_set(method):
    usual, adapter = LEARNING_RATES[method], AdapterConfig(lora_rank=4)
    assert learning_rate_of(method, OptimizationConfig(), NO_ADAPTER) == usual
    assert learning_rate_of(method, OptimizationConfig(), adapter) == 10 * usual
    assert learning_rate_of(method, OptimizationConfig(learning_rate=0.5), adapter) == 0.5


def test_a_run_is_looked_at_and_saved_ten_times_though_not_every_moment(tmp_path):
    args = arguments(tmp_path, steps=1000)
    assert (args.eval_steps, args.save_steps, args.logging_steps, args.max_steps) == (100, 100, 1, 1000)
    assert args.metric_for_best_model == "eval_loss"
    assert arguments(tmp_path, steps=3).save_steps == 3
    seldom = arguments(tmp_path, checkpoints=CheckpointConfig(save_every=7))
    assert (seldom.eval_steps, seldom.save_steps) == (7, 7)
    both = arguments(tmp_path, checkpoints=CheckpointConfig(save_every=8, eval_every=4, log_every=2))
    assert (both.eval_steps, both.save_steps, both.logging_steps) == (4, 8, 2)


def test_without_held_out_rows_nothing_is_evaluated(tmp_path):
    args = arguments(tmp_path, is_evaluated=False)
    assert (args.eval_strategy, args.metric_for_best_model) == ("no", None)
    with pytest.raises(ConfigError, match="early_stopping: needs held-out prompts"):
        arguments(tmp_path, is_evaluated=False, checkpoints=CheckpointConfig(early_stopping=2))


def test_what_a_step_is_cannot_be_changed_by_arguments_of_transformers(tmp_path):
    args = arguments(tmp_path, batch_size=32)
    assert (args.per_device_train_batch_size, args.gradient_accumulation_steps) == (1, 1)
    assert args.remove_unused_columns is False
    assert args.logging_nan_inf_filter is False
    with pytest.raises(ConfigError, match="'max_steps' has a flag of its own or would break a step"):
        arguments(tmp_path, trainer_arg={"max_steps": "5"})
    with pytest.raises(ConfigError, match=r"'adam_beta' \(did you mean.*adam_beta1"):
        arguments(tmp_path, trainer_arg={"adam_beta": "0.5"})


def test_arguments_of_transformers_are_read_as_yaml(tmp_path):
    given = {"adam_beta2": "0.95", "full_determinism": "false", "lr_scheduler_kwargs": "{num_cycles: 0.4}"}
    args = arguments(tmp_path, trainer_arg=given)
    assert (args.adam_beta2, args.full_determinism, args.lr_scheduler_kwargs) == (0.95, False, {"num_cycles": 0.4})


def test_numbers_may_be_written_as_in_python(tmp_path):
    assert arguments(tmp_path, trainer_arg={"adam_epsilon": "1e-9"}).adam_epsilon == 1e-9  # text, to YAML
    assert arguments(tmp_path, trainer_arg={"neftune_noise_alpha": "null"}).neftune_noise_alpha is None


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("adam_beta1", "much", "trainer_arg: adam_beta1: expected a number, got 'much'"),
        ("adam_beta1", "true", "trainer_arg: adam_beta1: expected a number, got 'true'"),
        ("adam_beta1", "null", "trainer_arg: adam_beta1: expected a number, got 'null'"),
        ("dataloader_num_workers", "1.5", "expected a whole number, got '1.5'"),
        ("eval_on_start", "1", "expected true or false, got '1'"),
        ("adam_beta1", "[1", "trainer_arg: adam_beta1: cannot be read as YAML"),
        ("save_only_model", "true", "has a flag of its own or would break a step"),
        ("fsdp", "sometimes", "transformers refuses .*sometimes"),
        ("fsdp", "true", "fsdp splits the weights over processes, and there is one; begin with torchrun"),
        ("deepspeed", "{zero_optimization: {stage: 2}}", "transformers refuses .*deepspeed"),
        ("accelerator_config", "/no/such.json", "transformers refuses .*such.json"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(tmp_path, name, text, fault):
    with pytest.raises(ConfigError, match=fault):
        arguments(tmp_path, trainer_arg={name: text})


def test_what_transformers_refuses_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"transformers refuses .*adamw_of_tomorrow"):
        arguments(tmp_path, optimizer="adamw_of_tomorrow")
    with pytest.raises(ConfigError, match="report_to: nobody is not supported"):
        arguments(tmp_path, checkpoints=CheckpointConfig(report_to=("nobody",)))


def test_a_tracker_that_is_not_installed_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("rlaif.train.arguments.get_available_reporting_integrations", lambda: ["tensorboard"])
    with pytest.raises(ConfigError, match="report_to: wandb is not installed"):
        arguments(tmp_path, checkpoints=CheckpointConfig(report_to=("tensorboard", "wandb")))
    assert arguments(tmp_path, checkpoints=CheckpointConfig(report_to=("tensorboard",))).report_to == ["tensorboard"]


def test_early_stopping_takes_one_of_the_models_that_were_evaluated(tmp_path):
    args = arguments(tmp_path, checkpoints=CheckpointConfig(early_stopping=2, eval_every=4))
    assert (args.eval_steps, args.save_steps, args.load_best_model_at_end) == (4, 4, True)
    with pytest.raises(ConfigError, match="early_stopping: .*save_every is 6, expected 4 as eval_every"):
        arguments(tmp_path, checkpoints=CheckpointConfig(early_stopping=2, eval_every=4, save_every=6))


@pytest.mark.parametrize(
    ("schedule", "kind"), [("cosine", "cosine"), ("linear", "linear"), ("constant", "constant_with_warmup")]
)
def test_the_warmup_is_a_share_of_the_steps(tmp_path, schedule, kind):
    args = arguments(tmp_path, schedule=schedule, warmup=0.25)
    assert (args.lr_scheduler_type, args.warmup_steps) == (kind, 25)


def test_the_precision_is_that_of_the_device(tmp_path):
    args = arguments(tmp_path)
    assert (args.bf16, args.fp16) == (False, False)
    assert arguments(tmp_path, precision="bfloat16").bf16 is True
    with pytest.raises(ConfigError, match="precision: float16 needs a GPU; expected bfloat16 or float32"):
        arguments(tmp_path, precision="float16")


def test_activations_are_computed_again_where_that_is_asked_for(tmp_path):
    assert arguments(tmp_path).gradient_checkpointing is False
    assert arguments(tmp_path, gradient_checkpointing=True).gradient_checkpointing is True
