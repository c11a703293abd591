"""What a trainer sends to have rated, as `Candidates`: a prompt and a completion, or both in one text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.data.columns import ROLES, described
from rlaif.errors import InputError
from rlaif.records import Candidates, Turn

END_TOKENS = (
    "</s>",
    "<eos>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|end|>",
    "<end_of_turn>",
    "<|return|>",
)
"""What models end an answer with: text again where a trainer decodes with the special tokens kept."""

_SHORTEST_OVERLAP = 32
"""Characters: so much of a prompt's end must stand at a query's start, where the prompt was cut from the left."""


class Split(NamedTuple):
    """A query taken apart."""

    prompt: str
    response: str


def candidates_of(prompt: Any, response: Any, where: str = "item") -> Candidates:
    """One response to rate.

    Args:
        prompt: Text, or a list of {role, content} messages.
        response: Text, an assistant message, or a list of messages that ends with one; those before it (tool calls and
            their results) are counted to the prompt.
        where: What messages call the item, such as "items[3]".

    Returns:
        With an id made from the content, so that equal items are drawn the same principle and the same samples.

    Raises:
        InputError: Something else was given.
    """
    is_text = isinstance(prompt, str)
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else _turns(prompt, f"{where}.prompt")
    if isinstance(response, str):
        text = response
    else:
        said = _turns([response] if isinstance(response, Mapping) else response, f"{where}.response")
        if said[-1].role != "assistant":
            raise InputError(
                f"ends with a message of {said[-1].role}, expected one of assistant", path=f"{where}.response"
            )
        turns, text = (*turns, *said[:-1]), said[-1].content
    return Candidates(_content_id(turns, text), turns, (text,), is_conversational=not is_text)


def split_query(query: str, prompt: str, where: str = "item") -> Split:
    """The response in a query, which is a prompt and a response in one text.

    Neither whitespace nor case counts: a tokenizer that decodes what it encoded adds and drops spaces, most of all
    around special tokens, and a few know no capitals. A prompt that was cut from the left to fit the context is found
    by what is left of it.

    Raises:
        InputError: The query does not begin with the prompt.

    >>> split_query("<s> [INST] Hi [/INST] Hello", "<s>[INST] Hi [/INST]")
    Split(prompt='<s>[INST] Hi [/INST]', response=' Hello')
    """
    if query.startswith(prompt):
        return Split(prompt, query[len(prompt) :])
    if (end := _end_of(prompt, query)) is not None:
        return Split(prompt, query[end:])
    head = query[:_SHORTEST_OVERLAP]
    start = prompt.find(head) if len(head) == _SHORTEST_OVERLAP else -1
    while start >= 0:
        if query.startswith(prompt[start:]):
            return Split(prompt[start:], query[len(prompt) - start :])
        start = prompt.find(head, start + 1)
    raise InputError("does not begin with its prompt, expected prompt and response in one text", path=f"{where}.query")


def without_end_tokens(response: str, end_tokens: Sequence[str] = END_TOKENS) -> str:
    """The response without the special tokens that ended it.

    >>> without_end_tokens("Paris.<|im_end|>")
    'Paris.'
    """
    while token := next((token for token in end_tokens if token and response.endswith(token)), None):
        response = response[: -len(token)]
    return response


def _end_of(prompt: str, query: str) -> int | None:
    """Where the prompt ends in a query that begins with it but for whitespace and case; None where it does not."""
    place = 0
    for word in prompt.split():
        for character in word:
            while place < len(query) and query[place].isspace():
                place += 1
            if place == len(query) or query[place].casefold() != character.casefold():
                return None
            place += 1
    return place


def _turns(value: Any, where: str) -> tuple[Turn, ...]:
    expected = "expected a text or a list of {role, content} messages"
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InputError(f"is {described(value)}, {expected}", path=where)
    if not value:
        raise InputError(f"is an empty list, {expected}", path=where)
    return tuple(_turn(message, f"{where}[{number}]") for number, message in enumerate(value))


def _turn(value: Any, where: str) -> Turn:
    if not isinstance(value, Mapping) or "role" not in value:
        raise InputError(f"is {described(value)}, expected {{role, content}}", path=where)
    role, content = value["role"], value.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise InputError(f"is {described(role)}, expected one of {', '.join(ROLES)}", path=f"{where}.role")
    if isinstance(content, str):
        return Turn(role, content)
    if content is None and value.get("tool_calls"):  # a message that only calls tools says nothing
        return Turn(role, "")
    if isinstance(content, Sequence) and all(_is_text_part(part) for part in content):
        return Turn(role, "".join(part["text"] for part in content))
    raise InputError(f"is {described(content)}, expected a text", path=f"{where}.content")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _content_id(turns: tuple[Turn, ...], response: str) -> str:
    return hashlib.sha256(json.dumps([turns, response]).encode()).hexdigest()
