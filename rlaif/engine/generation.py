"""`rlaif generate` without the command line: prompts in, candidates and comparisons of them out."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration
from rlaif.data.duplicates import near_duplicate_of
from rlaif.data.files import RowSource, open_source
from rlaif.data.generated import (
    arrow_schema,
    candidates_schema,
    comparisons_schema,
    extras_of,
    to_candidates_row,
)
from rlaif.data.generation_card import GenerationFacts, render_generation_card
from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.data.pairing import comparison_rows, draw_pairs
from rlaif.data.shards import RowWriter, written_rows
from rlaif.data.sources import InputSummary, read_prompts, scan_prompts
from rlaif.engine.asking import Asker
from rlaif.engine.estimating import Estimate, estimate_calls
from rlaif.engine.generation_config import DROPS, GenerateConfig
from rlaif.engine.journal import Journal
from rlaif.engine.judges import askers_for
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.policies import Policy, open_policies, policies_json
from rlaif.engine.rows import Panel
from rlaif.engine.run_folder import RunFolder, public_config, without_queries
from rlaif.engine.running import read_options, rows_total
from rlaif.engine.streaming import RunOutcome, Session, stream_rows
from rlaif.policies.sampling import Sampler
from rlaif.policies.selection import select_samples
from rlaif.policy_records import SampledResponses
from rlaif.records import Prompt

if TYPE_CHECKING:
    import pyarrow as pa

COMMAND = "generate"
COMPARISONS = "comparisons"
"""Folder of the comparisons, in the run folder."""

_ROWS_AT_ONCE = 32
"""Rows of candidates, of which comparisons are made in one go."""


@dataclass(frozen=True)
class GenerateOutcome:
    """What a finished run did.

    Attributes:
        run: As of every run.
        comparisons: Made of its candidates.
        single: Prompts with one candidate, of which there is none.
    """

    run: RunOutcome[GenerationStatistics]
    comparisons: int
    single: int


def generate_file(config: GenerateConfig, listener: Listener | None = None, *, command: str = "") -> GenerateOutcome:
    """`run_generate`, blocking until done."""
    return asyncio.run(run_generate(config, listener, command=command))


async def run_generate(
    config: GenerateConfig,
    listener: Listener | None = None,
    *,
    backends: tuple[Backend, ...] | None = None,
    command: str = "",
) -> GenerateOutcome:
    """Answer every prompt of `config.input` into the run folder `config.out`.

    Args:
        config: Which policies, and how they are sampled from.
        listener: Told how far it is.
        backends: Policies to ask instead of those named in the config; closed by the caller.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RlaifError: One of the tree; what was answered until then is kept, and the same call resumes.
    """
    listener = listener or SilentListener()
    source = open_source(config.input)
    summary = scan_prompts(source, read_options(config))
    opened = backends if backends is not None else open_policies(config.policy, config.backend)
    try:
        folder = RunFolder(Path(config.out), COMMAND)
        decisive = _decisive_settings(config, summary, opened)
        earlier = folder.open(decisive)
        with closing(Journal(folder.journal)) as journal:
            counts, askers = askers_for(config, opened, journal)
            total = rows_total(summary, config.limit)
            session = Session(
                folder, journal, listener, askers, counts, config.calls.prices, total, command, earlier,
                failures=list(summary.failures),
            )  # fmt: skip
            listener.on_start(total, session.names, journal.replies_at_start)
            return await _generate(config, source, summary, session, decisive)
    finally:
        if backends is None:
            for backend in opened:
                await backend.aclose()


async def estimate_generation(config: GenerateConfig) -> Estimate:
    """Count what a run would ask, and ask nothing.

    Raises:
        RlaifError: As the run itself, before its first call.
    """
    source = open_source(config.input)
    summary = scan_prompts(source, read_options(config))
    backends = open_policies(config.policy, config.backend)
    asked = [(backend, Sampler(backend.name, config.sampling, seed=config.seed)) for backend in backends]
    return await estimate_calls(asked, lambda: prompts_of(config, source, summary), len(summary.failures), config.calls)


async def _generate(
    config: GenerateConfig, source: RowSource, summary: InputSummary, session: Session, decisive: dict[str, Any]
) -> GenerateOutcome:
    statistics = GenerationStatistics()
    schema = candidates_schema(summary)
    panel = policy_panel(config, session.askers)

    def to_row(prompt: Prompt, sampled: SampledResponses) -> dict[str, Any]:
        statistics.add(sampled)
        return to_candidates_row(prompt, sampled, schema)

    def describe(status: str, comparisons: int = 0) -> None:
        session.folder.write(_run_json(config, summary, session, statistics, decisive, status, comparisons))

    rows = prompts_of(config, source, summary)
    example = await stream_rows(session, rows, panel.attempt, to_row, arrow_schema(schema), describe)
    try:
        comparisons, single = await _write_comparisons(config, session.folder.path, comparisons_schema(schema))
    except BaseException:
        describe("interrupted")
        raise
    facts = GenerationFacts(
        title=session.folder.path.resolve().name,
        policies=session.names,
        is_demonstration=any(map(is_demonstration, session.names)),
        settings=shown_settings(config),
        source=summary.source,
        source_sha256=summary.content_sha256,
        failed=len(session.failures),
        statistics=statistics,
        comparisons=comparisons,
        command=without_queries(session.command),
        example=example,
    )
    session.folder.write_card(render_generation_card(facts))
    describe("finished", comparisons)
    return GenerateOutcome(session.outcome(statistics), comparisons, single)


def prompts_of(config: GenerateConfig, source: RowSource, summary: InputSummary) -> Iterator[Prompt]:
    """The prompts of an input that was scanned, up to `--limit`."""
    return itertools.islice(read_prompts(source, read_options(config), summary=summary), config.limit)


def policy_panel(config: GenerateConfig, askers: Iterable[Asker]) -> Panel[Prompt, SampledResponses]:
    """Policies that answer the same prompts; a prompt that one of them fails on fails."""
    drop = {DROPS[name] for name in config.drop}

    def near_duplicates(texts: Sequence[str]) -> Sequence[int | None]:
        return near_duplicate_of(texts, config.near_duplicate)

    def combine(outcomes: Sequence[tuple[str, SampledResponses]], _: Sequence[str]) -> SampledResponses:
        samples = [sample for _, of_policy in outcomes for sample in of_policy.kept]
        return select_samples(samples, drop, None if config.keep_duplicates else near_duplicates)

    members = [Policy(Sampler(asker.backend.name, config.sampling, seed=config.seed), asker) for asker in askers]
    return Panel(members, combine, stage="responses")


async def _write_comparisons(config: GenerateConfig, folder: Path, schema: pa.Schema) -> tuple[int, int]:
    """Comparisons of the candidates in `data/`, written to the folder beside it.

    Returns:
        How many there are, and the rows of candidates too few for one.
    """
    single = 0
    with RowWriter(folder / COMPARISONS, schema) as writer:
        for number, row in enumerate(written_rows(folder)):
            if number % _ROWS_AT_ONCE == 0:
                await asyncio.sleep(0)  # hundreds of responses a prompt make many pairs: Ctrl-C is heard in between
            count = len(row["responses"])
            single += count < 2
            pairs = draw_pairs(count, config.most_pairs, seed=config.seed, row_id=row["id"])
            for comparison in comparison_rows(row, pairs, extras_of(row)):
                writer.write(comparison)
        return writer.rows, single


def shown_settings(config: GenerateConfig) -> dict[str, Any]:
    """What can change a response, for the card."""
    return {
        **dataclasses.asdict(config.sampling),
        "near_duplicate": None if config.keep_duplicates else config.near_duplicate,
        "drop": config.drop or None,
        "pairs": config.pairs,
        "seed": config.seed,
    }


def _decisive_settings(config: GenerateConfig, summary: InputSummary, backends: Sequence[Backend]) -> dict[str, Any]:
    """Everything that can change a value in `data/`, by flag; not `--pairs`: comparisons can be made anew."""
    return {
        "input": summary.content_sha256,
        "policy": [dict(backend.identity) for backend in backends],
        **dataclasses.asdict(config.sampling),
        "near_duplicate": None if config.keep_duplicates else config.near_duplicate,
        "drop": sorted(config.drop),
        "columns": dict(sorted(config.source.columns.items())),
        "skip_bad_rows": config.source.skip_bad_rows,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }


def _run_json(
    config: GenerateConfig,
    summary: InputSummary,
    session: Session,
    statistics: GenerationStatistics,
    decisive: dict[str, Any],
    status: str,
    comparisons: int,
) -> dict[str, Any]:
    return {
        "command": COMMAND,
        "status": status,
        "config": public_config(config),
        "decisive": decisive,
        "policies": policies_json(session.askers),
        "counts": {
            "input": summary.rows + len(summary.failures),
            "failures": len(session.failures),
            **statistics.as_json(),
            "comparisons": comparisons,
        },
        **session.facts(),
    }
