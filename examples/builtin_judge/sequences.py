"""From comparisons to token sequences: one shared context, then several questions side by side under a block mask.

A context is the prompt up to the question; each branch is one question with its cue, the turn markers, and the answers
it should get. Text of the template and text that came in through a variable are encoded piece by piece, as `rlaif`'s
backends do: markers are special tokens only where the template wrote them.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import NamedTuple

from tokenizers import Tokenizer

from .grammar import Pair, Scene, make_comparison, make_copy_pair
from .layout import Exemplar, Layout, Piece
from .lexicon import Lexicon
from .principles import COMPOSABLE, KIND_NAMES, prefers, prefers_all, quality, rating_of, word_principle, word_rating
from .tokenizer import TextEncoder
from .writing import Response

RATEABLE = (
    "helpful",
    "concise",
    "detailed",
    "polite",
    "rude",
    "harmless",
    "uncertain",
    "confident",
    "ontopic",
    "specific",
)
TASK_KINDS = {
    "helpfulness": "helpful",
    "summarization": "helpful",
    "harmlessness": "harmless",
    "instruction-following": "follows",
}
"""What a task's own question asks for."""
SEGMENTS = {"template": 0, "exemplar": 0, "prompt": 1, "first": 2, "second": 3, "question": 4}
TRAITS = 9


class Encoder(TextEncoder):
    """Text to token ids, and the ids of the labels "1" to "10"."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(tokenizer)
        self.labels = [tokenizer.token_to_id(str(n)) for n in range(1, 11)]


@dataclass(slots=True)
class Branch:
    """One question on a context. `answer` is the probability of each label; `kinds` the kinds it asks for."""

    ids: list[int]
    answer: list[float]
    kinds: tuple[int, ...]
    rationale: tuple[int, int] | None = None
    """Start and end (exclusive) of tokens in `ids` to be predicted, for chain of thought."""


@dataclass(slots=True)
class Sequence:
    """A context and its branches; `segments` and `matches` have one entry per context token."""

    context: list[int]
    segments: list[int]
    matches: list[int]
    """1 where a response's token also stands in the prompt, 0 where not, -1 where nothing is to be learnt."""
    traits: list[tuple[int, list[float]]]
    """Position in the context -> traits of the response that ended there."""
    branches: list[Branch] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.context) + sum(len(branch.ids) for branch in self.branches)


def traits_of(scene: Scene, response: Response) -> list[float]:
    """What the throw-away head has to tell about a response, each about in [-1, 1]."""
    plan = response.plan
    total = response.concrete + response.vague
    return [
        (math.log(response.words) - 3.2) / 1.2,
        1.0 if plan.on_topic else -1.0,
        float(plan.tone),
        float(plan.certainty),
        float(plan.style),
        1.0 if plan.refuses else -1.0,
        1.0 if scene.situation.is_harmful and not plan.refuses else -1.0,
        {None: 0.0, True: 1.0, False: -1.0}[plan.follows],
        (response.concrete - response.vague) / total if total else 0.0,
    ]


def build_context(encoder: Encoder, pieces: list[Piece], responses: list[tuple[Scene, Response]]) -> Sequence:
    """Encode the part of a prompt that its questions share."""
    ids = [encoder.bos, encoder.user]
    segments = [0, 0]
    seen: set[int] = set()
    matches = [-1, -1]
    traits: list[tuple[int, list[float]]] = []
    pending = list(responses)
    ended: tuple[Scene, Response] | None = None
    for piece in pieces:
        new = list(encoder.template(piece.text)) if piece.segment == "template" else encoder.value(piece.text)
        if piece.segment == "prompt":
            seen.update(new)
        is_response = piece.segment in ("first", "second")
        ids += new
        segments += [SEGMENTS[piece.segment]] * len(new)
        matches += [int(i in seen) for i in new] if is_response else [-1] * len(new)
        if ended:
            traits.append((len(ids) - 1, traits_of(*ended)))
            ended = None
        if is_response:
            ended = pending.pop(0)
    return Sequence(ids, segments, matches, traits)


def build_branch(encoder: Encoder, question: str, cue: str, answer: list[float], kinds: tuple[str, ...]) -> Branch:
    """A question, its cue, the end of the user's turn and the start of the assistant's; the answer comes next."""
    ids = [*encoder.value(question), *encoder.template(cue), encoder.end, encoder.assistant]
    return Branch(ids, answer, tuple(KIND_NAMES.index(kind) for kind in kinds))


def pairwise_answer(first: float) -> list[float]:
    """The label distribution for P(first preferred)."""
    return [first, 1.0 - first, *[0.0] * 8]


def rating_answer(value: float, spread: float = 0.6) -> list[float]:
    """The label distribution for a rating: a bell around it, cut to 1..10."""
    weights = [math.exp(-0.5 * ((n - value) / spread) ** 2) for n in range(1, 11)]
    return [weight / sum(weights) for weight in weights]


def _questions(rng: random.Random, words: Lexicon, pair: Pair, count: int) -> list[tuple[tuple[str, ...], float]]:
    """Kinds to ask about and P(first preferred): mostly ones that decide, some composite, a few ties."""
    situation, first, second = pair.scene.situation, pair.first, pair.second
    decided = pair.decided_kinds()
    rng.shuffle(decided)
    decided.sort(key=lambda kind: kind not in ("ontopic", "offtopic", "helpful", "harmless") or rng.random() < 0.4)
    asked: list[tuple[tuple[str, ...], float]] = [((k,), prefers(k, situation, first, second)) for k in decided[:count]]
    if rng.random() < 0.5:
        kinds = tuple(rng.sample(COMPOSABLE, 2))
        verdict = prefers_all(kinds, situation, first, second)
        if verdict is not None:
            asked[-1:] = [(kinds, verdict)]
    if rng.random() < 0.2:
        kind = rng.choice(KIND_NAMES)
        asked.append(((kind,), prefers(kind, situation, first, second)))
    return asked


def pairwise_sequences(
    rng: random.Random, words: Lexicon, encoder: Encoder, layout: Layout, pair: Pair, count: int
) -> list[Sequence]:
    """A comparison in both orders, with the same questions."""
    if count == 1:  # a copy-match pair: nothing but its topic can be asked about
        asked = [((k,), prefers(k, pair.scene.situation, pair.first, pair.second)) for k in ("ontopic", "offtopic")]
    else:
        asked = _questions(rng, words, pair, count)
    default = layout.default_question(pair.scene.task)
    texts = [word_principle(rng, words, kinds) for kinds, _ in asked]
    head = layout.draw_preamble(rng, pair.scene.task)
    exemplars = [draw_exemplar(rng, words) for _ in range(rng.choice((1, 2)))] if rng.random() < 0.04 else []
    is_reasoned = rng.random() < 0.06
    sequences = []
    for swapped in (False, True):
        first, second = (pair.second, pair.first) if swapped else (pair.first, pair.second)
        pieces = layout.pairwise(head, pair.scene.turns, first.text, second.text, exemplars)
        sequence = build_context(encoder, pieces, [(pair.scene, first), (pair.scene, second)])
        for (kinds, prob), text in zip(asked, texts, strict=True):
            prob = 1.0 - prob if swapped else prob
            sequence.branches.append(build_branch(encoder, text, layout.pairwise_cue, pairwise_answer(prob), kinds))
        if count > 1:
            kind = TASK_KINDS[pair.scene.task]
            prob = prefers(kind, pair.scene.situation, first, second)
            sequence.branches.append(
                build_branch(encoder, default, layout.pairwise_cue, pairwise_answer(prob), (kind,))
            )
            if is_reasoned:
                sequence.branches.append(_reasoned_branch(encoder, layout, pair.scene, (first, second)))
        sequences.append(sequence)
    return sequences


def draw_exemplar(rng: random.Random, words: Lexicon) -> Exemplar:
    """A worked example of its own, which says nothing of the comparison that follows."""
    while True:
        pair = make_comparison(rng, words)
        decided = pair.decided_kinds()
        if decided and len(pair.scene.turns) == 1 and pair.first.words + pair.second.words < 60:
            break
    kind = rng.choice(decided)
    label = "1" if prefers(kind, pair.scene.situation, pair.first, pair.second) > 0.5 else "2"
    question = word_principle(rng, words, [kind])
    return Exemplar(pair.scene.turns[0][1], pair.first.text, pair.second.text, question, label)


def _reasoned_branch(encoder: Encoder, layout: Layout, scene: Scene, responses: tuple[Response, Response]) -> Branch:
    """Chain of thought: a request for reasons, a short rationale, the cue, the label."""
    first, second = responses
    prob = prefers("helpful", scene.situation, first, second)
    said = [
        "good" if value > 6 else "fair" if value > 3 else "poor"
        for value in (quality(scene.situation, first), quality(scene.situation, second))
    ]
    rationale = f"response 1 is {said[0]} and response 2 is {said[1]}."
    start = [*encoder.value(layout.default_question(scene.task)), *encoder.template(layout.reasons_cue)]
    start += [encoder.end, encoder.assistant]
    told = [*encoder.value(rationale), encoder.end]
    rest = [encoder.user, *encoder.template(layout.verdict_cue), encoder.end, encoder.assistant]
    return Branch(
        [*start, *told, *rest],
        pairwise_answer(prob),
        (KIND_NAMES.index("helpful"),),
        (len(start), len(start) + len(told)),
    )


def rating_sequence(
    rng: random.Random, words: Lexicon, encoder: Encoder, layout: Layout, scene: Scene, response: Response, count: int
) -> Sequence:
    """One response, rated by several questions."""
    pieces = layout.rating(layout.draw_rating_preamble(rng, scene.task), scene.turns, response.text)
    sequence = build_context(encoder, pieces, [(scene, response)])
    asked = [(layout.rating_questions[scene.task], TASK_KINDS[scene.task])]
    for kind in ("helpful", *rng.sample(RATEABLE[1:], count - 1)):
        asked.append((word_rating(rng, words, kind), kind))
    if count > 1:
        kind = rng.choice(RATEABLE)
        asked.append((f"{layout.standard} {word_principle(rng, words, [kind])}", kind))
    for text, kind in asked:
        answer = rating_answer(rating_of(kind, scene.situation, response))
        sequence.branches.append(build_branch(encoder, text, layout.rating_cue, answer, (kind,)))
    return sequence


class Shares(NamedTuple):
    """How much of the mix is of which size, and how much is copy-match sequences."""

    tiny: float
    long: float
    copy: float


def draw_sequences(
    rng: random.Random, words: Lexicon, encoder: Encoder, layout: Layout, shares: Shares
) -> list[Sequence]:
    """The next few training sequences: mostly a comparison in both orders, now and then ratings of its responses."""
    if rng.random() < shares.copy:
        return pairwise_sequences(rng, words, encoder, layout, make_copy_pair(rng, words), 1)
    size = rng.choices(("tiny", "short", "long"), (shares.tiny, 1.0 - shares.tiny - shares.long, shares.long))[0]
    pair = make_comparison(rng, words, size)
    if rng.random() < 0.25:
        return [
            rating_sequence(rng, words, encoder, layout, pair.scene, response, 3)
            for response in (pair.first, pair.second)
        ]
    return pairwise_sequences(rng, words, encoder, layout, pair, 7)
