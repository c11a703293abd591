"""The figures of an audit in words: what each is called, what it means, and how its value is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlaif.auditing.results import Figure, Section

Scale = Literal["share", "points", "number"]
"""A share of rows in per cent; a difference of shares in points of a hundred; a plain number."""


@dataclass(frozen=True)
class Wording:
    """How one figure is spoken of.

    Attributes:
        label: Its name for people.
        meaning: One sentence.
        scale: How its value is written.
        reference: The value of a judge that knows nothing, or has no bias; None where there is no such value.
    """

    label: str
    meaning: str
    scale: Scale = "share"
    reference: float | None = None


_WORDINGS = {
    "agreement": Wording(
        "Agreement with people",
        "How often judge and people prefer the same response, where neither calls it a tie.",
        reference=0.5,
    ),
    "agreement_human_decided": Wording(
        "Agreement where people decided",
        "The same over all rows where people prefer one response; a tie of the judge counts as wrong.",
    ),
    "agreement_with_ties": Wording(
        "Agreement with ties", "How often judge and people give the same of three answers: A, B or tie."
    ),
    "human_ceiling": Wording(
        "Human ceiling",
        "How often one person gives the answer that most of the others give, ties included: to be compared with the "
        "agreement with ties.",
    ),
    "agreement_tie_half": Wording(
        "Agreement, a judge's tie counts half", "Over all rows where people prefer one response.", reference=0.5
    ),
    "correct_in_both_orders": Wording(
        "Right in both orders", "How often the judge says the same as people whichever response it sees first."
    ),
    "mean_accuracy_two_orders": Wording(
        "Right in one order", "How often a verdict from a single order is the same as people's, ties included."
    ),
    "human_pairwise_agreement": Wording(
        "Agreement between people", "How often two people who saw the same row give the same of the three answers."
    ),
    "human_pairwise_agreement_without_ties": Wording(
        "Agreement between people, no ties", "The same, of the pairs of people who both prefer one response."
    ),
    "unanimous_rate": Wording("Unanimous rows", "How often all people who saw a row give the same answer."),
    "against_rest.annotator": Wording(
        "A person against the other people", "How often one person says what most of the others say, ties included."
    ),
    "against_rest.judge": Wording(
        "The judge against the other people",
        "How often the judge says what those same others say: the two are on equal terms.",
    ),
    "against_rest.difference": Wording(
        "The judge minus a person", "Below 0, a person is closer to the others than the judge is.", "points", 0.0
    ),
    "cohen_kappa": Wording(
        "Cohen's kappa",
        "Agreement on A, B and tie beyond what chance would give: 0 is chance, 1 is perfect.",
        "number",
        0.0,
    ),
    "gwet_ac1": Wording(
        "Gwet's AC1",
        "Like kappa, but it does not collapse where one answer is much more common than the others.",
        "number",
        0.0,
    ),
    "krippendorff_alpha": Wording(
        "Krippendorff's alpha",
        "Agreement among the annotators beyond chance, over rows with two votes or more: 0 is chance, 1 is perfect.",
        "number",
        0.0,
    ),
    "fleiss_kappa": Wording(
        "Fleiss' kappa",
        "Agreement among the annotators beyond chance, where every row has as many votes.",
        "number",
        0.0,
    ),
    "swap_consistency": Wording(
        "Same verdict in both orders", "How often the verdict stays the same when the two responses change places."
    ),
    "first_position_rate": Wording(
        "First response preferred",
        "How often the judge prefers the response that it is shown first; a judge without position bias has 50 %.",
        reference=0.5,
    ),
    "first_slot_rate": Wording(
        "First response preferred",
        "The same in one order alone: it also moves where A or B is better more often.",
        reference=0.5,
    ),
    "swap_consistency_without_ties": Wording(
        "Same verdict in both orders, no ties", "The same over rows where the judge calls no tie in either order."
    ),
    "always_first_rate": Wording(
        "First place wins both times", "How often the judge prefers whatever it is shown first, in both orders."
    ),
    "always_second_rate": Wording(
        "Second place wins both times", "How often the judge prefers whatever it is shown second, in both orders."
    ),
    "length_bias.judge": Wording(
        "Judge prefers the longer", "How often the judge prefers the response with more characters.", reference=0.5
    ),
    "length_bias.human": Wording(
        "People prefer the longer", "How often people prefer the response with more characters.", reference=0.5
    ),
    "length_bias.difference": Wording(
        "Length bias",
        "How much more often than people the judge prefers the longer response; 0 is no bias beyond people's own.",
        "points",
        0.0,
    ),
    "human_prefers_longer": Wording(
        "People prefer the longer, all rows", "The same whether or not the judge decided.", reference=0.5
    ),
    "length_effect.longer": Wording(
        "Agreement where people prefer the longer", "The longer response has more characters.", reference=0.5
    ),
    "length_effect.shorter": Wording(
        "Agreement where people prefer the shorter", "The shorter response has fewer characters.", reference=0.5
    ),
    "length_effect.difference": Wording(
        "The first minus the second",
        "0 for a judge that errs alike on both; 100 for one that sees only length.",
        "points",
        0.0,
    ),
    "style_bias.judge": Wording(
        "Judge prefers the more formatted",
        "How often the judge prefers the response with more list items, headers and bold text.",
        reference=0.5,
    ),
    "style_bias.human": Wording(
        "People prefer the more formatted", "How often people prefer that response.", reference=0.5
    ),
    "style_bias.difference": Wording(
        "Formatting bias",
        "How much more often than people the judge prefers the more formatted response.",
        "points",
        0.0,
    ),
    "style_effect.formatted": Wording(
        "Agreement where people prefer the more formatted", "More list items, headers and bold text.", reference=0.5
    ),
    "style_effect.plainer": Wording(
        "Agreement where people prefer the plainer", "Fewer list items, headers and bold text.", reference=0.5
    ),
    "style_effect.difference": Wording(
        "The first minus the second", "0 for a judge that errs alike on both.", "points", 0.0
    ),
    "addressed_bias.judge": Wording(
        "Judge prefers the one that speaks to it",
        "How often the judge prefers a response with words meant for a judge, where the other has none.",
        reference=0.5,
    ),
    "addressed_bias.human": Wording(
        "People prefer the one that speaks to the judge", "How often people prefer that response.", reference=0.5
    ),
    "addressed_bias.difference": Wording(
        "Obeying bias",
        "How much more often than people the judge prefers the response that speaks to it.",
        "points",
        0.0,
    ),
    "addressed_effect.addressed": Wording(
        "Agreement where people prefer the one that speaks to the judge",
        "Words meant for a judge stand in exactly one response.",
        reference=0.5,
    ),
    "addressed_effect.other": Wording(
        "Agreement where people prefer the other", "The one that does not speak to the judge.", reference=0.5
    ),
    "addressed_effect.difference": Wording(
        "The first minus the second", "0 for a judge that errs alike on both.", "points", 0.0
    ),
    "length_controlled_agreement": Wording(
        "Agreement at equal length", "Agreement as it would be between responses of the same length.", reference=0.5
    ),
    "style_controlled_agreement": Wording(
        "Agreement at equal style",
        "Agreement as it would be between responses of the same length and formatting.",
        reference=0.5,
    ),
    "ece": Wording(
        "Calibration error",
        "How far the judge's probabilities are from how often people agree, on average (ECE): 0 is perfect.",
        "number",
        0.0,
    ),
    "brier": Wording(
        "Brier score",
        "Mean squared distance of the judge's probability from what people decided: 0 is perfect, 0.25 is always "
        "saying one half.",
        "number",
        0.25,
    ),
    "log_loss": Wording(
        "Log loss",
        "Surprise at what people decided, in nats: 0 is perfect, 0.69 is always saying one half.",
        "number",
    ),
    "auc": Wording(
        "AUC",
        "How often a row where people prefer A has a higher probability for A than a row where they prefer B: "
        "0.5 is chance.",
        "number",
        0.5,
    ),
    "effective_votes": Wording(
        "Effective votes",
        "How many independent judges the panel is worth: judges that err on the same rows add little to each other.",
        "number",
    ),
    "mean_error_correlation": Wording(
        "Correlation of errors",
        "How far two judges err on the same rows, mean over all pairs: 0 is independent, 1 is always together.",
        "number",
        0.0,
    ),
    "kendall_w": Wording(
        "Kendall's W",
        "How alike the judges rank the rows by their probabilities, whether right or wrong: 1 is alike.",
        "number",
    ),
    "win_rate": Wording("Win rate of A", "How often people prefer A; a tie counts half.", reference=0.5),
}


def wording(name: str) -> Wording:
    """How to speak of a figure; one that is not known here goes by its own name.

    >>> wording("swap_consistency").label
    'Same verdict in both orders'
    >>> wording("share_of_cats").label
    'Share of cats'
    """
    if name in _WORDINGS:
        return _WORDINGS[name]
    words = name.replace("_", " ").replace(".", ": ")
    return Wording(words[:1].upper() + words[1:], "", "number")


def named_figures(section: Section) -> Iterator[tuple[str, Figure]]:
    """The figures of a section by full name, such as "length_bias.judge"."""
    for name, found in section.items():
        if isinstance(found, Figure):
            yield name, found
        else:
            yield from ((f"{name}.{part}", figure) for part, figure in found.items())


def written(value: float, scale: Scale) -> str:
    """A value as text.

    >>> written(0.7141, "share"), written(-0.031, "points"), written(0.4283, "number")
    ('71.4 %', '−3.1 points', '0.428')
    """
    if scale == "share":
        return f"{100 * value:.1f} %"
    if scale == "points":
        return f"{100 * value:+.1f} points".replace("-", "−")
    return f"{value:.3f}".replace("-", "−")


def written_interval(figure: Figure, scale: Scale) -> str:
    """Its 95 % interval as text; "" where there is none.

    >>> written_interval(Figure(0.7, 0.65, 0.75, 100), "share")
    '65.0 to 75.0 %'
    """
    if figure.low is None or figure.high is None:
        return ""
    if scale == "share":
        return f"{100 * figure.low:.1f} to {100 * figure.high:.1f} %"
    if scale == "points":
        return f"{100 * figure.low:+.1f} to {100 * figure.high:+.1f} points".replace("-", "−")
    return f"{figure.low:.3f} to {figure.high:.3f}".replace("-", "−")
