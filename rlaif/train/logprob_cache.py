"""Log-probabilities on disk: one SQLite file a reference, under hashes of token ids. No torch."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlaif.errors import ConfigError

_log = logging.getLogger(__name__)

_FORMAT = 1
"""Of keys and values; to be raised when the same weights and ids give other numbers than before."""
_BUSY_SECONDS = 60.0
_KEYS_AT_ONCE = 500
_SCHEMA = "CREATE TABLE IF NOT EXISTS logprobs (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"


class Asked(NamedTuple):
    """What a log-probability is of, as token ids."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]


class LogprobCache:
    """One SQLite file a reference, which holds hashes and numbers and no text; several processes may use it at once.

    A damaged file is left, with a warning, and the next one begun; one that can no longer be written is only read.
    Neither stops a run: what is not known is computed.

    Args:
        identity: What tells references apart, as `reference_identity` says.
        folder: Where the file stands, made when missing; by default below the user's cache.
        on_warning: Told what is wrong with the file.

    Raises:
        ConfigError: The folder that was given cannot be used. (The default one is done without.)
    """

    def __init__(
        self,
        identity: Mapping[str, Any],
        folder: Path | None = None,
        *,
        on_warning: Callable[[str], None] = _log.warning,
    ) -> None:
        text = json.dumps({"format": _FORMAT, **identity}, sort_keys=True)
        self._identity = hashlib.sha256(text.encode())
        self._on_warning = on_warning
        self._is_writable = True
        try:
            self._folder = folder or default_cache_folder()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._database, self._path = self._open()
        except (OSError, RuntimeError, sqlite3.OperationalError) as error:
            if folder is not None:
                raise ConfigError(
                    f"reference cache {str(folder)!r} cannot be used ({error}); expected a folder that can be written"
                ) from error
            self._do_without(error)

    def get(self, asked: Sequence[Asked]) -> dict[Asked, float]:
        """What is known of these."""
        by_key = {self._key(one): one for one in asked}
        try:
            return {by_key[key]: _decoded(key, value) for key, value in self._rows(list(by_key))}
        except (ValueError, sqlite3.DatabaseError) as error:
            self._begin_anew(error)
            return {}

    def put(self, found: Mapping[Asked, float]) -> None:
        """Keep log-probabilities, at once; those that are not finite are left out."""
        keys = {self._key(one): value for one, value in found.items() if math.isfinite(value)}
        rows = [(key, _encoded(key, value)) for key, value in keys.items()]
        try:
            if self._is_writable:
                self._write(rows)
        except sqlite3.OperationalError as error:  # the disk is full, the file became read-only, ...
            self._is_writable = False
            self._on_warning(f"{self._path}: reference log-probs are no longer kept for later runs ({error})")
        except sqlite3.DatabaseError as error:
            self._begin_anew(error)
            self.put(found)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _key(self, asked: Asked) -> bytes:
        """32 bytes; equal for equal references and ids, in every process."""
        digest = self._identity.copy()
        for ids in asked:
            digest.update(np.asarray([len(ids), *ids], "<i8").tobytes())
        return digest.digest()

    def _rows(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            marks = ",".join("?" * len(some))
            query = f"SELECT key, value FROM logprobs WHERE key IN ({marks})"
            yield from self._database.execute(query, some).fetchall()  # else the query outlives a damaged value

    def _write(self, rows: Sequence[tuple[bytes, bytes]]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany("INSERT OR REPLACE INTO logprobs VALUES (?, ?)", rows)
            self._database.execute("COMMIT")
        except sqlite3.Error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    def _open(self) -> tuple[sqlite3.Connection, Path]:
        while True:
            path = self._newest()
            try:
                return _connect(path), path
            except sqlite3.OperationalError:
                raise
            except sqlite3.DatabaseError as error:
                self._retire(path, error)

    def _newest(self) -> Path:
        stem = f"{self._identity.hexdigest()}-"
        numbers = [int(path.stem.removeprefix(stem)) for path in self._folder.glob(f"{stem}*.sqlite")]
        return self._folder / f"{stem}{max(numbers, default=0)}.sqlite"

    def _retire(self, path: Path, error: Exception) -> None:
        """Put an empty file of the next number in a damaged one's place.

        Never under the same name: another process may still have it open, and SQLite finds the rest of what belongs to
        a file by its name.
        """
        self._on_warning(f"{path}: damaged ({error}); reference log-probs are computed and kept anew")
        stem, _, number = path.stem.rpartition("-")
        path.with_name(f"{stem}-{int(number) + 1}.sqlite").touch()
        for old in path.parent.glob(f"{path.name}*"):
            old.unlink(missing_ok=True)

    def _begin_anew(self, error: Exception) -> None:
        self._database.close()
        try:
            self._retire(self._path, error)
            self._database, self._path = self._open()
        except (OSError, sqlite3.OperationalError) as fault:
            self._do_without(fault)

    def _do_without(self, error: Exception) -> None:
        self._on_warning(f"reference log-probs are not kept for later runs: the cache cannot be used ({error})")
        self._database, self._path = _connect(Path(":memory:")), Path(":memory:")


def default_cache_folder() -> Path:
    """Below $XDG_CACHE_HOME, or ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "rlaif" / "reference-logprobs"


def _connect(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        # A commit reaches the operating system, so a killed process loses nothing; only a power cut could.
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(_SCHEMA)
        if (found := database.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(found)
    except sqlite3.Error:
        database.close()
        raise
    return database


def _encoded(key: bytes, value: float) -> bytes:
    # With a checksum: SQLite itself would not see a bit that has changed in a value.
    number = np.asarray(value, "<f4").tobytes()
    return number + zlib.crc32(key + number).to_bytes(4, "little")


def _decoded(key: bytes, stored: bytes) -> float:
    number = stored[:4]
    if len(stored) != 8 or zlib.crc32(key + number).to_bytes(4, "little") != stored[4:]:
        raise ValueError("a checksum is wrong")
    return float(np.frombuffer(number, "<f4")[0])
