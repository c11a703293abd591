"""Files of rows: what is written is read back, and is the same each time."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from rlaif.data import row_files
from rlaif.data.files import open_source
from rlaif.data.row_files import ROW_FILE_EXTENSIONS, RowFileWriter, beside, extension_of

SCHEMA = pa.schema([("text", pa.string()), ("number", pa.float64())])
ROWS = [{"text": f"line\n{n} é", "number": n / 7} for n in range(11)] + [{"text": "", "number": None}]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> bytes:
    with RowFileWriter(path, extension_of(path) or "", SCHEMA) as writer:
        for row in rows:
            writer.write(row)
    return path.read_bytes()


@pytest.mark.parametrize("extension", ROW_FILE_EXTENSIONS)
def test_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str) -> None:
    monkeypatch.setattr(row_files, "_GROUP_ROWS", 5)
    path = tmp_path / f"rows{extension}"
    write(path, ROWS)
    assert [row.values for row in open_source(path).read()] == ROWS


@pytest.mark.parametrize("extension", ROW_FILE_EXTENSIONS)
def test_equal_rows_make_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extension: str) -> None:
    first = write(tmp_path / f"a{extension}", ROWS)
    later = time.time() + 1e6
    monkeypatch.setattr(time, "time", lambda: later)
    assert write(tmp_path / f"b{extension}", ROWS) == first
    assert write(tmp_path / f"c{extension}", ROWS[1:]) != first


@pytest.mark.parametrize("extension", ROW_FILE_EXTENSIONS)
def test_no_rows(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"none{extension}"
    if extension != ".jsonl":
        assert write(path, [])
        assert list(open_source(path).read()) == []
    else:
        assert write(path, []) == b""


@pytest.mark.parametrize("extension", ROW_FILE_EXTENSIONS)
def test_an_error_inside_is_not_hidden_by_another(tmp_path: Path, extension: str) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        write(tmp_path / f"x{extension}", rows())


def test_names() -> None:
    names = ["a.jsonl", "a.v1.json", "a.parquet", "a.jsonl.gz", "a.parquet.gz", "a.gz", "a.csv", "a", ".json"]
    found = [extension_of(Path(name)) for name in names]
    assert found == [".jsonl", ".json", ".parquet", ".jsonl.gz", None, None, None, None, None]
    assert beside(Path("x/a.v1.json"), "test") == Path("x/a.v1.test.json")
