from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.auditing.audit import audit_table
from rlaif.auditing.findings import findings
from rlaif.auditing.results import Audit, ErrorCorrelation, Figure, Finding, PanelResult, ReliabilityBin
from tests.auditing.planted import BIASES, FAIR, PLANTED, Judge, plant

MISSING = Figure(None, None, None, 0, "not there")


def around(value: float, half: float = 0.03, n: int = 400) -> Figure:
    return Figure(value, value - half, value + half, n)


def audit(figures: dict[str, Any] | None = None, **parts: Any) -> Audit:
    """An audit of a judge with 80 % agreement and nothing else known, changed as told."""
    return Audit({}, {}, {"agreement": around(0.8), "agreement_human_decided": around(0.8), **(figures or {})}, **parts)


def names(found: tuple[Finding, ...]) -> list[str]:
    return [each.name for each in found]


def the(name: str, found: tuple[Finding, ...]) -> Finding:
    return next(each for each in found if each.name == name)


def of_planted(judge: Judge, seed: int, **rows: Any) -> list[str]:
    return names(findings(audit_table(plant(judge, seed, **rows), resamples=100)))


# The headline.


def test_without_human_labels_it_says_so_and_what_to_do() -> None:
    found = findings(Audit({}, {}, {"agreement": MISSING, "agreement_human_decided": MISSING}))
    assert names(found) == ["no-human-labels"]
    assert "--suggest" in found[0].advice


def test_figures_that_are_absent_lead_to_nothing() -> None:
    assert names(findings(Audit({}, {}, {}))) == ["no-human-labels"]
    assert names(findings(audit())) == ["agreement"]


def test_the_agreement_is_told_with_interval_and_rows() -> None:
    (found,) = findings(audit({"agreement": Figure(0.789, 0.751, 0.824, 1447)}))
    assert found.text.startswith(
        "The judge agrees with people on 78.9 % of the 1,447 pairs that both decided (95 % interval 75.1 to 82.4)."
    )
    assert "several votes" in found.text


@pytest.mark.parametrize(
    ("gap", "name", "severity", "said"),
    [
        (Figure(-0.01, -0.05, 0.03, 300), "at-ceiling", "good", "about as good as a person"),
        (Figure(0.05, 0.01, 0.09, 300), "at-ceiling", "good", "more than one person"),
        (Figure(-0.06, -0.09, -0.03, 300), "below-ceiling", "note", "6.0 points below a person (3.0 points at least)"),
        (Figure(-0.16, -0.19, -0.13, 300), "below-ceiling", "warning", "16.0 points below a person"),
        (Figure(-0.06, -0.13, 0.01, 40), "agreement", "note", "too close to call with 40 rows"),
    ],
)
def test_the_agreement_is_held_against_the_human_ceiling(gap: Figure, name: str, severity: str, said: str) -> None:
    against = {"judge": around(0.75), "annotator": around(0.76), "difference": gap}
    (found,) = findings(audit({"against_rest": against}))
    assert (found.name, found.severity) == (name, severity)
    assert said in found.text
    assert "right on 75.0 % and one person on 76.0 %" in found.text


def test_ties_that_only_people_call_are_told_beside_a_judge_below_the_ceiling() -> None:
    against = {"judge": around(0.6), "annotator": around(0.8), "difference": around(-0.2)}
    # Of 100 rows people call 20 a tie, the judge 1.
    confusion = ((40.0, 0.0, 0.0), (10.0, 1.0, 9.0), (0.0, 0.0, 40.0))
    (found,) = findings(audit({"against_rest": against}, confusion=confusion))
    assert "people call 20.0 % of the rows one, the judge 1.0 %" in found.text
    alike = ((40.0, 0.0, 0.0), (0.0, 20.0, 0.0), (0.0, 0.0, 40.0))
    assert "ties:" not in findings(audit({"against_rest": against}, confusion=alike))[0].text


@pytest.mark.parametrize(
    ("figures", "is_random"),
    [
        ({"agreement": Figure(0.52, 0.47, 0.57, 400)}, True),
        ({"agreement": Figure(0.56, 0.53, 0.59, 2000)}, True),  # better than a coin, but hardly
        ({"agreement": Figure(0.60, 0.57, 0.63, 2000)}, False),
        ({"agreement": Figure(0.60, 0.35, 0.82, 12)}, False),  # too few rows to say
        ({"agreement": around(0.9), "cohen_kappa": Figure(0.02, -0.06, 0.1, 400)}, True),  # 90 % of one label
        ({"agreement": around(0.9), "cohen_kappa": Figure(0.3, -0.1, 0.6, 400)}, False),
    ],
)
def test_an_agreement_that_chance_explains_is_random(figures: dict[str, Figure], is_random: bool) -> None:
    found = findings(audit(figures))
    assert ("random" in names(found)) is is_random
    if is_random:
        assert found[0].severity == "serious"


def test_perfect_takes_enough_rows_and_no_tie() -> None:
    always = {"agreement": Figure(1.0, 0.96, 1.0, 90)}
    assert names(findings(audit({**always, "agreement_human_decided": Figure(1.0, 0.96, 1.0, 90)}))) == ["perfect"]
    assert "perfect" not in names(findings(audit({**always, "agreement_human_decided": Figure(1.0, 0.7, 1.0, 9)})))
    assert "perfect" not in names(findings(audit({**always, "agreement_human_decided": around(0.8)})))


def test_a_judge_that_says_the_opposite_is_told_to_check_the_columns() -> None:
    found = findings(audit({"agreement": around(0.2)}))
    assert found[0].severity == "serious"
    assert "opposite" in found[0].text
    assert "slot" in found[0].advice


def test_a_judge_that_only_says_tie_prefers_nothing() -> None:
    found = findings(audit({"agreement": MISSING, "agreement_human_decided": Figure(0.0, 0.0, 0.02, 200)}))
    assert (found[0].name, found[0].severity) == ("agreement", "serious")
    assert "all of the 200 rows" in found[0].text


# What sways the judge.


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (around(0.62), ("first-slot", "warning")),
        (around(0.75), ("first-slot", "serious")),
        (around(0.38), ("second-slot", "warning")),
        (around(0.54, 0.01), None),  # surely there, but too small to matter
        (around(0.58, 0.06), None),  # 0.08 is less than 1.5 * 0.06
    ],
)
def test_the_slot(rate: Figure, expected: tuple[str, str] | None) -> None:
    found = findings(audit({"first_position_rate": rate, "swap_consistency": around(0.7)}))[1:]
    assert [(each.name, each.severity) for each in found] == ([expected] if expected else [])
    if expected:
        share = max(rate.value or 0, 1 - (rate.value or 0))
        assert f"{100 * share:.1f} %" in found[0].text
        assert "30.0 % of its verdicts change" in found[0].text
        assert "both orders" in found[0].advice


def effect(
    name: str, sides: tuple[str, str], more: float, less: float, n: int = 200, half: float = 0.05
) -> dict[str, Any]:
    parts = {sides[0]: around(more, half, n), sides[1]: around(less, half, n)}
    return {name: {**parts, "difference": around(more - less, 1.4 * half, 2 * n)}}


LENGTH = ("length_effect", ("longer", "shorter"))
STYLE = ("style_effect", ("formatted", "plainer"))
ADDRESSED = ("addressed_effect", ("addressed", "other"))


def test_length_is_told_in_agreements() -> None:
    found = the("longer-wins", findings(audit(effect(*LENGTH, 0.93, 0.41))))
    assert found.severity == "serious"
    assert "93.0 % of the 200 pairs where they prefer it, and on 41.0 % of the 200" in found.text
    assert "52.0 points apart" in found.text


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        (effect(*LENGTH, 0.41, 0.93), ["shorter-wins"]),
        (effect(*LENGTH, 0.85, 0.70), ["longer-wins"]),
        (effect(*LENGTH, 0.80, 0.72, half=0.01), []),  # surely there, but too small to matter
        (effect(*LENGTH, 0.85, 0.70, half=0.1), []),
        (effect(*LENGTH, 1.00, 0.70, n=4, half=0.0), []),  # four rows show nothing, however equal they are
        (effect(*STYLE, 0.9, 0.6), ["style-wins"]),
        (effect(*STYLE, 0.6, 0.9), []),
        (effect(*ADDRESSED, 0.9, 0.2), ["obeys-text"]),
        (effect(*ADDRESSED, 0.2, 0.9), []),  # who distrusts such a response does well
        ({**effect(*LENGTH, 0.9, 0.7), **effect(*STYLE, 0.95, 0.45)}, ["style-wins", "longer-wins"]),
    ],
)
def test_what_sways_it(figures: dict[str, Any], expected: list[str]) -> None:
    assert names(findings(audit(figures)))[1:] == expected


def test_a_side_without_spread_is_as_unsure_as_its_own_interval() -> None:
    # All 12 verdicts of one side are right, so resampling sees no error there; Wilson's interval of that side does.
    parts = {"longer": Figure(1.0, 0.76, 1.0, 12), "shorter": around(0.75, 0.04, 300)}
    assert names(findings(audit({"length_effect": {**parts, "difference": around(0.25, 0.04)}})))[1:] == []


def shares(judge: float, human: float, n: int = 100) -> dict[str, Any]:
    return {"addressed_bias": {"judge": around(judge, 0.06, n), "human": around(human, 0.04, n)}}


@pytest.mark.parametrize(
    ("figures", "is_named"),
    [
        (shares(0.9, 0.05), True),
        (shares(0.3, 0.0), False),  # a judge that is right on 70 % of the rows does that too
        (shares(0.9, 0.8), False),
        (shares(0.9, 0.05, n=5), False),
    ],
)
def test_text_to_the_judge_where_people_never_prefer_it(figures: dict[str, Any], is_named: bool) -> None:
    assert ("obeys-text" in names(findings(audit(figures)))) is is_named


def test_a_serious_bias_is_not_called_a_coin() -> None:
    figures = {"agreement": around(0.5), **effect(*LENGTH, 0.99, 0.01)}
    found = findings(audit(figures))
    assert names(found) == ["agreement", "longer-wins"]
    assert "cannot be told from a coin's" in found[0].text


# How sure it is.


def bins(*parts: tuple[float, float], half: float = 0.1) -> tuple[ReliabilityBin, ...]:
    return tuple(ReliabilityBin(prob - 0.01, prob + 0.01, prob, around(human, half, 50)) for prob, human in parts)


@pytest.mark.parametrize(
    ("reliability", "expected"),
    [
        # Confidence 0.95, agreement 0.7 on both sides: 25 points too sure.
        (bins((0.05, 0.3), (0.95, 0.7)), [("overconfident", "warning")]),
        (bins((0.05, 0.13), (0.95, 0.87), half=0.03), [("overconfident", "note")]),
        (bins((0.4, 0.1), (0.6, 0.9)), [("underconfident", "warning")]),
        (bins((0.2, 0.2), (0.8, 0.8)), []),
        (bins((0.05, 0.1), (0.95, 0.9), half=0.2), []),
        ((), []),
    ],
)
def test_confidence(reliability: tuple[ReliabilityBin, ...], expected: list[tuple[str, str]]) -> None:
    found = findings(audit({"ece": around(0.2)}, reliability=reliability))[1:]
    assert [(each.name, each.severity) for each in found] == expected


def test_confidence_is_told_with_what_it_promises_and_keeps() -> None:
    (found,) = findings(audit({"ece": around(0.25)}, reliability=bins((0.05, 0.3), (0.95, 0.7))))[1:]
    assert "promise 95.0 % agreement on average, and 70.0 % is what people say" in found.text
    assert "0.250" in found.text
    assert "--fit-calibration" in found.advice


def test_verdicts_are_not_called_overconfident() -> None:
    # Of two orders: a and tie make 0.75.
    verdicts = (ReliabilityBin(0.0, 0.0, 0.0, around(0.3)), ReliabilityBin(0.75, 1.0, 0.9, around(0.7)))
    assert names(findings(audit(reliability=verdicts))) == ["agreement"]


# What the data can carry.


def test_few_labels() -> None:
    found = findings(audit({"agreement": Figure(0.75, 0.6, 0.86, 40)}))
    # Half the width of 0.26 is to become 0.05: (0.26 / 0.1)^2 * 40 = 270.4 rows.
    assert names(found) == ["agreement", "few-labels"]
    assert "60.0 % to 86.0 %" in found[1].text
    assert "About 300 pairs" in found[1].advice


def by(**agreements: Figure) -> dict[str, Any]:
    return {"task": {name: {"agreement": figure} for name, figure in agreements.items()}}


def test_a_group_that_is_surely_worse_is_named() -> None:
    groups = by(chat=around(0.85, 0.03, 500), code=around(0.55, 0.06, 200), math=MISSING)
    found = findings(audit(by=groups))
    assert names(found) == ["agreement", "uneven-groups"]
    assert "Where task is 'code'" in found[1].text
    assert "55.0 % of 200 pairs" in found[1].text
    assert "elsewhere on 85.0 %" in found[1].text


@pytest.mark.parametrize(
    "groups",
    [
        by(chat=around(0.85), code=around(0.78, 0.01)),  # less than 10 points
        by(chat=around(0.85), code=around(0.65, 0.15)),
        by(chat=around(0.85), code=around(0.3, 0.1, 12)),
        by(one=around(0.5)),
    ],
)
def test_groups_that_are_not(groups: dict[str, Any]) -> None:
    assert names(findings(audit(by=groups))) == ["agreement"]


def test_many_groups_must_be_surer_each() -> None:
    few = {"bad": around(0.6, 0.12, 50), "rest": around(0.8, 0.01, 5000)}
    many = {**few, **{f"g{n}": around(0.8, 0.1, 50) for n in range(60)}}
    # The gap of 0.2 is 1.66 half intervals: enough beside one other group (1.5), not among 62 (1.93).
    assert "uneven-groups" in names(findings(audit(by=by(**few))))
    assert "uneven-groups" not in names(findings(audit(by=by(**many))))


def test_hostile_group_names_are_shown_and_cut() -> None:
    groups = by(**{"fine": around(0.9), "\x1b[31m\n" + "x" * 500: around(0.5)})
    text = the("uneven-groups", findings(audit(by=groups))).text
    assert "\x1b" not in text
    assert "\n" not in text
    assert len(text) < 300


@pytest.mark.parametrize(
    ("votes", "severity"), [(around(1.3, 0.1), "warning"), (around(1.8, 0.2), "note"), (around(2.6, 0.3), None)]
)
def test_a_panel_that_errs_together(votes: Figure, severity: str | None) -> None:
    judges = {name: around(0.8) for name in ("one", "two", "three")}
    pair = ErrorCorrelation("one", "two", around(0.4))
    panel = PanelResult(judges, votes, around(0.4), (pair,), around(0.6))
    found = findings(audit(panel=panel))[1:]
    assert [each.severity for each in found] == ([severity] if severity else [])
    if severity:
        assert "The 3 judges" in found[0].text
        assert f"{votes.value:.1f} independent votes" in found[0].text


def test_many_ties_are_those_of_the_judge_alone() -> None:
    of_judge = ((20.0, 30.0, 0.0), (0.0, 0.0, 0.0), (0.0, 20.0, 30.0))
    of_both = ((25.0, 0.0, 0.0), (0.0, 50.0, 0.0), (0.0, 0.0, 25.0))
    found = findings(audit(confusion=of_judge))
    assert names(found) == ["agreement", "many-ties"]
    assert "50.0 % of the labeled rows a tie, people 0.0 %" in found[1].text
    assert names(findings(audit(confusion=of_both))) == ["agreement"]


def test_kappa_misleads_where_labels_are_unequal() -> None:
    # 95 of 100 rows are A to people, 94 to the judge; kappa is (0.91 - 0.896) / (1 - 0.896) = 0.135.
    unequal = ((90.0, 0.0, 5.0), (0.0, 0.0, 0.0), (4.0, 0.0, 1.0))
    figures = {
        "agreement_with_ties": around(0.91), "cohen_kappa": Figure(0.135, -0.1, 0.4, 100), "gwet_ac1": around(0.9),
    }  # fmt: skip
    found = the("imbalance", findings(audit(figures, confusion=unequal)))
    assert "94.5 % of all verdicts" in found.text
    assert "0.90" in found.advice
    equal = ((45.0, 0.0, 5.0), (0.0, 0.0, 0.0), (4.0, 0.0, 46.0))
    assert "imbalance" not in names(findings(audit(figures, confusion=equal)))


def test_labels_of_one_side_accuse_no_judge_of_chance() -> None:
    # People always prefer A: kappa is 0 for every judge, this one that is right on 80 % of the rows too.
    all_a = ((320.0, 0.0, 80.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    figures = {"cohen_kappa": Figure(0.0, -0.05, 0.05, 400)}
    counts = {"rows_judged": 400, "rows_judged_both_orders": 0}
    found = findings(replace(audit(figures, confusion=all_a), counts=counts))
    assert names(found) == ["agreement", "one-sided"]
    assert "response A in all of the 400 rows" in found[1].text
    # Seen in either place, a response does not give away that it is A.
    found = findings(replace(audit(figures, confusion=all_a), counts={**counts, "rows_judged_both_orders": 390}))
    assert names(found) == ["agreement"]


def test_a_judge_right_on_either_side_is_not_random_however_rare_one_is() -> None:
    figures = {"cohen_kappa": Figure(0.06, -0.02, 0.14, 400)}
    right_on_both = ((317.0, 0.0, 79.0), (0.0, 0.0, 0.0), (1.0, 0.0, 3.0))  # 80 % of the A's, 3 of 4 B's
    says_a = ((380.0, 0.0, 16.0), (0.0, 0.0, 0.0), (4.0, 0.0, 0.0))
    assert names(findings(audit(figures, confusion=right_on_both))) == ["agreement"]
    assert names(findings(audit(figures, confusion=says_a))) == ["random"]


def test_a_judge_that_says_the_opposite_does_not_lean_to_what_people_reject() -> None:
    # People take the longer response on 38 %, the judge on the other 62 %: mixed-up columns, not a bias.
    figures = {
        "agreement": around(0.02, 0.01),
        "length_effect": {"longer": around(0.02, n=150), "shorter": around(0.02, n=250), "difference": around(0.0)},
        "length_bias": {"judge": around(0.62, 0.05), "human": around(0.38, 0.05), "difference": around(0.24, 0.06)},
    }
    assert names(findings(audit(figures))) == ["agreement"]


# All together.


def test_the_headline_is_first_and_the_rest_by_severity() -> None:
    figures = {
        **effect(*LENGTH, 0.85, 0.70), "first_position_rate": around(0.9),
        "agreement": Figure(0.8, 0.69, 0.91, 40), "ece": around(0.1),
    }  # fmt: skip
    found = findings(audit(figures, reliability=bins((0.05, 0.13), (0.95, 0.87), half=0.03)))
    assert names(found) == ["agreement", "first-slot", "longer-wins", "few-labels", "overconfident"]
    order = ["serious", "warning", "note", "good"]
    assert [each.severity for each in found[1:]] == sorted((each.severity for each in found[1:]), key=order.index)


numbers = st.floats(0, 1, allow_nan=False)


NAMES = (
    "agreement", "agreement_human_decided", "first_position_rate", "swap_consistency", "cohen_kappa", "gwet_ac1",
    "agreement_with_ties", "ece",
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.tuples(numbers, numbers, numbers)))
def test_any_figures_give_a_headline_and_finite_words(drawn: dict[str, tuple[float, float, float]]) -> None:
    figures = {}
    for name, three in drawn.items():
        low, value, high = sorted(three)
        figures[name] = Figure(value, low, high, 30)
    found = findings(Audit({}, {}, figures))
    assert found
    assert all(each.text and "nan" not in each.text for each in found)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_faults_are_named_first_among_the_biases(name: str) -> None:
    # A coin's 95 % interval misses one half in one audit of 20.
    found = [[each for each in of_planted(PLANTED[name].judge, seed) if each in BIASES] for seed in range(4)]
    right = [each[:1] == [PLANTED[name].finding] for each in found]
    assert sum(right) >= 3, found


@pytest.mark.parametrize("name", FAIR)
def test_a_fair_judge_is_accused_of_nothing(name: str) -> None:
    # Where it is accused in one audit of 100, eight hold two accusations with a probability of 0.3 %.
    found = [of_planted(FAIR[name], seed, count=200, longer=0.7, lists=0.7) for seed in range(8)]
    accused = Counter(each for one in found for each in set(one) & BIASES)
    assert accused.total() <= 1, accused
    assert all(set(each) - BIASES for each in found)  # and something is said of it


def test_exchanging_a_and_b_changes_no_word() -> None:
    table = plant(PLANTED["leans to longer"].judge, 3)
    there, back = audit_table(table, resamples=200), audit_table(table.swapped(), resamples=200)
    assert findings(replace(there, findings=())) == findings(back)
