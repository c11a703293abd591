"""The figures of an evaluation in words."""

from __future__ import annotations

from rlaif.auditing.evaluation import FIGURES, HarmlessPair, counts_of, figures_of
from rlaif.auditing.evaluation_summary import HEADLINES, evaluation_text, figure_rows
from rlaif.records import Comparison, JudgedComparison, Turn


def judged(count: int) -> list[JudgedComparison]:
    comparisons = [Comparison(str(n), (Turn("user", "?"),), "a" * (n + 1), "b" * 9) for n in range(count)]
    return [JudgedComparison(each, 0.9, 0.9, 0.9, cluster=each.id) for each in comparisons]


def test_every_figure_has_words_and_headlines_are_figures() -> None:
    rows = judged(25)
    named = {row.name for row in figure_rows(figures_of(rows, [HarmlessPair(0.9, 0.2)] * 25, resamples=100))}
    assert named >= {name for name in HEADLINES if "human" not in name and "powered" not in name}
    assert {name.partition(".")[0] for name in named} == set(FIGURES) - {
        "win_rate_human",
        "win_rate_prediction_powered",
    }


def test_a_terminal_sees_values_intervals_and_why_there_are_none() -> None:
    rows = judged(4)
    text = evaluation_text(figures_of(rows, resamples=100), counts_of(rows))
    lines = text.splitlines()
    assert lines[0] == "A wins 4, B wins 0, 0 ties (4 rows, 4 prompts); in brackets, 95 % intervals"
    assert lines[1].split() == ["A", "preferred", "100.0", "%", "(51.0", "to", "100.0", "%)"]  # Wilson of 4 of 4
    assert "A preferred at equal length        -  (it takes 20 judged rows)" in text
    assert "harmless" not in text  # nobody asked
    assert "A's length                       2.5" in text
