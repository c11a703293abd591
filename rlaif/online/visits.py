"""Which prompts are answered when: visits to the rows, pass after pass, each pass in an order of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from rlaif.randomness import seeded_random
from rlaif.records import Prompt


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt to answer, with the tokens that the policy is given."""

    prompt: Prompt
    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Visit:
    """One time that a prompt is answered.

    Attributes:
        id: Its row's id, and the pass over the rows; decides what is drawn.
        row: The prompt.
    """

    id: str
    row: PromptRow


class Visits:
    """Visits by their number, from 0 on without end; one is known without those before it.

    Args:
        rows: At least one.
        seed: Of the orders.
    """

    def __init__(self, rows: Sequence[PromptRow], seed: int) -> None:
        self.rows = rows
        self._seed = seed
        self._order = lru_cache(2)(self._order_of)

    def __getitem__(self, number: int) -> Visit:
        turn, place = divmod(number, len(self.rows))
        row = self.rows[self._order(turn)[place]]
        return Visit(f"{row.prompt.id}@{turn}", row)

    def _order_of(self, turn: int) -> list[int]:
        order = list(range(len(self.rows)))
        seeded_random(self._seed, str(turn), "prompt order").shuffle(order)
        return order
