from __future__ import annotations

from auditing.audits import named, row

from rlaif.auditing.disagreements import Kind, disagreements, entry_of, texts_of


def test_rows_that_agree_are_left_out() -> None:
    assert disagreements([row("right", prob_a=0.9, human="a"), row("unknown", prob_a=0.9, human=None)]) == []


def test_kinds() -> None:
    rows = [
        row("contradicts", prob_a=0.9, human="b"),
        row("judge ties", prob_a=0.5, human="b"),
        row("people tie", prob_a=0.9, human="tie"),
        row("order", prob_a=0.6, orders=(0.9, 0.3), human="a"),
        row("both", prob_a=0.6, orders=(0.9, 0.3), human="b"),
        row("no answer", prob_a=None, orders=(0.9, None), human="b"),
    ]
    assert {each.row.comparison.id: each.kinds for each in disagreements(rows)} == {
        "contradicts": Kind.CONTRADICTS,
        "judge ties": Kind.ONE_TIED,
        "people tie": Kind.ONE_TIED,
        "order": Kind.ORDER,
        "both": Kind.CONTRADICTS | Kind.ORDER,
    }


def test_worst_first() -> None:
    rows = [
        row("order", prob_a=0.6, orders=(0.9, 0.3), human=None),
        row("far orders", prob_a=0.5, orders=(1.0, 0.0), human=None),
        row("people tie", prob_a=0.99, human="tie"),
        row("judge ties", prob_a=0.5, human="b"),
        row("unsure", prob_a=0.6, human="b"),
        row("sure", prob_a=0.05, human="a", votes=("a", "b", "a")),
        row("sure, people too", prob_a=0.95, human="b", votes=("b", "b", "b")),
    ]
    ids = [each.row.comparison.id for each in disagreements(rows)]
    assert ids == ["sure, people too", "sure", "unsure", "judge ties", "people tie", "far orders", "order"]


def test_tie_band_makes_ties() -> None:
    rows = [row("near", prob_a=0.52, human="b")]
    assert disagreements(rows)[0].kinds is Kind.CONTRADICTS
    assert disagreements(rows, tie_band=0.05)[0].kinds is Kind.ONE_TIED


def test_entry_holds_what_a_table_shows() -> None:
    # 0.75 = the mean of both orders; votes count a, tie, b.
    judged = row("r", prob_a=0.75, orders=(0.9, 0.6), human="b", votes=("b", "tie", "b"), responses=("four", "seven77"))
    (found,) = disagreements([judged])
    assert entry_of(found) == ["r", 1, "b", [0, 1, 2], "a", 0.75, 0.9, 0.6, 4, 7]


def test_texts_spell_out_what_is_invisible_and_stop_somewhere() -> None:
    judged = row(
        "r", prompt=[("system", "Be\x1b[31m"), ("user", "\u202eWhy?")], responses=("x" * 120, ""),
        rationale_ab="good", by_judge=(named("one", 0.7),),
    )  # fmt: skip
    texts = texts_of(disagreements([judged])[0], cut=100)
    assert texts["prompt"] == [["system", "Be\\x1b[31m"], ["user", "\\u202eWhy?"]]
    assert texts["a"] == "x" * 100 + "\n[... 20 more characters are not shown here]"
    assert texts["b"] == ""
    assert texts["reasons"] == ["good", None]
    assert texts["judges"] == [["one", 0.7, 0.7, None]]
