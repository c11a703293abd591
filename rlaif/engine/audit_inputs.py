"""What `rlaif audit` reads: the judged rows, people's labels and another judge's rows, joined, and for the record where
each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from rlaif.data.human_labels import read_human_labels, with_human_labels
from rlaif.data.judged import Aligned, JudgedInput, JudgedOptions, aligned_to, check_sampling, read_judged
from rlaif.data.sources import ReadOptions
from rlaif.engine.config import AuditConfig
from rlaif.engine.run_folder import RunFolder
from rlaif.errors import InputError
from rlaif.records import Failure, JudgedComparison

_REPORTED = ("rlaif", "numpy", "scipy", "scikit-learn", "statsmodels")
_RUN_SETTINGS = (
    "task", "preamble", "shots", "cot", "constitution", "principles", "orders", "debias", "scoring", "clamp",
)  # fmt: skip


class AuditedRun(NamedTuple):
    """What the run.json of an audited run says of its judge."""

    judges: tuple[str, ...]
    settings: Mapping[str, Any]
    template: str | None
    is_demonstration: bool
    status: str
    failures: int


class JudgeRows(NamedTuple):
    """One judge's rows."""

    read: JudgedInput
    run: AuditedRun | None

    @property
    def judge(self) -> str:
        """What to call the judge: its name, or the columns that its answers stood in."""
        if self.run and self.run.judges:
            return ", ".join(self.run.judges)
        columns = self.read.answers.columns
        parents = {column.rpartition(".")[0] for column in columns if "," not in column}
        # judge_votes.gpt4.order_12 and judge_votes.gpt4.order_21 are one judge's.
        return parents.pop() if len(columns) > 1 and len(parents) == 1 and all(parents) else ", ".join(columns)


class AuditInputs(NamedTuple):
    """All that was read for an audit.

    Attributes:
        judged: The judge's rows, as they came.
        rows: The same with the human labels that count.
        others: Of the judge to compare with, with the responses named as in `rows`; None without one.
        name_of_other: What that judge is called.
        failures: Rows that were skipped.
        source: `Audit.source`.
    """

    judged: JudgeRows
    rows: tuple[JudgedComparison, ...]
    others: tuple[JudgedComparison, ...] | None
    name_of_other: str
    failures: tuple[Failure, ...]
    source: dict[str, Any]


def read_inputs(
    config: AuditConfig, *, source: object = None, human: object = None, against: object = None
) -> AuditInputs:
    """Read and join every input of an audit.

    Args:
        config: Names them, and how they are read.
        source, human, against: Rows in memory, instead of the files that the config names.

    Raises:
        InputError, ConfigError: As `rlaif.data.judged.read_judged` and `rlaif.data.human_labels`; or the two judges
            have no row in common.
    """
    reading = ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)
    options = JudgedOptions(reading, config.judge_column, config.judge_column_ba, config.by, config.cluster)
    given = config.input if source is None else source
    judged = _judged(given, options)
    rows = judged.read.rows
    labels: dict[str, Any] = {"human": "the input"}
    people = None
    if human is not None or config.human is not None:
        people = read_human_labels(config.human if human is None else human)
        joined = with_human_labels(rows, people)
        rows = joined.rows
        labels = {
            "human": people.name,
            "human_rows": {
                "labelled": joined.labelled,
                "not_yet_labelled": people.unlabelled,
                "ids_not_in_input": joined.unknown_ids,
            },
        }
    check_sampling(rows, judged.read.name if people is None else people.name)
    facts = {"input": judged.read.name, **_facts(judged), **labels, **_settings(config, judged)}
    inputs = AuditInputs(judged, rows, None, "", judged.read.failures, facts)
    return _with_other(inputs, config, options, given, against)


def _judged(given: object, options: JudgedOptions) -> JudgeRows:
    run = _run_of(given)
    read = read_judged(given, options)
    # Recorded verdicts that a run carries along are not of the judge that it asked.
    is_recorded = options.judge_column is not None or options.judge_column_ba is not None
    return JudgeRows(read, None if is_recorded else run)


def _with_other(
    inputs: AuditInputs, config: AuditConfig, options: JudgedOptions, given: object, against: object
) -> AuditInputs:
    """With the table of the judge to compare with, if one is named."""
    path = config.against if against is None else against
    columns = (config.against_column, config.against_column_ba)
    if path is None and columns == (None, None):
        return inputs
    reading = options.reading
    if path is not None and _run_of(path) is not None:  # a run's columns bear our names already
        reading = replace(reading, columns={})
    options = JudgedOptions(reading, *columns, flag="--against-column")
    other = _judged(given if path is None else path, options)
    aligned = aligned_to(inputs.rows, other.read.rows)
    _check_common(inputs.rows, aligned, other.read)
    facts = {"input": other.read.name, **_facts(other), "rows_with_other_responses": aligned.different}
    name = other.judge
    if name == inputs.judged.judge:  # two prompts of one judge
        name = f"{name} ({other.read.name})"
    return inputs._replace(others=aligned.rows, name_of_other=name, source={**inputs.source, "against": facts})


def _check_common(rows: Sequence[JudgedComparison], aligned: Aligned, other: JudgedInput) -> None:
    """Make sure that two judges have a row in common. Raises `InputError`."""
    ours = {row.comparison.id for row in rows}
    if any(row.comparison.id in ours for row in aligned.rows):
        return
    if aligned.different:
        reason = f"has other responses than the input in each of the {aligned.different} rows with the same id"
        raise InputError(f"{reason}, expected the same comparisons", path=other.name)
    here, there = other.rows[0].comparison.id, rows[0].comparison.id
    reason = f"none of its {len(other.rows)} ids is in the input (here {here!r}, there {there!r}), expected the same"
    raise InputError(f"{reason} ids", path=other.name, column="id")


def _run_of(given: object) -> AuditedRun | None:
    """What a run folder says of itself; None for anything else."""
    if not isinstance(given, str | Path) or not (Path(given).expanduser() / "run.json").is_file():
        return None
    content = RunFolder(Path(given).expanduser(), "label").read() or {}
    if content.get("command") in ("rate", "probe"):
        reason = f"holds a run of `rlaif {content['command']}`, expected one of `rlaif label`"
        raise InputError(reason, path=str(given))
    named = [_mapping(each) for each in content.get("judges") or ()]
    asks_words = not named or any(each.get("is_reward_model") is not True for each in named)
    judging = _mapping(_mapping(content.get("config")).get("judging")) if asks_words else {}
    decisive = _mapping(content.get("decisive"))
    task = decisive.get("task")
    settings = {name: judging[name] for name in _RUN_SETTINGS if judging.get(name) is not None}
    if weights := decisive.get("weights"):
        settings["weights"] = weights
    return AuditedRun(
        judges=tuple(str(each["name"]) for each in named if "name" in each),
        settings=settings,
        template=task if isinstance(task, str) else None,
        is_demonstration=any(each.get("is_demonstration") is True for each in named),
        status=str(content.get("status")),
        failures=int(_mapping(content.get("counts")).get("failures") or 0),
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _facts(judged: JudgeRows) -> dict[str, Any]:
    """Which judge it is, and how its answers were read."""
    answers = judged.read.answers
    facts: dict[str, Any] = {
        "judge": judged.judge,
        "judge_columns": list(answers.columns),
        "judge_scale": answers.scale,
        "rows_without_usable_answer": dict(answers.unusable),
    }
    if answers.absent:
        facts["rows_not_judged"] = dict(answers.absent)
    if answers.is_calibrated:
        facts["is_calibrated"] = True
    if judged.run is not None:
        facts["is_demonstration"] = judged.run.is_demonstration
        facts["run"] = {
            **judged.run.settings,
            "template": judged.run.template,
            "status": judged.run.status,
            "rows_failed": judged.run.failures,
        }
    if answers.notes:
        facts["notes"] = list(answers.notes)
    return facts


def _settings(config: AuditConfig, judged: JudgeRows) -> dict[str, Any]:
    """How it was audited."""
    return {
        "input_sha256": judged.read.content_sha256,
        "rows_skipped": len(judged.read.failures),
        "columns": dict(config.source.columns),
        "by": list(judged.read.by),
        "cluster": config.cluster or "prompt",
        "tie_band": config.tie_band,
        "resamples": config.resamples,
        "seed": config.seed,
        "versions": {package: version(package) for package in _REPORTED},
    }
