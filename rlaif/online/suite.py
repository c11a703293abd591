"""What training cost elsewhere: a small suite asked before and after (the alignment tax). The items stand in `suites/`.

Nothing is generated and no judge is asked: an item is answered by which of two answers has the higher log-probability a
token, a text by its log-probability a token. `suite_items` reads, `run_suite` asks a model, `compare` is pure.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlaif.assets import find_asset
from rlaif.auditing.intervals import t_quantile, wilson_interval
from rlaif.auditing.results import Figure
from rlaif.errors import ConfigError
from rlaif.models.examples import Example
from rlaif.records import Turn

if TYPE_CHECKING:
    import torch
    from torch import nn

    from rlaif.models.encoding import ExampleEncoder
    from rlaif.train.step_inputs import ComputePlan

Measure = Literal["right", "margin", "nats"]
"""right: share of items whose right answer has the higher log-probability a token; margin: by how much, nats a token;
nats: what a text's own tokens cost, nats a token (the logarithm of the perplexity)."""

_MEASURED: Mapping[Measure, str] = {
    "right": "right answer likelier",
    "margin": "lead of the right answer, nats a token",
    "nats": "nats a token of text",
}
_IS_BETTER_HIGHER: Mapping[Measure, bool] = {"right": True, "margin": True, "nats": False}


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """A prompt with an answer.

    Attributes:
        id: Unique in its suite.
        kind: What it is about, such as "truthful"; figures are given by kind.
        prompt: One turn of a user.
        right: The right answer, or a text.
        wrong: The wrong answer, of about the same length; None for a text.
    """

    id: str
    kind: str
    prompt: str
    right: str
    wrong: str | None = None


@dataclass(frozen=True, slots=True)
class ItemScore:
    """What a model says of an item.

    Attributes:
        id, kind: The item's.
        right, wrong: Mean log-probability of a token of each answer, its end included, nats; `wrong` None for a text.
    """

    id: str
    kind: str
    right: float
    wrong: float | None

    def value(self, measure: Measure) -> float | None:
        """The item's part in a measure; None where it has none."""
        if measure == "nats":
            return -self.right if self.wrong is None else None
        if self.wrong is None:
            return None
        lead = self.right - self.wrong
        return lead if measure == "margin" else (lead > 0) + 0.5 * (lead == 0)


@dataclass(frozen=True, slots=True)
class SuiteScores:
    """What a model says of a suite.

    Attributes:
        scores: One an item that it could be asked, in the suite's order.
        left_out: Ids of items that do not fit its context.
    """

    scores: tuple[ItemScore, ...]
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As a JSON value, for `from_json`."""
        return {
            "scores": [{"id": one.id, "kind": one.kind, "right": one.right, "wrong": one.wrong} for one in self.scores],
            "left_out": list(self.left_out),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> SuiteScores:
        """The same scores again."""
        return cls(tuple(ItemScore(**one) for one in value["scores"]), tuple(value["left_out"]))


@dataclass(frozen=True, slots=True)
class SuiteRow:
    """A line of the table before and after.

    Attributes:
        kind: Of the items.
        measure: What is measured.
        before, after: Of each model, over the same items.
        difference: After less before, paired by item.
    """

    kind: str
    measure: Measure
    before: Figure
    after: Figure
    difference: Figure

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval of the difference is on the bad side of 0."""
        low, high = self.difference.low, self.difference.high
        if low is None or high is None:
            return False
        return high < 0 if _IS_BETTER_HIGHER[self.measure] else low > 0

    @property
    def words(self) -> str:
        """What is measured, in words."""
        return _MEASURED[self.measure]


def suite_items(name: str) -> tuple[SuiteItem, ...]:
    """The items of a suite.

    Args:
        name: Of a suite that ships ("mini"), or the path of a .jsonl file with one item a line: id, kind, prompt,
            right, and wrong unless it is a text.

    Raises:
        ConfigError: There is no such suite, or a line is no item; names file and line.
    """
    path = find_asset("suites", name)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"suite {name} cannot be read ({error}); expected a .jsonl file in UTF-8") from error
    items = [_item(line, f"suite {name}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise ConfigError(f"suite {name} has no items; expected one a line: id, kind, prompt, right, wrong")
    ids = [item.id for item in items]
    if twice := sorted({each for each in ids if ids.count(each) > 1}):
        raise ConfigError(f"suite {name} has the id {twice[0]!r} more than once; expected one id an item")
    return tuple(items)


def run_suite(
    model: nn.Module,
    encoder: ExampleEncoder,
    items: Sequence[SuiteItem],
    plan: ComputePlan,
    *,
    device: torch.device | str = "cpu",
    max_length: int | None = None,
    autocast: Callable[[], Any] | None = None,
) -> SuiteScores:
    """Ask a model; its mode is as before afterwards, and nothing is drawn.

    Args:
        model: The policy.
        encoder: Of its tokenizer.
        items: At least one.
        plan: How the model computes.
        device: The model's.
        max_length: Its context; items that do not fit are left out and named. None: no limit.
        autocast: What the trainer computes under; None for nothing.

    Raises:
        ConfigError: The chat template cannot render a prompt of one turn.
    """
    import contextlib

    import torch

    from rlaif.models.batches import collate
    from rlaif.models.logprobs import token_logprobs

    examples = [_example(encoder, item) for item in items]
    fitting = [one for one in examples if max_length is None or one.length <= max_length]
    found: dict[str, list[float]] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), (autocast or contextlib.nullcontext)():
            for together in _batches(fitting, plan):
                batch = collate(together, is_packed=plan.is_packed, pad=plan.pad).to(device)
                read = token_logprobs(model, batch, is_chunked=plan.is_chunked)
                means = (read.sums.double() / read.tokens.clamp(min=1)).tolist()
                found.update(zip(batch.ids, means, strict=True))
    finally:
        model.train(was_training)
    scores = tuple(
        ItemScore(item.id, item.kind, found[item.id][0], None if item.wrong is None else found[item.id][1])
        for item in items
        if item.id in found
    )
    return SuiteScores(scores, tuple(item.id for item in items if item.id not in found))


def compare(before: SuiteScores, after: SuiteScores) -> tuple[SuiteRow, ...]:
    """The table before and after, over the items that both were asked.

    Intervals are 95 %: Wilson's for a share, t for a mean, and for differences of the same items t for means and
    Agresti and Min's for shares. Items are independent of each other, so each is a cluster of its own.

    Returns:
        For each kind, in the suite's order, `right` and `margin`, or `nats`; then what several kinds have over all.

    Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics in
    Medicine 24 (2005).
    """
    then = {one.id: one for one in before.scores}
    pairs = [(then[one.id], one) for one in after.scores if one.id in then]
    kinds = list(dict.fromkeys(one.kind for _, one in pairs))
    rows: list[SuiteRow] = []
    for kind in kinds:
        rows += _rows(kind, [pair for pair in pairs if pair[1].kind == kind])
    measures = [row.measure for row in rows]
    return (*rows, *(row for row in _rows("all", pairs) if measures.count(row.measure) > 1))


def summary(rows: Sequence[SuiteRow]) -> str:
    """One sentence: what became worse, if anything did.

    With some ten lines of 95 % intervals a line that is worse by chance is no rarity, and the sentence says so.
    """
    worse = [row for row in rows if row.is_worse]
    if not worse:
        return "nothing in the suite became surely worse"
    names = ", ".join(f"{row.kind} ({row.words})" for row in worse)
    return f"worse than before training: {names}; {len(worse)} of {len(rows)} lines, each wrong once in 20 by chance"


def _item(line: str, where: str) -> SuiteItem:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where} is no JSON ({error}); expected an object") from error
    names = ("id", "kind", "prompt", "right", "wrong")
    if not isinstance(row, dict):
        raise ConfigError(f"{where} is no object; expected {', '.join(names)}")
    if unknown := sorted(set(row) - set(names)):
        raise ConfigError(f"{where} has {unknown[0]!r}; expected {', '.join(names)}")
    for name in names:
        value = row.get(name)
        if not (isinstance(value, str) and value.strip()) and not (name == "wrong" and value is None):
            raise ConfigError(f"{where}: {name} is {value!r}, expected text")
    return SuiteItem(**row)


def _example(encoder: ExampleEncoder, item: SuiteItem) -> Example:
    answers = [item.right] if item.wrong is None else [item.right, item.wrong]
    return encoder.example(item.id, (Turn("user", item.prompt),), answers)


def _batches(examples: Sequence[Example], plan: ComputePlan) -> Iterator[list[Example]]:
    """Examples of like length together, each batch within the budget (or one example that is beyond it)."""
    batch: list[Example] = []
    rows = width = 0
    for example in sorted(examples, key=lambda example: example.extent(is_packed=plan.is_packed).width):
        extent = example.extent(is_packed=plan.is_packed)
        if batch and (rows + extent.rows) * max(width, extent.width) > plan.max_tokens:
            yield batch
            batch, rows, width = [], 0, 0
        batch.append(example)
        rows, width = rows + extent.rows, max(width, extent.width)
    if batch:
        yield batch


def _rows(kind: str, pairs: Sequence[tuple[ItemScore, ItemScore]]) -> Iterator[SuiteRow]:
    measures: tuple[Measure, ...] = ("right", "margin", "nats")
    for measure in measures:
        values = [(then.value(measure), now.value(measure)) for then, now in pairs]
        both = [(then, now) for then, now in values if then is not None and now is not None]
        if both:
            then, now = [each for each, _ in both], [each for _, each in both]
            change = [after - before for before, after in both]
            if measure == "right":
                yield SuiteRow(kind, measure, _share(then), _share(now), _share_change(change))
            else:
                yield SuiteRow(kind, measure, _mean(then), _mean(now), _mean(change))


def _share(values: Sequence[float]) -> Figure:
    share = statistics.fmean(values)
    low, high = wilson_interval(share, len(values))
    return Figure(share, min(low, share), max(high, share), len(values))


def _mean(values: Sequence[float]) -> Figure:
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Figure(mean, None, None, count, "a single item has no interval")
    error = statistics.stdev(values) / math.sqrt(count)
    reach = t_quantile(count - 1.0) * error
    return Figure(mean, mean - reach, mean + reach, count)


def _share_change(changes: Sequence[float]) -> Figure:
    """Difference of two shares of the same items (Agresti and Min): half an item is added to each of the four cells."""
    count = len(changes)
    padded = count + 2
    middle = math.fsum(changes) / padded
    # Each of the two cells in which the models differ gets half an item, a step of 1 up or down.
    squares = math.fsum(change**2 for change in changes) + 1.0
    error = math.sqrt(max(squares / padded - middle**2, 0.0) / padded)
    value = math.fsum(changes) / count
    low, high = middle - 1.959964 * error, middle + 1.959964 * error
    return Figure(value, max(-1.0, min(low, value)), min(1.0, max(high, value)), count)
