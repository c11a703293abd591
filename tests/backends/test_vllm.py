"""The real vLLM in process: the same numbers as the `hf` backend, and no process left behind."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends.base import Backend
from rlaif.backends.hf import HfBackend
from rlaif.backends.vllm import VllmBackend, _Call
from rlaif.errors import BackendUnusableError, ConfigError, PromptTooLongError, RequestRefusedError
from rlaif.judge.config import JudgeConfig
from rlaif.judge.scoring import candidate_distribution
from rlaif.records import RATING_LABELS, CandidateLogprobs, GenerateRequest, Generation, Message, ScoreRequest, Segment
from tests.backends.conftest import BUILTIN
from tests.backends.contract import LABELS, BackendContract, messages
from tests.backends.judging import compare, example_comparisons, example_responses, rate
from tests.backends.vllm_serving import ENVIRONMENT
from tests.tiny_models import byte_level_tokenizer, save_model

pytestmark = pytest.mark.skipif(find_spec("vllm") is None, reason="needs vLLM: make test-vllm")

SMALL = ("max_num_seqs=16", "max_num_batched_tokens=2048")


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


class Lent:
    """A backend that several tests share: closing it is the fixture's."""

    def __init__(self, backend: VllmBackend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    async def aclose(self) -> None:
        pass


@pytest.fixture(scope="module")
def vllm(environment: None) -> Iterator[Backend]:
    """The built-in judge through vLLM."""
    backend = VllmBackend(str(BUILTIN))
    yield Lent(backend)
    asyncio.run(backend.aclose())


@pytest.fixture(scope="module")
def hf() -> Iterator[Backend]:
    """The built-in judge through transformers."""
    backend = HfBackend(str(BUILTIN), device="cpu")
    yield Lent(backend)  # type: ignore[arg-type]
    asyncio.run(backend.aclose())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model that writes "10" in two tokens; heads of 32, the least that vLLM takes on a CPU."""
    folder = tmp_path_factory.mktemp("models") / "tiny-wide"
    return save_model(folder, "llama-wide", tokenizer=byte_level_tokenizer(), likes_digits=True)


@pytest.fixture(scope="module")
def tiny_vllm(tiny: Path, environment: None) -> Iterator[Backend]:
    backend = VllmBackend(str(tiny), truncate=True, engine_args=SMALL)
    yield Lent(backend)
    asyncio.run(backend.aclose())


class TestVllm(BackendContract):
    @pytest.fixture
    def backend(self, vllm: Backend) -> Backend:
        return vllm


async def test_labels_equal_those_of_transformers(vllm: Backend, hf: Backend) -> None:
    config = JudgeConfig(min_label_mass=0.0)
    mine, theirs = [await compare(backend, example_comparisons(32), config) for backend in (vllm, hf)]
    for name in ("prob_a", "prob_a_ab", "prob_a_ba", "label_mass_ab", "label_mass_ba"):
        found, expected = ([getattr(judgment, name) for judgment in judgments] for judgments in (mine, theirs))
        assert found == pytest.approx(expected, abs=1e-3)
    probs = [judgment.prob_a for judgment in mine]
    assert max(probs) - min(probs) > 0.2


async def test_ratings_equal_those_of_transformers(vllm: Backend, hf: Backend) -> None:
    config = JudgeConfig(min_label_mass=0.0)
    mine, theirs = [await rate(backend, example_responses(32), config) for backend in (vllm, hf)]
    for one, other in zip(mine, theirs, strict=True):
        assert one.probs == pytest.approx(other.probs, abs=1e-3)
        assert one.rating == pytest.approx(other.rating, abs=1e-3)
        assert one.label_mass == pytest.approx(other.label_mass, abs=1e-3)


async def test_a_ten_in_two_tokens_equals_that_of_transformers(tiny: Path, tiny_vllm: Backend) -> None:
    hf = HfBackend(str(tiny), device="cpu", truncate=True)
    requests = [ScoreRequest(messages(text), RATING_LABELS) for text in ("", "Hello.", "x" * 30, "a b c", "Hello.")]
    mine = await asyncio.gather(*map(tiny_vllm.score, requests))
    theirs = await asyncio.gather(*map(hf.score, requests))
    await hf.aclose()
    tens = []
    for one, other in zip(mine, theirs, strict=True):
        found, expected = (candidate_distribution(reply, RATING_LABELS) for reply in (one, other))
        assert found.probs == pytest.approx(expected.probs, abs=1e-4)
        assert found.mass == pytest.approx(expected.mass, abs=1e-4)
        assert one.is_exhaustive
        assert not found.is_bounded
        tens.append(math.fsum(math.exp(logprob) for text, logprob in one.tokens if text.strip() == "10"))
    assert max(tens) > 0.03


async def test_a_marker_inside_a_response_does_not_act_as_one(tiny: Path, tiny_vllm: Backend) -> None:
    def prompt(is_template: bool) -> tuple[Message, ...]:
        return (Message("user", (Segment("x", True), Segment("<|end|>", is_template), Segment("y", True))),)

    active, inert = [await tiny_vllm.score(ScoreRequest(prompt(flag), LABELS)) for flag in (True, False)]
    assert inert.usage.prompt_tokens == active.usage.prompt_tokens + len("<|end|>") - 1
    assert abs(active.tokens[0].logprob - inert.tokens[0].logprob) > 1e-3


async def test_greedy_text_is_that_of_transformers_and_stays_within_the_context(tiny: Path, tiny_vllm: Backend) -> None:
    hf = HfBackend(str(tiny), device="cpu")
    for text, most in (("Hello.", 9), ("x", 1000)):
        request = GenerateRequest(messages(text), most)
        mine, theirs = await tiny_vllm.generate(request), await hf.generate(request)
        assert mine.text == theirs.text
        assert (mine.finish_reason, mine.usage[:2]) == (theirs.finish_reason, theirs.usage[:2])
        assert sum(mine.usage[:2]) <= 512
    await hf.aclose()


async def test_a_long_prompt_is_cut_or_refused(tiny_vllm: Backend, vllm: Backend) -> None:
    cut = await asyncio.gather(
        tiny_vllm.score(ScoreRequest(messages("x" * 600), LABELS)),
        tiny_vllm.score(ScoreRequest(messages("x" * 600), RATING_LABELS)),
        tiny_vllm.generate(GenerateRequest(messages("x" * 600), 5)),
    )
    assert [reply.usage.prompt_tokens for reply in cut] == [511, 510, 507]  # room for what is read or written
    with pytest.raises(PromptTooLongError, match=r"tokens and vllm:builtin_model takes 2047; .*--truncate"):
        await vllm.score(ScoreRequest(messages("word " * 3000), LABELS))


async def test_a_prompt_asked_again_is_not_computed_again(vllm: Backend) -> None:
    request = ScoreRequest(messages("Something long enough for a block of the cache. " * 30), LABELS)
    first, again = await vllm.score(request), await vllm.score(request)
    assert first.usage.cached_tokens < again.usage.cached_tokens <= again.usage.prompt_tokens


async def test_chains_of_thought_run(vllm: Backend) -> None:
    config = JudgeConfig(cot=True, max_tokens=24, min_label_mass=0.0)
    judgments = await compare(vllm, example_comparisons(4), config)
    assert all(0.0 < judgment.prob_a < 1.0 for judgment in judgments)
    assert any(judgment.rationale_ab for judgment in judgments)


async def test_samples_follow_their_seeds(vllm: Backend) -> None:
    requests = [GenerateRequest(messages("Hello."), 6, temperature=2.0, seed=seed) for seed in (1, 2, 3, 1, 2**63 + 1)]
    together = await asyncio.gather(*map(vllm.generate, requests))
    alone = [await vllm.generate(request) for request in requests]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert together[0].text == together[3].text == together[4].text
    assert len({reply.text for reply in together}) > 1


async def test_a_cancelled_call_is_ended_in_the_engine(tiny_vllm: Backend) -> None:
    backend: Any = tiny_vllm
    before = backend._last_number
    long = [asyncio.ensure_future(backend.generate(GenerateRequest(messages(text), 450))) for text in "abcdef"]
    async with asyncio.timeout(120):
        while backend._last_number < before + 6 and not any(task.done() for task in long):
            await asyncio.sleep(0.01)
    for task in long[1:]:
        task.cancel()
    replies = await asyncio.gather(*long, return_exceptions=True)
    assert [type(reply).__name__ for reply in replies] == ["Generation"] + ["CancelledError"] * 5
    assert not backend._asked
    assert (await backend.score(ScoreRequest(messages("still there"), LABELS))).tokens


async def test_a_request_that_vllm_does_not_take_fails_alone(tiny_vllm: Backend) -> None:
    wrong, right = await asyncio.gather(
        tiny_vllm.generate(GenerateRequest(messages("x"), 4, temperature=-1.0)),
        tiny_vllm.generate(GenerateRequest(messages("x"), 4)),
        return_exceptions=True,
    )
    assert isinstance(wrong, RequestRefusedError)
    assert "vllm:tiny-wide does not take this request: " in str(wrong)
    assert "temperature" in str(wrong)
    assert not isinstance(right, BaseException)


# --- one engine each --------------------------------------------------------------------------------------------------


async def test_the_likeliest_tokens_do_where_vllm_cannot_name_tokens(tiny: Path) -> None:
    backend = VllmBackend(str(tiny))
    backend._is_exact = False
    request = ScoreRequest(messages("x"), RATING_LABELS)
    call = _Call(request, asyncio.get_running_loop(), asyncio.get_running_loop().create_future(), [5, 6])
    token = byte_level_tokenizer().get_vocab()
    first = [[token["1"], math.log(0.5)], [token["3"], math.log(0.2)], [token["x"], math.log(0.1)]]
    message = {"first": first, "halves": [[token["1"], [[token["0"], math.log(0.6)]]]], "cached": 0}
    reply = backend._reply(call, message)
    assert isinstance(reply, CandidateLogprobs)
    assert not reply.is_exhaustive
    masses = {text: math.exp(logprob) for text, logprob in reply.tokens}
    assert masses == pytest.approx({"1": 0.2, "10": 0.3, "3": 0.2, "x": 0.1})
    unseen = candidate_distribution(reply, RATING_LABELS)
    assert unseen.is_bounded
    assert unseen.mass == pytest.approx(0.7)
    await backend.aclose()


def test_nothing_is_started_before_the_first_call(tiny: Path) -> None:
    backend = VllmBackend(str(tiny))
    assert backend.count_tokens(messages("Hello.")) > 5
    assert (backend.capabilities.is_in_process, backend.capabilities.context_tokens) == (True, 512)
    assert backend.process_id is None
    asyncio.run(backend.aclose())


async def test_closing_while_it_starts_ends_the_calls_and_the_processes(tiny: Path) -> None:
    backend = VllmBackend(str(tiny))
    call = asyncio.ensure_future(backend.score(ScoreRequest(messages("x"), LABELS)))
    while backend.process_id is None:
        await asyncio.sleep(0.01)
    await asyncio.sleep(1)
    family = [backend.process_id, *descendants(backend.process_id)]
    await backend.aclose()
    with pytest.raises(BackendUnusableError, match="was closed before it answered"):
        await call
    assert not [pid for pid in family if is_alive(pid)]
    with pytest.raises(BackendUnusableError, match="was closed"):
        await backend.score(ScoreRequest(messages("x"), LABELS))
    await backend.aclose()


def test_identity_holds_what_changes_answers_and_not_where_it_runs(tiny: Path, tmp_path: Path) -> None:
    base = VllmBackend(str(tiny)).identity
    neutral = ("tensor-parallel-size=2", "gpu_memory_utilization=0.5", "enforce_eager=true", "data_parallel_size=2")
    assert VllmBackend(str(tiny), engine_args=neutral, name="vllm:other").identity == base
    others = [
        VllmBackend(str(tiny), truncate=True),
        VllmBackend(str(tiny), dtype="bfloat16"),
        VllmBackend(str(tiny), engine_args=["quantization=fp8"]),
        VllmBackend(str(tiny), engine_args=["max_model_len=256"]),
    ]
    assert len({json.dumps(dict(backend.identity), sort_keys=True) for backend in others} | {json.dumps(base)}) == 5
    assert VllmBackend(str(tiny), engine_args=["dtype=bfloat16"]).identity == others[1].identity
    assert others[3].capabilities.context_tokens == 256


def test_engine_arguments_are_checked_before_anything_starts(tiny: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        VllmBackend(str(tiny), engine_args=["tensor_paralel_size=2", "model=x", "plain", "hf_token=hf_abc"])
    assert "tensor_paralel_size: vLLM has no such engine argument (did you mean 'tensor_parallel_size'" in str(
        caught.value
    )
    assert "model: cannot be set" in str(caught.value)
    assert "'plain': expected KEY=VALUE" in str(caught.value)
    assert "hf_token: cannot be set" in str(caught.value)
    assert "hf_abc" not in str(caught.value)
    with pytest.raises(ConfigError, match="'float32' and --vllm-arg dtype=bfloat16 contradict"):
        VllmBackend(str(tiny), dtype="float32", engine_args=["dtype=bfloat16"])
    with pytest.raises(ConfigError, match=r"model 'vllm:.*no such folder \(did you mean .*tiny-wide"):
        VllmBackend(str(tiny.parent / "tiny-wid"))


async def test_what_keeps_vllm_from_starting_is_said_in_its_own_words(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLAIF_TEST_SECRET", "sk-not-to-be-shown")
    backend = VllmBackend(str(tiny), engine_args=["max_num_seqs=-3"])
    together = [backend.score(ScoreRequest(messages(text), LABELS)) for text in "ab"]
    errors = [*await asyncio.gather(*together, return_exceptions=True)]
    errors += await asyncio.gather(backend.generate(GenerateRequest(messages("c"), 3)), return_exceptions=True)
    await backend.aclose()
    for error in errors:
        assert isinstance(error, BackendUnusableError)
        assert "vllm:tiny-wide: vLLM does not start: " in str(error)
        assert "max_num_seqs" in str(error)
        assert "sk-not" not in str(error)
    assert len(set(map(id, errors))) == 3


@pytest.mark.parametrize("victim", ["keeper", "host", "core"])
async def test_a_dead_engine_fails_its_calls_and_leaves_nothing(
    tiny: Path, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend = VllmBackend(str(tiny), engine_args=SMALL)
    with caplog.at_level(logging.WARNING):
        await backend.score(ScoreRequest(messages("x"), LABELS))
    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        assert "enforce_eager=True" in caplog.text
    keeper = backend.process_id
    assert keeper is not None
    family = [keeper, *descendants(keeper)]
    host = descendants(keeper)[0]
    core = next(pid for pid in family if "EngineCore" in command_of(pid))
    # More than it can finish while this test is kept from its turn on a busy machine.
    requests = [GenerateRequest(messages(f"{number}"), 450) for number in range(24)]
    waiting = [asyncio.ensure_future(backend.generate(request)) for request in requests]
    async with asyncio.timeout(120):
        while backend._last_number < 1 + len(requests) and not any(task.done() for task in waiting):
            await asyncio.sleep(0.01)
    os.kill({"keeper": keeper, "host": host, "core": core}[victim], signal.SIGKILL)
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    outcomes += await asyncio.gather(backend.score(ScoreRequest(messages("y"), LABELS)), return_exceptions=True)
    errors = [outcome for outcome in outcomes if not isinstance(outcome, Generation)]
    assert len(errors) >= 2
    assert errors[-1] is outcomes[-1]
    for error in errors:
        assert isinstance(error, BackendUnusableError)
        assert "vllm:tiny-wide: vLLM's process has died: " in str(error)
        assert "\n" not in str(error)
    await backend.aclose()
    wait_for_end(family)


def test_ctrl_c_leaves_the_engine_alone_and_kill_leaves_nothing_behind(tiny: Path) -> None:
    code = f"""
import asyncio, signal, sys
from rlaif.backends.vllm import VllmBackend, _Call
from rlaif.records import GenerateRequest, Message, ScoreRequest, Segment

def messages(text):
    return (Message("user", (Segment(text, True),)),)

async def main():
    backend = VllmBackend({str(tiny)!r}, engine_args={list(SMALL)!r})
    await backend.score(ScoreRequest(messages("x"), ("1", "2")))
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    call = asyncio.ensure_future(backend.generate(GenerateRequest(messages("y"), 400)))
    print(backend.process_id, flush=True)
    await interrupted.wait()
    print((await call).finish_reason, flush=True)
    await backend.score(ScoreRequest(messages("z"), ("1", "2")))
    await asyncio.gather(*(backend.generate(GenerateRequest(messages("w" * n), 400)) for n in range(1, 100)))

asyncio.run(main())
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        keeper = int(parent.stdout.readline())
        family = [keeper, *descendants(keeper)]
        assert len(family) >= 4  # keeper, host, core, worker
        os.killpg(parent.pid, signal.SIGINT)  # as the terminal does
        assert parent.stdout.readline().strip() in {"length", "stop"}
        time.sleep(0.2)
        assert all(map(is_alive, family))
        parent.kill()
    wait_for_end(family)


def test_without_vllm_its_extra_is_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlaif.backends.vllm_args.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"backend 'vllm' needs an extra; run: pip install 'rlaif\[vllm\]'"):
        VllmBackend(str(tiny))


# --- processes --------------------------------------------------------------------------------------------------------


def stat_of(pid: int) -> list[str] | None:
    """State, parent and the rest of /proc/PID/stat after the name; None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def is_alive(pid: int) -> bool:
    stat = stat_of(pid)
    return stat is not None and stat[0] != "Z"


def descendants(pid: int) -> list[int]:
    """All processes below one, its children first."""
    parents = {int(entry.name): stat_of(int(entry.name)) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    found, level = [], [pid]
    while level := [each for each, stat in parents.items() if stat is not None and int(stat[1]) in level]:
        found += level
    return found


def wait_for_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 60
    while (left := [pid for pid in pids if is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left, [command_of(pid) for pid in left]
