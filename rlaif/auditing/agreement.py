"""How often a judge agrees with people, and people with each other: statistics of a table. Pure.

Three classes everywhere: a, tie, b. Every row weighs 1 / (probability with which people were asked about it).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from rlaif.auditing.intervals import Statistic, SumStatistic, mean_statistic, ratio_of_sums
from rlaif.auditing.table import TIE, AuditTable, BoolArray, FloatArray, IntArray, verdicts
from rlaif.records import TIE_BAND

CLASSES = ("a", "tie", "b")
"""Order of the classes in votes, confusion counts and everything else with three columns."""

NO_HUMAN_LABELS = "there are no human labels"
NO_VERDICTS = "the judge gave no verdict"
NO_PAIRS = "no row has two human votes or more"

_LEAST = 1e-12
"""What is left of a denominator when it is zero but for rounding."""


def judge_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """The judge against the human majority; a row without either counts nowhere.

    Args:
        table: Its `prob_a` is what the judge says.
        tie_band: A probability this close to 0.5 is a tie.

    Returns:
        `agreement` (neither says tie), `agreement_human_decided` (people do not; a judge's tie is wrong),
        `agreement_tie_half` (the same; a judge's tie is half right), `agreement_with_ties` (three classes),
        `cohen_kappa` and `gwet_ac1` (chance-corrected, on the same rows as the one before).

    Sources: Cohen, "A coefficient of agreement for nominal scales", Educational and Psychological Measurement 20
    (1960); Gwet, "Computing inter-rater reliability and its variance in the presence of high agreement", British
    Journal of Mathematical and Statistical Psychology 61 (2008).
    """
    human, judge = table.human, verdicts(table.prob_a, tie_band)
    both = np.isfinite(human) & np.isfinite(judge)
    decided = both & (human != TIE)
    both_decided = decided & (judge != TIE)
    equal = (human == judge).astype(np.float64)
    half = np.where(judge == TIE, 0.5, equal)
    why = why_not_compared(table)
    why_decided = why or ("" if decided.any() else "people call every row a tie")
    counts = confusion_terms(human, judge, np.where(both, table.weights, 0.0))
    kappa = SumStatistic(counts, _cohen_kappa, both, (-1.0, 1.0), why or "people and judge say the same of every row")
    ac1 = replace(kappa, of_sums=lambda sums: _gwet_ac1(sums, _class_count(counts)), why=why)
    return {
        "agreement": mean_statistic(equal, both_decided, table.weights, why=why_decided or "the judge only says tie"),
        "agreement_human_decided": mean_statistic(equal, decided, table.weights, why=why_decided),
        "agreement_tie_half": mean_statistic(half, decided, table.weights, why=why_decided),
        "agreement_with_ties": mean_statistic(equal, both, table.weights, why=why),
        "cohen_kappa": kappa,
        "gwet_ac1": ac1,
    }


def human_statistics(table: AuditTable, tie_band: float = TIE_BAND) -> dict[str, Statistic]:
    """People among themselves, from their single votes.

    Args:
        table: With `votes`.
        tie_band: A probability this close to 0.5 is a tie.

    Returns:
        `human_pairwise_agreement` and `human_pairwise_agreement_without_ties` (share of equal pairs of annotators of a
        row), `unanimous_rate`, `krippendorff_alpha` (nominal; these on rows with two votes or more), `fleiss_kappa`
        (where each of those rows has as many), `human_ceiling` (one annotator against the strict plurality of the
        row's others, each in turn; where the others have none the turn does not count), and `against_rest.annotator`,
        `.judge`, `.difference`: the annotator left out, and the judge, against the same others. Unlike the ceiling
        and `agreement_with_ties`, those can be compared, as both face the same votes.

    Sources: Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), nominal data with missing values;
    Fleiss, "Measuring nominal scale agreement among many raters", Psychological Bulletin 76 (1971).
    """
    votes, weights = table.votes.astype(np.float64), table.weights
    asked = votes.sum(axis=1)
    paired = asked >= 2
    why = "" if (asked > 0).any() else "there are no human votes, only labels"
    if not np.isfinite(table.human).any() and why:
        why = NO_HUMAN_LABELS
    why = why or NO_PAIRS
    equal_pairs = (votes * (votes - 1)).sum(axis=1) / 2
    pairs = asked * (asked - 1) / 2
    decided = votes[:, 0] + votes[:, 2]
    equal_decided = equal_pairs - votes[:, 1] * (votes[:, 1] - 1) / 2
    unanimous = (votes.max(axis=1, initial=0) == asked).astype(np.float64)
    return {
        "human_pairwise_agreement": _ratio(equal_pairs, pairs, paired, weights, why),
        "human_pairwise_agreement_without_ties": _ratio(
            equal_decided, decided * (decided - 1) / 2, decided >= 2, weights, why
        ),
        "unanimous_rate": mean_statistic(unanimous, paired, weights, why=why),
        "krippendorff_alpha": _alpha_statistic(votes, paired, weights, why),
        "fleiss_kappa": _fleiss_statistic(votes, weights, why),
        **_left_out_statistics(table, verdicts(table.prob_a, tie_band), why),
    }


def why_not_compared(table: AuditTable) -> str:
    """What is missing for comparing judge and people at all; "" when nothing is."""
    human, judge = np.isfinite(table.human), np.isfinite(table.prob_a)
    if not human.any():
        return NO_HUMAN_LABELS
    if not judge.any():
        return NO_VERDICTS
    return "" if (human & judge).any() else "no row has both a human label and a verdict of the judge"


def confusion_terms(human: FloatArray, judge: FloatArray, weights: FloatArray) -> FloatArray:
    """What each row adds to the 3 x 3 counts of human majority (rows) by judge's verdict (columns): (N, 9)."""
    terms = np.zeros((len(human), 9))
    known = np.flatnonzero(np.isfinite(human) & np.isfinite(judge))
    cell = 3 * _class_of(human[known]) + _class_of(judge[known])
    terms[known, cell] = weights[known]
    return terms


def left_out_pairs(votes: IntArray) -> IntArray:
    """Votes whose row's other votes have a strict plurality: (N,), how many of each row."""
    return np.asarray(sum(vote * (rest >= 0) for vote, rest in _turns(votes)), dtype=np.int64)


def _class_of(verdict: FloatArray) -> IntArray:
    return np.rint(2 - 2 * verdict).astype(np.int64)


def _ratio(top: FloatArray, bottom: FloatArray, counted: BoolArray, weights: FloatArray, why: str) -> SumStatistic:
    weight = np.where(counted, weights, 0.0)
    return SumStatistic(np.stack([top * weight, bottom * weight], axis=1), ratio_of_sums, counted, why=why)


def _over(top: FloatArray, bottom: FloatArray) -> FloatArray:
    """Division; NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(bottom > _LEAST, top / bottom, np.nan))


def _cohen_kappa(sums: FloatArray) -> FloatArray:
    counts = sums.reshape(*sums.shape[:-1], 3, 3)
    total = counts.sum(axis=(-2, -1))
    observed = _over(np.trace(counts, axis1=-2, axis2=-1), total)
    expected = _over((counts.sum(axis=-1) * counts.sum(axis=-2)).sum(axis=-1), total**2)
    return _over(observed - expected, 1.0 - expected)


def _gwet_ac1(sums: FloatArray, classes: int) -> FloatArray:
    counts = sums.reshape(*sums.shape[:-1], 3, 3)
    total = counts.sum(axis=(-2, -1))
    observed = _over(np.trace(counts, axis1=-2, axis2=-1), total)
    shares = _over((counts.sum(axis=-1) + counts.sum(axis=-2)) / 2, total[..., None])
    expected = (shares * (1.0 - shares)).sum(axis=-1) / (classes - 1)
    return _over(observed - expected, 1.0 - expected)


def _class_count(terms: FloatArray) -> int:
    """Classes in use: 3 where people or judge say tie of any row, else 2.

    AC1 takes the chance of agreement from the number of classes; a tie that nobody may say is not one of them.
    """
    counts = terms.sum(axis=0).reshape(3, 3)
    return 3 if counts[1].sum() + counts[:, 1].sum() > 0 else 2


def _alpha_statistic(votes: FloatArray, paired: BoolArray, weights: FloatArray, why: str) -> SumStatistic:
    asked = votes.sum(axis=1)
    # Alpha corrects for the number of votes (n - 1): weights of mean 1 leave that number what it is.
    weight = np.where(paired, weights / (weights[paired].mean() if paired.any() else 1.0), 0.0)
    unequal_pairs = asked**2 - (votes**2).sum(axis=1)
    disagreement = unequal_pairs / np.maximum(asked - 1, 1)
    terms = np.column_stack([disagreement, votes]) * weight[:, None]
    if paired.any():
        why = "all votes are the same"
    return SumStatistic(terms, _krippendorff_alpha, paired, (-1.0, 1.0), why)


def _krippendorff_alpha(sums: FloatArray) -> FloatArray:
    observed, votes = sums[..., 0], sums[..., 1:]
    total = votes.sum(axis=-1)
    expected = total**2 - (votes**2).sum(axis=-1)
    return np.asarray(1.0 - _over((total - 1) * observed, expected))


def _fleiss_statistic(votes: FloatArray, weights: FloatArray, why: str) -> SumStatistic:
    asked = votes.sum(axis=1)
    counted = asked >= 2
    sizes = np.unique(asked[counted])
    if len(sizes) > 1:
        counted = np.zeros(len(votes), dtype=np.bool_)
        why = f"rows have from {sizes[0]:.0f} to {sizes[-1]:.0f} human votes; it takes as many on every row"
    elif len(sizes) == 1:
        why = "all votes are the same"
    weight = np.where(counted, weights, 0.0)
    pairs = np.maximum(asked * (asked - 1), 1)
    terms = np.column_stack([(votes * (votes - 1)).sum(axis=1) / pairs, votes / np.maximum(asked, 1)[:, None]])
    return SumStatistic(terms * weight[:, None], _fleiss_kappa, counted, (-1.0, 1.0), why)


def _fleiss_kappa(sums: FloatArray) -> FloatArray:
    total = sums[..., 1:].sum(axis=-1)
    observed = _over(sums[..., 0], total)
    expected = _over((sums[..., 1:] ** 2).sum(axis=-1), total**2)
    return _over(observed - expected, 1.0 - expected)


def _turns(votes: IntArray) -> list[tuple[IntArray, IntArray]]:
    """For each class: how many said it (N,), and the class that the strict plurality of a row's votes says when one of
    those is left out (N,); -1 where nobody said it or the rest has no strict plurality."""
    turns = []
    for index in range(3):
        rest = votes - np.eye(3, dtype=np.int64)[index]
        ordered = np.sort(rest, axis=1)
        is_strict = (votes[:, index] > 0) & (ordered[:, 2] > ordered[:, 1])
        turns.append((votes[:, index], np.where(is_strict, rest.argmax(axis=1), -1)))
    return turns


def _left_out_statistics(table: AuditTable, judge: FloatArray, why: str) -> dict[str, Statistic]:
    answered = np.isfinite(judge)
    said = np.where(answered, _class_of(np.where(answered, judge, TIE)), -2)
    turns = _turns(table.votes)
    total = left_out_pairs(table.votes).astype(np.float64)
    people = np.asarray(sum(vote * (rest == index) for index, (vote, rest) in enumerate(turns)), dtype=np.float64)
    judged = np.asarray(sum(vote * (rest == said) for vote, rest in turns), dtype=np.float64)
    counted = total > 0
    why = "no row's other votes have a strict plurality" if (table.votes.sum(axis=1) >= 2).any() else why
    why_judge = why if not counted.any() else NO_VERDICTS
    compared = counted & answered
    difference = _ratio(judged - people, total, compared, table.weights, why_judge)
    return {
        "human_ceiling": _ratio(people, total, counted, table.weights, why),
        "against_rest.judge": _ratio(judged, total, compared, table.weights, why_judge),
        "against_rest.annotator": _ratio(people, total, compared, table.weights, why_judge),
        "against_rest.difference": replace(difference, bounds=(-1.0, 1.0)),
    }
