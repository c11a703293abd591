from __future__ import annotations

import json
from typing import Any

import pytest

from rlaif.backends.openai_servers import (
    UNKNOWN_SERVER,
    LabelPlan,
    Server,
    ServerKind,
    continuing_fields,
    hint_at_models,
    in_common,
    long_label,
    recognise,
    spelling_from,
    takes_two_tokens,
    tokenize_request,
)
from rlaif.records import RATING_LABELS
from rlaif.tokens import LabelToken


def models(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"object": "list", "data": list(entries)}).encode()


VLLM = {"id": "judge", "object": "model", "created": 1, "owned_by": "vllm", "max_model_len": 2048}
SGLANG = {"id": "judge", "object": "model", "created": 1, "owned_by": "sglang", "max_model_len": 4096}
LLAMA_CPP = {"id": "j.gguf", "object": "model", "created": 1, "owned_by": "llamacpp", "meta": {"n_ctx": 8192}}
OLLAMA = {"id": "llama3:8b", "object": "model", "created": 1, "owned_by": "library"}
TGI = {"id": "org/judge", "object": "model", "created": 0, "owned_by": "org/judge"}


@pytest.mark.parametrize(
    ("version", "listed", "expected"),
    [
        (b'{"version":"0.32.0"}', VLLM, Server(ServerKind.VLLM, "0.32.0", ("judge",), 2048)),
        (None, SGLANG, Server(ServerKind.SGLANG, "", ("judge",), 4096)),
        (None, LLAMA_CPP, Server(ServerKind.LLAMA_CPP, "", ("j.gguf",), 8192)),
        (None, OLLAMA, Server(ServerKind.OLLAMA, "", ("llama3:8b",), None)),
        (None, TGI, Server(ServerKind.TGI, "", ("org/judge",), None)),
        (b'{"version":"1"}', {"id": "m", "owned_by": "me"}, Server(ServerKind.UNKNOWN, "", ("m",), None)),
    ],
)
def test_each_server_is_known_by_what_it_says(version: bytes | None, listed: dict[str, Any], expected: Server) -> None:
    assert recognise(version, models(listed), "judge") == expected


@pytest.mark.parametrize(
    "body",
    [
        None,
        b"",
        b"<html>",
        b"[]",
        b"3",
        b'{"data": {}}',
        b'{"data": [null, 3, "x", []]}',
        models({"id": 3, "owned_by": ["vllm"], "max_model_len": "2048"}),
        models({"id": "x" * 5000, "owned_by": "VLLM ", "max_model_len": 2**40}),
        models({"owned_by": {"vllm": 1}, "max_model_len": -1, "meta": {"n_ctx": True}}),
    ],
)
def test_a_body_with_any_surprise_is_an_unknown_server(body: bytes | None) -> None:
    assert recognise(body, body, "judge") == UNKNOWN_SERVER


def test_words_of_a_server_are_shown_without_what_a_terminal_obeys() -> None:
    server = recognise(b'{"version":"1\\u001b[2J\\n2\\u202e"}', models({**VLLM, "id": "a\x1bb"}), "judge")
    assert (server.version, server.models) == ("1 [2J 2", ("a b",))


def test_the_context_is_that_of_our_model() -> None:
    both = models({**VLLM, "id": "other", "max_model_len": 10}, VLLM)
    assert recognise(None, both, "judge").context_tokens == 2048
    assert recognise(None, both, "third").context_tokens is None


def test_replicas_are_what_all_of_them_are() -> None:
    one, other = Server(ServerKind.VLLM, "1", ("a", "b"), 100), Server(ServerKind.VLLM, "1", ("b", "c"), 50)
    assert in_common([one, one]) == one
    assert in_common([one, other]) == Server(ServerKind.VLLM, "1", ("b",), 50)
    newer = Server(ServerKind.VLLM, "2", ("a",), None)
    assert in_common([one, newer]) == Server(ServerKind.VLLM, "", ("a",), 100)
    assert not in_common([one, newer]).has_exact_logprobs, "the older one may not have them"
    assert in_common([one, UNKNOWN_SERVER]).kind is ServerKind.UNKNOWN
    assert in_common([]) == UNKNOWN_SERVER


def test_models_are_named_only_where_ours_is_not_among_them() -> None:
    assert hint_at_models("judge", ()) == ""
    assert hint_at_models("judge", ("judge", "other")) == ""
    assert hint_at_models("jugde", ("judge", "other")) == "; it lists judge, other (did you mean 'judge'?)"
    assert hint_at_models("z", tuple("abcdefg")).startswith("; it lists a, b, c, d, e, ...")


def test_which_servers_continue_a_reply() -> None:
    continuing = {kind for kind in ServerKind if continuing_fields(kind) is not None}
    assert continuing == {ServerKind.VLLM, ServerKind.SGLANG, ServerKind.LLAMA_CPP, ServerKind.TGI}
    assert all(tokenize_request(kind, "judge", "10") for kind in continuing), "their tokenizer can be asked"


def test_long_labels() -> None:
    assert long_label(("1", "2")) is None
    assert long_label(()) is None
    assert long_label(RATING_LABELS) == ("10", "1", "0")


def tokenized(*tokens: tuple[int, str]) -> bytes:
    ids, names = [token for token, _ in tokens], [name for _, name in tokens]
    return json.dumps({"count": len(ids), "max_model_len": 99, "tokens": ids, "token_strs": names}).encode()


def test_spelling_in_a_byte_level_vocabulary() -> None:
    bodies = [
        tokenized((1, "1"), (9, ","), (2, "2"), (9, ","), (3, "10")),
        tokenized((4, "Ġ1"), (5, "Ġ2"), (6, "Ġ10")),
        tokenized((7, "Ċ"), (1, "1"), (7, "Ċ"), (2, "2"), (8, "Ċ10")),
    ]
    spelling = spelling_from(bodies, ("1", "2", "10"))
    assert spelling is not None
    assert spelling.splits == ()
    assert spelling.tokens == (
        LabelToken(1, "1"),
        LabelToken(4, " 1"),
        LabelToken(2, "2"),
        LabelToken(5, " 2"),
        LabelToken(3, "10"),
        LabelToken(6, " 10"),
        LabelToken(8, "\n10"),
    )


def test_spelling_in_a_vocabulary_of_sentencepiece_without_a_10() -> None:
    bodies = [tokenized((1, "▁1"), (9, ","), (2, "2"), (9, ","), (3, "1"), (4, "0")), tokenized((1, "▁1"), (5, "▁2"))]
    spelling = spelling_from(bodies, ("1", "2", "10"))
    assert spelling is not None
    assert spelling.tokens == (LabelToken(1, " 1"), LabelToken(3, "1"), LabelToken(2, "2"), LabelToken(5, " 2"))
    (split,) = spelling.splits
    assert (split.tail, split.tail_ids) == ("0", (4,))
    assert split.heads == (LabelToken(1, " 1"), LabelToken(3, "1"))


@pytest.mark.parametrize(
    "bodies",
    [
        [],
        [b"{}"],
        [b"no json"],
        [b'{"tokens": [1, 2]}'],  # an older vLLM: no texts
        [b'{"tokens": [1], "token_strs": ["1", "2"]}'],
        [b'{"tokens": ["1", "2"], "token_strs": ["1", "2"]}'],
        [b'{"tokens": [-1, 99999999999], "token_strs": ["1", "2"]}'],
        [b'{"tokens": [1, 2], "token_strs": [1, null]}'],
        [tokenized((1, "1"))],  # no token is "2", and it begins as no other label
    ],
)
def test_labels_that_cannot_be_found_have_no_spelling(bodies: list[bytes]) -> None:
    assert spelling_from(bodies, ("1", "2")) is None


@pytest.mark.parametrize(
    ("head", "label", "expected"),
    [
        ([5], [5, 4], True),
        ([5], [9], False),
        ([1, 5], [1, 5, 4], True),  # something stands before both
        ([1, 5], [1, 9], False),
        ([5, 2], [5, 4, 2], None),  # something stands after both
        ([5], [6, 7], None),
        ([], [5], None),
        ([5], [], None),
    ],
)
def test_whether_a_label_takes_two_tokens(head: list[int], label: list[int], expected: bool | None) -> None:
    plain = [json.dumps({"tokens": ids}).encode() for ids in (head, label)]
    of_tgi = [json.dumps([{"id": token, "text": "x", "start": 0, "stop": 1} for token in ids]) for ids in (head, label)]
    assert takes_two_tokens(*plain) is expected
    assert takes_two_tokens(*(text.encode() for text in of_tgi)) is expected


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[null]", b'[{"id": "5"}]', b'{"tokens": {"a": 1}}', b'{"tokens": [true]}']
)
def test_a_tokenizer_that_talks_nonsense_tells_nothing(body: bytes) -> None:
    assert takes_two_tokens(body, b'{"tokens": [5, 4]}') is None


def test_a_plain_plan_adds_nothing_to_a_request() -> None:
    plan = LabelPlan(("1", "2"))
    assert (plan.max_tokens, plan.fields) == (1, {})
