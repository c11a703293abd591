"""One SQLite file per run that holds every reply, so that nothing is asked twice when a process dies.

A reply is keyed by the SHA-256 of canonical JSON of everything that changes it (the backend's identity and the
request), and nothing else. It is committed within 10 ms or once 8 wait, whichever comes first: a kill loses at most
those 8.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import math
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from rlaif.errors import RunFolderError
from rlaif.records import (
    CandidateLogprobs,
    Failure,
    GeneratedToken,
    Generation,
    Message,
    Reply,
    Request,
    Reward,
    RewardRequest,
    ScoreRequest,
    TokenLogprob,
    Usage,
)

FILE_NAME = "journal.sqlite"
COMMIT_AFTER_SECONDS = 0.010
COMMIT_AFTER_REPLIES = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (key BLOB PRIMARY KEY, row_id TEXT NOT NULL, stage TEXT NOT NULL,
    reply BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (row_id TEXT NOT NULL, stage TEXT NOT NULL, error TEXT NOT NULL,
    attempts INTEGER NOT NULL, at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
"""


class Refusal(NamedTuple):
    """A request that the provider refused, where the row went on without a reply: part of what the row became, and
    therefore not asked again. `words` are the error's."""

    words: str


class JournaledReply(NamedTuple):
    """A reply as `rlaif show row` lists it."""

    stage: str
    reply: Reply | Refusal


class Journal:
    """The replies and failures of one run. Used from one event loop; one process at a time holds the lock.

    Args:
        folder: Where `journal.sqlite` stands; made when missing.
        read_only: Open without the lock and without making anything, to look at a run (also a running one).

    Raises:
        RunFolderError: Another process is writing, or the folder or file cannot be used.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._pending: list[tuple[bytes, str, str, bytes]] = []
        self._timer: asyncio.TimerHandle | None = None
        with ExitStack() as stack:  # undone when anything below fails
            try:
                self._database = _connect_read_only(folder) if read_only else _connect(folder, stack)
                stack.callback(self._database.close)
                if not read_only:
                    _prepare(self._database)
                self.replies_at_start = self._database.execute("SELECT count(*) FROM replies").fetchone()[0]
            except BlockingIOError as error:
                raise RunFolderError(f"{folder.parent}: another process is writing this run; wait for it") from error
            except (OSError, sqlite3.Error) as error:
                raise RunFolderError(f"{folder}: the journal cannot be opened ({error})") from error
            self._resources = stack.pop_all()

    def get(self, key: bytes) -> Reply | Refusal | None:
        """The reply under `key`, if one was ever received, or the refusal that stands for it."""
        for pending_key, _, _, reply in self._pending:
            if pending_key == key:
                return _decode(reply)
        found = self._database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
        return _decode(found[0]) if found else None

    def put(self, key: bytes, row_id: str, stage: str, reply: Reply | Refusal) -> None:
        """Keep a reply. Must be called on a running event loop, whose timer commits it."""
        self._pending.append((key, row_id, stage, _encode(reply)))
        if len(self._pending) >= COMMIT_AFTER_REPLIES:
            self.commit()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(COMMIT_AFTER_SECONDS, self._commit_in_time)

    def put_failure(self, failure: Failure) -> None:
        """Keep why a row failed; it is asked again on resume."""
        self._database.execute(
            "INSERT INTO failures (row_id, stage, error, attempts) VALUES (?, ?, ?, ?)",
            (failure.id, failure.stage, failure.error, failure.attempts),
        )

    def commit(self) -> None:
        """Write what waits, in one transaction.

        Raises:
            RunFolderError: The disk is full, or the file was taken away.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._pending:
            return
        try:
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?)", self._pending)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")  # or the next attempt fails for having begun twice
            raise RunFolderError(f"the journal cannot be written ({error}); what it holds is kept") from error
        self._pending.clear()

    def _commit_in_time(self) -> None:
        with suppress(RunFolderError):  # nobody hears it here; what waits still waits, and the next commit says it
            self.commit()

    def replies_of(self, row_id: str) -> Iterator[JournaledReply]:
        """Every reply about one row, in the order of its stages."""
        rows = self._database.execute("SELECT stage, reply FROM replies WHERE row_id = ? ORDER BY stage", (row_id,))
        for stage, reply in rows:
            yield JournaledReply(stage, _decode(reply))

    def failures_of(self, row_id: str) -> list[Failure]:
        """Every time this row failed, oldest first."""
        rows = self._database.execute(
            "SELECT row_id, stage, error, attempts FROM failures WHERE row_id = ? ORDER BY rowid", (row_id,)
        )
        return [Failure(*row) for row in rows]

    def close(self) -> None:
        """Commit, and give the lock back."""
        with self._resources:
            self.commit()


def _connect(folder: Path, stack: ExitStack) -> sqlite3.Connection:
    folder.mkdir(parents=True, exist_ok=True)
    lock = stack.enter_context((folder / "lock").open("a"))
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return sqlite3.connect(folder / FILE_NAME, isolation_level=None)


def _connect_read_only(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{(folder / FILE_NAME).absolute().as_uri()}?mode=ro", uri=True)


def _prepare(database: sqlite3.Connection) -> None:
    # A commit reaches the operating system, so a killed process loses nothing; only a power cut could.
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=NORMAL")
    database.executescript(_SCHEMA)


class RequestKeys:
    """Makes journal keys for one backend: SHA-256 over its identity and the request.

    Args:
        identity: `Backend.identity`.
    """

    def __init__(self, identity: Mapping[str, Any]) -> None:
        self._prefix = hashlib.sha256(orjson.dumps(dict(identity), option=orjson.OPT_SORT_KEYS))

    def key(self, request: Request) -> bytes:
        """32 bytes; equal for equal requests, in every process."""
        digest = self._prefix.copy()
        digest.update(orjson.dumps(_canonical(request)))
        return digest.digest()


def _canonical(request: Request) -> list[Any]:
    messages = [_canonical_message(message) for message in request.messages]
    if isinstance(request, ScoreRequest):
        return ["score", messages, request.labels]
    if isinstance(request, RewardRequest):
        return ["reward", messages]
    nucleus = [request.top_p] if request.top_p != 1.0 else []  # keys from before there was a choice stay as they were
    return ["generate", messages, request.max_tokens, request.temperature, request.seed, request.labels, *nucleus]


def _canonical_message(message: Message) -> list[Any]:
    # Lone surrogates can stand in a JSON input; they have no UTF-8 form, so the key is made of their escapes.
    parts = [[text.encode("utf-8", "surrogatepass").hex() if _has_surrogate(text) else text, is_template]
             for text, is_template in message.segments]  # fmt: skip
    return [message.role, parts]


def _has_surrogate(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _encode(reply: Reply | Refusal) -> bytes:
    if isinstance(reply, Refusal):
        return orjson.dumps(["refused", reply.words.encode("utf-8", "backslashreplace").decode()])
    if isinstance(reply, CandidateLogprobs):
        tokens = [[token, _number(logprob)] for token, logprob in reply.tokens]
        return orjson.dumps(["score", tokens, reply.is_exhaustive, list(reply.usage), reply.text])
    if isinstance(reply, Reward):
        return orjson.dumps(["reward", reply.value, list(reply.usage)])
    generated = [
        [token, [[other, _number(logprob)] for other, logprob in alternatives]] for token, alternatives in reply.tokens
    ]
    return orjson.dumps(["generate", reply.text, reply.finish_reason, generated, list(reply.usage)])


def _decode(stored: bytes) -> Reply | Refusal:
    kind, *fields = orjson.loads(stored)
    if kind == "refused":
        return Refusal(fields[0])
    if kind == "score":
        tokens, is_exhaustive, usage, text = fields
        return CandidateLogprobs(_logprobs(tokens), is_exhaustive, Usage(*usage), text)
    if kind == "reward":
        value, usage = fields
        return Reward(float(value), Usage(*usage))
    text, finish_reason, generated, usage = fields
    tokens = tuple(GeneratedToken(token, _logprobs(alternatives)) for token, alternatives in generated)
    return Generation(text, finish_reason, tokens, Usage(*usage))


def _number(logprob: float) -> float | str:
    return logprob if math.isfinite(logprob) else repr(logprob)  # JSON has no infinity, and would make it null


def _logprobs(stored: list[list[Any]]) -> tuple[TokenLogprob, ...]:
    return tuple(TokenLogprob(token, float(logprob)) for token, logprob in stored)
