"""A whole audit and its rows, made up: for what shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif.auditing.results import (
    Against,
    Audit,
    CoveragePoint,
    ErrorCorrelation,
    Figure,
    Finding,
    LengthGapBin,
    PanelResult,
    ReliabilityBin,
)
from rlaif.records import Comparison, JudgedComparison, NamedLabel, SoftLabel, Turn, Verdict


def around(value: float, n: int = 400, half: float = 0.04) -> Figure:
    return Figure(value, value - half, value + half, n)


def missing(why: str = "no row has two votes") -> Figure:
    return Figure(None, None, None, 0, why)


def full_audit(**changes: Any) -> Audit:
    """An audit of a judge that favours length and the first slot; every part of it is filled."""
    figures = {
        "agreement": around(0.712),
        "agreement_human_decided": around(0.690),
        "agreement_with_ties": around(0.601),
        "cohen_kappa": around(0.421),
        "human_pairwise_agreement": around(0.74),
        "human_ceiling": around(0.803),
        "krippendorff_alpha": around(0.55),
        "fleiss_kappa": missing("rows have unequal numbers of votes"),
        "swap_consistency": around(0.664),
        "first_position_rate": around(0.621),
        "brier": around(0.213),
        "log_loss": around(0.62),
        "ece": around(0.094),
        "auc": around(0.76),
        "length_bias": {"judge": around(0.71), "human": around(0.58), "difference": around(0.13)},
    }
    orders = {
        "ab": {"agreement": around(0.70), "first_slot_rate": around(0.66)},
        "ba": {"agreement": around(0.69), "first_slot_rate": around(0.58)},
    }
    by = {"task": {"chat": {"agreement": around(0.75, 200)}, "code": {"agreement": around(0.67, 200)}}}
    probs = (0.05, 0.2, 0.4, 0.6, 0.8, 0.95)
    return Audit(
        **{
            "source": {"input": "runs/helpful", "judge": "builtin:tiny", "rows": 400, "rlaif": "0.1.0"},
            "counts": {"rows": 400, "human_decided": 380, "judge_ties": 3},
            "figures": figures,
            "orders": orders,
            "by": by,
            "confusion": ((150.0, 5.0, 45.0), (10.0, 1.0, 9.0), (50.0, 4.0, 126.0)),
            "reliability": tuple(
                ReliabilityBin(prob - 0.05, prob + 0.05, prob, around(0.5 + (prob - 0.5) * 0.7, 66, 0.1))
                for prob in probs
            ),
            "brier_decomposition": {"reliability": 0.02, "resolution": 0.05, "uncertainty": 0.25, "within_bins": 0.0},
            "coverage": tuple(
                CoveragePoint(kept / 10, 1 - kept / 20, around(0.9 - 0.019 * kept, 40 * kept)) for kept in range(1, 11)
            ),
            "length_gaps": tuple(
                LengthGapBin(gap - 0.2, gap + 0.2, gap, around(0.7 + 0.15 * gap, 80, 0.08))
                for gap in (-1.2, -0.5, -0.1, 0.2, 0.6, 1.4)
            ),
            "panel": PanelResult(
                {"one": around(0.7), "two": around(0.72)},
                around(1.4, half=0.2),
                around(0.41),
                (ErrorCorrelation("one", "two", around(0.41)),),
                around(0.7),
            ),
            "prediction_powered": {"agreement": around(0.70, 100), "win_rate": around(0.52, 400)},
            "against": Against("runs/other", around(0.71), around(0.68), around(0.03), 40, 28, 0.18, around(0.83), 2),
            "calibration": {"temperature": 1.8, "slot_bias": 0.4, "length_slope": 0.1, "why": None},
            "findings": (
                Finding("below-ceiling", "note", "The judge agrees with people in 71 % of the rows.", ""),
                Finding("first-slot", "warning", "It favours the first slot: 62 %.", "Ask in both orders."),
                Finding("longer-wins", "serious", "It favours the longer response.", "Fit a calibration."),
            ),
            **changes,
        }
    )


def row(
    name: str,
    *,
    prob_a: float | None = 0.9,
    orders: tuple[float | None, float | None] | None = None,
    human: str | None = "b",
    votes: Sequence[str] = (),
    prompt: str | Sequence[tuple[str, str]] = "Why is the sky blue?",
    responses: tuple[str, str] = ("Because it is.", "Light scatters on air."),
    **others: Any,
) -> JudgedComparison:
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else tuple(Turn(*turn) for turn in prompt)
    comparison = Comparison(
        name, turns, *responses,
        human_votes=tuple(Verdict(vote) for vote in votes),
        human_label=None if human is None else Verdict(human),
    )  # fmt: skip
    ab, ba = (prob_a, prob_a) if orders is None else orders
    return JudgedComparison(comparison, prob_a, ab, ba, cluster=name, **others)


def named(name: str, prob_a: float) -> NamedLabel:
    return NamedLabel(name, SoftLabel(prob_a, prob_a, None))
