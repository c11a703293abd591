from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import torch
from tiny_models import make_model, save_model
from transformers import AutoModelForCausalLM

from rlaif.models.loading import find_model
from rlaif.models.logprobs import plan_logprobs
from rlaif.online.assessing import Reference, assess, example_of
from rlaif.online.recipes import make_recipe
from rlaif.rollout_records import Completion, Rollout
from rlaif.train.config import AdapterConfig
from rlaif.train.models import load_policy
from rlaif.train.online_config import DrlaifLossConfig, RolloutConfig
from rlaif.train.step_inputs import ComputePlan
from rlaif.train.values import attach_value_head
from tests.online.made_rollouts import prompt_row

VOCABULARY = 97
CPU = torch.device("cpu")


def rollouts() -> list[Rollout]:
    made = []
    for number, lengths in enumerate([(3, 1), (2,), (5, 4, 1)]):
        row = prompt_row(number)
        completions = tuple(
            Completion(tuple((7 * number + 3 * place + each) % VOCABULARY for each in range(length)), "", True, ())
            for place, length in enumerate(lengths)
        )
        made.append(Rollout(f"r{number}", row.prompt, tuple(x % VOCABULARY for x in row.ids), completions, 0))
    return made


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_numbers_are_the_models_own_token_by_token_in_the_order_of_the_rollouts(
    is_packed: bool, max_tokens: int
) -> None:
    model = make_model("llama", VOCABULARY).train()
    head = attach_value_head(model)
    torch.nn.init.normal_(head.weight)
    objective = make_recipe(DrlaifLossConfig(), RolloutConfig(rollout_temperature=0.6), seed=0).objective(0)
    found = assess(
        model, rollouts(), objective, ComputePlan(is_packed, max_tokens=max_tokens),
        device=CPU, autocast=contextlib.nullcontext, with_values=True,
    )  # fmt: skip
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.eval()
    for one, rollout in zip(found, rollouts(), strict=True):
        assert one.values is not None
        for logprobs, values, completion in zip(one.logprobs, one.values, rollout.completions, strict=True):
            ids = torch.tensor([[*rollout.prompt_ids, *completion.ids]])
            with torch.no_grad():
                answer = model(input_ids=ids, output_hidden_states=True)
                states = answer.hidden_states[-1][0, len(rollout.prompt_ids) - 1 : -1]
                expected = (answer.logits[0, len(rollout.prompt_ids) - 1 : -1] / 0.6).log_softmax(-1)
                expected = expected.gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
                assert list(logprobs) == pytest.approx(expected.tolist(), abs=1e-4)
                assert list(values) == pytest.approx(head(states).tolist(), abs=1e-4)


def test_the_reference_of_an_adapter_is_the_model_without_it(tmp_path: Path) -> None:
    policy = load_policy(
        find_model(str(save_model(tmp_path)), device="cpu", dtype="float32"), AdapterConfig(lora_rank=4), seed=0
    )
    start = AutoModelForCausalLM.from_pretrained(tmp_path)
    plan = ComputePlan(*plan_logprobs(start, 64)[:2])
    objective = make_recipe(DrlaifLossConfig(), RolloutConfig(), seed=0).objective(0)

    def read(each: torch.nn.Module) -> list[tuple[tuple[float, ...], ...]]:
        found = assess(each, rollouts(), objective, plan, device=CPU, autocast=contextlib.nullcontext)
        assert all(one.values is None for one in found)
        return [one.logprobs for one in found]

    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    expected, learnt = read(start), read(policy)
    with Reference(policy, None, plan).computing() as found:
        assert read(found) == expected
    assert read(policy) == learnt != expected
    with Reference(policy, start, plan).computing() as found:
        assert found is start


def test_an_example_is_what_was_written() -> None:
    rollout = rollouts()[0]
    example = example_of(rollout)
    assert (example.id, example.prompt) == ("r0", rollout.prompt_ids)
    assert example.completions == tuple(one.ids for one in rollout.completions)
