"""The Python API: a judge in scripts, in threads and in async code."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import pandas as pd
import pytest

import rlaif
from rlaif.backends.fake import FakeBackend
from rlaif.errors import ConfigError, InputError, LowLabelMassError, RlaifError
from rlaif.records import Request

ROWS = [{"prompt": f"Q{n}?", "response_a": f"a{n}", "response_b": f"b{n}", "n": n} for n in range(5)]


def prefers_a(request: Request) -> float:
    content = request.messages[0].content
    return 0.9 if content.split("### Response 1\n")[1].startswith("a") else 0.3


def test_compare_gives_both_orders() -> None:
    with rlaif.Judge(FakeBackend(prefers_a)) as judge:
        judgment = judge.compare("Q?", "a", "b")
        assert judgment.prob_a == pytest.approx(0.8)
        assert (judgment.prob_a_ab, judgment.prob_a_ba) == (pytest.approx(0.9), pytest.approx(0.7))
        assert judge.compare("Q?", "b", "a").prob_a == pytest.approx(0.2)
        assert judge.compare([{"role": "user", "content": "Q?"}], "a", "b").prob_a == pytest.approx(0.8)


def test_compare_clamps() -> None:
    with rlaif.Judge(FakeBackend(prefers_a), clamp=True) as judge:
        there, back = judge.compare("Q?", "a", "b"), judge.compare("Q?", "b", "a")
        assert judge.label(ROWS)["prob_a"] == [0.6] * 5
    assert (there.prob_a, back.prob_a) == (0.6, 0.4)
    assert (there.prob_a_ab, there.prob_a_ba) == (pytest.approx(0.9), pytest.approx(0.7))
    assert there.own_label.prob_a == pytest.approx(0.8)


async def test_acompare_in_async_code_and_compare_inside_a_running_loop() -> None:
    with rlaif.Judge(FakeBackend(prefers_a, latency=0.001)) as judge:
        judgments = await asyncio.gather(*(judge.acompare("Q?", "a", "b") for _ in range(10)))
        assert [judgment.prob_a for judgment in judgments] == [pytest.approx(0.8)] * 10
        assert judge.compare("Q?", "a", "b").prob_a == pytest.approx(0.8)  # as in a notebook


def test_threads_share_a_judge() -> None:
    with rlaif.Judge(FakeBackend(prefers_a, latency=0.001)) as judge, ThreadPoolExecutor(8) as pool:
        labels = list(pool.map(lambda n: judge.compare(f"{n}?", "a", "b").prob_a, range(50)))
    assert labels == [pytest.approx(0.8)] * 50


def test_a_failed_judgement_is_raised_and_not_made_up() -> None:
    def fails(request: Request) -> float:
        raise LowLabelMassError("too little")

    with rlaif.Judge(FakeBackend(fails)) as judge, pytest.raises(LowLabelMassError) as raised:
        judge.compare("Q?", "a", "b")
    assert raised.value.stage == "ab"


@pytest.mark.parametrize("rows", [ROWS, pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS)])
def test_label_takes_what_people_have_and_gives_a_dataset(rows: object, tmp_path: Path) -> None:
    backend = FakeBackend(prefers_a)
    with rlaif.Judge(backend) as judge:
        labeled = rlaif.label(rows, judge, out=tmp_path / "run")
        assert isinstance(labeled, datasets.Dataset)
        assert labeled["prob_a"] == [pytest.approx(0.8)] * 5
        assert labeled["n"] == [0, 1, 2, 3, 4]
        asked = len(backend.requests)
        again = rlaif.label(rows, judge, out=tmp_path / "run")
        assert (len(backend.requests), again["id"]) == (asked, labeled["id"])
        assert rlaif.label(rows, judge, limit=2)["n"] == [0, 1]


def test_settings_are_those_of_the_command_line_and_faults_are_told_together() -> None:
    with rlaif.Judge(FakeBackend(prefers_a), constitution="helpful-harmless", principles="all") as judge:
        assert len(judge.compare("Q?", "a", "b").by_principle) > 1
    with pytest.raises(ConfigError, match=r"(?s)ordrs.*shots|shots.*ordrs"):
        rlaif.Judge("fake:0.5", ordrs="ab", shots=-1)


def test_a_closed_judge_says_so() -> None:
    judge = rlaif.Judge("fake:0.5")
    judge.close()
    judge.close()
    with pytest.raises(RuntimeError, match="closed"):
        judge.compare("Q?", "a", "b")


def test_a_refused_judge_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    for wrong in ({"constitution": "no-such"}, {"task": "no-such"}):
        with pytest.raises(RlaifError):
            rlaif.Judge(FakeBackend(prefers_a), **wrong)
    with pytest.raises(ConfigError, match="named twice"):
        rlaif.Judge(FakeBackend(prefers_a), FakeBackend(prefers_a))
    assert threading.active_count() == before


def test_rates_a_response_and_a_whole_dataset(tmp_path: Path) -> None:
    with rlaif.Judge("builtin:tiny") as judge:
        rating = judge.rate("What is a prime?", "A number with two divisors.")
        assert sum(rating.probs) == pytest.approx(1.0)
        assert rating.rating == pytest.approx(sum(score * prob for score, prob in enumerate(rating.probs, 1)))
        assert rating.reward == pytest.approx((rating.rating - 5.5) / 4.5)
        messages = [{"role": "user", "content": "What is a prime?"}]
        assert judge.rate(messages, "A number with two divisors.").rating == pytest.approx(rating.rating)
        rows = [{"prompt": "What is a prime?", "responses": ["A number with two divisors.", "No."]}]
        dataset = rlaif.rate(rows, judge, tmp_path / "run")
    assert dataset[0]["ratings"][0] == pytest.approx(rating.rating, abs=1e-5)
    assert len(dataset[0]["rating_probs"]) == 2


async def test_rates_in_async_code_and_fails_by_name() -> None:
    with rlaif.Judge("builtin:tiny") as judge:
        first, second = await asyncio.gather(judge.arate("Why?", "Because."), judge.arate("Why?", "Because."))
        assert first == second
        with pytest.raises(InputError, match="prompt"):
            await judge.arate([], "Because.")
