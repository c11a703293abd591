"""CPU seconds and memory of an optimizer step: `rlaif train` beside TRL, in one run on one machine.

    python benchmarks/training.py                       reward model, DPO, KTO and SFT, medians of 3
    python benchmarks/training.py --methods dpo --repeats 1
    python benchmarks/training.py --tools trl           TRL alone

A random Llama of 11.6 M parameters (float32, vocabulary 16,384) is trained on 40 pairs with prompts of 96 to 160 tokens
and responses of 64 to 128, EOS included; 8 pairs a step (KTO: their 16 responses; SFT: the 8 chosen ones), one thread.
All start from the same weights and take the same token ids (checked) in the same steps, with the same AdamW.

"TRL tuned" is float32, without gradient checkpointing, with the reference's log-probabilities computed before the first
step, padded to a batch's longest row and no further, without evaluation and trackers; its metrics cannot be switched
off. "TRL split" besides computes one row at a time and accumulates 8, which is faster and smaller here and the same
training, but for KTO, whose reference point would then come of one row.

Every measurement is its own process; the tools take turns. CPU is user and system time of the process from the end of
one step to the end of the next, data loading included: the mean over whole epochs after the first, which is not
counted. What comes before the first step is in no figure but the memory. Peak RSS is of the process until its last
step, Python and imports included. Of the repeats, the median is reported. Losses can be compared step by step, but for
KTO after step 1: its reference point is measured on responses under prompts that each tool draws in its own way.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training_setting import BATCH, METHODS, PAIRS, SEED, STEPS_OF_EPOCH, Tokens, fingerprint, prepare, rows_of

if TYPE_CHECKING:
    from rlaif.engine.training_config import TrainConfig

LEARNING_RATE, BETA = 1e-4, 0.1
TOOLS = {"trl": "TRL tuned", "trl-split": "TRL split", "rlaif": "rlaif"}
NAMES = {"rm": "reward model", "dpo": "DPO", "kto": "KTO", "sft": "SFT"}
GOALS = {"rm": 1.5, "dpo": 4.0, "kto": 3.0, "sft": 3.0}
"""How many times fewer CPU seconds a step than TRL tuned; for DPO, at most 0.4 of its memory besides."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
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


# --- the comparison ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """What one training took.

    Attributes:
        step_seconds: CPU seconds of each step.
        losses: Of each step.
        rss_mib: Peak resident memory.
        data: Fingerprint of the token ids, in the order of the steps.
    """

    step_seconds: list[float]
    losses: list[float]
    rss_mib: float
    data: str

    @property
    def cost(self) -> float:
        """CPU seconds a step: the mean over the epochs after the first."""
        return statistics.fmean(self.step_seconds[STEPS_OF_EPOCH:])


Runs = Mapping[tuple[str, str], Sequence[Run]]
"""By method and tool."""


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    run_process(["--part", "prepare", "--epochs", str(arguments.epochs)], folder)
    facts = json.loads((folder / "facts.json").read_text())
    last = STEPS_OF_EPOCH * (1 + arguments.epochs)
    size = f"{facts['parameters'] / 1e6:.1f} M parameters"
    print(f"{facts['versions']}; one thread, {size}, {PAIRS} pairs, {BATCH} a step;")
    print(f"mean of steps {STEPS_OF_EPOCH + 1} to {last}, median of {arguments.repeats}\n", flush=True)
    runs: dict[tuple[str, str], list[Run]] = {}
    for repeat in range(arguments.repeats):
        for method in arguments.methods:
            for tool in arguments.tools[:: 1 if repeat % 2 == 0 else -1]:
                if (method, tool) == ("kto", "trl-split"):
                    continue
                run = measure(tool, method, folder, arguments.epochs)
                if run.data != facts[method]["sha256"]:
                    raise SystemExit(f"{method}: {tool} trains on other token ids than rlaif's encoder makes")
                runs.setdefault((method, tool), []).append(run)
                figures = f"{run.cost:.2f} CPU s a step, {run.rss_mib:.0f} MiB, loss {run.losses[0]:.6f}"
                print(f"{NAMES[method]}, {TOOLS[tool]}: {figures}", file=sys.stderr, flush=True)
    tables = [table(runs) for table in (cost_table, memory_table, loss_table)]
    print("\n\n".join([*tables, token_table(arguments.methods, facts)]))


def measure(tool: str, method: str, folder: Path, epochs: int) -> Run:
    """One training in a process of its own."""
    run_process(["--part", tool, "--methods", method, "--epochs", str(epochs)], folder)
    run = Run(**json.loads((folder / "run.json").read_text()))
    steps = STEPS_OF_EPOCH * (1 + epochs)
    made = (len(run.step_seconds), len(run.losses))
    if made != (steps, steps):
        raise SystemExit(f"{method}: {tool} made {made[0]} steps with {made[1]} losses, expected {steps} of both")
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


# --- tables -----------------------------------------------------------------------------------------------------------


def cost_table(runs: Runs) -> str:
    header = [*TOOLS.values(), "times TRL tuned", "goal", "times the faster TRL"]
    rows = []
    for method in methods_of(runs):
        cost = medians(runs, method, "cost")
        tuned, split, ours = cost.values()
        fastest = min(tuned, split) if split == split else tuned
        figures = [*(f"{value:.2f}" for value in (*cost.values(), tuned / ours)), f"{GOALS[method]:g}"]
        rows.append([NAMES[method], *figures, f"{fastest / ours:.2f}"])
    return markdown(["CPU s a step", *header], rows)


def memory_table(runs: Runs) -> str:
    rows = []
    for method in methods_of(runs):
        tuned, split, ours = medians(runs, method, "rss_mib").values()
        figures = [f"{value:.0f}" for value in (tuned, split, ours)]
        rows.append([NAMES[method], *figures, f"{ours / tuned:.2f}", f"{ours / split:.2f}"])
    return markdown(["peak RSS, MiB", *TOOLS.values(), "share of TRL tuned", "share of TRL split"], rows)


def loss_table(runs: Runs) -> str:
    rows = []
    for method in methods_of(runs):
        trl, ours = (runs[method, tool][0].losses if (method, tool) in runs else [] for tool in ("trl", "rlaif"))
        gaps = [abs(a - b) for a, b in zip(trl, ours, strict=False)] or [float("nan")]
        first = [f"{losses[0]:.6f}" if losses else "" for losses in (trl, ours)]
        rows.append([NAMES[method], *first, f"{gaps[0]:.1e}", f"{max(gaps):.1e}"])
    return markdown(["loss of step 1", "TRL tuned", "rlaif", "difference", "largest of any step"], rows)


def token_table(methods: Iterable[str], facts: Mapping[str, Any]) -> str:
    columns = ("sequences", "tokens", "response_tokens", "padded")
    rows = [[NAMES[method], *(f"{facts[method][column]:,}" for column in columns)] for method in methods]
    return markdown(["step 1, the same in all", "sequences", "tokens", "of responses", "as TRL tuned pads"], rows)


def methods_of(runs: Runs) -> list[str]:
    return list(dict.fromkeys(method for method, _ in runs))


def medians(runs: Runs, method: str, figure: str) -> dict[str, float]:
    """Of a figure of `Run`, by tool; NaN where a tool did not run."""
    values = {tool: [getattr(run, figure) for run in runs.get((method, tool), ())] for tool in TOOLS}
    return {tool: statistics.median(found or [float("nan")]) for tool, found in values.items()}


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("nan", "") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# --- one training, in a process of its own ----------------------------------------------------------------------------


class Recorder:
    """CPU seconds of the process before the first and after each step, each step's loss, and peak memory until then."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.losses: list[float] = []
        self.rss_mib = 0.0

    def start(self) -> None:
        self.marks.append(time.process_time())

    def step(self, logs: Mapping[str, float]) -> None:
        """A step is over and logged."""
        self.marks.append(time.process_time())
        self.losses.append(logs["loss"])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self.rss_mib = peak / 1024 / (1024 if sys.platform == "darwin" else 1)


def run_part(tool: str, method: str, folder: Path, steps: int) -> None:
    """Train, and write what it took to `run.json`."""
    import torch

    torch.set_num_threads(1)
    recorder = Recorder()
    if tool == "rlaif":
        data = train_with_rlaif(method, folder, steps, recorder)
    else:
        data = train_with_trl(method, folder, steps, recorder, is_split=tool == "trl-split")
    seconds = [after - before for before, after in itertools.pairwise(recorder.marks)]
    run = Run(seconds, recorder.losses, recorder.rss_mib, data)
    (folder / "run.json").write_text(json.dumps(asdict(run)))


def train_with_rlaif(method: str, folder: Path, steps: int, recorder: Recorder) -> str:
    """`rlaif train METHOD` with its defaults; returns the fingerprint of the ids that it makes of the rows."""
    from rlaif.config import resolve
    from rlaif.engine.training import train
    from rlaif.engine.training_config import TRAIN_CONFIGS
    from rlaif.engine.training_listening import SilentTrainingListener, TrainingStart

    class Listener(SilentTrainingListener):
        def on_start(self, start: TrainingStart) -> None:
            recorder.start()

        def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
            recorder.step(logs)

    out = Path(tempfile.mkdtemp(dir=folder))
    settings: dict[str, Any] = {
        "model": str(folder / ("reward" if method == "rm" else "policy")),
        "data": str(folder / ("demonstrations.jsonl" if method == "sft" else "pairs.jsonl")),
        "out": str(out / "trained"),
        "held_out": 0.0,
        "batch_size": BATCH,
        "max_steps": steps,
        "learning_rate": LEARNING_RATE,
        "schedule": "constant",
        "warmup": 0.0,
        "optimizer": "adamw_torch",
        "save_every": steps,
        "seed": SEED,
        "device": "cpu",
    }
    if method in {"dpo", "kto"}:
        settings |= {"beta": BETA, "reference_cache": str(out / "reference")}
    config = resolve(TRAIN_CONFIGS[method], None, settings)
    train(method, config, Listener())
    return fingerprint(method, rlaif_tokens(method, config, steps))


def rlaif_tokens(method: str, config: TrainConfig, steps: int) -> list[Tokens]:
    """What rlaif makes of the rows, in the order in which `rows_of` hands them to TRL."""
    from rlaif.engine.training_inputs import gather
    from rlaif.engine.training_listening import SilentTrainingListener
    from rlaif.models.encoding import ExampleEncoder
    from rlaif.models.loading import stop_ids
    from rlaif.train.items import make_items
    from rlaif.train.steps import StepOrder

    inputs = gather(method, config, SilentTrainingListener())
    encoder = ExampleEncoder(inputs.source.tokenizer, stop_ids(inputs.source))
    items, _ = make_items(inputs.data.train, encoder, config.labels, max_length=inputs.max_length)
    order = StepOrder(PAIRS, BATCH, SEED)
    found = []
    for step in range(steps):
        best_first = []
        for item in (items[row] for row in order.rows(step)):
            ranked = sorted(
                range(len(item.example.completions)), key=lambda place: -sum(item.scores[place : place + 1])
            )
            responses = [item.example.completions[place] for place in ranked]
            best_first.append([Tokens([*item.example.prompt, *ids], len(ids)) for ids in responses])
        sides = zip(*best_first, strict=True) if method == "kto" else best_first
        found += [tokens for side in sides for tokens in side]
    return found


def train_with_trl(method: str, folder: Path, steps: int, recorder: Recorder, *, is_split: bool) -> str:
    """TRL's trainer of the method; returns the fingerprint of the ids that it made of the rows."""
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            recorder.start()

        def on_log(self, *_: Any, logs: Mapping[str, float], **__: Any) -> None:
            if "loss" in logs:
                recorder.step(logs)

    settings = trl_settings(method, steps)
    if is_split:
        settings |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": BATCH}
    trainer_class, config_class = {
        "rm": (trl.RewardTrainer, trl.RewardConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
        "kto": (trl.KTOTrainer, trl.KTOConfig),
        "sft": (trl.SFTTrainer, trl.SFTConfig),
    }[method]
    trainer = trainer_class(
        model=str(folder / ("reward" if method == "rm" else "policy")),
        args=config_class(output_dir=str(folder / "trl"), **settings),
        train_dataset=Dataset.from_list(rows_of(method, folder, steps)),
        callbacks=[Callback()],
    )
    trainer.train()
    return fingerprint(method, trl_tokens(method, trainer.train_dataset))


def trl_settings(method: str, steps: int) -> dict[str, Any]:
    """Arguments of TRL's configs: what makes it fastest, and the training that is compared."""
    settings: dict[str, Any] = {
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
            continue
        prompt = row.get("prompt_ids", [])  # its reward trainer keeps none
        names = ["completion_ids"] if method == "kto" else ["chosen_ids", "rejected_ids"]
        found += [Tokens(prompt + row[name], len(row[name])) for name in names]
    return found


if __name__ == "__main__":
    sys.exit(main())
