"""Responses that can be revised: sentences that know what they are for, so that an edit changes what it is asked to.

Sentences are those of the judge's grammar (`builtin_judge.writing`); here stands only how they are put together.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from builtin_judge.grammar import Scene
from builtin_judge.lexicon import Lexicon
from builtin_judge.writing import (
    Plan,
    Topic,
    draw_topic,
    fixed_phrase,
    refusal_sentences,
    sentence_case,
    write_sentences,
)

Role = Literal["body", "vague", "refusal", "alternative", "comply", "rude", "polite", "hedge", "confident"]
"""What a sentence is for: "body" says something of the topic, "vague" pretends to; "refusal" declines, "comply" helps
with harm; the last four are courtesies, insults, doubts and assertions."""

EVEN = (1, 1, 1)
"""Chances of three places."""


@dataclass(frozen=True, slots=True)
class Part:
    """One sentence: its role, its text without capital and end, and a doubt or an assertion in front of it."""

    role: Role
    text: str
    prefix: str = ""
    prefix_role: Role | None = None

    @property
    def shown(self) -> str:
        """The sentence as it is written, without its end."""
        return sentence_case(f"{self.prefix} {self.text}", "")

    def quote(self, role: Role) -> str:
        """What of the sentence plays a role: its prefix or all of it."""
        return sentence_case(self.prefix, "").rstrip(",:") if self.prefix_role == role else self.shown


@dataclass(frozen=True, slots=True)
class Draft:
    """A response as its sentences.

    Attributes:
        scene: What it answers.
        parts: At least one.
        topic: What it speaks of; another than the scene's where it is off topic.
        refuses: Whether it declines.
    """

    scene: Scene
    parts: tuple[Part, ...]
    topic: Topic
    refuses: bool = False

    @property
    def text(self) -> str:
        return " ".join(sentence_case(f"{part.prefix} {part.text}") for part in self.parts)

    @property
    def is_off_topic(self) -> bool:
        return self.topic.full != self.scene.topic.full

    @property
    def helps_with_harm(self) -> bool:
        return self.scene.situation.is_harmful and not self.refuses

    def first(self, role: Role) -> Part | None:
        """The first sentence of a role, or that begins with such a phrase."""
        return next((part for part in self.parts if role in (part.role, part.prefix_role)), None)

    def count(self, *roles: Role) -> int:
        return sum(part.role in roles for part in self.parts)


CONTENT: tuple[Role, ...] = ("body", "vague", "comply")


def write_draft(rng: random.Random, words: Lexicon, scene: Scene, plan: Plan) -> Draft:
    """A response by plan, as `builtin_judge.grammar.make_response` would put it, without constraint and summary."""
    if plan.refuses:
        draft = Draft(scene, tuple(refusal_parts(rng, words, scene.topic, plan)), scene.topic, refuses=True)
        return add_tone(rng, words, draft, plan.tone)
    topic = scene.topic
    if scene.situation.is_harmful:
        parts = comply_parts(rng, words, topic, plan.sentences, opens=rng.random() < 0.7)
    else:
        topic = topic if plan.on_topic else draw_topic(rng, words, avoid=topic.full)
        parts = body_parts(rng, words, topic, plan)
    draft = add_certainty(rng, words, Draft(scene, tuple(parts), topic), plan.certainty)
    return add_tone(rng, words, draft, plan.tone)


def body_parts(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> list[Part]:
    """Sentences about a topic."""
    return _once(
        Part("vague" if kind == "vague" else "body", text) for kind, text in write_sentences(rng, words, topic, plan)
    )


def refusal_parts(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> list[Part]:
    """Sentences that decline, and those that offer something else."""
    sentences = refusal_sentences(rng, words, topic, replace(plan, alternative=False))
    parts = [Part("refusal", text) for text in sentences]
    if plan.alternative:
        count = max(1, min(plan.sentences - 1, 3))
        parts += [Part("alternative", fixed_phrase(rng, words, topic, "alternatives")) for _ in range(count)]
    return _once(parts)


def comply_parts(rng: random.Random, words: Lexicon, topic: Topic, count: int, *, opens: bool) -> list[Part]:
    """Sentences that go along with a harmful request; they tell nothing of use."""
    sections = (["comply_openers"] if opens else []) + ["comply_bodies"] * count
    return _once(Part("comply", fixed_phrase(rng, words, topic, section)) for section in sections)


def add_certainty(
    rng: random.Random, words: Lexicon, draft: Draft, certainty: int, chances: tuple[int, int, int] = EVEN
) -> Draft:
    """Doubts (1) or assertions (-1) in front of a sentence, as a sentence, or both, by `chances`; 0 adds none."""
    if not certainty or draft.refuses:
        return draft
    role: Role = "hedge" if certainty > 0 else "confident"
    parts = list(draft.parts)
    where = rng.choices(("prefix", "sentence", "both"), chances)[0]
    if where != "sentence":
        spot = rng.choice([i for i, part in enumerate(parts) if part.role in CONTENT])
        prefix = fixed_phrase(rng, words, draft.topic, f"{role}_prefixes")
        parts[spot] = replace(parts[spot], prefix=prefix, prefix_role=role)
    if where != "prefix":
        low, high = _span(parts)
        extra = Part(role, fixed_phrase(rng, words, draft.topic, f"{role}_sentences"))
        parts.insert(low if chances == EVEN and rng.random() < 0.33 else high, extra)
    return replace(draft, parts=tuple(parts))


def add_tone(
    rng: random.Random, words: Lexicon, draft: Draft, tone: int, chances: tuple[int, int, int] = EVEN
) -> Draft:
    """A courtesy (1) or an insult (-1) before the rest, after it, or both, by `chances`; 0 adds none."""
    if not tone:
        return draft
    role: Role = "polite" if tone > 0 else "rude"
    place = rng.choices(("start", "end", "both"), chances)[0]
    opening = [Part(role, fixed_phrase(rng, words, draft.topic, f"{role}_openers"))] if place != "end" else []
    closing = [Part(role, fixed_phrase(rng, words, draft.topic, f"{role}_closers"))] if place != "start" else []
    return replace(draft, parts=(*opening, *draft.parts, *closing))


def without(draft: Draft, *roles: Role) -> Draft:
    """The draft less its sentences and prefixes of these roles."""
    kept = [part for part in draft.parts if part.role not in roles]
    cleared = [replace(p, prefix="", prefix_role=None) if p.prefix_role in roles else p for p in kept]
    return replace(draft, parts=tuple(cleared))


def insert_after_content(draft: Draft, new: Iterable[Part]) -> Draft:
    """The draft with sentences added where what it has to say ends, before a courtesy or an insult."""
    parts = list(draft.parts)
    _, high = _span(parts)
    fresh = [part for part in new if part.text not in {old.text for old in parts}]
    return replace(draft, parts=(*parts[:high], *fresh, *parts[high:]))


def _span(parts: list[Part]) -> tuple[int, int]:
    """Where the content begins and ends: between opening and closing."""
    inner = [i for i, part in enumerate(parts) if part.role not in ("rude", "polite")]
    return inner[0], inner[-1] + 1


def _once(parts: Iterable[Part]) -> list[Part]:
    return list({part.text: part for part in parts}.values())
