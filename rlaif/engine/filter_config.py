"""Settings of `rlaif filter`. `filtering.py` reads them."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlaif.data.filtering import FilterOptions
from rlaif.data.selecting import SelectionOptions
from rlaif.engine.config import SourceConfig


@dataclass(frozen=True)
class FilterConfig:
    """`rlaif filter`: the pairs of an input that are worth training on."""

    input: str
    """A finished run folder with labels (of rlaif label, calibrate, reweight, filter), or a file of pairs with prob_a,
    or with chosen and rejected; with --pairs, rated candidates: a run folder of rlaif rate, or a file."""

    out: str
    """Run folder to write."""

    filters: FilterOptions = field(default_factory=FilterOptions)
    selection: SelectionOptions = field(default_factory=SelectionOptions)
    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of every random draw: which candidates rejection sampling accepts, and which of a pair is A."""
