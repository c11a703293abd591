"""`rlaif evaluate` without the command line: two policies, or what they wrote, under a judge; judged comparisons and
figures out. Who takes part is told in `evaluation_plan.py` and `evaluation_sides.py`, what a judge is asked in
`evaluation_judging.py`, and what the figures are in `rlaif.auditing.evaluation`."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlaif import extras
from rlaif.auditing.evaluation import counts_of, figures_of
from rlaif.auditing.results import Section, json_value
from rlaif.backends.base import Backend
from rlaif.backends.registry import is_demonstration
from rlaif.data.evaluated import Evaluated, EvaluatedSchema, arrow_schema, to_row
from rlaif.data.evaluation_inputs import Joined, Side, join_sides, summary_of
from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.data.human_labels import with_human_labels
from rlaif.data.judged import check_sampling
from rlaif.data.preferences import preference_schema
from rlaif.data.sources import InputSummary
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.evaluation_card import EvaluationFacts, render_evaluation_card
from rlaif.engine.evaluation_config import EvaluateConfig
from rlaif.engine.evaluation_judging import JudgedRow, evaluator_of, judged_row, unjudged_row
from rlaif.engine.evaluation_plan import Evaluating, decisive_settings, evaluating_of, judge_settings
from rlaif.engine.evaluation_sides import PolicySide, answers_of, within_limit
from rlaif.engine.journal import Journal
from rlaif.engine.judges import askers_for
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.rows import Judging
from rlaif.engine.run_folder import RunFolder, public_config, versions, without_queries
from rlaif.engine.running import columns_of, judges_json
from rlaif.engine.streaming import RunOutcome, Session, stream_rows
from rlaif.records import Comparison, Failure, JudgedComparison

COMMAND = "evaluate"
RESULT = "evaluation.json"

_NEEDED = ("scipy", "sklearn", "statsmodels")
_REPORTED = ("rlaif", "numpy", "scipy", "scikit-learn", "statsmodels")


@dataclass(frozen=True)
class EvaluateOutcome:
    """What a finished run did.

    Attributes:
        run: As of every run; its progress is the judge's.
        answering: Of each model that answered, by its side.
        counts: Rows by what the judge made of them.
        figures: `rlaif.auditing.evaluation.figures_of`.
    """

    run: RunOutcome[LabelStatistics]
    answering: Mapping[str, RunOutcome[GenerationStatistics]]
    counts: Mapping[str, int]
    figures: Section


def evaluate_file(config: EvaluateConfig, listener: Listener | None = None, *, command: str = "") -> EvaluateOutcome:
    """`run_evaluate`, blocking until done."""
    return asyncio.run(run_evaluate(config, listener, command=command))


async def run_evaluate(
    config: EvaluateConfig,
    listener: Listener | None = None,
    *,
    policies: Mapping[str, Backend] | None = None,
    judges: tuple[Backend, ...] | None = None,
    command: str = "",
) -> EvaluateOutcome:
    """Compare A with B under a judge, into the run folder `config.out`.

    Args:
        config: Who they are, and who judges.
        listener: Told how far it is; told of a start once for each model that answers, and once for the judge.
        policies, judges: Models to ask instead of those named in the config, policies by their names; closed by the
            caller.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RlaifError: One of the tree; what was answered until then is kept, and the same call resumes.
    """
    extras.require("audit", _NEEDED, "rlaif evaluate")
    listener = listener or SilentListener()
    asked = evaluating_of(config, policies, judges)
    given = {id(backend) for backend in (*(policies or {}).values(), *(judges or ()))}
    try:
        folder = RunFolder(Path(config.out), COMMAND)
        decisive = decisive_settings(config, asked)
        earlier = folder.open(decisive)
        with closing(Journal(folder.journal)) as journal:
            run = _Run(config, asked, folder, journal, listener, decisive, earlier, command, keeps_open=given)
            return await run.evaluate()
    finally:
        for backend in asked.backends:
            if id(backend) not in given:
                await backend.aclose()


@dataclass
class _Run:
    """One session of a run."""

    config: EvaluateConfig
    asked: Evaluating
    folder: RunFolder
    journal: Journal
    listener: Listener
    decisive: dict[str, Any]
    earlier: Mapping[str, Any] | None
    command: str
    keeps_open: set[int]
    answering: dict[str, RunOutcome[GenerationStatistics]] = field(default_factory=dict)
    statistics: LabelStatistics = field(default_factory=LabelStatistics)
    judged: list[JudgedRow] = field(default_factory=list)
    session: Session | None = None
    judgings: tuple[Judging, ...] = ()
    started: float = field(default_factory=time.monotonic)
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    async def evaluate(self) -> EvaluateOutcome:
        """Answers, verdicts, figures."""
        self.describe("running")
        try:
            a, b = [await self.responses_of(place) for place in (0, 1)]
        except BaseException:
            self.describe("interrupted")
            raise
        joined = join_sides(a, b)
        failures = list(dict.fromkeys([*a.failures, *b.failures, *joined.unpaired]))
        self.check_human(joined)
        example = await self.judge(joined, failures)
        assert self.session is not None
        rows = self.with_human()
        harmless = [each.harmless for each in self.judged if each.harmless is not None]
        counts = counts_of(rows)
        figures = figures_of(
            rows, harmless if self.config.harmless else None, resamples=self.config.resamples, seed=self.config.seed
        )
        content = {"source": self.source(), "counts": {**counts, "failures": len(self.session.failures)}}
        text = json.dumps({**content, **json_value(figures)}, indent=2, ensure_ascii=False, allow_nan=False)
        self.folder.replace(RESULT, f"{text}\n")
        self.folder.write_card(render_evaluation_card(self.facts(counts, figures, example)))
        self.describe("finished")
        return EvaluateOutcome(self.session.outcome(self.statistics), self.answering, counts, figures)

    async def responses_of(self, place: int) -> Side:
        """The responses of a side, which a model may have to write first."""
        side = self.asked.sides[place]
        if not isinstance(side, PolicySide):
            return within_limit(self.config, side.responses, self.asked.sides)
        spent = sum(each.progress.cost or 0.0 for each in self.answering.values())
        found, outcome = await answers_of(self.config, side, self.folder.path, self.listener, self.command, spent=spent)
        self.answering[side.letter] = outcome
        if id(side.backend) not in self.keeps_open:
            await side.backend.aclose()  # where it fills a GPU, who comes next needs that
        return found

    async def judge(self, joined: Joined, failures: list[Failure]) -> Mapping[str, Any] | None:
        """Every comparison, up to `--limit`; returns the first row that was written."""
        config = self.config
        calls = config.calls
        if calls.max_cost is not None:
            spent = sum(each.progress.cost or 0.0 for each in self.answering.values())
            calls = dataclasses.replace(calls, max_cost=max(0.0, calls.max_cost - spent))
        backends = [backend for backend, _ in self.asked.judges]
        counts, askers = askers_for(dataclasses.replace(config, calls=calls), backends, self.journal)
        self.judgings = tuple(
            Judging(judge, asker) for (_, judge), asker in zip(self.asked.judges, askers, strict=True)
        )
        comparisons = joined.comparisons[: config.limit]
        reasons = dict(zip((each.id for each in joined.comparisons), joined.finish_reasons, strict=True))
        summary = summary_of(joined, "the joined responses", "")
        schema = self.schema(summary)
        self.session = Session(
            self.folder, self.journal, self.listener, askers, counts, calls.prices, len(comparisons) + len(failures),
            self.command, self.earlier, failures=failures, started=self.started, started_at=self.started_at,
        )  # fmt: skip
        self.listener.on_start(self.session.rows_total, self.session.names, self.journal.replies_at_start)
        evaluator = evaluator_of(self.judgings, self.asked.harmless, self.journal.put_failure)

        def to_evaluated_row(comparison: Comparison, evaluated: Evaluated) -> dict[str, Any]:
            self.statistics.add(evaluated.judgment)
            self.judged.append(judged_row(comparison, evaluated))
            return to_row(comparison, evaluated, reasons[comparison.id], schema)

        return await stream_rows(
            self.session, comparisons, evaluator.attempt, to_evaluated_row, arrow_schema(schema), self.describe
        )

    def schema(self, summary: InputSummary) -> EvaluatedSchema:
        """Of the rows that are written."""
        columns = columns_of(self.config.judging, [judging.judge for judging in self.judgings])
        a, b = self.asked.sides
        preference = preference_schema(summary, **columns._asdict())
        return EvaluatedSchema(preference, (a.name, b.name), has_harmless=self.config.harmless)

    def check_human(self, joined: Joined) -> None:
        """Make sure that a file's labels are of these comparisons, before a judge is asked. Raises `InputError`."""
        if self.asked.human is not None:
            check_sampling(
                with_human_labels([unjudged_row(each) for each in joined.comparisons], self.asked.human).rows,
                self.asked.human.name,
            )

    def with_human(self) -> tuple[JudgedComparison, ...]:
        """The judged rows with the human labels that count."""
        rows = tuple(each.judged for each in self.judged)
        if self.asked.human is None or not rows:
            return rows
        return with_human_labels(rows, self.asked.human).rows

    def source(self) -> dict[str, Any]:
        """What was compared, and how: the same for the same run, whenever it ran."""
        asked, config = self.asked, self.config
        return {
            **{side.letter: {"name": side.name, **side.identity} for side in asked.sides},
            "judges": [backend.name for backend, _ in asked.judges],
            "is_demonstration": any(is_demonstration(backend.name) for backend in asked.backends),
            "settings": judge_settings(config, asked),
            "template": asked.template,
            "harmless_template": asked.harmless_template,
            "human": "the rows" if asked.human is None else asked.human.name,
            "cluster": "prompt",
            "resamples": config.resamples,
            "seed": config.seed,
            "versions": {package: version(package) for package in _REPORTED},
        }

    def describe(self, status: str) -> None:
        """Write `run.json`."""
        config, asked = self.config, self.asked
        public = public_config(config)
        public["policy_base_url"] = [without_queries(url) for url in public["policy_base_url"]]
        session = self.session
        facts: dict[str, Any] = {"started_at": self.started_at, "repeat": without_queries(self.command)}
        counts: dict[str, Any] = {}
        if session is not None:
            facts = session.facts()
            counts = {
                "input": session.rows_total,
                "rows": session.rows,
                "failures": len(session.failures),
                **self.statistics.as_json(),
            }
        self.folder.write(
            {
                "command": COMMAND,
                "status": status,
                "config": public,
                "decisive": self.decisive,
                "sides": {side.letter: side.name for side in asked.sides},
                "judges": judges_json(self.judgings),
                "counts": counts,
                **facts,
                "versions": versions(),
                "answering": {
                    letter: {
                        "run": f"answers_{letter}",
                        "calls": {"asked": each.progress.calls, "replayed": each.progress.replayed},
                        "tokens": each.progress.usage._asdict(),
                        "cost_usd": each.progress.cost,
                    }
                    for letter, each in self.answering.items()
                },
            }
        )

    def facts(self, counts: Mapping[str, int], figures: Section, example: Mapping[str, Any] | None) -> EvaluationFacts:
        """What the card tells."""
        asked, config, session = self.asked, self.config, self.session
        assert session is not None
        a, b = asked.sides
        answered = dataclasses.asdict(config.answering) if asked.policies else {}
        return EvaluationFacts(
            title=self.folder.path.resolve().name,
            sides=(a.name, b.name),
            written_by=(isinstance(a, PolicySide), isinstance(b, PolicySide)),
            judges=session.names,
            is_demonstration=any(is_demonstration(backend.name) for backend in asked.backends),
            settings={**answered, **judge_settings(config, asked), "seed": config.seed},
            template=asked.template,
            harmless_template=asked.harmless_template,
            failed=len(session.failures),
            counts=counts,
            figures=figures,
            command=without_queries(self.command),
            example=example,
        )
