"""Labels by other weights of the principles, from a run that kept each principle's label. Asks nothing.

What comes out is what the judge would have been made to say by a constitution with these weights: the same means in the
same order, then the run's calibration and clamp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif.data.shards import column_values, read_schema
from rlaif.engine.calibrating import calibration_in
from rlaif.engine.labeling import finish
from rlaif.engine.listening import Listener, SilentListener
from rlaif.engine.relabeling import FinishedRun, Relabeling, RelabelOutcome, finished_run, relabel
from rlaif.engine.reweight_config import ReweightConfig
from rlaif.errors import ConfigError, RunFolderError, did_you_mean
from rlaif.judge.constitutions import choose_principles
from rlaif.judge.scoring import mean_label
from rlaif.records import Judgment, SoftLabel

_ASK_ALL = "rlaif label --constitution NAME --principles all asks every principle and keeps each one's answer"


@dataclass(frozen=True)
class ReweightOutcome:
    """What was written.

    Attributes:
        labels: The new run; compared with the labels of the old one.
        weights: Principle -> weight, of all principles that the run was judged by, in their order.
    """

    labels: RelabelOutcome
    weights: Mapping[str, float]


def reweight_run(config: ReweightConfig, listener: Listener | None = None, *, command: str = "") -> ReweightOutcome:
    """`rlaif reweight`: new labels from a finished run whose rows hold `by_principle`.

    The label is the mean of the principles' labels by the weights; where the run is calibrated or clamped, so is the
    new label. A panel's `by_judge` is left out: a run keeps no judge's label under a single principle. Rows that no
    judge was asked about, with identical responses, stay at 0.5.

    Args:
        config: Which run, which weights, where to.
        listener: Warned where a calibration may not suit the new weights.
        command: How a person would repeat this, for `run.json` and the card.

    Raises:
        RunFolderError: The input is no finished run, or was not judged by several principles at once, or the output
            folder holds something else.
        ConfigError: A weight is of no principle of the run's, or no weight is above 0.
    """
    listener = listener or SilentListener()
    run = finished_run(Path(config.input))
    weights = weights_for(run, config.weights)
    calibration = calibration_in(run.known)
    if calibration is not None:
        listener.on_warning(
            f"{config.input} is calibrated, and so are the new labels; its calibration was fitted to labels by other "
            "weights, and its numbers may not hold for these"
        )

    def change(judgment: Judgment, row: Mapping[str, Any]) -> Judgment:
        own = replace(judgment, label=_label_by(weights, judgment, row), raw_label=None, by_judge=())
        return finish(own, row["response_a"], row["response_b"], run.config.judging, calibration)

    relabeling = Relabeling(
        "reweight",
        change,
        {"weights": weights},
        calibration,
        before=lambda judgment: judgment.label,
        left_out=("by_judge",),
    )
    return ReweightOutcome(relabel(run, Path(config.out), relabeling, changed={}, command=command), weights)


def weights_for(run: FinishedRun, given: Mapping[str, float]) -> dict[str, float]:
    """The weight of each principle that a run was judged by, in the run's order: as given, or what it was in the run.

    Raises:
        RunFolderError: The run was not judged by several principles at once.
        ConfigError: A weight is of no principle of the run's; one that is not given is not known any more; or none is
            above 0.
    """
    principles = _principles_of(run)
    for name in given:
        if name not in principles:
            raise ConfigError(
                f"weights: {run.folder.path} has no principle {name!r}{did_you_mean(name, principles)}; "
                f"known: {', '.join(principles)}"
            )
    before = _weights_in(run)
    if unknown := [name for name in principles if name not in given and name not in before]:
        raise ConfigError(
            f"weights: {', '.join(unknown)}: not given, and what it was in {run.folder.path} cannot be told, as "
            f"{run.config.judging.constitution} is gone or another by now; give all of: {', '.join(principles)}"
        )
    weights = {name: given[name] if name in given else before[name] for name in principles}
    if not any(weights.values()):
        raise ConfigError(f"weights: all are 0, expected one above 0 at least, of: {', '.join(principles)}")
    return weights


def _principles_of(run: FinishedRun) -> tuple[str, ...]:
    """Ids of the principles that every row was judged by.

    Raises:
        RunFolderError: There are none, or one alone.
    """
    path, judging = run.folder.path, run.config.judging
    if "by_principle" not in read_schema(path)[0].names:
        if judging.constitution is None:
            found = "was judged without a constitution, so there are no principles to weigh"
        elif judging.principles == "sample":
            found = "was judged by one principle a row, drawn from the seed, so there is nothing to weigh it against"
        else:
            found = "was judged by one principle alone, so there is nothing to weigh it against"
        raise RunFolderError(f"{path}: {found}; {_ASK_ALL}")
    labels: Iterable[Sequence[Mapping[str, Any]] | None] = column_values(path, "by_principle")
    if first := next((each for each in labels if each), None):
        return tuple(str(each["name"]) for each in first)
    if weights := _weights_in(run):  # no row was asked about
        return tuple(weights)
    raise RunFolderError(f"{path}: no row was judged by a principle, so there is nothing to weigh")


def _weights_in(run: FinishedRun) -> dict[str, float]:
    """The weights of a run's principles; empty where its constitution is gone or another by now."""
    if weights := run.known["decisive"].get("weights"):
        return {str(name): float(weight) for name, weight in weights.items()}
    if (constitution := run.constitution) is None:
        return {}
    chosen = choose_principles(constitution, run.config.judging.principles, seed=run.config.seed, row_id="")
    return {principle.id: principle.weight for principle in chosen}


def _label_by(weights: Mapping[str, float], judgment: Judgment, row: Mapping[str, Any]) -> SoftLabel:
    """The judge's own label under these weights."""
    if judgment.calls == 0:
        return judgment.own_label
    labels = {each.name: each.label for each in judgment.by_principle}
    if labels.keys() != weights.keys():
        raise RunFolderError(
            f"row {row['id']}: by_principle holds {', '.join(labels) or 'nothing'}, expected {', '.join(weights)}; was "
            "the run changed since?"
        )
    return mean_label([labels[name] for name in weights], list(weights.values()))
