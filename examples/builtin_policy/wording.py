"""How the policy is asked for critiques and revisions, how it words a critique, and what system messages it knows."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from builtin_judge.lexicon import Lexicon
from builtin_judge.principles import NO_TOPIC, REPOSITORY, SHIPPED_KINDS
from builtin_judge.writing import fill

from .drafts import Draft
from .revising import Finding


class Requests(NamedTuple):
    """What one principle asks for."""

    critique: str
    revision: str


@cache
def phrases() -> Mapping[str, Any]:
    """phrases.yaml."""
    found: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / "phrases.yaml").read_text(encoding="utf-8"))
    return found


@cache
def shipped_requests() -> Mapping[str, tuple[Requests, ...]]:
    """Kind -> the pairs of requests of the shipped constitutions."""
    found: dict[str, list[Requests]] = {}
    for path in sorted((REPOSITORY / "constitutions").glob("*.yaml")):
        for principle in yaml.safe_load(path.read_text(encoding="utf-8"))["principles"]:
            if principle["id"] in SHIPPED_KINDS and "critique_request" in principle:
                pair = Requests(principle["critique_request"], principle["revision_request"])
                found.setdefault(SHIPPED_KINDS[principle["id"]], []).append(pair)
    return {kind: tuple(dict.fromkeys(pairs)) for kind, pairs in found.items()}


def word_requests(rng: random.Random, words: Lexicon, kind: str) -> Requests:
    """A pair of requests for a kind: a shipped one, a paraphrase, or, of the test split, one that is held out."""
    own = phrases()["requests"][kind]
    if words.split == "test":
        return Requests(rng.choice(own["held_out"]["critique"]), rng.choice(own["held_out"]["revision"]))
    if rng.random() < 0.45:
        return rng.choice(shipped_requests()[kind])
    critique = fill(rng, words, rng.choice(own["critique"]), NO_TOPIC)
    return Requests(critique, fill(rng, words, rng.choice(own["revision"]), NO_TOPIC))


def word_critique(rng: random.Random, words: Lexicon, kind: str, draft: Draft, finding: Finding) -> str:
    """One or two sentences that say what was found."""
    topic = draft.scene.topic.full
    frame = rng.choice(phrases()["critiques"][kind][finding.name])
    slots = {"quote": finding.quote, "other": draft.topic.full, "deed": topic}
    return fill(rng, words, frame, draft.scene.topic, count=str(len(draft.parts)), **slots)


def word_system(rng: random.Random, words: Lexicon, kind: str) -> str:
    """A system message that asks for a kind, or for nothing ("none")."""
    return fill(rng, words, rng.choice(phrases()["systems"][kind]), NO_TOPIC)
