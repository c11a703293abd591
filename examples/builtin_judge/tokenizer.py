"""The judge's tokenizer: byte-level BPE on lowercased text of our grammar, the prompt's markers as special tokens.

`learn_vocabulary`, `TextEncoder` and `save_tokenizer` serve the policy's too.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from .grammar import make_comparison
from .lexicon import lexicon
from .principles import KIND_NAMES, word_principle

BOS, USER, ASSISTANT, SYSTEM, END, PAD = "<|bos|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|pad|>"
MARKERS = (
    "### Prompt",
    "### Response 1",
    "### Response 2",
    "### Response",
    "### Question",
    "### Reasons",
    "## Example",
    "## Your turn",
    "Preferred response (1 or 2):",
    "Rating (1 to 10):",
)
VOCABULARY = 2048

CHAT_TEMPLATE = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ('system', 'user', 'assistant') -%}"
    "{{- raise_exception('roles are system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{{- '<|' + message['role'] + '|>' -}}{{- message['content'] -}}"
    "{%- if not (loop.last and continue_final_message is defined and continue_final_message) -%}"
    "{{- '<|end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)

WORDS = Regex(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
"""GPT-2's split, but every digit stands alone."""


def train_tokenizer(seed: int = 0, comparisons: int = 12_000, extra: Sequence[str] = ()) -> Tokenizer:
    """Learn the vocabulary from generated comparisons, principles and the template texts in `extra`."""
    texts = [*_texts(seed, comparisons), *[text for text in extra for _ in range(50)]]
    tokenizer = learn_vocabulary(texts, MARKERS, VOCABULARY - 1, normalizers.Lowercase())  # and "10"
    # "10" has to be one token as an answer. It is no special token: a decoder must not drop it.
    tokenizer.add_tokens([AddedToken("10", single_word=True, normalized=False, special=False)])
    return tokenizer


def learn_vocabulary(
    texts: Iterable[str], markers: Sequence[str], size: int, normalizer: normalizers.Normalizer | None = None
) -> Tokenizer:
    """Byte-level BPE of `size` entries; the chat template's tokens and `markers` are special, and come first."""
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(WORDS, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = [PAD, BOS, USER, ASSISTANT, SYSTEM, END, *markers]
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _texts(seed: int, comparisons: int) -> Iterator[str]:
    rng, words = random.Random(f"tokenizer:{seed}"), lexicon("train")
    for _ in range(comparisons):
        pair = make_comparison(rng, words)
        yield from (text for _, text in pair.scene.turns)
        yield pair.first.text
        yield pair.second.text
        yield from (word_principle(rng, words, [rng.choice(KIND_NAMES)]) for _ in range(2))


class TextEncoder:
    """Text to token ids, with specials for template text and without for the rest."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._trusting = Tokenizer.from_str(tokenizer.to_str())
        spec = json.loads(tokenizer.to_str())
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["special"]]  # "10" is an answer alone
        self._inert = Tokenizer.from_str(json.dumps(spec))
        self._inert.encode_special_tokens = True
        self.template = lru_cache(4096)(lambda text: tuple(self._trusting.encode(text, add_special_tokens=False).ids))
        self.bos, self.user, self.assistant, self.system, self.end = (
            tokenizer.token_to_id(token) for token in (BOS, USER, ASSISTANT, SYSTEM, END)
        )
        self.size = tokenizer.get_vocab_size()

    def value(self, text: str) -> list[int]:
        """Ids of text that no template wrote."""
        return list(self._inert.encode(text, add_special_tokens=False).ids)


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja as transformers reads them."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        model_max_length=2048,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(str(folder))
