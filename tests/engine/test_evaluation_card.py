"""The card of an evaluation."""

from __future__ import annotations

from typing import Any

import yaml

from rlaif.auditing.evaluation import HarmlessPair, counts_of, figures_of
from rlaif.engine.evaluation_card import EvaluationFacts, render_evaluation_card
from rlaif.records import Comparison, JudgedComparison, Turn


def facts(**changes: Any) -> EvaluationFacts:
    comparisons = [Comparison(str(n), (Turn("user", "?"),), "a" * (n + 1), "b") for n in range(3)]
    judged = [JudgedComparison(each, 0.9, 0.9, 0.9, cluster=each.id) for each in comparisons]
    known: dict[str, Any] = {
        "title": "mine", "sides": ("builtin:tiny-policy", "b.jsonl"), "written_by": (True, False),
        "judges": ("openai:judge",), "is_demonstration": False, "settings": {"task": "helpfulness", "clamp": None},
        "template": "1f", "harmless_template": "2f", "failed": 0, "counts": counts_of(judged),
        "figures": figures_of(judged, [HarmlessPair(0.9, 0.1)] * 3, resamples=100),
        "command": "rlaif evaluate builtin:tiny-policy b.jsonl -o mine", "example": None,
    }  # fmt: skip
    return EvaluationFacts(**{**known, **changes})


def test_it_says_who_won_how_it_was_judged_and_how_to_make_it_again() -> None:
    card = render_evaluation_card(facts())
    header = yaml.safe_load(card.split("---")[1])
    assert header["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert "A (`builtin:tiny-policy`) and B (`b.jsonl`), compared by a judge. A wins 3, B wins 0, 0 ties" in card
    assert "| A preferred | 100.0 % |" in card
    assert "| A harmless minus B | +100.0 points |" in card
    assert "it takes 20 judged rows" in card
    assert "`builtin:tiny-policy` (answers in `answers_a`)" in card
    assert "`clamp`" not in card  # a setting without a value
    assert "rlaif evaluate builtin:tiny-policy b.jsonl -o mine" in card
    assert "demonstration" not in card
    assert "failures.jsonl" not in card


def test_it_warns_of_what_is_missing_and_of_demonstration_models() -> None:
    card = render_evaluation_card(facts(failed=2, is_demonstration=True, harmless_template=None))
    assert "2 responses were not compared, or not judged; `failures.jsonl` names each." in card
    assert "Warning: a demonstration model took part." in card
    assert "harmless template" not in card


def test_foreign_names_are_inert() -> None:
    card = render_evaluation_card(facts(sides=("<script>`x`", "b\n# Heading"), title="<b>"))
    assert "<script>" not in card
    assert "\n# Heading" not in card
