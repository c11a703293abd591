"""New labels from a finished run, without a call: a run folder in, a run folder out, streamed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.calibration import Calibration, load_calibration
from rlaif.config import resolve
from rlaif.data.card import render_card
from rlaif.data.card_facts import CardFacts
from rlaif.data.preferences import OUR_COLUMNS, RAW_COLUMNS, PreferenceSchema, label_values, read_judgment
from rlaif.data.shards import read_schema, rewrite_shards
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.calibrating import calibration_facts, doubts
from rlaif.engine.config import CalibrateConfig, LabelConfig
from rlaif.engine.judges import constitution_of
from rlaif.engine.kinds import KINDS, RUNS, is_label_run
from rlaif.engine.labeling import LABELING, finish
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.run_folder import RunFolder, run_fingerprint, versions
from rlaif.engine.running import shown_settings
from rlaif.errors import ConstitutionError, RunFolderError
from rlaif.judge.constitutions import Constitution
from rlaif.records import Failure, Judgment, SoftLabel, verdict_of

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Relabeling:
    """What makes new labels of old ones.

    Attributes:
        command: The command that does it.
        change: From (the judgment as its row tells it, our columns of the row) to the judgment with its new label.
        decisive: What the new labels depend on beside the old ones, by flag, as JSON values.
        calibration: Where the new labels are calibrated; the judge's own then stand in the raw columns.
        before: What the new labels are compared with: the judge's own, or those of the old run.
        left_out: Our columns that are not true of the new labels.
    """

    command: str
    change: Callable[[Judgment, Mapping[str, Any]], Judgment]
    decisive: Mapping[str, Any]
    calibration: Calibration | None = None
    before: Callable[[Judgment], SoftLabel] = lambda judgment: judgment.own_label
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class RelabelOutcome:
    """What was written.

    Attributes:
        folder: The new run folder.
        rows: Labels in it.
        failures: Rows of the input that had no label in the old run either.
        changed_sides: Rows whose verdict is another one than before.
        moved: Mean distance of `prob_a` from what it was before.
        statistics: As of a run of `rlaif label`.
    """

    folder: Path
    rows: int
    failures: int
    changed_sides: int
    moved: float
    statistics: LabelStatistics


@dataclass(frozen=True)
class FinishedRun:
    """A run of `rlaif label`, or of a command that made new labels from one.

    Attributes:
        folder: Its folder.
        known: Its `run.json`.
        config: That of the `rlaif label` behind it.
    """

    folder: RunFolder
    known: Mapping[str, Any]
    config: LabelConfig

    @property
    def is_calibrated(self) -> bool:
        """Whether its labels are calibrated, and the judge's own in raw columns."""
        return self.known.get("calibration") is not None

    @property
    def is_clamped(self) -> bool:
        """Whether its labels are clamped."""
        return self.config.judging.clamp_range is not None

    def schema(self, *, is_calibrated: bool) -> PreferenceSchema:
        """Which raw columns its rows have, or new ones made from them."""
        return PreferenceSchema(is_calibrated=is_calibrated, is_clamped=self.is_clamped)

    @property
    def judges(self) -> tuple[str, ...]:
        return tuple(judge["name"] for judge in self.known["judges"])

    @property
    def reward_models(self) -> tuple[str, ...]:
        return tuple(judge["name"] for judge in self.known["judges"] if judge.get("is_reward_model", False))

    @property
    def template(self) -> str | None:
        """Fingerprint of the prompt; None where all judges are reward models."""
        template = self.known["decisive"]["task"]
        return None if template is None else str(template)

    @property
    def constitution(self) -> Constitution | None:
        """The one it was judged by; None without one, and where its file is gone or is another by now."""
        try:
            constitution = constitution_of(self.config)
        except ConstitutionError:
            return None
        if constitution is None or constitution.fingerprint != self.known["decisive"]["constitution"]:
            return None
        return constitution

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what decided its labels, and how many there are."""
        return run_fingerprint(self.known)


def calibrate_run(config: CalibrateConfig, listener: Listener | None = None, *, command: str = "") -> RelabelOutcome:
    """`rlaif calibrate`: calibrated labels from a finished run; those of a calibrated one are calibrated anew, from the
    judge's own.

    Args:
        config: Which run, which calibration, where to.
        listener: Warned where the calibration may not suit the run.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RunFolderError: The input is no finished run, or the output folder holds something else.
        InputError: The calibration cannot be read.
    """
    listener = listener or SilentListener()
    calibration = load_calibration(Path(config.calibration))
    run = finished_run(Path(config.input))
    if run.is_calibrated:
        listener.on_message(f"{config.input} is calibrated already: starting from the judge's own probabilities in it")
    for doubt in doubts(calibration, run.judges, run.config.judging, run.template):
        listener.on_warning(doubt)
    relabeling = Relabeling(
        "calibrate",
        lambda judgment, row: finish(judgment, row["response_a"], row["response_b"], run.config.judging, calibration),
        {"calibration": calibration.fingerprint},
        calibration,
    )
    changed = {"calibration": config.calibration}
    return relabel(run, Path(config.out), relabeling, changed=changed, command=command)


def finished_run(path: Path) -> FinishedRun:
    """A run whose labels are all there.

    Raises:
        RunFolderError: It is no run of comparisons, was not finished, or its rows are not those it tells of.
    """
    folder = RunFolder(path, "")
    known = folder.read()
    commands = [command for command, judged in RUNS.items() if judged is KINDS["label"]]
    if known is None or not is_label_run(known):
        found = "holds no run.json" if known is None else f"is a run of `rlaif {known.get('command')}`"
        found += " over rows of another kind" if known is not None and known.get("command") in commands else ""
        expected = " or ".join(f"`rlaif {command}`" for command in commands)
        raise RunFolderError(f"{path}: {found}, expected a finished run of {expected}")
    if known.get("status") != "finished":
        raise RunFolderError(
            f"{path}: the run is {known.get('status')}, expected a finished one; finish it first: {known.get('repeat')}"
        )
    config: LabelConfig = resolve(LabelConfig, None, known["config"])
    schema, rows = read_schema(path)
    run = FinishedRun(folder, known, config)
    if rows != known["counts"]["rows"]:
        raise RunFolderError(
            f"{path / 'data'}: holds {rows:,} rows where run.json tells of {known['counts']['rows']:,}; was it changed "
            "after the run? Run it again"
        )
    ours = run.schema(is_calibrated=run.is_calibrated).raw_columns
    if theirs := [name for name in RAW_COLUMNS if name in schema.names and name not in ours]:
        raise RunFolderError(f"{path / 'data'}: has columns {', '.join(theirs)} of its own, which new labels need")
    return run


def relabel(
    run: FinishedRun, out: Path, relabeling: Relabeling, *, changed: Mapping[str, Any], command: str = ""
) -> RelabelOutcome:
    """Write a run folder with the rows of another and new labels. Killed and run again, it writes the same.

    Args:
        run: Where the rows come from.
        out: The folder to write.
        relabeling: How labels change.
        changed: Options of `rlaif label` that the new run has otherwise, by name.
        command: How a person would repeat this.

    Raises:
        RunFolderError: The folder holds something else, or a file cannot be read or written.
    """
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    folder = RunFolder(out, relabeling.command)
    decisive = {**run.known["decisive"], "derived_from": run.fingerprint, **relabeling.decisive}
    folder.open(decisive)
    rows = _Rows(run, relabeling)
    failures = _failures(run.folder)

    def write_run_json(status: str) -> None:
        seconds = round(time.monotonic() - started, 3)
        calibration = relabeling.calibration
        known = run.known
        folder.write(
            {
                "command": relabeling.command,
                "status": status,
                "derived_from": {"run": str(run.folder.path), "command": known["command"], "sha256": run.fingerprint},
                "config": {**known["config"], **changed, "out": str(out)},
                "decisive": decisive,
                "judges": known["judges"],
                "counts": {
                    "input": known["counts"]["input"],
                    "rows": rows.statistics.rows,
                    "failures": len(failures),
                    **rows.statistics.as_json(),
                },
                "calls": {"asked": 0, "replayed": 0, "retries": 0},
                "tokens": dict.fromkeys(known["tokens"], 0),
                "cost_usd": 0.0,
                "seconds": seconds,
                "seconds_total": seconds,
                "started_at": started_at,
                "repeat": command,
                "versions": versions(),
                **({"calibration": calibration_facts(calibration)} if calibration else {}),
            }
        )

    write_run_json("running")
    rewrite_shards(run.folder.path, out, rows.changed)
    folder.write_failures(failures)
    folder.write_card(render_card(_card_facts(run, out, relabeling, rows, len(failures), command)))
    write_run_json("finished")
    counted = rows.statistics.rows
    moved = rows.moved / counted if counted else 0.0
    return RelabelOutcome(out, counted, len(failures), rows.changed_sides, moved, rows.statistics)


class _Rows:
    """Changes tables of rows, and counts what became of them."""

    def __init__(self, run: FinishedRun, relabeling: Relabeling) -> None:
        self._relabeling = relabeling
        self._old = run.schema(is_calibrated=run.is_calibrated)
        self._new = run.schema(is_calibrated=relabeling.calibration is not None)
        self.statistics = LabelStatistics()
        self.changed_sides = 0
        self.moved = 0.0
        self.example: dict[str, Any] | None = None
        self.columns: tuple[str, ...] = ()

    def changed(self, table: pa.Table) -> pa.Table:
        """The rows with their new labels; the other columns are handed on as they are."""
        import pyarrow as pa

        own = [name for name in OUR_COLUMNS if name in table.column_names]
        schema = replace(self._new, is_conversational=pa.types.is_list(table.schema.field("chosen").type))
        values = [self._label_values(row, schema) for row in table.select(own).to_pylist()]
        gone = {*self._relabeling.left_out, *(set(self._old.raw_columns) - set(schema.raw_columns))}
        table = table.drop_columns([name for name in table.column_names if name in gone])
        for name in label_values("", "", _NOTHING, schema):
            kind = table.schema.field(name if name in table.column_names else "prob_a").type
            column = pa.array([each[name] for each in values], type=kind)
            if name in table.column_names:
                table = table.set_column(table.column_names.index(name), name, column)
            else:
                table = table.add_column(table.column_names.index("label_mass_ab"), name, column)
        if self.example is None and table.num_rows:
            (self.example,) = table.slice(0, 1).to_pylist()
            self.columns = tuple(table.column_names)
        return table

    def _label_values(self, row: Mapping[str, Any], schema: PreferenceSchema) -> dict[str, Any]:
        judgment = read_judgment(row, is_calibrated=self._old.is_calibrated, is_clamped=self._old.is_clamped)
        after = self._relabeling.change(judgment, row)
        self.statistics.add(after)
        before = self._relabeling.before(judgment).prob_a
        self.changed_sides += verdict_of(before) is not verdict_of(after.prob_a)
        self.moved += abs(before - after.prob_a)
        return label_values(row["response_a"], row["response_b"], after, schema)


_NOTHING = Judgment(SoftLabel(0.5, None, None))


def _failures(folder: RunFolder) -> list[Failure]:
    path = folder.path / "failures.jsonl"
    try:
        return [Failure(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError, TypeError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error


def _card_facts(
    run: FinishedRun, out: Path, relabeling: Relabeling, rows: _Rows, failed: int, command: str
) -> CardFacts:
    known, config = run.known, run.config
    judging, decisive = config.judging, known["decisive"]
    return CardFacts(
        title=out.resolve().name,
        judges=run.judges,
        is_demonstration=any(judge["is_demonstration"] for judge in known["judges"]),
        task=judging.task,
        template_fingerprint=run.template,
        reward_models=run.reward_models,
        settings=shown_settings(LABELING, config, asks_words=run.template is not None),
        constitution=judging.constitution,
        constitution_fingerprint=decisive["constitution"],
        principles=_principles(run),
        principle_choice=judging.principles,
        weights={**decisive, **relabeling.decisive}.get("weights", {}),
        source=config.input,
        source_sha256=decisive["input"],
        failed=failed,
        statistics=rows.statistics,
        command=command,
        version=versions()["rlaif"],
        example=rows.example,
        columns=rows.columns,
        calibration=relabeling.calibration,
        derived_from=run.folder.path.resolve().name,
    )


def _principles(run: FinishedRun) -> tuple[tuple[str, str], ...]:
    constitution = run.constitution
    return () if constitution is None else tuple((each.id, each.text) for each in constitution.principles)
