"""Where the rewards of online training come from: what `--reward` says, and what is wrong with it. Nothing is opened
or imported here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal
from urllib.parse import urlsplit

from rlaif.errors import ConfigError, did_you_mean

SourceKind = Literal["judge", "reward-model", "server", "function"]

JUDGE = "judge"
_REWARD_MODEL = "hf-reward:"
_EXPECTED = "expected judge, the FOLDER of a reward model, http://HOST:PORT of an rlaif serve, or MODULE:FUNCTION"

_NAME = r"[^\W\d]\w*(?:\.[^\W\d]\w*)*"
_FUNCTION = re.compile(f"{_NAME}:{_NAME}")


@dataclass(frozen=True)
class RewardConfig:
    """What completions are rewarded by."""

    reward: tuple[str, ...] = (JUDGE,)
    """Where rewards come from: judge (the expected 1-10 score of --judge, mapped to [-1, 1]), FOLDER or
    hf-reward:FOLDER of a reward model, http://HOST:PORT of an rlaif serve, or MODULE:FUNCTION of Python, whose code is
    run (the module may lie in the working directory; rlaif.rewards.verifiers has number_match and exact_match). With
    a weight: 0.5*SPEC. Given more than once, the weighted sum."""

    judge_patience: Annotated[float, "at least 0"] = 300.0
    """Seconds that a judge that is down is waited for before training stops; the same command then resumes it."""

    def __post_init__(self) -> None:
        _ = self.specs

    @property
    def specs(self) -> tuple[RewardSpec, ...]:
        """`reward`, taken apart. Raises as `parse_rewards`."""
        return parse_rewards(self.reward)


@dataclass(frozen=True, slots=True)
class RewardSpec:
    """One source of rewards.

    Attributes:
        kind: What it is.
        target: The reward model's folder or name, the server's address, MODULE:FUNCTION, or "judge".
        weight: Of its rewards in the sum; finite and not 0.
        name: What it is called in scores, curves and messages; no two sources share one.
    """

    kind: SourceKind
    target: str
    weight: float
    name: str


def parse_rewards(texts: Sequence[str]) -> tuple[RewardSpec, ...]:
    """The sources that `--reward` names, in their order.

    Raises:
        ConfigError: Some cannot be understood, one is named twice, or there is none; all faults at once.
    """
    specs: list[RewardSpec] = []
    faults: list[str] = []
    for text in texts:
        try:
            specs.append(_parsed(text))
        except ValueError as fault:
            shown = re.sub(r"://.*[@?].*", "://...", text)  # what stands there may be secret
            faults.append(f"reward: {shown!r}: {fault}")
    names = [spec.name for spec in specs]
    for name in sorted({name for name in names if names.count(name) > 1}):
        faults.append(f"reward: {name} is named twice; give it one weight")
    if not texts:
        faults.append(f"reward: at least one is needed; {_EXPECTED}")
    if faults:
        raise ConfigError("; ".join(faults))
    return tuple(specs)


def _parsed(text: str) -> RewardSpec:
    before, star, after = text.partition("*")
    weight, source = (_weight(before), after) if star else (1.0, text)
    source = source.strip()
    if source == JUDGE:
        return RewardSpec("judge", JUDGE, weight, JUDGE)
    if source.startswith(("http://", "https://")):
        address = _address(source)
        return RewardSpec("server", address, weight, address)
    if source.startswith(_REWARD_MODEL):
        return _reward_model(source.removeprefix(_REWARD_MODEL), weight)
    if ".py:" in source:
        path, _, function = source.partition(".py:")
        module = path.removeprefix("./").replace("/", ".")
        raise ValueError(f"expected a module's name and not its file: {module}:{function}")
    if _is_judge(source):
        raise ValueError(f"a judge is named by --judge {source} and asked by --reward judge")
    if _FUNCTION.fullmatch(source):
        return RewardSpec("function", source, weight, source)
    if "/" in source or os.path.isdir(source):
        return _reward_model(source, weight)
    raise ValueError(f"{'no source of rewards' if source else 'names no source'}{did_you_mean(source, [JUDGE])}; "
                     f"{_EXPECTED}")  # fmt: skip


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        raise ValueError(f"the weight is {text!r}, expected a number: 0.5*SPEC") from None
    if weight == 0 or not math.isfinite(weight):
        raise ValueError(f"the weight is {text.strip()}, expected a finite number other than 0")
    return weight


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_usable = False
    if not is_usable:
        raise ValueError("expected an address such as http://127.0.0.1:8400")
    if parts.username or parts.password or parts.query:
        raise ValueError("holds a name, password or query; put the token of the server in RLAIF_TOKEN instead")
    return url.rstrip("/").removesuffix("/score")


def _reward_model(target: str, weight: float) -> RewardSpec:
    if not target:
        raise ValueError("names no folder: hf-reward:FOLDER")
    return RewardSpec("reward-model", target, weight, _REWARD_MODEL + target)


def _is_judge(source: str) -> bool:
    from rlaif.backends.registry import check_spec

    try:
        check_spec(source)
    except (ConfigError, ImportError):
        return False
    return True
