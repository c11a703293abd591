"""Which of a prompt's responses become candidates. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence

from rlaif.errors import NoResponseError
from rlaif.policy_records import DroppedSample, DropReason, Sample, SampledResponses

NearDuplicates = Callable[[Sequence[str]], Sequence[int | None]]
"""For each text the place of the earliest kept text that it nearly equals, or None."""


def select_samples(
    samples: Sequence[Sample], drop: Collection[DropReason], near_duplicates: NearDuplicates | None
) -> SampledResponses:
    """Leave out refusals, what `drop` names, and responses that nearly equal an earlier one.

    Args:
        samples: All policies' responses to one prompt, in the order in which candidates are to stand.
        drop: EMPTY and CUT_OFF, where these are to be left out.
        near_duplicates: Tells which texts nearly equal an earlier one; None keeps all.

    Raises:
        NoResponseError: None is left.
    """
    dropped: list[DroppedSample] = []
    usable: list[Sample] = []
    for sample in samples:
        reason = _fault_of(sample)
        if reason is DropReason.REFUSED or (reason is not None and reason in drop):
            dropped.append(DroppedSample(sample, reason, sample.refusal or ""))
        else:
            usable.append(sample)
    kept: list[Sample] = []
    earlier = [None] * len(usable) if near_duplicates is None else near_duplicates([each.text for each in usable])
    places: dict[int, int] = {}
    for number, (sample, original) in enumerate(zip(usable, earlier, strict=True)):
        if original is None:
            places[number] = len(kept)
            kept.append(sample)
            continue
        is_equal = sample.text == usable[original].text
        reason = DropReason.DUPLICATE if is_equal else DropReason.NEAR_DUPLICATE
        dropped.append(DroppedSample(sample, reason, f"of response {places[original] + 1}"))
    if not kept:
        counts = Counter(f"{each.sample.policy}: {each.reason.value}" for each in dropped)
        found = ", ".join(what if count == 1 else f"{what}, {count} times" for what, count in counts.items())
        raise NoResponseError(f"none of {len(samples)} responses can be used ({found})")
    return SampledResponses(tuple(kept), tuple(dropped))


def _fault_of(sample: Sample) -> DropReason | None:
    if sample.refusal is not None:
        return DropReason.REFUSED
    if not sample.text.strip():
        return DropReason.EMPTY
    return DropReason.CUT_OFF if sample.is_cut_off else None
