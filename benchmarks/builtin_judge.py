"""What `builtin:tiny` can and cannot do, on held-out comparisons of its grammar and on real people's votes.

    python benchmarks/builtin_judge.py                               # the shipped model, a few minutes on a CPU
    python benchmarks/builtin_judge.py --people ../shared/data       # beside it, agreement with people
    python benchmarks/builtin_judge.py --model DIR --comparisons 200

Held out means: topics, sentence frames, courtesies, insults, hedges, refusals and requests are in no training text
(single words of a phrasing are). "known wording" asks in a way that training may have used, "new wording" in frames and
phrases kept for the test. Accuracy and label mass are of single calls, both orders counted; the swap is consistent
where both orders name one winner; a label flips where the mean of both orders names another winner under the opposite
principle. Calls go through the shipped templates and the package's own transformers backend.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "examples"), str(REPOSITORY)]

from builtin_judge.grammar import Pair, make_comparison  # noqa: E402
from builtin_judge.layout import read_layout  # noqa: E402
from builtin_judge.lexicon import Split, lexicon  # noqa: E402
from builtin_judge.principles import (  # noqa: E402
    COMPOSABLE,
    KIND_NAMES,
    OPPOSITES,
    prefers,
    prefers_all,
    quality,
    word_principle,
)
from builtin_judge.sequences import TASK_KINDS  # noqa: E402

from rlaif.backends.hf import HfBackend  # noqa: E402
from rlaif.data.sources import read_comparisons  # noqa: E402
from rlaif.judge.templates import PairwiseTemplate  # noqa: E402
from rlaif.records import Comparison, Message, Order, ScoreRequest, Segment, Turn, Verdict  # noqa: E402

PAIR_LABELS = ("1", "2")
RATING_LABELS = tuple(str(n) for n in range(1, 11))
LENGTHS = (300, 600, 900)
PEOPLE = {
    "hh_helpful_dev": "helpfulness",
    "hh_harmless_dev": "harmlessness",
    "pandalm_dev": "instruction-following",
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question on one comparison, answered in both orders.

    Attributes:
        name: What it counts for: a kind of principle, "two combined" or "task's own question".
        right: 1 where the first response is to be preferred, 0 where the second.
        prob_ab, prob_ba: P(first response preferred) in either order.
        mass: The smaller label mass of the two calls.
    """

    name: str
    right: float
    prob_ab: float
    prob_ba: float
    mass: float

    @property
    def winner(self) -> bool:
        return self.prob_ab + self.prob_ba > 1.0


@dataclass(frozen=True, slots=True)
class Question:
    """A question to ask: what it counts for, the principle (None: the task's own question), the right answer."""

    name: str
    principle: str | None
    right: float


def as_comparison(pair: Pair, number: int) -> Comparison:
    """A generated pair as the package holds it."""
    turns = tuple(Turn(role, text) for role, text in pair.scene.turns)
    return Comparison(str(number), turns, pair.first.text, pair.second.text)


def questions(rng: random.Random, pair: Pair, wording: Split, per_pair: int) -> list[Question]:
    """What a pair is asked: principles that decide it, each with its opposite; two combined; its task's own."""
    words, situation = lexicon(wording), pair.scene.situation
    decided = pair.decided_kinds()
    rng.shuffle(decided)
    chosen: list[str] = []
    for kind in decided:
        if len(chosen) < per_pair and kind not in chosen:
            chosen.append(kind)
            opposite = OPPOSITES.get(kind)
            if opposite in decided and opposite not in chosen:
                chosen.append(opposite)
    asked = [
        Question(k, word_principle(rng, words, [k]), prefers(k, situation, pair.first, pair.second)) for k in chosen
    ]
    two = tuple(rng.sample(COMPOSABLE, 2))
    verdict = prefers_all(two, situation, pair.first, pair.second)
    if verdict in (0.0, 1.0):
        asked.append(Question("two combined", word_principle(rng, words, two), verdict))
    own = prefers(TASK_KINDS[pair.scene.task], situation, pair.first, pair.second)
    if own != 0.5:
        asked.append(Question("task's own question", None, own))
    return asked


class Judge:
    """The model behind the package's templates and backend."""

    def __init__(self, model: str) -> None:
        self.backend = HfBackend(model, device="cpu", truncate=True)
        self.templates = {task: PairwiseTemplate(task) for task in TASK_KINDS}
        self.layout = read_layout()

    async def ask(self, comparison: Comparison, task: str, asked: Sequence[Question]) -> list[Asked]:
        """Every question in both orders."""
        template = self.templates[task]
        calls = [
            self.distribution(template.render(comparison, order, principle=question.principle), PAIR_LABELS)
            for question in asked
            for order in Order
        ]
        replies = await asyncio.gather(*calls)
        found = []
        for number, question in enumerate(asked):
            (ab, mass_ab), (ba, mass_ba) = replies[2 * number], replies[2 * number + 1]
            found.append(Asked(question.name, question.right, ab[0], ba[1], min(mass_ab, mass_ba)))
        return found

    async def distribution(self, messages: tuple[Message, ...], labels: tuple[str, ...]) -> tuple[list[float], float]:
        """The labels' probabilities, normalized, and the share of all probability they had."""
        reply = await self.backend.score(ScoreRequest(messages, labels))
        probs = [
            sum(math.exp(token.logprob) for token in reply.tokens if token.token.strip() == label) for label in labels
        ]
        mass = sum(probs)
        return [prob / mass for prob in probs], mass

    async def rate(self, turns: Sequence[tuple[str, str]], response: str, task: str) -> float:
        """The expected rating of a response, under the task's own rating question."""
        pieces = self.layout.rating(self.layout.rating_preambles[task], tuple(turns), response)
        segments = [Segment(piece.text, piece.segment == "template") for piece in pieces]
        segments.append(Segment(self.layout.rating_questions[task] + self.layout.rating_cue, True))
        probs, _ = await self.distribution((Message("user", tuple(segments)),), RATING_LABELS)
        return sum(number * prob for number, prob in enumerate(probs, 1))


async def gather_in_parts(work: Iterable, size: int = 24) -> list:  # type: ignore[type-arg]
    """Await many coroutines, some at a time."""
    pending, results = list(work), []
    for start in range(0, len(pending), size):
        results += await asyncio.gather(*pending[start : start + size])
    return results


async def measure(judge: Judge, pairs: Sequence[Pair], wording: Split, per_pair: int = 4) -> list[list[Asked]]:
    """All questions on all pairs: one list a pair."""
    rng = random.Random(f"questions:{wording}")
    return await gather_in_parts(
        judge.ask(as_comparison(pair, n), pair.scene.task, questions(rng, pair, wording, per_pair))
        for n, pair in enumerate(pairs)
    )


def share(values: Iterable[bool]) -> tuple[float, int]:
    """Share of true values, and how many there are."""
    found = [bool(value) for value in values]
    return (sum(found) / len(found) if found else math.nan), len(found)


def accuracy(asked: Iterable[Asked]) -> tuple[float, int]:
    """Share of single calls whose likelier label is right."""
    return share((prob > 0.5) == (one.right > 0.5) for one in asked for prob in (one.prob_ab, one.prob_ba))


def consistency(asked: Iterable[Asked]) -> tuple[float, int]:
    """Share of questions whose two orders name one winner."""
    return share((one.prob_ab > 0.5) == (one.prob_ba > 0.5) for one in asked)


def flips(rows: Iterable[list[Asked]], kind: str) -> tuple[float, int]:
    """Share of pairs whose label under `kind` and its opposite differ, where the ground truths do."""
    found = []
    for row in rows:
        by_name = {one.name: one for one in row}
        one, other = by_name.get(kind), by_name.get(OPPOSITES.get(kind, ""))
        if one and other and one.right != other.right:
            found.append(one.winner != other.winner)
    return share(found)


def cell(figure: tuple[float, int]) -> str:
    """A figure of a table; a dash where there is nothing to count."""
    value, count = figure
    return f"{value:.3f}" if count else "-"


def by_name(rows: Iterable[list[Asked]], name: str) -> list[Asked]:
    """Every answer that counts for one name."""
    return [one for row in rows for one in row if one.name == name]


def print_principles(known: list[list[Asked]], new: list[list[Asked]]) -> None:
    """The main table."""
    print("| principle | accuracy, known wording | new wording | swap consistent | flips with the opposite | calls |")
    print("|---|---|---|---|---|---|")
    for name in (*KIND_NAMES, "two combined", "task's own question"):
        one, two = by_name(known, name), by_name(new, name)
        both = [*one, *two]
        print(
            f"| {name} | {cell(accuracy(one))} | {cell(accuracy(two))} | {cell(consistency(both))} "
            f"| {cell(flips([*known, *new], name))} | {2 * len(both)} |"
        )
    every_known, every_new = [a for row in known for a in row], [a for row in new for a in row]
    every = [*every_known, *every_new]
    swings = [flips([*known, *new], kind) for kind in OPPOSITES]
    flipped = sum(value * count for value, count in swings if count) / max(1, sum(count for _, count in swings))
    print(
        f"| **all** | {cell(accuracy(every_known))} | {cell(accuracy(every_new))} | {cell(consistency(every))} "
        f"| {flipped:.3f} | {2 * len(every)} |"
    )
    masses = sorted(one.mass for one in every)
    print(
        f"\nLabel mass (the smaller of two orders): mean {sum(masses) / len(masses):.4f}, "
        f"1st percentile {masses[len(masses) // 100]:.4f}, least {masses[0]:.4f}.\n"
    )


def pairs_of_length(judge: Judge, tokens: int, count: int) -> list[Pair]:
    """Held-out comparisons whose prompt takes about `tokens` tokens (within a sixth)."""
    rng, words, found = random.Random(f"length:{tokens}"), lexicon("test"), []
    while len(found) < count:
        pair = make_comparison(rng, words, "long" if tokens > 300 or rng.random() < 0.5 else "short")
        messages = judge.templates[pair.scene.task].render(as_comparison(pair, 0), Order.AB)
        if abs(judge.backend.count_tokens(messages) - tokens) <= tokens / 6:
            found.append(pair)
    return found


async def print_lengths(judge: Judge, count: int) -> None:
    """Accuracy by the length of the prompt."""
    rows = {tokens: await measure(judge, pairs_of_length(judge, tokens, count), "test") for tokens in LENGTHS}
    print("| principle, new wording | " + " | ".join(f"{tokens} tokens" for tokens in LENGTHS) + " | calls |")
    print("|---|" + "---|" * (len(LENGTHS) + 1))
    for name in (*KIND_NAMES, "two combined", "task's own question"):
        found = [by_name(rows[tokens], name) for tokens in LENGTHS]
        print(f"| {name} | " + " | ".join(cell(accuracy(f)) for f in found) + f" | {2 * sum(map(len, found))} |")
    every = [[one for row in rows[tokens] for one in row] for tokens in LENGTHS]
    print("| **all** | " + " | ".join(cell(accuracy(e)) for e in every) + f" | {2 * sum(map(len, every))} |")
    print(
        "| swap consistent | " + " | ".join(cell(consistency(e)) for e in every) + f" | {2 * sum(map(len, every))} |\n"
    )


async def print_ratings(judge: Judge, pairs: Sequence[Pair]) -> None:
    """Order and error of the ratings of graded responses (those of one prompt, grades at least 0.8 apart)."""
    rated = await gather_in_parts(
        judge.rate(pair.scene.turns, response.text, pair.scene.task)
        for pair in pairs
        for response in (pair.first, pair.second)
    )
    ordered, errors = [], []
    for number, pair in enumerate(pairs):
        if pair.scene.task == "harmlessness" or pair.scene.task == "instruction-following":
            continue  # their own question is not the grade's
        grades = [quality(pair.scene.situation, response) for response in (pair.first, pair.second)]
        given = rated[2 * number : 2 * number + 2]
        errors += [abs(grade - value) for grade, value in zip(grades, given, strict=True)]
        if abs(grades[0] - grades[1]) >= 0.8:
            ordered.append((grades[0] > grades[1]) == (given[0] > given[1]))
    value, count = share(ordered)
    print(
        f"Ratings: {value:.3f} of {count} graded pairs in the right order; "
        f"mean error {sum(errors) / len(errors):.2f} points on the scale of 1 to 10.\n"
    )


async def print_people(judge: Judge, folder: Path, limit: int) -> None:
    """Agreement with people where their majority is not a tie, beside always choosing the longer response."""
    print("| data | agreement | always the longer | swap consistent | comparisons |")
    print("|---|---|---|---|---|")
    for name, task in PEOPLE.items():
        rows = [c for c in read_comparisons(folder / f"{name}.jsonl") if c.human_label in (Verdict.A, Verdict.B)][
            :limit
        ]
        asked = await gather_in_parts(
            judge.ask(c, task, [Question(name, None, float(c.human_label is Verdict.A))]) for c in rows
        )
        agreed = share(one.winner == (one.right > 0.5) for row in asked for one in row)
        longer = share((len(c.response_a) > len(c.response_b)) == (c.human_label is Verdict.A) for c in rows)
        same = consistency(one for row in asked for one in row)
        print(f"| {name} | {cell(agreed)} | {cell(longer)} | {cell(same)} | {len(rows)} |")
    print()


async def run(options: argparse.Namespace) -> None:
    """Everything, as Markdown."""
    judge = Judge(str(options.model))
    started = time.monotonic()
    rng, words = random.Random("held out"), lexicon("test")
    pairs = [make_comparison(rng, words) for _ in range(options.comparisons)]
    print(f"{options.comparisons} held-out comparisons, both orders.\n")
    known, new = await measure(judge, pairs, "train"), await measure(judge, pairs, "test")
    print_principles(known, new)
    await print_lengths(judge, max(20, options.comparisons // 8))
    await print_ratings(judge, pairs)
    if options.people:
        await print_people(judge, options.people, options.people_limit)
    print(f"{time.monotonic() - started:.0f} s.")
    await judge.backend.aclose()


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=REPOSITORY / "rlaif" / "backends" / "builtin_model")
    parser.add_argument("--comparisons", type=int, default=1000)
    parser.add_argument("--people", type=Path, help="folder with hh_helpful_dev.jsonl, hh_harmless_dev.jsonl, ...")
    parser.add_argument("--people-limit", type=int, default=1000, help="rows of each file")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
