"""Sentences and responses: what a text says is drawn first (its traits), then the words for it."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from .lexicon import Lexicon

_SLOT = re.compile(r"\{([^{}]+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiou])")
_SECTIONS = {
    "word": "aspects",
    "aspect": "aspects",
    "action": "actions",
    "adverb": "adverbs",
    "adj": "adjectives",
    "group": "groups",
    "jadj": "jadj",
    "jnoun": "jnoun",
    "jverb": "jverb",
}


@dataclass(frozen=True, slots=True)
class Topic:
    """What a text is about: `head` is the noun, `full` may carry modifiers."""

    full: str
    head: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What a response is to be like, before it has words.

    Attributes:
        sentences: Body sentences.
        on_topic: Whether it speaks about the prompt's topic or about another.
        specific: Share of body sentences that say something concrete, in [0, 1].
        tone: -1 rude, 0 neutral, 1 polite.
        certainty: -1 confident, 0 neutral, 1 hedged.
        style: -1 plain words, 0 neutral, 1 technical terms.
        refuses: Declines to answer.
        reason, alternative: What a refusal adds.
        follows: Whether it meets the prompt's constraint; None when the prompt has none.
    """

    sentences: int = 3
    on_topic: bool = True
    specific: float = 1.0
    tone: int = 0
    certainty: int = 0
    style: int = 0
    refuses: bool = False
    reason: bool = False
    alternative: bool = False
    follows: bool | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A written response: its text, the plan behind it, and how many of its sentences are concrete and vague."""

    text: str
    plan: Plan
    concrete: int = 0
    vague: int = 0

    @property
    def words(self) -> int:
        return max(1, len(self.text.split()))


def draw_topic(rng: random.Random, words: Lexicon, avoid: str = "") -> Topic:
    """A topic, now and then with modifiers or made-up words, that shares no word with `avoid`."""
    taken = set(avoid.split())
    while True:
        if words.split == "train" and rng.random() < 0.2:
            head = " ".join(made_up_word(rng, words) for _ in range(rng.choice((1, 1, 2))))
        else:
            head = words.draw(rng, "topics")
        count = rng.choices((0, 1, 2), (6, 3, 1))[0]
        full = " ".join([*(words.draw(rng, "modifiers") for _ in range(count)), head]) if head[:4] != "the " else head
        if taken.isdisjoint(full.split()) or (head.startswith("the ") and not taken & set(head.split()[1:])):
            return Topic(full, head)


def made_up_word(rng: random.Random, words: Lexicon) -> str:
    """A word nobody has seen: two or three syllables."""
    return "".join(words.draw(rng, "syllables") for _ in range(rng.choice((2, 2, 3))))


def fill(rng: random.Random, words: Lexicon, frame: str, topic: Topic, **slots: str) -> str:
    """Put words into a frame's slots."""

    def slot(match: re.Match[str]) -> str:
        name = match[1]
        if "|" in name:
            return rng.choice(name.split("|"))
        if name in slots:
            return slots[name]
        if name == "topic":
            return topic.full if rng.random() < 0.6 else topic.head
        if name in ("n", "k"):
            return str(rng.choice((2, 3, 4, 5, 6, 7, 8, 9, 12, 15, 20, 30, 40, 60)))
        if name.startswith("v_"):
            return words.draw(rng, name)
        if words.split == "train" and name not in ("word", "jadj", "jnoun", "jverb") and rng.random() < 0.1:
            return made_up_word(rng, words)
        return words.draw(rng, _SECTIONS[name])

    while "{" in frame:  # an alternative may hold a slot
        frame = _SLOT.sub(slot, frame)
    return re.sub(r"  +", " ", frame)


def sentence_case(text: str, end: str = ".") -> str:
    """A sentence as it is written: a capital, "an" before a vowel, "I", an end."""
    text = _ARTICLE.sub(r"\1n ", text.strip())
    text = re.sub(r"\bi\b(?=[ '])", "I", text)
    text = re.sub(r"(?<=[.?!] )[a-z]", lambda match: match[0].upper(), text)
    text = text[:1].upper() + text[1:]
    return text if text[-1:] in ".?!:" else text + end


def fixed_phrase(rng: random.Random, words: Lexicon, topic: Topic, section: str) -> str:
    """A phrase of a section with its words put in; {deed} is the topic of a harmful prompt."""
    return fill(rng, words, words.draw(rng, section), topic, deed=topic.full)


def body_sentence(rng: random.Random, words: Lexicon, topic: Topic, kind: str) -> str:
    """One body sentence without capital or end: "specific", "vague", "technical" or "plain"."""
    if kind == "specific" and rng.random() < 0.6:
        frame = f"{words.draw(rng, 'specific_starts')} {words.draw(rng, 'specific_ends')}"
    else:
        frame = words.draw(rng, f"{kind}_whole")
    return fill(rng, words, frame, topic)


def _kind_of_sentence(rng: random.Random, plan: Plan) -> str:
    if plan.style and rng.random() < 0.7:
        return "technical" if plan.style > 0 else "plain"
    return "specific" if rng.random() < plan.specific else "vague"


def write_sentences(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> list[tuple[str, str]]:
    """The body sentences (kind, text; lower case, no end). At least one of them names the topic."""
    kinds = [_kind_of_sentence(rng, plan) for _ in range(plan.sentences)]
    if plan.style:
        kinds[rng.randrange(len(kinds))] = "technical" if plan.style > 0 else "plain"
    body: list[str] = []
    for kind in kinds:
        sentence = body_sentence(rng, words, topic, kind)
        for _ in range(4):
            if sentence in body:
                sentence = body_sentence(rng, words, topic, kind)
        body.append(sentence)
    if not any(topic.head in sentence for sentence in body):
        spot = rng.randrange(len(body))
        for _ in range(50):
            body[spot] = body_sentence(rng, words, topic, kinds[spot])
            if topic.head in body[spot]:
                break
        else:
            body[spot] += f", as with {topic.head}"
    return list(zip(kinds, body, strict=True))


def write_body(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> tuple[list[str], int, int]:
    """The body sentences as `write_sentences` makes them, and how many of them are concrete and vague."""
    told = write_sentences(rng, words, topic, plan)
    kinds = [kind for kind, _ in told]
    return [text for _, text in told], kinds.count("specific") + kinds.count("technical"), kinds.count("vague")


def add_certainty(rng: random.Random, words: Lexicon, topic: Topic, body: list[str], certainty: int) -> list[str]:
    """Hedges or assertions in front of some sentences and between them; at least one."""
    if not certainty:
        return body
    name = "hedge" if certainty > 0 else "confident"
    marked = [f"{fixed_phrase(rng, words, topic, name + '_prefixes')} {s}" if rng.random() < 0.35 else s for s in body]
    if marked == body or rng.random() < 0.5:
        extra = fixed_phrase(rng, words, topic, f"{name}_sentences")
        marked.insert(rng.randint(0, len(marked)), extra)
    return marked


def add_tone(rng: random.Random, words: Lexicon, topic: Topic, body: list[str], tone: int) -> list[str]:
    """A courtesy or an insult before the body, after it, or both."""
    if not tone:
        return body
    name = "polite" if tone > 0 else "rude"
    where = rng.choice(("open", "close", "both"))
    opening = [fixed_phrase(rng, words, topic, f"{name}_openers")] if where != "close" else []
    closing = [fixed_phrase(rng, words, topic, f"{name}_closers")] if where != "open" else []
    return [*opening, *body, *closing]


def join_sentences(rng: random.Random, sentences: list[str]) -> str:
    """Sentences as a paragraph, or as two where there are many."""
    end = "!" if rng.random() < 0.04 else "."
    parts = [sentence_case(s, end) for s in sentences]
    if len(parts) > 5 and rng.random() < 0.4:
        middle = rng.randint(2, len(parts) - 2)
        return " ".join(parts[:middle]) + "\n\n" + " ".join(parts[middle:])
    return " ".join(parts)


def write_response(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> Response:
    """A response to a harmless prompt, by plan, about `topic`."""
    body, concrete, vague = write_body(rng, words, topic, plan)
    body = add_certainty(rng, words, topic, body, plan.certainty)
    body = add_tone(rng, words, topic, body, plan.tone)
    return Response(join_sentences(rng, body), plan, concrete, vague)


def refusal_sentences(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> list[str]:
    """What declines, then, by plan, why, and what else could be done; without tone."""
    first = fixed_phrase(rng, words, topic, "refusal_cores")
    if rng.random() < 0.8:
        first = f"{words.draw(rng, 'refusal_starts')} {first}"
    body = [first]
    if plan.reason:
        reason = fixed_phrase(rng, words, topic, "refusal_reasons")
        if reason.startswith(("because", "since", "as ", "and ")):
            body = [f"{first} {reason}"]
        else:
            body.append(reason)
    if plan.alternative:
        count = max(1, min(plan.sentences - 1, 3))
        body += [fixed_phrase(rng, words, topic, "alternatives") for _ in range(count)]
    return body


def write_refusal(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> Response:
    """A response that declines: it says nothing on the topic, and has neither doubts nor style."""
    told = replace(plan, refuses=True, on_topic=True, certainty=0, style=0)
    body = add_tone(rng, words, topic, refusal_sentences(rng, words, topic, plan), plan.tone)
    return Response(join_sentences(rng, list(dict.fromkeys(body))), told)


def write_compliance(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> Response:
    """A response that goes along with a harmful prompt; `topic` holds the deed. It tells nothing of use."""
    body = [fixed_phrase(rng, words, topic, "comply_openers")] if rng.random() < 0.7 else []
    body += [fixed_phrase(rng, words, topic, "comply_bodies") for _ in range(plan.sentences)]
    body = add_certainty(rng, words, topic, list(dict.fromkeys(body)), plan.certainty)
    body = add_tone(rng, words, topic, body, plan.tone)
    return Response(join_sentences(rng, body), plan, concrete=plan.sentences)
