"""What a dataset card is told, and the words it uses: of labels of comparisons, or of ratings of responses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.data.statistics import LabelStatistics, RatingStatistics

if TYPE_CHECKING:
    from rlaif.calibration import Calibration


class Words(NamedTuple):
    """What a card calls things: a label of a comparison, or a rating of a response."""

    label: str
    made: str
    judged: str
    answers: str
    tags: tuple[str, ...]


LABELS = Words("label", "labeled", "comparison", "two labels", ("preference", "ai-feedback", "soft-labels"))
RATINGS = Words("rating", "rated", "response", "ten scores", ("ai-feedback", "ratings"))


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        judges: `BACKEND:MODEL` of each judge.
        is_demonstration: A judge is the built-in one, whose labels are for trying things out.
        task: The task or the template's file name.
        template_fingerprint: SHA-256 of the prompt template and all it includes; None where all judges are reward
            models, which get no prompt.
        settings: Further settings of the judge that can change a label, in the order to show: name -> value.
        constitution, constitution_fingerprint: Name and fingerprint; None without one.
        principles: (id, text) of all the constitution's.
        own_weights: Principle -> weight, as the constitution says; empty where all weigh the same.
        principle_choice: What `--principles` was.
        weights: Principle -> weight, where `rlaif reweight` gave them; else they were averaged by the constitution's.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        failed: Rows in `failures.jsonl`.
        statistics: Counts over the labels, or over the ratings: which of the two decides what card it is.
        prompt_tokens, completion_tokens: All calls together.
        cost_usd: At the prices given; None when none were.
        seconds: Wall time of the run, all sessions together; None when unknown.
        command: What makes the folder again.
        version: Of rlaif.
        example: A row as written; None when there is none.
        columns: Names of all columns, in their order.
        calibration: What the labels were calibrated with; None where they are the judge's own.
        reward_models: Those of the judges that are reward models.
        derived_from: The run whose labels these were made from, without a call; None for a run that asked a judge.
    """

    title: str
    judges: tuple[str, ...]
    task: str
    template_fingerprint: str | None
    source: str
    source_sha256: str
    statistics: LabelStatistics | RatingStatistics
    command: str
    version: str
    is_demonstration: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    constitution: str | None = None
    constitution_fingerprint: str | None = None
    principles: tuple[tuple[str, str], ...] = ()
    own_weights: Mapping[str, float] = field(default_factory=dict)
    principle_choice: str = "all"
    weights: Mapping[str, float] = field(default_factory=dict)
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float | None = None
    example: Mapping[str, Any] | None = None
    columns: tuple[str, ...] = ()
    calibration: Calibration | None = None
    reward_models: tuple[str, ...] = ()
    derived_from: str | None = None

    @property
    def words(self) -> Words:
        """What it calls things."""
        return LABELS if isinstance(self.statistics, LabelStatistics) else RATINGS

    @property
    def is_wordless(self) -> bool:
        """Whether all judges are reward models."""
        return self.template_fingerprint is None

    @property
    def is_sampled(self) -> bool:
        """Whether probabilities are shares of samples."""
        return self.settings.get("scoring") == "sample"
