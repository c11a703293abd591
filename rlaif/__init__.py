"""AI feedback for preference learning: soft labels from a judge's log-probabilities, and what is built on them.

    judge = rlaif.Judge("openai:gpt-4.1-mini", task="helpfulness", constitution="helpful-harmless")
    judge.compare(prompt, response_a, response_b).prob_a
    judge.rate(prompt, response).reward
    dataset = rlaif.label(rows, judge, out="runs/first")
    report = rlaif.audit(dataset)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif.engine.auditing import audit
    from rlaif.engine.client import Judge, label, rate
    from rlaif.errors import RlaifError

__all__ = ["Judge", "RlaifError", "__version__", "audit", "label", "rate"]

_CLIENT = "rlaif.engine.client"
_HOMES = {
    "Judge": _CLIENT, "label": _CLIENT, "rate": _CLIENT,
    "audit": "rlaif.engine.auditing",
    "RlaifError": "rlaif.errors",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("rlaif")
    raise AttributeError(f"module 'rlaif' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
