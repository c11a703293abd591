"""A judge's calibration: three numbers fitted to human labels, how they change a probability, and the file they stand
in. Pure but for reading and writing that file; `rlaif.auditing.fitting` fits them.

    logit p'_ab = logit(p_ab) / T - b + k * ln((length_a + 1) / (length_b + 1))
    logit p'_ba = logit(p_ba) / T + b + k * ln((length_a + 1) / (length_b + 1))

with both p's P(A preferred), clipped to [1e-4, 1 - 1e-4]. There is no intercept for A, so exchanging A and B turns p'
into 1 - p'.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from rlaif.errors import InputError, RunFolderError, did_you_mean
from rlaif.records import Order

FloatArray: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "float | NDArray[np.float64] | NDArray[np.int64]"

CLIP = 1e-4
"""Probabilities are kept this far from 0 and 1 before their logit is taken."""

_KIND, _VERSION = "rlaif-calibration", 1


@dataclass(frozen=True)
class FittedOn:
    """Where a calibration comes from.

    Attributes:
        rows: Rows with a human label behind it.
        judges: `BACKEND:MODEL` of the judge, or of each of a panel; empty when not known.
        task, template: Name of the task, and SHA-256 of its template; None when not known.
        debias: How the orders were averaged.
        folds: Of the cross-validation.
        before, after: `brier`, `log_loss` and `ece` out of fold, without and with the calibration.
    """

    rows: int
    judges: tuple[str, ...] = ()
    task: str | None = None
    template: str | None = None
    debias: str | None = None
    folds: int | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    after: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Calibration:
    """What makes a judge's probabilities fit people's.

    Attributes:
        temperature: T above 0; over 1 draws probabilities towards 0.5, under 1 pushes them away from it.
        slot_bias: b, logits taken from whichever response stands first; above 0 for a judge that favours that slot.
        length_slope: k, logits a response gets for each ln of how many times longer it is; below 0 for a judge that
            favours the longer one more than people do.
        fitted_on: Where it comes from; changes no value. None when not known.

    Raises:
        ValueError: A number is not finite, or the temperature not above 0.
    """

    temperature: float = 1.0
    slot_bias: float = 0.0
    length_slope: float = 0.0
    fitted_on: FittedOn | None = None

    def __post_init__(self) -> None:
        for name, value in self.parameters.items():
            if not math.isfinite(value):
                raise ValueError(f"{name} is {value}, expected a finite number")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}, expected a number above 0")

    @property
    def parameters(self) -> dict[str, float]:
        """The three numbers by name."""
        return {
            "temperature": self.temperature,
            "slot_bias": self.slot_bias,
            "length_slope": self.length_slope,
        }

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what changes a value: the three numbers, and not where they come from."""
        content = json.dumps(
            {name: float(value) + 0.0 for name, value in self.parameters.items()},  # 1 and 1.0, -0.0 and 0.0 are equal
            sort_keys=True,
            separators=(",", ":"),
        )
        return hashlib.sha256(content.encode()).hexdigest()

    def differences(
        self, judges: tuple[str, ...] = (), task: str | None = None, template: str | None = None, debias: str = ""
    ) -> tuple[str, ...]:
        """How a run differs from what this was fitted on, as far as both are known: "judge a, not b" and the like.

        Args:
            judges, task, template, debias: The run's, as in `FittedOn`.
        """
        known = self.fitted_on
        if known is None:
            return ()
        found = []
        if known.judges and judges and sorted(known.judges) != sorted(judges):
            found.append(f"judge {', '.join(known.judges)}, not {', '.join(judges)}")
        if known.template and template and known.template != template:
            names = f" {known.task}, not {task}" if known.task and task and known.task != task else ""
            found.append(f"another prompt template (task{names})" if names else "another prompt template")
        if known.debias and debias and known.debias != debias:
            found.append(f"--debias {known.debias}, not {debias}")
        return tuple(found)


def length_ratio(length_a: Numbers, length_b: Numbers) -> FloatArray:
    """ln((length_a + 1) / (length_b + 1)), lengths in characters; above 0 where A is the longer."""
    return np.asarray(np.log1p(length_a) - np.log1p(length_b), dtype=np.float64)


def clipped_logit(prob: Numbers) -> FloatArray:
    """Logit of a probability kept `CLIP` away from 0 and 1; NaN stays NaN."""
    kept = np.clip(np.asarray(prob, dtype=np.float64), CLIP, 1.0 - CLIP)
    return np.asarray(np.log(kept) - np.log1p(-kept))


def calibrated(
    prob_a: Numbers, order: Order, length_a: Numbers, length_b: Numbers, calibration: Calibration
) -> FloatArray:
    """P(A preferred) in one order, calibrated.

    Args:
        prob_a: P(A preferred) with the responses in this order, in [0, 1]; NaN (not asked) stays NaN. A number, or an
            array.
        order: Which response stood first.
        length_a, length_b: Characters.
        calibration: What to apply.

    Returns:
        In [0, 1], of the shape of the arguments. The orders are averaged after this, as the run averages them.

    Source: temperature, Guo et al., "On Calibration of Modern Neural Networks", arXiv:1706.04599, section 4.2; a
    shift of the logits by slot and by length is ours.

    >>> round(float(calibrated(0.9, Order.AB, 10, 10, Calibration(temperature=2.0))), 6)  # odds 9 become sqrt(9) = 3
    0.75
    """
    shift = -calibration.slot_bias if order is Order.AB else calibration.slot_bias
    lengths = calibration.length_slope * length_ratio(length_a, length_b)
    return sigmoid(clipped_logit(prob_a) / calibration.temperature + shift + lengths)


def sigmoid(logit: FloatArray) -> FloatArray:
    """1 / (1 + exp(-logit)), without overflow at either end; NaN stays NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.exp(-np.logaddexp(0.0, -logit)))


# --- the file ---------------------------------------------------------------------------------------------------------


def as_json(calibration: Calibration) -> dict[str, Any]:
    """A calibration as JSON values: what `load_calibration` reads, and what `run.json` tells."""
    content: dict[str, Any] = {"kind": _KIND, "version": _VERSION, **calibration.parameters}
    if (origin := calibration.fitted_on) is not None:
        content["fitted_on"] = {**dataclasses.asdict(origin), "judges": list(origin.judges)}
    return content


def save_calibration(calibration: Calibration, path: Path) -> None:
    """Write a calibration to a .json file, in one step.

    Raises:
        RunFolderError: It cannot be written.
    """
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(as_json(calibration), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be written ({error.strerror})") from error


def load_calibration(path: Path) -> Calibration:
    """Read a calibration.

    Raises:
        InputError: It cannot be read, or is not what `rlaif audit --fit-calibration` writes.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); expected a calibration", path=str(path)) from error
    except ValueError as error:
        raise InputError(f"is no JSON ({error}); expected a calibration", path=str(path)) from error
    try:
        return from_json(content)
    except (ValueError, OverflowError) as error:  # of a whole number that no float can hold
        raise InputError(f"{error}; rlaif audit --fit-calibration writes such a file", path=str(path)) from error


def from_json(content: object) -> Calibration:
    """A calibration out of its JSON values: what `as_json` made.

    Raises:
        ValueError: They are none.
    """
    if not isinstance(content, Mapping) or content.get("kind") != _KIND:
        raise ValueError(f"is no calibration: expected an object with kind {_KIND!r}")
    if content.get("version") != _VERSION:
        raise ValueError(f"version is {content.get('version')!r}, expected {_VERSION}: made by another rlaif")
    parameters = ("temperature", "slot_bias", "length_slope")
    _refuse_unknown(content, ("kind", "version", *parameters, "fitted_on"))
    for name in parameters:
        _expect(content, name, (int, float), "a number")
    origin = content.get("fitted_on")
    temperature, slot_bias, length_slope = (float(content[name]) for name in parameters)
    return Calibration(temperature, slot_bias, length_slope, None if origin is None else _origin_from_json(origin))


def _origin_from_json(content: object) -> FittedOn:
    if not isinstance(content, Mapping):
        raise ValueError(f"fitted_on is {content!r}, expected an object")
    _refuse_unknown(content, tuple(item.name for item in dataclasses.fields(FittedOn)))
    _expect(content, "rows", (int,), "a whole number")
    judges = content.get("judges", [])
    if not isinstance(judges, list) or not all(isinstance(judge, str) for judge in judges):
        raise ValueError(f"judges is {judges!r}, expected a list of names")
    return FittedOn(**{**content, "judges": tuple(judges)})


def _refuse_unknown(content: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for name in content:
        if name not in known:
            raise ValueError(f"{name!r} is an unknown key{did_you_mean(str(name), known)}; known: {', '.join(known)}")


def _expect(content: Mapping[str, Any], name: str, types: tuple[type, ...], expected: str) -> None:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, types):
        found = repr(value) if name in content else "missing"
        raise ValueError(f"{name} is {found}, expected {expected}")
