"""Word lists of the grammar, split into a train and a test half that share no entry.

Every entry (a topic, a sentence frame, a courtesy, a way to word a principle ...) belongs to one split for good, by a hash
of its text: test comparisons are made of entries that no training text contains.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]

FOLDER = Path(__file__).parent / "lexicon"
TEST_SHARE = 6
"""One entry in this many is kept for the test split."""

COMMA_FILES = {"topics.txt"}
COMMA_SECTIONS = {"harm_verbs", "harm_targets", "harm_things", "jadj", "jnoun", "jverb"}
SHARED_SECTIONS = {"syllables"}
"""Sections with the same entries in both splits: too small a vocabulary to mean anything alone."""


def held_out_entries(section: str, entries: tuple[str, ...]) -> frozenset[str]:
    """The entries of a section that are kept for tests: the first by hash, at least one where there are two.

    The same on every machine and in every process.
    """

    def digest(entry: str) -> bytes:
        return hashlib.sha256(f"builtin-judge:{entry.lower()}".encode()).digest()

    if section in SHARED_SECTIONS or len(entries) < 2:
        return frozenset()
    return frozenset(sorted(entries, key=digest)[: math.ceil(len(entries) / TEST_SHARE)])


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
                commas = path.name in COMMA_FILES or name in COMMA_SECTIONS
            elif line and not line.startswith("#"):
                current.extend(entry.strip() for entry in (line.split(",") if commas else [line]))
    return {name: tuple(dict.fromkeys(entries)) for name, entries in sections.items()}


class Lexicon:
    """The entries of one split, to draw from with a passed generator."""

    def __init__(self, split: Split) -> None:
        self.split = split
        self._sections: dict[str, tuple[str, ...]] = {}
        for name, entries in read_sections().items():
            held_out = held_out_entries(name, entries)
            is_shared = name in SHARED_SECTIONS
            self._sections[name] = tuple(e for e in entries if is_shared or (e in held_out) == (split == "test"))

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
