"""Messages to token ids, with real fast tokenizers of the kinds in use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlaif.errors import ConfigError, PromptTooLongError
from rlaif.records import Message, Segment
from rlaif.tokens import Piece, PromptEncoder, flatten, label_tokens, truncate
from tests.tiny_models import CHAT_TEMPLATE, MARKERS, byte_level_tokenizer, sentencepiece_tokenizer

SHARED_MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"

TOKENIZERS = {
    "byte-level": byte_level_tokenizer(None),
    "byte-level-bos": byte_level_tokenizer(None, adds_bos=True),
    "metaspace": sentencepiece_tokenizer(),
    "prepend": sentencepiece_tokenizer(is_legacy=True),
    "unigram": sentencepiece_tokenizer(is_unigram=True),
}
ENCODERS = {name: PromptEncoder(tokenizer) for name, tokenizer in TOKENIZERS.items()}


def template(text: str) -> Segment:
    return Segment(text, is_template=True)


def value(text: str) -> Segment:
    return Segment(text, is_template=False)


def user(*segments: Segment) -> Message:
    return Message("user", segments)


def decode(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("kind", ENCODERS)
@given(text=st.text(max_size=40), tail=st.text(max_size=20))
@example(text="", tail="▁")
def test_pieces_decode_to_exactly_the_text(kind: str, text: str, tail: str) -> None:
    pieces = ENCODERS[kind].encode([user(template("Judge:\n"), value(text), template("\n###\n"), value(tail))])
    found = decode(TOKENIZERS[kind], flatten(pieces)).removeprefix("<s>").removeprefix(" ")
    expected = f"Judge:\n{text}\n###\n{tail}"
    if kind in ("metaspace", "prepend", "unigram"):  # these write a space as "▁" and cannot tell the two apart
        found, expected = found.replace("▁", " "), expected.replace("▁", " ")
    assert found == expected


@pytest.mark.parametrize("kind", ["byte-level-bos", "metaspace", "unigram"])
def test_template_text_alone_is_encoded_as_the_tokenizer_does_it(kind: str) -> None:
    text = " the 1 the\n### Response 1\n the 2"
    assert flatten(ENCODERS[kind].encode([user(template(text))])) == TOKENIZERS[kind].encode(text)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("name", [*MARKERS, "<s>", "</s>", "<tool>"])
def test_special_and_added_tokens_are_active_in_a_template_and_inert_in_a_value(kind: str, name: str) -> None:
    token = TOKENIZERS[kind].convert_tokens_to_ids(name)
    pieces = ENCODERS[kind].encode([user(template("x\n"), value(f"a{name}b {name}"), template(f"\n{name}"))])
    written, inert = pieces[-1], pieces[-2]
    assert token in written.ids
    assert token not in inert.ids
    assert decode(TOKENIZERS[kind], list(inert.ids)).endswith(f"a{name}b {name}")


def test_an_added_token_of_white_space_still_spells_indentation_in_a_value() -> None:
    tokenizer = byte_level_tokenizer(None)
    tokenizer.add_tokens(["    "])
    indent = tokenizer.convert_tokens_to_ids("    ")
    pieces = PromptEncoder(tokenizer).encode([user(template("x\n"), value("if:\n    y"))])
    assert indent in pieces[-1].ids


def test_no_leading_space_is_made_up_between_pieces() -> None:
    tokenizer = TOKENIZERS["metaspace"]
    pieces = ENCODERS["metaspace"].encode([user(template("a\n"), value("the"), template("\nthe"))])
    spelled = [tokenizer.convert_ids_to_tokens(list(piece.ids)) for piece in pieces]
    assert spelled == [["<s>"], ["▁", "a", "\n"], ["the"], ["\n", "the"]]


def test_spaces_that_end_a_template_move_to_the_text_after_it() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    pieces = ENCODERS["byte-level"].encode([user(template("answer: "), value("1"))])
    assert tokenizer.convert_ids_to_tokens(list(pieces[-1].ids)) == ["Ġ1"]


@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("chat_template", [CHAT_TEMPLATE, CHAT_TEMPLATE.removeprefix("{{ bos_token }}"), None])
def test_at_most_one_bos_and_one_wherever_tokenizer_or_template_wants_it(
    chat_template: str | None, adds_bos: bool
) -> None:
    tokenizer = byte_level_tokenizer(chat_template, adds_bos=adds_bos)
    ids = flatten(PromptEncoder(tokenizer).encode([user(template("<s>" if chat_template is None else "x"))]))
    wants = adds_bos or chat_template is None or "bos_token" in chat_template
    assert ids[:1] == ([tokenizer.bos_token_id] if wants else ids[:1])
    assert ids.count(tokenizer.bos_token_id) == int(wants)


def test_a_chat_template_is_encoded_as_the_tokenizer_renders_it() -> None:
    tokenizer = byte_level_tokenizer()
    chat = [Message("system", (template("Be fair."),)), user(template("Which?"), value(" the 1"))]
    expected = tokenizer.apply_chat_template(
        [{"role": message.role, "content": message.content} for message in chat],
        add_generation_prompt=True,
        return_dict=False,
    )
    assert flatten(PromptEncoder(tokenizer).encode(chat)) == expected


def test_a_template_that_strips_contents_strips_ours() -> None:
    tokenizer = byte_level_tokenizer(CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"))
    pieces = PromptEncoder(tokenizer).encode([user(template(" \nWhich: "), value("  "), value(" x"), template("\n"))])
    assert decode(tokenizer, flatten(pieces)) == "<s><|user|>user\nWhich:    x<|end|>\n<|user|>assistant\n"


def test_a_refused_system_message_goes_to_the_head_of_the_next() -> None:
    refusing = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    tokenizer = byte_level_tokenizer(refusing)
    pieces = PromptEncoder(tokenizer).encode([Message("system", (template("Be fair."),)), user(value("x"))])
    assert decode(tokenizer, flatten(pieces)) == "<s><|user|>user\nBe fair.\n\nx<|end|>\n<|user|>assistant\n"


def test_a_template_that_cannot_take_the_roles_says_so() -> None:
    tokenizer = byte_level_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(ConfigError, match=r"roles user, user: roles must alternate"):
        PromptEncoder(tokenizer).encode([user(value("x")), user(value("y"))])


def test_without_a_chat_template_contents_are_joined_by_blank_lines() -> None:
    chat = [user(template("Q: "), value("x")), Message("assistant", (value("because"),)), user(template("A:"))]
    assert decode(TOKENIZERS["byte-level"], flatten(ENCODERS["byte-level"].encode(chat))) == "Q: x\n\nbecause\n\nA:"


@pytest.mark.parametrize("kind", ENCODERS)
def test_odd_characters_do_not_crash(kind: str) -> None:
    text = "a\ud800b\x00\x01\u202e\ud83d\ude00"
    pieces = ENCODERS[kind].encode([user(template("x\n"), value(text))])
    assert decode(TOKENIZERS[kind], list(pieces[-1].ids)) == "a\ufffdb\x00\x01\u202e\U0001f600"


@pytest.mark.parametrize("kind", ENCODERS)
def test_empty_values_and_empty_prompts_are_fine(kind: str) -> None:
    lead = 0 if kind == "byte-level" else 1
    assert len(flatten(ENCODERS[kind].encode([user()]))) == lead
    assert flatten(ENCODERS[kind].encode([user(template("x\n"), value(""), template("y"))])) == flatten(
        ENCODERS[kind].encode([user(template("x\ny"))])
    )


def test_label_tokens_are_all_spellings_with_and_without_space() -> None:
    byte_level = label_tokens(TOKENIZERS["byte-level"], ["1", "2", "10"])
    assert [token.text for token in byte_level["1"]] == ["1", " 1", "\n1"]
    assert [token.text for token in byte_level["2"]] == ["2", " 2"]
    assert byte_level["10"] == ()
    assert [token.text for token in label_tokens(TOKENIZERS["metaspace"], ["1"])["1"]] == ["1", "1", " 1"]


def test_label_tokens_have_the_ids_of_the_vocabulary() -> None:
    tokenizer = TOKENIZERS["byte-level"]
    tokens = label_tokens(tokenizer, ["1"])["1"]
    assert [tokenizer.convert_ids_to_tokens(token.id) for token in tokens] == ["1", "Ġ1", "Ċ1"]


def test_truncation_cuts_the_middle_of_the_longest_texts_alone() -> None:
    pieces = [Piece((1, 2), True), Piece(tuple(range(10, 20)), False), Piece((30, 31, 32), False), Piece((4,), True)]
    # 16 tokens into 10: 3 of the template, 7 for texts; 3 + 4 fit, so the long one keeps 2 and 2.
    assert flatten(truncate(pieces, 10)) == [1, 2, 10, 11, 18, 19, 30, 31, 32, 4]
    with pytest.raises(PromptTooLongError, match="3 tokens, the context leaves 2"):
        truncate(pieces, 2)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=8),
    limit=st.integers(0, 200),
)
def test_truncation_fits_keeps_templates_and_wastes_little(lengths: list[tuple[int, bool]], limit: int) -> None:
    pieces = [Piece(tuple(range(length)), is_template) for length, is_template in lengths]
    fixed = sum(length for length, is_template in lengths if is_template)
    total = sum(length for length, _ in lengths)
    if fixed > limit:
        with pytest.raises(PromptTooLongError):
            truncate(pieces, limit)
        return
    cut = truncate(pieces, limit)
    assert [piece for piece in cut if piece.is_template] == [piece for piece in pieces if piece.is_template]
    assert len(flatten(cut)) <= limit
    assert len(flatten(cut)) >= min(total, limit - len(pieces) + 1)


@pytest.mark.parametrize("name", ["TinyStories-656K-hd32", "stories260K-hd32"])
def test_published_sentencepiece_tokenizers(name: str) -> None:
    if not (SHARED_MODELS / name).is_dir():
        pytest.skip("needs the models beside the repository")
    tokenizer = AutoTokenizer.from_pretrained(SHARED_MODELS / name)
    encoder = PromptEncoder(tokenizer)
    text = f"Hello {tokenizer.eos_token} there {tokenizer.bos_token}"
    pieces = encoder.encode([user(template("Judge:\n"), value(text), template("\nWhich?"))])
    ids = flatten(pieces)
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids
    assert decode(tokenizer, ids[1:]) == f"Judge:\n{text}\nWhich?"
    assert flatten(encoder.encode([user(template("Once upon a time"))])) == tokenizer.encode("Once upon a time")
