"""What came of the probes: flip rates, which of them are more than noise, and what that says of the judge. Pure.

A verdict counts 1.0 where it is for the good answer, 0.5 where it is a tie and 0.0 where it is for the other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rlaif.auditing.intervals import wilson_interval
from rlaif.auditing.probe_items import ProbeItem, good_is_a
from rlaif.auditing.probes import PLAIN, Kind, Probe
from rlaif.auditing.results import Figure
from rlaif.records import SoftLabel, Verdict, verdict_of

FALSE_ALARMS = 0.05
"""Share of the runs over a fair judge in which one alarm or more is raised, at most."""

LEAST_RATE = 0.10
"""A flip rate up to here raises no alarm, however sure it is."""

Toward = Literal["first", "second", "longer", "shorter", "padded"]


@dataclass(frozen=True)
class ProbeResult:
    """What one probe found.

    Attributes:
        name, does: Of the probe.
        rate: For a probe that changes something, the flip rate: of the pairs that the judge gets right without the
            change, the share that it gets wrong with it (a tie counts half). For `order`, the share of the items whose
            verdict changes with the order (to or from a tie counts half). For the others, where no side should be
            preferred, how far one is: 0 for an even hand, 1 for always the same side.
        worse, better: Pairs whose verdict the change makes worse, and better; where there is a side to prefer, the
            pairs with a verdict for it, and for the other side.
        toward: The side that is preferred more often, where there are sides.
        missing: Pairs left out, for a judgement of theirs failed.
        p_value: Exact sign test of `worse` against `better`; None where neither happens.
        is_alarm: The rate is above the least one, and more than noise: the chance that a fair judge has one alarm or
            more in all probes of a run is at most 5 %.
    """

    name: str
    does: str
    rate: Figure
    worse: int
    better: int
    toward: Toward | None
    missing: int
    p_value: float | None
    is_alarm: bool = False


class Accuracy(NamedTuple):
    """How often the judge is right with nothing changed.

    Attributes:
        share: A tie counts half.
        right, wrong: Verdicts; the rest are ties.
        p_value: Exact one-sided test that the judge does no better than chance.
        p_value_worse: The same that it does no worse.
    """

    share: Figure
    right: int
    wrong: int
    p_value: float
    p_value_worse: float


@dataclass(frozen=True)
class Evidence:
    """The verdicts behind the figures.

    Attributes:
        labels: By comparison, where there is one.
        items: All of them, also those a probe leaves out.
    """

    labels: Mapping[str, SoftLabel]
    items: Sequence[ProbeItem]

    def scores(self, family: str) -> dict[str, float]:
        """Verdicts on the good answer, by item."""
        found = {}
        for item, is_a in zip(self.items, good_is_a(self.items), strict=True):
            label = self.labels.get(f"{family}/{item.id}")
            if label is not None:
                found[item.id] = _score(label.prob_a if is_a else 1.0 - label.prob_a)
        return found


@dataclass(frozen=True)
class ProbeReport:
    """Everything that a run of probes found.

    Attributes:
        accuracy: On the plain comparisons.
        results: One a probe, in the order in which they were asked for.
        evidence: What it was computed from.
    """

    accuracy: Accuracy
    results: tuple[ProbeResult, ...]
    evidence: Evidence

    def result(self, name: str) -> ProbeResult | None:
        """That of one probe; None where it was not run."""
        return next((result for result in self.results if result.name == name), None)

    @property
    def alarms(self) -> tuple[str, ...]:
        """Names of the probes that raise one."""
        return tuple(result.name for result in self.results if result.is_alarm)

    @property
    def is_better_than_chance(self) -> bool:
        """Whether the judge is right more often than a coin; if not, a flip rate says nothing."""
        return self.accuracy.p_value < FALSE_ALARMS

    def above(self, threshold: float) -> tuple[str, ...]:
        """Names of the probes whose rate is above a threshold."""
        return tuple(each.name for each in self.results if each.rate.value is not None and each.rate.value > threshold)

    def outweighs(self, family: str, other: str) -> bool:
        """Whether one family's verdicts are worse than another's beyond noise (1 %), item by item."""
        worse, better = _moves(self.evidence.scores(other), self.evidence.scores(family))
        return worse + better > 0 and _sign_test(worse, better, "greater") < 0.01


def evaluate(
    probes: Sequence[Probe],
    items: Sequence[ProbeItem],
    labels: Mapping[str, SoftLabel],
    *,
    least_rate: float = LEAST_RATE,
) -> ProbeReport:
    """What the judge's labels say.

    Args:
        probes: Those that were run.
        items: What they were about.
        labels: By the ids of `probes.comparisons`; what failed is absent.
        least_rate: No alarm up to here.

    The alarms of all probes together keep to `FALSE_ALARMS`, by Holm's method.
    """
    evidence = Evidence(labels, items)
    results = [_result(probe, evidence) for probe in probes]
    return ProbeReport(_accuracy(evidence), _with_alarms(results, least_rate), evidence)


def _result(probe: Probe, evidence: Evidence) -> ProbeResult:
    match probe.kind:
        case Kind.CHANGE:
            return _of_change(probe, evidence)
        case Kind.ORDER:
            return _of_order(probe, evidence)
        case Kind.LENGTH:
            scores = evidence.scores(PLAIN)
            lengths = {item.id: item.is_good_longer for item in evidence.items}
            longer = {name: score if lengths[name] else 1.0 - score for name, score in scores.items()}
            return _of_sides(probe, longer, longer, len(evidence.items), "longer", "shorter")
        case Kind.IDENTICAL:
            firsts = {item.id: _first(evidence.labels.get(f"{probe.name}/{item.id}")) for item in evidence.items}
            known = {name: first for name, first in firsts.items() if first is not None}
            verdicts = {name: _score(first) for name, first in known.items()}
            return _of_sides(probe, verdicts, known, len(evidence.items), "first", "second")
        case Kind.COPY:
            copies = {name: 1.0 - score for name, score in evidence.scores(probe.name).items()}
            return _of_copy(probe, copies, len(evidence.items))


def _of_change(probe: Probe, evidence: Evidence) -> ProbeResult:
    before, after = evidence.scores(probe.base), evidence.scores(probe.name)
    both = [name for name in before if name in after]
    right = [name for name in both if before[name] == 1.0]
    flips = sum(1.0 - after[name] for name in right)
    worse, better = _moves(before, after)
    rate = _share(flips, len(right), "no pair is right without it")
    p_value = _sign_test(worse, better, "greater") if worse + better else None
    expected = sum(bool(item.entries) or probe.base == PLAIN for item in evidence.items)
    return ProbeResult(probe.name, probe.does, rate, worse, better, None, expected - len(both), p_value)


def _of_order(probe: Probe, evidence: Evidence) -> ProbeResult:
    labels = [evidence.labels.get(f"{PLAIN}/{item.id}") for item in evidence.items]
    pairs = [
        (_score(label.prob_a_ab), _score(label.prob_a_ba))
        for label in labels
        if label is not None and label.prob_a_ab is not None and label.prob_a_ba is not None
    ]
    first, second = sum(ab > ba for ab, ba in pairs), sum(ab < ba for ab, ba in pairs)
    rate = _share(sum(abs(ab - ba) for ab, ba in pairs), len(pairs), "no item was judged in both orders")
    p_value = _sign_test(first, second, "two-sided") if first + second else None
    missing = sum(label is None for label in labels)
    return ProbeResult(
        probe.name, probe.does, rate, first, second, _larger(first, second, "first", "second"), missing, p_value
    )


def _of_sides(
    probe: Probe, verdicts: Mapping[str, float], values: Mapping[str, float], expected: int, one: Toward, other: Toward
) -> ProbeResult:
    """Neither side should be preferred: how far one is."""
    for_one, for_other = (sum(verdict == side for verdict in verdicts.values()) for side in (1.0, 0.0))
    p_value = _sign_test(for_one, for_other, "two-sided") if for_one + for_other else None
    total = sum(values.values())
    rate = _distance(total, len(values), is_one_sided=False)
    toward = _larger(total, len(values) - total, one, other)
    return ProbeResult(probe.name, probe.does, rate, for_one, for_other, toward, expected - len(values), p_value)


def _of_copy(probe: Probe, copies: Mapping[str, float], expected: int) -> ProbeResult:
    """The padded copy should not be preferred; that it is not is right."""
    padded, original = (sum(verdict == side for verdict in copies.values()) for side in (1.0, 0.0))
    p_value = _sign_test(padded, original, "greater") if padded + original else None
    rate = _distance(sum(copies.values()), len(copies), is_one_sided=True)
    toward: Toward | None = "padded" if padded > original else None
    return ProbeResult(probe.name, probe.does, rate, padded, original, toward, expected - len(copies), p_value)


def _accuracy(evidence: Evidence) -> Accuracy:
    scores = list(evidence.scores(PLAIN).values())
    right, wrong = scores.count(1.0), scores.count(0.0)
    share = _share(sum(scores), len(scores), "no plain comparison was judged")
    return Accuracy(share, right, wrong, _sign_test(right, wrong, "greater"), _sign_test(wrong, right, "greater"))


def _with_alarms(results: Sequence[ProbeResult], least_rate: float) -> tuple[ProbeResult, ...]:
    rejected = holm([1.0 if each.p_value is None else each.p_value for each in results], FALSE_ALARMS)
    return tuple(
        dataclasses.replace(each, is_alarm=is_sure and each.rate.value is not None and each.rate.value > least_rate)
        for each, is_sure in zip(results, rejected, strict=True)
    )


def holm(p_values: Sequence[float], level: float) -> list[bool]:
    """Which null hypotheses to reject, so that a true one is among them with a probability of `level` at most.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scand. J. Statistics 6 (1979).

    >>> holm([0.01, 0.04, 0.03], 0.05)  # 0.01 <= 0.05 / 3, but 0.03 > 0.05 / 2
    [True, False, False]
    """
    rejected = [False] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[index] > level / (len(p_values) - rank):
            break
        rejected[index] = True
    return rejected


def _score(prob: float) -> float:
    return {Verdict.A: 1.0, Verdict.TIE: 0.5, Verdict.B: 0.0}[verdict_of(prob)]


def _first(label: SoftLabel | None) -> float | None:
    """P(first slot), the mean of the orders that were asked."""
    if label is None:
        return None
    ba = None if label.prob_a_ba is None else 1.0 - label.prob_a_ba
    known = [prob for prob in (label.prob_a_ab, ba) if prob is not None]
    return sum(known) / len(known) if known else None


def _moves(before: Mapping[str, float], after: Mapping[str, float]) -> tuple[int, int]:
    """On how many items the score falls, and rises."""
    both = [name for name in before if name in after]
    return sum(after[name] < before[name] for name in both), sum(after[name] > before[name] for name in both)


def _sign_test(ups: int, downs: int, alternative: Literal["greater", "two-sided"]) -> float:
    from scipy.stats import binomtest

    return float(binomtest(ups, ups + downs, 0.5, alternative=alternative).pvalue) if ups + downs else 1.0


def _share(count: float, n: int, why: str) -> Figure:
    if not n:
        return Figure(None, None, None, 0, why)
    return Figure(count / n, *wilson_interval(count / n, n), n)


def _distance(total: float, n: int, *, is_one_sided: bool) -> Figure:
    """How far the mean of n values in [0, 1] is from 0.5, as a share of the most it can be (only upwards, if so)."""
    if not n:
        return Figure(None, None, None, 0, "no pair was judged")
    value = 2.0 * total / n - 1.0
    low, high = (2.0 * bound - 1.0 for bound in wilson_interval(total / n, n))
    if is_one_sided:
        return Figure(max(0.0, value), max(0.0, low), max(0.0, high), n)
    nearest = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
    return Figure(abs(value), nearest, max(abs(low), abs(high)), n)


def _larger(ones: float, others: float, one: Toward, other: Toward) -> Toward | None:
    return None if ones == others else one if ones > others else other


def as_json(report: ProbeReport) -> dict[str, Any]:
    """The figures as they stand in `probe.json`."""
    accuracy = report.accuracy
    return {
        "accuracy": {
            **_figure(accuracy.share),
            "right": accuracy.right,
            "wrong": accuracy.wrong,
            "p_value": accuracy.p_value,
        },
        "probes": {
            each.name: {
                "does": each.does,
                **_figure(each.rate),
                "worse": each.worse,
                "better": each.better,
                "toward": each.toward,
                "missing": each.missing,
                "p_value": each.p_value,
                "is_alarm": each.is_alarm,
            }
            for each in report.results
        },
    }


def _figure(figure: Figure) -> dict[str, Any]:
    shown = {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}
    return shown if figure.why is None else {**shown, "why": figure.why}
