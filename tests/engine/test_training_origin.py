"""What a run folder tells those who train on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlaif.cli.main import main
from rlaif.engine.relabeling import finished_run
from rlaif.engine.training_origin import origin_of
from rlaif.errors import RunFolderError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Question {n}?", "response_a": "yes", "response_b": "no"} for n in range(3)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    command = ["label", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "run"), "--judge", "fake:0.8"]
    assert main([*command, "--constitution", "concise", "--quiet"]) == 0
    return tmp_path / "run"


def test_a_run_says_who_judged_and_with_which_prompt(run: Path, tmp_path: Path) -> None:
    origin = origin_of(str(run))
    assert origin is not None
    known = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert (origin.command, origin.status, origin.judges) == ("label", "finished", ("fake:0.8",))
    assert (origin.task, origin.template) == ("helpfulness", known["decisive"]["task"])
    assert (origin.constitution, origin.constitution_fingerprint) == ("concise", known["decisive"]["constitution"])
    assert not origin.is_demonstration
    assert not origin.is_calibrated
    assert origin.run_id == finished_run(run).fingerprint
    moved = shutil.move(run, tmp_path / "elsewhere")
    again = origin_of(str(moved))
    assert again is not None
    assert again.run_id == origin.run_id  # an id of the run, not of the place


def test_another_run_has_another_id(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert main(["label", str(tmp_path / "in.jsonl"), "-o", str(other), "--judge", "fake:0.4", "--quiet"]) == 0
    one, two = origin_of(str(run)), origin_of(str(other))
    assert one is not None
    assert two is not None
    assert one.run_id != two.run_id
    assert two.constitution is None


def test_files_and_other_folders_have_no_origin(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"command": "train dpo"}', encoding="utf-8")
    assert origin_of(str(tmp_path)) is None
    assert origin_of(str(tmp_path / "in.jsonl")) is None
    assert origin_of("hf://owner/name") is None


def test_a_damaged_run_json_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{", encoding="utf-8")
    with pytest.raises(RunFolderError):
        origin_of(str(tmp_path))
