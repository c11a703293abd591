from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlaif.backends.fake import REWARDS, FakeBackend
from rlaif.errors import (
    BackendUnusableError,
    BudgetExceededError,
    ConfigError,
    LowLabelMassError,
    PromptError,
    RequestRefusedError,
    RewardError,
    RunFolderError,
)
from rlaif.judge.config import JudgeConfig
from rlaif.records import Request, RewardRequest, ScoreRequest
from rlaif.rewards import patience
from rlaif.rewards.config import RewardConfig, parse_rewards
from rlaif.rewards.scoring import Scorer, weighted_sum
from rlaif.rewards.sources import PairLabel, Part
from rlaif.rollout_records import Score
from tests.rewards.rollouts import rater, rollout, settings
from tests.servers import Answer, ScriptedServer, free_port

MOCK = Path(__file__).resolve().parents[3] / "shared" / "tools" / "openai_server.py"
TEN, ONE = {10: 1.0}, {1: 1.0}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "RLAIF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("rlaif.engine.retry.FIRST_WAIT", 0.001)
    monkeypatch.setattr(patience, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(patience, "LONGEST_WAIT", 0.05)


Modules = Callable[[str, str], str]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Modules]:
    """Writes a module into the working directory and gives its name."""
    monkeypatch.chdir(tmp_path)
    written: list[str] = []

    def write(name: str, source: str) -> str:
        (tmp_path / f"{name}.py").write_text(source)
        written.append(name)
        return name

    yield write
    for name in written:
        sys.modules.pop(name, None)


def opened(*backends: FakeBackend, rewards: tuple[str, ...] = ("judge",), **keywords: Any) -> Scorer:
    """A scorer of fake judges that warns of nothing; keywords of the settings, or of `Scorer`."""
    own = {
        name: keywords.pop(name) for name in ("compares", "journal", "on_warning", "judge_patience") if name in keywords
    }
    config = RewardConfig(rewards, own.pop("judge_patience", 0.0))
    own = {"on_warning": pytest.fail, **own}
    return Scorer(config, settings(**keywords), own.pop("journal", None), backends=backends or None, **own)


def values(scorer: Scorer, *texts: str, **extra: Any) -> list[float | None]:
    """The rewards of one prompt's completions."""
    ((*scores,),) = scorer.submit([rollout(texts, **extra)]).result()
    return [score.value for score in scores]


# --- judges -----------------------------------------------------------------------------------------------------------


def test_the_judges_expected_score_on_its_scale() -> None:
    # 10 -> (10 - 5.5) / 4.5 = 1; 1 -> -1; half 10, half 1 -> (5.5 - 5.5) / 4.5 = 0; an empty completion is judged
    judge = rater(lambda text: {"best": TEN, "worst": ONE}.get(text, {1: 0.5, 10: 0.5}), latency=0.05)
    with opened(judge) as scorer:
        first = scorer.submit([rollout(["best", "worst"]), rollout([""], [("system", "Be kind."), ("user", "Hi.")])])
        second = scorer.submit([rollout(["best"], row="other")])
        assert second.result() == [(Score(pytest.approx(1.0), {"judge": pytest.approx(1.0)}),)]
        assert [[score.value for score in of_rollout] for of_rollout in first.result()] == [
            [pytest.approx(1.0), pytest.approx(-1.0)],
            [pytest.approx(0.0)],
        ]
        assert (scorer.counts.asked, scorer.counts.judge.calls) == (4, 3)  # "best" of one prompt is asked about once
        assert scorer.submit([]).result() == []
    shown = {request.messages[-1].content for request in judge.requests}
    assert any("Be kind." in text for text in shown)


def test_a_failed_judgement_has_no_reward_says_why_and_is_counted() -> None:
    def probs(text: str) -> dict[int, float]:
        if text == "low":
            raise LowLabelMassError("0.001 on the labels")
        if text == "no":
            raise RequestRefusedError("the server refuses")
        return TEN

    with opened(rater(probs)) as scorer:
        ((good, low, no),) = scorer.submit([rollout(["good", "low", "no"])]).result()
        assert good.value == pytest.approx(1)
        assert low == Score(None, {"judge": None}, "LowLabelMassError: 0.001 on the labels")
        assert no == Score(None, {"judge": None}, "RequestRefusedError: the server refuses")
        assert scorer.counts.failed == {"LowLabelMassError": 1, "RequestRefusedError": 1}


def test_a_panel_is_averaged_and_one_judge_may_be_missing() -> None:
    def refuse(text: str) -> dict[int, float]:
        if text == "odd":
            raise RequestRefusedError("no")
        return ONE

    judges = rater(lambda text: TEN, name="fake:kind"), rater(refuse, name="fake:strict")
    with opened(*judges, judging=JudgeConfig(allow_partial_panel=True)) as scorer:
        assert values(scorer, "text", "odd") == [pytest.approx(0), pytest.approx(1)]
        assert scorer.counts.partial == 1
    with opened(*judges) as scorer:
        assert values(scorer, "text", "odd") == [pytest.approx(0), None]


def test_a_wrong_key_and_a_judge_without_templates_stop_at_once(judge_server: ScriptedServer) -> None:
    with opened(judges=("openai:judge",), base_url=judge_server.url, judge_patience=60) as scorer:
        with pytest.raises(BackendUnusableError, match="wrong key"):
            values(scorer, "good", "unusable")
        assert values(scorer, "good") == [pytest.approx((9.999 - 5.5) / 4.5)]
    with pytest.raises(PromptError):
        opened(rater(lambda _: TEN), judging=JudgeConfig(task="nowhere.jinja"))


def test_a_judge_that_is_gone_for_good_stops_the_run() -> None:
    port = free_port()
    warnings: list[str] = []
    start = {"judges": ("openai:judge",), "base_url": f"http://127.0.0.1:{port}/v1", "max_retries": 2}
    with opened(**start, judge_patience=0.1, on_warning=warnings.append) as scorer:
        futures = [scorer.submit([rollout(["a", "b"], row=str(n))]) for n in range(3)]
        for future in futures:
            with pytest.raises(
                BackendUnusableError, match=r"openai:judge was down for 0.1 s.*the same command resumes"
            ):
                future.result()
    assert len(warnings) == 1
    assert warnings[0].startswith("openai:judge is down (http://127.0.0.1:")


def test_a_judge_that_comes_back_is_waited_for(judge_server: ScriptedServer) -> None:
    is_down = threading.Event()
    is_down.set()
    answer = judge_server._answer
    assert callable(answer)
    judge_server._answer = lambda received: Answer(b"", status=503) if is_down.is_set() else answer(received)
    warnings: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        threading.Timer(0.1, is_down.clear).start()

    with opened(judges=("openai:judge",), base_url=judge_server.url, judge_patience=60, on_warning=warn) as scorer:
        texts = [f"good {n}" for n in range(20)]
        assert values(scorer, *texts, "bad") == [pytest.approx((9.999 - 5.5) / 4.5)] * 20 + [None]
        assert scorer.counts.failed == {"LabelsUnseenError": 1}
    assert len(warnings) == 1


def test_the_budget_ends_the_run() -> None:
    with opened(rater(lambda _: TEN), price="1000/1000", max_cost=0.001) as scorer:
        values(scorer, "first")
        with pytest.raises(BudgetExceededError):
            values(scorer, "second")


# --- the journal ------------------------------------------------------------------------------------------------------


def test_a_second_scorer_asks_nothing_again(tmp_path: Path) -> None:
    first, second = rater(lambda text: {1 + len(text): 1.0}), rater(lambda _: {}, name="fake:handler")
    with opened(first, journal=tmp_path / "journal") as scorer:
        before = values(scorer, "a", "bbb", "")
        with pytest.raises(RunFolderError, match="another process"):
            opened(second, journal=tmp_path / "journal")
    with opened(second, journal=tmp_path / "journal") as scorer:
        assert values(scorer, "bbb", "", "a") == [before[1], before[2], before[0]]
        assert (scorer.counts.judge.calls, scorer.counts.judge.replayed) == (0, 3)
    assert second.requests == []


def test_closing_cancels_what_is_asked_and_keeps_what_was_answered(tmp_path: Path) -> None:
    judge = rater(lambda _: TEN, latency=0.05)
    scorer = opened(judge, journal=tmp_path / "journal", concurrency=1)
    assert values(scorer, "kept") == [pytest.approx(1)]
    lost = scorer.submit([rollout([str(n) for n in range(100)])])
    scorer.close()
    scorer.close()
    assert lost.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        scorer.submit([rollout(["a"])])
    with opened(rater(lambda _: {}), journal=tmp_path / "journal") as scorer:
        assert values(scorer, "kept") == [pytest.approx(1)]


# --- other sources ----------------------------------------------------------------------------------------------------


def test_a_weighted_sum_by_hand(module: Modules) -> None:
    name = module("sums", "def length(completions):\n    return [len(text) or None for text in completions]\n")
    # 0.5 * 1 - 2 * 3 = -5.5 for "abc" rated 10; 0.5 * -1 - 2 * 1 = -2.5 for "a" rated 1; None where a part is
    judge = rater(lambda text: TEN if text == "abc" else ONE)
    with opened(judge, rewards=("0.5*judge", f"-2*{name}:length")) as scorer:
        ((one, other, empty),) = scorer.submit([rollout(["abc", "a", ""])]).result()
        assert one == Score(pytest.approx(-5.5), {"judge": pytest.approx(1), "sums:length": 3.0})
        assert other == Score(pytest.approx(-2.5), {"judge": pytest.approx(-1), "sums:length": 1.0})
        assert empty == Score(None, {"judge": pytest.approx(-1), "sums:length": None})
        assert (scorer.counts.dropped, scorer.counts.failed) == ({"sums:length": 1}, {})
        assert scorer.describe() == {
            "judge": {"kind": "judge", "weight": 0.5},
            "sums:length": {"kind": "function", "weight": -2.0},
        }


def test_errors_of_several_sources_are_told_apart() -> None:
    specs = parse_rewards(["judge", "2*m:f"])
    score = weighted_sum(specs, [Part(None, "LowLabelMassError: little"), Part(None)], "row 'r', completion 1")
    assert score == Score(None, {"judge": None, "m:f": None}, "judge: LowLabelMassError: little")


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([math.nan, 1.0], "reward judge is nan for row 'r', completion 1"),
        ([1.0, math.inf], "reward m:f is inf"),
        ([None, -math.inf], "reward m:f is -inf"),
        ([1.0, 1e308], "the weighted sum of rewards is inf"),
    ],
)
def test_a_sum_that_is_not_finite_stops_the_run(parts: list[float | None], words: str) -> None:
    specs = parse_rewards(["judge", "2*m:f"])
    with pytest.raises(RewardError, match=words):
        weighted_sum(specs, [Part(value) for value in parts], "row 'r', completion 1")


def test_a_function_that_fails_stops_the_run(module: Modules) -> None:
    name = module("faulty", "async def f(completions, **columns):\n    return [float(text) for text in completions]\n")
    with opened(rewards=(f"{name}:f",)) as scorer:
        assert values(scorer, "1.5", "2") == [1.5, 2.0]
        with pytest.raises(RewardError, match="faulty:f returned NaN for row 'row', completion 2 of 2"):
            values(scorer, "1", "nan")
        with pytest.raises(RewardError, match="faulty:f failed on 1 completions, .*could not convert") as caught:
            values(scorer, "x")
        assert isinstance(caught.value.__cause__, ValueError)
        assert scorer.describe() == {"faulty:f": {"kind": "function", "weight": 1.0}}


def test_all_functions_that_there_are_not_are_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"no module 'nowhere_1'.*; .*no module 'nowhere_2'"):
        opened(rewards=("nowhere_1:f", "nowhere_2:f", "judge"))


def test_a_reward_models_own_score(reward_model: str) -> None:
    folder = reward_model.removeprefix("hf-reward:")
    with opened(rewards=(folder,)) as scorer, opened(judges=(reward_model,)) as asked_as_judge:
        found = values(scorer, "good", "so so", "")
        assert len(set(found)) == 3
        assert found == values(asked_as_judge, "good", "so so", "")
        assert scorer.counts.other.calls == 3
        (source,) = scorer.identity().values()
        assert (source["backend"], source["weight"]) == ("hf-reward", 1.0)


def test_a_server_is_asked_with_its_token_and_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLAIF_TOKEN", "the-token")
    good = Answer({"items": [{"reward": 0.0, "rating": 10.0, "rating_probs": [0.0] * 9 + [1.0]}]})
    down = Answer({"error": {"name": "ServerFaultError", "message": "no judge"}}, status=503)
    low = Answer({"error": {"name": "LowLabelMassError", "message": "little"}}, status=503)
    with ScriptedServer([down, down, good, low]) as server:
        url = server.url.removesuffix("/v1")
        warnings: list[str] = []
        with opened(rewards=(url,), journal=tmp_path, judge_patience=60, on_warning=warnings.append) as scorer:
            # down when asked, down when asked whether it is there, there again ("good"), and then no score
            assert values(scorer, "x") == [None]
            assert scorer.counts.failed == {"BackendError": 1}
        assert len(warnings) == 1
        assert {received.headers["authorization"] for received in server.received} == {"Bearer the-token"}
    with ScriptedServer(good) as server:
        url = server.url.removesuffix("/v1")
        for _ in range(2):
            with opened(rewards=(f"0.5*{url}",), journal=tmp_path) as scorer:
                assert values(scorer, "x", "y") == [0.5, 0.5]
        assert len(server.received) == 2
        assert "the-token" not in json.dumps(scorer.identity())


# --- pairs ------------------------------------------------------------------------------------------------------------


def test_the_judge_compares_in_both_orders() -> None:
    def prefers(request: Request) -> float:
        assert isinstance(request, ScoreRequest)
        shown = request.messages[-1].content
        return 0.9 if shown.index("kind") < shown.index("rude") else 0.3

    # Shown first, "kind" gets 0.9; shown second, 1 - 0.3 = 0.7; the mean is 0.8, and 0.2 for it as the second one.
    with opened(FakeBackend(prefers), compares=True) as scorer:
        labels = scorer.compare(
            [rollout(["kind", "rude"]), rollout(["rude", "kind"]), rollout(["same", "same"])]
        ).result()
        assert [label.prob_a for label in labels] == [pytest.approx(0.8), pytest.approx(0.2), 0.5]
        assert labels[0] == PairLabel(pytest.approx(0.8), pytest.approx(0.9), pytest.approx(0.7))
        with pytest.raises(ValueError, match="has 1 completions, expected two"):
            scorer.compare([rollout(["alone"])])
        assert scorer.counts.asked == 3


def test_a_comparison_that_fails_has_no_label_and_one_that_is_clamped_keeps_within() -> None:
    def answer(request: Request) -> float:
        if "odd" in request.messages[-1].content:
            raise LowLabelMassError("little")
        return 1.0 - 1e-9 if request.messages[-1].content.count("x") > 2 else 0.5

    with opened(FakeBackend(answer), compares=True, judging=JudgeConfig(orders="ab", clamp=True)) as scorer:
        labels = scorer.compare([rollout(["odd", "b"]), rollout(["xxx", "b"])]).result()
        assert labels[0] == PairLabel(None, error="LowLabelMassError: little")
        assert (labels[1].prob_a, labels[1].prob_a_ba) == (pytest.approx(0.6), None)
        assert scorer.counts.failed == {"LowLabelMassError": 1}


def test_other_rewards_compare_by_the_sigmoid_of_their_difference(module: Modules) -> None:
    name = module("lengths", "def f(completions):\n    return [len(text) or None for text in completions]\n")
    with opened(rewards=(f"0.5*{name}:f",)) as scorer:
        labels = scorer.compare([rollout(["four", "ab"]), rollout(["", "a"])]).result()
    assert labels == [PairLabel(pytest.approx(1 / (1 + math.exp(-1)))), PairLabel(None)]  # 0.5 * (4 - 2) = 1
    with opened(rater(lambda text: TEN if text == "a" else ONE), rewards=("2*judge",), compares=True) as scorer:
        (label,) = scorer.compare([rollout(["a", "b"])]).result()
    assert label == PairLabel(pytest.approx(1 / (1 + math.exp(-4))))  # a weight needs a number: 2 * (1 - -1) = 4


def test_a_reward_model_as_judge_compares_by_its_rewards() -> None:
    def score(request: Request) -> float:
        assert isinstance(request, RewardRequest)
        return float(len(request.response))

    with opened(FakeBackend(score, capabilities=REWARDS)) as scorer:
        (label,) = scorer.compare([rollout(["abc", "a"])]).result()
        assert label.prob_a == pytest.approx(1 / (1 + math.exp(-2)))


# --- what can change a reward -----------------------------------------------------------------------------------------


def identity(*rewards: str, **keywords: Any) -> dict[str, Any]:
    with opened(rater(lambda _: TEN), rewards=rewards or ("judge",), **keywords) as scorer:
        found = scorer.identity()
    assert json.loads(json.dumps(found)) == found
    return found


def test_identity_holds_what_changes_a_reward_and_nothing_else(module: Modules) -> None:
    name = module("changing", "def f(completions): return [0] * len(completions)")
    plain = identity("judge", f"{name}:f")
    assert identity("judge", f"{name}:f", concurrency=3, max_retries=5) == plain
    assert identity("judge", f"{name}:f", judging=JudgeConfig(task="harmlessness")) != plain
    assert identity("judge", f"{name}:f", judging=JudgeConfig(constitution="helpful-harmless")) != plain
    assert identity("2*judge", f"{name}:f") != plain
    assert identity("judge", f"{name}:f", compares=True) == plain  # it is not the judge that compares there
    assert identity("judge", compares=True) != identity("judge")
    sys.modules.pop(name)
    module("changing", "def f(completions): return [1] * len(completions)")
    assert identity("judge", f"{name}:f") != plain


# --- real judges ------------------------------------------------------------------------------------------------------


def test_the_judge_that_ships() -> None:
    with opened(judges=("builtin:tiny",)) as scorer:
        found = values(scorer, "Blue.", "")
        assert all(value is not None and -1 <= value <= 1 for value in found)
        assert found[0] != found[1]


@contextmanager
def mock_server(port: int, *options: str) -> Iterator[Callable[[], dict[str, Any]]]:
    command = [sys.executable, str(MOCK), "--port", str(port), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield lambda: json.loads(_post(port, "/stats", {}))
        finally:
            process.kill()


def _post(port: int, path: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request) as reply:
        content: bytes = reply.read()
    return content


RATED_8 = (0.5 * 8 + 0.25 * 7 + 0.2 * 9 + 0.05 * 6 - 5.5) / 4.5
"""What the model "rating" of the shared server says: 0.5222."""


@pytest.mark.skipif(not MOCK.is_file(), reason="needs ../shared/tools")
def test_two_hundred_completions_at_a_real_server_with_faults_a_few_at_a_time() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    with mock_server(port, "--latency-ms", "5") as stats:
        _post(port, "/config", {"p429": 0.1, "p500": 0.1, "malformed": 0.05})
        with opened(judges=("openai:rating",), base_url=url, concurrency=8, max_retries=20) as scorer:
            futures = [scorer.submit([rollout([f"{n} {k}" for k in range(4)], row=str(n))]) for n in range(50)]
            scores = [score for future in futures for of_rollout in future.result() for score in of_rollout]
            retries = scorer.counts.judge.retries
        assert [score.value for score in scores] == [pytest.approx(RATED_8, abs=2e-3)] * 200
        seen = stats()
    assert seen["unique"] == seen["ok_unique"] == 200
    assert seen["received"] == 200 + retries > 200
    assert 1 < seen["max_in_flight"] <= 8


@pytest.mark.skipif(not MOCK.is_file(), reason="needs ../shared/tools")
def test_a_server_that_is_started_late_and_one_that_is_killed_and_started_again() -> None:
    port = free_port()
    is_wanted = threading.Event()
    start = {"judges": ("openai:rating",), "base_url": f"http://127.0.0.1:{port}/v1", "max_retries": 1}
    with opened(**start, judge_patience=60, on_warning=lambda _: is_wanted.set()) as scorer:
        for batch in range(2):
            is_wanted.clear()
            future = scorer.submit([rollout([f"{batch} a", f"{batch} b"])])
            assert is_wanted.wait(30)
            assert not future.done()
            with mock_server(port):
                ((one, other),) = future.result(30)
            assert one.value == other.value == pytest.approx(RATED_8, abs=2e-3)
        assert scorer.counts.failed == {}
