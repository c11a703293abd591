"""The commands that judge rows, by name: their configuration and their `RunKind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rlaif.engine.config import LabelConfig, RateConfig, RunConfig
from rlaif.engine.labeling import LABELING
from rlaif.engine.rating import RATING
from rlaif.engine.running import RunKind


class Judged(NamedTuple):
    """A command's configuration class and kind of run."""

    config: type[RunConfig]
    kind: RunKind[Any, Any, Any]


KINDS: Mapping[str, Judged] = {"label": Judged(LabelConfig, LABELING), "rate": Judged(RateConfig, RATING)}

RUNS: Mapping[str, Judged] = {
    **KINDS,
    "calibrate": KINDS["label"],
    "reweight": KINDS["label"],
    "filter": KINDS["label"],
}
"""Every command that a folder of judged rows may come from: to `KINDS` it adds those that make new labels of old ones,
whose `run.json` holds the configuration of the run they took; of `rlaif filter` only where it took such a run."""


def is_label_run(known: Mapping[str, Any]) -> bool:
    """Whether a folder's rows and configuration are as of `rlaif label`.

    Args:
        known: Its `run.json`.
    """
    return RUNS.get(str(known.get("command"))) is KINDS["label"] and known.get("is_label_run") is not False
