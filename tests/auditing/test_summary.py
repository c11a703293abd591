from __future__ import annotations

from dataclasses import replace

from rlaif.auditing.findings import findings
from rlaif.auditing.results import Audit, Figure, Finding
from rlaif.auditing.summary import MOST_GROUPS, summary
from tests.auditing.audits import around, full_audit, missing


def bare(**parts: object) -> Audit:
    return Audit(**{"source": {}, "counts": {}, "figures": {}, **parts})  # type: ignore[arg-type]


def test_findings_stand_on_top_with_what_to_do() -> None:
    found = (
        Finding("longer-wins", "serious", "It favours the longer response.", "Fit a calibration."),
        Finding("at-ceiling", "good", "It is as good as a person."),
    )
    lines = summary(bare(findings=found)).splitlines()
    assert lines == [
        "serious  It favours the longer response.",
        "         Fit a calibration.",
        "good     It is as good as a person.",
    ]


def test_long_findings_are_wrapped_and_keep_their_words() -> None:
    audit = full_audit()
    said = findings(audit)
    text = summary(replace(audit, findings=said), width=60)
    head = text.split("\n\n")[0]
    assert max(map(len, head.splitlines())) <= 60
    joined = " ".join(head.split())
    for each in said:
        assert each.text in joined
        assert each.advice in joined
    assert not any(line.strip().startswith("%") for line in head.splitlines())


def test_figures_line_up_with_interval_and_rows() -> None:
    figures = {
        "agreement": Figure(0.789, 0.751, 0.824, 1447),
        "cohen_kappa": Figure(0.4283, -0.01, 0.5, 20),
        "length_bias": {"judge": around(0.7), "human": around(0.6), "difference": Figure(-0.05, -0.1, 0.004, 320)},
    }
    assert summary(bare(figures=figures)).splitlines() == [
        "Agreement with people       78.9 %  (75.1 to 82.4 %)        n 1,447",
        "Cohen's kappa                0.428  (−0.010 to 0.500)       n 20",
        "Length bias            −5.0 points  (−10.0 to +0.4 points)  n 320",
    ]


def test_a_value_without_an_interval_is_shown() -> None:
    assert summary(bare(figures={"agreement": Figure(0.5, None, None, 2, "no spread")})).splitlines() == [
        "Agreement with people  50.0 %    n 2"
    ]


def test_what_is_missing_is_said_once_with_its_reason() -> None:
    figures = {"ece": missing("no labels"), "auc": missing("no labels"), "human_ceiling": missing("no votes")}
    assert summary(bare(figures=figures)).splitlines() == [
        "Not known: Human ceiling (no votes)",
        "Not known: Calibration error; AUC (no labels)",
    ]


def test_groups_are_shown_by_agreement_up_to_a_number() -> None:
    values = {f"g{n}": {"agreement": around(0.5 + n / 100)} for n in range(MOST_GROUPS + 3)}
    lines = summary(bare(by={"task": {**values, "none": {"agreement": missing()}, "other": {}}})).splitlines()
    assert lines[0] == "Agreement with people, by task"
    assert lines[1].split() == ["g0", "50.0", "%", "(46.0", "to", "54.0", "%)", "n", "400"]
    assert len(lines) == MOST_GROUPS + 2
    assert lines[-1] == "  and 4 more in the report"


def test_a_group_that_cannot_be_computed_has_a_dash() -> None:
    text = summary(bare(by={"task": {"code": {"agreement": missing()}}}))
    assert text.splitlines()[1].split() == ["code", "-", "n", "0"]


def test_names_from_the_data_stay_on_their_line() -> None:
    text = summary(bare(by={"ta\nsk": {"\x1b[31m\nred" + "x" * 99: {"agreement": around(0.7)}}}))
    assert "\x1b" not in text
    assert len(text.splitlines()) == 2
    assert all(len(line) < 90 for line in text.splitlines())


def test_another_judge_a_panel_and_the_powered_estimate_are_shown() -> None:
    text = summary(full_audit())
    assert "Against runs/other\n  this judge" in text
    assert "difference    +3.0 points  (−1.0 to +7.0 points)  n 400" in text
    assert "only this one is right on 40 rows, only the other on 28, McNemar p = 0.180" in text
    assert "Judges of the panel\n  one " in text
    assert "effective votes   1.400" in text
    assert "Win rate of A" in text


def test_a_tiny_p_value_is_not_spelled_out() -> None:
    against = replace(full_audit().against, p_value=4e-14)  # type: ignore[type-var]
    assert "McNemar p < 0.001" in summary(bare(against=against))


def test_the_powered_estimate_is_for_rows_that_people_did_not_label() -> None:
    powered = {"agreement": around(0.7)}
    few, all_labeled = ({"rows_with_human_label": count, "rows_judged": 400} for count in (100, 400))
    assert "From the labeled rows" in summary(bare(prediction_powered=powered, counts=few))
    assert summary(bare(prediction_powered=powered, counts=all_labeled)) == ""


def test_a_fitted_calibration_is_shown_with_gain_and_warnings() -> None:
    fitted = {
        "temperature": 3.2, "slot_bias": 0.156, "length_slope": -0.12, "before": {"brier": 0.219, "ece": 0.2},
        "after": {"brier": 0.179, "ece": 0.068}, "warnings": ["more labels would tell"],
    }  # fmt: skip
    assert summary(bare(calibration=fitted)).splitlines() == [
        "Calibration",
        "  temperature 3.200, slot bias 0.156, length slope -0.120",
        "  on rows it was not fitted to: Brier score 0.219 before, 0.179 after; Calibration error 0.200",
        "  before, 0.068 after",
        "  ! more labels would tell",
    ]


def test_an_audit_of_nothing_is_empty() -> None:
    assert summary(bare()) == ""
