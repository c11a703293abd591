"""What sways a judge besides the answer: the slot, the length, the formatting, words said to the judge. Pure.

Figures of one judge without people (`swap_statistics`, `first_slot_statistic`) ignore the rows' weights; those that
need a human label use them.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlaif.auditing.agreement import NO_HUMAN_LABELS, NO_VERDICTS, why_not_compared
from rlaif.auditing.intervals import Statistic, SumStatistic, mean_statistic, ratio_of_sums
from rlaif.auditing.results import Figure, Section
from rlaif.auditing.table import TIE, A, AuditTable, B, BoolArray, FloatArray, verdicts
from rlaif.records import TIE_BAND, Order

ONE_ORDER = "no row was judged in both orders"
ONLY_TIES = "the judge only says tie"

LEAST_ON_A_SIDE = 10
"""Rows from which an agreement has an interval worth comparing: resampling sees no spread in three that are right."""


def swap_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """What exchanging the slots does, on rows judged in both orders.

    Args:
        table: With `prob_a_ab` and `prob_a_ba`.
        tie_band: A probability this close to 0.5 is a tie.

    Returns:
        `swap_consistency` (the same verdict twice; tie is a verdict), `swap_consistency_without_ties` (rows with no
        tie in either order), `first_position_rate` (of all verdicts but ties, the share for the response shown
        first), `always_first_rate` and `always_second_rate` (one slot won both times).
    """
    ab, ba = verdicts(table.prob_a_ab, tie_band), verdicts(table.prob_a_ba, tie_band)
    both = np.isfinite(ab) & np.isfinite(ba)
    decided = both & (ab != TIE) & (ba != TIE)
    same = (ab == ba).astype(np.float64)
    first = np.stack([both & (ab == A), both & (ba == B)], axis=1).sum(axis=1)
    said = np.stack([both & (ab != TIE), both & (ba != TIE)], axis=1).sum(axis=1)
    why_decided = "every row judged in both orders has a tie" if both.any() else ONE_ORDER
    terms = np.stack([first, said], axis=1).astype(np.float64)
    return {
        "swap_consistency": mean_statistic(same, both, why=ONE_ORDER),
        "swap_consistency_without_ties": mean_statistic(same, decided, why=why_decided),
        "first_position_rate": SumStatistic(terms, ratio_of_sums, said > 0, why=ONLY_TIES if both.any() else ONE_ORDER),
        "always_first_rate": mean_statistic(((ab == A) & (ba == B)).astype(np.float64), both, why=ONE_ORDER),
        "always_second_rate": mean_statistic(((ab == B) & (ba == A)).astype(np.float64), both, why=ONE_ORDER),
    }


def two_order_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """Both orders against the human majority, three classes, on rows judged in both.

    Returns:
        `correct_in_both_orders` and `mean_accuracy_two_orders` (right verdicts over all verdicts).
    """
    ab, ba = verdicts(table.prob_a_ab, tie_band), verdicts(table.prob_a_ba, tie_band)
    both = np.isfinite(ab) & np.isfinite(ba)
    compared = both & np.isfinite(table.human)
    right = (ab == table.human).astype(np.float64) + (ba == table.human)
    why = ONE_ORDER if not both.any() else NO_HUMAN_LABELS
    return {
        "correct_in_both_orders": mean_statistic((right == 2).astype(np.float64), compared, table.weights, why=why),
        "mean_accuracy_two_orders": mean_statistic(right / 2, compared, table.weights, why=why),
    }


def first_slot_statistic(prob_a: FloatArray, order: Order, tie_band: float = TIE_BAND) -> Statistic:
    """`first_slot_rate` of one order: of its verdicts but ties, the share for the response shown first.

    Args:
        prob_a: In that order (N,).
        order: Which one.
        tie_band: A probability this close to 0.5 is a tie.
    """
    verdict = verdicts(prob_a, tie_band)
    decided = np.isfinite(verdict) & (verdict != TIE)
    first = verdict == (A if order is Order.AB else B)
    why = ONLY_TIES if np.isfinite(verdict).any() else NO_VERDICTS
    return mean_statistic(first.astype(np.float64), decided, why=why)


def length_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """How far the judge goes for the longer response (in characters).

    Returns:
        `length_bias.judge`, `.human`, `.difference` (share for the longer one, rows that both decided),
        `length_effect.longer`, `.shorter`, `.difference` (see `_effect`) and `human_prefers_longer` (rows that people
        decided, whatever the judge says).
    """
    more = np.sign(table.length_a - table.length_b).astype(np.float64)
    why = "the responses of every row are of the same length" if not more.any() else ""
    human_decided = np.isfinite(table.human) & (table.human != TIE) & (more != 0)
    prefers = ((table.human == A) == (more > 0)).astype(np.float64)
    return {
        **_bias("length_bias", table, more, tie_band, why),
        **_effect("length_effect", ("longer", "shorter"), table, more, tie_band, why),
        "human_prefers_longer": mean_statistic(
            prefers, human_decided, table.weights, why=why or _why_no_decision(table)
        ),
    }


def style_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """How far the judge goes for the response with more list items, headers and bold spans.

    Returns:
        `style_bias.judge`, `.human`, `.difference` and `style_effect.formatted`, `.plainer`, `.difference`, as for
        length.
    """
    more = np.sign(table.style_a.sum(axis=1) - table.style_b.sum(axis=1)).astype(np.float64)
    why = "" if more.any() else "the responses of every row are formatted alike"
    return {
        **_bias("style_bias", table, more, tie_band, why),
        **_effect("style_effect", ("formatted", "plainer"), table, more, tie_band, why),
    }


def addressed_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """How far the judge goes for a response that speaks to the judge, on rows where exactly one does.

    Returns:
        `addressed_bias.judge`, `.human`, `.difference` (which works where people never prefer such a response) and
        `addressed_effect.addressed`, `.other`, `.difference`.
    """
    more = table.addresses_judge_a.astype(np.float64) - table.addresses_judge_b
    why = "" if more.any() else "in no row exactly one response speaks to the judge"
    return {
        **_bias("addressed_bias", table, more, tie_band, why),
        **_effect("addressed_effect", ("addressed", "other"), table, more, tie_band, why),
    }


def nested(figures: Mapping[str, Figure]) -> Section:
    """Figures named "length_bias.judge" and the like, under one name each.

    >>> nested({"auc": (one := Figure(1.0, None, None, 3)), "length_bias.judge": one}).keys()
    dict_keys(['auc', 'length_bias'])
    """
    section: dict[str, Figure | dict[str, Figure]] = {}
    for name, figure in figures.items():
        head, _, rest = name.partition(".")
        if rest:
            inner = section.setdefault(head, {})
            assert isinstance(inner, dict), f"{head} is a figure and a group of figures"
            inner[rest] = figure
        else:
            section[head] = figure
    return section


def _both_decided(table: AuditTable, judge: FloatArray) -> BoolArray:
    human = table.human
    return np.asarray(np.isfinite(human) & np.isfinite(judge) & (human != TIE) & (judge != TIE))


def _why_no_decision(table: AuditTable) -> str:
    return "people call every such row a tie" if np.isfinite(table.human).any() else NO_HUMAN_LABELS


def _bias(name: str, table: AuditTable, more: FloatArray, tie_band: float, why: str) -> dict[str, Statistic]:
    """Share for the response that has more of something (`more` 1: A has, -1: B has, 0: row left out), by judge and by
    people, on rows that both decided."""
    judge = verdicts(table.prob_a, tie_band)
    counted = _both_decided(table, judge) & (more != 0)
    judge_for = ((judge == A) == (more > 0)).astype(np.float64)
    human_for = ((table.human == A) == (more > 0)).astype(np.float64)
    why = why or why_not_compared(table) or "no row where the responses differ in this was decided by both"
    difference = mean_statistic(judge_for - human_for, counted, table.weights, bounds=(-1.0, 1.0), why=why)
    return {
        f"{name}.judge": mean_statistic(judge_for, counted, table.weights, why=why),
        f"{name}.human": mean_statistic(human_for, counted, table.weights, why=why),
        f"{name}.difference": difference,
    }


def _effect(
    name: str, sides: tuple[str, str], table: AuditTable, more: FloatArray, tie_band: float, why: str
) -> dict[str, Statistic]:
    """Agreement where people prefer the response that has more of something, agreement where they prefer the other, and
    the first minus the second, on rows that both decided.

    A judge that errs at random, however often, has a difference of 0; one that only looks at this has 1. It takes
    `LEAST_ON_A_SIDE` rows of either kind.
    """
    judge = verdicts(table.prob_a, tie_band)
    counted = _both_decided(table, judge) & (more != 0)
    equal = (judge == table.human).astype(np.float64)
    prefers_more = (table.human == A) == (more > 0)
    why = why or why_not_compared(table)
    with_more = mean_statistic(
        equal, counted & prefers_more, table.weights, why=why or f"people never prefer the {sides[0]} response"
    )
    with_less = mean_statistic(
        equal, counted & ~prefers_more, table.weights, why=why or f"people never prefer the {sides[1]} response"
    )
    difference = SumStatistic(
        np.concatenate([with_more.terms, with_less.terms], axis=1),
        (lambda sums: ratio_of_sums(sums[..., :2]) - ratio_of_sums(sums[..., 2:]))
        if min(with_more.counted.sum(), with_less.counted.sum()) >= LEAST_ON_A_SIDE
        else (lambda sums: np.full(sums.shape[:-1], np.nan)),
        counted,
        (-1.0, 1.0),
        why
        or f"it takes {LEAST_ON_A_SIDE} rows where people prefer the {sides[0]} response, and as many where they "
        f"prefer the {sides[1]}",
    )
    return {
        f"{name}.{sides[0]}": with_more,
        f"{name}.{sides[1]}": with_less,
        f"{name}.difference": difference,
    }
