"""What `training.py` trains: a random model, a tokenizer whose tokens are words, random pairs, and their token ids."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
VOCABULARY, CONTEXT = 16_384, 512
PAIRS, BATCH = 40, 8
STEPS_OF_EPOCH = PAIRS // BATCH
PROMPT_TOKENS, RESPONSE_TOKENS = (96, 160), (64, 128)
SEED = 0
UNK, PAD, EOS = "<unk>", "<pad>", "</s>"
METHODS = ("rm", "dpo", "kto", "sft")


class Tokens(NamedTuple):
    """A prompt with one response as ids, and how many of them are the response's."""

    ids: list[int]
    of_response: int


def prepare(folder: Path, steps: int) -> None:
    """Save the random models (`policy`, `reward`), the rows, and what ids they come to with rlaif's encoder."""
    import torch
    import transformers
    import trl

    tokenizer = make_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, max_position_embeddings=CONTEXT, bos_token_id=None, num_labels=1,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SIZES,
    )  # fmt: skip
    torch.manual_seed(SEED)
    policy = transformers.LlamaForCausalLM(config)
    reward_model = transformers.LlamaForSequenceClassification(config)
    for name, model in {"policy": policy, "reward": reward_model}.items():
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    pairs = draw_pairs(random.Random(SEED))
    write_rows(folder / "pairs.jsonl", pairs)
    write_rows(folder / "demonstrations.jsonl", [{"prompt": p["prompt"], "response": p["chosen"]} for p in pairs])
    facts = {
        "versions": f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}",
        "parameters": policy.num_parameters(),
        **{method: facts_of(method, encode_with_rlaif(method, folder, steps)) for method in METHODS},
    }
    (folder / "facts.json").write_text(json.dumps(facts))


def make_tokenizer() -> Any:
    """Every word is a token, whatever stands before it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = [UNK, PAD, EOS]
    words += [f"w{number}" for number in range(VOCABULARY - len(words))]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNK, pad_token=PAD, eos_token=EOS)


def draw_pairs(draw: random.Random) -> list[dict[str, str]]:
    """Pairs of random words; a response's EOS is one of its tokens, and not in its text."""

    def words(span: tuple[int, int], less: int = 0) -> str:
        return " ".join(f"w{draw.randrange(VOCABULARY - 3)}" for _ in range(draw.randint(*span) - less))

    return [  # TRL puts prompt and response together as they are, hence the blank
        {
            "prompt": words(PROMPT_TOKENS),
            "chosen": " " + words(RESPONSE_TOKENS, less=1),
            "rejected": " " + words(RESPONSE_TOKENS, less=1),
        }
        for _ in range(PAIRS)
    ]


def write_rows(path: Path, rows: Iterable[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(method: str, folder: Path, steps: int) -> list[dict[str, Any]]:
    """The rows as TRL takes them, all steps one after another, each step's as rlaif draws them."""
    from rlaif.train.steps import StepOrder

    pairs = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    order = StepOrder(PAIRS, BATCH, SEED)
    rows: list[dict[str, Any]] = []
    for step in range(steps):
        batch = [pairs[row] for row in order.rows(step)]
        if method in {"rm", "dpo"}:
            rows += batch
        elif method == "sft":
            rows += [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in batch]
        else:  # all chosen ones first: TRL's mismatch is the row before, which must not be of the same prompt
            rows += [
                {"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}
                for side in ("chosen", "rejected")
                for pair in batch
            ]
    return rows


def encode_with_rlaif(method: str, folder: Path, steps: int) -> list[Tokens]:
    """What rlaif's encoder makes of the rows, in the order of the steps."""
    from transformers import AutoTokenizer

    from rlaif.models.encoding import ExampleEncoder
    from rlaif.records import Turn

    encoder = ExampleEncoder(AutoTokenizer.from_pretrained(folder / "policy"))
    found = []
    for row in rows_of(method, folder, steps):
        responses = [row[name] for name in ("chosen", "rejected", "completion") if name in row]
        example = encoder.example("", (Turn("user", row["prompt"]),), responses)
        found += [Tokens([*example.prompt, *ids], len(ids)) for ids in example.completions]
    return found


def fingerprint(method: str, sequences: Sequence[Tokens]) -> str:
    """SHA-256 (hex) of the ids and where responses begin; of the ids alone for reward models, which do not look."""
    values = [each.ids if method == "rm" else each for each in sequences]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def facts_of(method: str, sequences: Sequence[Tokens]) -> dict[str, Any]:
    """The fingerprint, and sizes of the first step."""
    first = sequences[: BATCH if method == "sft" else 2 * BATCH]
    lengths = [len(each.ids) for each in first]
    return {
        "sha256": fingerprint(method, sequences),
        "sequences": len(first),
        "tokens": sum(lengths),
        "response_tokens": sum(each.of_response for each in first),
        "padded": len(first) * max(lengths),
    }
