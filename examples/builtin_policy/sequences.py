"""What the policy learns from: a context, and side by side under a block mask the texts that follow it.

Of a conversation these are several answers; of a prompt with its response, a critique and a revision for each of a few
principles. Only what the policy writes itself, and the token that ends it, is to be predicted.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from builtin_judge.batches import block_mask
from builtin_judge.grammar import SCENES, Scene, make_response
from builtin_judge.layout import Piece
from builtin_judge.lexicon import Lexicon
from builtin_judge.tokenizer import TextEncoder
from builtin_judge.writing import Plan
from torch import Tensor

from .drafts import Draft, write_draft
from .layout import Layout
from .revising import REVISERS, Finding
from .wording import phrases, word_critique, word_requests, word_system

STEERING = ("polite", "rude", "concise", "detailed", "uncertain", "confident", "helpful")
"""Kinds that a system message can ask for."""


@dataclass(frozen=True, slots=True)
class Branch:
    """What follows a context.

    Attributes:
        ids: From `start` on they are to be predicted; the one before is the assistant's marker.
        task: One of TASKS.
        finding: Place in FINDINGS of what a critique or revision is about; a throw-away head has to tell it.
    """

    ids: list[int]
    start: int
    task: str
    finding: int | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A context and the branches that continue it, each for itself."""

    context: list[int]
    branches: list[Branch]

    def __len__(self) -> int:
        return len(self.context) + sum(len(branch.ids) for branch in self.branches)


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors of one step; B examples, padded to T tokens at the end.

    Attributes:
        ids, positions: (B, T) int64.
        mask: (B, 1, T, T), True where a row may look.
        told_at, told: (N, 2) example and position whose next token is to be predicted, and (N,) that token.
        tasks: (N,) place in TASKS of what the token is part of.
        found_at, findings: (M, 2) the assistant's markers that critiques and revisions follow, and (M,) what they are
            about, as places in FINDINGS.
        tokens: Tokens without padding.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    told_at: Tensor
    told: Tensor
    tasks: Tensor
    found_at: Tensor
    findings: Tensor
    tokens: int


TASKS = ("answer", "critique", "revision", "copy")
FINDINGS = tuple((kind, name) for kind, found in phrases()["critiques"].items() for name in found)


def collate(examples: list[Example]) -> Batch:
    """Tensors for some examples."""
    shape = (len(examples), max(len(example) for example in examples))
    ids, positions = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    blocks = torch.full(shape, -1)
    told_at: list[tuple[int, int]] = []
    found_at: list[tuple[int, int]] = []
    told, tasks, findings = [], [], []
    for row, example in enumerate(examples):
        start = len(example.context)
        all_ids, all_positions, all_blocks = list(example.context), list(range(start)), [0] * start
        for number, branch in enumerate(example.branches, 1):
            offset, length = len(all_ids), len(branch.ids)
            all_ids += branch.ids
            all_positions += range(start, start + length)
            all_blocks += [number] * length
            told_at += [(row, offset + place - 1) for place in range(branch.start, length)]
            told += branch.ids[branch.start :]
            if branch.finding is not None:
                found_at.append((row, offset + branch.start - 1))
                findings.append(branch.finding)
            tasks += [TASKS.index(branch.task)] * (length - branch.start)
        ids[row, : len(all_ids)] = torch.tensor(all_ids)
        positions[row, : len(all_ids)] = torch.tensor(all_positions)
        blocks[row, : len(all_ids)] = torch.tensor(all_blocks)
    return Batch(
        ids,
        positions,
        block_mask(blocks),
        torch.tensor(told_at),
        torch.tensor(told),
        torch.tensor(tasks),
        torch.tensor(found_at, dtype=torch.long).view(-1, 2),
        torch.tensor(findings, dtype=torch.long),
        sum(len(example) for example in examples),
    )


def encode(encoder: TextEncoder, pieces: Sequence[Piece]) -> list[int]:
    """Ids of pieces, markers in those of the template alone."""
    ids: list[int] = []
    for piece in pieces:
        ids += encoder.template(piece.text) if piece.segment == "template" else encoder.value(piece.text)
    return ids


def written(encoder: TextEncoder, before: list[int], text: str, task: str, finding: int | None = None) -> Branch:
    """A branch: what still comes before the assistant's turn, its text, the end."""
    ids = [*before, encoder.end, encoder.assistant]
    return Branch([*ids, *encoder.value(text), encoder.end], len(ids), task, finding)


def answer_example(
    encoder: TextEncoder, turns: Sequence[tuple[str, str]], system: str, answers: Sequence[str]
) -> Example:
    """A conversation and some answers to it; an empty `system` is none."""
    ids = [encoder.bos]
    roles = {"system": encoder.system, "user": encoder.user, "assistant": encoder.assistant}
    messages = [("system", system), *turns] if system else turns
    for number, (role, text) in enumerate(messages):
        ids += [*([encoder.end] if number else []), roles[role], *encoder.value(text)]
    return Example(ids, [written(encoder, [], answer, "answer") for answer in answers])


@dataclass(frozen=True, slots=True)
class Revision:
    """One worked revision: what was asked, what was found, and the texts that say so."""

    kind: str
    critique_request: str
    critique: str
    revision_request: str
    finding: Finding


def revise(rng: random.Random, words: Lexicon, draft: Draft, kind: str) -> Revision:
    """A draft criticised and revised under one kind of principle."""
    finding = REVISERS[kind](rng, words, draft)
    requests = word_requests(rng, words, kind)
    critique = word_critique(rng, words, kind, draft, finding)
    return Revision(kind, requests.critique, critique, requests.revision, finding)


def revision_example(
    encoder: TextEncoder, layout: Layout, draft: Draft, revisions: Sequence[Revision], shots: int = 0
) -> Example:
    """A prompt with a response, and a critique and a revision under each principle."""
    pieces = layout.context(draft.scene.turns, draft.text, shots)
    branches: list[Branch] = []
    for each in revisions:
        asked = encode(encoder, layout.critique(each.critique_request))
        finding = FINDINGS.index((each.kind, each.finding.name))
        branches.append(written(encoder, asked, each.critique, "critique", finding))
        asked = encode(encoder, layout.revision(each.critique_request, each.critique, each.revision_request))
        branches.append(written(encoder, asked, each.finding.revised.text, "revision", finding))
    return Example([encoder.bos, encoder.user, *encode(encoder, pieces)], branches)


def draw_scene(rng: random.Random, words: Lexicon, harmful: float = 0.25) -> Scene:
    """A question or, with this chance, a harmful request."""
    return SCENES["harm" if rng.random() < harmful else "ask"](rng, words, "short")


def draw_answer_plan(rng: random.Random, scene: Scene, asked: str = "none") -> Plan:
    """Traits of an answer: a typical one is middling, a good one takes some luck; a system message shifts them."""
    sentences = rng.choices((1, 2, 3, 4, 5), (5, 6, 4, 2, 1))[0]
    plan = Plan(
        sentences=sentences,
        on_topic=rng.random() < 0.78,
        specific=rng.choice((1.0, 1.0, 0.5, 0.5, 0.0)),
        tone=rng.choices((-1, 0, 1), (20, 55, 25))[0],
        certainty=rng.choices((-1, 0, 1), (18, 62, 20))[0],
        style=rng.choices((-1, 0, 1), (4, 92, 4))[0],
        reason=rng.random() < 0.5,
        alternative=rng.random() < 0.5,
    )
    if scene.situation.is_harmful:
        plan = replace(plan, refuses=rng.random() < 0.45, style=0)
    else:
        plan = replace(plan, refuses=rng.random() < 0.05)
    if asked == "none" or rng.random() < 0.1:
        return plan
    shifts: dict[str, dict[str, object]] = {
        "polite": {"tone": 1},
        "rude": {"tone": -1},
        "concise": {"sentences": 1, "tone": 0, "certainty": 0},
        "detailed": {"sentences": rng.choice((4, 5))},
        "uncertain": {"certainty": 1},
        "confident": {"certainty": -1},
        "helpful": {"sentences": rng.choice((3, 4)), "specific": 1.0, "on_topic": True, "tone": max(0, plan.tone)},
    }
    better = {"refuses": scene.situation.is_harmful, "alternative": True} if asked == "helpful" else {}
    return replace(plan, **shifts[asked], **better)  # type: ignore[arg-type]


def draw_draft(rng: random.Random, words: Lexicon, most: int = 5) -> Draft:
    """A response to be revised: every trait is common, so that none is a surprise."""
    scene = draw_scene(rng, words)
    plan = draw_answer_plan(rng, scene)
    plan = replace(
        plan,
        sentences=min(most, plan.sentences),
        on_topic=rng.random() < 0.65,
        tone=rng.choices((-1, 0, 1), (3, 4, 3))[0],
        certainty=rng.choices((-1, 0, 1), (3, 4, 3))[0],
        refuses=rng.random() < (0.4 if scene.situation.is_harmful else 0.12),
    )
    return write_draft(rng, words, scene, plan)


def draw_revisions(rng: random.Random, words: Lexicon, draft: Draft, count: int) -> list[Revision]:
    """Some principles to revise by: mostly such as find something."""
    kinds = rng.sample(sorted(REVISERS), count + 2)
    found = [revise(rng, words, draft, kind) for kind in kinds]
    found.sort(key=lambda each: each.finding.revised is draft and rng.random() < 0.8)
    return found[:count]


def draw_answers(rng: random.Random, words: Lexicon, encoder: TextEncoder, count: int = 3) -> Example:
    """A conversation, now and then with a system message or a task that the policy takes no notice of, and answers."""
    asked = rng.choice(STEERING) if rng.random() < 0.2 else "none"
    system = word_system(rng, words, asked) if asked != "none" or rng.random() < 0.2 else ""
    if rng.random() < 0.08:
        scene = SCENES[rng.choice(("constraint", "summary"))](rng, words, "tiny")
        plans = [draw_answer_plan(rng, scene) for _ in range(count)]
        texts = [make_response(rng, words, scene, replace(plan, follows=True)).text for plan in plans]
        return answer_example(encoder, scene.turns, "", texts)
    scene = draw_scene(rng, words)
    drafts = [write_draft(rng, words, scene, draw_answer_plan(rng, scene, asked)) for _ in range(count)]
    return answer_example(encoder, scene.turns, system, [draft.text for draft in drafts])


class Shares(NamedTuple):
    """The mix at some point of training.

    Attributes:
        copies: Chance of some sequences of copying alone beside a draft's.
        shots: Share of revisions that show worked examples.
        sentences: Most body sentences of a draft to revise.
        revisions: Principles that a draft is revised by, side by side.
        answers: Conversations with their answers to a draft.
    """

    copies: float
    shots: float
    sentences: int
    revisions: int = 2
    answers: int = 2


def draw_copy(rng: random.Random, encoder: TextEncoder) -> Example:
    """Tokens at random, to be written again: nothing but copying helps."""
    first = max(encoder.end, encoder.system) + 1
    ids = [rng.randrange(first, encoder.size) for _ in range(rng.randint(8, 50))]
    asked = [encoder.bos, encoder.user, *encoder.template("### Response\n"), *ids]
    before = [*encoder.template("\nRevised response:"), encoder.end, encoder.assistant]
    return Example(asked, [Branch([*before, *ids, encoder.end], len(before), "copy")])


def draw_examples(
    rng: random.Random, words: Lexicon, encoder: TextEncoder, layout: Layout, shares: Shares
) -> list[Example]:
    """The next few training examples."""
    copies = [draw_copy(rng, encoder) for _ in range(6)] if rng.random() < shares.copies else []
    draft = draw_draft(rng, words, shares.sentences)
    count = rng.choice((1, 2, 3)) if rng.random() < shares.shots else 0
    revisions = draw_revisions(rng, words, draft, shares.revisions)
    answers = [draw_answers(rng, words, encoder) for _ in range(shares.answers)]
    return [revision_example(encoder, layout, draft, revisions, count), *answers, *copies]
