"""Online training: GRPO beside TRL in one run on one machine, a slow judge hidden by overlap, and one model in memory.

    python benchmarks/online.py                          all three parts, medians of 3
    python benchmarks/online.py --part step --repeats 1
    python benchmarks/online.py --part overlap
    python benchmarks/online.py --part memory

step: a random Llama of 11.6 M parameters (float32, vocabulary 16,384) answers 4 prompts of 96 to 160 tokens 4 times
each, 64 tokens long, and learns from them; one thread. All start from the same weights, answer the same prompts in the
same steps (checked) and are rewarded by the same function of Python; the token that would end a completion lies beyond
the output layer, so that all are equally long (checked). Temperature 1, no nucleus, no KL, one optimizer step for each
batch, the same AdamW. "TRL tuned" is float32 without gradient checkpointing and trackers; "TRL split" computes 4
completions at a time and accumulates. rlaif runs with its guard rails. CPU is user and system time of the process from
the end of one step to the end of the next: writing, rewards and learning; the mean of the steps after the second. Peak
RSS is of the process until its last step, Python and imports included.

overlap: the same policy and steps, rewarded by a judge behind HTTP that rates each completion 1-10: at once, after
200 ms, and after 200 ms with `--overlap`. Completions of one batch end together here, which is the worst case: nothing
is judged while others are still written. Wall seconds a step, and those of them spent waiting for verdicts. Hidden is
the share of what the slow judge adds to a step that overlap takes away again; of the waiting, the share that it takes
away, which is the steadier figure where the machine does other work.

memory: `rlaif train drlaif` on a random Llama of 90 M parameters: policy, reference, judge and value as one set of
weights (`--lora-rank`, `--judge self`), beside models of their own. Peak RSS after 3 steps, less that of a process that
has imported all and loaded no model.

Every measurement is its own process; the tools take turns. Of the repeats, the median is reported; memory is measured
once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import online_setting
from online_setting import BATCH, GROUP, NEW_TOKENS

PARTS = ("step", "overlap", "memory")
TOOLS = {"trl": "TRL tuned", "trl-split": "TRL split", "rlaif": "rlaif"}
STEPS, WARM = 8, 2
"""Steps of a run, and those of them that are not counted."""
TOKENS_OF_STEP = BATCH * GROUP * NEW_TOKENS
SPEED_GOAL, MEMORY_GOAL, HIDDEN_GOAL = 2.5, 0.5, 0.8
JUDGE_SECONDS = 0.2
MEMORY_STEPS = 3
MEMORY_CASES = {
    "nothing": "imports alone",
    "one": "one model: LoRA, --judge self, value head",
    "separate": "LoRA, and a reference, a judge and a critic of their own",
    "full": "all weights, and a reference, a judge and a critic of their own",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one of the three alone")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=list(TOOLS), help="of the part step")
    parser.add_argument("--repeats", type=int, default=3, help="median of so many; the tools take turns")
    parser.add_argument("--as", dest="role", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=json.loads, default={}, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role:
        run_role(arguments.role, arguments.folder, arguments.settings)
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run_process("prepare", folder)
        facts = json.loads((folder / "facts.json").read_text())
        print(
            f"{facts['versions']}; one thread, {facts['parameters'] / 1e6:.1f} M parameters, {BATCH} prompts x {GROUP}"
        )
        print(
            f"completions x {NEW_TOKENS} tokens; steps {WARM + 1} to {STEPS}, median of {arguments.repeats}\n",
            flush=True,
        )
        if arguments.part in {None, "step"}:
            compare_steps(folder, arguments.tools, arguments.repeats)
        if arguments.part in {None, "overlap"}:
            compare_overlap(folder, arguments.repeats)
        if arguments.part in {None, "memory"}:
            compare_memory(folder)
    return 0


@dataclass(frozen=True)
class Run:
    """What one training took.

    Attributes:
        cpu_seconds, wall_seconds: Of each step.
        waiting_seconds: For verdicts, of each step; only rlaif says.
        rss_mib: Peak resident memory until the last step.
        prompts: That were rewarded in each step, in alphabetical order.
        words: Of all completions.
    """

    cpu_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)
    waiting_seconds: list[float] = field(default_factory=list)
    rss_mib: float = 0.0
    prompts: list[list[str]] = field(default_factory=list)
    words: int = 0

    @property
    def cpu(self) -> float:
        """CPU seconds a step."""
        return statistics.fmean(self.cpu_seconds[WARM:])

    @property
    def wall(self) -> float:
        """Wall seconds a step."""
        return statistics.fmean(self.wall_seconds[WARM:])

    @property
    def waiting(self) -> float:
        """Wall seconds a step that are spent waiting for verdicts."""
        return statistics.fmean(self.waiting_seconds[WARM:])


def measure(role: str, folder: Path, **settings: Any) -> Run:
    """One training in a process of its own."""
    run_process(role, folder, settings)
    return Run(**json.loads((folder / "run.json").read_text()))


def run_process(role: str, folder: Path, settings: Mapping[str, Any] | None = None) -> None:
    """This script again, with one thread and without the network; a failure ends the benchmark."""
    command = [
        sys.executable,
        __file__,
        "--as",
        role,
        "--folder",
        str(folder),
        "--settings",
        json.dumps(settings or {}),
    ]
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{role} {settings or ''}\nfailed:\n{done.stderr[-3000:]}")


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
        "OPENAI_API_KEY": "none",
    }


# --- a step beside TRL ------------------------------------------------------------------------------------------------


def compare_steps(folder: Path, tools: Sequence[str], repeats: int) -> None:
    runs: dict[str, list[Run]] = {tool: [] for tool in tools}
    for repeat in range(repeats):
        for tool in tools[:: 1 if repeat % 2 == 0 else -1]:
            run = measure(tool, folder)
            runs[tool].append(run)
            check_run(tool, run, folder)
            print(f"{TOOLS[tool]}: {run.cpu:.2f} CPU s a step, {run.rss_mib:.0f} MiB", file=sys.stderr, flush=True)
    cost = {tool: statistics.median(run.cpu for run in runs[tool]) for tool in tools}
    memory = {tool: statistics.median(run.rss_mib for run in runs[tool]) for tool in tools}
    rows = []
    for tool in tools:
        ratios = (
            [f"{cost['trl'] / cost[tool]:.2f}", f"{memory[tool] / memory['trl']:.2f}"] if "trl" in cost else ["", ""]
        )
        speed = TOKENS_OF_STEP / cost[tool]
        rows.append([TOOLS[tool], f"{cost[tool]:.2f}", f"{speed:.0f}", ratios[0], f"{memory[tool]:.0f}", ratios[1]])
    rows.append(["goal", "", "", f"{SPEED_GOAL:g}", "", f"{MEMORY_GOAL:g}"])
    header = ["GRPO", "CPU s a step", "tokens a CPU s", "times TRL tuned", "peak RSS, MiB", "share of TRL tuned"]
    print(markdown(header, rows), end="\n\n", flush=True)


def check_run(tool: str, run: Run, folder: Path) -> None:
    """Refuse a run that answered other prompts than rlaif does, or wrote more or less."""
    order = json.loads((folder / "order.json").read_text())
    for step, found in enumerate(run.prompts):
        answered = [text for text in order[step * BATCH : (step + 1) * BATCH] for _ in range(GROUP)]
        if Counter(found) != Counter(answered):
            raise SystemExit(f"{TOOLS[tool]} answers other prompts in step {step + 1}")
    written = len(run.prompts) * TOKENS_OF_STEP
    if not (len(run.cpu_seconds) == len(run.prompts) == STEPS and 0.998 * written <= run.words <= written):
        raise SystemExit(f"{TOOLS[tool]} wrote {run.words} words in {len(run.prompts)} steps, expected {written}")


# --- overlap ----------------------------------------------------------------------------------------------------------


def compare_overlap(folder: Path, repeats: int) -> None:
    cases = {"at once": (0.0, False), "200 ms": (JUDGE_SECONDS, False), "200 ms, --overlap": (JUDGE_SECONDS, True)}
    rows = []
    for concurrency in (BATCH * GROUP, BATCH):
        runs: dict[str, list[Run]] = {case: [] for case in cases}
        for repeat in range(repeats):
            for case in list(cases)[:: 1 if repeat % 2 == 0 else -1]:
                seconds, overlaps = cases[case]
                with judge_server(folder, seconds) as url:
                    run = measure("rlaif", folder, **judged_by(url, concurrency, overlaps))
                runs[case].append(run)
                words = f"{run.wall:.2f} s a step, {run.waiting:.3f} s waiting"
                print(f"judge {case}, {concurrency} in flight: {words}", file=sys.stderr, flush=True)
        walls = [statistics.median(run.wall for run in runs[case]) for case in cases]
        waits = [statistics.median(run.waiting for run in runs[case]) for case in cases]
        at_once, slow, overlapped = walls
        hidden = [f"{(slow - overlapped) / (slow - at_once):.0%}", f"{1 - waits[2] / waits[1]:.0%}"]
        for figure, values, share in zip(("wall s", "waiting s"), (walls, waits), hidden, strict=True):
            rows.append([f"{concurrency} in flight, {figure}", *(f"{value:.3f}" for value in values), share])
    header = ["a step, with a judge that answers", *cases, f"hidden (goal {HIDDEN_GOAL:.0%})"]
    print(markdown(header, rows), end="\n\n", flush=True)


def judged_by(url: str, concurrency: int, overlaps: bool) -> dict[str, Any]:
    return {
        "reward": ["judge"], "judge": ["openai:judge"], "base_url": [url], "concurrency": concurrency,
        "overlap": overlaps,
    }  # fmt: skip


@contextlib.contextmanager
def judge_server(folder: Path, seconds: float) -> Iterator[str]:
    """The address of a judge that takes so long for each answer."""
    command = [sys.executable, __file__, "--as", "judge", "--folder", str(folder), "--settings", str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.kill()


# --- memory -----------------------------------------------------------------------------------------------------------


def compare_memory(folder: Path) -> None:
    run_process("prepare-large", folder)
    weights = (folder / "large" / "model.safetensors").stat().st_size / 2**20
    peaks = {}
    for case in MEMORY_CASES:
        peaks[case] = measure("memory", folder, case=case).rss_mib
        print(f"memory, {MEMORY_CASES[case]}: {peaks[case]:.0f} MiB", file=sys.stderr, flush=True)
    rows = []
    for case, words in MEMORY_CASES.items():
        above = peaks[case] - peaks["nothing"]
        share = "" if case == "nothing" else f"{(peaks['one'] - peaks['nothing']) / above:.2f}"
        figures = [f"{peaks[case]:.0f}", f"{above:.0f}", f"{above / weights:.2f}"]
        rows.append([words, *figures, share])
    header = ["drlaif", "peak RSS, MiB", "above imports", f"in weights of {weights:.0f} MiB", "one model's share of it"]
    print(markdown(header, rows), end="\n\n", flush=True)


# --- processes of their own -------------------------------------------------------------------------------------------


class Recorder:
    """Seconds before the first and after each step, and peak memory until then."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []
        self.waiting: list[float] = []
        self.asked: list[int] = []
        self.rss_mib = 0.0

    def start(self) -> None:
        self.marks.append((time.process_time(), time.monotonic()))
        online_setting.asked.clear()

    def step(self, logs: Mapping[str, float]) -> None:
        """A step is over and logged."""
        self.marks.append((time.process_time(), time.monotonic()))
        self.waiting.append(logs.get("seconds_waiting", 0.0))
        self.asked.append(len(online_setting.asked))
        self.rss_mib = peak_mib()

    def run(self, learnt: Collection[str]) -> Run:
        """All of it; prompts that are only watched are left out."""
        pairs = list(itertools.pairwise(self.marks))
        steps = [online_setting.asked[begin:end] for begin, end in itertools.pairwise([0, *self.asked])]
        steps = [[(prompt, text) for prompt, text in step if prompt in learnt] for step in steps]
        return Run(
            [after[0] - before[0] for before, after in pairs],
            [after[1] - before[1] for before, after in pairs],
            self.waiting,
            self.rss_mib,
            [sorted(prompt for prompt, _ in step) for step in steps],
            sum(len(completion.split()) for step in steps for _, completion in step),
        )


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / (1024 if sys.platform == "darwin" else 1)


def run_role(role: str, folder: Path, settings: Any) -> None:
    """What this process was started for."""
    if role == "judge":
        asyncio.run(online_setting.serve_judge(settings))
        return
    import torch

    torch.set_num_threads(1)
    if role == "prepare":
        online_setting.prepare(folder)
        order = online_setting.first_visits(folder, STEPS * BATCH)
        (folder / "order.json").write_text(json.dumps(order))
        return
    if role == "prepare-large":
        online_setting.prepare_large(folder / "large")
        return
    recorder = Recorder()
    if role == "rlaif":
        train_with_rlaif("grpo", online_setting.grpo_settings(folder, STEPS, **settings), folder, recorder)
    elif role == "memory":
        hold_in_memory(settings["case"], folder, recorder)
    else:
        train_with_trl(folder, recorder, is_split=role == "trl-split")
    learnt = set(json.loads((folder / "order.json").read_text()))
    (folder / "run.json").write_text(json.dumps(asdict(recorder.run(learnt))))


def train_with_rlaif(method: str, settings: dict[str, Any], folder: Path, recorder: Recorder) -> None:
    """`rlaif train METHOD`."""
    from rlaif.config import resolve
    from rlaif.engine.training_listening import SilentTrainingListener, TrainingStart
    from rlaif.online.config import ONLINE_CONFIGS
    from rlaif.online.training import train_online

    class Listener(SilentTrainingListener):
        def on_start(self, start: TrainingStart) -> None:
            recorder.start()

        def on_step(self, step: int, total: int, logs: Mapping[str, float]) -> None:
            recorder.step(logs)

    with tempfile.TemporaryDirectory(dir=folder) as out:
        config = resolve(ONLINE_CONFIGS[method], None, settings | {"out": f"{out}/trained"})
        train_online(method, config, Listener())


def train_with_trl(folder: Path, recorder: Recorder, *, is_split: bool) -> None:
    """TRL's GRPOTrainer on rlaif's prompts, in rlaif's order."""
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    class Callback(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            recorder.start()

        def on_log(self, *_: Any, logs: Mapping[str, float], **__: Any) -> None:
            if "loss" in logs:
                recorder.step(logs)

    completions = BATCH * GROUP
    settings = {
        "per_device_train_batch_size": completions // 4 if is_split else completions,
        "gradient_accumulation_steps": 4 if is_split else 1,
        "num_generations": GROUP,
        "max_completion_length": NEW_TOKENS,
        "temperature": 1.0,
        "beta": 0.0,
        "loss_type": "grpo",
        "shuffle_dataset": False,
        "max_steps": STEPS,
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }
    prompts = json.loads((folder / "order.json").read_text())
    trainer = trl.GRPOTrainer(
        model=str(folder / "policy"),
        reward_funcs=[online_setting.even_share],
        args=trl.GRPOConfig(output_dir=str(folder / "trl"), **settings),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        callbacks=[Callback()],
    )
    trainer.train()


def hold_in_memory(case: str, folder: Path, recorder: Recorder) -> None:
    """Three steps of direct RLAIF with models in one of the ways of `MEMORY_CASES`."""
    for module in ("peft", "transformers", "rlaif.online.session", "rlaif.online.self_judge"):
        importlib.import_module(module)
    recorder.start()
    if case == "nothing":
        recorder.step({})
        return
    model = str(folder / "large")
    shared = {"judge": ["self"], "value": "head"}
    separate = {"judge": [f"hf:{model}"], "value": "critic", "reference": model}
    settings = online_setting.drlaif_settings(folder / "large", MEMORY_STEPS)
    settings |= shared if case == "one" else separate
    if case != "full":
        settings["lora_rank"] = 16
    train_with_rlaif("drlaif", settings, folder, recorder)


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    sys.exit(main())
