"""The real vLLM writing rollouts: with the policy's weights of now, and with log-probabilities that training finds
again."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from rlaif.errors import BackendUnusableError, ConfigError, RequestRefusedError
from rlaif.models.loading import ModelSource, find_model
from rlaif.online import vllm_generation
from rlaif.online.generation import RolloutJob, Written
from rlaif.online.vllm_generation import VllmGenerator
from tests.backends.vllm_serving import ENVIRONMENT
from tests.tiny_models import byte_level_tokenizer, save_model

SMALL = ("max_num_seqs=16", "max_num_batched_tokens=2048")
STOPS = frozenset({3, 40, 41, 77, 120, 150})

needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: make test-vllm")


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with heads of 32, the least that vLLM takes on a CPU."""
    return save_model(tmp_path_factory.mktemp("models") / "tiny-wide", "llama-wide", tokenizer=byte_level_tokenizer())


def source_of(folder: Path) -> ModelSource:
    return find_model(str(folder), backend=None, device="cpu", dtype="auto")


def policy_of(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).train()


def with_adapter(model: nn.Module, rank: int = 4) -> Any:
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses what transformers is about to rename
        return get_peft_model(model, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))


def jobs_of(temperature: float, top_p: float = 1.0, count: int = 6) -> list[RolloutJob]:
    prompts = [list(range(10, 40)), list(range(60, 72))]
    return [RolloutJob(prompts[seed % 2], 12, temperature, top_p, seed) for seed in range(count)]


def largest_difference(model: nn.Module, jobs: Sequence[RolloutJob], written: Sequence[Written]) -> float:
    """Of the log-probabilities from those of the model's own logits."""
    model.eval()
    furthest = 0.0
    for job, one in zip(jobs, written, strict=True):
        ids = torch.tensor([[*job.prompt_ids, *one.ids]])
        with torch.no_grad():
            logits = model(input_ids=ids, use_cache=False).logits[0, len(job.prompt_ids) - 1 : -1]
        logprobs = (logits / (job.temperature or 1.0)).log_softmax(-1).gather(-1, torch.tensor(one.ids)[:, None])
        furthest = max(furthest, float((logprobs[:, 0] - torch.tensor(one.logprobs)).abs().max()))
    model.train()
    return furthest


def change(model: nn.Module, seed: int) -> None:
    """As an optimizer step would: every weight that is trained."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


@needs_vllm
def test_all_weights_follow_the_policy(tiny: Path) -> None:
    policy = policy_of(tiny)
    generator = VllmGenerator(policy, source_of(tiny), STOPS, temperature=0.7, engine_args=SMALL)
    jobs = [*jobs_of(0.7), RolloutJob(list(range(10, 40)), 12, 0.0, 1.0, 0)]
    heard: dict[int, Written] = {}
    first = generator.generate(jobs, on_finished=heard.__setitem__)
    assert [heard[index] for index in range(len(jobs))] == first
    assert largest_difference(policy, jobs, first) < 1e-3
    assert {one.is_stopped for one in first} == {True, False}
    for one in first:
        assert one.is_stopped == (one.ids[-1] in STOPS)
        assert not STOPS & set(one.ids[:-1])
        assert one.is_stopped or len(one.ids) == 12
    assert generator.generate(jobs[2:3])[0].ids == first[2].ids  # by its seed alone
    for step in (1, 2):
        change(policy, step)
        generator.sync_weights(step)
        written = generator.generate(jobs)
        assert largest_difference(policy, jobs, written) < 1e-3
        assert written != first
    with pytest.raises(ZeroDivisionError):
        generator.generate(jobs, on_finished=lambda index, written: 1 / 0)  # type: ignore[arg-type]
    assert generator.generate(jobs) == written  # what was aborted is not taken for an answer
    with pytest.raises(RequestRefusedError, match="rollouts: vLLM does not take a prompt"):
        generator.generate([RolloutJob([5] * 600, 12, 0.7)])
    assert generator.process_id is not None
    generator.close()
    assert generator.process_id is None
    with pytest.raises(BackendUnusableError, match="vLLM writes no more: it was closed"):
        generator.generate(jobs)


@needs_vllm
def test_an_adapter_follows_the_policy_and_a_nucleus_is_not_in_the_log_probabilities(tiny: Path) -> None:
    policy = with_adapter(policy_of(tiny))
    generator = VllmGenerator(policy, source_of(tiny), STOPS, temperature=1.0, top_p=0.8, engine_args=SMALL)
    jobs = jobs_of(1.0, 0.8)
    first = generator.generate(jobs)  # an adapter that is new has no effect
    assert largest_difference(policy, jobs, first) < 1e-3
    for step in (1, 2):
        change(policy, step)
        generator.sync_weights(step)
        written = generator.generate(jobs)
        assert largest_difference(policy, jobs, written) < 1e-3
        assert written != first
    generator.close()


# --- without vLLM -----------------------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that passes for vLLM's."""
    folder = tmp_path / "vllm"
    (folder / "engine").mkdir(parents=True)
    (folder / "engine" / "arg_utils.py").write_text("class EngineArgs:\n    dtype: str\n    max_num_seqs: int\n")
    worker = folder / "v1" / "worker" / "gpu_model_runner.py"
    worker.parent.mkdir(parents=True)
    worker.write_text("def reload_weights(\n    self,\n    weights_path: str | None = None,\n) -> None:\n")
    monkeypatch.setattr(vllm_generation, "vllm_folder", lambda: folder)
    monkeypatch.setattr("rlaif.backends.vllm_args.vllm_folder", lambda: folder)
    return folder


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM starts here")
def test_an_engine_that_does_not_start_says_why_and_is_not_started_again(tiny: Path, installed: Path) -> None:
    generator = VllmGenerator(policy_of(tiny), source_of(tiny), STOPS, temperature=1.0)
    with pytest.raises(BackendUnusableError, match="rollouts: vLLM does not start: ModuleNotFoundError: No module"):
        generator.generate(jobs_of(1.0))
    assert generator.process_id is None
    with pytest.raises(BackendUnusableError, match="rollouts: vLLM writes no more: ModuleNotFoundError"):
        generator.sync_weights(1)


def test_a_temperature_with_a_nucleus_is_refused(tiny: Path, installed: Path) -> None:
    with pytest.raises(ConfigError, match=r"0\.7 with a top-p of 0\.9: .*expected --rollout-top-p 1 or"):
        VllmGenerator(policy_of(tiny), source_of(tiny), STOPS, temperature=0.7, top_p=0.9)


def test_a_vllm_that_takes_no_weights_is_refused_but_for_adapters(tiny: Path, installed: Path) -> None:
    (installed / "v1" / "worker" / "gpu_model_runner.py").write_text("def reload_weights(self) -> None:\n")
    with pytest.raises(ConfigError, match=r"cannot take new weights while it runs; .*--lora-rank"):
        VllmGenerator(policy_of(tiny), source_of(tiny), STOPS, temperature=1.0)
    VllmGenerator(with_adapter(policy_of(tiny)), source_of(tiny), STOPS, temperature=1.0)


def test_quantized_weights_are_refused(tiny: Path, installed: Path) -> None:
    policy = with_adapter(policy_of(tiny))
    policy.get_base_model().is_quantized = True
    with pytest.raises(ConfigError, match="trained on quantized weights, and vLLM would write with others"):
        VllmGenerator(policy, source_of(tiny), STOPS, temperature=1.0)


def test_engine_arguments_of_ours_are_refused(tiny: Path, installed: Path) -> None:
    arguments = ("max_lora_rank=8", "max_num_seq=4")
    with pytest.raises(ConfigError, match=r"rollout_vllm_arg: max_lora_rank: .*--lora-rank; max_num_seq: .*"):
        VllmGenerator(policy_of(tiny), source_of(tiny), STOPS, temperature=1.0, engine_args=arguments)


def test_what_the_engine_is_started_with(tiny: Path, installed: Path) -> None:
    cases = [(1.0, 0.9, "raw_logprobs"), (0.7, 1.0, "processed_logprobs")]
    for temperature, top_p, mode in cases:
        policy = with_adapter(policy_of(tiny), rank=12)
        generator = VllmGenerator(
            policy, source_of(tiny), STOPS, temperature=temperature, top_p=top_p, engine_args=("max_num_seqs=4",)
        )
        args = generator._settings()["args"]
        assert (args["logprobs_mode"], args["max_num_seqs"], args["max_lora_rank"]) == (mode, 4, 16)
        assert "gpu_memory_utilization" not in args  # the engine's own choice on a CPU


def test_a_job_at_another_temperature_is_refused(tiny: Path, installed: Path) -> None:
    generator = VllmGenerator(policy_of(tiny), source_of(tiny), STOPS, temperature=0.7)
    with pytest.raises(ValueError, match=r"a job at temperature 0\.9 and top-p 1; expected 0\.7 and 1"):
        generator.generate([RolloutJob([1, 2], 4, 0.9)])
    assert generator.process_id is None


def test_weights_that_are_one_stay_one_and_a_critic_stays_behind(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    from rlaif.train.values import attach_value_head

    folder = save_model(tmp_path / "gpt2", "gpt2", tokenizer=byte_level_tokenizer())
    policy = policy_of(folder)
    assert policy.lm_head.weight is policy.transformer.wte.weight
    attach_value_head(policy)
    vllm_generation._save_weights(policy, tmp_path / "aside", "bfloat16")
    saved = load_file(tmp_path / "aside" / "model.safetensors")
    assert "lm_head.weight" not in saved
    assert not any("value_head" in name for name in saved)
    assert {value.dtype for value in saved.values()} == {torch.bfloat16}
    expected = policy.transformer.wte.weight.to(torch.bfloat16)
    assert torch.equal(saved["transformer.wte.weight"], expected)
    assert policy.value_head.weight.dtype == torch.float32
