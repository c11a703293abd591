"""Settings of `rlaif rank`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from rlaif.engine.config import SourceConfig
from rlaif.records import TIE_BAND


@dataclass(frozen=True)
class RankConfig:
    """`rlaif rank`: which policy writes better responses, and which of a prompt's candidates is best."""

    input: str
    """A run folder of rlaif label or rlaif rate, or rows with prob_a or with ratings: the file types of rlaif label."""

    out: str
    """Run folder to write."""

    by_columns: str | None = None
    """Columns that name who wrote A and who wrote B, joined by a comma; of ratings, the one that names who wrote what
    is rated (default: policy_a,policy_b; or policies, or policy)."""

    cluster: str | None = None
    """Column whose equal values belong together in the intervals (default: rows of one prompt)."""

    tie_band: Annotated[float, "0 to 1"] = TIE_BAND
    """A probability this close to 0.5 is a tie; so are two identical responses."""

    resamples: Annotated[int, "at least 100"] = 2000
    """Bootstrap resamples behind the intervals."""

    elo_k: Annotated[float, "above 0"] = 16.0
    """Step of the online Elo, in points."""

    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw."""

    @property
    def by(self) -> tuple[str, ...] | None:
        """The columns of `by_columns`; None for the usual ones."""
        return None if self.by_columns is None else tuple(part.strip() for part in self.by_columns.split(","))

    def __post_init__(self) -> None:
        if self.by is not None and not all(self.by):
            raise ValueError(f"by_columns: {self.by_columns!r}, expected names of columns, joined by a comma")
