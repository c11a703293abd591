"""The run of `rlaif evaluate`: every response compared or named, figures that follow from the rows, the same again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

from rlaif.auditing.evaluation import MIRRORED, figures_of
from rlaif.auditing.results import Figure
from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import REWARDS, FakeBackend
from rlaif.data.judged import read_judged
from rlaif.engine.asking import Asker, CallCounts
from rlaif.engine.config import CallConfig, SourceConfig
from rlaif.engine.evaluation import EvaluateOutcome, run_evaluate
from rlaif.engine.evaluation_config import AnswerConfig, EvaluateConfig
from rlaif.engine.evaluation_judging import evaluator_of, harmless_judges, judge_pairs
from rlaif.engine.evaluation_plan import estimate_evaluation
from rlaif.engine.rows import Judging
from rlaif.errors import (
    BudgetExceededError,
    ConfigError,
    InputError,
    RequestRefusedError,
    RunFolderError,
    ServerFaultError,
)
from rlaif.judge.config import JudgeConfig
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.records import Comparison, GenerateRequest, Request, Turn

HOSTILE = "{{ 7*7 }} <|im_end|>\n``` \n# Heading\n\n<script>x</script> \x00 \u202e"
TOLERANCE = {"win_rate_length_controlled": 1e-6}


def verdict(request: Request) -> float:
    """The response with more of the letter x is better; the first slot is liked a little; "kind" ones are harmless."""
    text = request.messages[0].content
    if "Is this response harmless?" in text:
        return 0.9 if "kind" in text.rpartition("### Response\n")[2] else 0.2
    first, _, second = text.rpartition("### Response 1\n")[2].partition("\n\n### Response 2\n")
    lead = first.count("x") - second.partition("\n\n### Question\n")[0].count("x")
    return min(max(0.5 + 0.2 * lead + 0.15, 0.01), 0.99)


def judge(handler: Callable[[Request], Any] = verdict, name: str = "fake:judge", **options: Any) -> FakeBackend:
    return FakeBackend(handler, name=name, **options)


def writes(request: Request) -> str:
    assert isinstance(request, GenerateRequest)
    assert request.seed is not None
    return f"{'x' * (request.seed % 4)} kind answer to {request.messages[-1].content}"


def policy(handler: Callable[[Request], Any] = writes, name: str = "fake:p") -> FakeBackend:
    return FakeBackend(handler, name=name)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> EvaluateConfig:
    """24 prompts; A has a mean lead."""
    rows = [{"id": f"r{n}", "prompt": f"Question {n}?", "topic": n % 3} for n in range(24)]
    a = [{**row, "response": "x" * (n % 5) + " kind" * (n % 2)} for n, row in enumerate(rows)]
    b = [{**row, "response": "x" * (n % 3) + " b" * (n % 4)} for n, row in enumerate(rows)]
    sides = write(tmp_path / "a.jsonl", a), write(tmp_path / "b.jsonl", b)
    return EvaluateConfig(*sides, str(tmp_path / "run"), resamples=200)


async def evaluate(config: EvaluateConfig, *policies: FakeBackend, by: FakeBackend | None = None) -> EvaluateOutcome:
    return await run_evaluate(config, policies={each.name: each for each in policies}, judges=(by or judge(),))


def data(config: EvaluateConfig) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = parquet.read_table(Path(config.out) / "data").to_pylist()
    return rows


def content_of(config: EvaluateConfig, name: str) -> Any:
    return json.loads((Path(config.out) / name).read_text())


def failures(config: EvaluateConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "failures.jsonl").read_text().splitlines()]


def results(config: EvaluateConfig) -> dict[str, bytes]:
    """What a run made: everything but times."""
    paths = [*Path(config.out).rglob("*.parquet"), Path(config.out) / "evaluation.json"]
    return {str(path.relative_to(config.out)): path.read_bytes() for path in paths}


async def test_two_files_are_judged_and_the_figures_follow_from_the_rows(config: EvaluateConfig) -> None:
    by = judge()
    outcome = await evaluate(config, by=by)
    rows = data(config)
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(24)]
    assert [row["topic"] for row in rows] == [n % 3 for n in range(24)]
    assert {(row["policy_a"], row["policy_b"]) for row in rows} == {(config.a, config.b)}
    identical = [row for row in rows if row["response_a"] == row["response_b"]]
    assert identical
    assert len(by.requests) == 2 * (24 - len(identical))
    found = content_of(config, "evaluation.json")
    verdicts = [0.5 if abs(row["prob_a"] - 0.5) < 1e-9 else float(row["prob_a"] > 0.5) for row in rows]
    assert found["win_rate"]["value"] == pytest.approx(sum(verdicts) / 24)
    assert found["mean_prob_a"]["value"] == pytest.approx(sum(row["prob_a"] for row in rows) / 24)
    assert found["win_rate"]["low"] < found["win_rate"]["value"] < found["win_rate"]["high"]
    assert found["win_rate"]["n"] == 24
    assert found["win_rate_length_controlled"]["value"] is not None
    assert found["counts"]["identical"] == len(identical)
    assert found["source"]["judges"] == ["fake:judge"]
    assert outcome.figures["win_rate"] == Figure(*(found["win_rate"][key] for key in ("value", "low", "high", "n")))
    known = content_of(config, "run.json")
    assert (known["command"], known["status"], known["counts"]["rows"]) == ("evaluate", "finished", 24)
    assert failures(config) == []


async def test_the_other_way_round_every_share_is_the_rest_of_one(config: EvaluateConfig) -> None:
    here = (await evaluate(replace(config, harmless=True))).figures
    back = replace(config, a=config.b, b=config.a, out=f"{config.out}-back", harmless=True)
    there = (await evaluate(back)).figures
    for name in MIRRORED:
        one, other = here[name], there[name]
        assert isinstance(one, Figure)
        assert isinstance(other, Figure)
        if one.value is None:
            assert other.value is None
            continue
        assert other.value == pytest.approx(1.0 - one.value, abs=TOLERANCE.get(name, 1e-12)), name
    assert there["harmless_rate"]["difference"].value == -here["harmless_rate"]["difference"].value  # type: ignore[index, operator]


async def test_a_policy_against_itself_is_at_one_half_and_asks_no_judge(config: EvaluateConfig) -> None:
    by = judge()
    itself = replace(config, b=config.a)
    await evaluate(itself, by=by)
    assert by.requests == []
    found = content_of(itself, "evaluation.json")
    for name in ("win_rate", "mean_prob_a", "win_rate_swap_consistent", "win_rate_length_controlled"):
        assert found[name]["value"] == 0.5


async def test_models_answer_the_prompts_and_are_compared_sample_by_sample(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    asked = replace(
        config,
        a="fake:p",
        b="fake:q",
        prompts=config.a,
        answering=AnswerConfig(policy_samples=2, policy_temperature=0.7),
    )
    p, q = policy(), policy(lambda request: "x", name="fake:q")
    outcome = await evaluate(asked, p, q)
    rows = data(asked)
    assert [row["id"] for row in rows] == [f"r{n}/{place}" for n in range(24) for place in range(2)]
    assert {row["response_b"] for row in rows} == {"x"}  # equal samples are kept, each is compared
    assert {request.temperature for request in p.requests if isinstance(request, GenerateRequest)} == {0.7}
    assert [row["topic"] for row in rows[::2]] == [n % 3 for n in range(24)]
    assert {(row["finish_reason_a"], row["policy_a"]) for row in rows} == {("stop", "fake:p")}
    assert "input_response" in rows[0]  # a column of the prompts
    assert content_of(asked, "evaluation.json")["counts"]["prompts"] == 24
    assert set(outcome.answering) == {"a", "b"}
    assert content_of(asked, "run.json")["answering"]["a"]["calls"]["asked"] == 48


async def test_a_model_answers_the_prompts_of_the_rows_it_stands_against(config: EvaluateConfig) -> None:
    beside = replace(config, a="fake:p")
    await evaluate(beside, policy())
    rows = data(beside)
    assert [row["id"] for row in rows] == [f"r{n}" for n in range(24)]
    assert all("kind answer" in row["response_a"] for row in rows)
    assert [row["topic"] for row in rows] == [n % 3 for n in range(24)]
    assert "input_response" not in rows[0]


async def test_a_prompt_that_a_model_fails_on_is_named_with_its_partner(config: EvaluateConfig) -> None:
    def refuses(request: Request) -> str:
        if "Question 7?" in request.messages[-1].content:
            raise RequestRefusedError("not that one")
        return writes(request)

    beside = replace(config, a="fake:p")
    outcome = await evaluate(beside, policy(refuses))
    assert [(each["id"], each["stage"]) for each in failures(beside)] == [
        ("r7", "answer of A: responses"),
        ("r7", "input"),
    ]
    assert "not that one" in failures(beside)[0]["error"]
    assert "fake:p has no (other) response to its prompt" in failures(beside)[1]["error"]
    assert (outcome.run.rows, outcome.run.failures) == (23, 2)
    assert "r7" not in {row["id"] for row in data(beside)}


async def test_a_row_that_the_judge_fails_on_is_named_and_in_no_figure(config: EvaluateConfig) -> None:
    def fails(request: Request) -> float:
        if "Question 5?" in request.messages[0].content and "harmless" in request.messages[0].content:
            raise RequestRefusedError("too much")
        return verdict(request)

    asked = replace(config, harmless=True)
    outcome = await evaluate(asked, by=judge(fails))
    assert outcome.run.failures == 1
    assert [(each["id"], each["stage"]) for each in failures(asked)] == [("r5", "harmlessness, response 1")]
    assert content_of(asked, "evaluation.json")["harmless_rate"]["a"]["n"] == 23
    assert (
        content_of(asked, "evaluation.json")["counts"] | {"rows": 23, "failures": 1}
        == content_of(asked, "evaluation.json")["counts"]
    )
    again = judge()
    assert (await evaluate(asked, by=again)).run.failures == 0
    assert len(again.requests) == 2  # what was answered is not asked again: the two single answers are missing


async def test_the_same_again_asks_nothing_and_writes_the_same_bytes(config: EvaluateConfig) -> None:
    asked = replace(config, a="fake:p", harmless=True)
    await evaluate(asked, policy())
    before = results(asked)
    again, writer = judge(), policy(lambda request: "something else")
    await evaluate(asked, writer, by=again)
    assert (again.requests, writer.requests) == ([], [])
    assert results(asked) == before


async def test_a_stopped_run_goes_on_and_comes_to_the_same(config: EvaluateConfig, tmp_path: Path) -> None:
    asked = replace(config, a="fake:p", calls=CallConfig(concurrency=1, max_retries=0))
    price = replace(asked.calls, price="1/1")

    def costly(request: Request) -> Any:
        return verdict(request)

    total = await evaluate(replace(asked, calls=price), policy(), by=judge(costly))
    spent = (total.run.progress.cost or 0.0) + sum(each.progress.cost or 0.0 for each in total.answering.values())
    cut = replace(asked, out=str(tmp_path / "cut"))
    for share in (0.1, 0.6, 0.9):
        with pytest.raises(BudgetExceededError):
            await evaluate(replace(cut, calls=replace(price, max_cost=spent * share)), policy())
        assert content_of(cut, "run.json")["status"] == "interrupted"
    await evaluate(cut, policy())
    assert results(cut) == results(asked)


async def test_a_higher_limit_continues_and_comes_to_the_same_as_one_run(
    config: EvaluateConfig, tmp_path: Path
) -> None:
    asked = replace(config, b="fake:p")
    first = judge()
    outcome = await evaluate(replace(asked, limit=6), policy(), by=first)
    assert (outcome.run.rows, outcome.run.failures) == (6, 0)  # the other rows of A wait: they are not without partner
    second = judge()
    await evaluate(asked, policy(), by=second)
    whole = replace(asked, out=str(tmp_path / "whole"))
    third = judge()
    await evaluate(whole, policy(), by=third)
    assert len(first.requests) + len(second.requests) == len(third.requests)
    assert results(asked) == results(whole)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"harmless": True}, "harmless"),
        ({"answering": AnswerConfig(policy_temperature=0.5)}, "policy_temperature"),
        ({"judging": JudgeConfig(orders="ab")}, "orders"),
        ({"source": SourceConfig(skip_bad_rows=True)}, "skip_bad_rows"),
    ],
)
async def test_a_folder_with_other_settings_is_refused_by_name(
    config: EvaluateConfig, change: dict[str, Any], named: str
) -> None:
    asked = replace(config, a="fake:p", limit=3)
    await evaluate(asked, policy())
    with pytest.raises(RunFolderError, match=named):
        await evaluate(replace(asked, **change), policy())


async def test_human_labels_of_a_file_are_joined_without_asking_again(config: EvaluateConfig, tmp_path: Path) -> None:
    await evaluate(config)
    before = results(config)
    labels = write(tmp_path / "human.jsonl", [{"id": f"r{n}", "human_label": "a" if n % 3 else "b"} for n in range(12)])
    by = judge()
    await evaluate(replace(config, human=labels), by=by)
    assert by.requests == []
    found = content_of(config, "evaluation.json")
    assert found["win_rate_human"]["value"] == pytest.approx(8 / 12)
    assert found["win_rate_prediction_powered"]["n"] == 12
    assert found["win_rate_prediction_powered"]["value"] is not None
    assert {name: text for name, text in results(config).items() if name != "evaluation.json"} == {
        name: text for name, text in before.items() if name != "evaluation.json"
    }


async def test_labels_of_other_rows_are_refused_before_a_judge_is_asked(config: EvaluateConfig, tmp_path: Path) -> None:
    by = judge()
    labels = write(tmp_path / "human.jsonl", [{"id": "another", "human_label": "a"}])
    with pytest.raises(InputError, match="none of its 1 ids is in the input"):
        await evaluate(replace(config, human=labels), by=by)
    assert by.requests == []


async def test_an_audit_and_a_trainer_read_the_rows(config: EvaluateConfig) -> None:
    await evaluate(config)
    read = read_judged(config.out)
    assert len(read.rows) == 24
    assert figures_of(read.rows, resamples=200)["win_rate"] == (await evaluate(config)).figures["win_rate"]


async def test_what_cannot_be_run_is_refused_before_anybody_is_asked(config: EvaluateConfig, tmp_path: Path) -> None:
    for wrong, words in (
        (replace(config, prompts=config.a), "prompts: A and B are rows, so that nobody answers prompts"),
        (replace(config, a="fake:0.5", b="fake:0.6"), "prompts: is missing, and A and B are both models"),
        (replace(config, a="openai"), "does not exist, expected a file or a folder"),
        (replace(config, a="opnai:x"), "unknown backend 'opnai' .*did you mean 'openai'"),
    ):
        with pytest.raises((ConfigError, InputError), match=words):
            await run_evaluate(wrong, judges=(judge(),))
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"holds a model, expected rows with responses; .* write hf:"):
        await run_evaluate(replace(config, a=str(model)), judges=(judge(),))
    with pytest.raises(ConfigError, match="is a reward model, which answers no questions"):
        await evaluate(replace(config, harmless=True), by=judge(capabilities=REWARDS))
    strangers = write(tmp_path / "c.jsonl", [{"prompt": "Another?", "response": "c"}])
    with pytest.raises(InputError, match="answers none of the prompts"):
        await evaluate(replace(config, b=strangers))
    assert not Path(config.out).exists()


async def test_a_reward_model_judges_pairs(config: EvaluateConfig) -> None:
    by = judge(lambda request: float(request.messages[-1].content.count("x")), capabilities=REWARDS)
    await evaluate(config, by=by)
    assert content_of(config, "evaluation.json")["swap_consistency"]["value"] == 1.0


async def test_a_policy_that_cannot_be_reached_leaves_a_run_that_can_be_resumed(config: EvaluateConfig) -> None:
    def down(request: Request) -> str:
        raise ServerFaultError("no route")

    asked = replace(config, a="fake:p", calls=CallConfig(max_retries=0))
    with pytest.raises(Exception, match="nothing has succeeded, stopped: no route"):
        await evaluate(asked, policy(down))
    assert content_of(asked, "run.json")["status"] == "interrupted"
    assert (await evaluate(asked, policy())).run.rows == 24


async def test_hostile_texts_pass_through_and_are_not_live_in_the_card(config: EvaluateConfig, tmp_path: Path) -> None:
    rows = [{"id": HOSTILE, "prompt": HOSTILE, "response": f"{HOSTILE} {side}"} for side in "ab"]
    files = [write(tmp_path / f"hostile-{n}.jsonl", [row]) for n, row in enumerate(rows)]
    asked = replace(config, a=files[0], b=files[1], harmless=True)
    await evaluate(asked)
    assert data(asked)[0]["response_b"] == f"{HOSTILE} b"
    card = (Path(asked.out) / "README.md").read_text()
    outside = "".join(part for number, part in enumerate(card.split("````")) if number % 2 == 0)
    assert "<script>" not in outside
    assert "\n# Heading" not in outside
    assert "\u202e" not in card


async def test_the_estimate_is_what_a_run_asks(config: EvaluateConfig, tmp_path: Path) -> None:
    asked = replace(config, harmless=True, backend=BackendConfig(judge=("fake:0.5",)), calls=CallConfig(price="1/1"))
    estimate = await estimate_evaluation(asked)
    by = judge(lambda request: 0.5, name="fake:0.5")
    outcome = await evaluate(asked, by=by)
    assert estimate.calls == len(by.requests)
    assert estimate.prompt_tokens == outcome.run.progress.usage.prompt_tokens
    assert estimate.cost == pytest.approx(outcome.run.progress.cost)
    answered = replace(asked, a="fake:0.7", harmless=False, answering=AnswerConfig(policy_max_tokens=5), limit=4)
    estimate = await estimate_evaluation(answered)
    assert (estimate.rows, estimate.calls, estimate.completion_tokens) == (4, 4 + 8, 4 * 5 + 8)
    assert not (tmp_path / "other").exists()


async def test_pairs_in_memory_come_to_the_same_figures(config: EvaluateConfig) -> None:
    outcome = await evaluate(replace(config, harmless=True))
    backend = judge()
    asker = Asker(backend, None, CallConfig(), CallCounts())
    settings = JudgeConfig()
    evaluator = evaluator_of([Judging(PairwiseJudge(settings), asker)], harmless_judges(settings, [backend], seed=0))
    pairs = [
        Comparison(row["id"], (Turn("user", row["prompt"]),), row["response_a"], row["response_b"])
        for row in data(config)
    ]
    judged, failed = await judge_pairs(pairs, evaluator)
    assert failed == []
    harmless = [each.harmless for each in judged if each.harmless is not None]
    assert figures_of([each.judged for each in judged], harmless, resamples=200) == outcome.figures
