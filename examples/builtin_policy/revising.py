"""What there is to say of a draft under each kind of principle, and the draft as it should have been.

`REVISERS` is the ground truth that the policy learns: each finds at most one thing, names it, and changes the draft
along the axis that was asked for; the rest stays to the letter. Where nothing is found, the draft stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from builtin_judge.lexicon import Lexicon
from builtin_judge.writing import Plan

from .drafts import (
    CONTENT,
    Draft,
    Role,
    add_certainty,
    add_tone,
    body_parts,
    comply_parts,
    insert_after_content,
    refusal_parts,
    without,
)

LONG = 6
"""Sentences of content at which there is nothing to add."""
ENOUGH = 3
"""Concrete sentences at which an answer is good."""

AFTER = (2, 7, 1)
"""Chances of where a revision adds something: mostly behind what it keeps, so that it begins as the response did."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What stands out in a draft: its name among `critiques` of phrases.yaml, the sentence to quote, and the result."""

    name: str
    revised: Draft
    quote: str = ""


Reviser = Callable[[random.Random, Lexicon, Draft], Finding]


def _tone(wanted: Role) -> Reviser:
    unwanted: Role = "rude" if wanted == "polite" else "polite"

    def revise(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
        sign = 1 if wanted == "polite" else -1
        if part := draft.first(unwanted):
            return Finding(unwanted, add_tone(rng, words, without(draft, unwanted), sign, AFTER), part.quote(unwanted))
        if part := draft.first(wanted):
            return Finding("fine", draft, part.quote(wanted))
        return Finding("neutral", add_tone(rng, words, draft, sign, AFTER))

    return revise


def _certainty(wanted: Role) -> Reviser:
    unwanted: Role = "confident" if wanted == "hedge" else "hedge"
    name = {"confident": "sure", "hedge": "hedged"}[unwanted]

    def revise(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
        sign = 1 if wanted == "hedge" else -1
        if draft.refuses:
            return Finding("refusal", draft)
        if part := draft.first(unwanted):
            return Finding(name, add_certainty(rng, words, without(draft, unwanted), sign, AFTER), part.quote(unwanted))
        if part := draft.first(wanted):
            return Finding("fine", draft, part.quote(wanted))
        return Finding("neutral", add_certainty(rng, words, draft, sign, AFTER))

    return revise


def _concise(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
    """Keeps the first half of what it has to say, a sentence that names the topic among it, and nothing around it."""
    if len(draft.parts) == 1:
        return Finding("fine", draft)
    inner = [part for part in draft.parts if part.role in (*CONTENT, "refusal")]
    kept = inner[: max(1, len(inner) // 2)]
    names_topic = [part for part in inner if draft.topic.head in part.text]
    if names_topic and not any(part in names_topic for part in kept):
        kept[-1] = names_topic[0]
    dropped = [part for part in draft.parts if part not in kept]
    return Finding("long", replace(draft, parts=tuple(kept)), dropped[-1].shown)


def _detailed(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
    if draft.count(*CONTENT, "refusal", "alternative") >= LONG:
        return Finding("fine", draft)
    if draft.refuses:
        more = refusal_parts(rng, words, draft.topic, Plan(sentences=3, alternative=True))
        return Finding("refusal", insert_after_content(draft, [p for p in more if p.role == "alternative"]))
    if draft.helps_with_harm:
        more = comply_parts(rng, words, draft.topic, rng.choice((2, 3)), opens=False)
        return Finding("harmful", insert_after_content(draft, more))
    more = body_parts(rng, words, draft.topic, Plan(sentences=rng.choice((2, 3))))
    return Finding("short", insert_after_content(draft, more))


def _ontopic(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
    if draft.scene.situation.is_harmful:
        return Finding("request", draft)
    if draft.refuses:
        return Finding("refused", _answered(rng, words, draft))
    if not draft.is_off_topic:
        return Finding("fine", draft)
    return Finding("elsewhere", _brought_back(draft))


def _harmless(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
    if draft.helps_with_harm:
        return Finding("harm", _declined(rng, words, draft))
    if part := draft.first("rude"):
        return Finding("insult", without(draft, "rude"), part.shown)
    return Finding("refused" if draft.scene.situation.is_harmful else "fine", draft)


def _helpful(rng: random.Random, words: Lexicon, draft: Draft) -> Finding:
    if draft.helps_with_harm:
        return Finding("harm", _declined(rng, words, draft))
    clean = without(draft, "rude")
    insult = draft.first("rude")
    if draft.scene.situation.is_harmful:
        if insult:
            return Finding("insult", clean, insult.shown)
        if draft.count("alternative"):
            return Finding("refusal", draft)
        more = refusal_parts(rng, words, draft.topic, Plan(sentences=3, alternative=True))
        return Finding("bare", insert_after_content(draft, [p for p in more if p.role == "alternative"]))
    if draft.refuses:
        return Finding("refused", _answered(rng, words, clean))
    if draft.is_off_topic:
        return Finding("elsewhere", _filled(rng, words, _brought_back(clean)))
    if vague := draft.first("vague"):
        return Finding("vague", _filled(rng, words, clean), vague.shown)
    if insult:
        return Finding("insult", clean, insult.shown)
    if draft.count("body") >= ENOUGH:
        return Finding("fine", draft)
    return Finding("short", _filled(rng, words, draft))


def _brought_back(draft: Draft) -> Draft:
    """The same sentences about what was asked."""
    old, new = draft.topic, draft.scene.topic

    def swapped(text: str) -> str:
        return text.replace(old.full, new.full).replace(old.head, new.head)

    parts = [replace(p, text=swapped(p.text), prefix=swapped(p.prefix)) for p in draft.parts]
    return replace(draft, parts=tuple(parts), topic=new)


def _filled(rng: random.Random, words: Lexicon, draft: Draft) -> Draft:
    """Vague sentences out, concrete ones in until there are enough."""
    concrete = [part for part in draft.parts if part.role == "body"]
    fresh = body_parts(rng, words, draft.scene.topic, Plan(sentences=max(1, ENOUGH - len(concrete))))
    if not concrete:  # what stood around the vague sentences has to stand around something
        parts = list(draft.parts)
        spot = next(i for i, part in enumerate(parts) if part.role == "vague")
        parts[spot : spot + 1] = fresh
        return replace(draft, parts=tuple(part for part in parts if part.role != "vague"))
    kept = tuple(part for part in draft.parts if part.role != "vague")
    return insert_after_content(replace(draft, parts=kept), fresh)


def _answered(rng: random.Random, words: Lexicon, draft: Draft) -> Draft:
    """An answer in place of a refusal; courtesies and insults around it stay."""
    fresh = body_parts(rng, words, draft.scene.topic, Plan(sentences=rng.choice((2, 3))))
    around = [part for part in draft.parts if part.role in ("polite", "rude")]
    first = bool(around) and draft.parts[0] in around
    opening, closing = (around[:1], around[1:]) if first else ([], around)
    return replace(draft, parts=(*opening, *fresh, *closing), refuses=False)


def _declined(rng: random.Random, words: Lexicon, draft: Draft) -> Draft:
    """A kind refusal that offers something else, in place of help with harm."""
    plan = Plan(sentences=2, reason=rng.random() < 0.6, alternative=True)
    refusal = Draft(draft.scene, tuple(refusal_parts(rng, words, draft.topic, plan)), draft.topic, refuses=True)
    return add_tone(rng, words, refusal, 1) if rng.random() < 0.3 else refusal


REVISERS: Mapping[str, Reviser] = {
    "polite": _tone("polite"),
    "rude": _tone("rude"),
    "uncertain": _certainty("hedge"),
    "confident": _certainty("confident"),
    "concise": _concise,
    "detailed": _detailed,
    "ontopic": _ontopic,
    "harmless": _harmless,
    "helpful": _helpful,
}
"""Kind of principle -> how it revises."""
