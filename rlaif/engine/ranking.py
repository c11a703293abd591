"""`rlaif rank` without the command line: labels or ratings in; policies with intervals and ranked candidates out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from rlaif import extras
from rlaif.auditing.ranking import DEFAULT_ORDERS, rank_by_matches, rank_by_ratings, strengths_of_sets
from rlaif.auditing.ranking_plot import save_ranking_plot
from rlaif.auditing.ranking_results import Ranking
from rlaif.auditing.results import json_value
from rlaif.auditing.spread import shared_ranks
from rlaif.data.ranking_inputs import RankingOptions
from rlaif.data.rankings import CandidateSet, arrow_schema, rating_row, strength_row
from rlaif.data.shards import RowWriter
from rlaif.data.sources import ReadOptions
from rlaif.engine.ranking_card import Origin, RankingCard, render_ranking_card
from rlaif.engine.ranking_config import RankConfig
from rlaif.engine.ranking_inputs import RankInputs, read_rank_inputs
from rlaif.engine.run_folder import RunFolder, versions

RESULT = "policies.json"
PLOT = "policies.png"

_NEEDED = ("matplotlib", "scipy", "statsmodels")
_REPORTED = ("rlaif", "numpy", "scipy")


@dataclass(frozen=True)
class RankOutcome:
    """What was found, and where it was written.

    Attributes:
        folder: The run folder.
        ranking: Of the policies; None where the input names none.
        inputs: What it was made of.
        rows: Ranked candidates in `data/`; None where the input holds no candidates, and there is no `data/`.
        failures: Rows that could not be read and were skipped.
    """

    folder: Path
    ranking: Ranking | None
    inputs: RankInputs
    rows: int | None
    failures: int


def rank_file(
    config: RankConfig,
    *,
    command: str = "",
    on_step: Callable[[str], None] = lambda _: None,
    on_warning: Callable[[str], None] = lambda _: None,
) -> RankOutcome:
    """Rank the policies, and the candidates of each prompt, of `config.input` into the folder `config.out`.

    Args:
        config: What is ranked, and how.
        command: How a person would repeat this, for `run.json` and the card.
        on_step: Told what begins, in a few words.
        on_warning: Told what makes the result doubtful.

    Raises:
        BackendNotInstalledError: The extra is missing.
        RunFolderError: The folder holds something else, or cannot be written.
        InputError, ConfigError: As `rlaif.engine.ranking_inputs.read_rank_inputs`.
    """
    extras.require("audit", _NEEDED, "rlaif rank")
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    on_step("reading")
    reading = ReadOptions(config.source.columns, config.seed, config.source.skip_bad_rows)
    inputs = read_rank_inputs(
        config.input, RankingOptions(reading, config.by, config.cluster), tie_band=config.tie_band
    )
    folder = RunFolder(Path(config.out), "rank")
    decisive = _decisive(config, inputs)
    folder.open(decisive)
    with folder.locked():
        origin = _origin(config.input)
        if origin.status not in (None, "finished"):
            on_warning(f"{config.input}: the run is {origin.status}: what is ranked are the rows that it has so far")

        def write_run_json(status: str, rows: int | None) -> None:
            seconds = round(time.monotonic() - started, 3)
            folder.write(
                {
                    "command": "rank",
                    "status": status,
                    "config": json_value(config),
                    "decisive": decisive,
                    "counts": {**inputs.counts, "rows": rows or 0},
                    "columns_left_out": list(inputs.left_out),
                    "seconds": seconds,
                    "seconds_total": seconds,
                    "started_at": started_at,
                    "repeat": command,
                    "versions": versions(),
                }
            )

        write_run_json("running", None)
        on_step("ranking the policies")
        ranking = _ranking(config, inputs)
        on_step("ranking the candidates of each prompt")
        rows, example = _write_rows(folder.path, inputs)
        has_plot = _write_ranking(folder, config, inputs, ranking, origin)
        folder.write_failures(inputs.failures)
        card = RankingCard(
            folder.path.resolve().name, inputs, origin, ranking, rows, example, has_plot, command, config
        )
        folder.write_card(render_ranking_card(card))
        write_run_json("finished", rows)
    return RankOutcome(folder.path, ranking, inputs, rows, len(inputs.failures))


def _decisive(config: RankConfig, inputs: RankInputs) -> dict[str, Any]:
    """Everything that can change a figure or a row."""
    return {
        "input": inputs.content_sha256,
        "columns": dict(sorted(config.source.columns.items())),
        "by_columns": None if inputs.by is None else list(inputs.by),
        "cluster": config.cluster,
        "tie_band": config.tie_band,
        "resamples": config.resamples,
        "elo_k": config.elo_k,
        "skip_bad_rows": config.source.skip_bad_rows,
        "seed": config.seed,
    }


def _origin(given: str) -> Origin:
    """What a run folder says of itself; nothing of anything else."""
    path = Path(given).expanduser()
    known = (RunFolder(path, "").read() if (path / "run.json").is_file() else None) or {}
    judges = [each for each in known.get("judges") or () if isinstance(each, dict)]
    return Origin(
        status=known.get("status"),
        judges=tuple(str(each["name"]) for each in judges if "name" in each),
        is_demonstration=any(each.get("is_demonstration") is True for each in judges),
    )


def _ranking(config: RankConfig, inputs: RankInputs) -> Ranking | None:
    if inputs.matches is not None:
        return rank_by_matches(
            inputs.matches, resamples=config.resamples, seed=config.seed, elo_k=config.elo_k, orders=DEFAULT_ORDERS
        )
    if inputs.ratings is not None:
        return rank_by_ratings(inputs.ratings, resamples=config.resamples, seed=config.seed)
    return None


def _write_ranking(
    folder: RunFolder, config: RankConfig, inputs: RankInputs, ranking: Ranking | None, origin: Origin
) -> bool:
    """policies.json and the plot, where there are policies; returns whether there is a plot."""
    if ranking is None:
        return False
    content = {"source": _source(config, inputs, origin), **json_value(ranking)}
    folder.replace(RESULT, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    place = folder.path / f".{PLOT}.new"  # each file appears whole or not at all
    if not save_ranking_plot(ranking, place):
        return False
    place.replace(folder.path / PLOT)
    return True


def _source(config: RankConfig, inputs: RankInputs, origin: Origin) -> dict[str, Any]:
    """What was ranked, and how."""
    by_matches = inputs.kind == "labels"
    clusters = [each.clusters for each in (inputs.matches, inputs.ratings) if each is not None]
    facts: dict[str, Any] = {
        "input": inputs.name,
        "input_sha256": inputs.content_sha256,
        "judges": list(origin.judges),
        "is_demonstration": origin.is_demonstration,
        "by_columns": list(inputs.by or ()),
        "counts": dict(inputs.counts),
        "model": "Bradley-Terry, with ties by Davidson (1970)" if by_matches else "mean rating",
        "cluster": config.cluster or "prompt",
        "clusters": len(np.unique(np.concatenate(clusters))),
        "resamples": config.resamples,
        "seed": config.seed,
        "versions": {package: version(package) for package in _REPORTED},
    }
    if by_matches:
        facts |= {"tie_band": config.tie_band, "elo_k": config.elo_k, "elo_orders": DEFAULT_ORDERS}
    return facts


# --- ranked candidates ------------------------------------------------------------------------------------------------


def _write_rows(folder: Path, inputs: RankInputs) -> tuple[int | None, dict[str, Any] | None]:
    """`data/`, where the input says what is a candidate of what; how many rows, and the first."""
    if inputs.schema is None:
        return None, None
    example = None
    with RowWriter(folder, arrow_schema(inputs.schema)) as writer:
        for row in _ranked_rows(inputs):
            example = example or row
            writer.write(row)
    return writer.rows, example


def _ranked_rows(inputs: RankInputs) -> Iterator[dict[str, Any]]:
    assert inputs.schema is not None
    for rated in inputs.rated:
        yield rating_row(rated, shared_ranks(np.array(rated.scores)).tolist(), inputs.schema)
    if not inputs.sets:
        return
    wins, ties = zip(*(_set_counts(each) for each in inputs.sets), strict=True)
    for candidates, strengths in zip(inputs.sets, strengths_of_sets(wins, ties), strict=True):
        yield strength_row(candidates, strengths.tolist(), shared_ranks(strengths).tolist(), inputs.schema)


def _set_counts(candidates: CandidateSet) -> tuple[Any, Any]:
    """How often each candidate beat each other, and how often two tied (K, K)."""
    place_of: Mapping[int, int] = {number: place for place, number in enumerate(candidates.places)}
    wins = np.zeros((len(place_of), len(place_of)))
    ties = np.zeros_like(wins)
    for first, second, prob, is_tie in candidates.matches:
        one, other = place_of[first], place_of[second]
        if is_tie:
            ties[one, other] += 1.0
            ties[other, one] += 1.0
        else:
            wins[one, other] += prob
            wins[other, one] += 1.0 - prob
    return wins, ties
