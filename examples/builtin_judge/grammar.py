"""Comparisons with a known answer: a prompt, two responses, and what each principle prefers.

`make_comparison` is a function of its generator alone. Traits are drawn first, independently of each other, so that no
principle can be answered by looking at another one's signs.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from .constraints import Constraint, draw_constraint
from .lexicon import Lexicon
from .principles import KIND_NAMES, Situation, prefers
from .writing import (
    Plan,
    Response,
    Topic,
    body_sentence,
    draw_topic,
    fill,
    join_sentences,
    made_up_word,
    sentence_case,
    write_compliance,
    write_refusal,
    write_response,
)


@dataclass(frozen=True, slots=True)
class Scene:
    """A prompt and what is known of it: its turns (role, text), topic and task, and what its answers have to mind."""

    turns: tuple[tuple[str, str], ...]
    topic: Topic
    task: str
    situation: Situation = field(default_factory=Situation)
    constraint: Constraint | None = None
    passage: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """A comparison of the grammar."""

    scene: Scene
    first: Response
    second: Response

    def decided_kinds(self) -> list[str]:
        """The kinds of principle that prefer one of the two."""
        return [k for k in KIND_NAMES if prefers(k, self.scene.situation, self.first, self.second) != 0.5]


def make_comparison(rng: random.Random, words: Lexicon, size: str = "short") -> Pair:
    """A comparison of a given size: "tiny", "short" (up to some 250 tokens), or "long" (some 400 to 1,000)."""
    kind = rng.choices(("ask", "harm", "constraint", "summary"), (55, 17, 18, 10))[0]
    scene = SCENES[kind](rng, words, size)
    first = make_response(rng, words, scene, draw_plan(rng, scene, size))
    while True:
        second = make_response(rng, words, scene, _second_plan(rng, scene, first.plan, size))
        if second.text != first.text:
            break
    return Pair(scene, first, second) if rng.random() < 0.5 else Pair(scene, second, first)


def make_copy_pair(rng: random.Random, words: Lexicon) -> Pair:
    """Loose words only: one response repeats some of the prompt's, the other does not. Teaches "on topic" to match."""
    loose = [_loose_word(rng, words) for _ in range(24)]
    names = loose[: rng.randint(3, 8)]
    topic = Topic(" ".join(names), names[0])
    repeated = rng.sample(names, rng.randint(1, 3))
    others = [word for word in loose[8:] if word not in names]
    rng.shuffle(others)
    good = [*repeated, *others[: rng.randint(0, 4)]]
    bad = others[4 : 4 + rng.randint(2, 7)]
    rng.shuffle(good)
    scene = Scene((("user", topic.full),), topic, "helpfulness")
    responses = [Response(" ".join(good), Plan()), Response(" ".join(bad), Plan(on_topic=False))]
    rng.shuffle(responses)
    return Pair(scene, *responses)


def _loose_word(rng: random.Random, words: Lexicon) -> str:
    """A made-up word, or one of a topic."""
    if rng.random() < 0.3:
        return made_up_word(rng, words)
    return rng.choice(words.draw(rng, rng.choice(("topics", "topics", "modifiers"))).split())


def draw_plan(rng: random.Random, scene: Scene, size: str) -> Plan:
    """Traits of one response, each drawn by itself."""
    if scene.task == "summarization":
        sentences = rng.choice((1, 1, 2, 3, 4))
    elif size == "tiny":
        sentences = rng.choice((1, 1, 2, 3))
    elif size == "long":
        sentences = rng.choice((2, 4, 8, 12, 16, 22))
    else:
        sentences = rng.choices((1, 2, 3, 4, 5, 6), (4, 5, 5, 4, 3, 2))[0]
    plan = Plan(
        sentences=sentences,
        on_topic=rng.random() < 0.68,
        specific=rng.choice((1.0, 1.0, 1.0, 0.5, 0.0)),
        tone=rng.choices((-1, 0, 1), (3, 5, 3))[0],
        certainty=rng.choices((-1, 0, 1), (3, 4, 3))[0],
        style=rng.choices((-1, 0, 1), (1, 6, 1))[0],
        reason=rng.random() < 0.5,
        alternative=rng.random() < 0.5,
        follows=rng.random() < 0.5 if scene.constraint else None,
    )
    if scene.situation.is_harmful:
        return replace(plan, refuses=rng.random() < 0.5, on_topic=True, style=0)
    return replace(plan, refuses=rng.random() < 0.06)


def _second_plan(rng: random.Random, scene: Scene, first: Plan, size: str) -> Plan:
    """The other response's traits: a new draw that differs in what its scene is about more often than chance."""
    second = draw_plan(rng, scene, size)
    if rng.random() < 0.3:  # alike but for few traits
        second = replace(second, **{name: getattr(first, name) for name in ("tone", "style", "specific", "sentences")})
    if scene.situation.is_harmful and rng.random() < 0.6:
        second = replace(second, refuses=not first.refuses)
    if scene.constraint and rng.random() < 0.6:
        second = replace(second, follows=not first.follows)
    return second


def make_response(rng: random.Random, words: Lexicon, scene: Scene, plan: Plan) -> Response:
    """Words for a plan, in a scene."""
    if plan.refuses:
        return write_refusal(rng, words, scene.topic, replace(plan, follows=False if scene.constraint else None))
    if scene.situation.is_harmful:
        return write_compliance(rng, words, scene.topic, plan)
    topic = scene.topic if plan.on_topic else draw_topic(rng, words, avoid=scene.topic.full)
    if scene.constraint:
        return scene.constraint.write(rng, words, topic, plan)
    if scene.passage:
        return _write_summary(rng, words, scene, topic, plan)
    return write_response(rng, words, topic, plan)


def _write_summary(rng: random.Random, words: Lexicon, scene: Scene, topic: Topic, plan: Plan) -> Response:
    """A summary: sentences of the passage behind an opening; off topic or vague, sentences that are not in it."""
    if not plan.on_topic or plan.specific < 1.0:
        return write_response(rng, words, topic, replace(plan, style=0))
    points = rng.sample(scene.passage, min(plan.sentences, len(scene.passage)))
    opening = fill(rng, words, words.draw(rng, "summary_starts"), topic)
    if topic.head not in opening and not any(topic.head in point for point in points):
        opening = f"on {topic.head}: {opening}"
    body = [f"{opening} {points[0]}", *points[1:]]
    return Response(join_sentences(rng, body), replace(plan, tone=0, certainty=0, style=0), concrete=len(points))


def _ask(rng: random.Random, words: Lexicon, topic: Topic) -> str:
    ask = sentence_case(fill(rng, words, words.draw(rng, "ask"), topic))
    if topic.head not in ask.lower():
        ask = f"{ask} ({topic.full})"
    if rng.random() < 0.25:
        ask = f"{sentence_case(fill(rng, words, words.draw(rng, 'preludes'), topic))} {ask}"
    return ask


def _filler(rng: random.Random, words: Lexicon, topic: Topic, low: int, high: int) -> str:
    return join_sentences(rng, [body_sentence(rng, words, topic, "specific") for _ in range(rng.randint(low, high))])


def _ask_scene(rng: random.Random, words: Lexicon, size: str) -> Scene:
    """A question on a topic; now and then as the last turns of a conversation."""
    topic = draw_topic(rng, words)
    question = _ask(rng, words, topic)
    if rng.random() > (0.5 if size == "long" else 0.15):
        return Scene((("user", question),), topic, "helpfulness")
    high = 9 if size == "long" else 2
    if rng.random() < 0.5:  # the topic is asked about first, then more of it
        follow = sentence_case(fill(rng, words, words.draw(rng, "follow_ups"), topic))
        turns = (("user", question), ("assistant", _filler(rng, words, topic, 1, high)), ("user", follow))
    else:  # small talk on something else first would make "on topic" a matter of opinion: the same topic again
        earlier = _ask(rng, words, topic)
        turns = (("user", earlier), ("assistant", _filler(rng, words, topic, 1, high)), ("user", question))
    return Scene(turns, topic, "helpfulness")


def _harm_scene(rng: random.Random, words: Lexicon, size: str) -> Scene:
    """A request that should be refused."""
    if rng.random() < 0.6:
        verb, target = words.draw(rng, "harm_verbs"), words.draw(rng, "harm_targets")
        deed = f"{verb} {target}"
        ask = words.draw(rng, "harm_frames_target").replace("{verb}", verb).replace("{target}", target)
    else:
        thing = words.draw(rng, "harm_things")
        deed = f"make {thing}"
        ask = words.draw(rng, "harm_frames_thing").replace("{thing}", thing)
    turns: tuple[tuple[str, str], ...] = (("user", sentence_case(ask)),)
    if size == "long" or rng.random() < 0.12:
        other = draw_topic(rng, words)
        small_talk = _filler(rng, words, other, 1, 12 if size == "long" else 2)
        turns = (("user", _ask(rng, words, other)), ("assistant", small_talk), *turns)
    return Scene(turns, Topic(deed, deed), "harmlessness", Situation(is_harmful=True))


def _constraint_scene(rng: random.Random, words: Lexicon, size: str) -> Scene:
    """An instruction with a condition on the form or content of the answer."""
    topic = draw_topic(rng, words)
    constraint = draw_constraint(rng, words, topic)
    parts = [_ask(rng, words, topic), sentence_case(constraint.request)]
    if rng.random() < 0.2:
        parts.reverse()
    if size == "long":
        parts.append("\n\nInput:\n" + _filler(rng, words, topic, 8, 20))
    return Scene(
        (("user", " ".join(parts)),), topic, "instruction-following", Situation(has_constraint=True), constraint
    )


def _summary_scene(rng: random.Random, words: Lexicon, size: str) -> Scene:
    """A passage to be summarized."""
    topic = draw_topic(rng, words)
    count = rng.randint(14, 40) if size == "long" else rng.randint(3, 6)
    passage = tuple(body_sentence(rng, words, topic, "specific") for _ in range(count))
    if not any(topic.head in sentence for sentence in passage):
        passage = (f"this is about {topic.full}", *passage)
    ask = sentence_case(words.draw(rng, "summary_asks"), ":")
    return Scene((("user", f"{ask}\n\n{join_sentences(rng, list(passage))}"),), topic, "summarization", passage=passage)


SCENES: dict[str, Callable[[random.Random, Lexicon, str], Scene]] = {
    "ask": _ask_scene,
    "harm": _harm_scene,
    "constraint": _constraint_scene,
    "summary": _summary_scene,
}
