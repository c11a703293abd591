"""The journal: replies survive a kill, equal requests have equal keys, and nothing else does."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing
from pathlib import Path

import pytest

from rlaif.engine.journal import Journal, Refusal, RequestKeys
from rlaif.errors import RunFolderError
from rlaif.records import (
    CandidateLogprobs,
    Failure,
    GeneratedToken,
    GenerateRequest,
    Generation,
    Message,
    Reward,
    RewardRequest,
    ScoreRequest,
    Segment,
    TokenLogprob,
    Turn,
    Usage,
)

SCORE = CandidateLogprobs((TokenLogprob("1", -0.1), TokenLogprob(" 1", -3.5)), False, Usage(300, 1, 20), "1")
TEXT = Generation("è\x00\n", "stop", (GeneratedToken("è", (TokenLogprob("è", -1.0),)),), Usage(5, 2))
MESSAGES = (Message("user", (Segment("Which? ", True), Segment("this", False))),)
REWARD = Reward(-0.1 - 0.2, Usage(40, 0, 30))
REQUEST = ScoreRequest(MESSAGES, ("1", "2"))


async def test_replies_come_back_equal_before_and_after_the_commit(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put(b"a" * 32, "row", "ab", SCORE)
    assert journal.get(b"a" * 32) == SCORE
    journal.put(b"b" * 32, "row", "ba", TEXT)
    journal.put(b"d" * 32, "row", "response a", REWARD)
    journal.put(b"e" * 32, "other", "response, sample 2", Refusal("400: è\n"))
    journal.close()
    again = Journal(tmp_path)
    assert again.replies_at_start == 4
    assert again.get(b"e" * 32) == Refusal("400: è\n")
    assert again.get(b"d" * 32) == REWARD
    assert again.get(b"a" * 32) == SCORE
    assert again.get(b"b" * 32) == TEXT
    assert again.get(b"c" * 32) is None
    replies = [(entry.stage, entry.reply) for entry in again.replies_of("row")]
    assert replies == [("ab", SCORE), ("ba", TEXT), ("response a", REWARD)]
    again.close()


def committed(folder: Path) -> int:
    with sqlite3.connect(folder / "journal.sqlite") as database:
        count: int = database.execute("SELECT count(*) FROM replies").fetchone()[0]
    database.close()
    return count


async def test_a_commit_comes_with_the_eighth_reply_or_by_the_timer(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for index in range(7):
        journal.put(bytes([index]) * 32, "row", "ab", SCORE)
    assert committed(tmp_path) == 0
    journal.put(b"x" * 32, "row", "ab", SCORE)
    assert committed(tmp_path) == 8
    journal.put(b"y" * 32, "row", "ab", SCORE)
    for _ in range(200):
        await asyncio.sleep(0.005)
        if committed(tmp_path) == 9:
            break
    assert committed(tmp_path) == 9
    journal.close()


def test_kill_minus_nine_loses_at_most_what_waits(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, os, signal, sys
        from pathlib import Path
        from rlaif.engine.journal import Journal
        from rlaif.records import CandidateLogprobs, TokenLogprob
        async def main():
            journal = Journal(Path(sys.argv[1]))
            for index in range(100):
                journal.put(index.to_bytes(32, "big"), "row", "ab", CandidateLogprobs((TokenLogprob("1", -0.1),)))
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
        """
    )
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    journal = Journal(tmp_path)
    assert journal.replies_at_start == 96
    journal.close()


def test_a_second_process_is_refused_and_a_reader_is_not(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    script = (
        "import sys; from pathlib import Path; from rlaif.engine.journal import Journal; Journal(Path(sys.argv[1]))"
    )
    second = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, text=True)
    assert second.returncode != 0
    assert "another process is writing this run" in second.stderr
    reader = Journal(tmp_path, read_only=True)
    assert reader.replies_at_start == 0
    reader.close()
    journal.close()


def test_failures_are_kept_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    failures = [Failure("row", "ab", "ServerFaultError: 500", 7), Failure("row", "ba", "LowLabelMassError: 0", 1)]
    for failure in failures:
        journal.put_failure(failure)
    journal.put_failure(Failure("other", "ab", "x", 1))
    assert journal.failures_of("row") == failures
    journal.close()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be opened"):
        Journal(tmp_path / "file" / "journal")


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(RunFolderError, match="cannot be opened"):
        Journal(tmp_path)


def test_a_key_depends_on_all_that_changes_the_answer_and_on_nothing_else() -> None:
    keys = RequestKeys({"model": "m", "backend": "b"})
    assert keys.key(REQUEST) == RequestKeys({"backend": "b", "model": "m"}).key(dataclasses.replace(REQUEST))
    inert = (Message("user", (Segment("Which? ", True), Segment("this", True))),)
    generate = GenerateRequest(MESSAGES, 10, 0.5, 1)
    different = [
        keys.key(REQUEST),
        RequestKeys({"model": "n", "backend": "b"}).key(REQUEST),
        keys.key(ScoreRequest(MESSAGES, ("1", "3"))),
        keys.key(ScoreRequest(inert, ("1", "2"))),
        keys.key(ScoreRequest((*MESSAGES, *MESSAGES), ("1", "2"))),
        keys.key(RewardRequest((Turn("user", "Which? "),), "this")),
        keys.key(RewardRequest((Turn("user", "Which? "),), "that")),
        keys.key(RewardRequest((Turn("system", "Which? "),), "this")),
        keys.key(RewardRequest((Turn("user", "Which? "), Turn("assistant", "this")), "")),
        keys.key(generate),
        keys.key(dataclasses.replace(generate, seed=2)),
        keys.key(dataclasses.replace(generate, temperature=0.6)),
        keys.key(dataclasses.replace(generate, max_tokens=11)),
        keys.key(dataclasses.replace(generate, top_p=0.9)),
        keys.key(ScoreRequest((Message("user", (Segment("\ud800", False),)),), ("1", "2"))),
        keys.key(ScoreRequest((Message("user", (Segment("\ud801", False),)),), ("1", "2"))),
    ]
    assert len(set(different)) == len(different)


def test_journals_from_before_there_was_a_top_p_are_found_again() -> None:
    keys = RequestKeys({"model": "m", "backend": "b"})  # as written before requests had the field
    assert keys.key(GenerateRequest(MESSAGES, 10, 0.5, 1)).hex() == (
        "af9072a50b18401435d5289a6659e5109920bf10475dca4e8da1960f3b531cee"
    )
    assert keys.key(GenerateRequest(MESSAGES, 10, labels=("1", "2"))).hex() == (
        "eeaff552499bcc3f80bb2da55641d463d01e6ef326d77f07deca080d4b47065e"
    )


async def test_logprobs_that_json_cannot_write_come_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    token = TokenLogprob("2", -math.inf)
    for number, reply in enumerate(
        [CandidateLogprobs((token,)), Generation("2", "stop", (GeneratedToken("2", (token,)),))]
    ):
        journal.put(bytes([number]) * 32, "row", "ab", reply)
        assert journal.get(bytes([number]) * 32) == reply
    journal.close()


async def test_a_commit_that_fails_says_why_once_and_may_be_made_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put(b"a" * 32, "row", "ab", SCORE)
    journal.commit()
    with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON replies BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        heard: list[dict[str, object]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
        journal.put(b"b" * 32, "row", "ba", TEXT)
        await asyncio.sleep(0.05)  # the timer's attempt
        assert heard == []
        for _ in range(2):
            with pytest.raises(RunFolderError, match="disk is full"):
                journal.commit()
        other.execute("DROP TRIGGER full")
    journal.commit()
    assert committed(tmp_path) == 2
    journal.close()
