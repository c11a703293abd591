"""What can be said of a run's revisions: how many rounds came to something, by which principles, and how much longer
responses became; of a judge, whether it prefers the longer ones only. One pass."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rlaif.data.statistics import Moments
from rlaif.policy_records import RAN_ON, RevisionChain, Sample
from rlaif.records import CUT_OFF, Verdict, verdict_of


@dataclass
class TextCounts:
    """Counts over critiques, or over revisions.

    Attributes:
        asked: Times one was asked for.
        empty, refused: Those without text, and those the provider refused.
        cut_off: Of the others, those that end where the most tokens do.
        ran_on: Those that went on with a next section of the prompt, and are cut before it; empty ones among them.
        lengths: Characters of those with text.
    """

    asked: int = 0
    empty: int = 0
    refused: int = 0
    cut_off: int = 0
    ran_on: int = 0
    lengths: Moments = field(default_factory=Moments)

    def add(self, sample: Sample) -> None:
        """Count one more."""
        self.asked += 1
        self.ran_on += sample.finish_reason == RAN_ON
        if sample.refusal is not None:
            self.refused += 1
        elif not sample.text:
            self.empty += 1
        else:
            self.cut_off += sample.finish_reason == CUT_OFF
            self.lengths.add(len(sample.text))

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`."""
        return {
            "asked": self.asked,
            "empty": self.empty,
            "refused": self.refused,
            "cut_off": self.cut_off,
            "ran_on": self.ran_on,
            "characters_mean": self.lengths.mean,
        }


@dataclass
class LengthConfound:
    """How much longer revisions are, in characters: what a preference for them may rest on.

    Attributes:
        longer, shorter, same: Last revisions that are longer than the initial response, shorter, or as long.
        unchanged: Of those as long, the ones with the same text; whitespace around it does not count.
        log_ratios: log(characters of the revision / of the initial response), where neither is empty.
    """

    longer: int = 0
    shorter: int = 0
    same: int = 0
    unchanged: int = 0
    log_ratios: Moments = field(default_factory=Moments)

    def add(self, initial: str, revision: str) -> None:
        """Count one more response with its last revision."""
        before, after = len(initial.strip()), len(revision.strip())
        self.longer += after > before
        self.shorter += after < before
        self.same += after == before
        self.unchanged += revision.strip() == initial.strip()
        if before and after:
            self.log_ratios.add(math.log(after / before))

    @property
    def count(self) -> int:
        """Responses with a revision."""
        return self.longer + self.shorter + self.same

    @property
    def longer_share(self) -> float | None:
        """Share of revisions that are longer; None without any."""
        return self.longer / self.count if self.count else None

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {
            "n": self.count,
            "longer": self.longer,
            "shorter": self.shorter,
            "same_length": self.same,
            "unchanged": self.unchanged,
            "longer_share": self.longer_share,
            "log_ratio_mean": self.log_ratios.mean,
        }


@dataclass
class RevisionStatistics:
    """Counts over the chains of a run.

    Attributes:
        rows: Chains.
        brought: Those whose initial response the input brought.
        initial_cut_off: Initial responses of the policy that end where the most tokens do.
        unrevised: Chains without a usable revision.
        ended_early: Chains that end before the last round, since a revision was empty or refused.
        by_principle: Id -> rounds it was drawn for.
    """

    rounds_wanted: int
    rows: int = 0
    brought: int = 0
    initial_cut_off: int = 0
    unrevised: int = 0
    ended_early: int = 0
    critiques: TextCounts = field(default_factory=TextCounts)
    revisions: TextCounts = field(default_factory=TextCounts)
    by_principle: Counter[str] = field(default_factory=Counter)
    lengths: LengthConfound = field(default_factory=LengthConfound)

    def add(self, chain: RevisionChain) -> None:
        """Count one more row's chain."""
        self.rows += 1
        self.brought += chain.sample is None
        self.initial_cut_off += chain.sample is not None and chain.sample.is_cut_off
        for each in chain.rounds:
            self.critiques.add(each.critique)
            self.revisions.add(each.revision)
            self.by_principle[each.requests.principle] += 1
        usable = chain.usable
        self.unrevised += not usable
        self.ended_early += len(usable) < self.rounds_wanted
        if usable:
            self.lengths.add(chain.initial, usable[-1].revision.text)

    def as_json(self) -> dict[str, Any]:
        """The counts as they stand in `run.json`."""
        return {
            "rows": self.rows,
            "initial_from_input": self.brought,
            "initial_cut_off": self.initial_cut_off,
            "unrevised": self.unrevised,
            "ended_early": self.ended_early,
            "critiques": self.critiques.as_json(),
            "revisions": self.revisions.as_json(),
            "by_principle": dict(sorted(self.by_principle.items())),
            "length": self.lengths.as_json(),
        }


@dataclass
class Preference:
    """What a judge makes of some revisions.

    Attributes:
        count: How many it compared with their initial response.
        preferred: Those it prefers; a tie counts half.
        probs: P(revision preferred).
    """

    count: int = 0
    preferred: float = 0.0
    probs: Moments = field(default_factory=Moments)

    def add(self, prob: float) -> None:
        """Count one more, with P(revision preferred)."""
        self.count += 1
        self.preferred += {Verdict.A: 1.0, Verdict.TIE: 0.5, Verdict.B: 0.0}[verdict_of(prob)]
        self.probs.add(prob)

    @property
    def share(self) -> float | None:
        """Share that it prefers; None without any."""
        return self.preferred / self.count if self.count else None

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {"n": self.count, "share": self.share, "prob_mean": self.probs.mean}


@dataclass
class RevisionPreference:
    """A judge's preference for revisions: of all, and of those that are longer or shorter than the initial response.
    Unchanged ones are left out."""

    overall: Preference = field(default_factory=Preference)
    where_longer: Preference = field(default_factory=Preference)
    where_shorter: Preference = field(default_factory=Preference)

    def add(self, initial: str, revision: str, prob_revision: float) -> None:
        """Count one more comparison, with P(revision preferred)."""
        if initial.strip() == revision.strip():
            return
        self.overall.add(prob_revision)
        before, after = len(initial.strip()), len(revision.strip())
        if after != before:
            (self.where_longer if after > before else self.where_shorter).add(prob_revision)

    def as_json(self) -> dict[str, Any]:
        """The figures as they stand in `run.json`."""
        return {
            "overall": self.overall.as_json(),
            "where_longer": self.where_longer.as_json(),
            "where_shorter": self.where_shorter.as_json(),
        }
