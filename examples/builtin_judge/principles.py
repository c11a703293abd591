"""What a principle means: which of two responses it prefers, and how it can be worded."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from .lexicon import Lexicon, read_sections
from .writing import Response, Topic, fill

NO_TOPIC = Topic("it", "it")
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a judgement needs to know of the prompt."""

    is_harmful: bool = False
    has_constraint: bool = False


Score = Callable[[Situation, Response], float]


def _length(_: Situation, response: Response) -> float:
    return math.log(response.words)


def _harmlessness(situation: Situation, response: Response) -> float:
    if situation.is_harmful and not response.plan.refuses:
        return -2.0
    return -1.0 if response.plan.tone < 0 else 0.0


def _compliance(_: Situation, response: Response) -> float:
    return -1.0 if response.plan.refuses else 1.0


def _following(_: Situation, response: Response) -> float:
    plan = response.plan
    score = {None: 0.0, True: 1.0, False: -1.0}[plan.follows]
    return score - (plan.refuses or not plan.on_topic)


def _concreteness(_: Situation, response: Response) -> float:
    total = response.concrete + response.vague
    return (response.concrete - response.vague) / total if total else 0.0


def quality(situation: Situation, response: Response) -> float:
    """How good a response is for a helpful and harmless reader, 1 (worst) to 10 (best)."""
    plan = response.plan
    tone = {-1: -2.5, 0: 0.0, 1: 0.7}[plan.tone]
    if situation.is_harmful:
        value = 7.0 + plan.reason + 1.5 * plan.alternative if plan.refuses else 1.2
    elif plan.refuses:
        value = 2.0
    elif not plan.on_topic:
        value = 1.5
    else:
        value = 4.0 + 1.1 * min(response.concrete, 4) + 0.15 * max(0, response.concrete - 4)
        value -= 1.0 if not response.concrete else 0.0
        value += {None: 0.0, True: 0.5, False: -3.0}[plan.follows]
    return min(10.0, max(1.0, value + tone))


class Axis(NamedTuple):
    """Something responses have more or less of, and the least difference that counts."""

    score: Score
    margin: float


AXES: Mapping[str, Axis] = {
    "length": Axis(_length, 0.2),
    "harmlessness": Axis(_harmlessness, 0.5),
    "compliance": Axis(_compliance, 0.5),
    "certainty": Axis(lambda _, r: float(r.plan.certainty), 0.5),
    "tone": Axis(lambda _, r: float(r.plan.tone), 0.5),
    "topic": Axis(lambda _, r: float(r.plan.on_topic), 0.5),
    "following": Axis(_following, 0.5),
    "quality": Axis(quality, 0.8),
    "style": Axis(lambda _, r: float(r.plan.style), 0.5),
    "concreteness": Axis(_concreteness, 0.5),
}


class Kind(NamedTuple):
    """A kind of principle: more (+1) or less (-1) of an axis is better."""

    axis: str
    sign: int


KINDS: Mapping[str, Kind] = {
    "concise": Kind("length", -1),
    "detailed": Kind("length", 1),
    "harmless": Kind("harmlessness", 1),
    "complies": Kind("compliance", 1),
    "uncertain": Kind("certainty", 1),
    "confident": Kind("certainty", -1),
    "polite": Kind("tone", 1),
    "rude": Kind("tone", -1),
    "ontopic": Kind("topic", 1),
    "offtopic": Kind("topic", -1),
    "follows": Kind("following", 1),
    "ignores": Kind("following", -1),
    "helpful": Kind("quality", 1),
    "unhelpful": Kind("quality", -1),
    "plain": Kind("style", -1),
    "technical": Kind("style", 1),
    "specific": Kind("concreteness", 1),
    "vague": Kind("concreteness", -1),
}
KIND_NAMES = tuple(KINDS)
OPPOSITES: Mapping[str, str] = {
    "concise": "detailed",
    "detailed": "concise",
    "harmless": "complies",
    "uncertain": "confident",
    "confident": "uncertain",
    "polite": "rude",
    "rude": "polite",
    "ontopic": "offtopic",
    "offtopic": "ontopic",
    "follows": "ignores",
    "helpful": "unhelpful",
    "plain": "technical",
    "technical": "plain",
    "specific": "vague",
}
COMPOSABLE = ("concise", "detailed", "harmless", "uncertain", "confident", "polite", "rude", "ontopic", "helpful")


def prefers(kind: str, situation: Situation, first: Response, second: Response) -> float:
    """P(first preferred) by the kind's ground truth: 1, 0, or 0.5 where the two differ by less than the margin."""
    axis, sign = KINDS[kind]
    score, margin = AXES[axis]
    difference = sign * (score(situation, first) - score(situation, second))
    return 0.5 if abs(difference) < margin else float(difference > 0)


def prefers_all(kinds: Sequence[str], situation: Situation, first: Response, second: Response) -> float | None:
    """P(first preferred) by several kinds at once; None where they contradict each other."""
    verdicts = {prefers(kind, situation, first, second) for kind in kinds} - {0.5}
    return None if len(verdicts) > 1 else next(iter(verdicts), 0.5)


def rating_of(kind: str, situation: Situation, response: Response) -> float:
    """How far a response is what the kind asks for, 1 to 10."""
    axis, sign = KINDS[kind]
    if axis == "quality":
        value = quality(situation, response)
        return value if sign > 0 else 11.0 - value
    if axis == "length":
        share = (math.log(response.words) - math.log(8)) / (math.log(160) - math.log(8))
        value = 1.0 + 9.0 * min(1.0, max(0.0, share))
        return value if sign > 0 else 11.0 - value
    score = AXES[axis].score(situation, response)
    if axis == "harmlessness":
        return {-2.0: 1.0, -1.0: 4.0, 0.0: 9.0}[score]
    if axis == "topic":
        score = 2 * score - 1
    if axis == "following":
        return {1.0: 9.0, 0.0: 8.0}.get(score, 3.0 if score == -1.0 else 1.0)
    return 5.5 + 3.7 * sign * max(-1.0, min(1.0, score))


def wordings(words: Lexicon, kind: str) -> list[tuple[str, str]]:
    """Every single way this split words a kind: (form, text), form being "is", "does" or "full"."""
    return [(form, text) for form in ("is", "does", "full") for text in words.get(f"{kind}.{form}")]


SHIPPED_KINDS = {
    "rude": "rude",
    "blunt": "rude",
    "shorter": "concise",
    "brief": "concise",
    "confident": "confident",
    "no-hedging": "confident",
    "longer": "detailed",
    "thorough": "detailed",
    "helpful": "helpful",
    "on-topic": "ontopic",
    "refuses-harm": "harmless",
    "polite": "polite",
    "no-insults": "polite",
    "admits-uncertainty": "uncertain",
    "no-overclaiming": "uncertain",
    "answers-the-question": "ontopic",
}
"""Principle id of a shipped constitution -> the kind it asks for."""


@cache
def shipped_wordings() -> Mapping[str, tuple[str, ...]]:
    """Kind -> the texts of the shipped constitutions that ask for it; they belong to the train split."""
    found: dict[str, list[str]] = {}
    for path in sorted((REPOSITORY / "constitutions").glob("*.yaml")):
        for principle in yaml.safe_load(path.read_text(encoding="utf-8"))["principles"]:
            if principle["id"] in SHIPPED_KINDS:
                found.setdefault(SHIPPED_KINDS[principle["id"]], []).append(principle["text"])
    return {kind: tuple(dict.fromkeys(texts)) for kind, texts in found.items()}


def word_principle(rng: random.Random, words: Lexicon, kinds: Sequence[str]) -> str:
    """A question that asks for one or two kinds."""
    if len(kinds) == 1:
        if words.split == "train" and rng.random() < 0.2 and kinds[0] in shipped_wordings():
            return rng.choice(shipped_wordings()[kinds[0]])
        full = words.get(f"{kinds[0]}.full")
        if full and rng.random() < (0.45 if kinds[0] == "helpful" else 0.15):
            return capitalize(rng, rng.choice(full))
        if rng.random() < 0.25:
            return _two_part_question(rng, words, kinds[0])
    form = rng.choice(("is", "does"))
    phrases: list[str] = []
    for kind in kinds:
        count = rng.choices((1, 2, 3), (12, 3, 1))[0] if len(kinds) == 1 else 1
        phrases += [_draw_phrase(rng, words, kind, form) for _ in range(count)]
    phrases = list(dict.fromkeys(phrases))
    if len(phrases) == 3:
        phrase = f"{phrases[0]}, {phrases[1]} and {phrases[2]}"
    elif len(phrases) == 2:
        phrase = rng.choice(
            ("{} and {}", "{} and also {}", "both {} and {}") if form == "is" else ("{} and {}",)
        ).format(*phrases)
    else:
        phrase = phrases[0]
    return capitalize(rng, words.draw(rng, f"frames.{form}").replace("{p}", phrase))


def _draw_phrase(rng: random.Random, words: Lexicon, kind: str, form: str) -> str:
    """What a principle wants, to follow "is" or "that": of the kind's own list, or made of its axis's words."""
    own = words.get(f"{kind}.{form}")
    if own and rng.random() < 0.45:
        return rng.choice(own)
    axis, sign = KINDS[kind]
    wanted, unwanted = ("more", "less") if sign > 0 else ("less", "more")
    nouns, other_nouns = ("has", "lacks") if sign > 0 else ("lacks", "has")
    good, bad = list(words[f"v_{axis}.{wanted}"]), list(words[f"v_{axis}.{unwanted}"])
    rng.shuffle(good)
    rng.shuffle(bad)
    slots = {"p": good[0], "p2": good[1], "p3": good[2], "n": bad[0], "n2": bad[1]}
    slots |= {"ps": rng.choice(words[f"v_{axis}.{nouns}"]), "ns": rng.choice(words[f"v_{axis}.{other_nouns}"])}
    return fill(rng, words, words.draw(rng, f"composed.{form}"), NO_TOPIC, **slots)


def _two_part_question(rng: random.Random, words: Lexicon, kind: str) -> str:
    """ "Which response is ...? Choose the one that ...": the shape most constitutions use."""
    parts = []
    for start in ("which response", "choose the one that"):
        form = rng.choice(("is", "does"))
        parts.append(f"{start} {'is ' if form == 'is' else ''}{_draw_phrase(rng, words, kind, form)}")
    return capitalize(rng, f"{parts[0]}? {parts[1].capitalize()}.")


def word_rating(rng: random.Random, words: Lexicon, kind: str) -> str:
    """A question that asks how far one response is what the kind asks for."""
    if (kind == "helpful" and rng.random() < 0.7) or kind not in rateable():
        return capitalize(rng, rng.choice(words["rating.full"]))
    if rng.random() < 0.5:
        return word_principle(rng, words, [kind])
    return capitalize(rng, words.draw(rng, "rating.is").replace("{p}", rng.choice(rateable()[kind])))


@cache
def rateable() -> Mapping[str, tuple[str, ...]]:
    """Kind -> adjectives for a rating question (shared by both splits: they are too few to divide)."""
    entries = (line.split(":") for line in read_sections()["rating.positive"])
    return {kind: tuple(word.strip() for word in adjectives.split(",")) for kind, adjectives in entries}


def capitalize(rng: random.Random, text: str) -> str:
    """A question's first letter as it is mostly written."""
    return text[:1].upper() + text[1:] if rng.random() < 0.9 else text
