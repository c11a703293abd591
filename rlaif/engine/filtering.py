"""`rlaif filter` without the command line: labeled pairs or rated candidates in, a run folder of the pairs that are
kept out, streamed. No judge is asked."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rlaif.config import as_dict, resolve
from rlaif.data.files import RowSource, open_source
from rlaif.data.filter_card import FilterFacts, render_filter_card, settings_of
from rlaif.data.filter_inputs import CandidatePairs, LabeledPairs, SelectionCounts
from rlaif.data.filtering import FilterCount, PairFilter, dropped_line
from rlaif.data.preferences import read_judgment
from rlaif.data.shards import RowWriter, read_schema, rewrite_shards
from rlaif.data.sources import ReadOptions
from rlaif.data.statistics import LabelStatistics
from rlaif.engine.config import LabelConfig
from rlaif.engine.filter_config import FilterConfig
from rlaif.engine.kinds import is_label_run
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.relabeling import FinishedRun
from rlaif.engine.run_folder import RunFolder, run_fingerprint, versions
from rlaif.errors import ConfigError, InputError, RunFolderError

if TYPE_CHECKING:
    import pyarrow as pa

COMMAND = "filter"
DROPPED = "dropped.jsonl"
"""Names every pair that was dropped, a line each."""

_OWN = "filter "
"""Before the names of our own settings among those of the run that is filtered."""


@dataclass(frozen=True)
class FilterOutcome:
    """What was written.

    Attributes:
        folder: The run folder.
        before, rows: Pairs before all filters, and those that are kept.
        failures: Rows that could not be read.
        counts: What each filter did, in their order.
        selection: What became of the candidates; None where the input holds pairs.
    """

    folder: Path
    before: int
    rows: int
    failures: int
    counts: tuple[FilterCount, ...]
    selection: SelectionCounts | None


def filter_pairs(config: FilterConfig, listener: Listener | None = None, *, command: str = "") -> FilterOutcome:
    """`rlaif filter`: keep the pairs of an input that pass all filters. Killed and run again, it writes the same.

    Args:
        config: Which input, which filters, where to.
        listener: Warned of a filter that could be told of no pair, and where nothing is left.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        InputError: The input cannot be read, or makes no pair.
        RunFolderError: The input is a run that is not finished, or the output folder holds something else.
        ConfigError: The input holds candidates, and no rule that makes pairs of them was given.
    """
    listener = listener or SilentListener()
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    known = _run_json(Path(config.input).expanduser())
    source = open_source(config.input)
    run = _label_run(Path(config.input).expanduser(), known) if config.selection.pairs is None else None
    pairs = _pairs(config, source)
    found = PairFilter(config.filters)
    for pair in pairs.read():
        found.add(pair.row)
    selection = pairs.counts if isinstance(pairs, CandidatePairs) else None
    if selection is not None and selection.pairs == 0:
        raise InputError(_no_pair(config, selection), path=source.name)
    for warning in _warnings(found):
        listener.on_warning(warning)
    folder = RunFolder(Path(config.out), COMMAND)
    decisive = _decisive(config, known, pairs)
    folder.open(decisive)
    content: dict[str, Any] = {
        "command": COMMAND,
        "status": "running",
        **_lineage(config, known, run),
        "decisive": decisive,
        "filter": {"input": config.input, **as_dict(config.filters)},
        **({"pairs": {**settings_of(config.selection), **selection.as_json()}} if selection is not None else {}),
        "counts": {
            "input": found.rows + len(pairs.summary.failures),
            "rows": found.kept,
            "failures": len(pairs.summary.failures),
            "filters": [count.as_json() for count in found.counts],
        },
        "started_at": started_at,
        "repeat": command,
        "versions": versions(),
    }
    with folder.locked():
        folder.write(content)
        written = _Writing(folder, pairs, found, run)
        columns = written.write(Path(config.input).expanduser())
        folder.write_failures(pairs.summary.failures)
        folder.write_card(render_filter_card(_card_facts(config, known, pairs, found, command, columns)))
        content["counts"] = {**written.statistics, **content["counts"]}
        seconds = round(time.monotonic() - started, 3)
        folder.write({**content, "status": "finished", "seconds": seconds, "seconds_total": seconds})
    return FilterOutcome(
        Path(config.out), found.rows, found.kept, len(pairs.summary.failures), tuple(found.counts), selection
    )


def _run_json(path: Path) -> dict[str, Any] | None:
    """What the run folder at a path says of itself; None for anything else.

    Raises:
        RunFolderError: The run is not finished.
    """
    known = RunFolder(path, "").read() if os.path.isfile(path / "run.json") else None
    if known is not None and known.get("status", "finished") != "finished":
        raise RunFolderError(
            f"{path}: the run is {known['status']}, expected a finished one; finish it first: {known.get('repeat')}"
        )
    return known


def _label_run(path: Path, known: Mapping[str, Any] | None) -> FinishedRun | None:
    """The run, where its rows are as `rlaif label` writes them."""
    if known is None or not is_label_run(known):
        return None
    _, rows = read_schema(path)
    if rows != known["counts"]["rows"]:
        raise RunFolderError(
            f"{path / 'data'}: holds {rows:,} rows where run.json tells of {known['counts']['rows']:,}; was it changed "
            "after the run? Run it again"
        )
    return FinishedRun(RunFolder(path, ""), known, resolve(LabelConfig, None, known["config"]))


def _pairs(config: FilterConfig, source: RowSource) -> LabeledPairs | CandidatePairs:
    reading = ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)
    first = next((values for _, values in source.read() if isinstance(values, dict)), {})
    named = {*first, *config.source.columns}
    has_pairs, has_candidates = not named.isdisjoint({"response_a", "chosen"}), "responses" in named
    if config.selection.pairs is not None:
        if has_pairs and not has_candidates:
            raise ConfigError(f"pairs: {source.name} holds pairs, and --pairs makes them of candidates; leave it out")
        return CandidatePairs(source, reading, config.selection)
    if has_candidates and not has_pairs:
        raise ConfigError(
            f"{source.name} holds candidates, and filters take pairs; say which candidates become pairs with --pairs "
            "all, best-worst, rs-dpo or rso, once they are rated (rlaif rate)"
        )
    return LabeledPairs(source, reading)


def _no_pair(config: FilterConfig, counts: SelectionCounts) -> str:
    """Why the candidates make no pair, and what would."""
    options = config.selection
    if options.pairs not in ("rs-dpo", "best-worst") or counts.candidates == counts.rows:
        return f"none of its {counts.rows:,} rows has two candidates, so there are no pairs"
    probability, row_id = counts.largest
    difference = counts.largest_difference
    if difference == 0.0:
        return (
            f"in all of its {counts.rows:,} rows the candidates have equal scores, so there are no pairs to tell apart"
        )
    # Rounded down, so that what is proposed lets the pair through.
    choices = [f"--eta {math.floor(probability * 1000) / 1000:g}"]
    logit = math.log(options.eta / (1.0 - options.eta)) if options.eta < 1.0 else math.inf
    if 0.0 < (tau := difference / logit) < options.tau:
        digits = 2 - math.floor(math.log10(tau))
        choices.append(f"--tau {math.floor(tau * 10**digits) / 10**digits:g}")
    return (
        f"no pair passes --eta {options.eta:g} (sigmoid((r_i - r_j) / tau) >= eta): the largest is {probability:.4f}, "
        f"of row {row_id!r}, whose scores differ by {difference:.4g} at --tau {options.tau:g}; "
        f"{' or '.join(choices)} would let a pair through"
    )


def _warnings(found: PairFilter) -> list[str]:
    warnings = [
        f"--{count.filter} could be told of none of the {count.before:,} pairs that came to it, and dropped none: they "
        "say nothing of what it looks at"
        for count in found.counts
        if count.before and count.untold == count.before
    ]
    if found.rows and not found.kept:
        warnings.append(f"no pair is left of {found.rows:,}; filter less")
    return warnings


def _decisive(
    config: FilterConfig, known: Mapping[str, Any] | None, pairs: LabeledPairs | CandidatePairs
) -> dict[str, Any]:
    """Everything that can change what is written; of a run also what decided that, so that it can be filtered, audited
    and trained on as the run itself."""
    decisive = dict(known.get("decisive", {})) if known is not None else {}
    for name in [name for name in decisive if name.startswith(_OWN)]:  # of a filtered run, in its fingerprint
        del decisive[name]
    decisive.setdefault("input", pairs.summary.content_sha256)
    if known is not None:
        decisive["derived_from"] = _fingerprint(known)
    filters = config.filters
    own: dict[str, Any] = {each.value: asked for each, asked in filters.asked().items()}
    if filters.swap_consistent:
        own["tie-band"] = filters.tie_band
    if config.source.columns:
        own["columns"] = dict(config.source.columns)
    if config.selection.pairs is not None:
        own.update(settings_of(config.selection), seed=config.seed)
    own["rows"] = pairs.summary.content_sha256
    return {**decisive, **{f"{_OWN}{name}": value for name, value in own.items()}}


def _lineage(config: FilterConfig, known: Mapping[str, Any] | None, run: FinishedRun | None) -> dict[str, Any]:
    """What `run.json` tells of where the labels come from."""
    nothing_asked = {"calls": {"asked": 0, "replayed": 0, "retries": 0}, "cost_usd": 0.0}
    tokens = dict.fromkeys((known or {}).get("tokens") or ("prompt_tokens", "completion_tokens"), 0)
    lineage: dict[str, Any] = {"is_label_run": run is not None, "judges": [], "tokens": tokens, **nothing_asked}
    own = as_dict(config)
    if known is None:
        return {**lineage, "config": own}
    lineage["judges"] = known.get("judges") or []
    lineage["derived_from"] = {"run": config.input, "command": known.get("command"), "sha256": _fingerprint(known)}
    if run is not None:
        lineage["config"] = {**known["config"], "out": config.out}
        return {**lineage, **({"calibration": known["calibration"]} if "calibration" in known else {})}
    judging = (known.get("config") or {}).get("judging")
    return {**lineage, "config": {**own, **({"judging": judging} if judging else {})}}


def _fingerprint(known: Mapping[str, Any]) -> str | None:
    """The id of a run; None of a folder whose run.json tells too little."""
    is_told = "decisive" in known and {"rows", "failures"} <= set(known.get("counts") or ())
    return run_fingerprint(known) if is_told else None


class _Writing:
    """The second pass: what is kept to `data/`, what is not to `dropped.jsonl`."""

    def __init__(
        self, folder: RunFolder, pairs: LabeledPairs | CandidatePairs, found: PairFilter, run: FinishedRun | None
    ) -> None:
        self._folder = folder
        self._pairs = pairs
        self._found = found
        self._run = run
        self._counted = LabelStatistics()

    @property
    def statistics(self) -> dict[str, Any]:
        """Of the labels that are kept, where they are a judge's."""
        return self._counted.as_json() if self._run is not None else {}

    def write(self, source: Path) -> tuple[str, ...]:
        """Write the rows; returns the names of their columns."""
        if isinstance(self._pairs, LabeledPairs) and _holds_shards(source):
            schema, total = read_schema(source)
            is_kept = bytearray(total)
            self._each(lambda line, _: is_kept.__setitem__(line - 1, 1))
            rewrite_shards(source, self._folder.path, _Mask(is_kept))
            return tuple(schema.names)
        layout = self._pairs.layout()
        with RowWriter(self._folder.path, layout.schema) as writer:
            self._each(lambda _, pair: writer.write(layout.to_row(pair)))
        return tuple(layout.schema.names)

    def _each(self, keep: Callable[[int, Any], None]) -> None:
        """Go through all pairs: `keep` those that are kept, by line, and write the others down."""
        temporary = self._folder.path / f".{DROPPED}.new"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                self._go_through(keep, file)
            os.replace(temporary, self._folder.path / DROPPED)
        except OSError as error:
            raise RunFolderError(f"{self._folder.path / DROPPED}: cannot be written ({error.strerror})") from error

    def _go_through(self, keep: Callable[[int, Any], None], file: IO[str]) -> None:
        originals = self._found.originals
        ids: dict[int, str] = {}
        for number, pair in enumerate(self._pairs.read()):
            if number in originals:
                ids[number] = pair.row.id
            reason = self._found.reason(number)
            if reason is not None:
                earlier = self._found.earlier(number)
                line = dropped_line(pair.row, reason, None if earlier is None else ids[earlier])
                file.write(json.dumps(line) + "\n")
                continue
            if self._run is not None:
                run = self._run
                judgment = read_judgment(pair.values, is_calibrated=run.is_calibrated, is_clamped=run.is_clamped)
                self._counted.add(judgment)
            keep(pair.line, pair)


class _Mask:
    """Of tables that come one after the other, keeps the rows that are marked."""

    def __init__(self, is_kept: bytearray) -> None:
        self._is_kept = is_kept
        self._offset = 0

    def __call__(self, table: pa.Table) -> pa.Table:
        import pyarrow as pa

        part = self._is_kept[self._offset : self._offset + table.num_rows]
        self._offset += table.num_rows
        return table.filter(pa.array(map(bool, part), pa.bool_())) if table.num_rows else table


def _holds_shards(path: Path) -> bool:
    """Whether a folder's rows stand as a run of ours writes them, and can be handed on as they are."""
    if not path.is_dir() or any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
        return False
    files = list((path / "data").glob("*.parquet"))
    return bool(files) and all(file.name.startswith("train-") for file in files)


def _card_facts(
    config: FilterConfig,
    known: Mapping[str, Any] | None,
    pairs: LabeledPairs | CandidatePairs,
    found: PairFilter,
    command: str,
    columns: tuple[str, ...],
) -> FilterFacts:
    judges = (known or {}).get("judges") or []
    is_made = isinstance(pairs, CandidatePairs)
    return FilterFacts(
        title=Path(config.out).resolve().name,
        source=config.input,
        source_sha256=pairs.summary.content_sha256,
        made_by=None if known is None else known.get("command"),
        judges=tuple(str(judge.get("name")) for judge in judges),
        is_demonstration=any(judge.get("is_demonstration") is True for judge in judges),
        before=found.rows,
        rows=found.kept,
        failed=len(pairs.summary.failures),
        counts=found.counts,
        selection=config.selection if is_made else None,
        selection_counts=pairs.counts if isinstance(pairs, CandidatePairs) else None,
        command=command,
        columns=columns,
    )
