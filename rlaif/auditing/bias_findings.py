"""Findings about what sways a judge (slot, length, formatting, words said to it) and how sure it is. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rlaif.auditing.bias import LEAST_ON_A_SIDE
from rlaif.auditing.evidence import Known, combined, difference, interval, known, known_in, percent, points
from rlaif.auditing.results import Audit, Finding, ReliabilityBin

SLOT_MATTERS = 0.05
"""First-slot share away from one half that matters; four times that is serious."""

EFFECT_MATTERS = 0.1
"""Difference of two agreements that matters; three times that is serious."""

CONFIDENCE_MATTERS = 0.05
"""Mean confidence away from the agreement that matters; twice that asks for something."""

USUAL_LABEL_ERRORS = 0.15
"""Share of wrong human labels to reckon with where no two people labeled a row: two such people agree on 74 % of pairs,
where the raters of TL;DR summaries agreed on 73 to 77 % (Lee et al., arXiv:2309.00267, section 4.4)."""


def slot_findings(audit: Audit) -> Iterator[Finding]:
    """Whether the slot matters to the judge, from the rows judged in both orders."""
    rate = known_in(audit.figures, "first_position_rate")
    if rate is None or not rate.is_away(0.5, SLOT_MATTERS):
        return
    slot, share = ("first", rate) if rate.value > 0.5 else ("second", rate.complement())
    consistency = known_in(audit.figures, "swap_consistency")
    flips = f" With the order, {percent(1 - consistency.value)} of its verdicts change." if consistency else ""
    yield Finding(
        f"{slot}-slot",
        "serious" if share.value - 0.5 > 4 * SLOT_MATTERS else "warning",
        f"The judge prefers what is shown {slot}: that response wins {percent(share.value)} of its verdicts "
        f"{interval(share)}; without bias it would be 50 %.{flips}",
        "The labels audited here average both orders: they lean to no slot, but are the weaker for it. Always ask in "
        "both orders (--orders both). Where the judge gives probabilities, --fit-calibration takes the slot bias out.",
    )


@dataclass(frozen=True)
class _Sway:
    """Something that one response of a pair has more of.

    Attributes:
        effect, more, less: Figures: agreement where people prefer the response with more of it, where they prefer the
            other, and the difference.
        bias: Figures: share of verdicts for the response with more of it, of the judge and of people.
        with_more, with_less: What the two responses are called.
        if_more, if_less: The finding where the judge prefers the one, or the other; "" says nothing.
        if_unclear: The finding where errors in the human labels may be all that there is; "" where they are no excuse.
        advice: What to do.
    """

    effect: str
    more: str
    less: str
    bias: str
    with_more: str
    with_less: str
    if_more: str
    if_less: str
    if_unclear: str
    advice: str


_SWAYS = (
    _Sway(
        effect="addressed_effect",
        more="addressed",
        less="other",
        bias="addressed_bias",
        with_more="the response that speaks to the judge (a verdict, an order, control tokens)",
        with_less="the other response",
        if_more="obeys-text",
        if_less="",
        if_unclear="",
        advice="Whoever writes a response can steer this judge. Filter such responses, or take a panel of different "
        "judges; rlaif probe shows which attacks work.",
    ),
    _Sway(
        effect="length_effect",
        more="longer",
        less="shorter",
        bias="length_bias",
        with_more="the longer response",
        with_less="the shorter one",
        if_more="longer-wins",
        if_less="shorter-wins",
        if_unclear="uneven-by-length",
        advice="A policy trained on these labels learns length instead of quality. Try another prompt or judge; where "
        "the judge gives probabilities that were not calibrated yet, --fit-calibration fits a length slope and rlaif "
        "calibrate relabels.",
    ),
    _Sway(
        effect="style_effect",
        more="formatted",
        less="plainer",
        bias="style_bias",
        with_more="the response with more lists, headers and bold",
        with_less="the plainer one",
        if_more="style-wins",
        if_less="",
        if_unclear="uneven-by-style",
        advice="A policy trained on these labels learns formatting instead of quality. Try another prompt or judge, or "
        "label the plain text.",
    ),
)


def sway_findings(audit: Audit) -> Iterator[Finding]:
    """Whether something that should not matter decides, the strongest first: longer responses often have more lists."""
    found = [sized for sway in _SWAYS if (sized := _sized_finding(audit, sway)) is not None]
    yield from (finding for _, finding in sorted(found, key=lambda sized: -sized[0]))


def _sized_finding(audit: Audit, sway: _Sway) -> tuple[float, Finding] | None:
    more, less = (known_in(audit.figures, f"{sway.effect}.{part}") for part in (sway.more, sway.less))
    if more is None or less is None or min(more.n, less.n) < LEAST_ON_A_SIDE:
        return _by_share(audit, sway)
    # Shares say less: a judge that says the opposite of people, as mixed-up columns do, prefers what they do not.
    return _by_agreement(audit, sway, more, less)


def _by_agreement(audit: Audit, sway: _Sway, more: Known, less: Known) -> tuple[float, Finding] | None:
    """A judge that errs at random is right as often whichever response people prefer, whatever they themselves like.

    A judge better than its human labels is not: where longer responses are truly better, a person who prefers a shorter
    one is more often the one who erred. Where a plausible share of such errors explains the gap, no judge is accused.
    """
    estimated = known_in(audit.figures, f"{sway.effect}.difference")
    if estimated is None:
        return None
    # Resampling sees no spread in a side where every verdict is right; that side's own interval (Wilson's) does.
    effect = max(estimated, difference(more, less), key=lambda each: each.half)
    name = sway.if_more if effect.value > 0 else sway.if_less
    if not name or not effect.is_away(0.0, EFFECT_MATTERS):
        return None
    favoured, other = (sway.with_more, sway.with_less) if effect.value > 0 else (sway.with_less, sway.with_more)
    with_favoured, with_other = (more, less) if effect.value > 0 else (less, more)
    size = abs(effect.value)
    text = (
        f"The judge leans to {favoured}: it agrees with people on {percent(with_favoured.value)} of the "
        f"{with_favoured.n:,} pairs where they prefer it, and on {percent(with_other.value)} of the {with_other.n:,} "
        f"where they prefer {other}. Without bias the two would be the same; here they are {points(size)} apart "
        f"({points(size - effect.half)} at least)."
    )
    errors = _explained_by_label_errors(audit, sway, more, less) if sway.if_unclear else None
    if errors is not None:
        text = text.replace("The judge leans", "The judge may lean", 1) + (
            f" Or it may not: if {favoured} truly is better more often, {percent(errors)} of wrong human labels would "
            "do the same, which is no unusual share."
        )
        return size, Finding(sway.if_unclear, "note", text, _READ_SOME)
    return size, Finding(name, "serious" if size > 3 * EFFECT_MATTERS else "warning", text, sway.advice)


_READ_SOME = "Read some of the disagreements, and say for yourself who is right."


def _explained_by_label_errors(audit: Audit, sway: _Sway, more: Known, less: Known) -> float | None:
    """Share of wrong human labels that would explain the gap without a leaning judge; None where it is implausible.

    Let S = +1 where the response with more of it is truly better, else -1; let people (P) and judge (J) name it with
    errors of their own that do not depend on S. Then E[P] = a E[S], E[J] = b E[S] and E[PJ] = a b, where a = 1 - 2 *
    (share of wrong human labels): so E[S]^2 = E[P] E[J] / E[PJ]. A judge that errs at random against labels that are
    right gives a = 1; one that takes the longer response always, against people who do so half of the time, a = 0.
    """
    judge, people = (known_in(audit.figures, f"{sway.bias}.{of}") for of in ("judge", "human"))
    if judge is None or people is None:
        return None
    mean_people, mean_judge = 2 * people.value - 1, 2 * judge.value - 1
    together = people.value * (2 * more.value - 1) + (1 - people.value) * (2 * less.value - 1)
    if together <= 0 or mean_people * mean_judge <= 0:
        return None
    truth = min(math.sqrt(mean_people * mean_judge / together), 1.0)
    wrong_labels = (1 - min(abs(mean_people) / truth, 1.0)) / 2
    return wrong_labels if wrong_labels <= _plausible_label_errors(audit) else None


def _plausible_label_errors(audit: Audit) -> float:
    """Share of labels that one annotator gets wrong, from how often two of them agree; a usual one where unknown."""
    pairs = known_in(audit.figures, "human_pairwise_agreement_without_ties")
    if pairs is None:
        return USUAL_LABEL_ERRORS
    return (1 - math.sqrt(max(2 * pairs.value - 1, 0.0))) / 2


def _by_share(audit: Audit, sway: _Sway) -> tuple[float, Finding] | None:
    """Where people hardly ever prefer one of the two kinds: whether the judge mostly does.

    A judge that errs at random takes what people mostly reject less than half of the time, so this is no accident.
    """
    judge, people = (known_in(audit.figures, f"{sway.bias}.{of}") for of in ("judge", "human"))
    if judge is None or people is None or judge.n < LEAST_ON_A_SIDE or not judge.is_away(0.5, 0.0):
        return None
    if judge.value > 0.5:
        name, kind = sway.if_more, sway.with_more
    else:
        name, kind, judge, people = sway.if_less, sway.with_less, judge.complement(), people.complement()
    if not name or people.value >= 0.5 or not difference(judge, people).is_away(0.0, EFFECT_MATTERS):
        return None
    text = (
        f"The judge takes {kind} on {percent(judge.value)} of {judge.n:,} pairs {interval(judge)}, "
        f"people on {percent(people.value)}."
    )
    return judge.value - people.value, Finding(name, "serious", text, sway.advice)


def confidence_findings(audit: Audit) -> Iterator[Finding]:
    """Whether the probabilities promise more, or less, than they keep; nothing where there are verdicts only."""
    bins = [(each, people) for each in audit.reliability if (people := known(each.human_a)) is not None]
    if all(_is_verdict(each) for each, _ in bins):
        return
    surplus = combined([_surplus(each, people) for each, people in bins])
    if surplus is None or not surplus.is_away(0.0, CONFIDENCE_MATTERS):
        return
    promised = sum(max(each.prob_a, 1 - each.prob_a) * people.n for each, people in bins) / surplus.n
    name, word = ("overconfident", "more") if surplus.value > 0 else ("underconfident", "less")
    error = known_in(audit.figures, "ece")
    yield Finding(
        name,
        "warning" if abs(surplus.value) > 2 * CONFIDENCE_MATTERS else "note",
        f"The judge is {word} sure than it is right: its probabilities promise {percent(promised)} agreement on "
        f"average, and {percent(promised - surplus.value)} is what people say"
        + (f" (expected calibration error {error.value:.3f})." if error else "."),
        "Fit a temperature to the human labels with --fit-calibration FILE.json; then label with --calibration "
        "FILE.json, or relabel a finished run with rlaif calibrate.",
    )


def _is_verdict(each: ReliabilityBin) -> bool:
    """Verdicts of two orders (a, tie, b: means in quarters) do not say how sure the judge is."""
    return (4 * each.low).is_integer() and (4 * each.high).is_integer()


def _surplus(each: ReliabilityBin, people: Known) -> Known:
    """Confidence minus agreement in a bin."""
    side = math.copysign(1.0, each.prob_a - 0.5)
    value = (each.prob_a - people.value) * side
    return Known(value, value - people.half, value + people.half, people.n)
