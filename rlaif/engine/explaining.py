"""Everything known of one row of a run: its prompts, the replies, and what was read from them. Asks nothing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from rlaif.backends.base import Capabilities
from rlaif.config import resolve
from rlaif.data.files import open_source
from rlaif.data.shards import column_values
from rlaif.engine.config import RunConfig
from rlaif.engine.journal import Journal, JournaledReply, Refusal, RequestKeys
from rlaif.engine.judges import constitution_of, judge_with
from rlaif.engine.kinds import RUNS
from rlaif.engine.rows import stage_of
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.running import RunKind, read_options, rows_of
from rlaif.errors import InputError, JudgmentError, RequestRefusedError, RunFolderError, did_you_mean
from rlaif.judge.base import Reading
from rlaif.records import Candidates, Comparison, Failure, Reply, Request


@dataclass(frozen=True)
class Exchange:
    """One request of one call, and the reply that stands in the journal (None: not asked yet, or it failed)."""

    request: Request
    reply: Reply | Refusal | None


@dataclass(frozen=True)
class ExplainedCall:
    """One call behind a label.

    Attributes:
        stage: Judge, order, principle and sample, as in `failures.jsonl`.
        exchanges: What was asked and answered, in order.
        reading: What it came to; None when a reply is missing or holds no verdict.
        error: Why there is no reading, where a reply is there.
    """

    stage: str
    exchanges: tuple[Exchange, ...]
    reading: Reading | None
    error: str | None


@dataclass(frozen=True)
class Explanation:
    """What is known of one row."""

    row: Comparison | Candidates
    calls: tuple[ExplainedCall, ...]
    failures: tuple[Failure, ...]


@dataclass(frozen=True)
class ExplainedCandidates:
    """What is known of one row of candidates.

    Attributes:
        id: The row's.
        row: As written; None when it failed or is not written yet.
        replies: All that stand in the journal.
        failures: Every time it failed, oldest first.
    """

    id: str
    row: Mapping[str, Any] | None
    replies: tuple[JournaledReply, ...]
    failures: tuple[Failure, ...]


def config_of_run(folder: RunFolder) -> tuple[RunKind[Any, Any, Any], RunConfig, dict[str, Any]]:
    """What a run judges, its config and its whole `run.json`.

    Raises:
        RunFolderError: It is no run of `rlaif label` or `rlaif rate`.
    """
    known = folder.read()
    if known is None or known.get("command") not in RUNS:
        commands = " or ".join(f"`rlaif {command}`" for command in RUNS)
        found = "no run.json" if known is None else f"a run of `rlaif {known.get('command')}`"
        hint = "; see report.html in it" if (folder.path / "report.html").is_file() else ""
        if (folder.path / "pipeline.json").is_file():
            stages = ", ".join(sorted(run.parent.name for run in folder.path.glob("*/run.json")))
            hint = f"; a pipeline wrote into it, and these of its stages are runs: {stages or 'none yet'}"
        hint = "; see README.md and evaluation.json in it" if (folder.path / "evaluation.json").is_file() else hint
        hint = "; see probe.json in it" if known is not None and known.get("command") == "probe" else hint
        raise RunFolderError(f"{folder.path}: holds {found}, expected a run of {commands}{hint}")
    judged = RUNS[known["command"]]
    if known.get("is_label_run") is False:
        raise RunFolderError(
            f"{folder.path}: its rows come from no run of `rlaif label`; README.md in it tells of them"
        )
    return judged.kind, resolve(judged.config, None, known["config"]), known


def explain_row(folder: RunFolder, row_id: str) -> Explanation:
    """Everything known of one row.

    Args:
        folder: A run of `rlaif label` or `rlaif rate`, finished or not.
        row_id: The row's id.

    Raises:
        RunFolderError: It is no such run, or one that asked no judge.
        InputError: The input is gone or has no such row.
    """
    kind, config, known = config_of_run(folder)
    if origin := known.get("derived_from"):
        raise RunFolderError(
            f"{folder.path}: asked no judge, so there are no prompts and replies to show; the run it was made from has "
            f"them: rlaif show row {origin['run']} {row_id}"
        )
    row = _find(kind, config, row_id)
    constitution = constitution_of(config)
    calls: list[ExplainedCall] = []
    with closing(Journal(folder.journal, read_only=True)) as journal:
        for entry in known["judges"]:
            can = Capabilities(
                has_token_alternatives=entry["verdict_in_reply"], has_rewards=entry.get("is_reward_model", False)
            )
            judge: Any = judge_with(kind.judge, config.judging, constitution, can, seed=config.seed)
            keys = RequestKeys(entry["identity"])
            name = entry["name"] if len(known["judges"]) > 1 else None
            for call in judge.plan(row):
                stage = stage_of(judge, call, name)
                calls.append(_explain_call(judge.ask(row, call), stage, keys, journal))
        failures = tuple(journal.failures_of(row_id))
    return Explanation(row, tuple(calls), failures)


def explain_candidates(folder: RunFolder, row_id: str, row: Mapping[str, Any] | None) -> ExplainedCandidates:
    """Everything known of one row of a run that samples responses.

    Args:
        folder: The run's.
        row_id: The row's id.
        row: The row as written; None when it is not.

    Raises:
        InputError: There is nothing known of such a row.
    """
    with closing(Journal(folder.journal, read_only=True)) as journal:
        replies, failures = tuple(journal.replies_of(row_id)), tuple(journal.failures_of(row_id))
    if row is None and not replies and not failures:
        ids = list(column_values(folder.path, "id"))
        near = did_you_mean(row_id, ids) or f"; the first ids are {', '.join(itertools.islice(ids, 3))}"
        raise InputError(f"has no row with the id {row_id!r}{near if ids else ''}", path=str(folder.path))
    return ExplainedCandidates(row_id, row, replies, failures)


def _explain_call(conversation: Any, stage: str, keys: RequestKeys, journal: Journal) -> ExplainedCall:
    exchanges: list[Exchange] = []
    request: Request = next(conversation)
    while True:
        reply = journal.get(keys.key(request))
        exchanges.append(Exchange(request, reply))
        if reply is None:
            return ExplainedCall(stage, tuple(exchanges), None, None)
        try:
            if isinstance(reply, Refusal):
                request = conversation.throw(RequestRefusedError(reply.words))
            else:
                request = conversation.send(reply)
        except StopIteration as finished:
            return ExplainedCall(stage, tuple(exchanges), finished.value, None)
        except JudgmentError as error:
            return ExplainedCall(stage, tuple(exchanges), None, f"{error.error_name}: {error}")


def _find(kind: RunKind[Any, Any, Any], config: RunConfig, row_id: str) -> Any:
    source = open_source(config.input)
    ids: list[str] = []
    for row in rows_of(kind, config, source, kind.scan(source, read_options(config))):
        if row.id == row_id:
            return row
        ids.append(row.id)
    near = did_you_mean(row_id, ids) or f"; the first ids are {', '.join(ids[:3])}"
    raise InputError(f"has no row with the id {row_id!r}{near}", path=config.input)
