"""Which folders a run may begin in."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.engine.run_folder import RunFolder
from rlaif.errors import RunFolderError


@pytest.mark.parametrize("begun", ["journal/replies", ".run.json.new", "comparisons/journal/replies"])
def test_a_run_begins_where_one_was_killed_in_its_first_moments_or_journals_were_put(
    tmp_path: Path, begun: str
) -> None:
    path = tmp_path / begun
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    assert RunFolder(tmp_path, "label").open({"seed": 0}) is None


@pytest.mark.parametrize("other", ["notes.txt", "data/x.parquet", "inner/journal/x inner/data", "empty/"])
def test_a_folder_that_holds_anything_else_is_refused(tmp_path: Path, other: str) -> None:
    for name in other.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_text("")
    with pytest.raises(RunFolderError, match=r"is not empty and holds no run\.json"):
        RunFolder(tmp_path, "label").open({"seed": 0})


def test_settings_that_differ_late_in_a_long_text_are_told_apart(tmp_path: Path) -> None:
    first = {"backend": "hf", "model": "first-of-them", "fingerprint": "f" * 64, "dtype": "float32"}
    second = {**first, "model": "second-one"}
    folder = RunFolder(tmp_path, "generate")
    folder.open({})
    folder.write({"command": "generate", "decisive": {"policy": [first, second], "seed": 0}})
    with pytest.raises(RunFolderError) as raised:
        folder.open({"policy": [first, {**second, "model": "third"}], "seed": 1})
    was, _, now = str(raised.value).partition(", now ")
    assert '"model": "second-one"' in was
    assert '"model": "third"' in now
    assert "seed (was 0, now 1)" in str(raised.value)
