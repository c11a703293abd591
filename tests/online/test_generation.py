"""Rollouts of the live model: what the `hf` backend would write, log-probabilities that training finds again, and a
model that is as it was."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif.backends.hf import HfBackend
from rlaif.backends.prefix_sharing import SharingRunner
from rlaif.errors import BackendError
from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.logprobs import token_logprobs
from rlaif.online.generation import HfGenerator, RolloutJob, Written
from rlaif.records import GenerateRequest, Message, Segment
from rlaif.train.values import attach_critic
from tests.tiny_models import make_model, make_reward_model, save_model

VOCAB = 97
STOPS = frozenset({3, 40, 41})


def make_policy(kind: str = "llama") -> PreTrainedModel:
    model = make_model(kind, VOCAB)
    return model.train()


def with_adapter(model: PreTrainedModel) -> nn.Module:
    """An adapter that has learnt something, with dropout of its own."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.5, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses what transformers is about to rename
        adapted = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return adapted.train()


def jobs_of(prompts: int = 3, samples: int = 4, **changes: Any) -> list[RolloutJob]:
    draw = random.Random(1)
    drawn = [[draw.randrange(VOCAB) for _ in range(draw.randint(3, 30))] for _ in range(prompts)]
    settings = {"max_tokens": 16, "temperature": 0.7} | changes
    return [
        RolloutJob(ids, seed=100 * number + sample, **settings)
        for number, ids in enumerate(drawn)
        for sample in range(samples)
    ]


def expected_logprobs(model: nn.Module, job: RolloutJob, written: Written) -> Tensor:
    """Under the model's own logits of the whole sequence, divided by the temperature."""
    ids = torch.tensor([[*job.prompt_ids, *written.ids]])
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[0, len(job.prompt_ids) - 1 : -1].double()
    model.train()
    logprobs = (logits / (job.temperature or 1.0)).log_softmax(-1)
    return logprobs.gather(-1, torch.tensor(written.ids)[:, None])[:, 0]


@pytest.mark.parametrize(
    ("kind", "budget"),
    [("llama", 1), ("llama", 120), ("llama", 10_000), ("gpt2", 120), ("qwen2-sliding", 120), ("adapter", 10_000)],
)
def test_tokens_come_with_the_log_probabilities_that_the_model_gives_them(kind: str, budget: int) -> None:
    model = with_adapter(make_policy()) if kind == "adapter" else make_policy(kind)
    jobs = jobs_of(temperature=0.7, top_p=0.9) + jobs_of(2, 1, temperature=0.0) + jobs_of(1, 2, temperature=1.3)
    written = HfGenerator(model, STOPS, max_batch_tokens=budget).generate(jobs)
    assert len(written) == len(jobs)
    for job, one in zip(jobs, written, strict=True):
        expected = expected_logprobs(model, job, one)
        torch.testing.assert_close(torch.tensor(one.logprobs, dtype=torch.float64), expected, atol=1e-4, rtol=0)
        assert one.is_stopped == (one.ids[-1] in STOPS)
        assert not STOPS & set(one.ids[:-1])
        assert one.is_stopped or len(one.ids) == 16
    assert {one.is_stopped for one in written} == {True, False}


def test_training_reads_the_same_log_probabilities() -> None:
    model = make_policy()
    jobs = jobs_of(temperature=1.0)
    written = HfGenerator(model, STOPS, max_batch_tokens=10_000).generate(jobs)
    groups = [
        Example(str(at), tuple(jobs[at].prompt_ids), tuple(one.ids for one in written[at : at + 4]))
        for at in range(0, len(jobs), 4)
    ]
    found = token_logprobs(model, collate(groups, is_packed=True))
    for at, one in enumerate(written):
        row, column = divmod(at, 4)
        values = found.values[row, column][found.is_completion[row, column]]
        torch.testing.assert_close(torch.tensor(one.logprobs), values.detach(), atol=1e-4, rtol=0)


def test_mixed_precision_is_that_of_the_caller() -> None:
    def computing() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16)

    model = make_policy()
    dtypes: set[torch.dtype] = set()
    model.lm_head.register_forward_hook(lambda module, args, output: dtypes.add(output.dtype))
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000, computing=computing)
    dtypes.clear()
    jobs = jobs_of()
    written = generator.generate(jobs)
    assert dtypes == {torch.bfloat16}
    for job, one in zip(jobs, written, strict=True):
        with computing():
            expected = expected_logprobs(model, job, one)
        torch.testing.assert_close(torch.tensor(one.logprobs, dtype=torch.float64), expected, atol=0.3, rtol=0)


async def test_text_equals_that_of_the_hf_backend(tmp_path: Path) -> None:
    backend = HfBackend(str(save_model(tmp_path / "tiny")), device="cpu")
    messages = [(Message("user", (Segment(text, is_template=False),)),) for text in ("Hello.", "One more", "x" * 40)]
    prompts = [backend._prompts.fit(each, None, 0) for each in messages]
    jobs = [
        RolloutJob(ids, 12, temperature, top_p, seed=17 + at)
        for at, ids in enumerate(prompts)
        for temperature, top_p in ((0.9, 1.0), (0.9, 0.5), (0.0, 1.0))
    ]
    texts = [
        (await backend.generate(GenerateRequest(messages[at // 3], 12, job.temperature, job.seed, job.top_p))).text
        for at, job in enumerate(jobs)
    ]
    await backend.aclose()
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "tiny").train()
    tokenizer = backend.tokenizer
    written = HfGenerator(model, frozenset({tokenizer.eos_token_id}), max_batch_tokens=200).generate(jobs)
    assert [tokenizer.decode(one.ids, skip_special_tokens=True) for one in written] == texts
    assert len(set(texts)) > 5


def test_a_completion_is_heard_of_as_soon_as_it_has_ended() -> None:
    model = make_policy()
    passes: list[None] = []
    model.register_forward_pre_hook(lambda module, args: passes.append(None))
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000)
    passes.clear()
    heard: dict[int, tuple[Written, int]] = {}

    def hear(index: int, written: Written) -> None:
        assert index not in heard
        heard[index] = written, len(passes)

    written = generator.generate(jobs_of(), on_finished=hear)
    assert [heard[index][0] for index in range(len(written))] == written
    # All prompts are one pass, which gives the first token; each further token is one more.
    assert [heard[index][1] for index in range(len(written))] == [len(one.ids) for one in written]
    assert len({len(one.ids) for one in written}) > 3


def test_a_job_gives_the_same_completion_in_any_company() -> None:
    jobs = jobs_of()
    generator = HfGenerator(make_policy(), STOPS, max_batch_tokens=10_000)
    together = generator.generate(jobs)
    shuffled = random.Random(0).sample(range(len(jobs)), len(jobs))
    again = HfGenerator(make_policy(), STOPS, max_batch_tokens=150).generate([jobs[at] for at in shuffled])
    assert [one.ids for one in again] == [together[at].ids for at in shuffled]
    assert [one.ids for one in generator.generate(jobs[5:6])] == [together[5].ids]
    assert generator.generate([]) == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "qwen2-sliding", "adapter"])
def test_the_model_is_left_as_it_was(kind: str, attention: str) -> None:
    model = with_adapter(make_policy()) if kind == "adapter" else make_policy(kind)
    model.config._attn_implementation = "unset"  # so that nothing passes by standing still
    base: Any = model.get_base_model() if kind == "adapter" else model  # type: ignore[operator]
    base.set_attn_implementation(attention)
    base.lm_head.eval()  # a part that does not train, as a frozen one with dropout may not
    before = modes(model)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000)
    assert (modes(model), base.config._attn_implementation) == (before, attention)
    generator.generate(jobs_of())
    assert (modes(model), base.config._attn_implementation) == (before, attention)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.rand(3), expected)
    assert torch.is_grad_enabled()


def modes(model: nn.Module) -> Mapping[str, bool]:
    return {name: module.training for name, module in model.named_modules()}


def test_a_critic_of_the_policy_is_left_alone() -> None:
    model = make_policy()
    critic = make_reward_model("llama", VOCAB).train()
    critic.set_attn_implementation("eager")
    attach_critic(model, critic)
    before = [name for name, _ in model.named_modules()]
    attentions: list[str] = []
    model.register_forward_pre_hook(lambda module, args: attentions.append(critic.config._attn_implementation))
    HfGenerator(model, STOPS, max_batch_tokens=10_000).generate(jobs_of())
    assert set(attentions) == {"eager"}
    assert critic.config._attn_implementation == "eager"
    assert [name for name, _ in model.named_modules()] == before
    assert all(modes(model).values())


@pytest.mark.parametrize("kind", ["llama", "adapter"])
def test_a_gradient_step_after_writing_equals_one_without(kind: str) -> None:
    plain = with_adapter(make_policy()) if kind == "adapter" else make_policy()
    writing = copy.deepcopy(plain)
    generator = HfGenerator(writing, STOPS, max_batch_tokens=10_000)
    written = generator.generate(jobs_of())
    examples = [Example("", tuple(jobs_of()[0].prompt_ids), (written[0].ids, written[1].ids))]
    for model in (plain, writing):
        model.eval()  # the adapter's dropout would differ
        token_logprobs(model, collate(examples, is_packed=True)).sums.sum().backward()
    gradients = [[one.grad for one in model.parameters() if one.requires_grad] for model in (plain, writing)]
    assert any(bool(one.abs().sum() > 0) for one in gradients[0] if one is not None)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(other, one, atol=0, rtol=0)


def test_it_writes_with_the_weights_of_now() -> None:
    model = make_policy()
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000)
    jobs = jobs_of()
    first = generator.generate(jobs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.7)
    generator.sync_weights(1)
    fresh = HfGenerator(copy.deepcopy(model), STOPS, max_batch_tokens=10_000).generate(jobs)
    assert generator.generate(jobs) == fresh
    assert fresh != first
    generator.close()


def test_nothing_is_kept_between_calls() -> None:
    model = make_policy()
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000)
    assert isinstance(generator._runner, SharingRunner)
    generator.generate(jobs_of())
    assert list(generator._runner._tree.nodes()) == []
    with pytest.raises(ZeroDivisionError):
        generator.generate(jobs_of(), on_finished=lambda index, written: 1 / 0)
    assert list(generator._runner._tree.nodes()) == []
    assert model.training
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["llama", "qwen2-sliding"])
def test_numbers_that_overflow_are_an_error_with_a_name(kind: str, temperature: float) -> None:
    model = make_policy(kind)
    generator = HfGenerator(model, STOPS, max_batch_tokens=10_000)
    with torch.no_grad():
        model.get_input_embeddings().weight[jobs_of()[4].prompt_ids[-1]] = math.nan
    heard: list[int] = []
    with pytest.raises(BackendError, match="the policy gave no probabilities but NaN, at once; its weights or"):
        generator.generate(jobs_of(temperature=temperature), on_finished=lambda index, written: heard.append(index))
    assert not {4, 5, 6, 7} & set(heard)
    assert model.training
