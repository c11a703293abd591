"""How two policies, A and B, stand against each other by a judge's verdicts on their responses to the same prompts.
Pure: judged comparisons in, figures with intervals out. Who judged them, and who wrote the responses, is told elsewhere
(`rlaif.engine.evaluation`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlaif.auditing.bias import ONE_ORDER, nested, swap_statistics
from rlaif.auditing.controlled import Needed, controlled_share
from rlaif.auditing.intervals import Statistic, estimate, mean_statistic, wilson_interval
from rlaif.auditing.prediction_powered import prediction_powered
from rlaif.auditing.results import Figure, Section
from rlaif.auditing.table import TIE, A, AuditTable, B, BoolArray, FloatArray, build_table, verdicts
from rlaif.records import TIE_BAND, JudgedComparison

RESAMPLES = 2000

NOT_ASKED = "the judge was not asked whether single responses are harmless; add --harmless"
NO_HUMAN_LABELS = "no row has a human label"

_NEEDED = Needed("judged rows", "rows where A's response is {} than B's, or as long")


class HarmlessPair(NamedTuple):
    """P(harmless) of the two responses of a comparison, each judged alone, in [0, 1]."""

    prob_a: float
    prob_b: float


def figures_of(
    judged: Sequence[JudgedComparison],
    harmless: Sequence[HarmlessPair] | None = None,
    *,
    tie_band: float = TIE_BAND,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Section:
    """Every figure of an evaluation, with 95 % intervals clustered by `JudgedComparison.cluster`.

    Args:
        judged: Response A is policy A's, response B is policy B's. A row whose `prob_a` is None is in no figure of
            the judge's.
        harmless: One for each row, in the same order; None where nobody was asked.
        tie_band: A probability this close to 0.5 is a tie.
        resamples, seed: Of the bootstrap behind the intervals.

    Returns:
        Each a `Figure`, or several under one name. Exchanging A and B turns every share r marked * into 1 - r, and
        the sign of every difference:

        - `win_rate`*: share of rows where A is preferred; a tie counts half.
        - `mean_prob_a`*: mean of P(A preferred), the judge's doubt included.
        - `win_rate_swap_consistent`*: as `win_rate`, where only a verdict that is the same in both orders counts and
          any other row counts half; rows judged in both orders, and identical responses.
        - `win_rate_length_controlled`*: the prediction of a logistic regression of the verdict on ln(characters of A /
          characters of B) at 0 (1 is added to each length); rows where A is longer and rows where B is weigh the same
          (`_overlap_weights`), and the slope has a mild penalty (`controlled.py`).
        - `win_rate_length_ratio`: the same on the plain ratio, read at 1 and fitted as it is, for parity with the
          paper; not antisymmetric.
        - `harmless_rate`, `harmless_prob`: `a`, `b`, `difference` (A - B): share of responses with P(harmless) above
          0.5, and its mean.
        - `win_rate_human`*, `win_rate_prediction_powered`*: by people's labels (weighted), and by these and all of the
          judge's (`prediction_powered.py`).
        - `swap_consistency`, `first_position_rate`: as in an audit.
        - `mean_length`: `a`, `b`, `difference`, in characters; `longer_rate`*: share of rows where A's response is
          longer, equal ones count half.

    Source: Lee et al., RLAIF, arXiv:2309.00267, section 2.3 (win rate, harmless rate), appendix J (control for
    length); the log ratio, its weights, and that both orders must agree, are ours.
    """
    table = build_table(judged)
    figures = estimate(_statistics(table, harmless, tie_band), table.clusters, resamples=resamples, seed=seed)
    for name, values in _harmless_values(harmless).items():
        if len(values) and not (values[:, 0] - values[:, 1]).any():
            figures[f"{name}.difference"] = _without_any(len(values), len(np.unique(table.clusters)))
    for name in ("mean_length.a", "mean_length.b"):
        if (low := figures[name].low) is not None:
            figures[name] = replace(figures[name], low=max(0.0, low))
    controlled = _length_controlled(table, tie_band)
    powered = prediction_powered(table, tie_band=tie_band)["win_rate"]
    assert isinstance(powered, Figure)
    if not np.isfinite(table.human).any():
        powered = Figure(None, None, None, 0, NO_HUMAN_LABELS)
    found = nested({**figures, **controlled, "win_rate_prediction_powered": powered})
    return {name: found[name] for name in FIGURES}


FIGURES = (
    "win_rate", "mean_prob_a", "win_rate_swap_consistent", "win_rate_length_controlled", "win_rate_length_ratio",
    "win_rate_human", "win_rate_prediction_powered", "harmless_rate", "harmless_prob", "swap_consistency",
    "first_position_rate", "mean_length", "longer_rate",
)  # fmt: skip
"""In the order in which they are reported."""

MIRRORED = (
    "win_rate", "mean_prob_a", "win_rate_swap_consistent", "win_rate_length_controlled", "win_rate_human",
    "win_rate_prediction_powered", "longer_rate",
)  # fmt: skip
"""Shares that exchanging A and B turns into 1 - share."""


def counts_of(judged: Sequence[JudgedComparison], *, tie_band: float = TIE_BAND) -> Mapping[str, int]:
    """Rows by what the judge made of them.

    Returns:
        `rows`, `prompts` (clusters), `wins_a`, `ties`, `wins_b`, `identical` (the same response twice; a tie),
        `rows_judged_both_orders`, `rows_with_human_label`.
    """
    table = build_table(judged)
    verdict = verdicts(table.prob_a, tie_band)
    both, _ = _asked(table)
    identical = [each.comparison.response_a == each.comparison.response_b for each in judged]
    counted: Mapping[str, BoolArray] = {
        "wins_a": verdict == A,
        "ties": verdict == TIE,
        "wins_b": verdict == B,
        "identical": np.array(identical, dtype=np.bool_),
        "rows_judged_both_orders": both,
        "rows_with_human_label": np.isfinite(table.human),
    }
    return {
        "rows": len(table),
        "prompts": len(np.unique(table.clusters)),
        **{name: int(np.count_nonzero(rows)) for name, rows in counted.items()},
    }


def _statistics(table: AuditTable, harmless: Sequence[HarmlessPair] | None, tie_band: float) -> Mapping[str, Statistic]:
    """The figures that are sums over rows, under the names of `nested`."""
    verdict = verdicts(table.prob_a, tie_band)
    is_judged = np.isfinite(verdict)
    both, untouched = _asked(table)
    in_ab, in_ba = verdicts(table.prob_a_ab, tie_band), verdicts(table.prob_a_ba, tie_band)
    swap = swap_statistics(table, tie_band)
    lengths = _pair(table.length_a.astype(np.float64), table.length_b.astype(np.float64))
    everywhere = np.ones(len(table), dtype=np.bool_)
    longer = (1.0 + np.sign(table.length_a - table.length_b)) / 2
    return {
        "win_rate": mean_statistic(verdict, is_judged),
        "mean_prob_a": mean_statistic(table.prob_a, is_judged),
        "win_rate_swap_consistent": mean_statistic(
            np.where(both & (in_ab == in_ba), in_ab, TIE), both | untouched, why=ONE_ORDER
        ),
        "win_rate_human": mean_statistic(table.human, np.isfinite(table.human), table.weights, why=NO_HUMAN_LABELS),
        **_harmless_statistics(len(table), harmless),
        "swap_consistency": swap["swap_consistency"],
        "first_position_rate": swap["first_position_rate"],
        **{f"mean_length.{name}": mean_statistic(each, everywhere, bounds=None) for name, each in lengths.items()},
        "longer_rate": mean_statistic(longer, everywhere),
    }


def _harmless_values(harmless: Sequence[HarmlessPair] | None) -> Mapping[str, FloatArray]:
    """Figure -> what each row adds to it, of A and of B (N, 2)."""
    probs = np.array(harmless or [], dtype=np.float64).reshape(-1, 2)
    return {"harmless_rate": (probs > 0.5).astype(np.float64), "harmless_prob": probs}


def _harmless_statistics(count: int, harmless: Sequence[HarmlessPair] | None) -> Mapping[str, Statistic]:
    if harmless is not None and len(harmless) != count:
        raise ValueError(f"harmless holds {len(harmless)} pairs, expected one for each of {count} rows")
    asked = np.full(count, harmless is not None)
    found: dict[str, Statistic] = {}
    for name, values in _harmless_values(harmless).items():
        known = values if len(values) else np.zeros((count, 2))
        for part, each in _pair(known[:, 0], known[:, 1]).items():
            bounds = (-1.0, 1.0) if part == "difference" else (0.0, 1.0)
            found[f"{name}.{part}"] = mean_statistic(each, asked, bounds=bounds, why=NOT_ASKED)
    return found


def _without_any(count: int, clusters: int) -> Figure:
    """A difference that is 0 in every row. Resampling has no spread there: what such rows leave room for is that A and
    B differ on as many prompts as Wilson's interval of none has, one way or the other."""
    reach = wilson_interval(0.0, clusters)[1]
    return Figure(0.0, -reach, reach, count)


def _pair(a: FloatArray, b: FloatArray) -> Mapping[str, FloatArray]:
    return {"a": a, "b": b, "difference": a - b}


def _asked(table: AuditTable) -> tuple[BoolArray, BoolArray]:
    """Rows judged in both orders, and rows with a label that no order was asked for: identical responses."""
    ab, ba = np.isfinite(table.prob_a_ab), np.isfinite(table.prob_a_ba)
    return ab & ba, np.isfinite(table.prob_a) & ~ab & ~ba


def _length_controlled(table: AuditTable, tie_band: float) -> Mapping[str, Figure]:
    judged = table.take(np.isfinite(table.prob_a))
    verdict = verdicts(judged.prob_a, tie_band)
    ratio = (judged.length_a + 1) / (judged.length_b + 1)
    weights = _overlap_weights(np.log(ratio)) if len(judged) else None
    return {
        "win_rate_length_controlled": controlled_share(
            verdict, np.log(ratio)[:, None], judged.clusters, weights, needed=_NEEDED, is_balanced=False
        ),
        "win_rate_length_ratio": controlled_share(
            verdict, ratio[:, None] - 1.0, judged.clusters, needed=_NEEDED, is_balanced=False
        ),
    }


def _overlap_weights(difference: FloatArray) -> FloatArray:
    """Weights under which rows where A is longer and rows where B is, by as much, count the same.

    A policy that writes longer responses is longer by more where it is longer; without weights, those rows decide how
    steep the regression is, and a judge that always picks the longer response drags its prediction at 0 along. Where
    the regression's model holds, weights that depend on the difference alone change nothing but the noise.

    Args:
        difference: Of lengths (N,), above 0 where A is longer.

    Returns:
        P(the other one is longer | the size of the difference), from a logistic regression on the size and its
        square; 0.5 where there is no difference (N,).

    Source: Li, Morgan and Zaslavsky, "Balancing covariates via propensity score weighting", Journal of the American
    Statistical Association 113 (2018); that it is the size of the difference which is balanced is ours.
    """
    from sklearn.linear_model import LogisticRegression

    is_longer, differs = difference > 0, difference != 0
    weights = np.full(len(difference), 0.5)
    if len(np.unique(is_longer[differs])) < 2:
        return weights
    size = np.abs(difference[differs])
    features = np.stack([size / size.mean(), (size / size.mean()) ** 2], axis=1)
    model = LogisticRegression(C=1e3, solver="newton-cholesky", tol=1e-8, max_iter=200)
    share = model.fit(features, is_longer[differs]).predict_proba(features)[:, 1]
    weights[differs] = np.where(is_longer[differs], 1.0 - share, share)
    return weights
