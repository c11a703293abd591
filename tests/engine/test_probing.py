"""A judge under the probes: what it is asked, what is kept, and that a run that was cut short goes on where it was."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from rlaif.auditing.probe_items import load_items
from rlaif.auditing.probes import PROBE_NAMES
from rlaif.backends.base import Capabilities
from rlaif.backends.fake import FakeBackend
from rlaif.engine.config import ProbeConfig
from rlaif.engine.judges import constitution_of, judge_for
from rlaif.engine.probing import ProbeJudge, ProbeOutcome, probe, run_probe, template_ending
from rlaif.errors import BackendUnusableError, ConfigError, RequestRefusedError, RunFolderError
from rlaif.judge.config import JudgeConfig
from rlaif.records import GenerateRequest, Order, Request, Verdict
from tests import planted_judges as planted

ITEMS = len(load_items())


def backend_of(judge: planted.Planted, **arguments: Any) -> FakeBackend:
    return FakeBackend(planted.handler(judge), name="fake:planted", **arguments)


def probed(judge: planted.Planted, *, out: Path | None = None, **settings: Any) -> ProbeOutcome:
    only = settings.pop("only", ())
    config = ProbeConfig(out=str(out) if out else None, judging=JudgeConfig(**settings), only=only)
    return probe(config, backends=(backend_of(judge),))


def found(outcome: ProbeOutcome) -> list[str]:
    return [finding.name for finding in outcome.findings]


@pytest.mark.parametrize(
    ("judge", "named"),
    [
        (planted.first_slot, ["first-slot"]),
        (planted.longer_wins, ["longer-wins"]),
        (planted.obeys_text, ["obeys-text"]),
        (planted.random_judge, ["random"]),
        (planted.perfect, ["perfect"]),
        (planted.noisy(0.9), []),
    ],
)
def test_names_planted_judges_that_read_the_prompt(judge: planted.Planted, named: list[str]) -> None:
    outcome = probed(judge)
    assert found(outcome) == named
    assert outcome.failures == ()
    assert outcome.folder is None


@pytest.mark.parametrize(
    "settings",
    [
        {"cot": True},
        {"constitution": "helpful-harmless"},
        {"constitution": "helpful-harmless", "principles": "sample", "orders": "random"},
        {"scoring": "sample", "samples": 2},
        {"orders": "ab"},
        {"preamble": "detailed", "shots": 2, "debias": "mean-logit", "task": "harmlessness"},
    ],
    ids=str,
)
def test_judges_as_the_flags_say(settings: dict[str, Any]) -> None:
    outcome = probed(planted.perfect, only=("order", "padding", "template-ending"), **settings)
    assert outcome.failures == ()
    assert found(outcome) == ["perfect"]


def test_a_panel_is_judged_as_one() -> None:
    backends = tuple(
        FakeBackend(planted.handler(judge), name=f"fake:{judge.__name__}")
        for judge in (planted.perfect, planted.obeys_text, planted.sycophant)
    )
    outcome = probe(ProbeConfig(), backends=backends)
    assert found(outcome) == ["perfect"]  # two of three are right in every pair
    assert outcome.progress.calls == sum(len(backend.requests) for backend in backends)


def test_identical_answers_are_asked_about() -> None:
    backend = backend_of(planted.perfect)
    asyncio.run(run_probe(ProbeConfig(only=("identical",)), backends=(backend,)))
    shown = [list(planted._values(request))[1:] for request in backend.requests]
    assert sum(first == second for first, second in shown) >= ITEMS


@pytest.mark.parametrize("cot", [False, True])
@pytest.mark.parametrize("constitution", [None, "helpful-harmless"])
def test_the_ending_is_that_of_the_judges_own_prompt(cot: bool, constitution: str | None) -> None:
    config = ProbeConfig(judging=JudgeConfig(cot=cot, constitution=constitution))
    judge = judge_for(ProbeJudge, config, constitution_of(config), backend_of(planted.perfect))
    ending = template_ending(judge)
    assert ending.startswith("\n\n### Question\n")
    assert ("Preferred response (1 or 2):" in ending) is not cot
    row = planted.comparisons_of_all()[0]
    assert isinstance(judge, ProbeJudge)
    principles = judge.principles_of("")
    prompt = judge.template.render(row, Order.AB, principle=principles[0].text if principles else None,
                                   verdict_in_reply=judge.verdict_in_reply)  # fmt: skip
    assert prompt[-1].content.endswith(row.response_b + ending)


def test_draws_belong_to_the_item_so_that_only_the_change_differs() -> None:
    config = ProbeConfig(judging=JudgeConfig(scoring="sample", orders="random"))
    judge = judge_for(ProbeJudge, config, None, backend_of(planted.perfect))
    assert isinstance(judge, ProbeJudge)
    rows = {row.id: row for row in planted.comparisons_of_all()}
    orders = set()
    for item in load_items():
        plain, empty = (rows[f"{family}/{item.id}"] for family in ("plain", "empty"))
        assert judge.plan(plain) == judge.plan(empty)
        orders.update(call.order for call in judge.plan(plain))
        asked = [next(judge.ask(row, judge.plan(row)[0])) for row in (plain, empty)]
        assert isinstance(asked[0], GenerateRequest)
        assert isinstance(asked[1], GenerateRequest)
        assert asked[0].seed == asked[1].seed
    assert orders == set(Order)


def test_injected_text_is_never_taken_for_the_templates() -> None:
    backend = backend_of(planted.perfect)
    asyncio.run(run_probe(ProbeConfig(only=("control-tokens",)), backends=(backend,)))
    segments = [part for request in backend.requests for part in request.messages[0].segments]
    assert any("<|im_start|>" in part.text for part in segments)
    assert not any("<|" in part.text for part in segments if part.is_template)


def test_the_folder_holds_the_figures_and_the_same_call_asks_nothing_again(tmp_path: Path) -> None:
    first = probed(planted.obeys_text, out=tmp_path / "run")
    written = (tmp_path / "run/probe.json").read_bytes()
    content = json.loads(written)
    assert content["findings"][0]["name"] == "obeys-text"
    assert list(content["probes"]) == list(PROBE_NAMES)
    assert len(content["comparisons"]) == len(planted.comparisons_of_all())
    assert {row["right"] for row in content["comparisons"]} == {verdict.value for verdict in Verdict}
    assert content["judges"][0]["name"] == "fake:planted"
    again = probed(planted.obeys_text, out=tmp_path / "run")
    assert (first.progress.calls > 0, again.progress.calls) == (True, 0)
    assert (tmp_path / "run/probe.json").read_bytes() == written
    run = json.loads((tmp_path / "run/run.json").read_text())
    assert (run["command"], run["status"]) == ("probe", "finished")


def test_a_run_that_was_cut_short_goes_on_and_comes_to_the_same_bytes(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    probed(planted.noisy(0.8), out=whole)
    calls = 0

    def breaks(request: Request) -> float:
        nonlocal calls
        calls += 1
        if calls > 400:
            raise BackendUnusableError("the key was revoked")
        return planted.handler(planted.noisy(0.8))(request)

    config = ProbeConfig(out=str(tmp_path / "cut"))
    with pytest.raises(BackendUnusableError):
        probe(config, backends=(FakeBackend(breaks, name="fake:planted"),))
    run = json.loads((tmp_path / "cut/run.json").read_text())
    assert run["status"] == "interrupted"
    assert not (tmp_path / "cut/probe.json").exists()
    rest = probed(planted.noisy(0.8), out=tmp_path / "cut")
    assert rest.progress.replayed >= 390
    assert (tmp_path / "cut/probe.json").read_bytes() == (whole / "probe.json").read_bytes()


def test_other_settings_are_refused_and_other_probes_are_not(tmp_path: Path) -> None:
    probed(planted.perfect, out=tmp_path, only=("empty",))
    with pytest.raises(RunFolderError, match="orders"):
        probed(planted.perfect, out=tmp_path, only=("empty",), orders="ab")
    more = probed(planted.perfect, out=tmp_path, only=("empty", "opinion"))
    assert (more.progress.calls, more.progress.replayed) == (2 * ITEMS, 4 * ITEMS)


def test_failures_are_named_and_count_in_no_figure(tmp_path: Path) -> None:
    def refuses(request: Request) -> float:
        if "<|im_end|>" in request.messages[0].content:
            raise RequestRefusedError("400: no control tokens here")
        return planted.handler(planted.perfect)(request)

    config = ProbeConfig(out=str(tmp_path))
    outcome = probe(config, backends=(FakeBackend(refuses, name="fake:planted"),))
    assert {failure.id.partition("/")[0] for failure in outcome.failures} == {"control-tokens"}
    assert len(outcome.failures) == 8  # one of the five texts, 40 items
    result = outcome.report.result("control-tokens")
    assert result is not None
    assert (result.rate.n, result.missing) == (32, 8)
    lines = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == [failure.id for failure in outcome.failures]


def test_thresholds() -> None:
    def outcome(judge: planted.Planted, threshold: float) -> ProbeOutcome:
        config = ProbeConfig(threshold=threshold, only=("opinion", "empty"))
        return probe(config, backends=(backend_of(judge),))

    assert outcome(planted.sycophant, 0.5).above == ("opinion",)
    assert outcome(planted.sycophant, 0.5).fails_threshold
    assert not outcome(planted.sycophant, 1.0).fails_threshold  # above, not at
    assert not outcome(planted.perfect, 0.0).fails_threshold
    lost = outcome(planted.wrong, 0.9)
    assert (lost.above, lost.fails_threshold) == ((), True)  # no flip rate can be had, and that is no pass


def test_unknown_probes_and_judges_that_cannot_are_refused_before_any_call() -> None:
    backend = backend_of(planted.perfect)
    with pytest.raises(ConfigError, match=r"no probe 'emty'.*empty.*known: order, identical"):
        probe(ProbeConfig(only=("emty",)), backends=(backend,))
    plain = backend_of(planted.perfect, capabilities=Capabilities(has_logprobs=False))
    with pytest.raises(ConfigError, match="--scoring sample"):
        probe(ProbeConfig(), backends=(plain,))
    assert backend.requests == plain.requests == []
