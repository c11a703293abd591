"""What an audit's figures mean, in plain words: what is good, what is wrong, how large it is and what to do. Pure.

Most findings are tests, and one audit makes many of them. A judge that errs at random must not be accused of anything:
an effect is named only where it is large enough to matter and lies 1.5 half intervals from its null (`evidence`), so
that all of them together raise few false alarms; benchmarks/audit_planted.py counts them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from rlaif.auditing.bias_findings import EFFECT_MATTERS, confidence_findings, slot_findings, sway_findings
from rlaif.auditing.evidence import (
    Known,
    combined,
    difference,
    factor_for,
    interval,
    known,
    known_in,
    percent,
    points,
    short_name,
)
from rlaif.auditing.results import Audit, Finding, Severity

ABOUT_AS_GOOD = 0.1
"""A judge that is surely less than this below a person is about as good."""

WIDE = 0.2
"""An interval of agreement that is wider says little."""

COIN = (0.4, 0.6)
"""An agreement whose interval lies in here is hardly better than a coin's, wherever one half is."""

MANY_TIES = 0.2

_TOO_PERFECT = 0.9
_MOST_IN_ONE_CLASS = 0.75
_KAPPA_MISLEADS = 0.2
_LEAST_IN_GROUP = 20
_GROUPS_NAMED = 3

_ORDER: tuple[Severity, ...] = ("serious", "warning", "note", "good")
_CAUSES = frozenset({"first-slot", "second-slot", "longer-wins", "shorter-wins", "style-wins", "obeys-text"})


def findings(audit: Audit) -> tuple[Finding, ...]:
    """All there is to say: first how the judge agrees with people, then the rest, the most serious first.

    Figures that are missing lead to no finding, other than "no-human-labels".

    Args:
        audit: Its `findings` are not looked at.
    """
    biases = [*slot_findings(audit), *sway_findings(audit)]
    others = [
        *biases,
        *confidence_findings(audit),
        *_few_labels(audit),
        *_one_sided(audit),
        *_uneven_groups(audit),
        *_correlated_panel(audit),
        *_many_ties(audit),
        *_imbalance(audit),
    ]
    has_cause = any(each.name in _CAUSES and each.severity == "serious" for each in biases)
    # Sorting is stable: within a severity the order above stays.
    return (_headline(audit, has_cause=has_cause), *sorted(others, key=lambda each: _ORDER.index(each.severity)))


def _headline(audit: Audit, *, has_cause: bool) -> Finding:
    agreement = known_in(audit.figures, "agreement")
    decided = known_in(audit.figures, "agreement_human_decided")
    if agreement is None:
        return _without_agreement(decided)
    said = (
        f"The judge agrees with people on {percent(agreement.value)} of the {agreement.n:,} pairs that both decided "
        f"{interval(agreement)}"
    )
    if decided is not None and decided.value > 1 - 1e-9 and decided.low >= _TOO_PERFECT:
        return Finding(
            "perfect",
            "note",
            f"{said}: it never errs.",
            "That is rare. Make sure that the labels come from people, not from this judge or what it learnt from.",
        )
    if agreement.high < COIN[0]:
        return Finding(
            "agreement",
            "serious",
            f"{said}: it says the opposite of what people say.",
            "Check that verdicts and human labels name the same responses: a verdict names the response, not the slot.",
        )
    if chance := _chance(audit, agreement):
        # A judge that always takes the longer response is no coin, though its agreement may look like one.
        is_sure = has_cause or agreement.width <= WIDE
        return Finding(
            "agreement" if has_cause else "random",
            "serious" if is_sure else "warning",
            f"{said}: {chance}.",
            ("Do not train on these labels. " if is_sure else "With so few rows that may change: label more. ")
            + ("What follows says why." if has_cause else "Try a stronger judge, another prompt or --cot."),
        )
    return _against_ceiling(audit, said)


def _without_agreement(decided: Known | None) -> Finding:
    if decided is not None:
        return Finding(
            "agreement",
            "serious",
            f"The judge calls a tie on all of the {decided.n:,} rows that people decided: it prefers nothing.",
            "Look at each order alone: a judge that takes the same slot both times ends in ties.",
        )
    return Finding(
        "no-human-labels",
        "warning",
        "No row has both a verdict of the judge and a decision by people, so this audit cannot say how far the judge "
        "agrees with people.",
        "Label some rows: --suggest 100 draws those that help most and writes a file for annotators; --human FILE "
        "reads it back.",
    )


def _chance(audit: Audit, agreement: Known) -> str:
    """Why the agreement is no better than chance, in words; "" where it is, or where the rows are too few to say."""
    if agreement.low <= 0.5 <= agreement.high and agreement.width <= 1.5 * WIDE:
        return "that cannot be told from a coin's"
    if COIN[0] <= agreement.low and agreement.high <= COIN[1]:
        return "hardly better than a coin"
    kappa = known_in(audit.figures, "cohen_kappa")
    if kappa is not None and kappa.low <= 0 and kappa.high < WIDE and not _is_kappa_blind(audit):
        return (
            f"with labels so unequal, chance gives as much (Cohen's kappa {kappa.value:.2f}, at most {kappa.high:.2f})"
        )
    return ""


def _is_kappa_blind(audit: Audit) -> bool:
    """Whether kappa is near 0 because of the labels, and not of the judge.

    So it is for every judge where people always prefer the same side, and for one that is as often right on either side
    where they hardly ever prefer the other.
    """
    if not audit.confusion:
        return False
    prefer_a, _, prefer_b = audit.confusion
    if not sum(prefer_a) or not sum(prefer_b):
        return True
    return prefer_a[0] / sum(prefer_a) - prefer_b[0] / sum(prefer_b) > WIDE


def _against_ceiling(audit: Audit, said: str) -> Finding:
    """The judge and each annotator in turn against the majority of the other annotators, so on equal terms."""
    judge, person, gap = (known_in(audit.figures, f"against_rest.{of}") for of in ("judge", "annotator", "difference"))
    if judge is None or person is None or gap is None:
        text = f"{said}. How far people agree with each other is not known: that takes several votes on a row."
        if alone := known_in(audit.figures, "human_ceiling"):
            text = (
                f"{said}. One person agrees with the majority of the others, ties included, on {percent(alone.value)}."
            )
        return Finding("agreement", "note", text)
    text = (
        f"{said}. Against the majority of the other annotators, ties included, it is right on {percent(judge.value)} "
        f"and one person on {percent(person.value)}"
    )
    if gap.high < 0:
        return Finding(
            "below-ceiling",
            "warning" if gap.value < -ABOUT_AS_GOOD else "note",
            f"{text}: the judge is {points(-gap.value)} below a person ({points(-gap.high)} at least)."
            + _tie_habits(audit),
            "Try a stronger judge, another prompt, --cot or a panel, and compare with --against.",
        )
    if gap.low > -ABOUT_AS_GOOD:
        words = "agrees with the majority more than one person does" if gap.low > 0 else "is about as good as a person"
        return Finding("at-ceiling", "good", f"{text}: the judge {words}.")
    return Finding("agreement", "note", f"{text}; that is too close to call with {gap.n:,} rows.")


def _tie_habits(audit: Audit) -> str:
    people, judge = _tie_shares(audit)
    if abs(people - judge) < EFFECT_MATTERS:
        return ""
    return f" Part of that is ties: people call {percent(people)} of the rows one, the judge {percent(judge)}."


def _tie_shares(audit: Audit) -> tuple[float, float]:
    """Of the rows that people labeled, the share of ties by people and by the judge."""
    total = sum(map(sum, audit.confusion))
    if not total:
        return 0.0, 0.0
    return sum(audit.confusion[1]) / total, sum(row[1] for row in audit.confusion) / total


def _few_labels(audit: Audit) -> Iterator[Finding]:
    agreement = known_in(audit.figures, "agreement")
    if agreement is None or agreement.width <= WIDE:
        return
    wanted = math.ceil(agreement.n * (agreement.width / (WIDE / 2)) ** 2 / 100) * 100
    yield Finding(
        "few-labels",
        "warning",
        f"Only {agreement.n:,} pairs have a decision by both people and judge: the agreement can be anything from "
        f"{percent(agreement.low)} to {percent(agreement.high)}.",
        f"About {wanted:,} pairs give an interval of 5 points either way; --suggest draws the rows that help most.",
    )


def _one_sided(audit: Audit) -> Iterator[Finding]:
    """Labels all of one side: no matter where the judge saw most pairs in both orders, and cannot tell A from B."""
    decided = known_in(audit.figures, "agreement_human_decided")
    judged, in_both = (audit.counts.get(name, 0) for name in ("rows_judged", "rows_judged_both_orders"))
    if decided is None or decided.n < _LEAST_IN_GROUP or not audit.confusion or 2 * in_both > judged:
        return
    sides = [side for side, row in zip("ab", audit.confusion[::2], strict=True) if sum(row)]
    if len(sides) == 1:
        side = sides[0].upper()
        yield Finding(
            "one-sided",
            "warning",
            f"People prefer response {side} in all of the {decided.n:,} rows that they decided: a judge that says "
            f"{side} whatever it reads would seem to be right always.",
            "Judge both orders, or put the two responses in random order; check the column of the human labels.",
        )


def _uneven_groups(audit: Audit) -> Iterator[Finding]:
    for column, values in audit.by.items():
        groups = {
            value: agreement
            for value, figures in values.items()
            if (agreement := known_in(figures, "agreement")) is not None and agreement.n >= _LEAST_IN_GROUP
        }
        worse = [
            (gap.value, value, rest)
            for value, rest in _rests(groups).items()
            if (gap := difference(rest, groups[value])).value > 0
            # Each value is a test of its own: the more there are, the surer each must be.
            and gap.is_away(0.0, EFFECT_MATTERS, factor_for(len(groups)))
        ]
        for _, value, rest in sorted(worse, key=lambda each: -each[0])[:_GROUPS_NAMED]:
            group = groups[value]
            yield Finding(
                "uneven-groups",
                "warning",
                f"Where {short_name(column)} is '{short_name(value)}', the judge agrees with people on "
                f"{percent(group.value)} of {group.n:,} pairs {interval(group)}, elsewhere on {percent(rest.value)}.",
                "Do not take the overall agreement for that group's; its disagreements may show what the judge misses.",
            )


def _rests(groups: Mapping[str, Known]) -> dict[str, Known]:
    """For each group, all others together."""
    rests = {value: combined([each for other, each in groups.items() if other != value]) for value in groups}
    return {value: rest for value, rest in rests.items() if rest is not None}


def _correlated_panel(audit: Audit) -> Iterator[Finding]:
    if audit.panel is None:
        return
    votes, judges = known(audit.panel.effective_votes), len(audit.panel.judges)
    if votes is None or votes.high > 0.75 * judges:
        return
    correlation = known(audit.panel.mean_error_correlation)
    how_far = f" (correlation of their errors {correlation.value:.2f})" if correlation else ""
    yield Finding(
        "correlated-panel",
        "warning" if votes.value < judges / 2 else "note",
        f"The {judges} judges of the panel often err on the same rows{how_far}: they are worth {votes.value:.1f} "
        f"independent votes (95 % interval {votes.low:.1f} to {votes.high:.1f}).",
        "Judges of other model families add more than further judges of the same.",
    )


def _many_ties(audit: Audit) -> Iterator[Finding]:
    people, judge = _tie_shares(audit)
    if judge < max(MANY_TIES, people + EFFECT_MATTERS):
        return
    yield Finding(
        "many-ties",
        "warning" if judge > 2 * MANY_TIES else "note",
        f"The judge calls {percent(judge)} of the labeled rows a tie, people {percent(people)}; the agreement leaves "
        "those rows out.",
        "Verdicts that change with the order end in ties; probabilities (--scoring logprobs) keep which one was surer.",
    )


def _imbalance(audit: Audit) -> Iterator[Finding]:
    names = ("agreement_with_ties", "cohen_kappa", "gwet_ac1")
    agreement, kappa, ac1 = (known_in(audit.figures, name) for name in names)
    total = sum(map(sum, audit.confusion))
    if agreement is None or kappa is None or ac1 is None or not total:
        return
    by_people, by_judge = map(sum, audit.confusion), map(sum, zip(*audit.confusion, strict=True))
    largest = max(people + judge for people, judge in zip(by_people, by_judge, strict=True)) / (2 * total)
    if largest < _MOST_IN_ONE_CLASS or ac1.value - kappa.value < _KAPPA_MISLEADS:
        return
    yield Finding(
        "imbalance",
        "note",
        f"{percent(largest)} of all verdicts are the same one, which makes Cohen's kappa ({kappa.value:.2f}) look low "
        f"beside an agreement of {percent(agreement.value)}.",
        f"Look at Gwet's AC1 ({ac1.value:.2f}) instead, which unequal classes do not push down.",
    )
