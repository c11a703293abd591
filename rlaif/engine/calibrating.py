"""The calibration that a run is given: read, doubted, and told of in `run.json`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif.engine.config import LabelConfig, RunConfig
from rlaif.errors import RunFolderError
from rlaif.judge.config import JudgeConfig

if TYPE_CHECKING:
    from rlaif.calibration import Calibration


def calibration_of(config: RunConfig) -> Calibration | None:
    """The calibration that a config names.

    Raises:
        InputError: It cannot be read.
    """
    if not isinstance(config, LabelConfig) or config.calibration is None:
        return None
    from rlaif.calibration import load_calibration  # with numpy, of which only this has need

    return load_calibration(Path(config.calibration))


def doubts(calibration: Calibration, judges: tuple[str, ...], judging: JudgeConfig, template: str | None) -> list[str]:
    """What makes a calibration doubtful for a run, a sentence each.

    Args:
        calibration: What was fitted, perhaps on another run.
        judges: Names of the run's judges.
        judging: What they are asked.
        template: Fingerprint of their prompt; None of reward models.
    """
    found = calibration.differences(judges, judging.task, template, judging.debias)
    return [f"the calibration was fitted on {each}; its numbers may not hold here" for each in found]


def calibration_facts(calibration: Calibration) -> dict[str, Any]:
    """What `run.json` tells of a calibration."""
    from rlaif.calibration import as_json

    return {**as_json(calibration), "fingerprint": calibration.fingerprint}


def calibration_in(known: Mapping[str, Any]) -> Calibration | None:
    """The calibration that a `run.json` tells of.

    Raises:
        RunFolderError: It cannot be read.
    """
    if (facts := known.get("calibration")) is None:
        return None
    from rlaif.calibration import from_json

    try:
        return from_json({name: value for name, value in facts.items() if name != "fingerprint"})
    except (ValueError, AttributeError) as error:
        raise RunFolderError(f"run.json: its calibration {error}; was it written by rlaif?") from error
