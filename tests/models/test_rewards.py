"""Rewards of completions: packed, plain, and by the model's own head at each sequence's end; numbers, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_models import make_model, make_reward_model, save_model, save_reward_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlaif.errors import ConfigError
from rlaif.models.batches import Batch, collate
from rlaif.models.examples import Example
from rlaif.models.loading import ModelSource, find_model, load_reward_model, reward_shift
from rlaif.models.rewards import completion_rewards, plan_rewards

VOCABULARY = 97
END = 0
"""Of every completion, and the id by which these models tell padding: what transformers alone reads wrongly."""


def ids(start: int, count: int) -> tuple[int, ...]:
    return tuple(1 + (31 * (start + index) + 7) % (VOCABULARY - 1) for index in range(count))


EXAMPLES = [
    Example("triple", ids(0, 11), ((*ids(20, 6), END), (*ids(40, 9), END), (END,))),
    Example("pair", ids(5, 3), ((*ids(70, 12), END), (*ids(90, 4), END, END))),
    Example("single", ids(9, 1), (ids(3, 5),)),
]


@pytest.fixture(scope="module", params=("llama", "qwen2", "gpt2"))
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    model = make_reward_model(request.param, VOCABULARY).eval()
    assert model.config.pad_token_id == END
    return model


def alone(model: PreTrainedModel, sequence: tuple[int, ...]) -> Tensor:
    """By the model's layers, one sequence in a batch of its own."""
    states = model.base_model(input_ids=torch.tensor([sequence])).last_hidden_state
    return model.score(states[0, -1])[0]


def expected(model: PreTrainedModel) -> Tensor:
    rows = [[alone(model, one.prompt + completion) for completion in one.completions] for one in EXAMPLES]
    return torch.stack([torch.stack([*row, *[torch.tensor(0.0)] * (3 - len(row))]) for row in rows])


@pytest.mark.parametrize("pad", [END, VOCABULARY - 1])
@pytest.mark.parametrize("is_packed", [True, False])
def test_packed_and_plain_rows_equal_the_model_alone(model: PreTrainedModel, is_packed: bool, pad: int) -> None:
    with torch.no_grad():
        found = completion_rewards(model, collate(EXAMPLES, is_packed=is_packed, pad=pad, multiple=8))
        torch.testing.assert_close(found, expected(model), rtol=0, atol=1e-5)
    assert found.dtype == torch.float32
    assert found.shape == (3, 3)
    assert found[1, 2] == found[2, 1] == found[2, 2] == 0
    assert found.unique().numel() == 7  # six completions, all of them different, and padding


def test_the_models_own_pooling_is_wrong_here_and_right_without_end(model: PreTrainedModel) -> None:
    plain = collate(EXAMPLES[:1], is_packed=False, pad=END)
    with torch.no_grad():
        own = model(input_ids=plain.input_ids, attention_mask=(plain.segment_ids >= 0).long()).logits[:, 0]
        assert (own - completion_rewards(model, plain)[0]).abs().min() > 1e-3
        one = model(input_ids=torch.tensor([EXAMPLES[2].prompt + EXAMPLES[2].completions[0]])).logits[0, 0]
        found = completion_rewards(model, collate(EXAMPLES, is_packed=True))[2, 0]
    torch.testing.assert_close(found, one, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_packed", [True, False])
def test_gradients_equal_those_of_the_model_alone(model: PreTrainedModel, is_packed: bool) -> None:
    weights = torch.linspace(-1.0, 2.0, 9).view(3, 3)

    def gradients(rewards: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((weights * rewards).sum(), list(model.parameters())))

    found = gradients(completion_rewards(model, collate(EXAMPLES, is_packed=is_packed)))
    for one, other in zip(found, gradients(expected(model)), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5 * max(1.0, float(other.abs().max())))


def test_responses_do_not_see_each_other(model: PreTrainedModel) -> None:
    first, second = EXAMPLES[0].completions[:2]

    def second_of(*completions: tuple[int, ...]) -> Tensor:
        with torch.no_grad():
            return completion_rewards(model, collate([Example("x", ids(0, 11), completions)], is_packed=True))[0, 1]

    assert second_of(first, second) == second_of(tuple(token + 1 for token in first), second)


def test_a_wrapped_model_is_run_through_its_wrapper_and_left_as_it_was(model: PreTrainedModel) -> None:
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
        assert torch.equal(completion_rewards(Wrapper(model), batch), completion_rewards(model, batch))
    assert Wrapper.calls == 1
    assert "forward" not in vars(model.score)


def test_under_autocast_rewards_are_float32(model: PreTrainedModel) -> None:
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = completion_rewards(model, collate(EXAMPLES, is_packed=True))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected(model).detach(), rtol=0.1, atol=0.5)


class TestPlan:
    def test_what_attends_by_a_mask_is_packed(self, model: PreTrainedModel) -> None:
        model.train()
        assert plan_rewards(model, 512) == (True, ())
        assert model.training
        model.eval()

    def test_a_window_is_not(self) -> None:
        plan = plan_rewards(make_reward_model("qwen2-sliding", VOCABULARY), 512)
        assert not plan.is_packed
        assert "slides over 8 tokens" in plan.notes[0]

    @pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["as-drawn", "new-head"])
    @pytest.mark.parametrize("is_half", [False, True])
    def test_nor_what_takes_no_notice_of_the_mask(
        self, monkeypatch: pytest.MonkeyPatch, is_half: bool, scale: float
    ) -> None:
        model = make_reward_model("llama", VOCABULARY)
        with torch.no_grad():
            model.score.weight *= scale  # all rewards of a new head are close to 0
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            assert plan_rewards(model, 512).is_packed
        forward = type(model).forward

        def blind(self: PreTrainedModel, *, attention_mask: Tensor | None = None, **inputs: object) -> object:
            return forward(self, **inputs)  # causal, and nothing else

        monkeypatch.setattr(type(model), "forward", blind)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=is_half):
            plan = plan_rewards(model, 512)
        assert not plan.is_packed
        assert "differ by" in plan.notes[0]


class TestLoading:
    def find(self, folder: Path) -> ModelSource:
        return find_model(str(folder), backend="hf-reward", device="cpu", dtype="auto")

    def test_a_saved_one_scores_as_it_did(self, tmp_path: Path) -> None:
        source = self.find(save_reward_model(tmp_path / "rm", shift=0.5))
        model = load_reward_model(source)
        assert not model.training
        assert model.config.pad_token_id is not None
        assert reward_shift(source.config) == 0.5
        vocabulary = model.config.vocab_size
        batch: Batch = collate(EXAMPLES, is_packed=True)
        with torch.no_grad():
            twin = completion_rewards(make_reward_model("llama", vocabulary).eval(), batch)
            torch.testing.assert_close(completion_rewards(model, batch), twin)

    def test_a_causal_model_is_refused_before_its_weights_are_loaded(self, tmp_path: Path) -> None:
        source = self.find(save_model(tmp_path / "lm"))
        (tmp_path / "lm" / "model.safetensors").unlink()
        with pytest.raises(ConfigError, match=r"LlamaForCausalLM is no reward model.*rlaif train rm"):
            load_reward_model(source)

    def test_two_labels_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="it has 2 labels; expected one"):
            load_reward_model(self.find(save_reward_model(tmp_path / "rm", labels=2)))

    def test_a_head_that_was_never_trained_is_refused(self, tmp_path: Path) -> None:
        folder = save_reward_model(tmp_path / "rm")
        source = self.find(folder)
        make_model("llama", source.config.vocab_size).model.save_pretrained(tmp_path / "body")
        (tmp_path / "body" / "model.safetensors").replace(folder / "model.safetensors")
        with pytest.raises(ConfigError, match=r"no weights for score.weight; expected a reward model that was trained"):
            load_reward_model(source)

    @pytest.mark.parametrize("shift", ["0.5", True, float("nan")])
    def test_a_shift_that_is_no_number_is_refused(self, shift: object) -> None:
        config = make_reward_model("llama", VOCABULARY).config
        assert reward_shift(config) == 0.0
        config.reward_shift = shift
        with pytest.raises(ConfigError, match="reward_shift"):
            reward_shift(config)
