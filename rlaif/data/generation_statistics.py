"""What can be said of a run's responses: how many of each policy, how long, what was left out and why. One pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.statistics import Moments
from rlaif.policy_records import DropReason, Sample, SampledResponses


@dataclass
class PolicyCounts:
    """Counts over the responses of one policy.

    Attributes:
        sampled: Responses it gave, and refusals.
        kept: Those that are candidates.
        dropped: Reason -> responses left out for it.
        empty, cut_off: Of those sampled, the ones without text, and the ones that end where `max_tokens` did.
        lengths: Characters of the candidates.
    """

    sampled: int = 0
    kept: int = 0
    dropped: Counter[DropReason] = field(default_factory=Counter)
    empty: int = 0
    cut_off: int = 0
    lengths: Moments = field(default_factory=Moments)

    def add(self, sample: Sample, reason: DropReason | None) -> None:
        """Count a response; `reason` is why it is left out."""
        self.sampled += 1
        self.empty += not sample.text.strip() and sample.refusal is None
        self.cut_off += sample.is_cut_off
        if reason is None:
            self.kept += 1
            self.lengths.add(len(sample.text))
        else:
            self.dropped[reason] += 1

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`."""
        return {
            "sampled": self.sampled,
            "kept": self.kept,
            "dropped": {reason.value: self.dropped[reason] for reason in DropReason if self.dropped[reason]},
            "empty": self.empty,
            "cut_off": self.cut_off,
            "characters_mean": self.lengths.mean,
        }


@dataclass
class GenerationStatistics:
    """Counts over the candidates of a run: rows, and by policy."""

    rows: int = 0
    by_policy: dict[str, PolicyCounts] = field(default_factory=dict)

    def add(self, sampled: SampledResponses) -> None:
        """Count one more prompt's responses."""
        self.rows += 1
        for sample in sampled.kept:
            self._of(sample).add(sample, None)
        for sample, reason, _ in sampled.dropped:
            self._of(sample).add(sample, reason)

    def _of(self, sample: Sample) -> PolicyCounts:
        return self.by_policy.setdefault(sample.policy, PolicyCounts())

    @property
    def responses(self) -> int:
        """Candidates, of all policies."""
        return sum(counts.kept for counts in self.by_policy.values())

    @property
    def dropped(self) -> Counter[DropReason]:
        """Reason -> responses left out, of all policies."""
        return sum((counts.dropped for counts in self.by_policy.values()), Counter[DropReason]())

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`."""
        return {
            "rows": self.rows,
            "responses": self.responses,
            "by_policy": {policy: counts.as_json() for policy, counts in self.by_policy.items()},
        }
