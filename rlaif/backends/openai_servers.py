"""What an OpenAI-compatible server is and what it can do, from what its endpoints say. Pure: bodies in, facts out.

Read in the sources of vLLM 0.32.0 (and seen running), SGLang, llama.cpp, Ollama and Hugging Face's text-generation
-inference (TGI). Nothing in a body is trusted; a server that cannot be recognised is an unknown one, never an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import orjson

from rlaif.backends.spelling import Spelling, SplitLabel
from rlaif.errors import did_you_mean
from rlaif.tokens import LabelToken

VERSION_PATH, MODELS_PATH, TOKENIZE_PATH = "//version", "/models", "//tokenize"

_MARKERS = " \t\r\n▁ĠĊ"
"""White space around a label, and what stands for it in vocabularies of SentencePiece's and of byte-level kind."""

_LONGEST_NAME = 200
_SHOWN_MODELS = 5
_LARGEST_ID = 2**31


class ServerKind(StrEnum):
    """Servers that are told apart; the value is their name."""

    VLLM = "vLLM"
    SGLANG = "SGLang"
    LLAMA_CPP = "llama.cpp"
    TGI = "TGI"
    OLLAMA = "Ollama"
    UNKNOWN = "unknown"


_OWNERS = {
    "vllm": ServerKind.VLLM,
    "sglang": ServerKind.SGLANG,
    "llamacpp": ServerKind.LLAMA_CPP,
    "library": ServerKind.OLLAMA,  # the namespace of the models on its own hub
}

_CONTINUES: dict[ServerKind, Mapping[str, Any]] = {
    # vLLM needs both. SGLang makes a last assistant message the user's without its one. llama.cpp (unless started with
    # --no-prefill-assistant) and TGI go on with a last assistant message unasked.
    ServerKind.VLLM: {"add_generation_prompt": False, "continue_final_message": True},
    ServerKind.SGLANG: {"continue_final_message": True},
    ServerKind.LLAMA_CPP: {},
    ServerKind.TGI: {},
}


_SAMPLES_FROM_ALL: dict[ServerKind, Mapping[str, Any]] = {
    # What is not said, these take from the model's generation_config.json or from defaults of their own, such as
    # llama.cpp's 40 likeliest tokens. TGI has no such defaults, and refuses a top_p of 1.
    ServerKind.VLLM: {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1},
    ServerKind.SGLANG: {"top_p": 1, "top_k": -1, "min_p": 0, "repetition_penalty": 1},
    ServerKind.LLAMA_CPP: {"top_p": 1, "top_k": -1, "min_p": 0},
    ServerKind.OLLAMA: {"top_p": 1},
}


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of a server.

    Attributes:
        kind: Which program.
        version: As it says; "" when unknown, or when replicas differ.
        models: Those it lists; empty when it lists none.
        context_tokens: Longest prompt plus completion of our model; None when unknown.
    """

    kind: ServerKind = ServerKind.UNKNOWN
    version: str = ""
    models: tuple[str, ...] = ()
    context_tokens: int | None = None

    def __str__(self) -> str:
        return f"{self.kind.value} {self.version}".strip()

    @property
    def has_exact_logprobs(self) -> bool:
        """Whether log-probabilities of chosen tokens may be asked for; a version too old for it shows in its reply."""
        return self.kind is ServerKind.VLLM and bool(self.version)


UNKNOWN_SERVER = Server()


def recognise(version: bytes | None, models: bytes | None, model: str) -> Server:
    """What a server is, from the bodies of `/version` and `/models`.

    Args:
        version, models: As received; None for no answer.
        model: Ours, whose context is wanted.

    >>> str(recognise(b'{"version":"0.32.0"}', b'{"data":[{"id":"m","owned_by":"vllm"}]}', "m"))
    'vLLM 0.32.0'
    """
    entries = _entries(models)
    names = tuple(name for entry in entries if (name := _word(entry.get("id"))))
    ours = next((entry for entry in entries if entry.get("id") == model), entries[0] if len(entries) == 1 else {})
    kind = next((found for entry in entries if (found := _kind_of(entry))), ServerKind.UNKNOWN)
    said = _word(_mapping(version).get("version"))
    meta = ours.get("meta")
    context = ours.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    is_count = type(context) is int and 0 < context < _LARGEST_ID
    return Server(kind, said if kind is not ServerKind.UNKNOWN else "", names, context if is_count else None)


def in_common(servers: Iterable[Server]) -> Server:
    """What all replicas are and can do."""
    known = list(servers)
    if not known:
        return UNKNOWN_SERVER
    kinds, versions = {server.kind for server in known}, {server.version for server in known}
    contexts = [server.context_tokens for server in known]
    return Server(
        kinds.pop() if len(kinds) == 1 else ServerKind.UNKNOWN,
        versions.pop() if len(versions) == 1 else "",
        tuple(name for name in known[0].models if all(name in server.models for server in known)),
        min((context for context in contexts if context is not None), default=None),
    )


def hint_at_models(model: str, models: Sequence[str]) -> str:
    """What to add to a 404 of a server that lists other models than ours; "" where it lists ours, or none."""
    if not models or model in models:
        return ""
    shown = ", ".join(models[:_SHOWN_MODELS]) + (", ..." if len(models) > _SHOWN_MODELS else "")
    return f"; it lists {shown}{did_you_mean(model, models)}"


def continuing_fields(kind: ServerKind) -> Mapping[str, Any] | None:
    """Fields of a chat request that make a server go on with the last message; None where it cannot."""
    return _CONTINUES.get(kind)


def sampling_fields(kind: ServerKind, top_p: float) -> Mapping[str, Any]:
    """Fields of a request that make a server sample by temperature and `top_p` alone.

    >>> sampling_fields(ServerKind.UNKNOWN, 1.0), sampling_fields(ServerKind.UNKNOWN, 0.9)
    ({}, {'top_p': 0.9})
    """
    return {**_SAMPLES_FROM_ALL.get(kind, {}), **({"top_p": top_p} if top_p != 1.0 else {})}


# --- how labels are written -------------------------------------------------------------------------------------------


class LongLabel(NamedTuple):
    """A label that begins as another one: "10" = head "1" and rest "0"."""

    label: str
    head: str
    rest: str


@dataclass(frozen=True, slots=True, eq=False)
class LabelPlan:
    """How one set of labels is asked for; each plan is its own.

    Attributes:
        labels: The set.
        exact: All tokens that spell them, whose log-probabilities are asked for by id; None asks for the likeliest.
        long: The label that may take two tokens, where that is not known to be otherwise.
        follows: Whether a reply that begins with the first half of `long` can be gone on with in a second call.
    """

    labels: tuple[str, ...]
    exact: Spelling | None = None
    long: LongLabel | None = None
    follows: bool = False

    @property
    def max_tokens(self) -> int:
        """Two where the second token of a reply tells about the long label."""
        return 2 if self.exact is None and self.long is not None else 1

    @property
    def fields(self) -> dict[str, Any]:
        """What the request holds besides the usual."""
        if self.exact is None:
            return {}
        fields = exact_fields([token.id for token in self.exact.tokens])
        return {**fields, "return_token_ids": True} if self.exact.splits else fields


def exact_fields(ids: Sequence[int]) -> dict[str, Any]:
    """vLLM's fields for log-probabilities of chosen tokens, by id: different tokens may have the same text."""
    return {"logprob_token_ids": list(ids), "return_tokens_as_token_ids": True}


def long_label(labels: Sequence[str]) -> LongLabel | None:
    """The first label that begins as another one.

    >>> long_label(("1", "2", "10"))
    LongLabel(label='10', head='1', rest='0')
    """
    for label in labels:
        for head in labels:
            if head and head != label and label.startswith(head):
                return LongLabel(label, head, label[len(head) :])
    return None


def bare(token: str) -> str:
    """A token's text without the white space it carries."""
    return token.strip(_MARKERS)


def plain_text(token: str) -> str:
    """A token as text, with white space in place of what stands for it in vocabularies."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")


def tokenize_request(kind: ServerKind, model: str, text: str) -> dict[str, Any] | None:
    """The body for `/tokenize`; None where there is none."""
    if kind is ServerKind.VLLM:
        return {"model": model, "prompt": text, "add_special_tokens": False, "return_token_strs": True}
    if kind is ServerKind.SGLANG:
        return {"model": model, "prompt": text, "add_special_tokens": False}
    if kind is ServerKind.LLAMA_CPP:
        return {"content": text}
    if kind is ServerKind.TGI:
        return {"inputs": text}
    return None


def variant_requests(model: str, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Bodies for vLLM's `/tokenize` whose replies show the labels as a text holds them: bare, after a space, after a
    line break."""
    texts = (",".join(labels), " " + " ".join(labels), "\n" + "\n".join(labels))
    requests = [tokenize_request(ServerKind.VLLM, model, text) for text in texts]
    return [request for request in requests if request is not None]


def reply_requests(model: str, labels: Sequence[str], extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bodies for vLLM's `/tokenize` whose replies show each label as the answer in a chat.

    Args:
        model, labels: Ours.
        extra: Fields of all our requests; those that the chat template sees are taken along.
    """
    seen = {key: extra[key] for key in ("chat_template", "chat_template_kwargs") if key in extra}
    fields = {**_CONTINUES[ServerKind.VLLM], "return_token_strs": True, **seen}
    question = {"role": "user", "content": "?"}
    return [
        {"model": model, "messages": [question, {"role": "assistant", "content": label}], **fields} for label in labels
    ]


def spelling_from(bodies: Iterable[bytes], labels: Sequence[str]) -> Spelling | None:
    """How a vocabulary writes the labels, from what vLLM's `/tokenize` made of texts that hold them.

    Returns:
        The tokens that are a label, white space aside, and the labels that take two; None where one cannot be read.
    """
    vocabulary: dict[int, str] = {}
    for body in bodies:
        reply = _mapping(body)
        ids, names = _ids(reply.get("tokens")), reply.get("token_strs")
        if ids and isinstance(names, list) and len(names) == len(ids):
            vocabulary |= {
                token: plain_text(name) for token, name in zip(ids, names, strict=True) if isinstance(name, str)
            }
    found = {
        label: tuple(LabelToken(token, text) for token, text in sorted(vocabulary.items()) if bare(text) == label)
        for label in labels
    }
    splits = []
    for label in (label for label in labels if not found[label]):
        head = next((other for other in labels if found[other] and label.startswith(other)), None)
        rest = label[len(head) :] if head is not None else ""
        rest_ids = tuple(token for token, text in sorted(vocabulary.items()) if text == rest)
        if head is None or not rest_ids:
            return None
        splits.append(SplitLabel(found[head], rest, rest_ids))
    return Spelling(tuple(token for label in labels for token in found[label]), tuple(splits))


def takes_two_tokens(head: bytes, label: bytes) -> bool | None:
    """Whether a tokenizer writes a long label as its head and one more token, from the bodies of `/tokenize` for both.

    None where it does neither that nor takes one token in place of the head's.

    >>> takes_two_tokens(b'{"tokens": [5]}', b'{"tokens": [5, 4]}')
    True
    """
    short, long = _token_ids(head), _token_ids(label)
    if not short or not long:
        return None
    if long[:-1] == short:
        return True
    return False if len(long) == len(short) and long[:-1] == short[:-1] else None


def _token_ids(body: bytes) -> list[int]:
    """Ids in a reply of `/tokenize`: `{"tokens": [ids]}`, or TGI's list of tokens."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return []
    if isinstance(reply, list):
        return _ids([entry.get("id") if isinstance(entry, dict) else None for entry in reply])
    return _ids(reply.get("tokens")) if isinstance(reply, dict) else []


def _ids(value: Any) -> list[int]:
    is_list = isinstance(value, list) and all(type(each) is int and 0 <= each < _LARGEST_ID for each in value)
    return list(value) if is_list else []


def _kind_of(entry: Mapping[str, Any]) -> ServerKind | None:
    owner = entry.get("owned_by")
    if not isinstance(owner, str):
        return None
    if owner == entry.get("id") and entry.get("created") == 0:
        return ServerKind.TGI  # it knows no better, and no other does so
    return _OWNERS.get(owner)


def _entries(models: bytes | None) -> list[dict[str, Any]]:
    data = _mapping(models).get("data")
    return [entry for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []


def _mapping(body: bytes | None) -> dict[str, Any]:
    if body is None:
        return {}
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str:
    """A name or version that may be shown: short, and without what a terminal obeys. "" for anything else."""
    if not isinstance(value, str) or len(value) > _LONGEST_NAME:
        return ""
    return re.sub(r"\s+", " ", "".join(each if each.isprintable() else " " for each in value)).strip()
