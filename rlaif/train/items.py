"""Rows as what a step computes: token ids, and one number for each completion that the loss trains towards.

The number is P(preferred) of a pair's responses, the rating of a candidate, P(desirable) of a single response.
Exchanging A and B exchanges the completions with their numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from rlaif.errors import ConfigError, PromptTooLongError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.examples import Cut, Example, truncate_example
from rlaif.randomness import seeded_random
from rlaif.train.labels import target_prob
from rlaif.training_records import Feedback, LabeledPair, Labels, RatedCandidates, TrainingRow

_WAYS = {"prompt": "its start goes", "completion": "their ends go"}
"""What each way of cutting takes."""


class TokenTargets(NamedTuple):
    """What a policy gradient trains towards: for each completion, one number a token. Log-probabilities in nats, under
    the distribution that is sampled from.

    Attributes:
        advantages: By how much better than expected it went from this token on.
        old_logprobs: Of the policy that wrote the token.
        reference_logprobs: Of the reference, where the loss holds the policy to it.
        returns: What a value at this token is to predict, where values are learnt.
        old_values: What was predicted when the advantages were computed.
    """

    advantages: tuple[tuple[float, ...], ...]
    old_logprobs: tuple[tuple[float, ...], ...]
    reference_logprobs: tuple[tuple[float, ...], ...] | None = None
    returns: tuple[tuple[float, ...], ...] | None = None
    old_values: tuple[tuple[float, ...], ...] | None = None


@dataclass(frozen=True, slots=True)
class TrainingItem:
    """A row that is trained on.

    Attributes:
        example: The prompt with the row's responses.
        scores: One number a completion, as the module says; empty for a demonstration.
        margin: How much the preferred response's reward has to lead by.
        reference: The reference's log-probability of each completion; None where it was not asked.
        mismatched: The prompt with the responses of another one, where the loss asks for it (KTO).
        targets: What the tokens of a rollout are trained towards; None where `scores` say it.
        aux_weights: How much the likelihood of each completion weighs, by its auxiliary rewards (HPO); None where that
            is not learnt.
    """

    example: Example
    scores: tuple[float, ...] = ()
    margin: float = 0.0
    reference: tuple[float, ...] | None = None
    mismatched: TrainingItem | None = None
    targets: TokenTargets | None = None
    aux_weights: tuple[float, ...] | None = None


@dataclass
class Truncation:
    """How much did not fit. Counted once a row for its prompt, once a response for completions; in tokens."""

    max_length: int
    prompts: int = 0
    prompt_tokens: int = 0
    completions: int = 0
    completion_tokens: int = 0

    def __str__(self) -> str:
        parts = [
            f"{count:,} {name}{'s' if count > 1 else ''} by {tokens:,} tokens in all"
            for count, name, tokens in (
                (self.prompts, "prompt", self.prompt_tokens),
                (self.completions, "response", self.completion_tokens),
            )
            if count
        ]
        return f"cut to {self.max_length:,} tokens: {' and '.join(parts)}" if parts else "nothing was cut"


class Scored(NamedTuple):
    """A row's responses, each with its number; none of these where there is nothing to prefer."""

    responses: tuple[str, ...]
    scores: tuple[float, ...]


def scored_responses(row: TrainingRow, labels: Labels) -> Scored:
    """What is trained on, and towards what.

    Raises:
        ValueError: The row has no label of this kind, or a tie under "hard"; those are to be left out before.
    """
    if isinstance(row, LabeledPair):
        comparison = row.comparison
        # What counts as a tie was for the filters to say: here only what has no side at all.
        prob = target_prob(labels, row.prob_a, comparison.human_votes, comparison.human_label, tie_band=0.0)
        if prob is None:
            raise ValueError(f"row {row.id!r} is a tie, which has no hard label")
        return Scored((comparison.response_a, comparison.response_b), (prob, 1.0 - prob))
    if isinstance(row, RatedCandidates):
        return Scored(row.candidates.responses, row.scores)
    if isinstance(row, Feedback):
        return Scored((row.response,), (float(row.is_desirable),))
    return Scored((row.response,), ())


def make_items(
    rows: Sequence[TrainingRow],
    encoder: ExampleEncoder,
    labels: Labels,
    *,
    max_length: int,
    cut: Cut = "none",
    on_too_long: Callable[[TrainingRow, PromptTooLongError], None] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[list[TrainingItem], Truncation]:
    """Encode rows and cut them to length.

    Args:
        rows: What filters have left.
        encoder: Of the model that is trained.
        labels: What pairs are trained towards.
        max_length: Most tokens of a prompt and one response.
        cut: What gives way, as in `truncate_example`.
        on_too_long: Told of a row that does not fit, though what may be cut is cut: it is left out. None refuses it.
        on_progress: Told of (rows done, all rows).

    Returns:
        One item a row, in their order, and what was cut.

    Raises:
        PromptTooLongError: Rows do not fit, and are not left out; says how many.
        ConfigError: The chat template cannot render a prompt's roles.
    """
    items: list[TrainingItem] = []
    truncation = Truncation(max_length)
    too_long: list[PromptTooLongError] = []
    for number, row in enumerate(rows, 1):
        responses, scores = scored_responses(row, labels)
        example = encoder.example(row.id, row.prompt, responses)
        try:
            fitting, prompt_cut, completions_cut = truncate_example(
                example, max_length, cut=cut, bos=encoder.tokenizer.bos_token_id
            )
        except PromptTooLongError as error:
            if on_too_long is None:
                too_long.append(error)
            else:
                on_too_long(row, error)
            continue
        truncation.prompts += prompt_cut > 0
        truncation.prompt_tokens += prompt_cut
        truncation.completions += sum(lost > 0 for lost in completions_cut)
        truncation.completion_tokens += sum(completions_cut)
        margin = row.margin if isinstance(row, LabeledPair) and row.margin is not None else 0.0
        items.append(TrainingItem(fitting, scores, margin))
        on_progress(number, len(rows))
    if too_long:
        ways = [f"--truncate {other} ({what})" for other, what in _WAYS.items() if other != cut]
        raise PromptTooLongError(
            f"{len(too_long):,} of {len(rows):,} rows are too long, the first: {too_long[0]}; raise "
            f"--max-length as far as the model allows, use {' or '.join(ways)}, or leave them out with --skip-bad-rows"
        )
    return items, truncation


def with_mismatches(items: Sequence[TrainingItem], seed: int, *, max_length: int) -> list[TrainingItem]:
    """Give each item the responses of another prompt: KTO's reference point is measured on them.

    The partner is drawn once for all epochs, so that the reference model is asked once. No prompt is paired with its
    own responses, nor with those that the same prompt has in another row, whatever the classes in a batch are.

    Args:
        items: At least two of them with different prompts.
        seed: Of the draw.
        max_length: Responses are cut to it under their new prompt; these are measured, not learnt.

    Raises:
        ConfigError: All prompts are equal.

    Source: ContextualAI/HALOs (responses shifted by one within a batch); one draw over all rows is ours.
    """
    order = list(range(len(items)))
    seeded_random(seed, "", "mismatched responses").shuffle(order)
    prompts = [items[place].example.prompt for place in order]
    if len(set(prompts)) < 2:
        raise ConfigError("KTO measures responses under prompts that are not theirs, and all rows have one prompt")
    partner_of: dict[int, int] = {}
    for start, place in enumerate(order):
        steps = 1
        while prompts[(start + steps) % len(order)] == prompts[start]:
            steps += 1
        partner_of[place] = order[(start + steps) % len(order)]
    paired = []
    for place, item in enumerate(items):
        partner = items[partner_of[place]].example
        mixed = Example(f"{item.example.id} with {partner.id}", item.example.prompt, partner.completions)
        fitting = truncate_example(mixed, max_length, cut="completion").example
        paired.append(replace(item, mismatched=TrainingItem(fitting)))
    return paired


def kto_balance(items: Sequence[TrainingItem], desirable_weight: float, undesirable_weight: float) -> float:
    """lambda_d n_d / (lambda_u n_u), which is best from 1 to 4/3; a soft label counts for both sides in part.

    Args:
        items: Whose scores are P(desirable).
        desirable_weight, undesirable_weight: The lambdas of `kto_loss`.

    Returns:
        At least 0; infinite where nothing undesirable weighs anything.

    Source: Ethayarajh et al., arXiv:2402.01306, equation 8.
    """
    desirable = desirable_weight * sum(score for item in items for score in item.scores)
    undesirable = undesirable_weight * sum(1.0 - score for item in items for score in item.scores)
    return desirable / undesirable if undesirable else math.inf


def with_references(
    items: Sequence[TrainingItem], ask: Callable[[Sequence[Example]], Sequence[tuple[float, ...]]]
) -> list[TrainingItem]:
    """Give each item, and what it holds of others, the reference's log-probabilities.

    Args:
        items: As `make_items` or `with_mismatches` made them.
        ask: Examples -> log-probability of each of their completions; called once.
    """
    mismatched = [item.mismatched for item in items if item.mismatched is not None]
    answers = iter(ask([item.example for item in items] + [item.example for item in mismatched]))
    own = [replace(item, reference=next(answers)) for item in items]
    return [
        item if item.mismatched is None else replace(item, mismatched=replace(item.mismatched, reference=next(answers)))
        for item in own
    ]
