"""`rlaif audit` without the command line: rows that a judge has judged in, figures, findings and a report out."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rlaif import extras
from rlaif.auditing.audit import audit_table
from rlaif.auditing.fitting import FitResult, fit_calibration
from rlaif.auditing.plots import save_plots
from rlaif.auditing.report import render_report
from rlaif.auditing.results import Audit, Figure, Section
from rlaif.auditing.summary import summary
from rlaif.auditing.table import AuditTable, build_table
from rlaif.calibration import load_calibration, save_calibration
from rlaif.config import resolve
from rlaif.data.files import open_source
from rlaif.engine.audit_inputs import AuditInputs, read_inputs
from rlaif.engine.config import AuditConfig
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.suggestions import write_suggestions
from rlaif.errors import CalibrationError, ConfigError, InputError, RunFolderError
from rlaif.records import JudgedComparison

RESULT = "audit.json"
REPORT = "report.html"
SUGGESTED = ("suggested.jsonl", "suggested.csv")

_PLACE = ".audit-"
"""How the folder is called in which files are drawn that then replace the old ones."""

_NEEDED = ("matplotlib", "scipy", "sklearn", "statsmodels")


@dataclass(frozen=True)
class AuditOutcome:
    """What an audit found, and where it was written.

    Attributes:
        folder: With audit.json, report.html and the plots.
        audit: The figures and findings.
        rows: What they were found on.
        failures: Rows that could not be read and were skipped; they stand in failures.jsonl.
        title: Of the report.
        files: What was written, the report first.
        suggested: Rows drawn for annotators; None where none were wanted.
    """

    folder: Path
    audit: Audit
    rows: tuple[JudgedComparison, ...]
    failures: int
    title: str
    files: tuple[Path, ...]
    suggested: int | None = None


class _Audited(NamedTuple):
    audit: Audit
    inputs: AuditInputs
    table: AuditTable
    fitted: FitResult | None

    @property
    def title(self) -> str:
        return f"Audit of {self.inputs.judged.judge}"


def audit_file(
    config: AuditConfig,
    *,
    source: object = None,
    human: object = None,
    against: object = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> AuditOutcome:
    """Audit the judge of `config.input` into the folder `config.out`.

    Args:
        config: What is audited, and how.
        source, human, against: Rows in memory, instead of the files that the config names.
        on_step: Told what begins, in a few words.

    Raises:
        BackendNotInstalledError: The extra is missing.
        RunFolderError: The folder holds something else, or cannot be written.
        InputError, ConfigError: As `rlaif.data.judged.read_judged` and `rlaif.data.human_labels`.
        CalibrationError: A calibration is wanted, and the labels support none.
    """
    extras.require("audit", _NEEDED, "rlaif audit")
    folder = Path(config.out)
    _check(folder, config)
    done = _audited(config, source, human, against, on_step)
    on_step("writing the report")
    files, suggested = _write(folder, config, done)
    return AuditOutcome(folder, done.audit, done.inputs.rows, len(done.inputs.failures), done.title, files, suggested)


# --- from the inputs to the figures -----------------------------------------------------------------------------------


def _audited(
    config: AuditConfig, source: object, human: object, against: object, on_step: Callable[[str], None]
) -> _Audited:
    on_step("reading")
    inputs = read_inputs(config, source=source, human=human, against=against)
    table = build_table(inputs.rows)
    fitted = None
    if config.fit_calibration is not None:
        on_step("fitting the calibration")
        fitted = _fit(config, inputs, table)
    on_step("computing the figures")
    audit = audit_table(
        table,
        tie_band=config.tie_band,
        resamples=config.resamples,
        seed=config.seed,
        by=inputs.judged.read.by,
        source=inputs.source,
        other=None if inputs.others is None else build_table(inputs.others),
        name_of_other=inputs.name_of_other,
        calibration=None if fitted is None else fitted.as_mapping(),
    )
    return _Audited(audit, inputs, table, fitted)


def _fit(config: AuditConfig, inputs: AuditInputs, table: AuditTable) -> FitResult:
    """A calibration of the judge's own probabilities."""
    judged = inputs.judged
    if judged.read.answers.is_calibrated:
        raise CalibrationError(
            f"{judged.read.name}: its prob_a was calibrated before; fit on the judge's own probabilities, with "
            "--judge-column raw_prob_a_ab --judge-column-ba raw_prob_a_ba"
        )
    run = judged.run
    return fit_calibration(
        table,
        seed=config.seed,
        debias=run.settings.get("debias") or "mean-prob" if run else "mean-prob",
        judges=run.judges if run else (),
        task=run.settings.get("task") if run else None,
        template=run.template if run else None,
    )


# --- the folder -------------------------------------------------------------------------------------------------------


def _check(folder: Path, config: AuditConfig) -> None:
    """Make sure, before any work, that the folder can be made, or holds an audit, which may be replaced; and that a
    calibration replaces none but an earlier one. Nothing is written. Raises `RunFolderError`."""
    try:
        is_occupied = folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir())
        place = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be used as an output folder ({error.strerror})") from error
    if not place.is_dir():
        raise RunFolderError(f"{folder}: cannot be used as an output folder ({place} is a file)")
    if not os.access(place, os.W_OK):
        raise RunFolderError(f"{folder}: cannot be used as an output folder (no permission to write)")
    _check_calibration(config)
    if is_occupied and not (folder / RESULT).is_file():
        raise RunFolderError(f"{folder}: is not empty and holds no {RESULT}; choose another folder with -o")
    if config.suggest is not None:
        for path in (folder / name for name in SUGGESTED):
            if path.exists() and not _is_blank(path):
                raise RunFolderError(f"{path}: somebody has written labels into it; choose another folder with -o")


def _check_calibration(config: AuditConfig) -> None:
    if config.fit_calibration is None:
        return
    path = Path(config.fit_calibration)
    if path.is_dir():
        raise RunFolderError(f"{path}: is a folder, expected the name of a file for the calibration")
    if path.exists():
        try:
            load_calibration(path)
        except InputError as error:
            raise RunFolderError(f"{path}: holds something else than a calibration; choose another file") from error


def _is_blank(path: Path) -> bool:
    """Whether a file for annotators holds no label yet; one that cannot be read any more was opened by somebody."""
    try:
        return all(not str(row.values["human_label"] or "").strip() for row in open_source(path).read())  # type: ignore[index]
    except (InputError, KeyError, TypeError):
        return False


def _write(folder: Path, config: AuditConfig, done: _Audited) -> tuple[tuple[Path, ...], int | None]:
    """Every file of an audit, each replaced in one step; and how many rows were drawn for annotators."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for unfinished in folder.glob(f"{_PLACE}*"):  # of an audit that was killed
            shutil.rmtree(unfinished)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be used as an output folder ({error.strerror})") from error
    files = RunFolder(folder, "audit")
    # First, so that a folder which was left half written is still known for ours.
    files.replace(RESULT, result_text(done.audit))
    report = render_report(done.audit, done.inputs.rows, title=done.title, tie_band=config.tie_band)
    files.replace(REPORT, report)
    drawn, suggested = _replace_drawn(folder, config, done)
    written = [folder / REPORT, folder / RESULT, *drawn]
    if done.inputs.failures or config.source.skip_bad_rows or (folder / "failures.jsonl").exists():
        files.write_failures(done.inputs.failures)
        written.append(folder / "failures.jsonl")
    if done.fitted is not None and config.fit_calibration is not None:
        path = Path(config.fit_calibration)
        save_calibration(done.fitted.calibration, path)
        written.append(path)
    return tuple(written), suggested


def result_text(audit: Audit) -> str:
    """The content of audit.json."""
    return json.dumps(audit.as_json(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _replace_drawn(folder: Path, config: AuditConfig, done: _Audited) -> tuple[list[Path], int | None]:
    """The plots of this audit, and none of an earlier one; the files for annotators, where they are wanted."""
    try:
        with tempfile.TemporaryDirectory(prefix=_PLACE, dir=folder) as place:
            new = save_plots(done.audit, Path(place))
            suggested = None
            if config.suggest is not None:
                paths, suggested = write_suggestions(
                    done.inputs.rows, done.table, config.suggest, config.seed, Path(place)
                )
                new += paths
            for old in folder.glob("*.png"):
                old.unlink()
            return [path.replace(folder / path.name) for path in new], suggested
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written into ({error.strerror})") from error


# --- from Python ------------------------------------------------------------------------------------------------------


class AuditReport:
    """What an audit found; `print` shows the summary, `save` writes the report.

    Attributes:
        audit: Everything, as plain values.
        rows: What it was found on.
    """

    def __init__(self, done: _Audited, config: AuditConfig) -> None:
        self.audit = done.audit
        self.rows = done.inputs.rows
        self._done = done
        self._config = config

    @property
    def figures(self) -> Section:
        """The figures at the top by name."""
        return self.audit.figures

    def __getitem__(self, name: str) -> Figure:
        """A figure at the top, such as "agreement" or "length_bias.difference". Raises `KeyError`."""
        return self.audit.figure(name)

    def __str__(self) -> str:
        return summary(self.audit)

    def __repr__(self) -> str:
        return f"<AuditReport: {self._done.title}, {len(self.rows)} rows>"

    def save(self, path: str | Path) -> Path:
        """Write the report (a path that ends in .html), the figures (.json), or a folder with these and the plots.

        Raises:
            RunFolderError: It cannot be written, or the folder holds something else.
        """
        path = Path(path).expanduser()
        if path.suffix not in (".html", ".json"):
            _check(path, self._config)
            _write(path, self._config, self._done)
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(f"{path}: cannot be written ({error.strerror})") from error
        is_result = path.suffix == ".json"
        RunFolder(path.parent, "audit").replace(path.name, result_text(self.audit) if is_result else self._page())
        return path

    def _page(self) -> str:
        return render_report(self.audit, self.rows, title=self._done.title, tie_band=self._config.tie_band)


def audit(
    rows: object,
    *,
    out: str | Path | None = None,
    human: object = None,
    by: str | Sequence[str] = (),
    against: object = None,
    **settings: Any,
) -> AuditReport:
    """How far the judge of these rows agrees with people.

    Args:
        rows: A `datasets.Dataset`, a `pandas.DataFrame`, dicts, or a path (also of a run folder): with `prob_a`, or
            with recorded verdicts in `judge_column`.
        out: Folder to write audit.json, report.html and the plots into; None writes nothing.
        human: Labels by id instead of those of `rows`: a path, or rows.
        by: Column to split the figures by, or several.
        against: Another judge's rows with the same ids: a path, or rows.
        **settings: Every other flag of `rlaif audit --help`, with underscores: judge_column, cluster, seed, ...

    Raises:
        ConfigError: A setting is unknown or wrong; all faults at once.
        InputError: A row cannot be read.
        BackendNotInstalledError: The extra is missing.

    >>> rows = [{"prompt": "P", "response_a": "x", "response_b": "y", "prob_a": 0.9, "human_label": "a"}]
    >>> audit(rows, resamples=100)["agreement"].value
    1.0
    """
    extras.require("audit", _NEEDED, "rlaif audit")
    flags = {
        **settings,
        "input": str(rows) if isinstance(rows, str | Path) else "rows",
        "out": "" if out is None else str(out),
        "by": (by,) if isinstance(by, str) else tuple(by),
    }
    for name, value in (("human", human), ("against", against)):
        if isinstance(value, str | Path):
            flags[name] = str(value)
    config: AuditConfig = resolve(AuditConfig, None, flags)
    if out is None and config.suggest is not None:
        raise ConfigError("suggest: needs out, the folder that the annotators' files are written into")
    if out is not None:
        _check(Path(out), config)
    human, against = (None if isinstance(value, str | Path) else value for value in (human, against))
    done = _audited(config, None if isinstance(rows, str | Path) else rows, human, against, lambda _: None)
    if out is not None:
        _write(Path(out), config, done)
    elif done.fitted is not None and config.fit_calibration is not None:
        save_calibration(done.fitted.calibration, Path(config.fit_calibration))
    return AuditReport(done, config)
