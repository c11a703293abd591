"""Raw rows out of anything that holds rows: files, folders, the Hugging Face hub, objects in memory. Streamed, with
bounded memory (a `.json` array, which has no lines, is the one exception). What columns mean is told by `columns.py`.

A `RowSource` can be read more than once: a first pass checks and fixes the schema, a second one feeds the judge.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from rlaif.errors import InputError

KNOWN_EXTENSIONS = (".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz")

_BATCH_ROWS = 512
"""Rows taken from columnar formats at a time."""

_HUB_ADDRESS = re.compile(
    r"hf://(?P<owner>[\w.-]+)/(?P<name>[\w.-]+)(?:@(?P<revision>[^:@\s]+))?(?::(?P<split>[^:@\s]+))?"
)


_SPLIT = re.compile(r"(train|test|validation|valid|dev|eval)(?![A-Za-z])")


class RawRow(NamedTuple):
    """One row as the source holds it.

    `line` is 1-based: the line in text files, the row elsewhere. `values` is an error where this row cannot be read but
    the ones after it can.
    """

    line: int
    values: dict[str, Any] | InputError


@dataclass(frozen=True, slots=True)
class RowSource:
    """Rows that can be read again and again; `name` is what messages call them."""

    name: str
    read: Callable[[], Iterator[RawRow]]


class HubAddress(NamedTuple):
    """A data set on the Hugging Face hub."""

    repository: str
    revision: str | None
    split: str


def open_source(source: object) -> RowSource:
    """Find out what holds the rows; nothing is read yet beyond what that takes.

    Args:
        source: A path, `hf://OWNER/NAME[@REVISION][:SPLIT]`, or rows in memory: a `datasets.Dataset`, a
            `pandas.DataFrame`, or an iterable of mappings.

    Raises:
        InputError: There is no such file, or it is of no known kind.
    """
    if isinstance(source, str) and source.startswith("hf://"):
        address = parse_hub_address(source)
        return RowSource(source, lambda: _hub_rows(source, address))
    if isinstance(source, str | Path):
        return _open_path(Path(source).expanduser(), str(source))
    if hasattr(source, "to_dict") and hasattr(source, "iloc"):  # a DataFrame, told without importing pandas
        return RowSource("rows", lambda: _frame_rows(source))
    if isinstance(source, Mapping) or not isinstance(source, Iterable):
        kind = type(source).__name__
        hint = "; choose one of its splits" if isinstance(source, Mapping) else ""
        raise InputError(f"is a {kind}, expected a path, a Dataset, a DataFrame or a list of dicts{hint}", path="rows")
    # An iterator can be read once, and two passes are needed.
    rows = list(source) if isinstance(source, Iterator) else source
    return RowSource("rows", lambda: _memory_rows(rows))


def parse_hub_address(address: str) -> HubAddress:
    """Take apart `hf://OWNER/NAME[@REVISION][:SPLIT]`.

    >>> parse_hub_address("hf://owner/name@v1.0:test")
    HubAddress(repository='owner/name', revision='v1.0', split='test')
    """
    match = _HUB_ADDRESS.fullmatch(address)
    if match is None:
        raise InputError("is no address on the hub, expected hf://OWNER/NAME[@REVISION][:SPLIT]", path=address)
    return HubAddress(f"{match['owner']}/{match['name']}", match["revision"], match["split"] or "train")


def _open_path(path: Path, name: str) -> RowSource:
    if os.path.isdir(path):  # unlike `Path.is_dir`, no error for a name that no file could have
        return _open_folder(path, name)
    if not os.path.exists(path):
        raise InputError("does not exist, expected a file or a folder", path=name)
    readers: dict[str, Callable[[Path, str], Iterator[RawRow]]] = {
        ".jsonl": _jsonl_rows,
        ".json": _json_rows,
        ".csv": _csv_rows,
        ".parquet": _parquet_rows,
    }
    is_gzip = path.suffix == ".gz"
    suffix = Path(path.stem).suffix if is_gzip else path.suffix
    reader = readers.get(suffix)
    if reader is None or (is_gzip and suffix == ".parquet"):
        extension = f"{suffix}.gz" if is_gzip else suffix
        found = f"the unknown extension {extension!r}" if extension else "no extension"
        raise InputError(f"has {found}, expected one of {', '.join(KNOWN_EXTENSIONS)}", path=name)
    if path.is_file() and path.stat().st_size == 0:
        raise InputError("is empty, expected rows", path=name)
    return RowSource(name, lambda: reader(path, name))


def _open_folder(path: Path, name: str) -> RowSource:
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return RowSource(name, lambda: _saved_dataset_rows(path, name))
    for folder in (path / "data", path):
        files = sorted(folder.glob("*.parquet"))
        splits = sorted({match[0] for file in files if (match := _SPLIT.match(file.stem))})
        if len(splits) > 1:
            raise InputError(f"holds several splits ({', '.join(splits)}), expected one; name a file", path=name)
        if files:
            return RowSource(name, lambda files=files: _parquet_folder_rows(files, name))  # type: ignore[misc]
    raise InputError(
        "is a folder without a data set in it, expected a file, a folder of parquet files or one that `datasets` saved",
        path=name,
    )


def _parquet_folder_rows(files: list[Path], name: str) -> Iterator[RawRow]:
    line = 0
    for file in files:
        for row in _parquet_rows(file, name):
            line += 1
            yield RawRow(line, row.values)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    try:
        handle: Any = (gzip.open if path.suffix == ".gz" else open)(path, "rb")
    except OSError as error:
        raise InputError(f"cannot be opened: {error.strerror or error}", path=name) from None
    with handle:
        yield handle


def _lines(handle: IO[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Lines with their numbers; a byte order mark is dropped, and what breaks while reading is named with its line."""
    line = 0
    try:
        for line, content in enumerate(handle, 1):
            yield line, content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content
    except EOFError:
        raise InputError(
            "the gzip data ends too early, the file was cut short; copy it again", path=name, line=line + 1
        ) from None
    except gzip.BadGzipFile:
        raise InputError("is no gzip file though its name ends in .gz; rename or compress it", path=name) from None
    except zlib.error as error:
        raise InputError(f"the gzip data is damaged ({error}); copy it again", path=name, line=line + 1) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=name, line=line + 1) from None


def _jsonl_rows(path: Path, name: str) -> Iterator[RawRow]:
    with _opened(path, name) as handle:
        yield from _parsed_lines(_lines(handle, name), name)


def _parsed_lines(lines: Iterable[tuple[int, bytes]], name: str) -> Iterator[RawRow]:
    loads = orjson.loads
    for line, content in lines:
        try:
            values = loads(content)
        except orjson.JSONDecodeError as error:
            if content.strip():
                yield RawRow(line, InputError(_json_fault(content, error, error.pos + 1), path=name, line=line))
            continue
        yield _checked(line, values, name)


def _checked(line: int, values: object, name: str) -> RawRow:
    if type(values) is dict:
        return RawRow(line, values)
    kind = {list: "a list", str: "a text", type(None): "null"}.get(type(values), f"{values!r}")
    return RawRow(line, InputError(f"is {kind}, expected an object with a column a key", path=name, line=line))


def _json_fault(content: bytes, error: orjson.JSONDecodeError, character: int) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as fault:
        return f"byte {fault.start + 1} is not UTF-8, expected text in UTF-8"
    if b"NaN" in content or b"Infinity" in content:
        return "is not valid JSON: NaN and Infinity are no JSON values, expected a number or null"
    return f"is not valid JSON at character {character}: {error.msg.split(': line')[0]}"


def _json_rows(path: Path, name: str) -> Iterator[RawRow]:
    with _opened(path, name) as handle:
        lines = list(_lines(handle, name))
    content = b"".join(part for _, part in lines)
    if not content.strip():
        return
    try:
        values = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        if _is_object(lines[0][1]):  # JSON Lines under the name .json is common
            yield from _parsed_lines(lines, name)
            return
        for number, part in lines:
            try:
                part.decode("utf-8")
            except UnicodeDecodeError as fault:
                reason = f"byte {fault.start + 1} is not UTF-8, expected text in UTF-8"
                raise InputError(reason, path=name, line=number) from None
        raise InputError(_json_fault(content, error, error.colno), path=name, line=error.lineno) from None
    if isinstance(values, dict):
        values = values.get("data", [values])
    if not isinstance(values, list):
        raise InputError(f'holds {values!r:.40}, expected an array of rows or {{"data": [...]}}', path=name)
    del content, lines
    for number, row in enumerate(values, 1):
        yield _checked(number, row, name)


def _is_object(content: bytes) -> bool:
    try:
        return isinstance(orjson.loads(content), dict)
    except orjson.JSONDecodeError:
        return False


def _csv_rows(path: Path, name: str) -> Iterator[RawRow]:
    # Long responses are longer than the module's default of 131,072 characters a field.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    with _opened(path, name) as handle:
        numbered = _lines(handle, name)
        first = next(numbered, (1, b""))
        lines = _DecodedLines(itertools.chain([first], numbered))
        reader = csv.reader(lines, strict=True, delimiter=_delimiter(first[1]))
        header = _next_record(reader, lines, name)
        if isinstance(header, InputError):
            raise header
        if header is None or not any(header):
            raise InputError("is empty, expected a header line with the names of the columns", path=name)
        repeated = [column for column in header if header.count(column) > 1]
        if repeated:
            raise InputError("stands twice in the header", path=name, line=1, column=repeated[0])
        while True:
            line = lines.line + 1
            record = _next_record(reader, lines, name)
            if record is None:
                return
            if isinstance(record, InputError):
                yield RawRow(line, record)
            elif len(record) == len(header):
                yield RawRow(line, dict(zip(header, record, strict=True)))
            elif record:
                reason = f"has {len(record)} fields, expected {len(header)} as in the header"
                yield RawRow(line, InputError(reason, path=name, line=line))


def _delimiter(header: bytes) -> str:
    """What separates the names of the columns: a comma, or what spreadsheets in many languages write instead."""
    unquoted = re.sub(rb'"[^"]*"', b"", header)
    return max((",", ";", "\t"), key=lambda mark: unquoted.count(mark.encode()))


class _DecodedLines:
    """Lines as text, counted; unlike a generator it goes on after a line that cannot be decoded."""

    def __init__(self, lines: Iterator[tuple[int, bytes]]) -> None:
        self.line = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.line, content = next(self._lines)
        return content.decode("utf-8")


def _next_record(reader: Iterator[list[str]], lines: _DecodedLines, name: str) -> list[str] | InputError | None:
    first = lines.line + 1
    try:
        return next(reader, None)
    except UnicodeDecodeError as error:
        reason = f"byte {error.start + 1} is not UTF-8, expected text in UTF-8"
        return InputError(reason, path=name, line=lines.line)
    except csv.Error as error:
        return InputError(f"is not valid CSV: {error}", path=name, line=first)


def _parquet_rows(path: Path, name: str) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    line = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for values in batch.to_pylist():
                    line += 1
                    yield RawRow(line, values)
    except (pa.ArrowException, OSError) as error:
        reason = f"cannot be read as parquet: {str(error).splitlines()[0]}"
        raise InputError(reason, path=name, line=line + 1 if line else None) from None


def _saved_dataset_rows(path: Path, name: str) -> Iterator[RawRow]:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # the library raises whatever its formats raise
        raise InputError(f"cannot be loaded by `datasets`: {str(error).splitlines()[0]}", path=name) from error
    if isinstance(loaded, dict):
        if len(loaded) > 1 and "train" not in loaded:
            raise InputError(f"holds the splits {', '.join(loaded)}, expected one; name its folder", path=name)
        loaded = loaded["train"] if "train" in loaded else next(iter(loaded.values()))
    yield from _memory_rows(loaded, name)


def _hub_rows(name: str, address: HubAddress) -> Iterator[RawRow]:
    import datasets

    try:
        rows = datasets.load_dataset(address.repository, revision=address.revision, split=address.split, streaming=True)
    except Exception as error:  # no network, no such data set, no such split: the library has a class for each
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"cannot be loaded from the hub: {lines[0]}", path=name) from error
    yield from _memory_rows(rows, name)


def _memory_rows(rows: Iterable[Any], name: str = "rows") -> Iterator[RawRow]:
    for line, values in enumerate(rows, 1):
        if isinstance(values, Mapping):
            yield RawRow(line, values if type(values) is dict else dict(values))
        else:
            yield _checked(line, values, name)


def _frame_rows(frame: Any) -> Iterator[RawRow]:
    for start in range(0, len(frame), _BATCH_ROWS):
        for offset, values in enumerate(frame.iloc[start : start + _BATCH_ROWS].to_dict("records"), start + 1):
            yield RawRow(offset, {column: _without_missing(value) for column, value in values.items()})


def _without_missing(value: Any) -> Any:
    """pandas writes a missing value as NaN, NaT or NA, and lists as arrays."""
    if type(value) in (str, int, bool, list, dict):
        return value
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "to_pydatetime"):
        return None if value != value else value.to_pydatetime(warn=False)
    # NaN differs from itself; comparing NA gives NA, which has no truth value.
    return None if type(value).__name__ in ("NAType", "NaTType") or value != value else value
