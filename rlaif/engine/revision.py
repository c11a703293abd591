"""`rlaif revise` without the command line: responses in, revised ones out, and comparisons of the two. What the
comparisons become is told in `revision_labels.py`."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration
from rlaif.data.files import RowSource, open_source
from rlaif.data.revised import arrow_schema, revised_schema, to_revised_row
from rlaif.data.revision_card import RevisionFacts, render_revision_card
from rlaif.data.revision_statistics import RevisionPreference, RevisionStatistics
from rlaif.data.sources import InputSummary, read_prompts, scan_prompts
from rlaif.engine.estimating import Estimate, estimate_calls
from rlaif.engine.journal import Journal
from rlaif.engine.judges import askers_for, judges_for, open_backends, template_of
from rlaif.engine.labeling import LabelOutcome
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.policies import Policy, open_policies, policies_json
from rlaif.engine.revision_config import ReviseConfig
from rlaif.engine.revision_labels import COMPARISONS, Tables, ask_judges, preference_of, write_tables
from rlaif.engine.rows import Judge, Panel
from rlaif.engine.run_folder import RunFolder, public_config, without_queries
from rlaif.engine.running import read_options, rows_total
from rlaif.engine.streaming import RunOutcome, Session, stream_rows
from rlaif.judge.constitutions import Constitution, load_constitution, revision_requests
from rlaif.judge.pairwise import PairwiseJudge
from rlaif.judge.revising import RevisionPrompts, before_next_section
from rlaif.policies.revision import Reviser
from rlaif.policy_records import RevisionChain
from rlaif.records import Comparison, Prompt

COMMAND = "revise"

_STAND_IN_WORD = "the "
"""About one token: so many of these stand for a text when calls are counted."""


@dataclass(frozen=True)
class ReviseOutcome:
    """What a finished run did.

    Attributes:
        run: As of every run.
        tables: What was made of its chains.
        labeling: What the judge did; None where it was not asked.
        preference: What it makes of the revisions; None where it was not asked.
    """

    run: RunOutcome[RevisionStatistics]
    tables: Tables
    labeling: LabelOutcome | None = None
    preference: RevisionPreference | None = None


@dataclass(frozen=True)
class Reviewing:
    """Who is asked, and by which principles.

    Attributes:
        policy: The model that writes.
        constitution: With the principles.
        prompts: For critiques and revisions.
        reviser: What the policy is asked.
        judges: Backends for the labels, and what each is asked; empty where they are not asked.
    """

    policy: Backend
    constitution: Constitution
    prompts: RevisionPrompts
    reviser: Reviser
    judges: tuple[tuple[Backend, Judge], ...] = ()

    @property
    def backends(self) -> tuple[Backend, ...]:
        """The policy's, and those of judges."""
        return (self.policy, *(backend for backend, _ in self.judges))


def reviewing_of(
    config: ReviseConfig, policy: Backend | None = None, judges: tuple[Backend, ...] | None = None
) -> Reviewing:
    """Everybody that a run asks, checked before anybody is.

    Args:
        config: Who they are.
        policy, judges: Backends instead of those named there.

    Raises:
        ConfigError, PromptError, ConstitutionError: A model, template, dialogue or principle does not exist or cannot
            be asked what the config wants.
    """
    judging = config.judging
    assert judging.constitution is not None  # `ReviseConfig` refuses that
    constitution = load_constitution(judging.constitution)
    requests = revision_requests(constitution, judging.principles)
    prompts = RevisionPrompts(config.revising.revision_shots)
    if policy is None:
        (policy,) = open_policies((config.policy,), config.policy_model)
    reviser = Reviser(policy.name, config.revising, requests, prompts, before_next_section, seed=config.seed)
    if config.labels != "judge":
        return Reviewing(policy, constitution, prompts, reviser)
    opened = judges if judges is not None else open_backends(config)
    asked = judges_for(PairwiseJudge, config, constitution, opened)
    return Reviewing(policy, constitution, prompts, reviser, tuple(zip(opened, asked, strict=True)))


def revise_file(config: ReviseConfig, listener: Listener | None = None, *, command: str = "") -> ReviseOutcome:
    """`run_revise`, blocking until done."""
    return asyncio.run(run_revise(config, listener, command=command))


async def run_revise(
    config: ReviseConfig,
    listener: Listener | None = None,
    *,
    policy: Backend | None = None,
    judges: tuple[Backend, ...] | None = None,
    command: str = "",
) -> ReviseOutcome:
    """Revise the response of every row of `config.input` into the run folder `config.out`.

    Args:
        config: By which policy and principles, and where the labels come from.
        listener: Told how far it is; told of a start once more where a judge is asked.
        policy, judges: Models to ask instead of those named in the config; closed by the caller.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RlaifError: One of the tree; what was answered until then is kept, and the same call resumes.
    """
    listener = listener or SilentListener()
    source = open_source(config.input)
    summary = scan_prompts(source, read_options(config), takes_responses=True)
    asked = reviewing_of(config, policy, judges)
    try:
        folder = RunFolder(Path(config.out), COMMAND)
        decisive = _decisive_settings(config, summary, asked)
        earlier = folder.open(decisive)
        with closing(Journal(folder.journal)) as journal:
            counts, askers = askers_for(config, (asked.policy,), journal)
            total = rows_total(summary, config.limit)
            session = Session(
                folder, journal, listener, askers, counts, config.calls.prices, total, command, earlier,
                failures=list(summary.failures),
            )  # fmt: skip
            listener.on_start(total, session.names, journal.replies_at_start)
            return await _Run(config, source, summary, asked, session, decisive, owns_policy=policy is None).revise()
    finally:
        for backend in asked.backends:
            if backend is not policy and backend not in (judges or ()):
                await backend.aclose()


async def estimate_revision(config: ReviseConfig) -> Estimate:
    """Count what a run would ask, and ask nothing. Texts that are not written yet count as long as they may be.

    Raises:
        RlaifError: As the run itself, before its first call.
    """
    source = open_source(config.input)
    summary = scan_prompts(source, read_options(config), takes_responses=True)
    asked = reviewing_of(config)
    failures = len(summary.failures)
    stand_in = _STAND_IN_WORD * config.revising.policy_max_tokens
    found = await estimate_calls(
        [(asked.policy, asked.reviser)],
        lambda: rows_of(config, source, summary),
        failures,
        config.calls,
        stand_in=stand_in,
    )
    if not asked.judges:
        return found

    def comparisons() -> Iterator[Comparison]:
        for row in rows_of(config, source, summary):
            initial = stand_in if row.response is None else row.response
            yield Comparison(row.id, row.prompt, initial, f"{stand_in}end")

    more = await estimate_calls(asked.judges, comparisons, failures, config.calls)
    return Estimate(
        found.rows,
        found.calls + more.calls,
        found.prompt_tokens + more.prompt_tokens,
        found.completion_tokens + more.completion_tokens,
        None if found.cost is None or more.cost is None else found.cost + more.cost,
    )


def rows_of(config: ReviseConfig, source: RowSource, summary: InputSummary) -> Iterator[Prompt]:
    """The rows of an input that was scanned, up to `--limit`."""
    rows = read_prompts(source, read_options(config), takes_responses=True, summary=summary)
    return itertools.islice(rows, config.limit)


@dataclass
class _Run:
    """One session of a run."""

    config: ReviseConfig
    source: RowSource
    summary: InputSummary
    asked: Reviewing
    session: Session
    decisive: dict[str, Any]
    owns_policy: bool
    tables: Tables | None = None
    labeling: LabelOutcome | None = None
    preference: RevisionPreference | None = None

    def __post_init__(self) -> None:
        self.statistics = RevisionStatistics(self.config.revising.rounds)

    async def revise(self) -> ReviseOutcome:
        """All rows, then what is made of them."""
        config, session = self.config, self.session
        schema = revised_schema(self.summary)
        panel: Panel[Prompt, RevisionChain] = Panel(
            [Policy(self.asked.reviser, session.askers[0])], lambda outcomes, _: outcomes[0][1]
        )

        def to_row(prompt: Prompt, chain: RevisionChain) -> dict[str, Any]:
            self.statistics.add(chain)
            return to_revised_row(prompt, chain, schema)

        rows = rows_of(config, self.source, self.summary)
        example = await stream_rows(session, rows, panel.attempt, to_row, arrow_schema(schema), self.describe)
        outcome = session.outcome(self.statistics)
        self.tables = write_tables(session.folder.path, schema, config.labels, seed=config.seed)
        if self.asked.judges and self.tables.comparisons:
            if self.owns_policy:
                await self.asked.policy.aclose()  # where it fills a GPU, the judge needs that
            try:
                backends = tuple(backend for backend, _ in self.asked.judges)
                spent = outcome.progress.cost or 0.0
                self.labeling = await ask_judges(
                    config, session.folder.path, backends, session.listener, session.command, spent=spent
                )
            except BaseException:
                self.describe("interrupted")
                raise
            self.preference = preference_of(session.folder.path)
        session.folder.write_card(render_revision_card(self.facts(example)))
        self.describe("finished")
        return ReviseOutcome(outcome, self.tables, self.labeling, self.preference)

    def describe(self, status: str) -> None:
        """Write `run.json`."""
        config, session, constitution = self.config, self.session, self.asked.constitution
        public = public_config(config)
        public["policy_base_url"] = [without_queries(url) for url in public["policy_base_url"]]
        session.folder.write(
            {
                "command": COMMAND,
                "status": status,
                "config": public,
                "decisive": self.decisive,
                "policies": policies_json(session.askers),
                "constitution": {"name": constitution.name, "fingerprint": constitution.fingerprint},
                "counts": {
                    "input": self.summary.rows + len(self.summary.failures),
                    "failures": len(session.failures),
                    **self.statistics.as_json(),
                    **(self.tables.as_json() if self.tables else {}),
                    **({"judge_failures": self.labeling.failures} if self.labeling else {}),
                    **({"judge_preference": self.preference.as_json()} if self.preference else {}),
                },
                **session.facts(),
                **({"judging": _spent(self.labeling)} if self.labeling else {}),
            }
        )

    def facts(self, example: Any) -> RevisionFacts:
        """What the card tells."""
        session, constitution = self.session, self.asked.constitution
        assert self.tables is not None
        return RevisionFacts(
            title=session.folder.path.resolve().name,
            policy=session.names[0],
            judges=tuple(backend.name for backend, _ in self.asked.judges),
            is_demonstration=any(is_demonstration(backend.name) for backend in self.asked.backends),
            settings={
                **dataclasses.asdict(self.config.revising),
                "labels": self.config.labels,
                "seed": self.config.seed,
            },
            constitution=constitution.name,
            constitution_fingerprint=constitution.fingerprint,
            source=self.summary.source,
            source_sha256=self.summary.content_sha256,
            failed=len(session.failures),
            statistics=self.statistics,
            labels=self.config.labels,
            demonstrations=self.tables.demonstrations,
            comparisons=self.tables.comparisons,
            preference=self.preference,
            command=without_queries(session.command),
            example=example,
        )


def _spent(labeling: LabelOutcome) -> dict[str, Any]:
    """What the judge took; calls, tokens and cost beside it are the policy's."""
    progress = labeling.progress
    return {
        "run": COMPARISONS,
        "calls": {"asked": progress.calls, "replayed": progress.replayed, "retries": progress.retries},
        "tokens": progress.usage._asdict(),
        "cost_usd": progress.cost,
    }


def _decisive_settings(config: ReviseConfig, summary: InputSummary, asked: Reviewing) -> dict[str, Any]:
    """Everything that can change a value in `data/`, `sft/` or `comparisons/`, by flag."""
    judged = {}
    if asked.judges:
        judged = {
            **dataclasses.asdict(config.judging),
            "judge": [dict(backend.identity) for backend, _ in asked.judges],
            "task": template_of([judge for _, judge in asked.judges]),
        }
    return {
        **judged,
        "input": summary.content_sha256,
        "policy": [dict(asked.policy.identity)],
        **dataclasses.asdict(config.revising),
        "prompts": asked.prompts.fingerprint,
        "constitution": asked.constitution.fingerprint,
        "principles": config.judging.principles,
        "labels": config.labels,
        "columns": dict(sorted(config.source.columns.items())),
        "skip_bad_rows": config.source.skip_bad_rows,
        "truncate": config.backend.truncate,
        "seed": config.seed,
    }
