"""Where the rows that a model is trained on come from: what a run folder says of its judge and its prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlaif.engine.run_folder import RunFolder, run_fingerprint


@dataclass(frozen=True, slots=True)
class DataOrigin:
    """A run whose labels or ratings are trained on.

    Attributes:
        command: What made it: label, rate, calibrate, reweight.
        run_id: SHA-256 of what decided its labels and how many there are.
        status: "finished", or how far it came.
        judges: `BACKEND:MODEL` of each.
        is_demonstration: Whether a judge is the one that ships, whose labels are for trying things out.
        task, template: Name and fingerprint of the prompt.
        constitution, constitution_fingerprint: Name and fingerprint; None without one.
        is_calibrated: Whether the labels were calibrated to people's.
        failures: Rows of the run's input that have no label.
    """

    command: str
    run_id: str
    status: str
    judges: tuple[str, ...]
    is_demonstration: bool
    task: str
    template: str
    constitution: str | None = None
    constitution_fingerprint: str | None = None
    is_calibrated: bool = False
    failures: int = 0


def origin_of(data: str) -> DataOrigin | None:
    """What the run folder at a path says of itself; None for anything else.

    Raises:
        RunFolderError: Its run.json is damaged.
    """
    path = Path(data).expanduser()
    known = RunFolder(path, "label").read() if (path / "run.json").is_file() else None
    if known is None or not {"command", "decisive", "counts", "judges"} <= known.keys():
        return None
    decisive, judging = known["decisive"], known.get("config", {}).get("judging", {})
    return DataOrigin(
        command=str(known["command"]),
        run_id=run_fingerprint(known),
        status=str(known.get("status")),
        judges=tuple(str(judge.get("name")) for judge in known["judges"]),
        is_demonstration=any(judge.get("is_demonstration") is True for judge in known["judges"]),
        task=_text(judging, "task") or "unknown",
        template=_text(decisive, "task") or "unknown",
        constitution=_text(judging, "constitution"),
        constitution_fingerprint=_text(decisive, "constitution"),
        is_calibrated=known.get("calibration") is not None,
        failures=int(known["counts"].get("failures") or 0),
    )


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    return None if value is None else str(value)
