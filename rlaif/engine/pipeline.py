"""`rlaif pipeline` without the command line: runs stages in their order, skips those whose inputs and settings are the
same as when they finished, and keeps what a changed one had made. How a stage runs is told by the caller."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml

from rlaif.assets import find_asset, shipped_names
from rlaif.backends.registry import check_spec
from rlaif.engine.evaluation_config import is_policy
from rlaif.engine.pipeline_config import Pipeline, Stage, StageCommand
from rlaif.engine.run_folder import RunFolder, versions
from rlaif.errors import ConfigError, ConstitutionError, InputError, RunFolderError
from rlaif.judge.constitutions import load_constitution

COMMAND = "pipeline"
STATE = "pipeline.json"

_UNIMPORTANT = frozenset(
    {"out", "concurrency", "max_retries", "timeout", "price", "max_cost", "batch_tokens", "base_url", "policy_base_url",
     "device"}
)  # fmt: skip
"""Options that change no value in what a stage writes."""

_HASHED_BYTES = 256 * 2**20
"""Files up to this are told by their content, larger ones by size and time of change: weights of many gigabytes."""

_NOT_OUTPUT = ("journal", "run.json", "README.md", "log.jsonl", "checkpoints")
"""What may differ between two runs that made the same: times and costs stand there."""

DONE, FAILED_ROWS = 0, 3


class Plan(StrEnum):
    """What becomes of a stage."""

    RUN = "run"
    RESUME = "resume"
    REDO = "redo"
    SKIP = "skip"


@dataclass(frozen=True)
class Planned:
    """What becomes of a stage, and why, as the end of a sentence."""

    plan: Plan
    reason: str


@dataclass(frozen=True)
class StageResult:
    """How a stage ended: its exit code, and whether it was skipped."""

    stage: Stage
    planned: Planned
    code: int
    seconds: float


def run_pipeline(
    pipeline: Pipeline,
    run_stage: Callable[[Stage, Path], int],
    on_stage: Callable[[Stage, Planned], None] = lambda *_: None,
) -> Iterator[StageResult]:
    """Run the stages; ends early after one that stopped.

    Args:
        pipeline: What to run.
        run_stage: Runs a stage with the options in the YAML file; returns the exit code of its command: 0 done, 3 done
            but for some rows, anything else stopped.
        on_stage: Told of each stage before it runs, or is skipped.

    Yields:
        What became of each stage.

    Raises:
        RunFolderError: Another process works on the same folder, or it cannot be written.
    """
    folder = RunFolder(pipeline.out, COMMAND)
    try:
        pipeline.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{pipeline.out}: cannot be used as an output folder ({error.strerror})") from error
    with folder.locked():
        for stage in pipeline.stages:
            state = _read_state(pipeline.out)
            facts = facts_of(stage)
            planned = plan_stage(stage, facts, state.get(stage.name))
            on_stage(stage, planned)
            started = time.monotonic()
            if planned.plan is Plan.SKIP:
                yield StageResult(stage, planned, DONE, 0.0)
                continue
            if planned.plan is Plan.REDO and stage.folder.exists():
                _keep_aside(stage)
            elif not stage.folder.exists() and _begun(stage).exists():  # killed while that was kept aside
                _begun(stage).rename(stage.folder)
            options = _write_options(pipeline, stage)
            _write_state(folder, {**state, stage.name: {"status": "running", **facts}})
            code = run_stage(stage, options)
            seconds = time.monotonic() - started
            status = {DONE: "finished", FAILED_ROWS: "finished, some rows failed"}.get(code, "stopped")
            record = {"status": status, **facts, "seconds": round(seconds, 1)}
            if code in (DONE, FAILED_ROWS):
                record["output"] = digest_of(stage.folder)
            _write_state(folder, {**state, stage.name: record})
            yield StageResult(stage, planned, code, seconds)
            if code not in (DONE, FAILED_ROWS):
                return


def check_constitutions(pipeline: Pipeline) -> None:
    """See that the constitutions of all stages can be read, before the first of them has asked anything.

    Raises:
        ConstitutionError: One cannot.
    """
    for stage in pipeline.stages:
        if (name := stage.settings.get("constitution")) is not None:
            try:
                load_constitution(name)
            except ConstitutionError as error:
                raise ConstitutionError(f"stages.{stage.name}.constitution: {error}") from error


def check_names(pipeline: Pipeline, commands: Mapping[str, StageCommand]) -> None:
    """See that what the stages are to read is there, and that there are such backends, before the first one starts.

    Args:
        pipeline: The stages.
        commands: What may be a stage, by name.

    Raises:
        InputError: A file or folder that no stage makes is missing.
        ConfigError: A judge or a policy is none.
    """
    for number, stage in enumerate(pipeline.stages):
        for option in ("judge", "policy"):
            for spec in _texts(stage.settings.get(option)):
                try:
                    check_spec(spec, word=option)
                except ConfigError as error:
                    raise ConfigError(f"stages.{stage.name}: {error}") from error
        option = commands[stage.command].input
        made = [each.folder for each in pipeline.stages[:number]]
        for text in _texts(stage.settings.get(option)):
            path = Path(text).expanduser()
            if option == "a" and is_policy(text):  # of an evaluation, whose side may be a model
                check_spec(text, word=f"stages.{stage.name}.{option}: policy")
                continue
            if text.startswith("hf://") or os.path.exists(path) or any(path.is_relative_to(folder) for folder in made):
                continue
            where = f"stages.{stage.name}.{option}: {text}"
            raise InputError("does not exist, expected a file or a folder", path=where)


def _texts(value: Any) -> list[str]:
    """Of an option's value, one or several, those that are texts."""
    return [each for each in (value if isinstance(value, list | tuple) else [value]) if isinstance(each, str)]


def plan_pipeline(pipeline: Pipeline) -> list[tuple[Stage, Planned]]:
    """What would become of each stage. Those behind a stage that runs are told to run as well: they may be skipped,
    where it makes the same again."""
    state = _read_state(pipeline.out)
    planned: list[tuple[Stage, Planned]] = []
    changing: set[str] = set()
    for stage in pipeline.stages:
        source = next((name for name in stage.after if name in changing), None)
        if source is not None and stage.name in state:
            plan = Planned(Plan.RUN, f"unless {source} makes the same again")
        else:
            plan = plan_stage(stage, facts_of(stage), state.get(stage.name))
        if plan.plan is not Plan.SKIP:
            changing.add(stage.name)
        planned.append((stage, plan))
    return planned


def plan_stage(stage: Stage, facts: Mapping[str, Any], known: Mapping[str, Any] | None) -> Planned:
    """What is to become of a stage.

    Args:
        stage: Which.
        facts: What it depends on now (`facts_of`).
        known: Its record in `pipeline.json`; None for a stage that never ran.
    """
    if known is None:
        return Planned(Plan.RUN, "for the first time")
    if not stage.folder.exists():
        is_made = "finished" in known["status"]
        return Planned(Plan.RUN, f"{stage.folder} is gone" if is_made else "it had made nothing yet")
    if changed := _changes(known, facts):
        return Planned(Plan.REDO, f"{'; '.join(changed)}")
    if known["status"] == "finished":
        if digest_of(stage.folder) == known.get("output"):
            return Planned(Plan.SKIP, "nothing it depends on has changed")
        return Planned(Plan.REDO, f"{stage.folder} was changed after the stage had finished")
    if "failed" in known["status"]:
        return Planned(Plan.RESUME, "rows that failed are tried again")
    return Planned(Plan.RESUME, "it was cut short")


def facts_of(stage: Stage) -> dict[str, Any]:
    """All that a stage's output depends on, as JSON values: its command, settings, and digests of what it reads."""
    settings = {name: value for name, value in stage.settings.items() if name not in _UNIMPORTANT}
    return {
        "command": stage.command,
        "settings": settings,
        "reads": dict(_read_by(settings)),
        "version": versions().get("rlaif"),
        "prompts": _prompts_digest(),
    }


def _changes(known: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    """What is another than when the stage last ran, in a few words each."""
    if known["command"] != facts["command"]:
        return [f"its command was {known['command']}"]
    before, now = known["settings"], facts["settings"]
    changed = [
        f"{name} was {_shown(before.get(name))}, now {_shown(now.get(name))}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    named = {str(value) for value in now.values()}
    for path, digest in facts["reads"].items():
        if path in known["reads"] and known["reads"][path] != digest:
            changed.append(f"{path} has changed since")
        elif path not in known["reads"] and path in named and not changed:
            changed.append(f"{path} is read now")
    changed += [f"it reads {path} no more" for path in known["reads"] if path not in facts["reads"] and not changed]
    if known.get("version") != facts["version"]:
        changed.append(f"rlaif was {known.get('version')}, now {facts['version']}")
    elif known.get("prompts") != facts["prompts"]:
        changed.append("the shipped prompts have changed")
    return changed


def _read_by(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the values of options name, if it exists: files, folders, models in folders, shipped constitutions."""
    for name, value in settings.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(text, str) or not text:
                continue
            path = Path(text.partition(":")[2] if text.partition(":")[0] in _MODEL_KINDS else text).expanduser()
            if os.path.exists(path):
                yield text, digest_of(path)
            elif name == "constitution":
                try:
                    yield text, digest_of(find_asset("constitutions", text))
                except ConstitutionError:
                    continue  # the stage says so itself


_MODEL_KINDS = ("hf", "vllm", "hf-reward")


def _prompts_digest() -> str:
    digest = hashlib.sha256()
    for name in shipped_names("prompts"):
        path = find_asset("prompts", name)
        digest.update(f"{name} {digest_of(path)}\n".encode())
        for exemplars in sorted(path.parent.glob("exemplars/*.yaml")):
            digest.update(digest_of(exemplars).encode())
    return digest.hexdigest()


def digest_of(path: Path) -> str:
    """SHA-256 (hex) of a file, or of what a folder holds but for journals, times and costs; "" where there is nothing.

    Of a file beyond 256 MiB its size and time of change stand for its content.
    """
    if path.is_file():
        return _file_digest(path)
    digest = hashlib.sha256()
    for root, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if name not in _NOT_OUTPUT and not name.startswith("."))
        for name in sorted(files):
            if name in _NOT_OUTPUT or name.startswith("."):
                continue
            file = Path(root, name)
            digest.update(f"{file.relative_to(path)} {_file_digest(file)}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest() if path.exists() else ""


def _file_digest(path: Path) -> str:
    status = path.stat()
    if status.st_size > _HASHED_BYTES:
        return f"{status.st_size} bytes of {status.st_mtime_ns}"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _keep_aside(stage: Stage) -> None:
    """Move what a stage had made to NAME.old-1, and let the new run begin with a copy of its journals, those of runs
    inside it too (the judge of `rlaif revise`): what is asked again in the same words is answered from there."""
    number = 1
    while (old := stage.folder.with_name(f"{stage.folder.name}.old-{number}")).exists():
        number += 1
    begun = _begun(stage)
    copied = begun.with_name(f"{begun.name}.part")
    try:
        for left_behind in (begun, copied):
            if left_behind.exists():
                shutil.rmtree(left_behind)
        for journal in (stage.folder / "journal", *sorted(stage.folder.glob("*/journal"))):
            if journal.is_dir():
                shutil.copytree(journal, copied / journal.relative_to(stage.folder))
        if copied.exists():
            copied.rename(begun)  # under this name it is whole
        stage.folder.rename(old)
        if begun.exists():
            begun.rename(stage.folder)
    except OSError as error:
        raise RunFolderError(f"{stage.folder}: cannot be kept as {old.name} ({error.strerror})") from error


def _begun(stage: Stage) -> Path:
    """Where a new run of a stage begins, until what the one before it had made is out of the way."""
    return stage.folder.with_name(f".{stage.folder.name}.new")


def _write_options(pipeline: Pipeline, stage: Stage) -> Path:
    """The stage's options as a YAML file that its command takes with --config."""
    name = f"{stage.name}.yaml"
    text = yaml.safe_dump(dict(stage.given), sort_keys=False, allow_unicode=True)
    RunFolder(pipeline.out, COMMAND).replace(name, text)
    return pipeline.out / name


def _read_state(folder: Path) -> dict[str, Any]:
    path = folder / STATE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error
    if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
        raise RunFolderError(f"{path}: expected a JSON object with stages; was it written by rlaif?")
    stages: dict[str, Any] = content["stages"]
    for name, record in stages.items():
        kinds = {"status": str, "command": str, "settings": dict, "reads": dict}
        if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
            raise RunFolderError(
                f"{path}: stages.{name}: expected {', '.join(kinds)}; was it changed? Without this entry, the stage is "
                "taken for one that never ran"
            )
    return stages


def _write_state(folder: RunFolder, stages: Mapping[str, Any]) -> None:
    folder.replace(STATE, json.dumps({"stages": stages}, indent=2, ensure_ascii=False) + "\n")


def _shown(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
