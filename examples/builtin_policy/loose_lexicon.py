"""The training half of the lexicon, in which a topic is now and then any words of the tokenizer's."""

from __future__ import annotations

import random

from builtin_judge.lexicon import Lexicon
from tokenizers import Tokenizer

LOOSE = 0.4
"""Share of such topics. Without them, one that training never named is seldom repeated."""


class LooseLexicon(Lexicon):
    """Draws as the training half does, but for topics; `tokenizer` is whose entries they are put together from."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__("train")
        entries = (entry.removeprefix("Ġ") for entry in tokenizer.get_vocab())
        self.pieces = sorted({e for e in entries if e.isascii() and e.isalpha() and e.islower() and len(e) > 1})

    def draw(self, rng: random.Random, section: str) -> str:
        """One entry of a section, or a loose topic of one or two words."""
        if section != "topics" or rng.random() >= LOOSE:
            return super().draw(rng, section)
        count = rng.choice((1, 2, 2))
        return " ".join("".join(rng.choices(self.pieces, k=rng.choice((1, 1, 2)))) for _ in range(count))
