"""CPU seconds and memory of an optimizer step: `rlaif train` beside TRL, in one run on one machine.

    python benchmarks/training.py                       reward model, DPO, KTO and SFT, medians of 3
    python benchmarks/training.py --methods dpo --repeats 1
    python benchmarks/training.py --tools trl           TRL alone

A random Llama of 11.6 M parameters (float32, vocabulary 16,384) is trained on 40 pairs with prompts of 96 to 160 tokens
and responses of 64 to 128, EOS included; 8 pairs a step (KTO: their 16 responses; SFT: the 8 chosen ones), one thread.
Both tools start from the same weights, and take the same token ids (checked) in the same steps, with the same AdamW.

TRL is set to its fastest: float32, no gradient checkpointing, no reference model but log-probabilities computed before
the first step, no padding beyond a batch's longest row, no evaluation, no tracker. Its metrics cannot be switched off.

Every measurement is its own process; the tools take turns. CPU is user and system time of the process from the end of
one step to the end of the next, data loading included: the mean over whole epochs after the first, which is not
counted. Peak RSS is of the process, Python and imports included. Of the repeats, the median is reported.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

SIZES = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}
VOCABULARY, CONTEXT = 16_384, 512
PAIRS, BATCH = 40, 8
STEPS_OF_EPOCH = PAIRS // BATCH
PROMPT_TOKENS, RESPONSE_TOKENS = (96, 160), (64, 128)
SEED, LEARNING_RATE, BETA = 0, 1e-4, 0.1
UNK, PAD, EOS = "<unk>", "<pad>", "</s>"
TOOLS = ("trl", "rlaif")
NAMES = {"rm": "reward model", "dpo": "DPO", "kto": "KTO", "sft": "SFT"}
GOALS = {"rm": 1.5, "dpo": 4.0, "kto": 3.0, "sft": 3.0}
"""How many times fewer CPU seconds a step than TRL."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(NAMES), choices=list(NAMES))
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS))
    parser.add_argument("--repeats", type=int, default=3, help="median of so many; the tools take turns")
    parser.add_argument("--epochs", type=int, default=2, help="counted, after one that is not")
    parser.add_argument("--part", choices=["prepare", *TOOLS], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    steps = STEPS_OF_EPOCH * (1 + arguments.epochs)
    if arguments.part == "prepare":
        prepare(arguments.folder, steps)
    elif arguments.part:
        run_part(arguments.part, arguments.methods[0], arguments.folder, steps)
    else:
        with tempfile.TemporaryDirectory() as name:
            compare(Path(name), arguments)
    return 0


class Tokens(NamedTuple):
    """A prompt with one response as ids, and how many of them are the response's."""

    ids: list[int]
    of_response: int


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one training took.

    Attributes:
        step_seconds: CPU seconds of each step.
        losses: Of each step.
        start_seconds: CPU seconds before the first step: imports, loading, tokenizing, reference log-probabilities.
        rss_mib: Peak resident memory.
        data: Fingerprint of the token ids in the order of the steps; empty where the tool does not show them.
    """

    step_seconds: list[float]
    losses: list[float]
    start_seconds: float
    rss_mib: float
    data: str = ""

    @property
    def cost(self) -> float:
        """CPU seconds a step: the mean over the epochs after the first."""
        return statistics.fmean(self.step_seconds[STEPS_OF_EPOCH:])


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    run_process(["--part", "prepare", "--epochs", str(arguments.epochs)], folder)
    facts = json.loads((folder / "facts.json").read_text())
    print(
        f"{facts['versions']}, 1 thread; {facts['parameters'] / 1e6:.2f} M parameters; {PAIRS} pairs, {BATCH} a step; "
    )
    print(f"steps {STEPS_OF_EPOCH + 1} to {STEPS_OF_EPOCH * (1 + arguments.epochs)}, median of {arguments.repeats}\n")
    runs: dict[tuple[str, str], list[Run]] = {}
    for repeat in range(arguments.repeats):
        for method in arguments.methods:
            for tool in arguments.tools[:: 1 if repeat % 2 == 0 else -1]:
                run = measure(tool, method, folder, arguments.epochs)
                if run.data not in {"", facts[method]["sha256"]}:
                    raise SystemExit(f"{method}: {tool} trains on other token ids than rlaif's encoder makes")
                runs.setdefault((method, tool), []).append(run)
                print(f"{method} {tool}: {run.cost:.2f} s, {run.rss_mib:.0f} MiB, {run.losses[0]:.6f}", file=sys.stderr)
    print(report(arguments.methods, runs))
    print(
        "\nTokens of the first step, in both tools: " + "; ".join(f"{NAMES[m]} {facts[m]}" for m in arguments.methods)
    )


def measure(tool: str, method: str, folder: Path, epochs: int) -> Run:
    """One training in a process of its own."""
    run_process(["--part", tool, "--methods", method, "--epochs", str(epochs)], folder)
    run = Run(**json.loads((folder / "run.json").read_text()))
    steps = STEPS_OF_EPOCH * (1 + epochs)
    if (len(run.step_seconds), len(run.losses)) != (steps, steps):
        raise SystemExit(
            f"{method}: {tool} made {len(run.step_seconds)} steps with {len(run.losses)} losses, not {steps}"
        )
    return run


def run_process(arguments: Sequence[str], folder: Path) -> None:
    """This script again, with one thread and without the network; a failure ends the benchmark."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
    }
    command = [sys.executable, __file__, *arguments, "--folder", str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(arguments)}\nfailed:\n{done.stderr[-3000:]}")


def report(methods: Sequence[str], runs: dict[tuple[str, str], list[Run]]) -> str:
    """Markdown tables: cost and memory, then what the losses were."""
    lines = [
        "| CPU s a step | TRL tuned | rlaif | times | goal | peak RSS, MiB, TRL | rlaif | share | CPU s before, TRL | rlaif |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for method in methods:
        trl, ours = (runs.get((method, tool), []) for tool in TOOLS)
        cost, rss, start = (
            [median(side, name) for side in (trl, ours)] for name in ("cost", "rss_mib", "start_seconds")
        )
        lines.append(
            f"| {NAMES[method]} | {cost[0]:.2f} | {cost[1]:.2f} | {cost[0] / cost[1]:.2f} | {GOALS[method]:g} "
            f"| {rss[0]:.0f} | {rss[1]:.0f} | {rss[1] / rss[0]:.2f} | {start[0]:.1f} | {start[1]:.1f} |"
        )
    lines += [
        "",
        "| loss of step 1 | TRL | rlaif | difference | largest difference of a step |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        trl_losses, our_losses = (runs[method, tool][0].losses if (method, tool) in runs else [] for tool in TOOLS)
        first = [losses[0] if losses else float("nan") for losses in (trl_losses, our_losses)]
        furthest = max((abs(a - b) for a, b in zip(trl_losses, our_losses, strict=False)), default=float("nan"))
        lines.append(
            f"| {NAMES[method]} | {first[0]:.6f} | {first[1]:.6f} | {abs(first[0] - first[1]):.1e} | {furthest:.1e} |"
        )
    return "\n".join(lines)


def median(runs: Iterable[Run], name: str) -> float:
    """Of one figure of the runs; NaN without runs."""
    return statistics.median([getattr(run, name) for run in runs] or [float("nan")])


# --- weights, tokenizer, data -----------------------------------------------------------------------------------------


def prepare(folder: Path, steps: int) -> None:
    """Save the random models and the rows, and what ids they come to with rlaif's encoder."""
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
    sizes = {method: facts_of(method, encode_with_rlaif(method, folder, steps)) for method in NAMES}
    versions = f"TRL {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}"
    facts = {"parameters": policy.num_parameters(), "versions": versions, **sizes}
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

    return [
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
    """The rows as TRL takes them, all steps one after another, each as rlaif's seed orders it."""
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
        else:  # not pair by pair: TRL takes the row before for the mismatch, and that would be one of the same prompt
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
    """SHA-256 (hex) of ids and borders; of the ids alone for the reward model, which knows no border."""
    values = [each.ids if method == "rm" else each for each in sequences]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def facts_of(method: str, sequences: Sequence[Tokens]) -> dict[str, Any]:
    first = sequences[: BATCH if method == "sft" else 2 * BATCH]
    return {
        "sha256": fingerprint(method, sequences),
        "sequences": len(first),
        "tokens": sum(len(each.ids) for each in first),
        "response_tokens": sum(each.of_response for each in first),
        "padded": len(first) * max(len(each.ids) for each in first),
    }


# --- one training, in a process of its own ----------------------------------------------------------------------------


def run_part(tool: str, method: str, folder: Path, steps: int) -> None:
    """Train, and write what it took to `run.json`."""
    import torch
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    class Recorder(TrainerCallback):  # type: ignore[misc]
        """The process's CPU seconds at the end of each step, and its loss."""

        def __init__(self) -> None:
            self.marks: list[float] = []
            self.losses: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.process_time())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks.append(time.process_time())

        def on_log(
            self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any, **_: Any
        ) -> None:
            if "loss" in logs:
                self.losses.append(logs["loss"])

    torch.set_num_threads(1)
    recorder = Recorder()
    data = (train_with_trl if tool == "trl" else train_with_rlaif)(method, folder, steps, recorder)
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    marks = recorder.marks
    seconds = [after - before for before, after in itertools.pairwise(marks)]
    run = Run(seconds, recorder.losses, marks[0], kib / 1024, data)
    (folder / "run.json").write_text(json.dumps(asdict(run)))


def train_with_trl(method: str, folder: Path, steps: int, recorder: Any) -> str:
    """TRL's trainer of the method; returns the fingerprint of the ids that it made of the rows."""
    import trl
    from datasets import Dataset

    trainer_class, config_class = {
        "rm": (trl.RewardTrainer, trl.RewardConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "sft": (trl.SFTTrainer, trl.SFTConfig),
    }[method]
    trainer = trainer_class(
        model=str(folder / ("reward" if method == "rm" else "policy")),
        args=config_class(**trl_settings(method, folder, steps)),
        train_dataset=Dataset.from_list(rows_of(method, folder, steps)),
        callbacks=[recorder],
    )
    trainer.train()
    return fingerprint(method, trl_tokens(method, trainer.train_dataset))


def trl_settings(method: str, folder: Path, steps: int) -> dict[str, Any]:
    """Arguments of TRL's config."""
    settings: dict[str, Any] = {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": 2 * BATCH if method == "kto" else BATCH,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "train_sampling_strategy": "sequential",
        "max_length": None,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }
    if method in {"dpo", "kto"}:
        settings |= {"beta": BETA, "precompute_ref_log_probs": True}
    return settings


def trl_tokens(method: str, rows: Iterable[Mapping[str, Any]]) -> list[Tokens]:
    """What TRL made of the rows."""
    found = []
    for row in rows:
        if method == "sft":
            found.append(Tokens(row["input_ids"], sum(label != -100 for label in row["labels"])))
        elif method == "kto":
            found.append(Tokens(row["prompt_ids"] + row["completion_ids"], len(row["completion_ids"])))
        else:
            found += [
                Tokens(row.get("prompt_ids", []) + row[name], len(row[name])) for name in ("chosen_ids", "rejected_ids")
            ]
    return found


def train_with_rlaif(method: str, folder: Path, steps: int, recorder: Any) -> str:
    """`rlaif train METHOD` on the pairs (SFT: the demonstrations), its order seeded with `SEED`."""
    raise NotImplementedError("the trainer's Python API")


if __name__ == "__main__":
    sys.exit(main())
