"""`rlaif export`: labeled pairs out of a run folder or a file, streamed into the files of another trainer.

What a row holds is told by `rlaif.data.exporting`; `publishing` uploads. An export is derived from its input and its
flags alone: the same command writes the same bytes, and each file appears whole or not at all.
"""

from __future__ import annotations

import filecmp
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from rlaif.backends.registry import DEMONSTRATION_WARNING
from rlaif.data.exporting import EXPORT_FORMATS, ExportPair, FileLayout, Kind, pair_digest
from rlaif.data.row_files import RowFileWriter, beside, extension_of
from rlaif.data.schema import prompt_type
from rlaif.data.training_selection import Dropped
from rlaif.engine.export_config import ExportConfig
from rlaif.engine.export_pairs import ExportPlan, Pairs, fitting, held_out_prompts, nothing_left, plan_export
from rlaif.engine.run_folder import RunFolder
from rlaif.errors import ConfigError, InputError, RunFolderError
from rlaif.records import Failure

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class SplitFile:
    """One of the files of an export.

    Attributes:
        path: Where it stands.
        rows: In it.
        prompts: Whose rows these are.
        size: In bytes.
        is_unchanged: Whether it stood there already.
    """

    path: Path
    rows: int
    prompts: int
    size: int
    is_unchanged: bool = False


@dataclass(frozen=True)
class ExportCounts:
    """What became of the pairs of the input.

    Attributes:
        read: Pairs that can be read.
        unreadable: Rows that cannot, where they are skipped.
        dropped: Pairs that are left out, by why.
        unfit: Pairs that the format cannot hold.
        changed: Pairs that it holds with a small change, which the format tells.
        repeated: Rows of kto that were not written a second time.
        conflicting: Responses of kto that are desirable in one pair and undesirable in another; both rows are written.
    """

    read: int
    unreadable: int
    dropped: Mapping[Dropped, int]
    unfit: int
    changed: int
    repeated: int
    conflicting: int


@dataclass(frozen=True)
class ExportOutcome:
    """What was written, or under `--dry-run` would be.

    Attributes:
        format: As it was asked for.
        files: "train" and, where the rows are split, "test".
        counts: Of pairs.
        labels: Of kto, rows by their label.
        failures: Rows that are in no file.
        failures_file: Where they stand; None where there are none, and in a dry run.
        layout: What is the same for all rows.
        left_out: Columns of the input that are not handed on.
        run: `run.json` of the run that was exported; None for a file.
    """

    format: str
    files: Mapping[str, SplitFile]
    counts: ExportCounts
    labels: Mapping[bool, int]
    failures: tuple[Failure, ...]
    failures_file: Path | None
    layout: FileLayout
    left_out: tuple[str, ...]
    run: Mapping[str, Any] | None

    @property
    def left_out_pairs(self) -> tuple[str, ...]:
        """Which pairs are in no file, and how many, in words; empty where all are."""
        counts = self.counts
        found = [(count, str(reason)) for reason, count in counts.dropped.items()]
        found += [(counts.unfit, "that the format cannot hold"), (counts.unreadable, "that cannot be read")]
        return tuple(f"{count:,} {words}" for count, words in found if count)


def export_rows(
    config: ExportConfig,
    *,
    on_step: Callable[[str], None] = lambda text: None,
    on_warning: Callable[[str], None] = lambda text: None,
) -> ExportOutcome:
    """Write an export; nothing is uploaded here.

    Args:
        config: What to export, and where to.
        on_step, on_warning: Told what is done, and what a person should know.

    Raises:
        InputError: A row cannot be read and is not skipped, the run is not finished, or no pair is left.
        ConfigError: There is one prompt only, and it is to be split.
        RunFolderError: A file of that name holds something else, or it cannot be written.
    """
    run = _finished_run(config.input)
    if run is not None and any(judge.get("is_demonstration") is True for judge in run.get("judges", ())):
        on_warning(DEMONSTRATION_WARNING)
    _check_targets(config)
    on_step(f"reading {config.input}")
    pairs = Pairs(config)
    plan = plan_export(config, pairs)
    if plan.left == 0:
        raise InputError(nothing_left(plan, pairs.summary), path=config.input)
    test = held_out_prompts(config, plan)
    if plan.dates and extension_of(Path(config.out)) != ".parquet":
        names = " and ".join(sorted(plan.dates))
        on_warning(
            f"all {names} are dates, which `datasets` reads from JSON as times, not texts; write .parquet instead"
        )
    on_step(f"writing {plan.left:,} pairs")
    written = _write(config, pairs, plan, test)
    failures = (*pairs.summary.failures, *plan.failures)
    return ExportOutcome(
        format=config.format,
        files=written.files,
        counts=ExportCounts(
            read=pairs.summary.rows,
            unreadable=len(pairs.summary.failures),
            dropped=dict(plan.dropped),
            unfit=len(plan.failures),
            changed=plan.changed,
            repeated=written.repeated,
            conflicting=written.conflicting,
        ),
        labels=dict(written.labels),
        failures=failures,
        failures_file=None if config.dry_run else _write_failures(Path(config.out), failures),
        layout=plan.layout,
        left_out=pairs.left_out(),
        run=run,
    )


def target_paths(config: ExportConfig) -> dict[str, Path]:
    """The files of an export: "train" and, where the rows are split, "test"."""
    path = Path(config.out)
    if config.test_share == 0.0:
        return {"train": path}
    return {split: beside(path, split) for split in ("train", "test")}


def _finished_run(source: str) -> Mapping[str, Any] | None:
    """`run.json` of the folder at a path; None where there is none. Raises where the run is not finished."""
    path = Path(source).expanduser()
    known = RunFolder(path, "").read() if (path / "run.json").is_file() else None
    if known is not None and known.get("status", "finished") != "finished":
        raise InputError(f"the run is {known['status']}, not finished; run its command again first", path=source)
    return known


def _check_targets(config: ExportConfig) -> None:
    """What can be refused before any row is read."""
    source = Path(config.input).expanduser().resolve()
    for path in target_paths(config).values():
        if path.resolve() == source:
            raise ConfigError(f"out: {path} is the input, expected another file")
        if path.suffix == ".parquet" and path.resolve().parent in (source, source / "data"):
            raise ConfigError(f"out: {path} would become a part of the input, expected another folder")
        if path.is_dir():
            raise RunFolderError(f"{path}: is a folder, expected a file to write")


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass
class _Written:
    files: dict[str, SplitFile] = field(default_factory=dict)
    labels: Counter[bool] = field(default_factory=Counter)
    repeated: int = 0
    conflicting: int = 0


class _Repeats:
    """Which rows of single responses were written already, in a few bytes each."""

    def __init__(self) -> None:
        self._seen: dict[bytes, int] = {}
        self.repeated = 0
        self.conflicting = 0

    def is_new(self, pair: ExportPair, *, is_desirable: bool) -> bool:
        """Whether the response is new under this label; counts where it is not, and where the labels conflict."""
        digest = pair_digest(pair.prompt, pair.chosen if is_desirable else pair.rejected)
        mine, before = (1 if is_desirable else 2), self._seen.get(digest, 0)
        if before & mine:
            self.repeated += 1
            return False
        self.conflicting += bool(before)
        self._seen[digest] = before | mine
        return True


def _write(config: ExportConfig, pairs: Pairs, plan: ExportPlan, test: set[bytes]) -> _Written:
    targets = target_paths(config)
    with _temporary_files(targets, is_dry=config.dry_run) as temporary, _reporting(Path(config.out)):
        found = _fill(config, pairs, plan, test, temporary)
        rows = {split: writer.rows for split, writer in found.writers.items()}
        prompts = {"train": len(plan.draws) - len(test), "test": len(test)}
        same = {split: _is_same(temporary[split], path) for split, path in targets.items()}
        if not config.dry_run and not config.overwrite:
            for split, path in targets.items():
                if path.exists() and not same[split]:
                    raise RunFolderError(
                        f"{path}: is there already and holds something else; --overwrite replaces it, or choose "
                        "another name with -o"
                    )
        files = {
            split: SplitFile(path, rows[split], prompts[split], temporary[split].stat().st_size, same[split])
            for split, path in targets.items()
        }
        if not config.dry_run:
            for split, path in targets.items():
                if not same[split]:
                    os.replace(temporary[split], path)
    return _Written(files, found.labels, found.repeats.repeated, found.repeats.conflicting)


@dataclass
class _Filled:
    writers: dict[str, RowFileWriter]
    labels: Counter[bool]
    repeats: _Repeats


def _fill(
    config: ExportConfig, pairs: Pairs, plan: ExportPlan, test: set[bytes], temporary: Mapping[str, Path]
) -> _Filled:
    export_format, extension = EXPORT_FORMATS[config.format], extension_of(Path(config.out))
    assert extension is not None  # the config has checked it
    layouts = {split: replace(plan.layout, split=split if len(temporary) > 1 else None) for split in temporary}
    schema = _arrow_schema(export_format.columns(layouts["train"]))
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(RowFileWriter(path, extension, schema)) for split, path in temporary.items()
        }
        filled = _Filled(writers, Counter(), _Repeats())
        for pair in fitting(pairs, export_format, plan.layout, Counter(), []):
            split = "test" if test and pair_digest(pair.prompt, "") in test else "train"
            for row in export_format.rows_of(pair, layouts[split]):
                if export_format.is_unpaired:
                    if not filled.repeats.is_new(pair, is_desirable=row["label"]):
                        continue
                    filled.labels[row["label"]] += 1
                writers[split].write(row)
    return filled


@contextmanager
def _temporary_files(targets: Mapping[str, Path], *, is_dry: bool) -> Iterator[dict[str, Path]]:
    """Where the files are written first: beside their targets, or in a dry run in a folder that goes away."""
    with ExitStack() as stack:
        if is_dry:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rlaif-export-")))
            yield {split: folder / path.name for split, path in targets.items()}
            return
        temporary = {split: path.with_name(f".{path.name}.new") for split, path in targets.items()}
        for path in temporary.values():
            with _reporting(path.parent):
                path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
        finally:
            for path in temporary.values():
                path.unlink(missing_ok=True)


def _is_same(path: Path, other: Path) -> bool:
    return other.is_file() and filecmp.cmp(path, other, shallow=False)


def _arrow_schema(columns: Mapping[str, Kind]) -> pa.Schema:
    import pyarrow as pa

    kinds = {
        "text": pa.string(),
        "messages": prompt_type(is_conversational=True),
        "number": pa.float64(),
        "flag": pa.bool_(),
        "integer": pa.int64(),
    }
    return pa.schema([(name, kinds[kind]) for name, kind in columns.items()])


def _write_failures(out: Path, failures: Iterable[Failure]) -> Path | None:
    """Name the rows that are in no file, in one beside it; one that an earlier export left is removed."""
    stem = out.name.removesuffix(extension_of(out) or "")
    path = out.with_name(f"{stem}.failures.jsonl")
    lines = [
        orjson.dumps({"id": one.id, "stage": one.stage, "error": one.error, "attempts": one.attempts}) + b"\n"
        for one in failures
    ]
    with _reporting(path):
        if not lines:
            path.unlink(missing_ok=True)
            return None
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_bytes(b"".join(lines))
        os.replace(temporary, path)
    return path


@contextmanager
def _reporting(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"{error.filename or path}: cannot be written ({error.strerror or error})") from error
