"""Settings of `rlaif export`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from rlaif.data.exporting import EXPORT_FORMATS
from rlaif.data.row_files import extension_of
from rlaif.engine.config import SourceConfig

_REPOSITORY = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


@dataclass(frozen=True)
class HubConfig:
    """Where an export is uploaded to."""

    push_to_hub: str | None = None
    """Upload the files and a card to the data set OWNER/NAME on the Hugging Face hub, made where it is missing; the
    token comes from HF_TOKEN, or from the login of the hub's own tools."""

    private: bool = False
    """Make that data set private; one that is public already is refused."""

    def __post_init__(self) -> None:
        if self.push_to_hub is not None and not _REPOSITORY.fullmatch(self.push_to_hub):
            raise ValueError(f"push_to_hub: {self.push_to_hub!r}, expected OWNER/NAME")
        if self.private and self.push_to_hub is None:
            raise ValueError("private: is of --push-to-hub, which was not given")


@dataclass(frozen=True)
class ExportConfig:
    """`rlaif export`: labeled pairs as rows for another trainer."""

    input: str
    """A run folder with labels (of rlaif label, calibrate, reweight, filter, the comparisons of revise), or a file of
    pairs with prob_a, or with chosen and rejected."""

    format: Literal["trl", "trl-conversational", "openrlhf", "axolotl", "kto", "halos", "hh"]
    """Whose rows to write: trl and hh hold texts, the others messages, and kto what the input's prompts are."""

    out: str
    """File to write: .jsonl, .json or .parquet, the text ones also .gz. With --test-share it becomes two, with .train
    and .test before the extension."""

    labels: Literal["soft", "human"] = "soft"
    """Whose labels say which response was chosen: the judge's, or the share of the human votes (pairs that no person
    labeled are dropped, and counted)."""

    ties: Literal["drop", "keep"] = "drop"
    """Pairs without a preferred side; one that is kept has response A as chosen."""

    margin: bool = False
    """Add the column margin, the logit of chosen_prob, which TRL and OpenRLHF take off the difference of rewards."""

    conversational: bool | None = None
    """Of kto: write prompts and completions as messages (default: where any prompt of the input is messages)."""

    test_share: Annotated[float, "0 to 0.9999"] = 0.0
    """Share of the prompts whose rows go to the test file; all rows of a prompt go together. With the same seed and the
    same share, rlaif train --held-out holds out the same prompts."""

    overwrite: bool = False
    """Replace a file of that name whose content differs."""

    dry_run: bool = False
    """Count what would be written and uploaded, and do neither."""

    hub: HubConfig = field(default_factory=HubConfig)
    source: SourceConfig = field(default_factory=SourceConfig)

    seed: int = 0
    """Seed of the draw of test prompts, and of which of chosen and rejected is called A."""

    def __post_init__(self) -> None:
        chosen = EXPORT_FORMATS[self.format]
        faults = []
        if extension_of(Path(self.out)) not in chosen.extensions:
            allowed = ", ".join(chosen.extensions)
            faults.append(f"out: {self.out!r}, expected a file for {self.format}, with the extension {allowed}")
        if self.margin and not chosen.takes_margin:
            takers = " or ".join(each.name for each in EXPORT_FORMATS.values() if each.takes_margin)
            faults.append(f"margin: {self.format} reads none, expected --format {takers}")
        if self.conversational is not None and self.format != "kto":
            faults.append("conversational: is of --format kto; trl and trl-conversational are formats of their own")
        if self.ties == "keep" and chosen.is_unpaired:
            faults.append(f"ties: a tie has no desirable side for {self.format}, expected drop")
        if faults:
            raise ValueError("; ".join(faults))
