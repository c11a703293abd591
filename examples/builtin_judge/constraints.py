"""Instructions whose fulfilment can be seen in the answer: mention a word, use a list, give n points ..."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .lexicon import Lexicon
from .writing import (
    Plan,
    Response,
    Topic,
    add_certainty,
    add_tone,
    body_sentence,
    draw_topic,
    fill,
    join_sentences,
    sentence_case,
    write_body,
    write_response,
)


@dataclass(frozen=True, slots=True)
class Constraint:
    """One condition: its kind ("mention", "list", "count", "one", "start"), its wording, and what it is about."""

    kind: str
    request: str
    word: str = ""
    count: int = 0

    def write(self, rng: random.Random, words: Lexicon, topic: Topic, plan: Plan) -> Response:
        """A response to the instruction that meets the condition, or fails to, as the plan says."""
        meets = bool(plan.follows)
        if self.kind == "mention":
            return _with_word(rng, words, topic, plan, self.word if meets else draw_topic(rng, words, self.word).head)
        if self.kind == "list":
            return _listed(rng, words, topic, plan, "- ") if meets else write_response(rng, words, topic, plan)
        if self.kind == "count":
            count = self.count if meets else rng.choice([n for n in range(1, 8) if abs(n - self.count) > 1])
            return _listed(rng, words, topic, replace(plan, sentences=count), "1. ")
        if self.kind == "one":
            quiet = replace(plan, tone=0, certainty=0, sentences=1 if meets else max(2, plan.sentences))
            return write_response(rng, words, topic, quiet)
        start = self.word if meets else draw_topic(rng, words, self.word).head
        return _starting_with(rng, words, topic, plan, start)


def draw_constraint(rng: random.Random, words: Lexicon, topic: Topic) -> Constraint:
    """One condition on an answer about `topic`."""
    kind = rng.choices(("mention", "list", "count", "one", "start"), (4, 2, 2, 2, 3))[0]
    word = draw_topic(rng, words, avoid=topic.full).head
    count = rng.randint(2, 6)
    frame = words.draw(rng, f"{kind}_frames")
    return Constraint(kind, fill(rng, words, frame, topic, word=word, k=str(count)), word, count)


def _with_word(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan, word: str) -> Response:
    body, concrete, vague = write_body(rng, words, topic, plan)
    extra = rng.choice((f"this also concerns {word}", f"a word on {word}: {{}}", f"and as for {word}, {{}}"))
    body.insert(rng.randint(1, len(body)), extra.replace("{}", body_sentence(rng, words, topic, "vague")))
    body = add_tone(rng, words, topic, add_certainty(rng, words, topic, body, plan.certainty), plan.tone)
    return Response(join_sentences(rng, body), plan, concrete, vague)


def _listed(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan, mark: str) -> Response:
    body, concrete, vague = write_body(rng, words, topic, plan)
    marks = [mark] * len(body) if mark != "1. " else [f"{i}. " for i in range(1, len(body) + 1)]
    lines = [f"{m}{sentence_case(s)}" for m, s in zip(marks, body, strict=True)]
    lines = add_tone(rng, words, topic, lines, plan.tone)
    return Response("\n".join(sentence_case(line) for line in lines), replace(plan, certainty=0), concrete, vague)


def _starting_with(rng: random.Random, words: Lexicon, topic: Topic, plan: Plan, start: str) -> Response:
    body, concrete, vague = write_body(rng, words, topic, plan)
    body = add_certainty(rng, words, topic, body, plan.certainty)
    body[0] = f"{start}{rng.choice((':', ' -', ','))} {body[0]}"
    closing = add_tone(rng, words, topic, [], plan.tone)[-1:]
    return Response(join_sentences(rng, [*body, *closing]), plan, concrete, vague)
