"""Models for training: what is trained, what an adapter leaves alone, and what is on disk afterwards."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, make_model, save_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlaif.errors import BackendNotInstalledError, BackendUnusableError, ConfigError
from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.loading import ModelSource, find_model, load_model, load_reward_model, reward_shift, stop_ids
from rlaif.models.logprobs import token_logprobs
from rlaif.models.rewards import completion_rewards
from rlaif.train.config import AdapterConfig
from rlaif.train.models import (
    adapter_off,
    check_reference,
    load_policy,
    load_reward_model_for_training,
    save_trained,
    set_reward_shift,
    trainable_parameters,
)

EOS = 265
"""Of the tokenizer of `tiny_models`."""
FULL = AdapterConfig()
LORA = AdapterConfig(lora_rank=4)
EXAMPLES = [Example("a", (1, 2, 3), ((4, 5, EOS), (6, EOS))), Example("b", (9, 8), ((7, EOS), (3, 2, 1, EOS)))]
BATCH = collate(EXAMPLES, is_packed=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model as a user has it."""
    return save_model(tmp_path_factory.mktemp("models") / "base")


def source_of(folder: Path, dtype: str = "float32") -> ModelSource:
    return find_model(str(folder), backend=None, device="cpu", dtype=dtype)


def logprobs(model: Any) -> Tensor:
    with torch.no_grad():
        return token_logprobs(model.eval(), BATCH).sums


def rewards(model: Any) -> Tensor:
    with torch.no_grad():
        return completion_rewards(model.eval(), BATCH)


def learn(model: Any, loss: Callable[[Any], Tensor], steps: int = 3) -> None:
    """Move the weights that are trained."""
    optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.05)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()


def learn_policy(model: Any) -> None:
    learn(model, lambda model: -token_logprobs(model, BATCH).sums[:, 0].mean())


def learn_rewards(model: Any) -> None:
    learn(model, lambda model: -(completion_rewards(model, BATCH) * torch.tensor([1.0, -1.0])).mean())


def dtypes(model: Any, *, is_trained: bool) -> set[torch.dtype]:
    return {one.dtype for one in model.parameters() if one.requires_grad == is_trained}


# What is loaded.


def test_all_weights_are_trained_in_float32(folder: Path) -> None:
    model = load_policy(source_of(folder, "bfloat16"), FULL, seed=0)
    assert dtypes(model, is_trained=True) == {torch.float32}
    assert dtypes(model, is_trained=False) == set()
    trained, every = trainable_parameters(model)
    assert trained == every == sum(one.numel() for one in model.parameters())


def test_an_adapter_is_trained_in_float32_beside_frozen_weights(folder: Path) -> None:
    model = load_policy(source_of(folder, "bfloat16"), LORA, seed=0)
    assert dtypes(model, is_trained=True) == {torch.float32}
    assert dtypes(model, is_trained=False) == {torch.bfloat16}
    # Per layer of rank 4: q and o of 32 + 32, k and v of 32 + 16, three of the MLP with 32 + 64.
    assert trainable_parameters(model).trained == 3 * 4 * (2 * 64 + 2 * 48 + 3 * 96)


@pytest.mark.parametrize("load", [load_policy, load_reward_model_for_training])
def test_an_adapter_begins_without_effect(folder: Path, load: Callable[..., Any]) -> None:
    read = logprobs if load is load_policy else rewards
    base = load(source_of(folder), FULL, seed=0)
    adapted = load(source_of(folder), LORA, seed=0)
    assert torch.equal(read(adapted), read(base))


def test_an_adapter_that_is_off_leaves_the_base(folder: Path) -> None:
    base = load_model(source_of(folder))
    model = load_policy(source_of(folder), LORA, seed=0)
    learn_policy(model)
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    with adapter_off(model):
        assert torch.equal(logprobs(model), logprobs(base))
    assert not torch.allclose(logprobs(model), logprobs(base), atol=1e-2)
    assert [name for name, one in model.named_parameters() if one.requires_grad] == trained


def test_without_an_adapter_nothing_is_turned_off(folder: Path) -> None:
    model = load_policy(source_of(folder), FULL, seed=0)
    learn_policy(model)
    before = logprobs(model)
    with adapter_off(model):
        assert torch.equal(logprobs(model), before)


def test_the_seed_alone_decides_new_weights(folder: Path) -> None:
    def weights(seed: int) -> list[Tensor]:
        torch.manual_seed(torch.seed())
        model = load_reward_model_for_training(source_of(folder), LORA, seed=seed)
        return [one.detach() for one in model.parameters() if one.requires_grad]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_drawing_new_weights_leaves_torch_as_it_was(folder: Path) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    load_policy(source_of(folder), LORA, seed=0)
    assert torch.equal(torch.rand(1), expected)


def test_the_models_own_dropout_is_off_and_the_adapters_is_not(tmp_path: Path) -> None:
    source = source_of(save_model(tmp_path, "gpt2"))
    plain = load_policy(source, LORA, seed=0).train()
    assert torch.equal(token_logprobs(plain, BATCH).sums, token_logprobs(plain, BATCH).sums)
    dropping = load_policy(source, AdapterConfig(lora_rank=4, lora_dropout=0.5), seed=0)
    learn_policy(dropping)
    dropping.train()
    assert not torch.equal(token_logprobs(dropping, BATCH).sums, token_logprobs(dropping, BATCH).sums)


def test_the_embedding_of_eos_learns_where_it_pads_too(tmp_path: Path) -> None:
    tokenizer = byte_level_tokenizer()
    model = make_model("llama", len(tokenizer))
    model.config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    policy = load_policy(source_of(tmp_path), FULL, seed=0)
    token_logprobs(
        policy, collate([Example("a", (1, tokenizer.eos_token_id), ((3,),))], is_packed=True)
    ).sums.backward()
    assert policy.get_input_embeddings().weight.grad[tokenizer.eos_token_id].abs().sum() > 0


def test_layers_by_name_get_the_adapter(folder: Path) -> None:
    adapter = AdapterConfig(lora_rank=2, lora_alpha=3, lora_target=("q_proj", "v_proj"))
    model = load_policy(source_of(folder), adapter, seed=0)
    names = {name.split(".")[-4] for name, one in model.named_parameters() if one.requires_grad}
    assert names == {"q_proj", "v_proj"}
    assert model.peft_config["default"].lora_alpha == 3
    assert load_policy(source_of(folder), LORA, seed=0).peft_config["default"].lora_alpha == 8


def test_a_layer_that_is_not_there_is_named_with_those_that_are(folder: Path) -> None:
    adapter = AdapterConfig(lora_rank=2, lora_target=("q_proj", "query"))
    expected = (
        r"lora_target: model '.*base' has no layer query; expected all-linear alone, or some of down_proj, gate_proj, "
        r"k_proj, lm_head, o_proj, q_proj, up_proj, v_proj$"
    )
    with pytest.raises(ConfigError, match=expected):
        load_policy(source_of(folder), adapter, seed=0)
    with pytest.raises(ConfigError, match=r"no adapter fits norm \("):
        load_policy(source_of(folder), AdapterConfig(lora_rank=2, lora_target=("norm",)), seed=0)


@pytest.mark.parametrize(
    ("adapter", "missing", "expected"),
    [
        (LORA, "peft", "--lora-rank needs peft, which an extra brings; run: pip install 'rlaif[train]'"),
        (AdapterConfig(lora_rank=4, quantize="4bit"), "bitsandbytes", "--quantize 4bit needs bitsandbytes, which"),
    ],
)
def test_a_missing_extra_is_named_before_anything_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, adapter: AdapterConfig, missing: str, expected: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    monkeypatch.setattr("rlaif.train.models.load_model", lambda *arguments: pytest.fail("it was loaded"))
    with pytest.raises(BackendNotInstalledError) as caught:
        load_policy(source_of(folder), adapter, seed=0)
    assert str(caught.value).startswith(expected)


def test_messages_name_the_model_as_it_was_given(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^model '\./nowhere': there is no such folder; expected a folder with config"
    ):
        find_model("./nowhere", backend=None, device="cpu", dtype="float32")
    folder = save_model(tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"\0")
    with pytest.raises(BackendUnusableError, match=r"^model '.*broken' cannot be loaded: "):
        load_policy(source_of(folder), FULL, seed=0)


# Reward models.


def test_a_new_head_begins_near_zero(folder: Path) -> None:
    model = load_reward_model_for_training(source_of(folder), FULL, seed=0)
    assert model.score.weight.shape == (1, 32)
    assert float(model.score.weight.detach().std()) == pytest.approx(1 / 33, rel=0.4)
    found = rewards(model)
    assert float(found.abs().max()) < 4 / 32**0.5
    assert float(found.abs().min()) > 0
    assert reward_shift(model.config) == 0.0


def test_the_head_is_trained_in_full_beside_an_adapter(folder: Path) -> None:
    model = load_reward_model_for_training(source_of(folder, "bfloat16"), LORA, seed=0)
    trained = {name: one.dtype for name, one in model.named_parameters() if one.requires_grad}
    assert [name for name in trained if "lora" not in name] == ["base_model.model.score.modules_to_save.default.weight"]
    assert set(trained.values()) == {torch.float32}
    before = rewards(model)  # in bfloat16 up to the head, without mixed precision
    learn_rewards(model)
    assert not torch.allclose(rewards(model), before)


def test_a_finished_reward_model_keeps_its_head_and_not_its_shift(folder: Path, tmp_path: Path) -> None:
    model = load_reward_model_for_training(source_of(folder), FULL, seed=0)
    learn_rewards(model)
    set_reward_shift(model, 1.5)
    save_trained(model, source_of(folder).tokenizer, tmp_path, merge=False)
    assert reward_shift(source_of(tmp_path).config) == 1.5
    again = load_reward_model_for_training(source_of(tmp_path), FULL, seed=9)
    assert torch.equal(rewards(again), rewards(model))
    assert reward_shift(again.config) == 0.0


def test_a_classifier_of_two_labels_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"^model '.*': it has 2 labels; expected one, the reward"):
        load_reward_model_for_training(source_of(tmp_path), FULL, seed=0)


def test_missing_weights_are_not_drawn_at_random(folder: Path, tmp_path: Path) -> None:
    model = load_reward_model_for_training(source_of(folder), FULL, seed=0)
    save_trained(model, source_of(folder).tokenizer, tmp_path, merge=False)
    with pytest.raises(ConfigError, match="is a reward model, expected a language model"):
        load_policy(source_of(tmp_path), FULL, seed=0)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    with pytest.raises(
        ConfigError, match=r"it has no weights for lm_head.weight; expected a causal language model with"
    ):
        load_policy(source_of(tmp_path), FULL, seed=0)


def test_a_shift_that_is_no_number_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="a reward shift of nan"):
        set_reward_shift(load_reward_model_for_training(source_of(folder), FULL, seed=0), float("nan"))


# What is saved.


@pytest.mark.parametrize("adapter", [FULL, AdapterConfig(lora_rank=4, merge=True)])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_policy_loads_with_transformers_alone(tmp_path: Path, adapter: AdapterConfig, kind: str) -> None:
    source = source_of(save_model(tmp_path / "base", kind, eos=[EOS, 5]))
    model = load_policy(source, adapter, seed=0)
    learn_policy(model)
    live = logprobs(model)
    saved = save_trained(model, source.tokenizer, tmp_path / "out", merge=adapter.merge)
    assert torch.equal(logprobs(saved), logprobs(AutoModelForCausalLM.from_pretrained(tmp_path / "out")))
    assert torch.allclose(logprobs(saved), live, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == CHAT_TEMPLATE
    assert tokenizer.get_vocab() == source.tokenizer.get_vocab()
    assert stop_ids(source_of(tmp_path / "out")) == stop_ids(source)
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {".json", ".safetensors", ".jinja"}
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in (tmp_path / "out").iterdir())


@pytest.mark.parametrize("adapter", [FULL, LORA])
@pytest.mark.parametrize("is_padded_by_eos", [True, False])
def test_a_reward_model_loads_with_transformers_alone(
    tmp_path: Path, adapter: AdapterConfig, is_padded_by_eos: bool
) -> None:
    tokenizer = byte_level_tokenizer()
    assert tokenizer.eos_token_id == EOS
    tokenizer.pad_token = tokenizer.eos_token if is_padded_by_eos else None
    source = source_of(save_model(tmp_path / "base", tokenizer=tokenizer, eos=[EOS, 5]))
    model = load_reward_model_for_training(source, adapter, seed=0)
    learn_rewards(model)
    set_reward_shift(model, 0.25)
    live = rewards(model)
    save_trained(model, source.tokenizer, tmp_path / "out", merge=False)
    plain, of_plain = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "out"),
        AutoTokenizer.from_pretrained(tmp_path / "out"),
    )
    # As a user of transformers alone reads rewards: a padded batch, each response with its EOS (#35352).
    rows = [list(one.prompt + completion) for one in EXAMPLES for completion in one.completions]
    batch = of_plain.pad({"input_ids": rows}, return_tensors="pt")
    assert torch.allclose(plain(**batch).logits.view(2, 2), live, atol=1e-5)
    found = source_of(tmp_path / "out")
    assert reward_shift(found.config) == 0.25
    assert stop_ids(found) == stop_ids(source)
    assert of_plain.get_vocab() == tokenizer.get_vocab()
    assert source.tokenizer.pad_token == tokenizer.pad_token  # ours is as it was
    assert torch.allclose(rewards(load_reward_model(found)), live, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft
def test_an_adapter_alone_is_saved_for_peft(folder: Path, tmp_path: Path) -> None:
    from peft import AutoPeftModelForCausalLM

    source = source_of(folder)
    model = load_policy(source, LORA, seed=0)
    learn_policy(model)
    save_trained(model, source.tokenizer, tmp_path, merge=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"adapter_config.json", "adapter_model.safetensors", "generation_config.json"} < names
    assert not {"config.json", "model.safetensors", "README.md"} & names
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == source.path
    assert torch.equal(logprobs(AutoPeftModelForCausalLM.from_pretrained(tmp_path)), logprobs(model))
    with pytest.raises(
        ConfigError, match=r"the folder holds an adapter alone; expected a whole model \(train it --merge"
    ):
        source_of(tmp_path)


def test_a_published_generation_config_that_cannot_be_saved_is_mended(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "base")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_sample": False, "temperature": 0.6}))
    source = source_of(folder)
    save_trained(load_policy(source, FULL, seed=0), source.tokenizer, tmp_path / "out", merge=False)
    saved = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert (saved["temperature"], saved["do_sample"]) == (0.6, True)


def test_whoever_may_read_the_tokenizer_may_read_the_weights(folder: Path, tmp_path: Path) -> None:
    source = source_of(folder)
    save_trained(load_policy(source, FULL, seed=0), source.tokenizer, tmp_path, merge=False)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "tokenizer_config.json").stat().st_mode


def test_a_model_takes_the_place_of_another_and_other_files_stay(folder: Path, tmp_path: Path) -> None:
    source = source_of(folder)
    (tmp_path / "metrics.jsonl").write_text("{}")
    (tmp_path / "model-00001-of-00002.safetensors").touch()
    (tmp_path / ".saving").mkdir()
    (tmp_path / ".saving" / "half.safetensors").touch()
    save_trained(load_policy(source, LORA, seed=0), source.tokenizer, tmp_path, merge=False)
    save_trained(load_policy(source, FULL, seed=0), source.tokenizer, tmp_path, merge=False)
    names = {path.name for path in tmp_path.iterdir()}
    assert "metrics.jsonl" in names
    assert {name for name in names if "safetensors" in name} == {"model.safetensors"}
    assert not {"adapter_config.json", ".saving", "half.safetensors"} & names


class Killed(BaseException):
    """No code of ours runs after it, as after a kill."""


def test_a_kill_while_saving_leaves_the_whole_model_or_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_of(folder)
    model = load_policy(source, FULL, seed=0)
    outcomes = []
    for last in range(30):
        out = tmp_path / str(last)
        save_trained(load_policy(source, FULL, seed=0), source.tokenizer, out, merge=False)
        before = (out / "model.safetensors").read_bytes()
        learn_policy(model)
        with monkeypatch.context() as patched:
            steps = iter(range(last))
            for name in ("replace", "unlink", "rmdir", "mkdir"):
                patched.setattr(Path, name, _counting(getattr(Path, name), steps))
            try:
                save_trained(model, source.tokenizer, out, merge=False)
                outcomes.append("new")
                break
            except Killed:
                pass
        try:
            source_of(out)
        except ConfigError:
            outcomes.append("none")
        else:
            is_old = (out / "model.safetensors").read_bytes() == before
            outcomes.append("old" if is_old else "new")
            assert torch.equal(logprobs(load_model(source_of(out))), logprobs(model)) != is_old
    assert outcomes == sorted(outcomes, key=["old", "none", "new"].index)
    assert set(outcomes) == {"old", "none", "new"}


def _counting(act: Callable[..., Any], steps: Iterator[int]) -> Callable[..., Any]:
    """Does as `act`, until the steps are used up."""

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(steps, None) is None:
            raise Killed
        return act(*arguments, **options)

    return counted


# Quantized weights.


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
@pytest.mark.parametrize("bits", ["4bit", "8bit"])
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
def test_an_adapter_learns_beside_quantized_weights(folder: Path, tmp_path: Path, bits: Any) -> None:
    source = source_of(folder)
    adapter = AdapterConfig(lora_rank=4, quantize=bits)
    policy = load_policy(source, adapter, seed=0)
    assert trainable_parameters(policy).trained == trainable_parameters(load_policy(source, LORA, seed=0)).trained
    with adapter_off(policy):
        base = logprobs(policy)
    assert torch.equal(logprobs(policy), base)
    learn_policy(policy)
    assert not torch.allclose(logprobs(policy), base, atol=1e-2)
    with adapter_off(policy):
        assert torch.equal(logprobs(policy), base)
    save_trained(policy, source.tokenizer, tmp_path / "policy", merge=False)
    assert (tmp_path / "policy" / "adapter_model.safetensors").is_file()

    judge = load_reward_model_for_training(source, adapter, seed=0)
    learn_rewards(judge)
    live = rewards(judge)
    save_trained(judge, source.tokenizer, tmp_path / "judge", merge=False)
    merged = load_reward_model(source_of(tmp_path / "judge"))
    assert not getattr(merged, "is_quantized", False)
    assert torch.allclose(rewards(merged), live, atol=1e-5 if bits == "4bit" else 0.1)


# The reference.


def saved_with(folder: Path, change: Callable[[Any], None], *, vocabulary: int = 0) -> ModelSource:
    tokenizer = byte_level_tokenizer()
    change(tokenizer)
    tokenizer.save_pretrained(folder)
    make_model("llama", vocabulary or len(tokenizer)).save_pretrained(folder)
    return source_of(folder)


def test_a_reference_of_the_same_vocabulary_is_taken(folder: Path, tmp_path: Path) -> None:
    policy = source_of(folder)
    check_reference(policy, policy)
    check_reference(policy, saved_with(tmp_path, lambda tokenizer: None, vocabulary=300))  # padded otherwise


def test_a_reference_of_another_vocabulary_is_refused(folder: Path, tmp_path: Path) -> None:
    policy = source_of(folder)
    more = saved_with(tmp_path / "more", lambda tokenizer: tokenizer.add_tokens(["<new>"]))
    expected = (
        r"reference '.*more' has another vocabulary than model '.*base': 1 tokens differ, such as '<new>', which is "
    )
    with pytest.raises(
        ConfigError, match=expected + "number 271 there and missing here; expected a model with the same"
    ):
        check_reference(policy, more)
    with pytest.raises(ConfigError, match="'<new>', which is missing there and number 271 here"):
        check_reference(more, policy)
    fewer = saved_with(tmp_path / "fewer", lambda tokenizer: None, vocabulary=200)
    with pytest.raises(ConfigError, match=r"has places for 200 tokens, and model '.*base' has 271"):
        check_reference(policy, fewer)
    with pytest.raises(ConfigError, match=r"^critic '.*more' has another vocabulary than model '.*base': 1 tokens"):
        check_reference(policy, more, word="critic")
