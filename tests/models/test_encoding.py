"""Prompts and responses to ids: as in judging and rollouts, one BOS, one stop token, no token across the border."""

from __future__ import annotations

import pytest
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer, sentencepiece_tokenizer
from transformers import PreTrainedTokenizerFast

from rlaif.errors import ConfigError
from rlaif.models.encoding import ExampleEncoder
from rlaif.records import Message, Segment, Turn
from rlaif.tokens import PromptEncoder, flatten

PROMPT = [Turn("system", "Be brief."), Turn("user", "Say the <|end|> word</s>.")]
TOKENIZERS = {
    "byte-level": byte_level_tokenizer(),
    "byte-level, BOS": byte_level_tokenizer(adds_bos=True),
    "no template": byte_level_tokenizer(None, adds_bos=True),
    "no template, no BOS": byte_level_tokenizer(None),
    "sentencepiece": sentencepiece_tokenizer(CHAT_TEMPLATE),
    "sentencepiece, legacy": sentencepiece_tokenizer(is_legacy=True),
}
ENDS_WITH_EOS = CHAT_TEMPLATE.replace("<|end|>", "{{ eos_token }}")


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_one_eos_at_the_end_and_one_bos_at_the_start(tokenizer: PreTrainedTokenizerFast) -> None:
    example = ExampleEncoder(tokenizer).example("row", PROMPT, ["the answer</s>", "<s>no"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    has_bos = tokenizer.chat_template is not None or tokenizer.encode("a")[0] == bos
    for completion in example.completions:
        sequence = example.prompt + completion
        assert [index for index, token in enumerate(sequence) if token == eos] == [len(sequence) - 1]
        assert [index for index, token in enumerate(sequence) if token == bos] == ([0] if has_bos else [])


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_the_prompt_is_the_one_of_rollouts_and_the_response_is_read_back(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [Message(turn.role, (Segment(turn.content, False),)) for turn in PROMPT]  # type: ignore[arg-type]
    encoder = ExampleEncoder(tokenizer)
    assert list(encoder.prompt_ids(PROMPT)) == flatten(PromptEncoder(tokenizer).encode(messages))
    ids = encoder.completion_ids(PROMPT, "a  <s>thé\nend", is_finished=False)
    # The text alone may decode without a space that the tokenizer adds to a text's start; behind another it shows.
    behind = encoder._ids_of("x", False, False)
    assert tokenizer.decode([*behind, *ids], clean_up_tokenization_spaces=False) == "xa  <s>thé\nend"


def test_the_response_ends_as_the_template_ends_it() -> None:
    plain = ExampleEncoder(byte_level_tokenizer(None)).completion_ids(PROMPT, "yes")
    # A template that writes EOS and a line break: the model stops at EOS, and never writes the break.
    tokenizer = byte_level_tokenizer(ENDS_WITH_EOS)
    assert ExampleEncoder(tokenizer).completion_ids(PROMPT, "yes") == plain
    # One with a mark of its own: that is learnt too, then EOS; or only the mark, where it stops the model.
    tokenizer = byte_level_tokenizer()
    mark = tokenizer.convert_tokens_to_ids("<|end|>")
    assert ExampleEncoder(tokenizer).completion_ids(PROMPT, "yes") == (*plain[:-1], mark, plain[-1])
    assert ExampleEncoder(tokenizer, stops=[mark]).completion_ids(PROMPT, "yes") == (*plain[:-1], mark)


def test_a_response_that_was_cut_off_has_no_end() -> None:
    encoder = ExampleEncoder(byte_level_tokenizer())
    whole, cut = (encoder.completion_ids(PROMPT, "yes", is_finished=finished) for finished in (True, False))
    assert whole[: len(cut)] == cut
    assert not encoder._stops & {*cut}


def test_a_template_that_strips_and_one_without_system_turns() -> None:
    strips = byte_level_tokenizer(CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim"))
    encoder = ExampleEncoder(strips)
    assert encoder.completion_ids(PROMPT, "  yes\n") == encoder.completion_ids(PROMPT, "yes")
    refusing = byte_level_tokenizer(
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT_TEMPLATE
    )
    example = ExampleEncoder(refusing).example("row", PROMPT, ["yes"])
    assert "Be brief.\n\nSay the" in refusing.decode(example.prompt)
    assert example.completions[0] == ExampleEncoder(byte_level_tokenizer()).completion_ids(PROMPT, "yes")


def test_a_response_without_text_is_its_end() -> None:
    encoder = ExampleEncoder(byte_level_tokenizer())
    some, none = encoder.example("row", PROMPT, ["yes", ""]).completions
    assert none
    assert some[-len(none) :] == none == encoder.completion_ids(PROMPT, "")


def test_what_cannot_be_trained_on_is_refused() -> None:
    tokenizer = byte_level_tokenizer()
    encoder = ExampleEncoder(tokenizer)
    with pytest.raises(ValueError, match="no text"):
        encoder.completion_ids(PROMPT, "", is_finished=False)
    for prompt in ([], [*PROMPT, Turn("assistant", "Sure")]):
        with pytest.raises(ValueError, match="must end with a turn"):
            encoder.example("row", prompt, ["yes"])
    tokenizer.eos_token = None
    with pytest.raises(ConfigError, match="no EOS"):
        ExampleEncoder(tokenizer)
