"""Which stages of a pipeline run, which are skipped, and what is kept; with commands that write small files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from rlaif.engine.pipeline import Plan, StageResult, check_names, digest_of, plan_pipeline, run_pipeline
from rlaif.engine.pipeline_config import Pipeline, PipelineConfig, Stage, StageCommand, read_pipeline
from rlaif.engine.run_folder import RunFolder
from rlaif.errors import ConfigError, InputError, RunFolderError


@dataclass(frozen=True)
class Copy:
    """A command that copies a file in capitals, with a word behind it."""

    input: str
    out: str
    word: str = ""
    concurrency: int | None = None


COMMANDS = {
    "copy": StageCommand(Copy, "input"),
    "again": StageCommand(Copy, "input", (("copy", "/data.txt"),)),
}


@dataclass
class Runner:
    """Runs stages, and remembers which."""

    codes: dict[str, int] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    during: Callable[[Stage], None] = lambda _: None

    def __call__(self, stage: Stage, options: Path) -> int:
        given = yaml.safe_load(options.read_text())
        self.ran.append(stage.name)
        self.during(stage)
        if self.codes.get(stage.name, 0) not in (0, 3):
            return self.codes[stage.name]
        Path(given["out"]).mkdir(exist_ok=True)
        text = Path(given["input"]).read_text().upper() + given.get("word", "")
        Path(given["out"], "data.txt").write_text(text)
        Path(given["out"], "run.json").write_text(f"{len(self.ran)}")  # another one every time
        return self.codes.get(stage.name, 0)


TEXT = "out: {out}\nstages: {{copy: {{input: {input}, word: {word}}}, again: {{}}}}"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.txt"
    path.write_text("hello ")
    return path


def pipeline(tmp_path: Path, source: Path, word: str = "one") -> Pipeline:
    file = tmp_path / "p.yaml"
    file.write_text(TEXT.format(out=tmp_path / "run", input=source, word=word))
    return read_pipeline(PipelineConfig(str(file)), COMMANDS)


def run(pipeline: Pipeline, runner: Runner) -> list[StageResult]:
    return list(run_pipeline(pipeline, runner))


def test_stages_run_in_order_and_are_skipped_when_nothing_changed(tmp_path: Path, source: Path) -> None:
    runner = Runner()
    results = run(pipeline(tmp_path, source), runner)
    assert runner.ran == ["copy", "again"]
    assert [result.planned.plan for result in results] == [Plan.RUN, Plan.RUN]
    assert (tmp_path / "run/again/data.txt").read_text() == "HELLO ONE"
    results = run(pipeline(tmp_path, source), runner)
    assert runner.ran == ["copy", "again"]
    assert {result.planned.plan for result in results} == {Plan.SKIP}


def test_a_changed_setting_runs_what_depends_on_it_and_keeps_what_was_there(tmp_path: Path, source: Path) -> None:
    runner = Runner()
    run(pipeline(tmp_path, source), runner)
    results = run(pipeline(tmp_path, source, word="two"), runner)
    assert [result.planned.plan for result in results] == [Plan.REDO, Plan.REDO]
    assert results[0].planned.reason == 'word was "one", now "two"'
    assert "copy/data.txt has changed since" in results[1].planned.reason
    assert (tmp_path / "run/again/data.txt").read_text() == "HELLO TWO"
    assert (tmp_path / "run/copy.old-1/data.txt").read_text() == "HELLO one"
    assert (tmp_path / "run/again.old-1/data.txt").read_text() == "HELLO ONE"


def test_a_stage_behind_one_that_makes_the_same_again_is_skipped(tmp_path: Path, source: Path) -> None:
    runner = Runner()
    run(pipeline(tmp_path, source), runner)
    source.write_text("Hello ")  # in capitals the same
    assert [planned.plan for _, planned in plan_pipeline(pipeline(tmp_path, source))] == [Plan.REDO, Plan.RUN]
    results = run(pipeline(tmp_path, source), runner)
    assert [result.planned.plan for result in results] == [Plan.REDO, Plan.SKIP]
    assert "in.txt has changed since" in results[0].planned.reason


def test_what_was_changed_in_a_finished_stage_is_seen(tmp_path: Path, source: Path) -> None:
    runner = Runner()
    run(pipeline(tmp_path, source), runner)
    (tmp_path / "run/again/data.txt").write_text("tampered")
    results = run(pipeline(tmp_path, source), runner)
    assert [result.planned.plan for result in results] == [Plan.SKIP, Plan.REDO]
    assert "was changed after the stage had finished" in results[1].planned.reason
    assert (tmp_path / "run/again.old-1/data.txt").read_text() == "tampered"


def test_concurrency_and_the_like_change_nothing(tmp_path: Path, source: Path) -> None:
    runner = Runner()
    run(pipeline(tmp_path, source), runner)
    file = tmp_path / "p.yaml"
    file.write_text(file.read_text().replace("word: one", "word: one, concurrency: 7"))
    results = run(read_pipeline(PipelineConfig(str(file)), COMMANDS), runner)
    assert {result.planned.plan for result in results} == {Plan.SKIP}


def test_a_stage_that_stops_ends_the_pipeline_and_is_resumed(tmp_path: Path, source: Path) -> None:
    runner = Runner(codes={"copy": 130})
    (result,) = run(pipeline(tmp_path, source), runner)
    assert result.code == 130
    assert plan_pipeline(pipeline(tmp_path, source))[0][1].reason == "it had made nothing yet"
    (tmp_path / "run/copy").mkdir()  # what it had begun
    runner.codes = {}
    results = run(pipeline(tmp_path, source), runner)
    assert [result.planned.plan for result in results] == [Plan.RESUME, Plan.RUN]
    assert not list((tmp_path / "run").glob("*.old-*"))


def test_failed_rows_are_tried_again(tmp_path: Path, source: Path) -> None:
    runner = Runner(codes={"copy": 3})
    assert [result.code for result in run(pipeline(tmp_path, source), runner)] == [3, 0]
    results = run(pipeline(tmp_path, source), runner)
    assert [result.planned.plan for result in results] == [Plan.RESUME, Plan.SKIP]


def test_a_journal_goes_on_in_the_new_run(tmp_path: Path, source: Path) -> None:
    def journal(stage: Stage) -> None:
        stage.folder.joinpath("journal").mkdir(parents=True, exist_ok=True)
        seen.append(stage.folder.joinpath("journal/replies").exists())
        stage.folder.joinpath("journal/replies").write_text("kept")

    seen: list[bool] = []
    run(pipeline(tmp_path, source), Runner(during=journal))
    run(pipeline(tmp_path, source, word="two"), Runner(during=journal))
    assert seen == [False, False, True, True]
    assert (tmp_path / "run/copy.old-1/journal/replies").read_text() == "kept"


def test_journals_of_runs_inside_a_run_go_on_too(tmp_path: Path, source: Path) -> None:
    def journal(stage: Stage) -> None:
        inner = stage.folder / "comparisons/journal"
        seen.append(inner.exists())
        assert RunFolder(stage.folder, "revise").open({}) is None  # journals alone are no other run
        inner.mkdir(parents=True, exist_ok=True)

    seen: list[bool] = []
    run(pipeline(tmp_path, source), Runner(during=journal))
    run(pipeline(tmp_path, source, word="two"), Runner(during=journal))
    assert seen == [False, False, True, True]


def test_killed_while_it_keeps_a_stage_aside_the_journal_goes_on(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def journal(stage: Stage) -> None:
        seen.append((stage.folder / "journal").exists())
        stage.folder.joinpath("journal").mkdir(parents=True, exist_ok=True)

    class Killed(BaseException):
        pass

    def rename(path: Path, target: Path) -> Path:
        if target == tmp_path / "run/copy":
            raise Killed
        return whole(path, target)

    seen: list[bool] = []
    run(pipeline(tmp_path, source), Runner(during=journal))
    whole = Path.rename
    changed = pipeline(tmp_path, source, word="two")
    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(Killed):
        run(changed, Runner(during=journal))
    monkeypatch.setattr(Path, "rename", whole)
    run(pipeline(tmp_path, source, word="two"), Runner(during=journal))
    assert seen == [False, False, True, True]
    assert (tmp_path / "run/copy.old-1/data.txt").read_text() == "HELLO one"
    assert (tmp_path / "run/again/data.txt").read_text() == "HELLO TWO"


def test_two_at_once_are_refused(tmp_path: Path, source: Path) -> None:
    whole = pipeline(tmp_path, source)

    def second(stage: Stage) -> None:
        with pytest.raises(RunFolderError, match="another process"):
            list(run_pipeline(whole, Runner()))
        tried.append(stage.name)

    tried: list[str] = []
    run(whole, Runner(during=second))
    assert tried == ["copy", "again"]


def test_a_broken_state_is_named(tmp_path: Path, source: Path) -> None:
    run(pipeline(tmp_path, source), Runner())
    (tmp_path / "run/pipeline.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"pipeline\.json: cannot be read"):
        run(pipeline(tmp_path, source), Runner())


@pytest.mark.parametrize("record", [3, {}, {"status": "finished", "command": "copy", "settings": {}, "reads": []}])
def test_a_broken_entry_of_the_state_is_named(tmp_path: Path, source: Path, record: object) -> None:
    run(pipeline(tmp_path, source), Runner())
    (tmp_path / "run/pipeline.json").write_text(json.dumps({"stages": {"copy": record}}))
    with pytest.raises(
        RunFolderError, match=r"pipeline\.json: stages\.copy: expected status, command, settings, reads"
    ):
        run(pipeline(tmp_path, source), Runner())


def test_a_digest_is_of_names_and_contents_but_not_of_times_and_costs(tmp_path: Path) -> None:
    assert digest_of(tmp_path / "nothing") == ""
    (tmp_path / "a").mkdir()
    empty = digest_of(tmp_path / "a")
    (tmp_path / "a/x").write_text("1")
    first = digest_of(tmp_path / "a")
    for name in ("run.json", "README.md", ".hidden"):
        (tmp_path / "a" / name).write_text("2")
    (tmp_path / "a/journal").mkdir()
    (tmp_path / "a/journal/y").write_text("3")
    assert digest_of(tmp_path / "a") == first != empty
    (tmp_path / "a/x").rename(tmp_path / "a/z")
    assert digest_of(tmp_path / "a") != first


@dataclass(frozen=True)
class Ask:
    """A command that asks judges."""

    input: str
    out: str
    judge: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"input": "none.jsonl"}, InputError, r"stages\.ask\.input: none\.jsonl: does not exist"),
        ({"judge": ["fake:0.5", "tiny"]}, ConfigError, r"stages\.ask: judge 'tiny': expected BACKEND:MODEL"),
        ({"judge": "builtin:tine"}, ConfigError, r"stages\.ask: 'builtin:tine': unknown model \(did you mean 'tiny'"),
        ({"judge": "fake:0.5", "input": "hf://owner/name"}, None, ""),
        ({"judge": ["hf:not/here", "builtin:tiny"]}, None, ""),  # whether a model loads, its stage finds out
    ],
)
def test_what_no_stage_makes_is_missed_before_the_first_one_starts(
    tmp_path: Path, source: Path, options: dict[str, object], error: type[Exception] | None, said: str
) -> None:
    commands = {**COMMANDS, "ask": StageCommand(Ask, "input", (("copy", "/data.txt"),))}
    stages = {"copy": {"input": str(source)}, "ask": options}  # without an input of its own, of what `copy` will make
    file = tmp_path / "p.yaml"
    file.write_text(yaml.safe_dump({"out": str(tmp_path / "run"), "stages": stages}, sort_keys=False))
    read = read_pipeline(PipelineConfig(str(file)), commands)
    if error is None:
        check_names(read, commands)
    else:
        with pytest.raises(error, match=said):
            check_names(read, commands)
