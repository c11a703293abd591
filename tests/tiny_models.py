"""Tiny tokenizers and randomly initialised models, made on the spot: no download, no weights in the repository."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

MARKERS = ("### Response 1", "### Response 2", "<|user|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|user|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
_ASCII = "".join(chr(code) for code in range(33, 127))


def byte_level_tokenizer(
    chat_template: str | None = CHAT_TEMPLATE, *, adds_bos: bool = False, has_ten: bool = False
) -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2 and Llama 3, with the markers of a prompt as special tokens.

    `has_ten`: "10" is one token (as in Llama 3) and not two (as in Qwen).
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("Ġ", "1"), ("Ġ", "2"), ("Ċ", "1"), ("#", "#"), ("##", "#")]
    merges += [("1", "0"), ("Ġ", "10")] if has_ten else []
    vocab = {token: index for index, token in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finish(tokenizer, chat_template, adds_bos)


def sentencepiece_tokenizer(
    chat_template: str | None = None, *, is_legacy: bool = False, is_unigram: bool = False, adds_bos: bool = True
) -> PreTrainedTokenizerFast:
    """As in Llama 2: a space is put in front of a text, and unknown characters are spelled in bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{code:02X}>" for code in range(256)), "▁", "\n", *_ASCII]
    if is_unigram:
        scored = [(piece, 0.0 if index < 3 else -5.0) for index, piece in enumerate(pieces)]
        tokenizer = Tokenizer(models.Unigram([*scored, ("▁the", -4.0), ("▁1", -4.0)], unk_id=0, byte_fallback=True))
    else:
        merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("▁", "1")]
        vocab = {piece: index for index, piece in enumerate([*pieces, *("".join(pair) for pair in merges)])}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True))
    if is_legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=is_unigram)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _finish(tokenizer, chat_template, adds_bos)


def _finish(tokenizer: Tokenizer, chat_template: str | None, adds_bos: bool) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<s>", "</s>", *MARKERS)])
    tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
    if adds_bos:
        begin = tokenizer.token_to_id("<s>")
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    if chat_template is not None:
        fast.chat_template = chat_template
    return fast


def make_model(kind: str, vocab_size: int, *, context: int = 512, seed: int = 0) -> PreTrainedModel:
    """A random model with weights large enough that its answers differ.

    One of llama, llama-wide (heads of 32, the least that vLLM takes on a CPU), gpt2, qwen2 and qwen2-sliding.
    """
    torch.manual_seed(seed)
    sizes = {"vocab_size": vocab_size, "hidden_size": 32, "num_attention_heads": 4, "initializer_range": 0.3}
    if kind == "gpt2":
        config = GPT2Config(
            vocab_size=vocab_size, n_embd=32, n_head=4, n_layer=2, n_positions=context, initializer_range=0.3
        )
        return GPT2LMHeadModel(config)
    rest = {
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
    }
    if kind in {"llama", "llama-wide"}:
        return LlamaForCausalLM(LlamaConfig(**sizes, **rest, head_dim=32 if kind == "llama-wide" else 8))
    slides = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1}
    return Qwen2ForCausalLM(Qwen2Config(**sizes, **rest, **(slides if kind == "qwen2-sliding" else {})))


def make_reward_model(kind: str, vocab_size: int, *, context: int = 512, labels: int = 1) -> PreTrainedModel:
    """A random reward model of the kinds of `make_model`; id 0, an ordinary token too, tells padding."""
    config = make_model(kind, vocab_size, context=context).config
    config.num_labels, config.pad_token_id = labels, 0
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config)


def save_reward_model(
    folder: Path,
    kind: str = "llama",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    context: int = 512,
    labels: int = 1,
    shift: float | None = None,
) -> Path:
    """A reward model's folder as a user would have it: without a padding token, and with a shift if one is given."""
    tokenizer = tokenizer or byte_level_tokenizer()
    tokenizer.save_pretrained(folder)
    model = make_reward_model(kind, len(tokenizer), context=context, labels=labels)
    model.config.pad_token_id, model.config.eos_token_id = None, tokenizer.eos_token_id
    if shift is not None:
        model.config.reward_shift = shift
    model.save_pretrained(folder)
    return folder


def save_model(
    folder: Path,
    kind: str = "llama",
    *,
    tokenizer: PreTrainedTokenizerFast | None = None,
    context: int = 512,
    eos: list[int] | None = None,
    likes_digits: bool = False,
) -> Path:
    """A model folder as a user would have it.

    `eos` as its generation config names them; `likes_digits`: it often answers with digits, 10 among them.
    """
    tokenizer = tokenizer or byte_level_tokenizer()
    tokenizer.save_pretrained(folder)
    model = make_model(kind, len(tokenizer), context=context, seed=5 if likes_digits else 0)
    if likes_digits:
        digits = [token for name, token in tokenizer.get_vocab().items() if name.lstrip("ĠĊ▁").isdecimal()]
        with torch.no_grad():
            model.get_output_embeddings().weight[digits] *= 3.0
    model.generation_config.eos_token_id = eos or tokenizer.eos_token_id
    model.save_pretrained(folder)
    return folder
