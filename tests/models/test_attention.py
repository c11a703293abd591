"""FlexAttention in packed rows: the same log-probabilities and gradients as with a mask, and the way back from it.

Without a compiler in the loop (`uncompiled`), as torch compiles for most of a minute; RLAIF_TEST_COMPILE=1 adds the
compiled forward pass. Torch has no gradient of FlexAttention on a CPU: where gradients are compared, its refusal is
lifted, and its own uncompiled formula takes the derivative.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest
import torch
from tiny_models import make_model
from torch import Tensor, nn
from torch.nn.attention import flex_attention as flex
from transformers import PreTrainedModel

from rlaif.models import batches as batches_module
from rlaif.models.attention import attention_for, attention_of, use_flex_attention
from rlaif.models.batches import FLEX, PADDING, Batch, attention_inputs, block_mask, collate, flex_mask
from rlaif.models.examples import Example
from rlaif.models.logprobs import LogprobPlan, plan_logprobs, token_logprobs

VOCABULARY = 97

pytestmark = [  # both of libraries, about each other
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:_compile flag on create_block_mask:DeprecationWarning"),
]


def ids(start: int, count: int) -> tuple[int, ...]:
    return tuple((31 * (start + index) + 7 * (index // 5)) % VOCABULARY for index in range(count))


EXAMPLES = [
    Example("triple", ids(0, 190), (ids(20, 60), ids(40, 9), ids(60, 41))),  # 300 tokens, three blocks
    Example("pair", ids(5, 3), (ids(70, 12), ids(90, 140))),
    Example("single", ids(9, 1), (ids(3, 5),)),
]


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is compiled otherwise runs as it is written, gradients included."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    batches_module._compiled_mask.cache_clear()
    with torch.compiler.set_stance("force_eager"):
        yield
    batches_module._compiled_mask.cache_clear()


@pytest.fixture
def with_gradient(monkeypatch: pytest.MonkeyPatch, uncompiled: None) -> None:
    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)


def model_with(attention: str, kind: str = "llama") -> PreTrainedModel:
    model = make_model(kind, VOCABULARY).eval()
    model.set_attn_implementation(attention)
    return model


def logprobs(model: nn.Module, *, is_packed: bool) -> Tensor:
    return token_logprobs(model, collate(EXAMPLES, is_packed=is_packed)).values


@pytest.mark.usefixtures("uncompiled")
def test_a_flex_mask_is_the_mask_in_blocks() -> None:
    segments = collate(EXAMPLES, is_packed=True).segment_ids
    mask = flex_mask(segments)
    assert mask.shape == (3, 1, 300, 300)
    rows, places = torch.arange(3).view(-1, 1, 1), torch.arange(300)
    sees = mask.mask_mod(rows, rows, places.unsqueeze(1), places)
    assert torch.equal(sees, block_mask(segments, torch.float32).squeeze(1) == 0)
    # 190 tokens of prompt, completions up to 250, 259 and 300. Blocks that are seen at all, by blocks that see:
    assert mask.to_dense()[0, 0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert mask.full_kv_num_blocks is not None
    assert mask.full_kv_num_blocks[0, 0].tolist() == [0, 1, 0]  # tokens 128 to 255 all see the prompt's first 128
    # The pair's first completion ends at token 15: its second block sees the prompt there, and itself.
    assert mask.to_dense()[1, 0].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert mask.to_dense()[2, 0].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]  # padding costs its own block


def test_only_a_model_with_flex_attention_is_given_its_mask(uncompiled: None) -> None:
    batch = collate(EXAMPLES, is_packed=True)
    found = attention_inputs(batch, torch.float32, FLEX)
    assert isinstance(found["attention_mask"], flex.BlockMask)
    assert found["position_ids"] is batch.position_ids
    assert attention_inputs(batch, torch.float32, "eager")["attention_mask"].shape == (3, 1, 300, 300)
    plain = collate(EXAMPLES, is_packed=False)
    assert torch.equal(
        attention_inputs(plain, torch.float32, FLEX)["attention_mask"], (plain.segment_ids != PADDING).long()
    )


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_flex_sdpa_plain_and_alone_are_equal(kind: str) -> None:
    masked, flexible = model_with("sdpa", kind), model_with(FLEX, kind)
    with torch.no_grad():
        expected = logprobs(masked, is_packed=True)
        for model, is_packed in ((flexible, True), (flexible, False), (masked, False)):
            torch.testing.assert_close(logprobs(model, is_packed=is_packed), expected, rtol=0, atol=1e-4)
        for row, example in enumerate(EXAMPLES):
            for place, completion in enumerate(example.completions):
                every = masked(input_ids=torch.tensor([example.prompt + completion])).logits[0].log_softmax(-1)
                wanted = every[len(example.prompt) - 1 : -1].gather(-1, torch.tensor(completion).unsqueeze(-1))
                found = expected[row, place, : len(completion)]
                torch.testing.assert_close(found, wanted.squeeze(-1), rtol=0, atol=1e-4)


@pytest.mark.usefixtures("with_gradient")
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_gradients_of_flex_attention_are_those_of_sdpa(kind: str) -> None:
    found: list[dict[str, Tensor]] = []
    for attention in ("sdpa", FLEX):
        model = model_with(attention, kind).train()
        values = logprobs(model, is_packed=True)
        (torch.linspace(-1.0, 2.0, values.numel()).view_as(values) * values).sum().backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


@pytest.mark.usefixtures("uncompiled")
def test_one_mask_serves_all_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    create = flex.create_block_mask
    monkeypatch.setattr(flex, "create_block_mask", lambda *inputs, **named: made.append(1) or create(*inputs, **named))
    with torch.no_grad():
        logprobs(model_with(FLEX), is_packed=True)  # three layers
    assert len(made) == 1


@pytest.mark.usefixtures("with_gradient")
def test_a_plan_sets_flex_attention_where_it_is_wanted_and_works() -> None:
    model = make_model("llama", VOCABULARY).train()
    assert plan_logprobs(model, 512, FLEX) == LogprobPlan(True, True, ())
    assert attention_of(model) == FLEX
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    # Planned again for a CPU, where a mask suits it: the same model goes back.
    assert plan_logprobs(model, 512) == LogprobPlan(True, True, ())
    assert attention_of(model) == "sdpa"


@pytest.mark.usefixtures("uncompiled")
def test_a_plan_stays_with_a_mask_where_flex_attention_fails() -> None:
    model = make_model("llama", VOCABULARY)
    plan = plan_logprobs(model, 512, FLEX)
    assert (plan.is_packed, plan.is_chunked, attention_of(model)) == (True, True, "sdpa")
    assert "FlexAttention failed: NotImplementedError" in plan.notes[0]
    assert "backward on CPU" in plan.notes[0]
    # What is not trained needs no gradient.
    assert plan_logprobs(model.requires_grad_(False), 512, FLEX).notes == ()
    assert attention_of(model) == FLEX
    # An architecture without it.
    model = make_model("gpt2", VOCABULARY)
    model.set_attn_implementation("eager")
    assert "GPT2LMHeadModel does not support" in plan_logprobs(model, 512, FLEX).notes[0]
    assert attention_of(model) == "eager"


def test_a_model_that_cannot_pack_keeps_its_attention() -> None:
    model = make_model("qwen2-sliding", VOCABULARY)
    plan = plan_logprobs(model, 512, FLEX)
    assert not plan.is_packed
    assert "slides over 8 tokens" in plan.notes[0]
    assert len(plan.notes) == 1
    assert attention_of(model) == "sdpa"


@pytest.mark.usefixtures("with_gradient")
@pytest.mark.parametrize("wrong", ["numbers", "gradient", "nan"])
def test_a_trial_that_gives_other_numbers_is_refused(wrong: str) -> None:
    model = make_model("llama", VOCABULARY).eval()

    def read(batch: Batch) -> Tensor:
        sums = token_logprobs(model, batch).sums
        if attention_of(model) != FLEX or batch.input_ids.shape[1] < 128:  # short rows are well
            return sums
        faults = {
            "numbers": sums + 0.01,
            "gradient": sums.detach() + 1.1 * (sums - sums.detach()),
            "nan": sums * torch.nan,
        }
        return faults[wrong]

    fault = use_flex_attention(model, read, max_length=512)
    assert ("a gradient" if wrong == "gradient" else "numbers") in fault
    assert attention_of(model) == "sdpa"


def test_a_trial_is_no_longer_than_the_model_takes(monkeypatch: pytest.MonkeyPatch, with_gradient: None) -> None:
    model = make_model("llama", VOCABULARY).eval()
    longest: list[int] = []

    def read(batch: Batch) -> Tensor:
        longest.append(int(batch.position_ids.max()) + 1)
        return token_logprobs(model, batch).sums

    assert use_flex_attention(model, read, max_length=64) == ""
    assert max(longest) <= 64
    assert use_flex_attention(model, read, max_length=4096) == ""
    assert max(longest) == 12 * 24 + 8


def test_attention_of_a_device_and_of_a_wrapped_model() -> None:
    assert [attention_for(device) for device in ("cpu", "cuda", "cuda:1", "mps")] == ["sdpa", FLEX, FLEX, "sdpa"]
    assert attention_of(nn.Sequential(nn.ModuleDict({"module": make_model("gpt2", VOCABULARY)}))) == "sdpa"


@pytest.mark.usefixtures("with_gradient")
def test_a_plan_is_made_under_the_autocast_that_follows() -> None:
    model = make_model("llama", VOCABULARY)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.3 if parameter.dim() > 1 else 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert plan_logprobs(model, 512, FLEX) == LogprobPlan(True, True, ())
    assert attention_of(model) == FLEX


@pytest.mark.skipif(
    "RLAIF_TEST_COMPILE" not in os.environ, reason="compiles for a minute; RLAIF_TEST_COMPILE=1 runs it"
)
def test_compiled_flex_attention_is_equal_for_rows_of_any_number_and_length() -> None:
    masked, flexible = model_with("sdpa"), model_with(FLEX)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the compiler
        # Lengths change from the first to the second: where only the number of rows does, the C++ that torch 2.13
        # writes for a CPU does not compile.
        for examples in (EXAMPLES, EXAMPLES[1:], EXAMPLES * 2):
            batch = collate(examples, is_packed=True)
            expected = token_logprobs(masked, batch).values
            torch.testing.assert_close(token_logprobs(flexible, batch).values, expected, rtol=0, atol=1e-4)
