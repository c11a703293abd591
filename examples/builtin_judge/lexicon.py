"""Word lists of the grammar, split into a train and a test half that share no entry.

Every entry (a topic, a sentence frame, a courtesy, a way to word a principle ...) belongs to one split for good:
test comparisons are made of entries that no training text contains.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

import yaml

Split = Literal["train", "test"]

FOLDER = Path(__file__).parent / "lexicon"
COMMA_FILES = {"topics.txt"}
WORD_SECTIONS = {"harm_verbs", "harm_targets", "harm_things"}
"""Lists of words, outside topics.txt, whose test entries may hold words that no training text has."""

SHARED_SECTIONS = {"syllables", "jadj", "jnoun", "jverb"}
"""Vocabulary of both splits, as are all sections named `v_...`: too little alone to be a phrasing."""


def is_shared(section: str) -> bool:
    """Whether a section is vocabulary of both splits."""
    return section in SHARED_SECTIONS or section.startswith("v_")


TOPIC_SECTIONS = WORD_SECTIONS | {
    "topics",
    "modifiers",
    "aspects",
    "actions",
    "adverbs",
    "adjectives",
    "groups",
}


@cache
def held_out() -> Mapping[str, frozenset[str]]:
    """Section -> its entries that are kept for tests, as `held_out.yaml` lists them (about one in six).

    An entry that is a phrasing (a courtesy, a frame, a principle) is held out only if training sees each of its words
    in some other phrasing: a model that learns from our text alone cannot know a word it never saw. Topics and other
    lists of words are held out with words that training never shows.
    """
    chosen = yaml.safe_load((Path(__file__).parent / "held_out.yaml").read_text(encoding="utf-8"))
    return {name: frozenset(chosen.get(name, ())) for name in read_sections() if not is_shared(name)}


PARTS_OF_FRAMES = {"has real content", "i am not willing to assist", "go annoy somebody else", "stop wasting my time"}
"""Held-out phrasings that begin what a training frame can become; a test looks for more of them in generated text."""


@cache
def is_repeated(entry: str) -> bool:
    """Whether a held-out phrasing is also part of a training phrase, or what a training frame can become.

    Such an entry is in neither split: it is not trained on by itself, and would be no test.
    """
    if "{" in entry or entry in PARTS_OF_FRAMES:
        return entry in PARTS_OF_FRAMES
    core = entry.removeprefix("is ")
    literals, frames = _training_phrases()
    if any(core in literal for literal in literals):
        return True
    return any(frame.fullmatch(entry) or frame.fullmatch(core) for frame in frames)


@cache
def _training_phrases() -> tuple[tuple[str, ...], tuple[re.Pattern[str], ...]]:
    """What training says word by word, and the frames it fills, as patterns."""
    entries = [
        entry
        for name, section in read_sections().items()
        if not is_shared(name) and name not in TOPIC_SECTIONS
        for entry in section
        if entry not in held_out()[name]
    ]
    constitutions = (Path(__file__).resolve().parents[2] / "constitutions").glob("*.yaml")
    literals = [entry for entry in entries if "{" not in entry]
    literals += [path.read_text(encoding="utf-8").lower() for path in sorted(constitutions)]
    is_open = re.compile(r"\||\{(v_|[pn])")
    frames = [re.compile(_pattern(entry)) for entry in entries if is_open.search(entry)]
    return tuple(literals), tuple(frames)


def _axis_words(slot: str) -> list[str]:
    """What a slot of a composed principle can hold: {p}, {n} adjectives of any axis, {ps}, {ns} nouns."""
    if not re.fullmatch(r"[pn](s|\d)?", slot):
        return []
    ends = (".has", ".lacks") if slot.endswith("s") else (".more", ".less")
    return [
        word
        for name, words in read_sections().items()
        if name.startswith("v_") and name.endswith(ends)
        for word in words
    ]


def _pattern(frame: str) -> str:
    """A regular expression for everything a frame can become."""
    parts = re.split(r"([{}|])", frame)
    found = []
    for number, part in enumerate(parts):
        is_slot = 0 < number < len(parts) - 1 and parts[number - 1] == "{" and parts[number + 1] == "}"
        if is_slot:
            words = _axis_words(part) or read_sections().get(part, ())
            found.append("|".join(map(re.escape, words)) if words else ".+")
        else:
            found.append({"{": "(?:", "}": ")", "|": "|"}.get(part, re.escape(part)))
    return "".join(found)


@cache
def read_sections() -> Mapping[str, tuple[str, ...]]:
    """Every section of every word list: name -> entries in file order, each once."""
    sections: dict[str, list[str]] = {}
    for path in sorted(FOLDER.glob("*.txt")):
        current: list[str] = []
        commas = path.name in COMMA_FILES
        for line in path.read_text(encoding="utf-8").splitlines():
            line = line.strip()
            if line.startswith("[") and line.endswith("]"):
                name = line[1:-1]
                current = sections.setdefault(name, [])
                commas = path.name in COMMA_FILES or is_shared(name) or name in WORD_SECTIONS
            elif line and not line.startswith("#"):
                current.extend(entry.strip() for entry in (line.split(",") if commas else [line]))
    return {name: tuple(dict.fromkeys(entries)) for name, entries in sections.items()}


class Lexicon:
    """The entries of one split, to draw from with a passed generator."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self._sections: dict[str, tuple[str, ...]] = {}
        for name, entries in read_sections().items():
            if not is_shared(name):
                entries = tuple(e for e in entries if (e in held_out()[name]) == (split == "test"))
                if split == "test" and name not in TOPIC_SECTIONS:
                    entries = tuple(e for e in entries if not is_repeated(e))
            self._sections[name] = entries

    def __getitem__(self, section: str) -> tuple[str, ...]:
        return self._sections[section]

    def get(self, section: str) -> tuple[str, ...]:
        """The entries of a section, or none where it does not exist."""
        return self._sections.get(section, ())

    def draw(self, rng: random.Random, section: str) -> str:
        """One entry of a section."""
        entries = self._sections[section]
        return entries[int(rng.random() * len(entries))]


@cache
def lexicon(split: Split) -> Lexicon:
    """The lexicon of one split; read once."""
    return Lexicon(split)
