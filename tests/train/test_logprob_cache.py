"""The cache of log-probabilities: what it keeps, what it tells apart, and what becomes of a damaged file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from rlaif.errors import ConfigError
from rlaif.train.logprob_cache import Asked, LogprobCache, default_cache_folder

ASKED = [Asked((1, 2, 3), (4, 5)), Asked((1, 2), (3, 4, 5)), Asked((1, 2, 3), (5, 4))]
FOUND = {ASKED[0]: -1.5, ASKED[1]: -0.25}
IDENTITY = {"weights": "abc", "dtype": "float32"}


def no_warning(text: str) -> None:
    raise AssertionError(text)


@contextmanager
def opened(
    folder: Path | None, identity: dict[str, str] = IDENTITY, warned: list[str] | None = None
) -> Iterator[LogprobCache]:
    on_warning = no_warning if warned is None else warned.append
    with closing(LogprobCache(identity, folder, on_warning=on_warning)) as cache:
        yield cache


def fill(folder: Path) -> Path:
    """A cache that holds FOUND; its file."""
    with opened(folder) as cache:
        cache.put(FOUND)
    (file,) = folder.glob("*.sqlite")
    return file


def test_what_was_put_is_found_by_a_later_run(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path) as cache:
        assert cache.get(ASKED) == FOUND


def test_the_border_of_prompt_and_completion_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.put({Asked((1, 2), (3,)): -1.0})
        assert cache.get([Asked((1,), (2, 3)), Asked((1, 2, 3), ())]) == {}


def test_another_reference_shares_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    with opened(tmp_path, {**IDENTITY, "dtype": "bfloat16"}) as other:
        assert other.get(ASKED) == {}


def test_values_are_float32(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.put({ASKED[0]: -0.1})
        assert cache.get(ASKED) == {ASKED[0]: -0.10000000149011612}


def test_more_than_sqlite_takes_in_one_question(tmp_path: Path) -> None:
    many = {Asked((number,), (7,)): -float(number) for number in range(1, 1300)}
    with opened(tmp_path) as cache:
        cache.put(many)
        assert cache.get(list(many)) == many


def test_a_number_that_is_none_is_not_kept(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.put({ASKED[0]: float("nan"), ASKED[1]: -1.0})
        assert cache.get(ASKED) == {ASKED[1]: -1.0}


def test_the_file_holds_no_ids(tmp_path: Path) -> None:
    file = fill(tmp_path)
    with closing(sqlite3.connect(file)) as database:
        rows = database.execute("SELECT key, value FROM logprobs").fetchall()
    assert sorted((len(key), len(value)) for key, value in rows) == [(32, 8), (32, 8)]


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def overwritten(file: Path) -> None:
    file.write_bytes(b"not a database at all" * 100)


def one_bit(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        ((value,),) = database.execute("SELECT value FROM logprobs LIMIT 1").fetchall()
    content = file.read_bytes()
    place = content.index(value)
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize("damage", [truncated, overwritten, one_bit])
def test_a_damaged_file_is_made_anew_and_never_trusted(tmp_path: Path, damage: object) -> None:
    file = fill(tmp_path)
    damage(file)  # type: ignore[operator]
    warned: list[str] = []
    with opened(tmp_path, warned=warned) as cache:
        assert cache.get(ASKED) == {}
        cache.put(FOUND)
        assert cache.get(ASKED) == FOUND
    assert len(warned) == 1
    assert warned[0].startswith(f"{file}: damaged (")
    assert not file.exists()
    with opened(tmp_path) as cache:  # the next run finds the new one, and nothing to warn of
        assert cache.get(ASKED) == FOUND


def test_a_file_that_cannot_be_written_any_more_is_read(tmp_path: Path) -> None:
    fill(tmp_path)
    warned: list[str] = []
    with opened(tmp_path, warned=warned) as cache:
        cache._database.execute("PRAGMA query_only=ON")
        cache.put({ASKED[2]: -2.0})
        cache.put({ASKED[2]: -2.0})
        assert cache.get(ASKED) == FOUND
    assert len(warned) == 1
    assert "no longer kept for later runs (attempt to write a readonly database)" in warned[0]


def test_a_folder_of_the_users_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        ConfigError, match=r"reference cache '.*file/x' cannot be used \(.*expected a folder that can be"
    ):
        LogprobCache(IDENTITY, tmp_path / "file" / "x")


def test_the_default_folder_is_done_without_where_it_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    warned: list[str] = []
    with opened(None, warned=warned) as cache:
        cache.put(FOUND)
        assert cache.get(ASKED) == FOUND
    assert [text.partition(":")[0] for text in warned] == ["reference log-probs are not kept for later runs"]


def test_the_default_folder_is_in_the_users_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "rlaif" / "reference-logprobs"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_cache_folder() == tmp_path / "home" / ".cache" / "rlaif" / "reference-logprobs"


WRITER = """
import sys
from pathlib import Path
from rlaif.train.logprob_cache import Asked, LogprobCache
first = int(sys.argv[2])
sys.stdin.readline()
cache = LogprobCache({"weights": "abc", "dtype": "float32"}, Path(sys.argv[1]), on_warning=sys.exit)
for number in range(first, first + 200, 10):
    cache.put({Asked((each,), (1,)): -float(each) for each in range(number, number + 10)})
cache.close()
"""


def test_processes_write_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "new")]
    writers = [subprocess.Popen([*command, str(first)], stdin=subprocess.PIPE, text=True) for first in (0, 100, 1000)]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    asked = [Asked((number,), (1,)) for number in [*range(300), *range(1000, 1200)]]
    with opened(tmp_path / "new") as cache:
        assert cache.get(asked) == {one: -float(one.prompt[0]) for one in asked}
