"""The run of `rlaif generate`: every prompt answered or named, nothing asked twice, the same bytes again."""

from __future__ import annotations

import asyncio
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.backends.base import Backend
from rlaif.backends.config import ModelConfig
from rlaif.backends.fake import REWARDS, FakeBackend
from rlaif.data.pairing import Pair, comparison_rows
from rlaif.data.sources import read_candidates, read_comparisons
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.engine.generation import GenerateOutcome, estimate_generation, run_generate
from rlaif.engine.generation_config import GenerateConfig
from rlaif.engine.policies import open_policies
from rlaif.errors import (
    BackendUnusableError,
    BudgetExceededError,
    ConfigError,
    InputError,
    PromptTooLongError,
    RequestRefusedError,
    RunFolderError,
    ServerFaultError,
)
from rlaif.policies.sampling import SamplingConfig, sample_seed
from rlaif.records import GenerateRequest, Generation, Request, Usage

Handler = Callable[[Request], Any]


def words(request: Request) -> str:
    """Other words for every seed and prompt, so that no two are alike."""
    assert isinstance(request, GenerateRequest)
    digest = hashlib.sha256(f"{request.seed} {request.messages[-1].content}".encode()).hexdigest()
    return " ".join(digest[place : place + 4] for place in range(0, 40, 4))


def policy(handler: Handler = words, name: str = "fake:p", **options: Any) -> FakeBackend:
    return FakeBackend(handler, name=name, **options)


def write(path: str | Path, rows: list[dict[str, Any]]) -> None:
    Path(path).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    path = tmp_path / "prompts.jsonl"
    write(path, [{"id": f"row {n}", "prompt": f"Question {n}?", "topic": n % 3} for n in range(12)])
    return GenerateConfig(str(path), str(tmp_path / "run"), sampling=SamplingConfig(samples=3))


async def generate(config: GenerateConfig, *backends: Backend) -> GenerateOutcome:
    return await run_generate(config, backends=backends or (policy(),))


def candidates(config: GenerateConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(Path(config.out) / "data").to_pylist()
    return rows


def comparisons(config: GenerateConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(Path(config.out) / "comparisons" / "data").to_pylist()
    return rows


def failures(config: GenerateConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "failures.jsonl").read_text().splitlines()]


def run_json(config: GenerateConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(config.out) / "run.json").read_text())
    return content


def shards(config: GenerateConfig) -> dict[str, bytes]:
    return {str(path.relative_to(config.out)): path.read_bytes() for path in Path(config.out).rglob("*.parquet")}


async def test_every_prompt_is_answered_k_times_in_order_with_seeds_of_its_own(config: GenerateConfig) -> None:
    backend = policy()
    outcome = await generate(config, backend)
    rows = candidates(config)
    assert [row["id"] for row in rows] == [f"row {n}" for n in range(12)]
    assert [row["topic"] for row in rows] == [n % 3 for n in range(12)]
    for row in rows:
        assert row["seeds"] == [sample_seed(0, row["id"], number) for number in range(3)]
        assert row["policies"] == ["fake:p"] * 3
        assert row["finish_reasons"] == ["stop"] * 3
        assert len(set(row["responses"])) == 3
    assert len({request.seed for request in backend.requests if isinstance(request, GenerateRequest)}) == 36
    # 3 candidates make 3 pairs
    assert (outcome.run.rows, outcome.run.failures, outcome.comparisons, outcome.single) == (12, 0, 36, 0)
    assert run_json(config)["status"] == "finished"
    assert run_json(config)["counts"]["comparisons"] == 36


async def test_comparisons_hold_the_candidates_they_name_and_can_be_labeled_as_they_are(config: GenerateConfig) -> None:
    await generate(replace(config, pairs=2))
    by_id = {row["id"]: row for row in candidates(config)}
    rows = comparisons(config)
    assert Counter(row["candidates_id"] for row in rows) == dict.fromkeys(by_id, 2)
    for row in rows:
        source = by_id[row["candidates_id"]]
        assert row["response_a"] == source["responses"][row["candidate_a"]]
        assert row["response_b"] == source["responses"][row["candidate_b"]]
        assert (row["prompt"], row["topic"]) == (source["prompt"], source["topic"])
    read = list(read_comparisons(str(Path(config.out) / "comparisons")))
    assert [(each.id, each.response_a, each.response_b) for each in read] == [
        (row["id"], row["response_a"], row["response_b"]) for row in rows
    ]
    assert [each.responses for each in read_candidates(config.out)] == [
        tuple(row["responses"]) for row in candidates(config)
    ]


async def test_the_same_again_asks_nothing_and_writes_the_same_bytes(config: GenerateConfig) -> None:
    await generate(config)
    before = shards(config)
    again = policy(lambda request: "something else")
    outcome = await generate(config, again)
    assert again.requests == []
    assert outcome.run.progress.replayed == 36
    assert shards(config) == before


async def test_a_higher_limit_continues_and_comes_to_the_same_as_one_run(
    config: GenerateConfig, tmp_path: Path
) -> None:
    await generate(replace(config, limit=5))
    second = policy()
    await generate(replace(config, limit=8, calls=CallConfig(concurrency=2)), second)
    assert len(second.requests) == 9
    third = policy()
    await generate(config, third)
    assert len(third.requests) == 12
    whole = replace(config, out=str(tmp_path / "whole"))
    await generate(whole, policy(latency=0.001))
    assert shards(config) == shards(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"sampling": SamplingConfig(samples=2)}, "samples"),
        ({"sampling": SamplingConfig(samples=3, temperature=0.5)}, "temperature"),
        ({"sampling": SamplingConfig(samples=3, system="Be brief.")}, "system"),
        ({"near_duplicate": 0.9}, "near_duplicate"),
        ({"keep_duplicates": True}, "near_duplicate"),
        ({"drop": ("empty",)}, "drop"),
        ({"backend": ModelConfig(truncate=True)}, "truncate"),
        ({"source": SourceConfig(skip_bad_rows=True)}, "skip_bad_rows"),
    ],
)
async def test_a_folder_with_other_settings_is_refused_by_name(
    config: GenerateConfig, change: dict[str, Any], named: str
) -> None:
    await generate(replace(config, limit=1))
    before = shards(config)
    with pytest.raises(RunFolderError, match=f"other settings: {named} \\(was"):
        await generate(replace(config, **change))
    assert shards(config) == before


async def test_other_policies_another_order_of_them_or_another_input_are_refused(config: GenerateConfig) -> None:
    await generate(config, policy(), policy(name="fake:q"))
    for others in ([policy()], [policy(name="fake:q"), policy()]):
        with pytest.raises(RunFolderError, match="policy"):
            await generate(config, *others)
    with Path(config.input).open("a") as file:
        file.write('{"prompt": "One more?"}\n')
    with pytest.raises(RunFolderError, match="input"):
        await generate(config, policy(), policy(name="fake:q"))


async def test_other_pairs_are_made_without_a_call(config: GenerateConfig) -> None:
    await generate(config)
    (candidates_before,) = [content for name, content in shards(config).items() if name.startswith("data")]
    for pairs, count in ((1, 12), ("none", 0), ("all", 36)):
        again = policy()
        outcome = await generate(replace(config, pairs=pairs), again)
        assert (outcome.comparisons, len(comparisons(config)), again.requests) == (count, count, [])
        assert shards(config)["data/train-00000.parquet"] == candidates_before


async def test_policies_answer_side_by_side_in_the_order_given(config: GenerateConfig) -> None:
    first, second = policy(), policy(lambda request: words(request)[::-1], name="fake:q")
    await generate(config, first, second)
    for row in candidates(config):
        assert row["policies"] == ["fake:p"] * 3 + ["fake:q"] * 3
        assert [text[::-1] for text in row["responses"][3:]] == row["responses"][:3]
        assert row["seeds"][:3] == row["seeds"][3:]
    counts = run_json(config)["counts"]
    assert {name: each["kept"] for name, each in counts["by_policy"].items()} == {"fake:p": 36, "fake:q": 36}
    assert counts["comparisons"] == 12 * 15


async def test_what_a_policy_is_told_of_a_conversation(config: GenerateConfig) -> None:
    turns = [{"role": "developer", "content": "Rhyme."}, {"role": "user", "content": "{{ x }} </s>"}]
    write(config.input, [{"id": "a", "prompt": turns}, {"id": "b", "prompt": ""}])
    backend = policy()
    sampling = SamplingConfig(samples=1, temperature=0.0, system="Be brief.", top_p=0.5, max_tokens=7)
    await generate(replace(config, sampling=sampling), backend)
    asked = [[(each.role, each.content) for each in request.messages] for request in backend.requests]
    assert asked == [
        [("system", "Rhyme."), ("user", "{{ x }} </s>")],
        [("system", "Be brief."), ("user", "")],
    ]
    assert [row["prompt"] for row in candidates(config)] == [turns, [{"role": "user", "content": ""}]]
    assert [row["seeds"] for row in candidates(config)] == [[None], [None]]


async def test_planted_faults_are_all_caught_with_the_right_counts(config: GenerateConfig) -> None:
    """Eight samples a prompt, of which by number: 0 new, 1 equal to 0, 2 nearly so, 3 empty, 4 cut off, 5 refused by
    the server, 6 cut by its filter, 7 new."""
    seeds = {sample_seed(0, f"row {n}", number): (n, number) for n in range(12) for number in range(8)}

    def answer(request: Request) -> Generation:
        assert isinstance(request, GenerateRequest)
        row, number = seeds[request.seed or 0]
        if number == 5:
            raise RequestRefusedError(f"400: not about {row}")
        texts = {
            0: f"In row {row} the cat sat on the mat.", 1: f"In row {row} the cat sat on the mat.",
            2: f"in row {row}: THE CAT sat on the mat", 3: " \n", 4: f"And so {row}", 6: "As I", 7: f"Another {row}.",
        }  # fmt: skip
        reason = {4: "length", 6: "content_filter"}.get(number, "stop")
        return Generation(texts[number], reason, usage=Usage(5, 3))

    eight = replace(config, sampling=SamplingConfig(samples=8), drop=("empty", "cut-off"))
    outcome = await generate(eight, policy(answer))
    assert (outcome.run.rows, outcome.run.failures) == (12, 0)
    counts = run_json(eight)["counts"]["by_policy"]["fake:p"]
    assert counts["sampled"] == 12 * 8
    assert counts["kept"] == 12 * 2
    assert counts["dropped"] == {
        "refused": 24, "empty": 12, "cut off": 12, "duplicate": 12, "near-duplicate": 12,
    }  # fmt: skip
    for n, row in enumerate(candidates(eight)):
        assert row["responses"] == [f"In row {n} the cat sat on the mat.", f"Another {n}."]
        details = {(each["reason"], each["detail"]) for each in row["dropped"]}
        assert ("refused", f"400: not about {n}") in details
        assert ("near-duplicate", "of response 1") in details
        assert len(row["responses"]) + len(row["dropped"]) == 8
    assert len(comparisons(eight)) == 12


async def test_a_refusal_that_a_row_goes_on_without_is_not_asked_about_again(config: GenerateConfig) -> None:
    refused = {sample_seed(0, f"row {n}", 1) for n in range(12)}

    def answer(request: Request) -> str:
        assert isinstance(request, GenerateRequest)
        if request.seed in refused:
            raise RequestRefusedError("400: no")
        return words(request)

    await generate(config, policy(answer))
    before = shards(config)
    again = policy()  # would answer now: the row that is written must stay what it is
    outcome = await generate(config, again)
    assert again.requests == []
    assert outcome.run.progress.replayed == 36
    assert shards(config) == before


async def test_a_prompt_that_is_refused_altogether_fails_and_is_asked_again(config: GenerateConfig) -> None:
    def answer(request: Request) -> str:
        if "Question 7?" in request.messages[0].content:
            raise RequestRefusedError("400: content policy")
        return words(request)

    outcome = await generate(config, policy(answer))
    assert (outcome.run.rows, outcome.run.failures) == (11, 1)
    assert failures(config) == [
        {"id": "row 7", "stage": "responses", "error": "RequestRefusedError: 400: content policy", "attempts": 1}
    ]
    again = policy()
    assert (await generate(config, again)).run.failures == 0
    assert len(again.requests) == 3
    assert len(candidates(config)) == 12


async def test_a_prompt_without_a_usable_response_fails_by_name(config: GenerateConfig) -> None:
    def answer(request: Request) -> str:
        return "" if "Question 3?" in request.messages[0].content else words(request)

    outcome = await generate(replace(config, drop=("empty",)), policy(answer))
    assert (outcome.run.rows, outcome.run.failures) == (11, 1)
    (failure,) = failures(config)
    assert (failure["id"], failure["stage"]) == ("row 3", "responses")
    assert failure["error"] == "NoResponseError: none of 3 responses can be used (fake:p: empty, 3 times)"


async def test_one_response_a_prompt_makes_no_comparison(config: GenerateConfig) -> None:
    outcome = await generate(config, policy(lambda request: "the same to everyone"))
    assert (outcome.run.rows, outcome.comparisons, outcome.single) == (12, 0, 12)
    assert all(len(row["responses"]) == 1 for row in candidates(config))
    with pytest.raises(InputError, match="holds no rows"):
        list(read_comparisons(str(Path(config.out) / "comparisons")))


async def test_a_policy_that_is_down_stops_the_run_and_is_named(config: GenerateConfig) -> None:
    def down(request: Request) -> str:
        raise ServerFaultError("500: oops", retry_after=0.0)

    once = replace(config, calls=CallConfig(max_retries=0, concurrency=2))
    healthy = policy()
    with pytest.raises(BackendUnusableError, match="fake:q: nothing has succeeded, stopped: 500: oops"):
        await generate(once, healthy, policy(down, name="fake:q"))
    assert run_json(config)["status"] == "interrupted"
    # what the other one said is kept
    again = policy()
    await generate(once, again, policy(lambda request: words(request)[::-1], name="fake:q"))
    assert len(healthy.requests) + len(again.requests) == 36
    assert len(candidates(config)) == 12


async def test_a_policy_that_refuses_everything_stops_the_run(config: GenerateConfig) -> None:
    def refuse(request: Request) -> str:
        raise RequestRefusedError("400: no such field 'seed'")

    backend = policy(refuse)
    with pytest.raises(BackendUnusableError, match="nothing has succeeded, stopped: 400: no such field"):
        await generate(replace(config, calls=CallConfig(concurrency=1)), backend)
    assert len(backend.requests) <= 5 * 3


async def test_a_prompt_that_one_policy_fails_on_fails_and_the_others_words_are_kept(config: GenerateConfig) -> None:
    def forgetful(request: Request) -> str:
        if "Question 5?" in request.messages[0].content:
            raise PromptTooLongError("9 tokens, 8 fit")
        return words(request)[::-1]

    outcome = await generate(config, policy(), policy(forgetful, name="fake:q"))
    assert (outcome.run.rows, outcome.run.failures) == (11, 1)
    (failure,) = failures(config)
    assert failure["id"] == "row 5"
    assert failure["stage"] == "fake:q: response, sample 1"
    first, second = policy(), policy(lambda request: words(request)[::-1], name="fake:q")
    await generate(config, first, second)
    assert (len(first.requests), len(second.requests)) == (0, 3)


async def test_a_budget_holds_for_rows_of_many_samples_too(config: GenerateConfig) -> None:
    """A row asks for all of its samples at once: what has been asked when the first answers come must not be all."""

    def priced(budget: float) -> GenerateConfig:
        calls = CallConfig(concurrency=4, price="0/1000000", max_cost=budget)  # a USD a token of the reply
        return replace(config, sampling=SamplingConfig(samples=50), limit=2, calls=calls)

    first = policy(lambda request: Generation(words(request), "stop", usage=Usage(0, 1)), latency=0.001)
    with pytest.raises(BudgetExceededError, match="--max-cost 10 USD is spent"):
        await generate(priced(10), first)
    assert 10 <= len(first.requests) < 10 + 4
    second = policy(lambda request: Generation(words(request), "stop", usage=Usage(0, 1)))
    outcome = await generate(priced(1e6), second)
    assert outcome.run.rows == 2
    assert len(first.requests) + len(second.requests) <= 100 + 4


async def test_rows_that_cannot_be_read_are_failures_beside_those_answered(config: GenerateConfig) -> None:
    tool = [{"role": "tool", "content": "3"}, {"role": "user", "content": "?"}]
    bad = [{"prompt": 3}, {"id": "t", "prompt": tool}, {"id": "row 0", "prompt": "again"}, {}]
    with Path(config.input).open("a") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in bad)
    with pytest.raises(InputError, match="line 13, column 'prompt'"):
        await generate(config)
    assert not Path(config.out).exists()
    skipping = replace(config, source=SourceConfig(skip_bad_rows=True))
    outcome = await generate(skipping)
    assert (outcome.run.rows, outcome.run.failures) == (12, 4)
    assert [each["id"] for each in failures(skipping)] == ["line 13", "t", "line 15", "line 16"]
    assert {each["stage"] for each in failures(skipping)} == {"input"}
    assert run_json(skipping)["counts"]["input"] == 16


async def test_equal_prompts_are_sampled_apart(config: GenerateConfig) -> None:
    write(config.input, [{"prompt": "Same?"}, {"prompt": "Same?"}])
    await generate(config)
    one, other = candidates(config)
    assert one["id"] != other["id"]
    assert not set(one["responses"]) & set(other["responses"])


async def test_a_key_in_an_address_reaches_no_file(config: GenerateConfig) -> None:
    address = "http://127.0.0.1:9/v1?api-key=hunter2"
    secret = replace(config, backend=ModelConfig(base_url=(address,)))
    await run_generate(secret, backends=(policy(),), command=f"rlaif generate --base-url {address}")
    for path in Path(config.out).rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path


async def test_comparisons_that_cannot_be_written_leave_a_run_to_resume(config: GenerateConfig) -> None:
    Path(config.out).mkdir()
    (Path(config.out) / "journal").mkdir()
    blocker = Path(config.out) / "comparisons"

    def answer(request: Request) -> str:
        blocker.touch()  # a file where the folder is to be
        return words(request)

    with pytest.raises(RunFolderError, match="comparisons"):
        await generate(config, policy(answer))
    assert run_json(config)["status"] == "interrupted"
    blocker.unlink()
    again = policy()
    outcome = await generate(config, again)
    assert (again.requests, outcome.comparisons) == ([], 36)


async def test_ctrl_c_is_heard_while_comparisons_are_made(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def interrupting(row: Mapping[str, Any], pairs: Sequence[Pair], extras: Sequence[str]) -> Iterator[dict[str, Any]]:
        made.append(row["id"])
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return comparison_rows(row, pairs, extras)

    monkeypatch.setattr("rlaif.engine.generation._ROWS_AT_ONCE", 2)
    with monkeypatch.context() as patch:
        patch.setattr("rlaif.engine.generation.comparison_rows", interrupting)
        with pytest.raises(asyncio.CancelledError):
            await generate(config)
    assert made == ["row 0", "row 1"]
    assert run_json(config)["status"] == "interrupted"
    again = policy()
    assert ((await generate(config, again)).comparisons, again.requests) == (36, [])


async def test_a_dry_run_announces_as_many_calls_as_are_made(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlaif.engine.policies.open_backend", lambda spec, *_, **__: policy(name=spec))
    two = replace(config, policy=("fake:p", "fake:q"), limit=5, calls=CallConfig(price="0/1000000"))
    estimate = await estimate_generation(two)
    assert (estimate.rows, estimate.calls) == (5, 30)
    assert estimate.completion_tokens == 30 * 512
    assert estimate.cost == pytest.approx(30 * 512)
    assert not Path(config.out).exists()
    outcome = await run_generate(two)
    assert outcome.run.progress.calls == 30


def test_reward_models_write_nothing_and_are_refused_before_they_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="policy hf-reward:x is a reward model"):
        open_policies(["hf-reward:x"], ModelConfig())
    rewarding = policy(capabilities=REWARDS, name="mine:x")
    monkeypatch.setattr("rlaif.engine.policies.open_backend", lambda *_, **__: rewarding)
    with pytest.raises(ConfigError, match="policy mine:x is a reward model"):
        open_policies(["mine:x"], ModelConfig())


@pytest.mark.parametrize(
    ("settings_of", "named"),
    [
        ({"policy": ()}, "policy: at least one"),
        ({"policy": ("a:b", "a:b")}, "policy: a:b is named twice"),
        ({"near_duplicate": 0.0}, "near_duplicate: 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings_of: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        GenerateConfig("in", "out", **settings_of)


KINDS = st.sampled_from(["new", "same", "empty", "cut", "refused", "filtered", "broken"])


@given(st.lists(st.lists(KINDS, min_size=3, max_size=3), min_size=1, max_size=5), st.integers(0, 3))
@settings(max_examples=25)
def test_rows_and_failures_are_the_input_and_no_reply_is_asked_twice(plan: list[list[str]], most: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run_twice(Path(folder), plan, most))


async def run_twice(folder: Path, plan: list[list[str]], most: int) -> None:
    write(folder / "in.jsonl", [{"id": str(n), "prompt": f"Question {n}?"} for n in range(len(plan))])
    kinds = {sample_seed(0, str(n), number): kind for n, row in enumerate(plan) for number, kind in enumerate(row)}
    answered: Counter[int] = Counter()

    def answer(request: Request) -> Generation:
        assert isinstance(request, GenerateRequest)
        assert request.seed is not None
        kind = kinds[request.seed]
        if kind == "refused":
            raise RequestRefusedError("400: no")
        if kind == "broken":
            raise PromptTooLongError("too long")
        answered[request.seed] += 1
        texts = {"new": words(request), "same": "the same", "empty": "", "cut": words(request), "filtered": "As"}
        return Generation(texts[kind], {"cut": "length", "filtered": "content_filter"}.get(kind, "stop"))

    config = GenerateConfig(
        str(folder / "in.jsonl"),
        str(folder / "run"),
        sampling=SamplingConfig(samples=3),
        pairs=most or "all",
    )
    try:
        for _ in range(2):
            outcome = await generate(config, policy(answer))
    except BackendUnusableError:
        return  # the first three prompts were all refused: stopped, and nothing is claimed
    rows = candidates(config)
    assert outcome.run.rows + outcome.run.failures == len(plan)
    assert sorted(row["id"] for row in rows) == sorted(
        set(map(str, range(len(plan)))) - {f["id"] for f in failures(config)}
    )
    assert set(answered.values()) <= {1}
    pairs = 0
    for row in rows:
        assert len(row["responses"]) + len(row["dropped"]) == 3
        every = len(row["responses"]) * (len(row["responses"]) - 1) // 2
        pairs += min(every, most) if most else every
    assert len(comparisons(config)) == pairs == outcome.comparisons
