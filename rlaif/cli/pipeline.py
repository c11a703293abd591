"""`rlaif pipeline FILE.yaml`: several commands in one resumable run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from rlaif.cli.arguments import CommandLine, parse
from rlaif.cli.progress import duration
from rlaif.cli.runs import nearby
from rlaif.cli.terminal import say
from rlaif.engine.pipeline_config import PipelineConfig, Stage, StageCommand, read_pipeline
from rlaif.errors import RlaifError
from rlaif.extras import require

LINE = CommandLine(
    prog="rlaif pipeline",
    description=(
        "Run several commands one after the other, each on what those before it made: generate, revise, label, rate, "
        "calibrate, reweight, filter, rank, audit, evaluate, export, train. Each stage is the same command as alone. "
        "The same command again goes on where it was cut short, and skips the stages of which neither settings nor "
        "inputs have changed."
    ),
    positionals=("file",),
    short={"out": "-o"},
    epilog=(
        "The file holds out (a folder), defaults (options of all stages that have them) and stages: options by stage, "
        "in the order to run. A stage bears its command's name, or says it with command:. Its output stands in the "
        "folder of its name; '@NAME', in quotes, is what the stage of that name wrote, '@generate/comparisons' a "
        "folder in it, 'hf-reward:@NAME' a model that it trained. Where an input is not given, it is what the nearest "
        "stage before it made. A stage whose settings or inputs have changed is run anew; what it had made is kept as "
        "NAME.old-1."
    ),
)

_LABELS = (("reweight", ""), ("calibrate", ""), ("label", ""), ("revise", "/comparisons"))
"""What makes labeled rows: where several stand before, the nearest of the first kind."""


DOING = {
    "run": "run",
    "resume": "resumed",
    "redo": "run anew, and what it had made is kept beside it as .old-N",
    "skip": "skipped",
}
"""What becomes of a stage, for the line that says so."""


@dataclass(frozen=True)
class PipelineCommand:
    """`rlaif pipeline` as typed: the pipeline, and how it is shown."""

    run: PipelineConfig

    quiet: bool = False
    """Print errors and warnings only."""


@cache
def stage_commands() -> dict[str, StageCommand]:
    """The commands that may be stages, by name."""
    from rlaif.engine.config import AuditConfig, CalibrateConfig, LabelConfig, RateConfig
    from rlaif.engine.evaluation_config import EvaluateConfig
    from rlaif.engine.export_config import ExportConfig
    from rlaif.engine.filter_config import FilterConfig
    from rlaif.engine.generation_config import GenerateConfig
    from rlaif.engine.ranking_config import RankConfig
    from rlaif.engine.revision_config import ReviseConfig
    from rlaif.engine.reweight_config import ReweightConfig
    from rlaif.engine.training_config import TRAIN_CONFIGS
    from rlaif.online.config import ONLINE_CONFIGS

    figures = ("audit", ("matplotlib", "sklearn", "scipy", "statsmodels"))
    filtered = (("filter", ""), *_LABELS)
    return {
        "generate": StageCommand(GenerateConfig, "input"),
        "revise": StageCommand(ReviseConfig, "input", (("generate", ""),)),
        "label": StageCommand(LabelConfig, "input", (("generate", "/comparisons"), ("revise", "/comparisons"))),
        "rate": StageCommand(RateConfig, "input", (("generate", ""),)),
        "calibrate": StageCommand(CalibrateConfig, "input", _LABELS),
        "reweight": StageCommand(ReweightConfig, "input", _LABELS),
        "filter": StageCommand(FilterConfig, "input", (*_LABELS, ("rate", ""))),
        "rank": StageCommand(RankConfig, "input", (*_LABELS, ("rate", "")), needs=figures),
        "audit": StageCommand(AuditConfig, "input", _LABELS, needs=figures),
        "evaluate": StageCommand(EvaluateConfig, "a", (("generate", ""),), needs=figures),
        "export": StageCommand(ExportConfig, "input", filtered, file=_export_file),
        **{
            f"train {method}": StageCommand(config, "data", filtered, needs=("train", ("accelerate", "matplotlib")))
            for method, config in TRAIN_CONFIGS.items()
        },
        **{
            f"train {method}": StageCommand(config, "data", needs=("train", ("accelerate", "matplotlib")))
            for method, config in ONLINE_CONFIGS.items()
        },
    }


def _export_file(settings: Mapping[str, Any]) -> str:
    return "pairs.json" if settings.get("format") == "halos" else "pairs.jsonl"  # HALOs opens no other


def run(argv: Sequence[str]) -> int:
    """Run the command; returns the exit code."""
    command = parse(PipelineCommand, argv, LINE)
    pipeline = read_pipeline(command.run, stage_commands())
    for stage in pipeline.stages:
        if needs := stage_commands()[stage.command].needs:
            require(*needs, f"rlaif {stage.command}")
    from rlaif.engine.pipeline import DONE, Plan, Planned, check_constitutions, check_names, plan_pipeline, run_pipeline

    check_constitutions(pipeline)
    check_names(pipeline, stage_commands())

    if command.run.dry_run:
        for stage, planned in plan_pipeline(pipeline):
            print(f"{stage.name}: {planned.plan.value}, {planned.reason}")
        return DONE
    typed = shlex.join([*LINE.prog.split(), *argv])
    number = 0

    def on_stage(stage: Stage, planned: Planned) -> None:
        nonlocal number
        number += 1
        if not command.quiet or planned.plan is Plan.REDO:
            say(f"[{number}/{len(pipeline.stages)}] {stage.name}: {DOING[planned.plan.value]}, {planned.reason}")

    def run_stage(stage: Stage, options: Path) -> int:
        word, *method = stage.command.split()
        arguments = [*method, "--config", str(options), *(["--quiet"] if command.quiet else [])]
        try:
            code: int = import_module(f"rlaif.cli.{word}").run(arguments)
        except RlaifError as error:
            say(f"stopped at the stage {stage.name}; when that is mended, go on with: {typed}")
            raise error
        return code

    worst = DONE
    lines = []
    for result in run_pipeline(pipeline, run_stage, on_stage):
        if result.code not in (DONE, 3):
            say(f"stopped at the stage {result.stage.name}; go on with: {typed}")
            return result.code
        worst = max(worst, result.code)
        took = "skipped" if result.planned.plan is Plan.SKIP else duration(result.seconds)
        some = ", some rows failed" if result.code else ""
        lines.append((result.stage.name, f"{took:>8}  {nearby(result.stage.folder)}{some}"))
    if not command.quiet:
        width = max(len(name) for name, _ in lines)
        print("\n".join(["", "pipeline", *(f"  {name:<{width}}  {text}" for name, text in lines)]))
    return worst
