"""The bugs that users of other trainers met, each with a test named after it (PEERS.md, "Training")."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, make_model, save_model, sentencepiece_tokenizer
from transformers import LlamaForSequenceClassification

from rlaif.backends.hf_reward import HfRewardBackend
from rlaif.errors import JudgmentError
from rlaif.judge.parsing import find_rating, find_verdict
from rlaif.models.batches import collate
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.examples import Example
from rlaif.models.loading import find_model
from rlaif.models.logprobs import token_logprobs
from rlaif.models.rewards import completion_rewards
from rlaif.records import Message, RewardRequest, Segment, Turn
from rlaif.tokens import PromptEncoder, flatten
from rlaif.train.config import (
    AdapterConfig,
    CheckpointConfig,
    IpoLossConfig,
    RobustDpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.train.items import TrainingItem, with_mismatches
from rlaif.train.logprob_cache import LogprobCache
from rlaif.train.models import load_policy
from rlaif.train.objectives import Reading, collate_items
from rlaif.train.reference import reference_logprobs
from rlaif.train.step_inputs import ComputePlan
from tests.train.training import (
    LONGEST,
    METHODS,
    REFERRING,
    VOCABULARY,
    Run,
    assert_same_training,
    items_of,
    logged,
    model_of,
    objective_of,
    referenced,
    rows_of,
    usual_training,
    weights,
)

PROMPT = (Turn("user", "Name the colours."),)
EOS_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
TOKENIZERS = {
    "no template, no BOS": lambda: byte_level_tokenizer(None),
    "no template, BOS": lambda: byte_level_tokenizer(None, adds_bos=True),
    "template with BOS": lambda: byte_level_tokenizer(CHAT_TEMPLATE),
    "template and tokenizer with BOS": lambda: byte_level_tokenizer(CHAT_TEMPLATE, adds_bos=True),
    "template with BOS and EOS": lambda: byte_level_tokenizer(EOS_TEMPLATE, adds_bos=True),
    "sentencepiece": lambda: sentencepiece_tokenizer(EOS_TEMPLATE),
    "sentencepiece, no template": lambda: sentencepiece_tokenizer(None),
}


def alone(model: torch.nn.Module, prompt: tuple[int, ...], completion: tuple[int, ...]) -> float:
    """Log-probability of a completion by the model's own logits, without batch, mask or padding."""
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        every = model(input_ids=ids).logits[0].log_softmax(-1)
    return sum(float(every[place - 1, ids[0, place]]) for place in range(len(prompt), ids.shape[1]))


def test_padding_that_equals_eos_does_not_mask_the_real_eos() -> None:
    """trl #3091: labels were masked where they equalled the padding token, so that no end was learnt."""
    tokenizer = byte_level_tokenizer(None)
    tokenizer.pad_token = tokenizer.eos_token
    eos = tokenizer.eos_token_id
    encoder = ExampleEncoder(tokenizer)
    examples = [encoder.example("one", PROMPT, ("red", "red and blue")), encoder.example("two", PROMPT, ("", "no"))]
    model = make_model("llama", len(tokenizer)).eval()
    for is_packed in (True, False):
        batch = collate(examples, is_packed=is_packed, pad=eos)
        assert int((batch.targets == eos).sum()) == 4
        with torch.no_grad():
            found = token_logprobs(model, batch).sums
        for row, example in enumerate(examples):
            for place, completion in enumerate(example.completions):
                assert completion[-1] == eos
                assert float(found[row, place]) == pytest.approx(alone(model, example.prompt, completion), abs=1e-3)


def test_the_end_of_a_response_is_learnt_though_padding_equals_it(tmp_path: Path) -> None:
    """trl #3091, to its end: after training, the model ends where its demonstrations did."""
    eos = 7
    items = [
        TrainingItem(Example("short", (3, 4), ((5, eos),))),
        TrainingItem(Example("long", (9, 10), ((11, 12, 13, 14, eos),))),
    ]
    trained = Run(
        "sft", tmp_path, items, batch_size=2, steps=12, plan=ComputePlan(pad=eos),
        optimization={"learning_rate": 2e-2, "schedule": "constant", "warmup": 0.0},
    ).train()  # fmt: skip
    with torch.no_grad():
        for prompt in ((3, 4, 5), (9, 10, 11, 12, 13, 14)):
            assert int(trained.model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax()) == eos


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("response", ["red", "", "red </s><s> blue"])
def test_there_is_one_bos_and_one_eos_in_what_is_trained_on(kind: str, response: str) -> None:
    """trl #4481 (a second EOS behind the template's), OpenRLHF #393 (a second BOS behind the tokenizer's)."""
    tokenizer = TOKENIZERS[kind]()
    stops = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|end|>")}
    prompt, (completion,) = _encoded(tokenizer, stops, response)
    assert prompt.count(tokenizer.bos_token_id) == (0 if kind == "no template, no BOS" else 1)
    assert tokenizer.bos_token_id in prompt[:1] or kind == "no template, no BOS"
    assert [token in stops for token in completion] == [False] * (len(completion) - 1) + [True]
    assert tokenizer.bos_token_id not in completion


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_generation_begins_with_the_ids_that_training_ends_the_prompt_with(kind: str) -> None:
    """trl #4481, OpenRLHF #393: the prompt of a rollout, of a judge's question and of training are the same ids."""
    tokenizer = TOKENIZERS[kind]()
    prompt, _ = _encoded(tokenizer, (), "red")
    messages = [Message("user", (Segment(PROMPT[0].content, is_template=False),))]
    assert tuple(flatten(PromptEncoder(tokenizer).encode(messages))) == prompt


def test_scoring_reads_the_ids_that_training_learnt(tmp_path: Path) -> None:
    """trl #4481, OpenRLHF #393, in the reward backend: the same reward as from the ids of training."""
    tokenizer = byte_level_tokenizer(CHAT_TEMPLATE, adds_bos=True)
    folder = save_model(tmp_path, tokenizer=tokenizer, eos=[tokenizer.convert_tokens_to_ids("<|end|>")])
    model = _reward_model(len(tokenizer), pad=0)
    model.save_pretrained(folder)
    prompt, (completion,) = _encoded(tokenizer, {tokenizer.convert_tokens_to_ids("<|end|>")}, "red")
    with torch.no_grad():
        expected = float(model(input_ids=torch.tensor([prompt + completion])).logits)

    async def scored() -> float:
        backend = HfRewardBackend(str(folder), device="cpu")
        try:
            return (await backend.reward(RewardRequest(PROMPT, "red"))).value
        finally:
            await backend.aclose()

    assert asyncio.run(scored()) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_no_token_spans_the_border_between_prompt_and_completion(kind: str) -> None:
    """trl #2054: prompt and response were encoded together, and the border guessed from the prompt's length."""
    tokenizer = TOKENIZERS[kind]()
    encoder = ExampleEncoder(tokenizer)
    for text in ("the", "t", "1", " the 1", "\n1", "#"):
        prompt = (Turn("user", f"Count {text}"),)
        example = encoder.example("r", prompt, ("he", "0", " the", "## #1", "10"))
        assert example.prompt == encoder.prompt_ids(prompt)
        for response, completion in zip(("he", "0", " the", "## #1", "10"), example.completions, strict=True):
            assert tokenizer.decode(completion, skip_special_tokens=True).strip() == response.strip()


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_reward_model_reads_the_true_last_token(is_packed: bool) -> None:
    """transformers #35352: the reward was read before the EOS, where padding and EOS have one id."""
    eos = 7
    model = _reward_model(VOCABULARY, pad=eos)
    examples = [Example("a", (3, 4, 5), ((8, eos), (9, 10, 11, eos))), Example("b", (3,), ((12, 13, eos), (eos,)))]
    with torch.no_grad():
        found = completion_rewards(model, collate(examples, is_packed=is_packed, pad=eos))
        for row, example in enumerate(examples):
            for place, completion in enumerate(example.completions):
                ids = torch.tensor([example.prompt + completion])
                expected = float(model.score(model.model(input_ids=ids).last_hidden_state[0, -1]))
                assert float(found[row, place]) == pytest.approx(expected, abs=1e-4)
                # What transformers reads by itself is another number.
                assert float(model(input_ids=ids).logits) != pytest.approx(expected, abs=1e-2)


@pytest.mark.parametrize("is_packed", [True, False])
def test_the_prompt_of_the_rejected_response_is_masked_too(is_packed: bool) -> None:
    """OpenRLHF #294: the mask of the chosen one stood for both, and prompt tokens came into the loss."""
    example = Example("r", (3, 4, 5, 6), ((8, 9, 10, 7), (11, 7)))
    model = model_of("dpo")
    batch = collate([example], is_packed=is_packed)
    assert batch.targets.tolist() == [8, 9, 10, 7, 11, 7]
    assert batch.tokens.tolist() == [[4, 2]]
    with torch.no_grad():
        sums = token_logprobs(model, batch).sums[0].tolist()
    assert sums == [pytest.approx(alone(model, example.prompt, one), abs=1e-4) for one in example.completions]
    # A loss that is flat in the output layer for the prompt's own tokens: none of their logits is asked for.
    weight = model.get_output_embeddings().weight
    token_logprobs(model, batch).sums[0, 1].backward()
    assert weight.grad is not None
    with torch.no_grad():
        states = model.model(input_ids=torch.tensor([(*example.prompt, 11, 7)])).last_hidden_state[0]
        probs = model.lm_head(states).softmax(-1)
        expected = sum(
            torch.outer(torch.nn.functional.one_hot(torch.tensor(token), VOCABULARY) - probs[place], states[place])
            for place, token in ((3, 11), (4, 7))
        )
    torch.testing.assert_close(weight.grad, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_accumulated_micro_batches_give_the_gradient_of_one_batch(method: str, tmp_path: Path) -> None:
    """trl #2175: a mean of micro-batch means weighs a token by how it was batched."""
    accumulated = Run(method, tmp_path, rows_of(method), plan=ComputePlan(max_tokens=1))
    steps = list(accumulated.trainer().get_train_dataloader())
    assert [len(step.parts[0].micro) for step in steps] == [4, 4, 4]
    assert_same_training(accumulated.train(), usual_training(method))


def test_the_kl_of_kto_never_matches_a_prompt_with_its_own_responses() -> None:
    """trl #1911: responses shifted by one within a batch came back to their own prompt."""
    prompts = [(3, 4), (3, 4), (3, 4), (5, 6), (8, 9)]
    items = [
        TrainingItem(Example(f"r{number}", prompt, ((10 + number, 7),)), (1.0,))
        for number, prompt in enumerate(prompts)
    ]
    own = {prompt: {item.example.completions for item in items if item.example.prompt == prompt} for prompt in prompts}
    for seed in range(20):
        for item in with_mismatches(items, seed, max_length=LONGEST):
            assert item.mismatched is not None
            assert item.mismatched.example.prompt == item.example.prompt
            assert item.mismatched.example.completions not in own[item.example.prompt]


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_kto_survives_batches_of_one_class(label: float, tmp_path: Path) -> None:
    """trl #1911: a batch without one of the classes gave a NaN mean."""
    model = model_of("kto")
    items = [
        replace(item, example=replace(item.example, completions=item.example.completions[:1]), scores=(label,))
        for item in items_of("kto", 6)
    ]
    items = referenced(with_mismatches(items, 0, max_length=LONGEST), model)
    trainer = Run("kto", tmp_path, items, model=model, batch_size=2, steps=3, plan=ComputePlan(max_tokens=1)).train()
    losses = logged(trainer)
    assert losses[0] == pytest.approx(0.5, abs=1e-5)
    assert all(math.isfinite(loss) for loss in losses)
    assert "accuracy" not in trainer.state.log_history[0]


@pytest.mark.parametrize(("is_summed", "expected"), [(False, 0.5 * 14.0**2 + 0.5 * 6.0**2), (True, 10.0**2)])
def test_ipo_says_whether_it_sums_or_averages(is_summed: bool, expected: float) -> None:
    """trl #1677: the paper leaves it open, and whoever compares two trainers compares two losses."""
    # Log-ratios 8 over 2 tokens and 8 over 1: means 4 and 8, h = -4; sums 8 and 8, h = 0; 1 / (2 beta) = 10.
    item = TrainingItem(Example("r", (3,), ((4, 5), (6,))), (0.5, 0.5), reference=(-10.0, -12.0))
    micro = collate_items([item], is_packed=True, pad=0, weight=1)
    reading = Reading(torch.tensor([[-2.0, -4.0]]), micro.batch.tokens)
    objective = objective_of("ipo", IpoLossConfig(beta=0.05, ipo_sum=is_summed))
    assert objective.losses(reading, micro, None).tolist() == [pytest.approx(expected)]


@pytest.mark.parametrize("method", [method for method in REFERRING if method != "hpo"])  # that also imitates
def test_the_loss_of_step_one_is_that_of_no_difference_whatever_dropout_the_model_has(
    method: str, tmp_path: Path
) -> None:
    """trl #2042: dropout was on in one of the two passes."""
    folder = save_model(tmp_path / "model", "gpt2", context=LONGEST)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('pdrop": 0.0', 'pdrop": 0.1'))
    assert config.read_text().count('pdrop": 0.1') == 3
    model = load_policy(find_model(str(folder), backend=None, device="cpu", dtype="auto"), AdapterConfig(), seed=0)
    trainer = Run(method, tmp_path, referenced(items_of(method), model), model=model, steps=1).train()
    expected = {"kto": 0.5, "ipo": 25.0}.get(method, math.log(2))
    assert logged(trainer)[0] == pytest.approx(expected, rel=1e-5)


def test_padding_packing_and_shared_prompts_give_equal_log_probs() -> None:
    """OpenRLHF #217: positions went on across what was packed, and padding was counted."""
    examples = [item.example for item in items_of("rrhf", 5)]
    model = model_of("rrhf")
    with torch.no_grad():
        packed = token_logprobs(model, collate(examples, is_packed=True)).sums
        for other in (
            collate(examples, is_packed=False),
            collate(examples, is_packed=True, pad=9, multiple=64),
            collate(examples, is_packed=False, pad=9, multiple=64),
        ):
            torch.testing.assert_close(token_logprobs(model, other).sums, packed, rtol=0.0, atol=1e-4)
    for row, example in enumerate(examples):
        for place, completion in enumerate(example.completions):
            assert float(packed[row, place]) == pytest.approx(alone(model, example.prompt, completion), abs=1e-4)


@pytest.mark.parametrize("method", ["sft", "rm", "dpo", "kto"])
def test_a_resumed_run_equals_one_that_was_not_interrupted(method: str, tmp_path: Path) -> None:
    """trl #3247: rows, optimizer, schedule or logs began anew."""
    adam = {"learning_rate": 2e-3, "schedule": "cosine", "warmup": 0.4}
    checkpoints = CheckpointConfig(save_every=3, keep=9)
    items = rows_of(method)
    held_out = items[:3]
    whole = Run(method, tmp_path / "whole", items, held_out, steps=6, optimization=adam, checkpoints=checkpoints)
    uninterrupted = whole.train()
    resumed = replace(
        whole, folder=tmp_path / "resumed", resumes_from=tmp_path / "whole" / "checkpoints" / "checkpoint-3",
        model=model_of(method, seed=77),
    ).train()  # fmt: skip
    for name in ("loss", "grad_norm", "learning_rate", "eval_loss"):
        assert logged(resumed, name) == logged(uninterrupted, name)
    theirs = weights(uninterrupted)
    assert all(torch.equal(value, theirs[name]) for name, value in weights(resumed).items())


def test_a_precomputed_reference_equals_a_live_one(tmp_path: Path) -> None:
    """trl #2423: log-probs computed beforehand differed from those beside the policy."""
    items, model = items_of("dpo"), model_of("dpo", seed=3)
    cache = LogprobCache({"weights": "test"}, tmp_path)
    examples = [item.example for item in items]
    computed = reference_logprobs(
        model, examples, is_packed=True, is_chunked=True, max_tokens=64, device="cpu", cache=cache
    )
    kept = reference_logprobs(
        torch.nn.Identity(), examples, is_packed=True, is_chunked=True, max_tokens=64, device="cpu", cache=cache
    )
    cache.close()
    assert kept == computed
    batch = collate(examples, is_packed=True)
    with torch.no_grad():
        live = token_logprobs(model, batch).sums
        policy = token_logprobs(model_of("dpo"), batch).sums
    torch.testing.assert_close(torch.tensor(kept), live, rtol=0.0, atol=1e-4)
    objective = objective_of("dpo")
    micro = collate_items(
        [replace(item, reference=values) for item, values in zip(items, kept, strict=True)], is_packed=True, pad=0
    )
    reading = Reading(policy, batch.tokens)
    expected = objective.losses(reading, replace(micro, reference=live), None)
    torch.testing.assert_close(objective.losses(reading, micro, None), expected, rtol=0.0, atol=1e-5)


def test_a_judge_that_cannot_be_parsed_is_an_error_and_no_score() -> None:
    """verl #1210, open-instruct: what could not be read counted as 0, the worst answer of all."""
    # That no rater makes a number of this error stands in tests/rewards (test_trl.py, test_verl.py, test_remote.py).
    for read in (find_rating, find_verdict):
        with pytest.raises(JudgmentError):
            read("Sure, I can help with that!")


def test_label_smoothing_is_not_ignored(tmp_path: Path) -> None:
    """TRL since 0.29: `label_smoothing` of DPO is read and does nothing, so that cDPO is DPO."""
    for method, config_class in (("cdpo", SmoothedDpoLossConfig), ("robust-dpo", RobustDpoLossConfig)):
        found = [
            logged(Run(method, tmp_path / f"{method}-{share}", rows_of(method),
                       config=config_class(label_smoothing=share), steps=1).train())[0]
            for share in (0.0, 0.1, 0.3)
        ]  # fmt: skip
        assert len(set(found)) == 3
        if method == "cdpo":
            assert found[0] == pytest.approx(logged(usual_training("dpo"))[0], rel=1e-6)


def _encoded(tokenizer, stops, response):
    example = ExampleEncoder(tokenizer, stops).example("r", PROMPT, (response,))
    return example.prompt, example.completions


def _reward_model(vocabulary: int, pad: int) -> LlamaForSequenceClassification:
    config = make_model("llama", vocabulary, context=LONGEST).config
    config.num_labels, config.pad_token_id = 1, pad
    torch.manual_seed(4)
    return LlamaForSequenceClassification(config).eval()
