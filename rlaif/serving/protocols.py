"""The request and reply bodies of the endpoint's protocols: JSON values to `Candidates`, ratings to JSON values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from rlaif.data.columns import described
from rlaif.data.completions import candidates_of, split_query, without_end_tokens
from rlaif.errors import InputError
from rlaif.records import Candidates, Rating


class Protocol(NamedTuple):
    """A way of asking for rewards.

    Attributes:
        list_name: The member of the body that holds the items; errors and limits name it.
        read: Body -> items. Raises InputError.
        write: Ratings -> reply.
    """

    list_name: str
    read: Callable[[Mapping[str, Any]], list[Candidates]]
    write: Callable[[Sequence[Rating]], dict[str, Any]]


def read_items(body: Mapping[str, Any]) -> list[Candidates]:
    """`{"items": [{"prompt", "response"}]}`: prompts are text or messages."""
    items = []
    for number, item in enumerate(_list(body, "items", "{prompt, response}")):
        where = f"items[{number}]"
        if not isinstance(item, Mapping) or "prompt" not in item or "response" not in item:
            raise InputError(f"is {described(item)}, expected {{prompt, response}}", path=where)
        items.append(candidates_of(item["prompt"], item["response"], where))
    return items


def write_items(ratings: Sequence[Rating]) -> dict[str, Any]:
    """`{"items": [{"reward", "rating", "rating_probs"}]}`; the last two are null of a reward model."""
    return {
        "items": [
            {"reward": rating.reward, "rating": rating.rating, "rating_probs": rating.probs} for rating in ratings
        ]
    }


def read_queries(body: Mapping[str, Any], end_tokens: Sequence[str]) -> list[Candidates]:
    """OpenRLHF's `{"query", "prompts", "labels"}`; labels are not looked at.

    A query holds prompt and response. Without `prompts`, all of it is rated as an answer to an empty prompt.
    """
    queries = _list(body, "query", "texts")
    prompts = body.get("prompts")
    if prompts is not None and (not isinstance(prompts, list) or len(prompts) != len(queries)):
        raise InputError(
            f"is {described(prompts)}, expected one for each of {len(queries)} queries, or none", path="prompts"
        )
    items = []
    for number, query in enumerate(queries):
        prompt = "" if prompts is None else prompts[number]
        for name, value in (("query", query), ("prompts", prompt)):
            if not isinstance(value, str):
                raise InputError(f"is {described(value)}, expected a text", path=f"{name}[{number}]")
        prompt, response = split_query(query, prompt, f"query[{number}]")
        items.append(candidates_of(prompt, without_end_tokens(response, end_tokens)))
    return items


def write_rewards(ratings: Sequence[Rating]) -> dict[str, Any]:
    """OpenRLHF's reply; its `scores`, which it filters prompts by, are the rewards mapped to 0..1."""
    if not ratings:
        return {"rewards": []}
    return {
        "rewards": [rating.reward for rating in ratings],
        "scores": [rating.unit_reward for rating in ratings],
        "extra_logs": {},
    }


def read_messages(body: Mapping[str, Any], end_tokens: Sequence[str]) -> list[Candidates]:
    """LLaMA-Factory's `{"model", "messages": [text]}`: each text is rated as an answer to an empty prompt."""
    items = []
    for number, text in enumerate(_list(body, "messages", "texts")):
        if not isinstance(text, str):
            raise InputError(f"is {described(text)}, expected a text", path=f"messages[{number}]")
        items.append(candidates_of("", without_end_tokens(text, end_tokens)))
    return items


def write_scores(ratings: Sequence[Rating]) -> dict[str, Any]:
    """LLaMA-Factory's reply."""
    return {"scores": [rating.reward for rating in ratings]}


def protocols(end_tokens: Sequence[str]) -> dict[str, Protocol]:
    """The protocols by their path."""
    return {
        "/score": Protocol("items", read_items, write_items),
        "/get_reward": Protocol("query", lambda body: read_queries(body, end_tokens), write_rewards),
        "/v1/score/evaluations": Protocol("messages", lambda body: read_messages(body, end_tokens), write_scores),
    }


def _list(body: Mapping[str, Any], name: str, of_what: str) -> list[Any]:
    if name not in body:
        raise InputError(f"is missing, expected a list of {of_what}; found {described(body)}", path=name)
    value = body[name]
    if not isinstance(value, list):
        raise InputError(f"is {described(value)}, expected a list of {of_what}", path=name)
    return value
