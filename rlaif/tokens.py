"""Messages to token ids, and the ids that spell a label: one place for judging, training and rollouts.

The prompt is put together from ids, piece by piece. What a template wrote (the judge prompt's own text and the model's
chat template) is encoded with special tokens active; what came in through a variable is encoded with them inert, so a
response that holds "<|im_end|>" or a marker of the prompt is read as plain characters. No torch here.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.errors import ConfigError, PromptTooLongError
from rlaif.records import Message, Segment

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_CACHED_TEXTS = 2048
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")
_JOINT = Segment("\n\n", is_template=True)
"""Between the messages of a model without chat template."""

_CHAT_OPTIONS = {
    # Thinking models must answer at once: the next token after the prompt is read. Other templates ignore the name.
    "enable_thinking": False,
    # Llama 3 writes today's date into the prompt, which would change labels overnight; this is its own fallback.
    "date_string": "26 Jul 2024",
}


class Piece(NamedTuple):
    """A stretch of an encoded prompt; `is_template` as in `Segment`."""

    ids: tuple[int, ...]
    is_template: bool


class LabelToken(NamedTuple):
    """A vocabulary entry that spells a label: its id and its text, with the white space it carries."""

    id: int
    text: str


class _Skeleton(NamedTuple):
    """A chat template's own text around the contents: `texts[i]` stands before content i, the last one after all."""

    texts: tuple[str, ...]
    strips: bool


class PromptEncoder:
    """Encodes messages for one tokenizer; keeps the ids of recent texts, so that each is tokenized once.

    Pieces are encoded alone and joined, so a token never spans two of them. Spaces that end a piece of template move to
    the text after it (" word" is one token in most vocabularies), and no piece but the first receives the leading space
    that SentencePiece-like tokenizers add to a text.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Raises:
        ConfigError: The tokenizer has no `tokenizers` pipeline behind it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        if getattr(tokenizer, "backend_tokenizer", None) is None:
            raise ConfigError(
                f"the tokenizer {type(tokenizer).__name__} is no fast tokenizer; expected a model with a tokenizer.json"
            )
        self.tokenizer = tokenizer
        self._has_chat_template = tokenizer.chat_template is not None
        active: Tokenizer = tokenizer.backend_tokenizer
        self._active, self._inert = active, _inert_tokenizer(active)
        self._anchor = _anchor(active) if _adds_prefix(json.loads(active.to_str())) else ""
        self._lead = _lead_ids(tokenizer)
        self._ids_of = lru_cache(_CACHED_TEXTS)(self._encode_text)
        self._skeleton = lru_cache(64)(self._render_skeleton)

    def encode(self, messages: Sequence[Message]) -> list[Piece]:
        """The prompt's pieces, in order: chat template, contents, and the cue for the model's answer; exactly one BOS.

        A model without chat template gets the contents joined by blank lines, without a word of who says what: it goes
        on with the text, as a base model does. One whose template refuses a system message gets it at the head of the
        next message.

        Raises:
            ConfigError: The chat template cannot render these roles.
        """
        pieces: list[Piece] = []
        for text, is_template in _aligned(self._segments(messages)):
            pieces.append(Piece(self._ids_of(text, is_template, not pieces), is_template))
        return self._with_lead(pieces)

    def _segments(self, messages: Sequence[Message]) -> list[Segment]:
        if not self._has_chat_template:
            joined: list[Segment] = []
            for index, message in enumerate(messages):
                joined += ([_JOINT] if index else []) + list(message.segments)
            return joined
        roles = tuple(message.role for message in messages)
        try:
            skeleton = self._skeleton(roles)
        except ConfigError:
            if roles[0] != "system" or len(roles) == 1:
                raise
            head = Message(messages[1].role, (*messages[0].segments, _JOINT, *messages[1].segments))
            return self._segments([head, *messages[2:]])
        segments: list[Segment] = []
        for text, message in zip(skeleton.texts, messages, strict=False):
            segments.append(Segment(text, is_template=True))
            segments += _stripped(message.segments) if skeleton.strips else message.segments
        return [*segments, Segment(skeleton.texts[-1], is_template=True)]

    def _render_skeleton(self, roles: tuple[str, ...]) -> _Skeleton:
        # The marks carry white space to find out whether the template strips the contents.
        nonce = secrets.token_hex(16)
        marks = [f"{nonce}{index}x" for index in range(len(roles))]
        chat = [{"role": role, "content": f" \n{mark}\n "} for role, mark in zip(roles, marks, strict=True)]
        try:
            text: str = self.tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=roles[-1] != "assistant", **_CHAT_OPTIONS
            )
        except Exception as error:  # a template raises whatever its author chose
            raise ConfigError(
                f"the model's chat template cannot render the roles {', '.join(roles)}: {error}"
            ) from error
        texts: list[str] = []
        strips = False
        for mark in marks:
            before, found, text = text.partition(mark)
            if not found:
                raise ConfigError(f"the model's chat template leaves out a message of the roles {', '.join(roles)}")
            strips = strips or not (before.endswith(" \n") and text.startswith("\n "))
            texts.append(before.removesuffix(" \n"))
            text = text.removeprefix("\n ")
        return _Skeleton((*texts, text), strips)

    def _with_lead(self, pieces: list[Piece]) -> list[Piece]:
        bos = self.tokenizer.bos_token_id
        lead = self._lead
        if pieces and bos is not None and pieces[0].is_template:
            ids = pieces[0].ids
            while ids[:1] == (bos,):  # the chat template wrote it, perhaps as the judge template did
                ids, lead = ids[1:], lead or (bos,)
            pieces = [Piece(ids, is_template=True), *pieces[1:]]
        if self._has_chat_template and lead != (bos,):
            return pieces  # such a template writes what stands first itself
        return [Piece(lead, is_template=True), *pieces] if lead else pieces

    def _encode_text(self, text: str, is_template: bool, is_first: bool) -> tuple[int, ...]:
        pipeline = self._active if is_template else self._inert
        anchor = "" if is_first else self._anchor
        encoding = pipeline.encode(anchor + _well_formed(text), add_special_tokens=False)
        if not anchor:
            return tuple(encoding.ids)
        # A token that starts at the anchor or before it is the anchor's (or the space put in front of it).
        skipped = sum(1 for start, _ in encoding.offsets[:3] if start < len(anchor))
        return tuple(encoding.ids[skipped:])


def flatten(pieces: Sequence[Piece]) -> list[int]:
    """The ids of all pieces, one after another."""
    return [token for piece in pieces for token in piece.ids]


def truncate(pieces: Sequence[Piece], limit: int) -> list[Piece]:
    """Cut the longest texts in their middle until the prompt has `limit` tokens; what the template wrote stays whole.

    Raises:
        PromptTooLongError: The template alone is longer.

    >>> truncate([Piece((0,), True), Piece((1, 2, 3, 4), False), Piece((5, 6), False)], 5)
    [Piece(ids=(0,), is_template=True), Piece(ids=(1, 4), is_template=False), Piece(ids=(5, 6), is_template=False)]
    """
    lengths = [len(piece.ids) for piece in pieces if not piece.is_template]
    room = limit - sum(len(piece.ids) for piece in pieces if piece.is_template)
    if room < 0:
        raise PromptTooLongError(
            f"the template's own text alone takes {limit - room} tokens, the context leaves {limit}; use fewer --shots"
        )
    cap = _cap(lengths, room)
    return [piece if piece.is_template else Piece(_without_middle(piece.ids, cap), False) for piece in pieces]


def label_tokens(tokenizer: PreTrainedTokenizerFast, labels: Sequence[str]) -> dict[str, tuple[LabelToken, ...]]:
    """For each label the vocabulary entries that spell it, white space aside ("1" and " 1" are different tokens).

    A label without any has an empty tuple.
    """
    found: dict[str, list[LabelToken]] = {label: [] for label in labels}
    for raw, token in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        # In every kind of vocabulary an ASCII label stands in the entry as it is, or is written as a byte.
        if not any(label in raw or not label.isascii() for label in labels) and not _BYTE_TOKEN.fullmatch(raw):
            continue
        text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if text.strip() in found:
            found[text.strip()].append(LabelToken(token, raw.replace("▁", " ") if "▁" in raw else text))
    return {label: tuple(tokens) for label, tokens in found.items()}


def _aligned(segments: Sequence[Segment]) -> list[Segment]:
    """Join neighbours of one kind, drop empty ones, and move spaces that end template text into the text after it."""
    joined: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        if joined and joined[-1].is_template and segment.is_template:
            joined[-1] = Segment(joined[-1].text + segment.text, True)
        elif joined and joined[-1].is_template:
            kept = joined[-1].text.rstrip(" \t")
            spaces = joined[-1].text[len(kept) :]
            joined[-1:] = [Segment(kept, True)] if kept else []
            joined.append(Segment(spaces + segment.text, False))
        else:
            joined.append(segment)
    return joined


def _stripped(segments: Sequence[Segment]) -> list[Segment]:
    """The segments of a content as a template that strips it would leave them."""
    kept = list(segments)
    while kept and not kept[0].text.strip():
        kept.pop(0)
    while kept and not kept[-1].text.strip():
        kept.pop()
    if kept:
        kept[0] = Segment(kept[0].text.lstrip(), kept[0].is_template)
        kept[-1] = Segment(kept[-1].text.rstrip(), kept[-1].is_template)
    return kept


def _well_formed(text: str) -> str:
    """Text that can be written as UTF-8: surrogate pairs become one character, lone ones U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _cap(lengths: Sequence[int], room: int) -> int:
    """The greatest length at which all texts, cut to it, fit into `room` tokens together."""
    low, high = 0, max(lengths, default=0)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(length, middle) for length in lengths) <= room:
            low = middle
        else:
            high = middle - 1
    return low


def _without_middle(ids: tuple[int, ...], cap: int) -> tuple[int, ...]:
    if len(ids) <= cap:
        return ids
    head = (cap + 1) // 2
    return ids[:head] + ids[len(ids) - (cap - head) :]


def _lead_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[int, ...]:
    """What the tokenizer puts before a text by itself: BOS, as a rule, or nothing."""
    plain = tokenizer.encode("a", add_special_tokens=False)
    full = tokenizer.encode("a", add_special_tokens=True)
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    return ()


def _inert_tokenizer(active: Tokenizer) -> Tokenizer:
    """The same tokenizer, in which no added token can be written: their names become ones that nobody can guess.

    Added tokens of white space alone stay: they are how some vocabularies spell indentation. Renaming rather than
    removing keeps all ids, and keeps Unigram models, which match any entry of their vocabulary, from finding the names.
    """
    from tokenizers import Tokenizer

    spec: dict[str, Any] = json.loads(active.to_str())
    model, nonce = spec["model"], secrets.token_hex(16)
    renamed: dict[str, str] = {}
    kept: list[dict[str, Any]] = []
    vocab = model["vocab"] if isinstance(model["vocab"], dict) else {piece for piece, _ in model["vocab"]}
    for token in spec["added_tokens"]:
        name = token["content"]
        if not name.replace("▁", " ").strip():
            kept.append(token)
        elif name not in vocab:
            kept.append(token | {"content": f"{nonce}{token['id']}"})  # its place in the numbering must not close
        elif not _BYTE_TOKEN.fullmatch(name):
            renamed[name] = f"{nonce}{token['id']}"
    if isinstance(model["vocab"], dict):
        model["vocab"] = {renamed.get(name, name): index for name, index in model["vocab"].items()}
    else:
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("merges"):
        pairs = [pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"]]
        model["merges"] = [[a, b] for a, b in pairs if not renamed.keys() & {a, b, a + b}]
    if model.get("unk_token") in renamed:
        model["unk_token"] = renamed[model["unk_token"]]
    spec |= {"added_tokens": kept, "post_processor": None, "truncation": None, "padding": None}
    return Tokenizer.from_str(json.dumps(spec))


def _adds_prefix(spec: Any) -> bool:
    """Whether a tokenizer's pipeline puts a space in front of a text."""
    parts = [spec.get("normalizer"), spec.get("pre_tokenizer")]
    while parts:
        part = parts.pop()
        if part is None:
            continue
        parts += part.get("normalizers", []) + part.get("pretokenizers", [])
        kind = part["type"]
        if kind == "Prepend" or (kind == "ByteLevel" and part.get("add_prefix_space")):
            return True
        if kind == "Metaspace" and part.get("prepend_scheme", "always") != "never":
            return True
    return False


def _anchor(tokenizer: Tokenizer) -> str:
    """A character that no longer token contains: before a piece, it takes the leading space and merges with nothing."""
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    in_longer = set("".join(name for name in vocab if len(name) > 1 and not _BYTE_TOKEN.fullmatch(name)))
    alone = sorted((name for name in vocab if len(name) == 1 and name not in in_longer), reverse=True)
    return alone[0] if alone else "\x02"
