"""What finished online training leaves behind: the saved policy, figures, curves, the card."""

from __future__ import annotations

from rlaif.config import as_dict
from rlaif.engine.run_folder import without_queries
from rlaif.engine.training_curves import plot_curves
from rlaif.online.card import OnlineCardFacts, render_card
from rlaif.online.curves import CURVES
from rlaif.online.inputs import judges_of
from rlaif.online.memory import peak_bytes
from rlaif.online.session import OnlineRun, OnlineSession
from rlaif.train.checkpoints import writing
from rlaif.train.models import save_trained
from rlaif.train.values import values_detached


def finish(session: OnlineSession, run: OnlineRun) -> dict[str, float]:
    """Save, draw and describe.

    Returns:
        The figures of the last evaluation; empty without any.
    """
    model = run.trainer.accelerator.unwrap_model(run.trainer.model)
    history = run.trainer.state.log_history
    with writing(session.folder.path), values_detached(model):
        save_trained(model, session.inputs.source.tokenizer, session.folder.path, merge=session.config.adapter.merge)
    curves = plot_curves(history, session.folder.path, method=session.method, which=CURVES)
    metrics = _last(history)
    session.folder.replace("README.md", render_card(_facts(session, run, curves)))
    session.write_run_json(
        "finished",
        steps=run.trainer.state.global_step,
        metrics=metrics,
        signs=[sign._asdict() for sign in run.signs],
        suite=[as_dict(row) for row in run.suite],
        counts=run.counts,
        peak_memory_bytes=peak_bytes(run.trainer.args.device),
        rows={"prompts": len(session.inputs.rows), "watched": len(session.inputs.watched)},
    )
    return metrics


def _last(history: list[dict[str, float]]) -> dict[str, float]:
    """Of the last evaluation."""
    evaluations = [log for log in history if any(name.startswith("eval_") for name in log)]
    return {name: value for name, value in evaluations[-1].items() if name != "epoch"} if evaluations else {}


def _facts(session: OnlineSession, run: OnlineRun, curves: list[str]) -> OnlineCardFacts:
    config, inputs = session.config, session.inputs
    history: list[dict[str, float]] = run.trainer.state.log_history
    evaluations = [log for log in history if any(name.startswith("eval_") for name in log)]
    defaults = as_dict(type(config)(model="", data="", out=""), is_flat=True)
    return OnlineCardFacts(
        title=session.folder.path.resolve().name,
        method=session.method,
        base_model=session.model_name,
        base_fingerprint=inputs.source.fingerprint,
        data=inputs.name,
        data_sha256=inputs.content_sha256,
        prompts=len(inputs.rows),
        watched=len(inputs.watched),
        rewards=session.facts["rewards"],
        judges=judges_of(config),
        watch_judges=config.guarding.watch_judge,
        command=session.facts["repeat"],
        seed=config.seed,
        versions=session.versions,
        steps=run.trainer.state.global_step,
        sizes=session.sizes,
        evaluations=evaluations,
        signs=run.signs,
        suite=run.suite,
        counts=run.counts,
        settings={
            name: list(map(without_queries, value)) if name == "base_url" else value
            for name, value in as_dict(config, is_flat=True).items()
            if value != defaults[name] and name not in {"model", "data", "out", "seed", "reward", "judge"}
        },
        curves=tuple(curves),
        is_adapter=config.adapter.lora_rank is not None and not config.adapter.merge,
        has_chat_template=inputs.source.tokenizer.chat_template is not None,
        seconds=session.seconds,
        device=str(run.trainer.args.device),
        notes=run.notes,
    )
