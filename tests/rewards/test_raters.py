from __future__ import annotations

import asyncio
import pickle

import pytest

from rlaif.errors import ConfigError
from rlaif.rewards.raters import RaterSource, rater_of, run_blocking
from tests.servers import ScriptedServer


@pytest.fixture(autouse=True)
def _no_environment(judge_server: ScriptedServer) -> None:
    return None


def test_a_source_is_named_by_the_arguments_or_else_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="either a judge or a URL"):
        RaterSource.of(None, None, None, {})
    monkeypatch.setenv("RLAIF_JUDGE", "fake:0.5")
    assert RaterSource.of(None, None, None, {}).judges == ("fake:0.5",)
    assert RaterSource.of("fake:0.1", None, None, {}).judges == ("fake:0.1",)
    monkeypatch.setenv("RLAIF_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RLAIF_TOKEN", "t")
    source = RaterSource.of(None, None, None, {})
    assert (source.judges, source.url, source.token) == ((), "http://127.0.0.1:1", "t")
    assert "token" not in repr(source)
    with pytest.raises(ConfigError, match="either a judge or a URL"):
        RaterSource.of("fake:0.1", "http://127.0.0.1:1", None, {})
    with pytest.raises(ConfigError, match="task: settings of the judge"):
        RaterSource.of(None, "http://127.0.0.1:1", None, {"task": "harmlessness"})


def test_equal_sources_share_a_judge() -> None:
    one = RaterSource.of("fake:0.5", None, None, {"task": "harmlessness", "base_url": ["a", "b"]})
    same = RaterSource.of(["fake:0.5"], None, None, {"base_url": ("a", "b"), "task": "harmlessness"})
    two = pickle.loads(pickle.dumps(same))  # noqa: S301
    other = RaterSource.of("fake:0.5", None, None, {})
    assert rater_of(one) is rater_of(two)
    assert rater_of(one) is not rater_of(other)


def test_a_wrong_setting_is_said_before_training() -> None:
    with pytest.raises(ConfigError, match="temprature"):
        rater_of(RaterSource.of("fake:0.5", None, None, {"temprature": 1.0}))


def test_blocking_works_beside_a_running_loop() -> None:
    async def one() -> int:
        return 1

    async def outer() -> int:
        return run_blocking(one())

    assert (run_blocking(one()), asyncio.run(outer())) == (1, 1)
