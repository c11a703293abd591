"""Values of states: packed, plain, and by the critic's own head on each sequence alone; numbers, gradients."""

from __future__ import annotations

import pytest
import torch
from tiny_models import make_reward_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.rewards import completion_rewards, plan_rewards
from rlaif.models.values import completion_values, plan_values, predictor_values

VOCABULARY = 97
END = 0
"""Of every completion, and the id by which these models tell padding."""


def ids(start: int, count: int) -> tuple[int, ...]:
    return tuple(1 + (31 * (start + index) + 7) % (VOCABULARY - 1) for index in range(count))


EXAMPLES = [
    Example("triple", ids(0, 11), ((*ids(20, 6), END), (*ids(40, 9), END), (END,))),
    Example("pair", ids(5, 3), ((*ids(70, 12), END), (*ids(90, 4), END, END))),
    Example("single", ids(9, 1), (ids(3, 5),)),
]


@pytest.fixture(scope="module", params=("llama", "qwen2", "gpt2"))
def critic(request: pytest.FixtureRequest) -> PreTrainedModel:
    critic = make_reward_model(request.param, VOCABULARY).eval()
    assert critic.config.pad_token_id == END
    return critic


def expected(critic: PreTrainedModel) -> Tensor:
    """By the critic's layers, one sequence in a batch of its own; (3, 3, 13)."""
    rows = []
    for example in EXAMPLES:
        of_row = []
        for completion in example.completions:
            sequence = torch.tensor([example.prompt + completion])
            states = critic.base_model(input_ids=sequence).last_hidden_state[0, len(example.prompt) - 1 : -1]
            of_row.append(nn.functional.pad(critic.score(states)[:, 0], (0, 13 - len(completion))))
        rows.append(torch.stack([*of_row, *[torch.zeros(13)] * (3 - len(of_row))]))
    return torch.stack(rows)


@pytest.mark.parametrize("pad", [END, VOCABULARY - 1])
@pytest.mark.parametrize("is_packed", [True, False])
def test_packed_and_plain_rows_equal_the_critic_alone(critic: PreTrainedModel, is_packed: bool, pad: int) -> None:
    batch = collate(EXAMPLES, is_packed=is_packed, pad=pad, multiple=8)
    with torch.no_grad():
        found = completion_values(critic, batch)
        torch.testing.assert_close(found, expected(critic), rtol=0, atol=1e-5)
        assert torch.equal(predictor_values(critic, batch), found.flatten()[batch.places])
    assert found.dtype == torch.float32
    padding = torch.arange(13) >= batch.tokens.unsqueeze(-1)
    assert found[padding].abs().sum() == 0
    assert (found[~padding] == 0).sum() == 0


def test_a_value_is_the_reward_of_what_was_written_before(critic: PreTrainedModel) -> None:
    one = EXAMPLES[1]
    cut = Example("cut", one.prompt, tuple(one.completions[0][:length] for length in range(1, 13)))
    with torch.no_grad():
        values = completion_values(critic, collate([one], is_packed=True))[0, 0, 1:]
        rewards = completion_rewards(critic, collate([cut], is_packed=True))[0]
    torch.testing.assert_close(values, rewards, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_packed", [True, False])
def test_gradients_equal_those_of_the_critic_alone(critic: PreTrainedModel, is_packed: bool) -> None:
    weights = torch.linspace(-1.0, 2.0, 9 * 13).view(3, 3, 13)

    def gradients(values: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((weights * values).sum(), list(critic.parameters())))

    found = gradients(completion_values(critic, collate(EXAMPLES, is_packed=is_packed)))
    for one, other in zip(found, gradients(expected(critic)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_a_recorded_shift_is_subtracted() -> None:
    critic = make_reward_model("llama", VOCABULARY).eval()
    batch = collate(EXAMPLES, is_packed=True)
    with torch.no_grad():
        before = predictor_values(critic, batch)
        critic.config.reward_shift = 0.75
        torch.testing.assert_close(predictor_values(critic, batch), before - 0.75)
        assert completion_values(critic, batch)[2, 2].abs().sum() == 0  # and not of padding


def test_a_wrapped_critic_is_run_through_its_wrapper_and_left_as_it_was(critic: PreTrainedModel) -> None:
    class Wrapper(nn.Module):
        calls = 0

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = inner

        def forward(self, **inputs: object) -> object:
            Wrapper.calls += 1
            return self.module(**inputs)

    batch = collate(EXAMPLES, is_packed=True)
    with torch.no_grad():
        assert torch.equal(completion_values(Wrapper(critic), batch), completion_values(critic, batch))
    assert Wrapper.calls == 1
    assert "forward" not in vars(critic.score)


def test_under_autocast_values_are_read_in_float32(critic: PreTrainedModel) -> None:
    batch = collate(EXAMPLES, is_packed=True)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = completion_values(critic, batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())  # the head did not round them
    torch.testing.assert_close(found, expected(critic).detach(), rtol=0.1, atol=0.5)


class TestPlan:
    def test_what_attends_by_a_mask_is_packed(self, critic: PreTrainedModel) -> None:
        assert plan_values(critic, 512) == (True, ())

    def test_a_window_is_not(self) -> None:
        assert "slides over 8 tokens" in plan_values(make_reward_model("qwen2-sliding", VOCABULARY), 512).notes[0]

    def test_a_head_of_zeros_hides_nothing_and_stays_as_it_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        critic = make_reward_model("llama", VOCABULARY)
        with torch.no_grad():
            critic.score.weight.zero_()
        forward = type(critic).forward

        def blind(self: PreTrainedModel, *, attention_mask: Tensor | None = None, **inputs: object) -> object:
            return forward(self, **inputs)  # causal, and nothing else

        monkeypatch.setattr(type(critic), "forward", blind)
        assert plan_rewards(critic, 512).is_packed  # all rewards are 0, in whatever rows
        plan = plan_values(critic, 512)
        assert not plan.is_packed
        assert "differ by" in plan.notes[0]
        assert not critic.score.weight.any()
