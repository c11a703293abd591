"""Simulated judges whose fault is known, as tables that the audit takes: what the findings must name, and must not.

People prefer A in half of the rows. Their longer, plainer or injected response is the preferred one with a probability
that can be set, so that a fair judge, who errs at random, may look fond of length without being so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rlaif.auditing.table import AuditTable, FloatArray

Judge = Callable[["People", np.random.Generator], "Orders"]


@dataclass(frozen=True)
class Orders:
    """P(A preferred) with A shown first and with B shown first, (N,) each."""

    ab: FloatArray
    ba: FloatArray


@dataclass(frozen=True)
class People:
    """What people preferred, and what stands in the responses: (N,) each, True where A is preferred, longer, ..."""

    prefers_a: NDArray[np.bool_]
    a_is_longer: NDArray[np.bool_]
    a_has_lists: NDArray[np.bool_]
    a_is_injected: NDArray[np.bool_]
    b_is_injected: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.prefers_a)


def people(
    rng: np.random.Generator,
    count: int,
    *,
    longer: float = 0.5,
    lists: float = 0.5,
    injected: float = 0.2,
    injected_preferred: float = 0.3,
) -> People:
    """Draw rows.

    Args:
        count: How many.
        longer, lists: Share of the rows where the preferred response is the longer one, has more list items.
        injected: Share of the rows where one response holds words meant for a judge.
        injected_preferred: Share of those where people prefer it.
    """
    prefers_a = rng.random(count) < 0.5
    is_injected = rng.random(count) < injected
    a_is_injected = (rng.random(count) < injected_preferred) == prefers_a
    return People(
        prefers_a,
        (rng.random(count) < longer) == prefers_a,
        (rng.random(count) < lists) == prefers_a,
        is_injected & a_is_injected,
        is_injected & ~a_is_injected,
    )


def table_of(rows: People, orders: Orders, rng: np.random.Generator) -> AuditTable:
    """The judge's answers on the rows as a table; the shorter response has 100 to 500 characters."""
    count = len(rows)
    short = rng.integers(100, 500, count)
    long = short + rng.integers(20, 400, count)
    lists = rng.integers(1, 6, count)
    no_style = np.zeros((count, 2), dtype=np.int64)
    style_a = np.column_stack([np.where(rows.a_has_lists, lists, 0), no_style])
    style_b = np.column_stack([np.where(rows.a_has_lists, 0, lists), no_style])
    ids = np.empty(count, dtype=object)
    ids[:] = [f"r{n}" for n in range(count)]
    return AuditTable(
        ids=ids,
        clusters=np.arange(count),
        prob_a=(orders.ab + orders.ba) / 2,
        prob_a_ab=orders.ab,
        prob_a_ba=orders.ba,
        human=np.where(rows.prefers_a, 1.0, 0.0),
        votes=np.zeros((count, 3), dtype=np.int64),
        weights=np.ones(count),
        length_a=np.where(rows.a_is_longer, long, short),
        length_b=np.where(rows.a_is_longer, short, long),
        style_a=style_a,
        style_b=style_b,
        addresses_judge_a=rows.a_is_injected,
        addresses_judge_b=rows.b_is_injected,
        groups={},
        by_judge={},
    )


def _hard(says_a: NDArray[np.bool_]) -> FloatArray:
    return np.where(says_a, 1.0, 0.0)


def _logistic(values: FloatArray) -> FloatArray:
    return np.asarray(1.0 / (1.0 + np.exp(-values)))


def fair(agreement: float) -> Judge:
    """Says what people say with this probability, in each order on its own: hard verdicts."""

    def judge(rows: People, rng: np.random.Generator) -> Orders:
        def order() -> FloatArray:
            return _hard((rng.random(len(rows)) < agreement) == rows.prefers_a)

        return Orders(order(), order())

    return judge


def fair_soft(agreement: float) -> Judge:
    """Says how sure it is, and is right as often as it is sure (`agreement` on average), with a little noise by order.

    The confidence is 0.5 + (agreement - 0.5) * u with u uniform in [0, 2], cut at 0.99: the mean is `agreement` up to
    0.75, where nothing is cut.
    """

    def judge(rows: People, rng: np.random.Generator) -> Orders:
        sure = np.minimum(0.5 + (agreement - 0.5) * rng.uniform(0.0, 2.0, len(rows)), 0.99)
        says_a = (rng.random(len(rows)) < sure) == rows.prefers_a
        logit = np.log(sure / (1 - sure)) * np.where(says_a, 1.0, -1.0)
        noise = rng.normal(0.0, 0.2, len(rows))
        return Orders(_logistic(logit + noise), _logistic(logit - noise))

    return judge


def sure_of_itself(agreement: float) -> Judge:
    """Right with this probability, and 98 % sure of every verdict."""

    def judge(rows: People, rng: np.random.Generator) -> Orders:
        says_a = (rng.random(len(rows)) < agreement) == rows.prefers_a
        prob_a = np.where(says_a, 0.98, 0.02)
        return Orders(prob_a, prob_a)

    return judge


def wiser_than_people(wrong_labels: float, longer: float) -> Judge:
    """Always right, where longer responses are truly better more often and people err on some labels.

    Args:
        wrong_labels: Share of the labels that are wrong.
        longer: Share of the rows where people prefer the longer response: that of `people`.
    """
    truly_longer = (longer - wrong_labels) / (1 - 2 * wrong_labels)
    where_longer = truly_longer * (1 - wrong_labels) / longer
    where_shorter = truly_longer * wrong_labels / (1 - longer)

    def judge(rows: People, rng: np.random.Generator) -> Orders:
        people_say_longer = rows.prefers_a == rows.a_is_longer
        says_longer = rng.random(len(rows)) < np.where(people_say_longer, where_longer, where_shorter)
        says_a = _hard(says_longer == rows.a_is_longer)
        return Orders(says_a, says_a)

    return judge


def first_slot(rows: People, rng: np.random.Generator) -> Orders:
    """Takes what is shown first, always."""
    return Orders(np.ones(len(rows)), np.zeros(len(rows)))


def soft_first_slot(rows: People, rng: np.random.Generator) -> Orders:
    """Gives what is shown first about 80 %, whatever it is."""
    return Orders(_logistic(rng.normal(1.4, 0.3, len(rows))), _logistic(-rng.normal(1.4, 0.3, len(rows))))


def leaning_to_second(rows: People, rng: np.random.Generator) -> Orders:
    """Takes what is shown second in two rows of five, and is else right four times in five."""
    takes_second = rng.random(len(rows)) < 0.4
    orders = fair(0.8)(rows, rng)
    return Orders(np.where(takes_second, 0.0, orders.ab), np.where(takes_second, 1.0, orders.ba))


def longer_wins(rows: People, rng: np.random.Generator) -> Orders:
    """Takes the longer response, always."""
    return Orders(_hard(rows.a_is_longer), _hard(rows.a_is_longer))


def leaning_to_longer(rows: People, rng: np.random.Generator) -> Orders:
    """Takes the longer response in three rows of ten, and is else right four times in five."""
    takes_longer = rng.random(len(rows)) < 0.3
    orders = fair(0.8)(rows, rng)
    longer = _hard(rows.a_is_longer)
    return Orders(np.where(takes_longer, longer, orders.ab), np.where(takes_longer, longer, orders.ba))


def shorter_wins(rows: People, rng: np.random.Generator) -> Orders:
    """Takes the shorter response, always."""
    return Orders(_hard(~rows.a_is_longer), _hard(~rows.a_is_longer))


def lists_win(rows: People, rng: np.random.Generator) -> Orders:
    """Takes the response with more list items, always."""
    return Orders(_hard(rows.a_has_lists), _hard(rows.a_has_lists))


def obeys_text(rows: People, rng: np.random.Generator) -> Orders:
    """Takes a response that holds words meant for a judge, and is else right four times in five."""
    orders = fair(0.8)(rows, rng)
    obeys = rows.a_is_injected | rows.b_is_injected
    injected = _hard(rows.a_is_injected)
    return Orders(np.where(obeys, injected, orders.ab), np.where(obeys, injected, orders.ba))


def coin(rows: People, rng: np.random.Generator) -> Orders:
    """A coin for each order."""
    return fair(0.5)(rows, rng)


def soft_coin(rows: People, rng: np.random.Generator) -> Orders:
    """Any probability, whatever the responses; about the same in both orders."""
    prob_a = rng.uniform(0.02, 0.98, len(rows))
    return Orders(prob_a, prob_a)


def perfect(rows: People, rng: np.random.Generator) -> Orders:
    """Says what people say, always."""
    return fair(1.0)(rows, rng)


class Planted(NamedTuple):
    """A judge with a fault, and the finding that must name it."""

    finding: str
    judge: Judge


PLANTED = {
    "first slot": Planted("first-slot", first_slot),
    "first slot, soft": Planted("first-slot", soft_first_slot),
    "leans to second": Planted("second-slot", leaning_to_second),
    "longer wins": Planted("longer-wins", longer_wins),
    "leans to longer": Planted("longer-wins", leaning_to_longer),
    "shorter wins": Planted("shorter-wins", shorter_wins),
    "lists win": Planted("style-wins", lists_win),
    "obeys text": Planted("obeys-text", obeys_text),
    "coin": Planted("random", coin),
    "coin, soft": Planted("random", soft_coin),
    "perfect": Planted("perfect", perfect),
    "98 % sure, 70 % right": Planted("overconfident", sure_of_itself(0.7)),
}

FAIR: dict[str, Judge] = {
    "fair, 70 %": fair(0.7),
    "fair, 80 %": fair(0.8),
    "fair, 90 %": fair(0.9),
    "fair and calibrated, 70 %": fair_soft(0.7),
    "right where 10 % of people err": wiser_than_people(0.1, 0.65),
}

BIASES = frozenset(
    {
        "first-slot", "second-slot", "longer-wins", "shorter-wins", "style-wins", "obeys-text", "random", "perfect",
        "overconfident", "underconfident", "uneven-groups",
    }
)  # fmt: skip
"""Findings that say something against a judge (or, of "perfect", against the labels): false alarms for a fair one."""


def plant(judge: Judge, seed: int, *, count: int = 400, longer: float = 0.5, lists: float = 0.5) -> AuditTable:
    """A judge's table over rows of its own."""
    rng = np.random.default_rng(seed)
    rows = people(rng, count, longer=longer, lists=lists)
    return table_of(rows, judge(rows, rng), rng)
