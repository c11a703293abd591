"""What a finished training run leaves behind: a centered reward model, the saved weights, figures, curves, the card."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rlaif.config import as_dict
from rlaif.data.training_methods import RowKind
from rlaif.engine.training_card import HeldOutResult, ModelCardFacts, render_model_card
from rlaif.engine.training_config import ReferenceConfig
from rlaif.engine.training_curves import plot_curves
from rlaif.engine.training_evaluation import evaluate_pairs
from rlaif.engine.training_session import TrainingRun, TrainingSession, tokens_of
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import ModelSource, stop_ids
from rlaif.randomness import seeded_random
from rlaif.records import Turn
from rlaif.train.checkpoints import writing
from rlaif.train.models import save_trained, set_reward_shift
from rlaif.training_records import LabeledPair

CENTERED_ON = 1000
"""Rows, at most, whose responses a reward model is centered on."""

Evaluation = Mapping[str, Mapping[str, Any]]


def finish(session: TrainingSession, run: TrainingRun) -> dict[str, float]:
    """Center, evaluate, save, draw and describe.

    Returns:
        The figures on held-out rows; empty without any.
    """
    shift = _center(session, run) if session.method == "rm" else None
    evaluation = _evaluation(session, run)
    metrics = _last_metrics(run)
    model = session.whole_model(run.trainer)
    if model is not None:
        is_merged = session.config.adapter.merge or session.method == "rm"
        if shift is not None:
            set_reward_shift(model, shift)
        with writing(session.folder.path):
            save_trained(model, session.inputs.source.tokenizer, session.folder.path, merge=is_merged)
        history = run.trainer.state.log_history
        curves = plot_curves(history, session.folder.path, method=session.method)
        session.folder.replace("README.md", render_model_card(_facts(session, run, evaluation, shift, curves)))
        session.write_run_json(
            "finished",
            steps=run.trainer.state.global_step,
            metrics=metrics,
            evaluation=evaluation,
            rows=_row_counts(session, run),
            **({"reward_shift": shift} if shift is not None else {}),
            **({"data_run": as_dict(session.inputs.origin)} if session.inputs.origin is not None else {}),
        )
    return metrics


def _row_counts(session: TrainingSession, run: TrainingRun) -> dict[str, Any]:
    """How many rows there were, and what became of them."""
    data = session.rows.data
    return {
        "before": data.filtered.before,
        "dropped": {reason.name.lower(): count for reason, count in data.filtered.dropped.items() if count},
        "after": data.filtered.after,
        "joined": data.joined,
        "skipped": len(data.failures),
        **as_dict(data.split),
        "truncated": as_dict(session.rows.truncation),
    }


def _center(session: TrainingSession, run: TrainingRun) -> float:
    """The shift after which the mean reward of reference responses is 0."""
    items = list(session.rows.centered_on)
    drawn = seeded_random(session.config.seed, "", "centering").sample(items, min(len(items), CENTERED_ON))
    rewards = [reward for of_row in run.trainer.rewards_of(drawn) for reward in of_row]
    return math.fsum(rewards) / len(rewards)


def _evaluation(session: TrainingSession, run: TrainingRun) -> dict[str, dict[str, Any]]:
    """Figures with intervals, where pairs were held out and the method has a reward for each response."""
    if session.rows.data.kind is not RowKind.PAIRS or not run.held_out:
        return {}
    found = evaluate_pairs(
        cast(Sequence[LabeledPair], session.rows.data.held_out),
        [item.scores[0] for item in run.held_out],
        run.trainer.rewards_of(run.held_out),
        is_probability=session.objective.is_logistic,
        seed=session.config.seed,
    )
    return {section: {name: as_dict(figure) for name, figure in figures.items()} for section, figures in found.items()}


def _last_metrics(run: TrainingRun) -> dict[str, float]:
    """Of the weights that are kept: the last evaluation, or that of the best checkpoint."""
    state = run.trainer.state
    step = state.best_global_step if run.trainer.args.load_best_model_at_end else None
    logs = [log for log in state.log_history if "eval_loss" in log and step in (None, log["step"])]
    return {name: value for name, value in logs[-1].items() if name.startswith("eval_")} if logs else {}


def _facts(
    session: TrainingSession,
    run: TrainingRun,
    evaluation: Evaluation,
    shift: float | None,
    curves: Sequence[str],
) -> ModelCardFacts:
    config, inputs, data = session.config, session.inputs, session.rows.data
    state = run.trainer.state
    best = state.best_global_step if run.trainer.args.load_best_model_at_end else None
    reference = inputs.reference if isinstance(config, ReferenceConfig) else None
    defaults = as_dict(type(config)(model="", data="", out=""), is_flat=True)
    return ModelCardFacts(
        title=session.folder.path.resolve().name,
        method=session.method,
        base_model=session.model_name,
        base_fingerprint=inputs.source.fingerprint,
        source=Path(data.name).name if Path(data.name).is_absolute() else data.name,
        source_sha256=data.content_sha256,
        kind=data.kind,
        labels=config.labels,
        filtered=data.filtered,
        split=data.split,
        command=session.command,
        seed=config.seed,
        versions=session.versions,
        steps=state.global_step,
        epochs=state.global_step * config.optimization.batch_size / len(run.train),
        tokens=round(tokens_of(run.train) * state.global_step * config.optimization.batch_size / len(run.train)),
        skipped=len(data.failures),
        joined=data.joined,
        origin=inputs.origin,
        truncation=session.rows.truncation,
        settings={
            name: value
            for name, value in as_dict(config, is_flat=True).items()
            if value != defaults[name] and name not in {"model", "data", "out", "seed", "labels"}
        },
        reference=reference.name if reference is not None else None,
        results=_results(run, evaluation),
        reward_shift=shift,
        curves=tuple(curves),
        has_chat_template=inputs.source.tokenizer.chat_template is not None,
        end_token=_end_token(inputs.source),
        is_adapter=config.adapter.lora_rank is not None and not config.adapter.merge and session.method != "rm",
        best_step=best if best != state.global_step else None,
        seconds=session.seconds,
        device=str(run.trainer.args.device),
        notes=(*run.notes, *([] if session.rows.aux is None else [f"Auxiliary rewards: {session.rows.aux}."])),
    )


def _end_token(source: ModelSource) -> str:
    """Text of the token that ends a response."""
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    return str(source.tokenizer.decode([encoder.completion_ids((Turn("user", "?"),), "")[-1]]))


def _results(run: TrainingRun, evaluation: Evaluation) -> tuple[HeldOutResult, ...]:
    last = _last_metrics(run)
    history: list[dict[str, float]] = run.trainer.state.log_history
    first: dict[str, float] = next((log for log in history if "eval_loss" in log), {})
    results = [HeldOutResult(name.removeprefix("eval_"), value, before=first.get(name)) for name, value in last.items()]
    for section, figures in evaluation.items():
        results += [
            HeldOutResult(f"{section}_{name}", each["value"], each["low"], each["high"], n=each["n"])
            for name, each in figures.items()
            if each["value"] is not None
        ]
    return tuple(results)
