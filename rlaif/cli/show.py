"""`rlaif show prompt|run|row`: look at what a judge is sent, what a run did, and what is known of one label."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rlaif.backends.config import BackendConfig
from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.terminal import say
from rlaif.engine.config import SourceConfig
from rlaif.errors import ConfigError, InputError, did_you_mean
from rlaif.judge.config import JudgeConfig
from rlaif.policies.revision import RevisionConfig
from rlaif.records import GenerateRequest, Generation, Order, Reply, Request, RewardRequest
from rlaif.visibility import visible

if TYPE_CHECKING:
    from rlaif.backends.base import Capabilities
    from rlaif.data.files import RowSource
    from rlaif.data.sources import InputSummary, ReadOptions
    from rlaif.engine.run_folder import RunFolder

PROMPT = CommandLine(
    prog="rlaif show prompt",
    description=(
        "Print exactly what the judge gets for one comparison, for each order, principle and step. "
        "The prompts go to stdout, the lines that tell them apart to stderr."
    ),
    positionals=("input",),
    epilog=(
        "--command rate shows a rating prompt, for rows as rlaif rate takes them; --command revise what a policy gets, "
        "for rows as rlaif revise takes them."
    ),
)
RUN = CommandLine("rlaif show run", "Print what a run did.", ("folder",))
ROW = CommandLine("rlaif show row", "Print everything known of one row.", ("folder", "id"))

SECTIONS = ("prompt", "run", "row")
REASONS = "(the judge's reasons stand here)"
OWN_TEXT = "(what the policy wrote stands here)"


@dataclass(frozen=True)
class ShowPromptCommand:
    """`rlaif show prompt INPUT`."""

    input: str
    """Rows, as for rlaif label, rlaif rate or rlaif revise."""

    command: Literal["label", "rate", "revise"] = "label"
    """Whose prompts to show."""

    id: str | None = None
    """Row to show; by default the first."""

    raw: bool = False
    """Write the prompt's own bytes; by default control characters are spelled out."""

    seed: int = 0
    """Seed of the draws, as for rlaif label."""

    quiet: bool = False
    """Print the prompts only."""

    judging: JudgeConfig = field(default_factory=JudgeConfig)
    revising: RevisionConfig = field(default_factory=RevisionConfig)
    backend: BackendConfig = field(default_factory=BackendConfig)
    source: SourceConfig = field(default_factory=SourceConfig)


@dataclass(frozen=True)
class ShowRunCommand:
    """`rlaif show run DIR`."""

    folder: str
    """Run folder."""


@dataclass(frozen=True)
class ShowRowCommand:
    """`rlaif show row DIR ID`."""

    folder: str
    """Run folder."""

    id: str
    """Id of the row."""


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    match argv:
        case ["prompt", *rest]:
            return _show_prompt(parse(ShowPromptCommand, rest, PROMPT))
        case ["run", *rest]:
            return _show_run(parse(ShowRunCommand, rest, RUN))
        case ["row", *rest]:
            return _show_row(parse(ShowRowCommand, rest, ROW))
        case ["-h" | "--help", *_]:
            print("usage: rlaif show prompt|run|row ...\n")
            for line in (PROMPT, RUN, ROW):
                print(f"  {line.prog} {' '.join(map(str.upper, line.positionals)):<10}  {line.description}")
            return 0
        case [first, *_]:
            raise ConfigError(
                f"unknown: rlaif show {first}{did_you_mean(first, SECTIONS)}; known: {', '.join(SECTIONS)}"
            )
    raise ConfigError(f"rlaif show needs one of {', '.join(SECTIONS)}")


def _show_run(command: ShowRunCommand) -> int:
    from rlaif.cli.reports import run_report
    from rlaif.engine.explaining import config_of_run
    from rlaif.engine.run_folder import RunFolder

    folder = RunFolder(Path(command.folder), "show")
    if (written := _written(folder)) is not None:
        from rlaif.cli.generation_reports import generation_report
        from rlaif.cli.revision_reports import revision_report

        report = generation_report if written["command"] == "generate" else revision_report
        print(visible(report(folder.path, written)))
        return 0
    _, _, known = config_of_run(folder)
    print(visible(run_report(folder.path, known)))
    return 0


def _written(folder: RunFolder) -> dict[str, Any] | None:
    """`run.json` of a run whose rows a policy wrote; None of another folder."""
    known = folder.read()
    return known if known is not None and known.get("command") in ("generate", "revise") else None


def _show_row(command: ShowRowCommand) -> int:
    from rlaif.cli.reports import label_of, row_report
    from rlaif.engine.explaining import config_of_run, explain_row
    from rlaif.engine.run_folder import RunFolder

    folder = RunFolder(Path(command.folder), "show")
    if (written := _written(folder)) is not None:
        from rlaif.cli.generation_reports import candidates_report
        from rlaif.cli.revision_reports import chain_report
        from rlaif.engine.explaining import explain_candidates

        known = explain_candidates(folder, command.id, label_of(folder.path, command.id))
        print(visible((candidates_report if written["command"] == "generate" else chain_report)(known)))
        return 0
    explanation = explain_row(folder, command.id)
    judging = config_of_run(folder)[1].judging
    is_sampled = judging.constitution is not None and judging.principles == "sample"
    label = label_of(folder.path, command.id)
    print(visible(row_report(explanation, label, is_principle_sampled=is_sampled)))
    return 0


def _show_prompt(command: ShowPromptCommand) -> int:
    if command.command == "revise":
        return _show_revision(command)
    from rlaif.engine.judges import judge_with
    from rlaif.engine.kinds import KINDS
    from rlaif.judge.constitutions import load_constitution

    kind = KINDS[command.command].kind
    name = command.judging.constitution
    constitution = load_constitution(name) if name else None
    judge: Any = judge_with(kind.judge, command.judging, constitution, _capabilities(command), seed=command.seed)
    row = _row(command, kind.scan, kind.read)
    calls = [call for call in judge.plan(row) if call.sample == 0]
    if not calls:
        say(f"row {row.id}: both responses are the same, so the label is 0.5 and no judge is asked")
    for call in calls:
        place, *principle = call.words
        about = f"row {row.id}, {'order ' if place in tuple(Order) else ''}{place}"
        about += f", principle {principle[0]}" if principle else ""
        for number, step in enumerate(_steps(judge.ask(row, call)), 1):
            _show_step(step, f"{about}, step {number}", command)
    return 0


def _show_revision(command: ShowPromptCommand) -> int:
    """What a policy gets for one row; made-up texts stand where its own would."""
    from rlaif.data.sources import read_prompts, scan_prompts
    from rlaif.judge.constitutions import load_constitution, revision_requests
    from rlaif.judge.revising import RevisionPrompts, before_next_section
    from rlaif.policies.revision import ReviseCall, Reviser

    if command.judging.constitution is None:
        raise ConfigError("constitution: is missing, and responses are revised by its principles; such as polite")
    requests = revision_requests(load_constitution(command.judging.constitution), command.judging.principles)
    prompts = RevisionPrompts(command.revising.revision_shots)
    reviser = Reviser("policy", command.revising, requests, prompts, before_next_section, seed=command.seed)
    row = _row(
        command,
        lambda source, options: scan_prompts(source, options, takes_responses=True),
        lambda source, options, summary: read_prompts(source, options, takes_responses=True, summary=summary),
    )
    conversation = reviser.ask(row, ReviseCall())
    request = next(conversation)
    for number in itertools.count(1):
        _show_step(_Step(request, _wants(request)), f"row {row.id}, revising, step {number}", command)
        try:
            request = conversation.send(Generation(OWN_TEXT, "stop"))
        except StopIteration:
            break
    return 0


def _show_step(step: _Step, about: str, command: ShowPromptCommand) -> None:
    for message in step.request.messages:
        if not command.quiet:
            sys.stdout.flush()
            say(f"----- {about} ({step.wants}), {message.role} message -----")
        _write(message.content, is_raw=command.raw)


class _Step(NamedTuple):
    request: Request
    wants: str


def _steps(conversation: Generator[Request, Reply, Any]) -> Iterator[_Step]:
    """The requests of one call; a made-up reply stands where the judge's reasons would."""
    request = next(conversation)
    yield _Step(request, _wants(request))
    if isinstance(request, GenerateRequest):
        # Where the backend gives log-probabilities with the text, the verdict is read from the reasons themselves.
        when = ", only where the reply before has no verdict that can be read" if request.labels else ""
        try:
            follow_up = conversation.send(Generation(REASONS, "stop"))
        except StopIteration:
            return
        yield _Step(follow_up, _wants(follow_up) + when)


def _wants(request: Request) -> str:
    if isinstance(request, GenerateRequest):
        return f"asks for text, at most {request.max_tokens} tokens"
    if isinstance(request, RewardRequest):
        return "asks for the reward of the last message"
    return f"asks for the log-probabilities of {_listed(request.labels)}"


def _listed(labels: Sequence[str]) -> str:
    return " and ".join(labels) if len(labels) == 2 else f"{labels[0]} to {labels[-1]}"


def _write(text: str, *, is_raw: bool) -> None:
    if is_raw:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
        sys.stdout.buffer.flush()
    else:
        print(visible(text), flush=True)


def _row(
    command: ShowPromptCommand,
    scan: Callable[[RowSource, ReadOptions], InputSummary],
    read: Callable[[RowSource, ReadOptions, InputSummary], Iterator[Any]],
) -> Any:
    """The row with the id asked for, or the first one; `scan` and `read` are those of its kind.

    Raises:
        InputError: There is none; names the nearest ids.
    """
    from rlaif.data.files import open_source
    from rlaif.data.sources import ReadOptions

    source = open_source(command.input)
    options = ReadOptions(command.source.columns, command.seed, command.source.skip_bad_rows)
    ids: list[str] = []
    for row in read(source, options, scan(source, options)):
        if command.id is None or row.id == command.id:
            return row
        ids.append(row.id)
    if command.id is None:
        raise InputError("holds no row that can be read", path=command.input)
    near = did_you_mean(command.id, ids) or f"; the first are {', '.join(itertools.islice(ids, 3))}"
    raise InputError(f"has no row with the id {command.id!r}{near}", path=command.input)


def _capabilities(command: ShowPromptCommand) -> Capabilities:
    """What the (first) judge can do, as far as it decides what it is asked; opened only where that takes it."""
    import asyncio

    from rlaif.backends.base import Capabilities
    from rlaif.backends.registry import is_reward_model, open_backend

    spec = command.backend.judge[0]
    if is_reward_model(spec):
        return Capabilities(has_logprobs=False, has_rewards=True)
    if not command.judging.cot:
        return Capabilities()

    async def ask() -> Capabilities:
        backend = open_backend(spec, command.backend)
        try:
            return backend.capabilities
        finally:
            await backend.aclose()

    return asyncio.run(ask())
