"""The labeling run: what is written, what is resumed, and what a failure becomes."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import REWARDS, FakeBackend
from rlaif.engine.config import CallConfig, LabelConfig, SourceConfig
from rlaif.engine.explaining import explain_row
from rlaif.engine.labeling import LabelOutcome, run_label
from rlaif.engine.listening import SilentListener
from rlaif.engine.run_folder import RunFolder
from rlaif.errors import (
    BackendUnusableError,
    BudgetExceededError,
    ConfigError,
    LogprobsUnavailableError,
    LowLabelMassError,
    PromptError,
    RequestRefusedError,
    RlaifError,
    RunFolderError,
    ServerFaultError,
)
from rlaif.judge.config import JudgeConfig
from rlaif.judge.constitutions import load_constitution
from rlaif.records import CandidateLogprobs, Request, ScoreRequest, TokenLogprob


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"id": f"row {n}", "prompt": f"Question {n}?", "response_a": "y" * n, "response_b": f"no {n}", "source": n % 3}
        for n in range(count)
    ]


@pytest.fixture
def config(tmp_path: Path) -> LabelConfig:
    path = tmp_path / "comparisons.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows(40)))
    return LabelConfig(str(path), str(tmp_path / "run"))


async def label(config: LabelConfig, backend: FakeBackend) -> LabelOutcome:
    return await run_label(config, backends=(backend,))


def written(config: LabelConfig) -> pd.DataFrame:
    return pd.read_parquet(Path(config.out) / "data")


def failures(config: LabelConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(config.out) / "failures.jsonl").read_text().splitlines()]


def run_json(config: LabelConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(config.out) / "run.json").read_text())
    return content


def failing(error: Callable[[], RlaifError], *numbers: int) -> Callable[[Request], float]:
    """Fails for the rows of these numbers, in order ba only."""

    def handler(request: Request) -> float:
        content = request.messages[0].content
        if any(f"Question {n}?" in content and f"### Response 1\nno {n}\n" in content for n in numbers):
            raise error()
        return 0.8

    return handler


async def test_every_row_comes_out_in_input_order_with_its_own_columns(config: LabelConfig) -> None:
    backend = FakeBackend(lambda request: 0.75)
    outcome = await label(config, backend)
    table = written(config)
    assert list(table["id"]) == [f"row {n}" for n in range(40)]
    assert (table["prob_a"] == 0.5).all()
    assert (table["prob_a_ab"] == 0.75).all()
    assert (table["prob_a_ba"] == 0.25).all()
    assert table["is_tie"].all()
    assert list(table["source"]) == [n % 3 for n in range(40)]
    assert (outcome.rows, outcome.failures, len(backend.requests)) == (40, 0, 80)
    assert outcome.statistics.swap_consistency == 0.0
    assert failures(config) == []
    assert run_json(config)["status"] == "finished"
    assert (Path(config.out) / "README.md").is_file()


async def test_the_same_command_again_asks_nothing_and_writes_the_same(config: LabelConfig) -> None:
    await label(config, FakeBackend(lambda request: 0.75))
    before = written(config)
    again = FakeBackend(lambda request: 0.1)
    outcome = await label(config, again)
    assert again.requests == []
    assert outcome.progress.replayed == 80
    pd.testing.assert_frame_equal(written(config), before)


async def test_a_higher_limit_continues(config: LabelConfig) -> None:
    await label(replace(config, limit=10), FakeBackend(lambda request: 0.75))
    assert len(written(config)) == 10
    second = FakeBackend(lambda request: 0.75)
    await label(replace(config, limit=25, calls=CallConfig(concurrency=3)), second)
    assert len(written(config)) == 25
    assert len(second.requests) == 30


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"judging": JudgeConfig(orders="ab")}, "orders"),
        ({"judging": JudgeConfig(task="summarization")}, "task"),
        ({"judging": JudgeConfig(constitution="concise")}, "constitution"),
    ],
)
async def test_a_folder_with_other_settings_is_refused_by_name(
    config: LabelConfig, change: dict[str, Any], named: str
) -> None:
    await label(replace(config, limit=1), FakeBackend(lambda request: 0.75))
    with pytest.raises(RunFolderError, match=named):
        await label(replace(config, **change), FakeBackend(lambda request: 0.75))


async def test_another_judge_or_input_is_refused_too(config: LabelConfig) -> None:
    await label(config, FakeBackend(lambda request: 0.75))
    with pytest.raises(RunFolderError, match="judge"):
        await label(config, FakeBackend(lambda request: 0.75, name="fake:other"))
    with Path(config.input).open("a") as file:
        file.write(json.dumps(rows(41)[40]) + "\n")
    with pytest.raises(RunFolderError, match="input"):
        await label(config, FakeBackend(lambda request: 0.75))


async def test_a_folder_that_is_no_run_is_left_alone(config: LabelConfig) -> None:
    Path(config.out).mkdir()
    (Path(config.out) / "thesis.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="holds no run"):
        await label(config, FakeBackend(lambda request: 0.75))
    assert (Path(config.out) / "thesis.txt").read_text() == "precious"


async def test_one_failed_order_fails_the_row_and_its_sibling_stays_journaled(config: LabelConfig) -> None:
    outcome = await label(config, FakeBackend(failing(lambda: LowLabelMassError("too little"), 3, 7)))
    assert (outcome.rows, outcome.failures) == (38, 2)
    assert "row 3" not in set(written(config)["id"])
    assert failures(config) == [
        {"id": f"row {n}", "stage": "ba", "error": "LowLabelMassError: too little", "attempts": 1} for n in (3, 7)
    ]
    healthy = FakeBackend(lambda request: 0.8)
    outcome = await label(config, healthy)
    assert (outcome.rows, outcome.failures, len(healthy.requests)) == (40, 0, 2)
    assert list(written(config)["id"]) == [f"row {n}" for n in range(40)]
    assert failures(config) == []


async def test_transient_faults_are_retried_until_they_are_not(config: LabelConfig) -> None:
    attempts: dict[str, int] = {}

    def handler(request: Request) -> float:
        content = request.messages[0].content
        attempts[content] = attempts.get(content, 0) + 1
        if "Question 5?" in content and attempts[content] <= (1 if "### Response 1\nno 5\n" in content else 99):
            raise ServerFaultError("500", retry_after=0.0)
        return 0.8

    outcome = await label(replace(config, limit=8, calls=CallConfig(max_retries=1)), FakeBackend(handler))
    assert (outcome.rows, outcome.failures) == (7, 1)
    assert failures(config) == [{"id": "row 5", "stage": "ab", "error": "ServerFaultError: 500", "attempts": 2}]


async def test_an_unusable_judge_stops_the_run_at_once(config: LabelConfig) -> None:
    def handler(request: Request) -> float:
        raise BackendUnusableError("401: wrong key")

    backend = FakeBackend(handler)
    with pytest.raises(BackendUnusableError, match="wrong key"):
        await label(replace(config, calls=CallConfig(concurrency=2)), backend)
    assert len(backend.requests) <= 4
    assert run_json(config)["status"] == "interrupted"


@pytest.mark.parametrize(
    "error", [RequestRefusedError("400: no such field"), LogprobsUnavailableError("no top_logprobs")]
)
async def test_a_judge_that_refuses_the_first_rows_stops_the_run(config: LabelConfig, error: RlaifError) -> None:
    def handler(request: Request) -> float:
        raise error

    backend = FakeBackend(handler)
    with pytest.raises(BackendUnusableError, match=str(error)):
        await label(replace(config, calls=CallConfig(concurrency=2)), backend)
    assert len(backend.requests) <= 10


async def test_refusals_that_overtake_the_answers_of_the_first_rows_stop_nothing(config: LabelConfig) -> None:
    class Filtered(FakeBackend):
        async def score(self, request: ScoreRequest) -> CandidateLogprobs:
            if any(f"Question {n}?" in request.messages[0].content for n in range(1, 9)):
                raise RequestRefusedError("400: content filter")
            return await super().score(request)

    outcome = await label(config, Filtered(lambda request: 0.8, latency=0.01))
    assert (outcome.rows, outcome.failures) == (32, 8)


async def test_identical_responses_are_no_sign_of_a_working_judge(config: LabelConfig) -> None:
    same = [{**row, "response_b": row["response_a"]} if n < 5 else row for n, row in enumerate(rows(40))]
    Path(config.input).write_text("".join(json.dumps(row) + "\n" for row in same))

    def handler(request: Request) -> float:
        raise RequestRefusedError("400: no such field")

    with pytest.raises(BackendUnusableError, match="no such field"):
        await label(config, FakeBackend(handler))


async def test_judges_of_one_name_are_refused_and_not_mixed_up(config: LabelConfig) -> None:
    twins = tuple(FakeBackend(lambda request, prob=prob: prob, name="fake:x") for prob in (0.9, 0.1))
    with pytest.raises(ConfigError, match="fake:x is named twice"):
        await run_label(config, backends=twins)


async def test_logprobs_that_are_no_numbers_fail_the_row_now_and_after_a_resume(config: LabelConfig) -> None:
    def handler(request: Request) -> CandidateLogprobs:
        return CandidateLogprobs((TokenLogprob("1", math.nan), TokenLogprob("2", -1.0), TokenLogprob("x", -math.inf)))

    for _ in range(2):
        outcome = await label(replace(config, limit=2), FakeBackend(handler))
        assert (outcome.rows, outcome.failures) == (0, 2)
        assert "NaN" in failures(config)[0]["error"]


async def test_rows_that_cannot_be_read_count_as_done_and_as_to_do(config: LabelConfig) -> None:
    with Path(config.input).open("a") as file:
        file.write("{}\n")
    skipping = replace(config, source=SourceConfig(skip_bad_rows=True), limit=10)
    progress = (await label(skipping, FakeBackend(lambda request: 0.8))).progress
    assert (progress.rows_done, progress.rows_total) == (11, 11)


async def test_one_principle_makes_no_column_by_principle(config: LabelConfig) -> None:
    judging = JudgeConfig(constitution="helpful-harmless", principles="all")
    one, two = (principle.id for principle in load_constitution("helpful-harmless").principles[:2])
    for ids, is_there in ((one, False), (f"{one},{two}", True)):
        out = replace(config, out=f"{config.out} {is_there}", judging=replace(judging, principles=ids), limit=1)
        await label(out, FakeBackend(lambda request: 0.8))
        assert ("by_principle" in written(out)) is is_there


async def test_refused_rows_after_a_success_are_only_failures(config: LabelConfig) -> None:
    outcome = await label(config, FakeBackend(failing(lambda: RequestRefusedError("400"), *range(20, 40))))
    assert (outcome.rows, outcome.failures) == (20, 20)


async def test_a_server_that_is_gone_stops_the_run_instead_of_failing_every_row(
    config: LabelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(request: Request) -> float:
        raise ServerFaultError("no answer", retry_after=0.0)

    once = replace(config, calls=CallConfig(max_retries=0, concurrency=2))
    with pytest.raises(BackendUnusableError, match="nothing has succeeded, stopped: no answer"):
        await label(once, FakeBackend(gone))
    monkeypatch.setattr("rlaif.engine.rows.LOST_ROWS_THAT_STOP", 5)
    backend = FakeBackend(failing(lambda: ServerFaultError("no answer"), *range(20, 40)))
    with pytest.raises(BackendUnusableError, match="the last 5 rows failed, stopped: no answer"):
        await label(once, backend)
    assert run_json(config)["counts"]["rows"] >= 18
    assert run_json(config)["status"] == "interrupted"


async def test_a_template_that_fails_on_the_first_rows_stops_the_run(config: LabelConfig, tmp_path: Path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ contxt }}")
    with pytest.raises(PromptError, match="'contxt' is undefined"):
        await label(replace(config, judging=JudgeConfig(task=str(tmp_path / "mine.jinja"))), FakeBackend(lambda _: 0.5))


async def test_a_key_in_an_address_reaches_no_file(config: LabelConfig) -> None:
    secret = replace(config, backend=BackendConfig(base_url=("http://127.0.0.1:9/v1?api-key=hunter2",)))
    await run_label(
        secret,
        backends=(FakeBackend(lambda _: 0.5),),
        command="rlaif label --base-url http://127.0.0.1:9/v1?api-key=hunter2",
    )
    for path in Path(config.out).rglob("*"):
        assert not path.is_file() or b"hunter2" not in path.read_bytes(), path
    assert run_json(config)["config"]["backend"]["base_url"] == ["http://127.0.0.1:9/v1"]


async def test_a_spent_budget_stops_cleanly_and_a_higher_one_resumes(config: LabelConfig) -> None:
    def priced(budget: float) -> LabelConfig:
        return replace(config, calls=CallConfig(concurrency=1, price="1000/0", max_cost=budget))

    first = FakeBackend(lambda request: 0.75)
    with pytest.raises(BudgetExceededError, match="max-cost"):
        await label(priced(1.0), first)
    assert 0 < len(first.requests) < 80
    assert run_json(config)["cost_usd"] >= 1.0
    second = FakeBackend(lambda request: 0.75)
    outcome = await label(priced(1e9), second)
    assert outcome.rows == 40
    assert len(first.requests) + len(second.requests) == 80


class TestPrinciplesDrawn:
    """`--principles sample`."""

    JUDGING = JudgeConfig(constitution="helpful-harmless", principles="sample")

    async def test_the_draw_is_of_seed_and_row_alone(self, config: LabelConfig, tmp_path: Path) -> None:
        config = replace(config, judging=self.JUDGING)
        await label(config, FakeBackend(lambda request: 0.75))
        drawn = dict(zip(written(config)["id"], written(config)["principle"], strict=True))
        assert set(drawn.values()) == {each.id for each in load_constitution("helpful-harmless").principles}
        fewer = [
            {**row, "prompt": "Another?"} for row in rows(40)[30:3:-2]
        ]  # another order, other texts and neighbours
        path = tmp_path / "fewer.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in fewer))
        again = replace(config, input=str(path), out=str(tmp_path / "again"), limit=9)
        await label(replace(again, judging=replace(self.JUDGING, orders="ab")), FakeBackend(lambda request: 0.2))
        found = dict(zip(written(again)["id"], written(again)["principle"], strict=True))
        assert len(found) == 9
        assert found == {name: drawn[name] for name in found}
        other = replace(config, out=str(tmp_path / "other"), seed=1)
        await label(other, FakeBackend(lambda request: 0.75))
        assert list(written(other)["principle"]) != list(drawn.values())

    async def test_the_row_names_what_its_judge_was_asked(self, config: LabelConfig) -> None:
        config = replace(config, judging=self.JUDGING)
        backend = FakeBackend(lambda request: 0.75)
        await label(config, backend)
        texts = {each.id: each.text for each in load_constitution("helpful-harmless").principles}
        prompts = [request.messages[0].content for request in backend.requests]
        for row in written(config).itertuples():
            asked = [prompt for prompt in prompts if f"{row.prompt}\n" in prompt]
            assert len(asked) == 2
            assert all(texts[row.principle] in prompt for prompt in asked)
            explained = explain_row(RunFolder(Path(config.out), "show"), row.id)
            assert [call.stage for call in explained.calls] == [f"ab, {row.principle}", f"ba, {row.principle}"]


async def test_the_card_names_weights_where_they_differ(config: LabelConfig, tmp_path: Path) -> None:
    for name, weight in (("unequal", 2), ("equal", 1)):
        file = tmp_path / f"{name}.json"
        principles = [{"id": "kind", "text": "Kinder?", "weight": weight}, {"id": "brief", "text": "Shorter?"}]
        file.write_text(json.dumps({"name": name, "principles": principles}))
        run = replace(config, out=str(tmp_path / name), judging=JudgeConfig(constitution=str(file)))
        await label(run, FakeBackend(lambda request: 0.75))
        card = (tmp_path / name / "README.md").read_text()
        assert ("- `kind` (weight 2): Kinder?\n- `brief` (weight 1): Shorter?" in card) == (weight == 2)
        assert ("- `kind`: Kinder?\n- `brief`: Shorter?" in card) == (weight == 1)


class Heard(SilentListener):
    def __init__(self) -> None:
        self.messages: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)


class TestClamp:
    async def test_only_the_label_is_clamped_and_what_it_was_is_kept(self, config: LabelConfig) -> None:
        judging = JudgeConfig(constitution="helpful-harmless", principles="helpful,polite", orders="ab")
        plain = replace(config, judging=judging)
        clamped = replace(config, out=f"{config.out}-clamped", judging=replace(judging, clamp="0.3-0.7"))
        for each in (plain, clamped):
            await label(each, FakeBackend(lambda request: (hash_of(request) % 97 + 1) / 99))
        before, after = written(plain), written(clamped)
        place = list(before.columns).index("label_mass_ab")
        assert list(after.columns) == [*before.columns[:place], "raw_prob_a", *before.columns[place:]]
        # what lies outside goes to the end of the range, the rest stays
        assert list(after["prob_a"]) == [min(0.7, max(0.3, prob)) for prob in before["prob_a"]]
        assert set(after["prob_a"]) > {0.3, 0.7}
        assert list(after["chosen_prob"]) == [max(prob, 1 - prob) for prob in after["prob_a"]]
        same = [name for name in before.columns if name not in ("prob_a", "chosen_prob")]
        pd.testing.assert_frame_equal(after[same], before[same])
        assert list(after["raw_prob_a"]) == list(before["prob_a"])
        counts, plain_counts = run_json(clamped)["counts"], run_json(plain)["counts"]
        assert counts == plain_counts
        assert "## Clamp\n\n`prob_a` is kept within `0.3-0.7`" in (Path(clamped.out) / "README.md").read_text()
        assert "raw_prob_a" not in (Path(plain.out) / "README.md").read_text()

    async def test_it_is_part_of_the_run(self, config: LabelConfig) -> None:
        clamped = replace(config, judging=JudgeConfig(cot=True, clamp=True))
        await label(clamped, FakeBackend(lambda request: 0.75))
        assert run_json(clamped)["decisive"]["clamp"] == "0.4-0.6"
        again = FakeBackend(lambda request: 0.75)
        await label(replace(clamped, judging=JudgeConfig(cot=True, clamp="0.40-0.60")), again)
        assert again.requests == []
        with pytest.raises(RunFolderError, match=r'clamp .was "0.4-0.6", now nothing'):
            await label(replace(clamped, judging=JudgeConfig(cot=True)), again)

    async def test_a_run_from_before_there_was_a_clamp_goes_on(self, config: LabelConfig) -> None:
        await label(replace(config, limit=10), FakeBackend(lambda request: 0.75))
        known = run_json(config)
        del known["decisive"]["clamp"], known["config"]["judging"]["clamp"]
        (Path(config.out) / "run.json").write_text(json.dumps(known))
        backend = FakeBackend(lambda request: 0.75)
        await label(config, backend)
        assert (len(written(config)), len(backend.requests)) == (40, 60)

    async def test_reward_models_are_clamped_too(self, config: LabelConfig) -> None:
        clamped = replace(config, judging=JudgeConfig(clamp=True))
        await label(clamped, FakeBackend(lambda request: float(len(request.response)), capabilities=REWARDS))  # type: ignore[union-attr]
        # rewards 9 and 4: sigmoid(5) = 0.9933
        row = written(clamped).iloc[9]
        assert (row["prob_a"], row["raw_prob_a"]) == (0.6, pytest.approx(0.993307, abs=1e-6))
        assert run_json(clamped)["decisive"]["clamp"] == "0.4-0.6"

    @pytest.mark.parametrize(("cot", "said"), [(False, 1), (True, 0)])
    async def test_without_reasons_it_is_said_what_it_is_meant_for(
        self, config: LabelConfig, cot: bool, said: int
    ) -> None:
        heard = Heard()
        judging = JudgeConfig(cot=cot, clamp=True)
        await run_label(replace(config, judging=judging), heard, backends=(FakeBackend(lambda request: 0.75),))
        assert len([text for text in heard.messages if "--clamp is meant for the labels of --cot" in text]) == said


async def test_equal_requests_are_asked_once(config: LabelConfig) -> None:
    same = [{**row, "prompt": "Same?", "response_a": "a", "response_b": "b"} for row in rows(30)]
    Path(config.input).write_text("".join(json.dumps(row) + "\n" for row in same))
    backend = FakeBackend(lambda request: 0.75, latency=0.001)
    outcome = await label(config, backend)
    assert (outcome.rows, len(backend.requests)) == (30, 2)


async def test_no_result_depends_on_concurrency(config: LabelConfig, tmp_path: Path) -> None:
    judging = JudgeConfig(constitution="helpful-harmless", principles="sample", orders="random")
    one = replace(config, judging=judging, calls=CallConfig(concurrency=1))
    many = replace(one, out=str(tmp_path / "many"), calls=CallConfig(concurrency=32))
    for each in (one, many):
        await label(each, FakeBackend(lambda request: (hash_of(request) % 97 + 1) / 99, latency=0.0))
    pd.testing.assert_frame_equal(written(one), written(many))


def hash_of(request: Request) -> int:
    return sum(map(ord, request.messages[0].content))
