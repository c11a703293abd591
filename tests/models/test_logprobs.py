"""Log-probabilities of completions: packed, plain, and by the model's own logits; the same numbers and gradients."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tiny_models import make_model
from torch import Tensor, nn
from transformers import PreTrainedModel, Starcoder2Config, Starcoder2ForCausalLM

from rlaif.models import logprobs as module
from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.logprobs import LogprobPlan, TokenLogprobs, disable_dropout, plan_logprobs, token_logprobs
from rlaif.models.reading import packing_fault
from rlaif.train.losses import sft_loss

VOCABULARY = 97
KINDS = ("llama", "qwen2", "gpt2")


def ids(start: int, count: int) -> tuple[int, ...]:
    return tuple((31 * (start + index) + 7) % VOCABULARY for index in range(count))


EXAMPLES = [
    Example("triple", ids(0, 11), (ids(20, 6), ids(40, 9), ids(60, 1))),
    Example("pair", ids(5, 3), (ids(70, 12), ids(90, 4))),
    Example("single", ids(9, 1), (ids(3, 5),)),
]


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return make_model(request.param, VOCABULARY).eval()


def run(
    model: nn.Module, examples: Sequence[Example], *, is_packed: bool, pad: int = 0, **options: Any
) -> TokenLogprobs:
    return token_logprobs(model, collate(examples, is_packed=is_packed, pad=pad), **options)


def alone(
    model: PreTrainedModel, prompt: tuple[int, ...], completion: tuple[int, ...], temperature: float = 1.0
) -> Tensor:
    """By the model's own logits of one sequence, (L,)."""
    sequence = torch.tensor([prompt + completion])
    every = (model(input_ids=sequence).logits[0] / temperature).log_softmax(-1)
    return torch.stack([every[len(prompt) + place - 1, token] for place, token in enumerate(completion)])


def gradients(model: PreTrainedModel, sums: Tensor) -> dict[str, Tensor]:
    weights = torch.linspace(-1.0, 2.0, sums.numel()).view_as(sums)  # each response another one, as in a loss
    model.zero_grad()
    (weights * sums).sum().backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5 * max(1.0, scale), msg=name)


@pytest.mark.parametrize("chunk_bytes", [1, 4 * VOCABULARY * 4, 1 << 24])
@pytest.mark.parametrize("is_packed", [True, False])
def test_packed_and_plain_rows_equal_the_model_alone(model: PreTrainedModel, is_packed: bool, chunk_bytes: int) -> None:
    with torch.no_grad():
        found = run(model, EXAMPLES, is_packed=is_packed, chunk_bytes=chunk_bytes)
        assert found.values.shape == (3, 3, 12)
        assert found.tokens.tolist() == [[6, 9, 1], [12, 4, 0], [5, 0, 0]]
        assert found.values[~found.is_completion].abs().sum() == 0
        for row, example in enumerate(EXAMPLES):
            for place, completion in enumerate(example.completions):
                expected = alone(model, example.prompt, completion)
                torch.testing.assert_close(found.values[row, place, : len(completion)], expected, rtol=0, atol=1e-4)
                torch.testing.assert_close(found.sums[row, place], expected.sum(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("kept_bytes", [0, 4 * VOCABULARY * 8, 1 << 24])
def test_gradients_equal_those_of_the_model_alone(
    model: PreTrainedModel, is_packed: bool, kept_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", kept_bytes)
    sums = [[alone(model, one.prompt, completion).sum() for completion in one.completions] for one in EXAMPLES]
    expected = torch.stack([torch.stack([*row, *[torch.tensor(0.0)] * (3 - len(row))]) for row in sums])
    reference = gradients(model, expected)
    assert_same(gradients(model, run(model, EXAMPLES, is_packed=is_packed, chunk_bytes=2000).sums), reference)


@pytest.mark.parametrize("is_packed", [True, False])
def test_padding_and_other_rows_never_matter(model: PreTrainedModel, is_packed: bool) -> None:
    with torch.no_grad():
        together = run(model, EXAMPLES, is_packed=is_packed)
        for row, example in enumerate(EXAMPLES):
            single = run(model, [example], is_packed=is_packed, pad=VOCABULARY - 1)
            kept = together.values[row, : single.values.shape[1], : single.values.shape[2]]
            torch.testing.assert_close(kept, single.values[0], rtol=0, atol=1e-4)
        # Another pad: the very same numbers.
        assert torch.equal(run(model, EXAMPLES, is_packed=is_packed, pad=50).values, together.values)


def test_responses_do_not_see_each_other(model: PreTrainedModel) -> None:
    first, second = EXAMPLES[0].completions[:2]
    other = tuple((token + 1) % VOCABULARY for token in first)
    with torch.no_grad():
        before = run(model, [Example("x", ids(0, 11), (first, second))], is_packed=True).values[0, 1]
        after = run(model, [Example("x", ids(0, 11), (other, second))], is_packed=True).values[0, 1]
        swapped = run(model, [Example("x", ids(0, 11), (second, first))], is_packed=True).values[0, 0]
    assert torch.equal(before, after)
    torch.testing.assert_close(before, swapped, rtol=0, atol=1e-4)


def test_gradients_of_micro_batches_add_up_to_those_of_one_batch(model: PreTrainedModel) -> None:
    whole = gradients(model, run(model, EXAMPLES[:2], is_packed=True).sums[:, :2])
    weights = torch.linspace(-1.0, 2.0, 4).view(2, 2)
    for row, example in enumerate(EXAMPLES[:2]):
        (weights[row] * run(model, [example], is_packed=True).sums[0, :2]).sum().backward()
    assert_same({name: one.grad for name, one in model.named_parameters() if one.grad is not None}, whole)
    model.zero_grad()


def test_sft_reads_the_same_tokens(model: PreTrainedModel) -> None:
    with torch.no_grad():
        found = run(model, EXAMPLES, is_packed=True)
        loss = sft_loss(found.values.flatten(0, 1), found.is_completion.flatten(0, 1))
    torch.testing.assert_close(loss.sums, -found.sums.flatten())
    assert loss.tokens.tolist() == found.tokens.flatten().tolist()


def test_logits_exist_for_a_chunk_of_tokens_only(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", VOCABULARY)
    seen: list[int] = []
    linear = module.functional.linear

    def recording(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight.shape[0] == VOCABULARY:
            seen.append(len(states))
        return linear(states, weight, bias)

    monkeypatch.setattr(module.functional, "linear", recording)
    monkeypatch.setattr(module, "_KEPT_BYTES", 0)
    sums = run(model, EXAMPLES, is_packed=True, chunk_bytes=4 * VOCABULARY * 10).sums
    assert seen == [10, 10, 10, 7]  # 37 completion tokens, of 84 in three padded rows
    sums.sum().backward()
    assert seen == [10, 10, 10, 7] * 2


def test_probabilities_that_were_kept_go_with_the_gradient() -> None:
    found = run(make_model("llama", VOCABULARY), EXAMPLES, is_packed=True)  # which a caller may hold for longer
    tokens = int(found.tokens.sum())

    def kept() -> int:
        tensors = [each for each in gc.get_objects() if type(each) is Tensor]
        return sum(each.shape == (tokens, VOCABULARY) for each in tensors)

    before = kept()
    found.sums.sum().backward()
    assert (before, kept()) == (1, 0)


def test_the_model_answers_as_before_afterwards_even_when_a_pass_failed() -> None:
    model = make_model("llama", VOCABULARY).eval()
    sequence = torch.tensor([ids(0, 8)])
    expected = model(input_ids=sequence).logits
    batch = collate([Example("x", (1,), ((VOCABULARY + 5,),))], is_packed=True)
    with pytest.raises(IndexError):
        token_logprobs(model, batch)
    assert "forward" not in vars(model.lm_head)
    run(model, EXAMPLES, is_packed=True)
    assert torch.equal(model(input_ids=sequence).logits, expected)


class Adapted(nn.Module):
    """An output layer that is no plain matrix, as with an adapter."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.extra = nn.Linear(base.in_features, base.out_features)

    def forward(self, states: Tensor) -> Tensor:
        return self.base(states) + self.extra(states).tanh()


def test_any_output_layer_is_applied_in_chunks() -> None:
    model = make_model("llama", VOCABULARY).eval()
    model.lm_head = Adapted(model.lm_head)
    expected = gradients(model, run(model, EXAMPLES, is_packed=False, is_chunked=False).sums)
    for is_packed in (True, False):
        assert_same(gradients(model, run(model, EXAMPLES, is_packed=is_packed, chunk_bytes=2000).sums), expected)


def test_an_output_layer_with_bias_and_one_that_is_frozen() -> None:
    model = make_model("llama", VOCABULARY).eval()
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    expected = gradients(model, run(model, EXAMPLES, is_packed=True, is_chunked=False).sums)
    assert_same(gradients(model, run(model, EXAMPLES, is_packed=True).sums), expected)
    model.lm_head.requires_grad_(False)
    found = gradients(model, run(model, EXAMPLES, is_packed=True).sums)
    assert_same(found, {name: one for name, one in expected.items() if not name.startswith("lm_head")})


def test_autocast_and_half_precision_stay_near(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 2000)
    model = make_model("llama", VOCABULARY).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.dim() > 1 else 1.0)
    exact = run(model, EXAMPLES, is_packed=True).sums
    expected = gradients(model, exact)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(model, EXAMPLES, is_packed=True, chunk_bytes=2000).sums
    half = run(copy.deepcopy(model).bfloat16(), EXAMPLES, is_packed=True).sums
    for sums in (found, half):
        assert sums.dtype == torch.float32
        torch.testing.assert_close(sums, exact, rtol=0, atol=0.5)
    near = gradients(model, found)
    assert near["lm_head.weight"].dtype == torch.float32
    for name, gradient in expected.items():
        assert torch.cosine_similarity(near[name].flatten(), gradient.flatten(), dim=0) > 0.99, name


def test_dropout_is_off_in_training_mode_too() -> None:
    for kind in KINDS:
        model = make_model(kind, VOCABULARY).train()
        if kind == "gpt2":
            assert not torch.equal(run(model, EXAMPLES, is_packed=True).sums, run(model, EXAMPLES, is_packed=True).sums)
        else:
            for layer in model.model.layers:
                layer.self_attn.attention_dropout = 0.5
        disable_dropout(model)
        with torch.no_grad():
            training = run(model, EXAMPLES, is_packed=True).sums
            assert torch.equal(training, run(model.eval(), EXAMPLES, is_packed=True).sums)


def test_dropout_that_is_a_number_is_off_whatever_its_name() -> None:
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    rest = {"num_hidden_layers": 2, "intermediate_size": 64, "bos_token_id": 1, "eos_token_id": 2}
    config = Starcoder2Config(**sizes, **rest, residual_dropout=0.5, embedding_dropout=0.5, attention_dropout=0.5)
    model = Starcoder2ForCausalLM(config)
    disable_dropout(model)
    with torch.no_grad():
        training = run(model.train(), EXAMPLES, is_packed=True).sums
        assert torch.equal(training, run(model.eval(), EXAMPLES, is_packed=True).sums)


def test_plans(model: PreTrainedModel) -> None:
    model.train()
    assert plan_logprobs(model, max_length=512) == LogprobPlan(True, True, ())
    assert model.training
    model.eval()


def test_a_window_shorter_than_the_sequences_is_not_packed() -> None:
    model = make_model("qwen2-sliding", VOCABULARY).eval()
    plan = plan_logprobs(model, max_length=512)
    assert (plan.is_packed, plan.is_chunked) == (False, True)
    assert "slides over 8 tokens" in plan.notes[0]
    with torch.no_grad():
        found = run(model, EXAMPLES, is_packed=False)
        expected = [alone(model, EXAMPLES[1].prompt, one).sum() for one in EXAMPLES[1].completions]
    torch.testing.assert_close(found.sums[1, :2], torch.stack(expected), rtol=0, atol=1e-4)


def test_what_a_model_does_to_its_logits_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", VOCABULARY).eval()
    forward = type(model).forward

    def capped(self: PreTrainedModel, **inputs: object) -> object:
        output = forward(self, **inputs)
        output.logits = 2.0 * torch.tanh(output.logits / 2.0)
        return output

    monkeypatch.setattr(type(model), "forward", capped)
    plan = plan_logprobs(model, max_length=512)
    assert (plan.is_packed, plan.is_chunked) == (True, False)
    assert "all at once" in plan.notes[0]
    with torch.no_grad():
        found = run(model, EXAMPLES, is_packed=True, is_chunked=plan.is_chunked)
        torch.testing.assert_close(found.sums[2, 0], alone(model, ids(9, 1), ids(3, 5)).sum(), atol=1e-4, rtol=0)


def test_an_attention_that_takes_no_mask_is_not_packed() -> None:
    model = make_model("llama", VOCABULARY).eval()
    model.config._attn_implementation = "flash_attention_2"
    assert "flash_attention_2" in packing_fault(model, 512)


def test_a_wrapped_model_is_run_through_its_wrapper(model: PreTrainedModel) -> None:
    class Wrapper(nn.Module):
        calls = 0

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.module = inner

        def forward(self, **inputs: object) -> object:
            Wrapper.calls += 1
            return self.module(**inputs)

    with torch.no_grad():
        found = run(Wrapper(model), EXAMPLES, is_packed=True)
        assert torch.equal(found.values, run(model, EXAMPLES, is_packed=True).values)
    assert Wrapper.calls == 1


# At a temperature.


def test_a_temperature_by_hand() -> None:
    # Logits of 0, and of one token 2 ln 288. At temperature 2 that is ln 288: p = 288 / (288 + 96) = 3/4, others 1/384.
    model = make_model("llama", VOCABULARY).eval()
    model.lm_head.bias = nn.Parameter(torch.zeros(VOCABULARY))
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.bias[5] = 2 * math.log(288)
    found = run(model, [Example("x", (1, 2), ((5, 6),))], is_packed=True, temperature=2.0)
    torch.testing.assert_close(found.values[0, 0].exp(), torch.tensor([3 / 4, 1 / 384]))
    found.sums.sum().backward()
    # d log p(5) / d bias[5] = (1 - 3/4) / 2 and d log p(6) / d bias[5] = -(3/4) / 2.
    torch.testing.assert_close(model.lm_head.bias.grad[5], torch.tensor(1 / 8 - 3 / 8))


@pytest.fixture(scope="module")
def exact_model() -> PreTrainedModel:
    """In float64, so that another rounding is no difference; its output layer has a bias."""
    model = make_model("llama", VOCABULARY).eval()
    model.lm_head.bias = nn.Parameter(torch.linspace(-1, 1, VOCABULARY))
    return model.double()


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("way", ["kept", "computed again", "any layer", "all at once"])
def test_numbers_and_gradients_are_those_of_divided_logits(
    exact_model: PreTrainedModel, way: str, is_packed: bool, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KEPT_BYTES", 0 if way == "computed again" else 1 << 24)
    model = copy.deepcopy(exact_model)
    if way == "any layer":
        model.lm_head = Adapted(model.lm_head).double()
    rows = [[alone(model, one.prompt, each, temperature) for each in one.completions] for one in EXAMPLES]
    found = run(
        model, EXAMPLES, is_packed=is_packed, is_chunked=way != "all at once", chunk_bytes=2000, temperature=temperature
    )
    for row, of_row in enumerate(rows):
        for place, expected in enumerate(of_row):
            torch.testing.assert_close(found.values[row, place, : len(expected)], expected, rtol=0, atol=1e-9)
    sums = torch.stack(
        [torch.stack([*[one.sum() for one in row], *[torch.zeros(())] * (3 - len(row))]) for row in rows]
    )
    assert_same(gradients(model, found.sums), gradients(model, sums))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature {temperature}; expected a finite number above 0"):
        run(make_model("llama", VOCABULARY), EXAMPLES, is_packed=True, temperature=temperature)


# With values.


def reading(calls: list[torch.Size]) -> Callable[[Tensor], Tensor]:
    """Of states a number that is no linear function of them."""

    def read(states: Tensor) -> Tensor:
        calls.append(states.shape)
        return (states * torch.linspace(-1.0, 1.0, states.shape[-1]).to(states.dtype)).sum(-1).tanh()

    return read


def states_alone(model: PreTrainedModel, prompt: tuple[int, ...], completion: tuple[int, ...]) -> Tensor:
    """What the output layer gets before each completion token, one sequence at a time, (L, D)."""
    states = model.base_model(input_ids=torch.tensor([prompt + completion])).last_hidden_state[0]
    return states[len(prompt) - 1 : -1]


@pytest.mark.parametrize("is_chunked", [True, False])
@pytest.mark.parametrize("is_packed", [True, False])
def test_values_are_read_of_the_states_before_each_token(
    model: PreTrainedModel, is_packed: bool, is_chunked: bool
) -> None:
    calls: list[torch.Size] = []
    read = reading(calls)
    found = run(model, EXAMPLES, is_packed=is_packed, is_chunked=is_chunked, read_values=read)
    assert calls == [(37, 32)]  # once, and of 84 tokens in three padded rows those that predict
    assert found.token_values is not None
    assert found.token_values.shape == found.values.shape
    assert found.token_values[~found.is_completion].abs().sum() == 0
    total = torch.zeros(())
    for row, example in enumerate(EXAMPLES):
        for place, completion in enumerate(example.completions):
            values = read(states_alone(model, example.prompt, completion))
            total = total + values.square().sum()
            torch.testing.assert_close(found.token_values[row, place, : len(completion)], values, rtol=0, atol=1e-5)
    plain = run(model, EXAMPLES, is_packed=is_packed, is_chunked=is_chunked)
    assert plain.token_values is None
    assert torch.equal(plain.values, found.values)
    # Gradients of a loss of both are those of one and of the other.
    both = gradients(model, torch.stack([found.sums.sum(), found.token_values.square().sum()]))
    assert_same(both, gradients(model, torch.stack([plain.sums.sum(), total])))


def test_values_are_float32_under_autocast_though_states_are_not() -> None:
    model = make_model("llama", VOCABULARY).eval()
    dtypes = []

    def read(states: Tensor) -> Tensor:
        dtypes.append(states.dtype)
        return states.float().mean(-1)

    for is_chunked in (True, False):
        for each in (model, copy.deepcopy(model).bfloat16()):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = run(each, EXAMPLES, is_packed=True, is_chunked=is_chunked, read_values=read)
            assert found.token_values is not None
            assert found.token_values.dtype == found.values.dtype == torch.float32
    assert dtypes == [torch.float32, torch.bfloat16] * 2  # as the last norm's weights are


def test_what_a_model_does_to_its_logits_is_not_done_to_values(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", VOCABULARY).eval()
    expected = run(model, EXAMPLES, is_packed=True, read_values=reading([])).token_values
    forward = type(model).forward

    def halved(self: PreTrainedModel, **inputs: object) -> object:
        output = forward(self, **inputs)
        output.logits = output.logits / 2.0
        return output

    monkeypatch.setattr(type(model), "forward", halved)
    found = run(model, EXAMPLES, is_packed=True, is_chunked=False, read_values=reading([]))
    assert torch.equal(found.token_values, expected)
