"""How a tokenizer writes each label, and exact log-probabilities of a label that takes two tokens.

Many vocabularies write "10" as "1" and "0", so that it begins as "1" does. P("10") is then P("1") P("0" | "1"), and
P("1") what is left of its own token: P("1") (1 - P("0" | "1")). Where "10" is one token, nothing of this is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rlaif.errors import BackendUnusableError
from rlaif.records import TokenLogprob
from rlaif.tokens import LabelToken, label_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NEGLIGIBLE = 1e-6
"""A first half with less probability than this is not followed: it moves a rating by less than 1e-5."""


class SplitLabel(NamedTuple):
    """A label that no token spells, such as "10".

    Attributes:
        heads: The tokens of the label it begins with, such as "1" and " 1".
        tail: The rest of it, such as "0".
        tail_ids: The vocabulary entries that are exactly the rest.
    """

    heads: tuple[LabelToken, ...]
    tail: str
    tail_ids: tuple[int, ...]


class Spelling(NamedTuple):
    """How the labels of a request are written: whole, or in two tokens."""

    tokens: tuple[LabelToken, ...]
    splits: tuple[SplitLabel, ...]


def spelling_of(tokenizer: PreTrainedTokenizerFast, labels: Sequence[str], name: str) -> Spelling:
    """How a tokenizer writes the labels.

    Args:
        tokenizer: A fast tokenizer of transformers.
        labels: Such as ("1", "2"), or "1" to "10".
        name: The judge, for the message.

    Raises:
        BackendUnusableError: A label is neither one token, nor a shorter label and one more token.
    """
    found = label_tokens(tokenizer, labels)
    splits = []
    for label in (label for label in labels if not found[label]):
        head = next((other for other in labels if found[other] and label.startswith(other)), None)
        tail = label[len(head) :] if head is not None else ""
        tail_ids = tuple(token.id for token in label_tokens(tokenizer, (tail,))[tail] if token.text == tail)
        if head is None or not tail_ids:
            raise BackendUnusableError(
                f"{name} writes the label {label!r} in a way that cannot be read; expected a model whose vocabulary "
                "holds each label, or each of its digits"
            )
        splits.append(SplitLabel(found[head], tail, tail_ids))
    return Spelling(tuple(token for label in labels for token in found[label]), tuple(splits))


def with_tails(tokens: Sequence[TokenLogprob], tails: Mapping[int, float], tail: str) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of first tokens, with a label that begins as one of them taken apart from it.

    Args:
        tokens: Labels' tokens with log-probabilities, such as "1" and " 1".
        tails: Place of a token there, such as that of "1" -> log-probability of `tail` right after it.
        tail: The rest of the longer label, such as "0".

    Returns:
        All of `tokens`, each with a tail lowered to what does not go on with it, then the longer labels. The sum of
        the probabilities is kept.

    >>> split = with_tails([TokenLogprob("1", math.log(0.4))], {0: math.log(0.75)}, "0")
    >>> [(text, round(math.exp(logprob), 6)) for text, logprob in split]
    [('1', 0.1), ('10', 0.3)]
    """
    heads, whole = [], []
    for place, (text, logprob) in enumerate(tokens):
        if place not in tails:
            heads.append(TokenLogprob(text, logprob))
            continue
        goes_on = min(math.exp(tails[place]), 1.0)
        rest = logprob + math.log1p(-goes_on) if goes_on < 1.0 else -math.inf
        heads.append(TokenLogprob(text, rest))
        whole.append(TokenLogprob(text + tail, logprob + tails[place]))
    return (*heads, *whole)


def joined(
    spelling: Spelling, logprobs: Mapping[int, float], halves: Mapping[int, Mapping[int, float]]
) -> tuple[TokenLogprob, ...]:
    """The log-probabilities of all labels, from what a model says after the prompt and after first halves of labels.

    Args:
        spelling: How the labels are written.
        logprobs: Token id -> log-probability after the prompt; ids that spell no label do not count.
        halves: Id of a first half -> (token id -> log-probability after prompt and first half). One that was not
            followed is left out, and counts as the shorter label.
    """
    seen = [token for token in spelling.tokens if token.id in logprobs]
    tokens = tuple(TokenLogprob(token.text, logprobs[token.id]) for token in seen)
    for split in spelling.splits:
        tails = {}
        for head in split.heads:
            found = [halves[head.id][tail] for tail in split.tail_ids if tail in halves.get(head.id, {})]
            if found and head in seen:
                tails[seen.index(head)] = _log_sum(found)
        tokens = with_tails(tokens, tails, split.tail)
    return tokens


def _log_sum(logprobs: Sequence[float]) -> float:
    highest = max(logprobs)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(logprob - highest) for logprob in logprobs))
