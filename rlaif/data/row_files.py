"""Rows to a file of a name that the user chose: .jsonl, .json or .parquet, the text ones also .gz. Equal rows make
equal bytes. The shards of a run folder are written by `shards`."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self, cast

import orjson

if TYPE_CHECKING:
    import pyarrow as pa

ROW_FILE_EXTENSIONS = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")

_GROUP_ROWS = 2_500
"""Rows that wait to be written to a parquet file as one row group."""


def extension_of(path: Path) -> str | None:
    """What a file of rows would hold by its name, one of `ROW_FILE_EXTENSIONS`; None for another name.

    >>> extension_of(Path("a.b.jsonl.gz")), extension_of(Path("a.csv")), extension_of(Path(".json"))
    ('.jsonl.gz', None, None)
    """
    found = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    return found if found in ROW_FILE_EXTENSIONS else None


def beside(path: Path, word: str) -> Path:
    """The path with a word before its extension.

    >>> str(beside(Path("a/b.jsonl.gz"), "train"))
    'a/b.train.jsonl.gz'
    """
    extension = extension_of(path) or path.suffix
    return path.with_name(f"{path.name.removesuffix(extension)}.{word}{extension}")


class RowFileWriter:
    """Writes rows to one file, in the order given; used as a context manager.

    Args:
        path: The file, which is replaced; its name need not tell what it holds.
        extension: One of `ROW_FILE_EXTENSIONS`: how it is written.
        schema: Of all rows; only parquet files have one.

    Raises:
        OSError: It cannot be written.
    """

    def __init__(self, path: Path, extension: str, schema: pa.Schema) -> None:
        self.rows = 0
        self._schema = schema
        self._waiting: list[Mapping[str, Any]] = []
        self._is_array = extension.startswith(".json") and not extension.startswith(".jsonl")
        self._parquet: Any = None
        self._raw: IO[bytes] = path.open("wb")
        self._file: IO[bytes] = self._raw
        if extension.endswith(".gz"):
            # neither a name nor a time in the header: they would differ from one writing to the next
            self._file = cast("IO[bytes]", gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0))
        elif extension == ".parquet":
            import pyarrow.parquet as pq

            self._parquet = pq.ParquetWriter(self._raw, schema, compression="zstd")

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row: a value for every column of the schema, in its order."""
        if self._parquet is not None:
            self._waiting.append(row)
            if len(self._waiting) >= _GROUP_ROWS:
                self._write_group()
        elif self._is_array:
            self._file.write((b",\n" if self.rows else b"[\n") + orjson.dumps(row))
        else:
            self._file.write(orjson.dumps(row) + b"\n")
        self.rows += 1

    def close(self) -> None:
        """Write what waits, and the end."""
        if self._parquet is not None:
            self._write_group()
        elif self._is_array:
            self._file.write(b"\n]\n" if self.rows else b"[]\n")
        self._end_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # the file is of no use, and what is left open would be closed, and complain, at some later time
            with suppress(Exception):
                self._end_files()
            self._raw.close()

    def _end_files(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._file.close()
        self._raw.close()

    def _write_group(self) -> None:
        import pyarrow as pa

        if self._waiting:  # readers stumble over a row group without rows
            self._parquet.write_table(pa.Table.from_pylist(self._waiting, schema=self._schema))
        self._waiting.clear()
