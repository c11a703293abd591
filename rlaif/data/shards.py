"""Rows to the parquet files of a run folder, whatever the rows hold: one Arrow schema serves all shards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import orjson

from rlaif.data.schema import fits_json, plain_value
from rlaif.errors import RunFolderError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

DEFAULT_SHARD_ROWS = 50_000

_GROUP_ROWS, _GROUP_BYTES = 2_500, 8 * 2**20
"""Rows, or bytes of them, that are held before they go to the file as one parquet row group."""

_BATCH_ROWS = 256
"""Rows taken from a shard at a time, where they are wanted one by one."""

_BLOCK_BYTES = 2**20
"""Read at a time when rows become a table."""


class RowWriter:
    """Writes rows, in the order given, to `FOLDER/data/train-00000.parquet` and on.

    Each shard appears whole or not at all. What an earlier, longer run left behind is removed at `close`. Used as a
    context manager, an error inside leaves the unfinished shard unwritten.

    Args:
        folder: The run folder; `data/` is made in it.
        schema: Of all rows; the user's own columns made by `rlaif.data.schema.user_fields`.
        rows_per_shard: At least 1. A shard is written in row groups, so that memory does not grow with it.

    Raises:
        RunFolderError: The folder cannot be written.
    """

    def __init__(self, folder: Path, schema: pa.Schema, *, rows_per_shard: int = DEFAULT_SHARD_ROWS) -> None:
        import pyarrow as pa

        if rows_per_shard < 1:
            raise ValueError(f"rows_per_shard is {rows_per_shard}, expected at least 1")
        self._folder = folder / "data"
        self._schema = pa.schema([field.remove_metadata() for field in schema])
        self._rows_per_shard = rows_per_shard
        self._is_plain = all(fits_json(field) for field in schema)
        self._pending: list[Any] = []
        self._pending_bytes = 0
        self._file: pq.ParquetWriter | None = None
        self._rows_in_shard = 0
        self.rows = 0
        self.shards = 0
        _reporting(lambda: self._folder.mkdir(parents=True, exist_ok=True), self._folder)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add one row: a value for every column of the schema."""
        if self._is_plain:
            encoded = orjson.dumps(row, default=plain_value, option=orjson.OPT_NON_STR_KEYS)
            self._pending.append(encoded)
            self._pending_bytes += len(encoded)
        else:
            self._pending.append(row)
        self.rows += 1
        self._rows_in_shard += 1
        if self._rows_in_shard >= self._rows_per_shard:
            self._end_shard()
        elif len(self._pending) >= _GROUP_ROWS or self._pending_bytes >= _GROUP_BYTES:
            self._write_group()

    def close(self) -> None:
        """Write the last shard and remove shards of an earlier run.

        Without any rows an empty shard is written: pandas and pyarrow load it, `datasets` says it holds no data.
        """
        if self._rows_in_shard or self.shards == 0:
            self._end_shard()
        _reporting(self._remove_leftovers, self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif self._file is not None:
            self._file.close()
            self._temporary().unlink(missing_ok=True)

    def _shard(self) -> Path:
        return self._folder / f"train-{self.shards:05d}.parquet"

    def _temporary(self) -> Path:
        return self._folder / f".{self._shard().name}.tmp"

    def _write_group(self) -> None:
        import pyarrow.parquet as pq

        table = self._table()

        def write() -> None:
            if self._file is None:
                self._file = pq.ParquetWriter(self._temporary(), table.schema, compression="zstd")
            if table.num_rows:  # readers stumble over a row group without rows
                self._file.write_table(table)

        _reporting(write, self._shard())
        self._pending.clear()
        self._pending_bytes = 0

    def _end_shard(self) -> None:
        if self._pending or self._file is None:
            self._write_group()
        assert self._file is not None
        _reporting(self._file.close, self._shard())
        _reporting(lambda: os.replace(self._temporary(), self._shard()), self._shard())
        self._file = None
        self._rows_in_shard = 0
        self.shards += 1

    def _table(self) -> pa.Table:
        """The rows that wait, as a table.

        Through Arrow's own JSON reader: as fast as from Python lists, less memory while rows wait, and unlike
        `pa.array` it does not import pandas, a third of a CPU second.
        """
        import pyarrow as pa
        import pyarrow.json

        if not self._pending:
            return self._schema.empty_table()
        if not self._is_plain:
            return pa.Table.from_pylist(self._pending, schema=self._schema)
        content = b"\n".join(self._pending)
        return pa.json.read_json(
            pa.BufferReader(content),
            # A row may lie across two blocks, not three; one thread keeps memory down.
            read_options=pa.json.ReadOptions(
                use_threads=False, block_size=max(_BLOCK_BYTES, *map(len, self._pending)) + 1
            ),
            parse_options=pa.json.ParseOptions(explicit_schema=self._schema, unexpected_field_behavior="error"),
        )

    def _remove_leftovers(self) -> None:
        for path in self._folder.glob("train-*.parquet"):
            number = path.stem.removeprefix("train-")
            if number.isdecimal() and int(number) >= self.shards:
                path.unlink()
        for path in self._folder.glob(".train-*.parquet.tmp"):
            path.unlink()


def read_schema(folder: Path) -> tuple[pa.Schema, int]:
    """Schema and number of the rows in a run folder.

    Raises:
        RunFolderError: There are none, or they cannot be read.
    """
    shards = [_opened(path) for path in _shards(folder)]
    if not shards:
        raise RunFolderError(f"{folder / 'data'}: holds no .parquet file; was it written by rlaif?")
    return shards[0].schema_arrow, sum(shard.metadata.num_rows for shard in shards)


def column_values(folder: Path, column: str) -> Iterator[Any]:
    """What a column of a run folder's rows holds, row by row, read as far as it is asked for.

    Raises:
        RunFolderError: A shard cannot be read, or has no such column.
    """
    import pyarrow as pa

    for path in _shards(folder):
        shard = _opened(path)
        try:
            for batch in shard.iter_batches(columns=[column]):
                yield from batch.column(column).to_pylist()
        except (OSError, KeyError, pa.ArrowInvalid) as error:
            raise RunFolderError(
                f"{path}: column {column} cannot be read ({error}); was it written by rlaif?"
            ) from error


def written_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """The rows of a run folder in their order, read as far as they are asked for.

    Raises:
        RunFolderError: A shard cannot be read.
    """
    import pyarrow as pa

    for path in _shards(folder):
        try:
            for batch in _opened(path).iter_batches(_BATCH_ROWS):
                yield from batch.to_pylist()
        except (OSError, pa.ArrowInvalid) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error


def rewrite_shards(source: Path, folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Write the rows of one run folder to another, changed: shard by shard, and a row group of each at a time.

    Each shard appears whole or not at all, under the name it has in `source`.

    Args:
        source: A run folder.
        folder: The one to write; `data/` is made in it, and shards that `source` has not are removed.
        change: From some rows to as many, or to fewer; it gets none, too.

    Raises:
        RunFolderError: A shard cannot be read, or not be written.
    """
    import pyarrow.parquet as pq

    data = folder / "data"
    _reporting(lambda: data.mkdir(parents=True, exist_ok=True), data)
    written = set()
    for path in _shards(source):
        shard = _opened(path)
        temporary, target = data / f".{path.name}.tmp", data / path.name
        try:
            with pq.ParquetWriter(
                temporary, change(shard.schema_arrow.empty_table()).schema, compression="zstd"
            ) as out:
                for number in range(shard.num_row_groups):
                    changed = change(shard.read_row_group(number))
                    if changed.num_rows:  # readers stumble over a row group without rows
                        out.write_table(changed)
            os.replace(temporary, target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise RunFolderError(f"{target} cannot be written from {path}: {error.strerror or error}") from error
        written.add(target)
    for path in {*data.glob("train-*.parquet"), *data.glob(".train-*.parquet.tmp")} - written:
        path.unlink()


def _shards(folder: Path) -> list[Path]:
    return sorted((folder / "data").glob("train-*.parquet"))


def _opened(path: Path) -> pq.ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error


def _reporting(action: Callable[[], object], path: Path) -> None:
    try:
        action()
    except OSError as error:
        raise RunFolderError(f"{path} cannot be written: {error.strerror or error}") from error
