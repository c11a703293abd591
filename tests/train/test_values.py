"""Value heads and critics: where they read, what learns through them, what is saved, and where they begin."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import save_model, save_reward_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from rlaif.errors import ConfigError, RunFolderError
from rlaif.models.batches import Batch, collate
from rlaif.models.examples import Example
from rlaif.models.loading import ModelSource, find_model, load_model
from rlaif.models.logprobs import TokenLogprobs, token_logprobs
from rlaif.models.rewards import completion_rewards
from rlaif.models.values import completion_values
from rlaif.train.config import AdapterConfig
from rlaif.train.models import (
    adapter_off,
    load_policy,
    load_reward_model_for_training,
    save_trained,
    set_reward_shift,
    trainable_parameters,
)
from rlaif.train.values import (
    ValueHead,
    attach_critic,
    attach_value_head,
    load_critic,
    load_value_state,
    value_reader,
    value_state,
    values_detached,
    without_values,
)

if TYPE_CHECKING:
    from rlaif.train.models import Trained

FULL = AdapterConfig()
LORA = AdapterConfig(lora_rank=4)
EXAMPLES = [Example("a", (1, 2, 3), ((4, 5, 265), (6, 265))), Example("b", (9, 8), ((7, 265), (3, 2, 1, 265)))]
BATCH = collate(EXAMPLES, is_packed=True)
PLAIN = collate(EXAMPLES, is_packed=False, pad=265)
SLOPE = torch.linspace(-0.1, 0.1, 32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model as a user has it."""
    return save_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with the same tokenizer."""
    return save_reward_model(tmp_path_factory.mktemp("models") / "judge", shift=0.5)


def source_of(folder: Path, dtype: str = "float32") -> ModelSource:
    return find_model(str(folder), backend=None, device="cpu", dtype=dtype)


def policy_with(part: str, folder: Path, adapter: AdapterConfig = FULL, dtype: str = "float32") -> Trained:
    """A policy with a value head that is no longer all zeros, or with a critic."""
    source = source_of(folder, dtype)
    model = load_policy(source, adapter, seed=0)
    if part == "critic":
        attach_critic(model, load_critic(source))
        weight = model.get_submodule("critic").score.weight
    else:
        weight = attach_value_head(model).weight
    with torch.no_grad():
        weight.copy_(SLOPE)
    return model


def read(model: nn.Module, batch: Batch = BATCH, **options: Any) -> TokenLogprobs:
    return token_logprobs(model, batch, read_values=value_reader(model, batch), **options)


def values_of(model: nn.Module, batch: Batch = BATCH, **options: Any) -> Tensor:
    found = read(model, batch, **options).token_values
    assert found is not None
    return found


def state_values(model: PreTrainedModel, example: Example, completion: tuple[int, ...]) -> Tensor:
    """SLOPE times the states of one sequence alone, (L,)."""
    states = model.base_model(input_ids=torch.tensor([example.prompt + completion])).last_hidden_state[0]
    return states[len(example.prompt) - 1 : -1].float() @ SLOPE


# Where values are read.


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize("batch", [BATCH, PLAIN], ids=["packed", "plain"])
@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_values_are_of_the_state_before_each_token(folder: Path, part: str, batch: Batch, is_chunked: bool) -> None:
    model = policy_with(part, folder).eval()
    base = load_model(source_of(folder))
    with torch.no_grad():
        found = read(model, batch, is_chunked=is_chunked)
        assert found.token_values is not None
        assert found.token_values.shape == (2, 2, 4)
        assert found.token_values[~found.is_completion].abs().sum() == 0
        for row, example in enumerate(EXAMPLES):
            for place, completion in enumerate(example.completions):
                expected = state_values(base, example, completion)
                torch.testing.assert_close(
                    found.token_values[row, place, : len(completion)], expected, rtol=0, atol=1e-5
                )
        # And the log-probabilities are those of the policy without values.
        assert torch.equal(found.values, token_logprobs(base, batch, is_chunked=is_chunked).values)


@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_values_begin_at_zero(folder: Path, part: str) -> None:
    model = load_policy(source_of(folder), FULL, seed=0)
    if part == "critic":
        attach_critic(model, load_critic(source_of(folder)))
    else:
        attach_value_head(model)
    values = values_of(model)
    assert not values.any()
    # The head learns all the same: d (V - 1)^2 / d weight is -2 times the state.
    (values - 1.0).square().sum().backward()
    gradients = [
        one.grad for name, one in model.named_parameters() if name in {"value_head.weight", "critic.score.weight"}
    ]
    assert len(gradients) == 1
    assert gradients[0] is not None
    assert gradients[0].abs().min() > 0


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
def test_values_are_float32_whatever_the_model_computes_in(folder: Path, adapter: AdapterConfig) -> None:
    exact = values_of(policy_with("value_head", folder, adapter))
    model = policy_with("value_head", folder, adapter, dtype="bfloat16")
    assert model.get_submodule("value_head").weight.dtype == torch.float32
    for is_chunked in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            values = values_of(model, is_chunked=is_chunked)
        assert values.dtype == torch.float32
        assert not torch.equal(values, values.bfloat16().float())  # the head did not round them
        torch.testing.assert_close(values, exact, rtol=0, atol=0.1)
    assert ValueHead(3)(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_values_are_read_through_a_wrapper(folder: Path) -> None:
    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = inner

        def forward(self, **inputs: object) -> object:
            return self.module(**inputs)

    for part in ("value_head", "critic"):
        model = policy_with(part, folder)
        wrapper = Wrapper(Wrapper(model))
        assert torch.equal(values_of(wrapper), values_of(model))
        assert value_state(wrapper).keys() == value_state(model).keys()


def test_a_policy_without_values_says_so(folder: Path) -> None:
    model = load_policy(source_of(folder), FULL, seed=0)
    for ask in (lambda: value_reader(model, BATCH), lambda: value_state(model), lambda: load_value_state(model, {})):
        with pytest.raises(TypeError, match="LlamaForCausalLM has neither a value head nor a critic"):
            ask()


# What learns.


def test_the_gradient_of_values_reaches_head_and_trunk(folder: Path) -> None:
    model = policy_with("value_head", folder)
    values_of(model).sum().backward()
    moved = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {name for name, _ in model.named_parameters()} - {"lm_head.weight"}
    # d sum(V) / d bias is the number of completion tokens.
    assert model.get_submodule("value_head").bias.grad.tolist() == [3 + 2 + 2 + 4]


def test_a_critic_and_its_policy_learn_apart_in_one_pass(folder: Path) -> None:
    model = policy_with("critic", folder)
    found = read(model)
    own = {name for name, _ in model.named_parameters() if not name.startswith("critic.")}
    assert found.token_values is not None
    found.token_values.sum().backward(retain_graph=True)
    moved = {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()}
    assert moved == {name for name, _ in model.named_parameters()} - own
    model.zero_grad()
    found.sums.sum().backward()
    assert {name for name, one in model.named_parameters() if one.grad is not None and one.grad.any()} == own


@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_beside_an_adapter_values_learn_and_the_base_does_not(folder: Path, part: str) -> None:
    model = policy_with(part, folder, LORA)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert all("lora_" in name or name.startswith(part) for name in trained)
    assert {name for name, _ in model.named_parameters() if name.startswith(part)} <= trained
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.01)
    losses = []
    for _ in range(4):
        loss = (values_of(model.train()) - 1.0).square().mean() - read(model).sums.mean() / 100
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert moved <= trained
    assert {name for name in trained if "lora_" in name} <= moved
    assert f"{part}.weight" in moved or "critic.score.weight" in moved
    # The reference is what it was, and the values are of the adapted policy.
    with torch.no_grad(), adapter_off(model):
        assert torch.equal(token_logprobs(model, BATCH).sums, token_logprobs(load_model(source_of(folder)), BATCH).sums)


def test_the_weights_of_values_are_counted(folder: Path) -> None:
    plain = trainable_parameters(load_policy(source_of(folder), LORA, seed=0))
    headed = trainable_parameters(policy_with("value_head", folder, LORA))
    assert (headed.trained - plain.trained, headed.all - plain.all) == (33, 33)  # 32 numbers of a state, and a bias


# What is saved.


@pytest.mark.parametrize("adapter", [FULL, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_values_come_back_from_a_file(folder: Path, tmp_path: Path, part: str, adapter: AdapterConfig) -> None:
    model = policy_with(part, folder, adapter)
    state = value_state(model)
    assert all(name.startswith(f"{part}.") for name in state)
    save_file(state, tmp_path / "value.safetensors")
    expected = values_of(model)
    with torch.no_grad():  # the file holds copies
        for name, one in model.named_parameters():
            if name in state:
                one.add_(1.0)
    assert not torch.equal(values_of(model), expected)
    load_value_state(model, load_file(tmp_path / "value.safetensors"))
    assert torch.equal(values_of(model), expected)
    assert state.keys().isdisjoint(without_values(model.state_dict()))
    assert without_values(model.state_dict()).keys() | state.keys() == model.state_dict().keys()


def test_values_of_another_model_are_refused(folder: Path) -> None:
    model = policy_with("value_head", folder)
    before = value_state(model)
    with pytest.raises(
        RunFolderError, match=r"1 weights differ, such as value_head.bias, missing there and \(1,\) here"
    ):
        load_value_state(model, {"value_head.weight": torch.ones(1, 32)})
    with pytest.raises(
        RunFolderError, match=r"value_head.weight, \(1, 16\) there and \(1, 32\) here; expected the che"
    ):
        load_value_state(model, {"value_head.weight": torch.ones(1, 16), "value_head.bias": torch.ones(1)})
    with pytest.raises(RunFolderError, match="such as critic.score.weight"):
        load_value_state(model, before | {"critic.score.weight": torch.ones(1, 32)})
    for name, value in value_state(model).items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_a_policy_is_saved_without_them(folder: Path, tmp_path: Path, part: str) -> None:
    source, model = source_of(folder), policy_with(part, folder)
    expected = load_file(folder / "model.safetensors")
    model.save_pretrained(tmp_path / "by-state", state_dict=without_values(model.state_dict()))
    with values_detached(model):
        with pytest.raises(TypeError, match="neither"):
            value_reader(model, BATCH)
        save_trained(model, source.tokenizer, tmp_path / "detached", merge=False)
    assert value_state(model)  # there again
    for name in ("by-state", "detached"):
        saved = load_file(tmp_path / name / "model.safetensors")
        assert saved.keys() == expected.keys()
        assert all(torch.equal(saved[key], value) for key, value in expected.items())


def test_tied_embeddings_are_saved_without_values_too(tmp_path: Path) -> None:
    source = source_of(save_model(tmp_path / "gpt2", "gpt2"))
    model = load_policy(source, FULL, seed=0)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    attach_critic(model, load_critic(source))
    model.save_pretrained(tmp_path / "saved", state_dict=without_values(model.state_dict()))
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(token_logprobs(loaded, BATCH).sums, token_logprobs(model, BATCH).sums)


@pytest.mark.parametrize("part", ["value_head", "critic"])
def test_an_adapter_is_saved_and_merged_without_them(folder: Path, tmp_path: Path, part: str) -> None:
    source, model = source_of(folder), policy_with(part, folder, LORA)
    model.save_pretrained(tmp_path / "checkpoint")  # as the trainer does
    plain = load_policy(source, LORA, seed=0)
    save_trained(plain, source.tokenizer, tmp_path / "plain", merge=False)
    names = load_file(tmp_path / "plain" / "adapter_model.safetensors").keys()
    assert load_file(tmp_path / "checkpoint" / "adapter_model.safetensors").keys() == names
    with values_detached(model):
        save_trained(model, source.tokenizer, tmp_path / "adapter", merge=False)
        assert load_file(tmp_path / "adapter" / "adapter_model.safetensors").keys() == names
        save_trained(model, source.tokenizer, tmp_path / "merged", merge=True)
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert merged.keys() == load_file(folder / "model.safetensors").keys()


# Critics.


def test_a_reward_model_is_a_critic_less_its_shift(reward_folder: Path) -> None:
    source = source_of(reward_folder, "bfloat16")
    critic = load_critic(source)
    assert {one.dtype for one in critic.parameters()} == {torch.float32}
    assert all(one.requires_grad for one in critic.parameters())
    # A value before the last token is the reward of what was written by then.
    cut = collate([Example("cut", (1, 2, 3), ((4,), (4, 5)))], is_packed=True)
    with torch.no_grad():
        rewards = completion_rewards(critic, cut)[0] - 0.5
        torch.testing.assert_close(completion_values(critic, BATCH)[0, 0, 1:3], rewards, rtol=0, atol=1e-5)


def test_the_dropout_of_a_critic_is_off(tmp_path: Path) -> None:
    critic = load_critic(source_of(save_model(tmp_path, "gpt2"))).train()
    with torch.no_grad():
        critic.score.weight.fill_(0.1)
        assert torch.equal(completion_values(critic, BATCH), completion_values(critic, BATCH))


def test_what_is_no_critic_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has 2 labels; expected one"):
        load_critic(source_of(save_reward_model(tmp_path / "two", labels=2)))


def rated_examples(draw: random.Random, count: int) -> tuple[list[Example], Tensor]:
    """Pairs of responses and the share of good tokens in each, (count, 2), which the start of a response hints at."""
    examples, shares = [], []
    for number in range(count):
        inclinations = (draw.random(), draw.random())
        responses = [
            tuple(draw.randrange(10, 20) if draw.random() < good else draw.randrange(20, 30) for _ in range(10))
            for good in inclinations
        ]
        examples.append(Example(f"r{number}", tuple(draw.randrange(40, 60) for _ in range(4)), tuple(responses)))
        shares.append([sum(token < 20 for token in response) / 10 for response in responses])
    return examples, torch.tensor(shares)


def test_a_critic_that_begins_as_the_reward_model_errs_less(folder: Path, tmp_path: Path) -> None:
    """METHODS.md section 8, row 11: against a new head as it is drawn, and against values of 0."""
    source, draw = source_of(folder), random.Random(0)
    judge = load_reward_model_for_training(source, FULL, seed=0)
    optimizer = torch.optim.Adam(judge.parameters(), 2e-3)
    for _ in range(80):
        examples, shares = rated_examples(draw, 32)
        rewards = completion_rewards(judge, collate(examples, is_packed=True))
        prob = (shares[:, 0] - shares[:, 1]).sign() / 2 + 0.5
        loss = nn.functional.binary_cross_entropy_with_logits(rewards[:, 0] - rewards[:, 1], prob)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    rollouts = collate(rated_examples(draw, 32)[0], is_packed=True)
    with torch.no_grad():
        raw = completion_rewards(judge, rollouts)
        set_reward_shift(judge, float(raw.mean()))
        save_trained(judge, source.tokenizer, tmp_path / "judge", merge=False)
        returns = (raw - raw.mean()).unsqueeze(-1)  # gamma 1, and the reward at the end: at each state the same

        def first_error(critic: Any) -> float:
            return float((completion_values(critic, rollouts) - returns).square().mean())

        informed = first_error(load_critic(source_of(tmp_path / "judge")))
        # Half to four fifths of either, over six seeds.
        assert informed < 0.9 * first_error(load_reward_model_for_training(source, FULL, seed=1))
        assert informed < 0.9 * first_error(load_critic(source))
