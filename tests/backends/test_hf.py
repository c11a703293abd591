"""The in-process backend as its callers see it, on tiny random models."""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlaif.backends import hf
from rlaif.backends.base import Backend
from rlaif.backends.hf import HfBackend
from rlaif.backends.model_runs import ScoreJob
from rlaif.errors import BackendError, BackendUnusableError, ConfigError, PromptTooLongError, RequestRefusedError
from rlaif.models.loading import ModelSource, fingerprint_folder, load_model
from rlaif.records import RATING_LABELS, CandidateLogprobs, GenerateRequest, Message, Role, ScoreRequest, Segment
from rlaif.tokens import PromptEncoder, flatten
from tests.backends.contract import LABELS, BackendContract, messages
from tests.tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, save_model

SHARED_MODELS = Path(__file__).resolve().parents[3] / "shared" / "models"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny-llama")


class TestSharingHf(BackendContract):
    @pytest.fixture
    async def backend(self, folder: Path) -> AsyncIterator[Backend]:
        backend = HfBackend(str(folder))
        yield backend
        await backend.aclose()


class TestPaddedHf(BackendContract):
    @pytest.fixture
    async def backend(self, folder: Path) -> AsyncIterator[Backend]:
        backend = HfBackend(str(folder), shares_prefixes=False)
        yield backend
        await backend.aclose()


@pytest.mark.parametrize("name", ["stories260K-hd32", "TinyStories-656K-hd32"])
class TestPublishedHf(BackendContract):
    @pytest.fixture
    async def backend(self, name: str) -> AsyncIterator[Backend]:
        if not (SHARED_MODELS / name).is_dir():
            pytest.skip("needs the models beside the repository")
        backend = HfBackend(str(SHARED_MODELS / name))
        yield backend
        await backend.aclose()


async def test_score_is_the_models_own_log_softmax(folder: Path) -> None:
    backend = HfBackend(str(folder))
    reply = await backend.score(ScoreRequest(messages("Hello."), LABELS))
    await backend.aclose()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = flatten(PromptEncoder(tokenizer).encode(messages("Hello.")))
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(folder).eval()(torch.tensor([ids])).logits[0, -1]
    expected = logits.float().log_softmax(-1)[tokenizer.convert_tokens_to_ids(["1", "Ġ1", "Ċ1", "2", "Ġ2"])]
    assert [token.token for token in reply.tokens] == ["1", " 1", "\n1", "2", " 2"]
    assert [token.logprob for token in reply.tokens] == pytest.approx(expected.tolist(), abs=1e-5)
    assert reply.is_exhaustive
    assert reply.usage.prompt_tokens == len(ids)


async def test_a_marker_inside_a_response_does_not_answer_as_the_marker_does(folder: Path) -> None:
    def prompt(is_template: bool) -> tuple[Message, ...]:
        return (Message("user", (Segment("x", True), Segment("<|end|>", is_template), Segment("y", True))),)

    backend = HfBackend(str(folder))
    active, inert = await asyncio.gather(*(backend.score(ScoreRequest(prompt(flag), LABELS)) for flag in (True, False)))
    await backend.aclose()
    assert inert.usage.prompt_tokens == active.usage.prompt_tokens + len("<|end|>") - 1
    assert abs(active.tokens[0].logprob - inert.tokens[0].logprob) > 1e-3


async def test_what_was_computed_before_is_counted_as_cached(folder: Path) -> None:
    backend = HfBackend(str(folder))
    first = await backend.score(ScoreRequest(messages("Hello."), LABELS))
    second = await backend.score(ScoreRequest(messages("Hello!"), LABELS))
    await backend.aclose()
    shared = backend.count_tokens((Message("user", (Segment("Judge this:\nHello", True),)),)) - len(
        flatten(PromptEncoder(backend.tokenizer).encode((Message("user", (Segment("", True),)),)))
    )
    assert first.usage.cached_tokens == 0
    assert 0 < shared <= second.usage.cached_tokens < second.usage.prompt_tokens


async def test_a_verdict_after_reasons_computes_the_new_tokens_alone(folder: Path) -> None:
    backend = HfBackend(str(folder))
    question = (Message("user", (Segment("Which is better, and why?", True),)),)
    reasons = await backend.generate(GenerateRequest(question, 12))
    follow_up = (*question, Message("assistant", (Segment(reasons.text, False),)), messages("")[0])
    verdict = await backend.score(ScoreRequest(follow_up, LABELS))
    await backend.aclose()
    assert verdict.usage.cached_tokens >= reasons.usage.prompt_tokens


@pytest.mark.parametrize("shares_prefixes", [True, False])
async def test_a_label_that_takes_more_than_two_tokens_is_named(folder: Path, shares_prefixes: bool) -> None:
    backend = HfBackend(str(folder), shares_prefixes=shares_prefixes)
    with pytest.raises(BackendUnusableError, match=r"tiny-llama writes the label 'seven' in a way that cannot be read"):
        await backend.score(ScoreRequest(messages("x"), ("1", "seven")))
    await backend.aclose()


def enumerated(folder: Path, text: str) -> dict[str, float]:
    """P of each rating by plain forward passes of transformers: "10" is its own token, or "1" and then "0"."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = flatten(PromptEncoder(tokenizer).encode(messages(text)))
    vocab = tokenizer.get_vocab()

    def after(ids: list[int]) -> torch.Tensor:
        with torch.inference_mode():
            return model(torch.tensor([ids])).logits[0, -1].double().softmax(-1)

    first = after(prompt)
    masses = dict.fromkeys(RATING_LABELS, 0.0)
    for label in RATING_LABELS:
        for name in (label, f"Ġ{label}", f"Ċ{label}"):
            if name not in vocab:
                continue
            mass = float(first[vocab[name]])
            if label == "1" and "10" not in vocab:
                ten = mass * float(after([*prompt, vocab[name]])[vocab["0"]])
                masses["10"] += ten
                mass -= ten
            masses[label] += mass
    return masses


def masses_of(reply: CandidateLogprobs) -> dict[str, float]:
    found = dict.fromkeys(RATING_LABELS, 0.0)
    for text, logprob in reply.tokens:
        found[text.strip()] += math.exp(logprob)
    return found


@pytest.mark.parametrize("budget", [1, 90, 16384])
@pytest.mark.parametrize("shares_prefixes", [True, False])
@pytest.mark.parametrize("has_ten", [True, False])
async def test_ratings_equal_enumeration_however_ten_is_written(
    tmp_path: Path, has_ten: bool, shares_prefixes: bool, budget: int
) -> None:
    folder = save_model(tmp_path / "rater", tokenizer=byte_level_tokenizer(has_ten=has_ten), likes_digits=True)
    backend = HfBackend(str(folder), shares_prefixes=shares_prefixes, max_batch_tokens=budget)
    texts = ["", "Hello.", "x" * 30, "a b c", "Hello."]
    replies = await asyncio.gather(*(backend.score(ScoreRequest(messages(text), RATING_LABELS)) for text in texts))
    await backend.aclose()
    expected = [enumerated(folder, text) for text in texts]
    assert max(masses["10"] for masses in expected) > 0.03
    for masses, reply in zip(expected, replies, strict=True):
        assert masses_of(reply) == pytest.approx(masses, abs=1e-5)
        assert {"10", " 10"} <= {token.token for token in reply.tokens}
        assert reply.is_exhaustive
        assert 0 <= reply.usage.cached_tokens <= reply.usage.prompt_tokens


async def test_a_whole_ten_takes_one_read_and_a_split_one_a_token_for_each_first_half(tmp_path: Path) -> None:
    jobs: dict[bool, list[ScoreJob]] = {}
    for has_ten in (True, False):
        folder = save_model(tmp_path / str(has_ten), tokenizer=byte_level_tokenizer(has_ten=has_ten))
        backend = HfBackend(str(folder))
        await backend.score(ScoreRequest(messages("x"), LABELS))
        runner, seen = backend._runner, jobs.setdefault(has_ten, [])
        score = runner.score
        runner.score = lambda batch, seen=seen, score=score: seen.extend(batch) or score(batch)  # type: ignore
        await backend.score(ScoreRequest(messages("x"), RATING_LABELS))
        await backend.aclose()
    assert len(jobs[True]) == 1
    prompt, *halves = (job.ids for job in jobs[False])
    vocab = byte_level_tokenizer().get_vocab()
    assert halves == [[*prompt, vocab[name]] for name in ("1", "Ġ1", "Ċ1")]


async def test_the_second_half_has_to_fit_the_context_too(tmp_path: Path) -> None:
    backend = HfBackend(str(save_model(tmp_path / "short", context=96)), truncate=True)
    room = 96 - backend.count_tokens(messages(""))
    full, cut = await asyncio.gather(
        backend.score(ScoreRequest(messages("x" * room), LABELS)),
        backend.score(ScoreRequest(messages("x" * room), RATING_LABELS)),
    )
    await backend.aclose()
    assert (full.usage.prompt_tokens, cut.usage.prompt_tokens) == (96, 95)


async def test_a_prompt_longer_than_the_context_fails_alone(folder: Path) -> None:
    backend = HfBackend(str(folder))
    long, short = await asyncio.gather(
        backend.score(ScoreRequest(messages("x" * 600), LABELS)),
        backend.score(ScoreRequest(messages("x"), LABELS)),
        return_exceptions=True,
    )
    await backend.aclose()
    assert isinstance(long, PromptTooLongError)
    count = backend.count_tokens(messages("x" * 600))
    assert f"has {count} tokens and hf:tiny-llama takes 512" in str(long)
    assert "--truncate" in str(long)
    assert not isinstance(short, BaseException)


async def test_truncate_cuts_the_text_and_says_how_often(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    backend = HfBackend(str(folder), truncate=True)
    reply = await backend.score(ScoreRequest(messages("x" * 600), LABELS))
    with caplog.at_level(logging.WARNING):
        await backend.aclose()
    assert reply.usage.prompt_tokens == 512
    assert "1 prompt was longer than its context of 512 tokens" in caplog.text


async def test_greedy_text_and_its_end_are_those_of_transformers(folder: Path, tmp_path: Path) -> None:
    backend = HfBackend(str(folder))
    tokenizer, model = backend.tokenizer, AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt = torch.tensor([flatten(PromptEncoder(tokenizer).encode(messages("Hello.")))])
    free = model.generate(prompt, max_new_tokens=9, do_sample=False)[0, prompt.shape[1] :].tolist()
    reply = await backend.generate(GenerateRequest(messages("Hello."), 9))
    await backend.aclose()
    assert reply.text == tokenizer.decode(free, skip_special_tokens=True)
    assert (reply.finish_reason, reply.usage.completion_tokens) == ("length", 9)

    stopping = HfBackend(str(save_model(tmp_path / "stops", eos=[tokenizer.eos_token_id, free[4]])))
    stopped = await stopping.generate(GenerateRequest(messages("Hello."), 9))
    await stopping.aclose()
    place = free.index(free[4])
    assert stopped.text == tokenizer.decode(free[:place], skip_special_tokens=True)
    assert (stopped.finish_reason, stopped.usage.completion_tokens) == ("stop", place + 1)


async def test_generation_ends_at_the_context(tmp_path: Path) -> None:
    backend = HfBackend(str(save_model(tmp_path / "short", context=96)))
    reply = await backend.generate(GenerateRequest(messages("x"), 500))
    await backend.aclose()
    assert reply.finish_reason in {"length", "stop"}
    assert reply.usage.prompt_tokens + reply.usage.completion_tokens <= 96


async def test_a_sample_does_not_depend_on_its_company(folder: Path) -> None:
    backend = HfBackend(str(folder))
    requests = [
        GenerateRequest(messages("x" * size), 10, 0.9, seed) for size, seed in ((3, 1), (30, 2), (3, 3), (3, 1))
    ]
    together = await asyncio.gather(*map(backend.generate, requests))
    alone = [await backend.generate(request) for request in requests]
    await backend.aclose()
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert together[0].text == together[3].text
    assert together[0].text != together[2].text


async def test_samples_of_a_prompt_share_it_and_follow_top_p(folder: Path) -> None:
    backend = HfBackend(str(folder))
    requests = [GenerateRequest(messages("Hello."), 6, 1.0, seed, 0.9) for seed in range(4)]
    replies = await asyncio.gather(*map(backend.generate, requests))
    wide = [await backend.generate(GenerateRequest(messages("Hello."), 6, 1.0, seed)) for seed in range(4)]
    await backend.aclose()
    assert [reply.usage.cached_tokens for reply in replies] == [0] + [replies[0].usage.prompt_tokens - 1] * 3
    assert len({reply.text for reply in replies}) == 4
    assert [reply.text for reply in replies] != [reply.text for reply in wide]


async def test_a_conversation_is_what_the_chat_template_makes_of_it(folder: Path) -> None:
    backend = HfBackend(str(folder))
    turns: list[tuple[Role, str]] = [("system", "Be brief."), ("user", "Hi"), ("assistant", "Yes?"), ("user", "Bye")]
    chat = tuple(Message(role, (Segment(text, False),)) for role, text in turns)
    reply = await backend.generate(GenerateRequest(chat, 5))
    rendered = backend.tokenizer.apply_chat_template(
        [{"role": role, "content": text} for role, text in turns], add_generation_prompt=True, return_dict=False
    )
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    written = model.generate(torch.tensor([rendered]), max_new_tokens=5, do_sample=False)[0, len(rendered) :]
    await backend.aclose()
    assert reply.usage.prompt_tokens == len(rendered)
    assert reply.text == backend.tokenizer.decode(written, skip_special_tokens=True)


async def test_a_conversation_that_the_template_cannot_render_fails_alone(tmp_path: Path) -> None:
    alternating = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}" + CHAT_TEMPLATE
    )
    backend = HfBackend(str(save_model(tmp_path / "strict", tokenizer=byte_level_tokenizer(alternating))))
    twice = (*messages("a"), *messages("b"))
    odd, good = await asyncio.gather(
        backend.generate(GenerateRequest(twice, 3)),
        backend.generate(GenerateRequest(messages("a"), 3)),
        return_exceptions=True,
    )
    counted = backend.count_tokens(twice)
    await backend.aclose()
    assert isinstance(odd, RequestRefusedError)
    assert "hf:strict cannot be asked this: the model's chat template cannot render the roles user, user" in str(odd)
    assert not isinstance(good, BaseException)
    assert counted > 0


async def test_an_empty_prompt_is_refused_where_nothing_stands_around_it(tmp_path: Path) -> None:
    empty = (Message("user", (Segment("", False),)),)
    backend = HfBackend(str(save_model(tmp_path / "bare", tokenizer=byte_level_tokenizer(None))))
    with pytest.raises(RequestRefusedError, match="the prompt is empty, expected a text"):
        await backend.generate(GenerateRequest(empty, 3))
    await backend.aclose()


async def test_a_cut_prompt_leaves_room_for_the_answer(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "short", context=96, eos=[0])
    backend, refusing = HfBackend(str(folder), truncate=True), HfBackend(str(folder))
    long = (Message("user", (Segment("x" * 200, False),)),)
    few, many, fixed = await asyncio.gather(
        backend.generate(GenerateRequest(long, 10)),
        backend.generate(GenerateRequest(long, 500)),
        backend.generate(GenerateRequest(messages("x" * 200), 500)),  # the template's own text takes more than half
    )
    with pytest.raises(PromptTooLongError, match="hf:short takes 95"):
        await refusing.generate(GenerateRequest(long, 10))
    await backend.aclose()
    await refusing.aclose()
    assert [reply.usage.prompt_tokens for reply in (few, many, fixed)] == [95 - 9, 95 - 95 // 2, 95]
    assert few.usage.completion_tokens == 10 or few.finish_reason == "stop"
    assert many.usage.completion_tokens == 48 or many.finish_reason == "stop"


async def test_a_model_whose_numbers_overflow_fails_the_call_by_name(folder: Path) -> None:
    backend = HfBackend(str(folder))
    await backend.generate(GenerateRequest(messages("x"), 1))
    with torch.no_grad():
        backend._model.lm_head.weight[0] = math.nan
    with pytest.raises(BackendError, match=r"hf:tiny-llama gave no probabilities but NaN, at once; .* --dtype"):
        await backend.generate(GenerateRequest(messages("x"), 5))
    await backend.aclose()


def test_identity_tells_weights_dtype_and_truncation_apart_and_not_places(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere" / folder.name
    shutil.copytree(folder, copy)
    base = HfBackend(str(folder)).identity
    assert HfBackend(str(copy), max_batch_tokens=7, name="hf:other").identity == base
    assert HfBackend(str(folder), truncate=True).identity != base
    assert HfBackend(str(folder), dtype="bfloat16").identity != base
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert fingerprint_folder(copy) != fingerprint_folder(folder)


def test_an_unknown_folder_names_its_neighbour(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such folder \(did you mean .*tiny-llama"):
        HfBackend(str(folder.parent / "tiny-lama"))


def test_a_folder_without_config_device_and_dtype_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config\.json"):
        HfBackend(str(tmp_path))
    with pytest.raises(ConfigError, match="expected one of auto, float32"):
        HfBackend(str(folder), dtype="int3")
    with pytest.raises(ConfigError, match="device 'abacus' cannot be used"):
        HfBackend(str(folder), device="abacus")


def test_a_name_not_in_the_cache_is_one_sentence_offline(tmp_path: Path) -> None:
    code = (
        "from rlaif.backends.hf import HfBackend\n"
        "try: HfBackend('nobody/nothing')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("BackendUnusableError model 'hf:nobody/nothing' cannot be loaded: it is not in the")
    assert len(done.stdout.splitlines()) == 1


async def test_pickled_weights_are_refused_unless_asked_for(folder: Path, tmp_path: Path) -> None:
    pickled = tmp_path / "pickled"
    shutil.copytree(folder, pickled)
    (pickled / "model.safetensors").unlink()
    torch.save(AutoModelForCausalLM.from_pretrained(folder).state_dict(), pickled / "pytorch_model.bin")
    refusing = HfBackend(str(pickled))
    with pytest.raises(BackendUnusableError, match="no safetensors weights"):
        await refusing.score(ScoreRequest(messages("x"), LABELS))
    await refusing.aclose()
    willing = HfBackend(str(pickled), allow_pickle=True)
    assert (await willing.score(ScoreRequest(messages("x"), LABELS))).tokens
    await willing.aclose()


async def test_damaged_weights_are_one_sentence(folder: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"not weights")
    backend = HfBackend(str(damaged))
    with pytest.raises(BackendUnusableError, match=r"cannot be loaded: .+") as caught:
        await backend.score(ScoreRequest(messages("x"), LABELS))
    assert "\n" not in str(caught.value)
    await backend.aclose()


async def test_a_model_that_cannot_be_loaded_is_tried_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    (damaged / "model.safetensors").write_bytes(b"not weights")
    tries: list[ModelSource] = []
    monkeypatch.setattr(hf, "load_model", lambda source: tries.append(source) or load_model(source))
    backend = HfBackend(str(damaged))
    together = await asyncio.gather(
        *(backend.score(ScoreRequest(messages(text), LABELS)) for text in "abc"), return_exceptions=True
    )
    later = await asyncio.gather(backend.generate(GenerateRequest(messages("d"), 3)), return_exceptions=True)
    await backend.aclose()
    errors = [*together, *later]
    assert all(isinstance(error, BackendUnusableError) for error in errors)
    assert len(set(map(str, errors))) == 1
    assert len(set(map(id, errors))) == 4  # the engine marks each with its row's stage
    assert len(tries) == 1


class Halt:
    """Holds the model's forward pass number `at` until the backend is being closed, and counts all of them."""

    def __init__(self, backend: HfBackend, at: int) -> None:
        self.passes = 0
        self.reached = asyncio.Event()
        self._backend, self._at, self._loop = backend, at, asyncio.get_running_loop()
        backend._model.register_forward_pre_hook(self._hold)

    def _hold(self, module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        self.passes += 1
        if self.passes == self._at:
            self._loop.call_soon_threadsafe(self.reached.set)
            assert self._backend._worker.is_closed.wait(timeout=60)

    async def close_within(self, *calls: Awaitable[Any]) -> list[Any]:
        """Results and errors of calls of which the backend is closed in the midst."""
        replies = asyncio.gather(*calls, return_exceptions=True)
        await self.reached.wait()
        late = asyncio.ensure_future(self._backend.score(ScoreRequest(messages("late"), LABELS)))
        await asyncio.sleep(0)
        await self._backend.aclose()
        return [*await replies, *await asyncio.gather(late, return_exceptions=True)]


@pytest.mark.parametrize("shares_prefixes", [True, False])
async def test_closing_waits_for_no_more_than_the_token_in_progress(tmp_path: Path, shares_prefixes: bool) -> None:
    backend = HfBackend(str(save_model(tmp_path / "long", context=1024)), shares_prefixes=shares_prefixes)
    await backend.score(ScoreRequest(messages("x"), LABELS))
    backend._stops = frozenset()  # nothing else may end the text early
    halt = Halt(backend, at=5)
    errors = await halt.close_within(*(backend.generate(GenerateRequest(messages(text), 512)) for text in "ab"))
    assert halt.passes == 5
    assert len(errors) == 3
    for error in errors:
        assert isinstance(error, BackendUnusableError)
        assert "hf:long was closed before it answered" in str(error)


async def test_closing_ends_between_two_batches_and_keeps_what_was_scored(folder: Path) -> None:
    backend = HfBackend(str(folder), max_batch_tokens=1)
    await backend.score(ScoreRequest(messages("x"), LABELS))
    halt = Halt(backend, at=2)
    replies = await halt.close_within(*(backend.score(ScoreRequest(messages(text * 9), LABELS)) for text in "abcd"))
    assert halt.passes == 2
    assert [type(reply).__name__ for reply in replies] == ["CandidateLogprobs"] * 2 + ["BackendUnusableError"] * 3


async def test_a_closed_backend_says_so(folder: Path) -> None:
    backend = HfBackend(str(folder))
    await backend.aclose()
    with pytest.raises(BackendUnusableError, match="was closed"):
        await backend.score(ScoreRequest(messages("x"), LABELS))


def test_one_backend_serves_one_event_loop_after_another(folder: Path) -> None:
    backend = HfBackend(str(folder))
    replies = [asyncio.run(backend.score(ScoreRequest(messages("x"), LABELS))) for _ in range(2)]
    asyncio.run(backend.aclose())
    assert math.exp(replies[0].tokens[0].logprob) == pytest.approx(math.exp(replies[1].tokens[0].logprob), abs=1e-6)


def test_ctrl_c_does_not_wait_for_the_worker(folder: Path) -> None:
    """The main thread ends while the worker is busy for minutes; the process must end too."""
    code = f"""
import asyncio
from rlaif.backends.hf import HfBackend
from rlaif.records import GenerateRequest, Message, Segment

async def main():
    backend = HfBackend({str(folder)!r})
    backend._answer = lambda calls: __import__("time").sleep(600)
    request = GenerateRequest((Message("user", (Segment("x", True),)),), 3)
    asyncio.ensure_future(backend.generate(request))
    await asyncio.sleep(0.5)
    raise KeyboardInterrupt

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "KeyboardInterrupt" in done.stderr
    assert done.returncode != 0
