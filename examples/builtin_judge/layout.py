"""The prompts the judge reads, cut into pieces: the same text as `rlaif`'s templates render, known by its origin.

The literals here repeat `prompts/pairwise/base.jinja` and `prompts/rating/base.jinja`; a test holds both against the
real renderer. Preambles, default questions and exemplars are read from the templates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import FileSystemLoader
from jinja2.sandbox import SandboxedEnvironment

from rlaif.assets import find_asset
from rlaif.judge.templates import PairwiseTemplate
from rlaif.records import Comparison, Order, Turn

TASKS = ("helpfulness", "harmlessness", "summarization", "instruction-following")
PLAIN_PREAMBLE = (
    "You are a careful rater. You read one prompt and two responses to it, and decide which response is better."
)


class Piece(NamedTuple):
    """A stretch of a prompt: `segment` is "template", "prompt", "first", "second", or "exemplar"."""

    text: str
    segment: str


class Exemplar(NamedTuple):
    """A worked example, as the templates show it."""

    prompt: str
    first: str
    second: str
    question: str
    label: str


@dataclass(frozen=True)
class Layout:
    """Literals and texts of the shipped templates."""

    preambles: dict[str, str]
    detailed: dict[str, str]
    questions: dict[str, str]
    rating_preambles: dict[str, str]
    rating_questions: dict[str, str]
    standard: str = "How well does this response meet the following standard?"
    pairwise_cue: str = "\nPreferred response (1 or 2):"
    rating_cue: str = "\nRating (1 to 10):"
    reasons_cue: str = (
        "\nExplain in a few sentences how each response does on this question. Do not name the winner yet."
    )
    verdict_cue: str = "Preferred response (1 or 2):"

    def default_question(self, task: str) -> str:
        """What a task asks where no principle is given."""
        return self.questions[task]

    def draw_preamble(self, rng: random.Random, task: str) -> str:
        """Mostly the task's base preamble; sometimes another's, the plain one, parts of it, or the detailed one."""
        draw = rng.random()
        if draw < 0.02:
            return self.detailed[task]
        if draw < 0.25:
            return self.preambles[rng.choice(TASKS)]
        if draw < 0.40:
            return PLAIN_PREAMBLE
        if draw < 0.55:
            return self.preambles[task].split(". ")[0] + "."
        return self.preambles[task]

    def draw_rating_preamble(self, rng: random.Random, task: str) -> str:
        """Mostly the task's own rating preamble, sometimes another's or part of it."""
        draw = rng.random()
        text = self.rating_preambles[task if draw < 0.75 else rng.choice(TASKS)]
        return text if draw < 0.9 else text.split(". ")[0] + "."

    def pairwise(
        self,
        preamble: str,
        turns: tuple[tuple[str, str], ...],
        first: str,
        second: str,
        exemplars: Sequence[Exemplar] = (),
    ) -> list[Piece]:
        """A comparison's prompt up to its question."""
        shown: list[Piece] = []
        start = preamble
        for number, exemplar in enumerate(exemplars, 1):
            shown += _exemplar_pieces(start, number, exemplar)
            start = ""
        return [
            *shown,
            Piece(
                f"{start}\n\n{'## Your turn' if shown else ''}{chr(10) * 2 if shown else ''}### Prompt\n", "template"
            ),
            *turn_pieces(turns),
            Piece("\n\n### Response 1\n", "template"),
            Piece(first, "first"),
            Piece("\n\n### Response 2\n", "template"),
            Piece(second, "second"),
            Piece("\n\n### Question\n", "template"),
        ]

    def rating(self, preamble: str, turns: tuple[tuple[str, str], ...], response: str) -> list[Piece]:
        """A rating's prompt up to its question."""
        return [
            Piece(f"{preamble}\n\n### Prompt\n", "template"),
            *turn_pieces(turns),
            Piece("\n\n### Response\n", "template"),
            Piece(response, "first"),
            Piece("\n\n### Question\n", "template"),
        ]


def turn_pieces(turns: tuple[tuple[str, str], ...]) -> list[Piece]:
    """A conversation as the templates show it: one turn alone as it is, several with their roles."""
    if len(turns) == 1:
        return [Piece(turns[0][1], "prompt")]
    pieces: list[Piece] = []
    for role, text in turns:
        if pieces:
            pieces.append(Piece("\n\n", "template"))
        pieces += [Piece(role.capitalize(), "prompt"), Piece(":", "template"), Piece(f" {text}", "prompt")]
    return pieces


def _exemplar_pieces(start: str, number: int, exemplar: Exemplar) -> list[Piece]:
    texts = [
        (f"{start}\n\n## Example", f" {number}"),
        ("\n\n### Prompt\n", exemplar.prompt),
        ("\n\n### Response 1\n", exemplar.first),
        ("\n\n### Response 2\n", exemplar.second),
        ("\n\n### Question\n", exemplar.question),
        ("\nPreferred response (1 or 2):", f" {exemplar.label}"),
    ]
    return [piece for literal, value in texts for piece in (Piece(literal, "template"), Piece(value, "exemplar"))]


def read_layout() -> Layout:
    """Preambles and default questions as the shipped templates render them."""
    sample = Comparison("x", (Turn("user", "p"),), "a", "b")
    texts: dict[str, dict[str, str]] = {"base": {}, "detailed": {}, "rating": {}}
    questions: dict[str, str] = {}
    rating_questions: dict[str, str] = {}
    for task in TASKS:
        for style in ("base", "detailed"):
            message = PairwiseTemplate(task, preamble=style).render(sample, Order.AB)[0]
            text = message.content
            texts[style][task] = text.split("\n\n### Prompt\n")[0]
            questions[task] = text.split("### Question\n")[1].split("\nPreferred")[0]
        text = _render_rating(task)
        texts["rating"][task] = text.split("\n\n### Prompt\n")[0]
        rating_questions[task] = text.split("### Question\n")[1].split("\nRating")[0]
    return Layout(texts["base"], texts["detailed"], questions, texts["rating"], rating_questions)


def _render_rating(task: str) -> str:
    environment = SandboxedEnvironment(
        loader=FileSystemLoader(str(find_asset("prompts", "rating/base.jinja").parents[1]))
    )
    template = environment.get_template(f"rating/{task}.jinja")
    turns = (Turn("user", "p"),)
    return template.render(preamble="base", exemplars=(), cot=False, principle=None, turns=turns, response="a")
