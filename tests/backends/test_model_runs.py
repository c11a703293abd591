"""Batched equals single, shared equals plain: both runners against the model itself, one prompt at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import torch
from transformers import PreTrainedModel

from rlaif.backends import tree_attention
from rlaif.backends.model_runs import CancelledRunError, GenerateJob, PaddedRunner, Runner, ScoreJob
from rlaif.backends.prefix_sharing import SharingRunner
from rlaif.backends.tree_attention import SharingUnsupportedError
from tests.tiny_models import make_model

VOCAB = 97
WANTED = (3, 50, 96)


@pytest.fixture(autouse=True)
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def prompts_of_a_run(seed: int = 0) -> list[list[int]]:
    """A common head, two orders of each comparison, several tails (principles), ragged lengths; also one that begins
    another, one twice, and one alone."""
    draw = random.Random(seed)

    def some(low: int, high: int) -> list[int]:
        return [draw.randrange(VOCAB) for _ in range(draw.randint(low, high))]

    head, prompts = some(30, 30), []
    for _ in range(4):
        question, first, second = some(3, 12), some(1, 20), some(1, 20)
        for responses in (first + second, second + first):
            prompts += [head + question + responses + tail for tail in (some(2, 5), some(2, 5))]
    return [*prompts, prompts[0][:40], prompts[3], head, [5], some(60, 60)]


def run_all(runner: Runner, prompts: list[list[int]]) -> list[list[float]]:
    """Probabilities of the wanted tokens, however the runner cuts its batches."""
    found: dict[int, list[float]] = {}
    pending = list(range(len(prompts)))
    while pending:
        scored = runner.score([ScoreJob(prompts[row], WANTED) for row in pending])
        assert 0 in scored
        found |= {pending[at]: [math.exp(x) for x in result.logprobs] for at, result in scored.items()}
        pending = [row for row in pending if row not in found]
    return [found[row] for row in range(len(prompts))]


def expected(architecture: str, prompts: list[list[int]]) -> list[list[float]]:
    """What a model of its own says to each prompt alone: a sharing runner changes its model's attention."""
    model = make_model(architecture, VOCAB).eval()
    return [model(torch.tensor([ids])).logits[0, -1].softmax(-1)[list(WANTED)].tolist() for ids in prompts]


def make_runner(kind: str, model: PreTrainedModel, budget: int) -> Runner:
    if kind == "padded":
        return PaddedRunner(model, max_batch_tokens=budget)
    return SharingRunner(model, max_batch_tokens=budget)


@pytest.mark.parametrize("budget", [1, 100, 100_000])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2"])
@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_batches_of_any_size_equal_single_prompts(kind: str, architecture: str, budget: int) -> None:
    model = make_model(architecture, VOCAB).eval()
    prompts = prompts_of_a_run()
    reference = expected(architecture, prompts)
    assert max(max(row) for row in reference) > 0.03 > 0.005 > min(min(row) for row in reference)  # prompts differ
    found = run_all(make_runner(kind, model, budget), prompts)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(reference), atol=1e-5, rtol=0)


@pytest.mark.parametrize("block", [1, 7, 40])
def test_blocks_of_any_size_equal_single_prompts(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree_attention, "_CPU_BLOCK_TOKENS", block)
    prompts = prompts_of_a_run()
    runner = SharingRunner(make_model("llama", VOCAB).eval(), max_batch_tokens=300)  # some see what was computed before
    torch.testing.assert_close(
        torch.tensor(run_all(runner, prompts)), torch.tensor(expected("llama", prompts)), atol=1e-5, rtol=0
    )


def test_padded_runs_models_with_a_sliding_window() -> None:
    model = make_model("qwen2-sliding", VOCAB).eval()
    prompts = prompts_of_a_run()
    found = run_all(PaddedRunner(model, max_batch_tokens=1000), prompts)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected("qwen2-sliding", prompts)), atol=1e-5, rtol=0)


def test_sharing_refuses_a_sliding_window_and_leaves_the_model_as_it_was() -> None:
    model = make_model("qwen2-sliding", VOCAB).eval()
    before = model.config._attn_implementation
    with pytest.raises(SharingUnsupportedError, match="sliding_attention"):
        SharingRunner(model, max_batch_tokens=1000)
    assert model.config._attn_implementation == before


def test_sharing_refuses_what_its_trial_shows_to_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", VOCAB).eval()
    original = type(model).forward

    def counts_the_tokens(self: PreTrainedModel, input_ids: torch.Tensor, **options: object) -> object:
        output = original(self, input_ids=input_ids, **options)  # type: ignore[call-arg]
        output.logits[..., 0] += input_ids.shape[1]  # as a recurrent state would look at all of the row
        return output

    monkeypatch.setattr(type(model), "forward", counts_the_tokens)
    with pytest.raises(SharingUnsupportedError, match="a trial gave log-probabilities that differ by"):
        SharingRunner(model, max_batch_tokens=1000)


def test_shared_tokens_are_computed_once() -> None:
    model = make_model("llama", VOCAB).eval()
    runner = SharingRunner(model, max_batch_tokens=10_000)
    rows: list[int] = []
    model.model.embed_tokens.register_forward_hook(lambda module, args, output: rows.append(output.shape[1]))
    head, question, first, second = [1] * 50, [2] * 10, [3] * 20, [4] * 30
    orders = [head + question + first + second + [5], head + question + second + first + [5]]
    scored = runner.score([ScoreJob(ids, WANTED) for ids in orders])
    assert rows == [50 + 10 + (20 + 30 + 1) * 2]
    assert [result.cached_tokens for result in scored.values()] == [0, 60]
    # Another principle for both orders, then the first prompt again: only what differs runs.
    runner.score([ScoreJob([*ids[:-1], 6], WANTED) for ids in orders])
    again = runner.score([ScoreJob(orders[0], WANTED)])
    assert rows[1:] == [2, 1]
    assert again[0].cached_tokens == len(orders[0]) - 1


def test_a_cache_too_small_changes_nothing_but_time() -> None:
    model = make_model("llama", VOCAB).eval()
    prompts = prompts_of_a_run(1)
    runner = SharingRunner(model, max_batch_tokens=120, max_cache_bytes=1)
    torch.testing.assert_close(
        torch.tensor(run_all(runner, prompts)), torch.tensor(expected("llama", prompts)), atol=1e-5, rtol=0
    )


def test_a_failure_half_way_leaves_no_half_computed_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama", VOCAB).eval()
    runner = SharingRunner(model, max_batch_tokens=10_000)
    prompts = prompts_of_a_run()
    runner.score([ScoreJob(prompts[0], WANTED)])
    monkeypatch.setattr(model.model.layers[1], "forward", lambda *args, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        runner.score([ScoreJob(prompts[1], WANTED)])
    monkeypatch.undo()
    torch.testing.assert_close(
        torch.tensor(run_all(runner, prompts)), torch.tensor(expected("llama", prompts)), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen2", "qwen2-sliding"])
@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_greedy_text_equals_generate_of_transformers(kind: str, architecture: str) -> None:
    if kind == "sharing" and architecture == "qwen2-sliding":
        pytest.skip("sharing refuses it")
    model = make_model(architecture, VOCAB).eval()
    prompts = prompts_of_a_run(2)[::3]
    lengths = [3 + 5 * (row % 3) for row in range(len(prompts))]
    model.generation_config.eos_token_id = None
    texts = [
        model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=size,
            do_sample=False,
            pad_token_id=0,
        )[0, len(ids) :].tolist()
        for ids, size in zip(prompts, lengths, strict=True)
    ]
    runner = make_runner(kind, model, 400)
    jobs = [GenerateJob(ids, size, 0.0, 0) for ids, size in zip(prompts, lengths, strict=True)]
    found: dict[int, list[int]] = {}
    while len(found) < len(jobs):
        pending = [row for row in range(len(jobs)) if row not in found]
        written = runner.generate([jobs[row] for row in pending], frozenset())
        found |= {pending[at]: result.ids for at, result in written.items()}
    assert [found[row] for row in range(len(jobs))] == texts


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_generation_stops_at_any_stop_and_keeps_it(kind: str) -> None:
    runner = make_runner(kind, make_model("llama", VOCAB).eval(), 10_000)
    jobs = [GenerateJob(ids, 12, 0.0, 0) for ids in prompts_of_a_run()[:3]]
    free = runner.generate(jobs, frozenset())
    stops = frozenset({free[0].ids[2], free[1].ids[5]})
    for row, result in runner.generate(jobs, stops).items():
        cut = next((at + 1 for at, token in enumerate(free[row].ids) if token in stops), 12)
        assert result.ids == free[row].ids[:cut]
        assert result.is_stopped == (result.ids[-1] in stops)


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_a_cancelled_generation_ends_before_its_next_token(kind: str) -> None:
    model = make_model("llama", VOCAB).eval()
    runner = make_runner(kind, model, 10_000)
    jobs = [GenerateJob(ids, 50, 0.0, 0) for ids in prompts_of_a_run()[:3]]
    steps: list[None] = []
    handle = model.register_forward_pre_hook(lambda module, args: steps.append(None))
    with pytest.raises(CancelledRunError):
        runner.generate(jobs, frozenset(), lambda: len(steps) == 7)
    assert len(steps) == 7
    handle.remove()
    found = run_all(runner, prompts_of_a_run())
    torch.testing.assert_close(
        torch.tensor(found), torch.tensor(expected("llama", prompts_of_a_run())), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_samples_follow_the_model_and_their_seed_alone(kind: str) -> None:
    model = make_model("llama", VOCAB).eval()
    ids = prompts_of_a_run()[0]
    probs = (model(torch.tensor([ids])).logits[0, -1] / 0.7).softmax(-1)
    runner = make_runner(kind, model, 1_000_000)
    jobs = [GenerateJob(ids, 1, 0.7, seed) for seed in range(600)]
    drawn = [result.ids[0] for _, result in sorted(runner.generate(jobs, frozenset()).items())]
    likeliest = int(probs.argmax())
    share, prob = drawn.count(likeliest) / len(drawn), float(probs[likeliest])
    assert abs(share - prob) < 5 * math.sqrt(prob * (1 - prob) / len(drawn))
    assert runner.generate(jobs[17:18], frozenset())[0].ids[0] == drawn[17]


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_a_nucleus_holds_the_likeliest_tokens_in_their_proportions(kind: str) -> None:
    model = make_model("llama", VOCAB).eval()
    ids = prompts_of_a_run()[0]
    probs = model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    order = probs.argsort(descending=True).tolist()
    size = next(size for size in range(1, VOCAB) if float(probs[order[:size]].sum()) >= 0.3)
    assert 1 < size < 30
    jobs = [GenerateJob(ids, 1, 1.0, seed, 0.3) for seed in range(600)]
    written = make_runner(kind, model, 1_000_000).generate(jobs, frozenset())
    drawn = [written[row].ids[0] for row in range(600)]
    assert set(drawn) == set(order[:size])
    share, prob = drawn.count(order[0]) / 600, float(probs[order[0]] / probs[order[:size]].sum())
    assert abs(share - prob) < 5 * math.sqrt(prob * (1 - prob) / 600)


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_samples_of_one_prompt_compute_it_once(kind: str) -> None:
    model = make_model("llama", VOCAB).eval()
    runner = make_runner(kind, model, 10_000)
    tokens: list[int] = []
    model.model.embed_tokens.register_forward_hook(
        lambda module, args, output: tokens.append(output.shape[0] * output.shape[1])
    )
    jobs = [GenerateJob(ids, 3, 1.0, seed) for ids in ([1] * 40, [2] * 40) for seed in range(4)]
    written = runner.generate(jobs, frozenset())
    assert tokens == [80, 8, 8]
    assert [written[row].cached_tokens for row in range(8)] == [0, 39, 39, 39] * 2


@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_texts_do_not_depend_on_which_others_end_before_them(kind: str) -> None:
    model = make_model("llama", VOCAB).eval()
    runner = make_runner(kind, model, 10_000)
    draw = random.Random(4)
    prompts = prompts_of_a_run(3)[:5]
    jobs = [GenerateJob(draw.choice(prompts), draw.randint(1, 20), 1.3, seed, 0.95) for seed in range(24)]
    stops = frozenset(range(0, VOCAB, 19))
    together = runner.generate(jobs, stops)
    assert len({len(result.ids) for result in together.values()}) > 5  # they end at different steps
    assert any(result.is_stopped for result in together.values())
    for row, job in enumerate(jobs):
        alone = make_runner(kind, make_model("llama", VOCAB).eval(), 10_000).generate([job], stops)[0]
        assert (alone.ids, alone.is_stopped) == (together[row].ids, together[row].is_stopped)


def test_one_long_prompt_does_not_make_many_short_ones_as_long() -> None:
    runner = SharingRunner(make_model("llama", VOCAB).eval(), max_batch_tokens=1000)
    jobs = [GenerateJob([1] * size, 10, 0.0, 0) for size in (400, *[20] * 12)]
    assert list(runner.generate(jobs, frozenset())) == [0, 1, 2, 3]  # of 2 x 1000, 4 x 410 fit and 5 x 410 do not
    assert len(runner.generate(jobs[1:], frozenset())) == 12


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("kind", ["padded", "sharing"])
def test_a_model_whose_numbers_overflow_is_told_from_one_that_stops(kind: str, temperature: float) -> None:
    model = make_model("llama", VOCAB).eval()
    runner = make_runner(kind, model, 10_000)
    jobs = [GenerateJob(ids, 4, temperature, 5) for ids in ([1, 2, 3], [4, 5, 6], [7, 8, 9])]
    whole = runner.generate(jobs, frozenset())
    with torch.no_grad():
        model.model.embed_tokens.weight[whole[1].ids[1]] = math.nan  # what it reads after its second token
    found = runner.generate([jobs[1]], frozenset())[0]
    assert found.ids == whole[1].ids[: whole[1].ids.index(whole[1].ids[1]) + 1]
    assert found.is_broken
    assert not found.is_stopped
    assert not any(result.is_broken for result in whole.values())


def test_what_was_written_is_not_computed_again() -> None:
    model = make_model("llama", VOCAB).eval()
    runner = SharingRunner(model, max_batch_tokens=10_000)
    ids = prompts_of_a_run()[0]
    written = runner.generate([GenerateJob(ids, 8, 0.0, 0)], frozenset())[0].ids
    follow_up = [*ids, *written, 1, 2]
    scored = runner.score([ScoreJob(follow_up, WANTED)])[0]
    assert scored.cached_tokens == len(ids) + 7  # the last token written was never fed back
    found = [math.exp(x) for x in scored.logprobs]
    assert found == pytest.approx(expected("llama", [follow_up])[0], abs=1e-5)
