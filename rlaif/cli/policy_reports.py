"""What the texts of `rlaif show` say alike of candidates and of revised responses: what policies wrote, row by row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rlaif.cli.reports import failure_parts, reply_text, titled
from rlaif.engine.explaining import ExplainedCandidates


def policy_text(policy: Mapping[str, Any]) -> str:
    """What `run.json` calls a policy."""
    return f"{policy.get('name')}{' (a demonstration policy)' if policy.get('is_demonstration') else ''}"


def settings_text(settings: Mapping[str, Any]) -> str:
    """The settings that have a value."""
    return ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)


def fault_counts(counts: Mapping[str, Any], faults: Mapping[str, str]) -> list[str]:
    """How many of each fault there are, by its name in `run.json`; none of those that there are not."""
    return [f"{count:,} {word}" for key, word in faults.items() if (count := counts.get(key))]


def draw_text(seed: int | None) -> str:
    """How a text was sampled."""
    return "greedy" if seed is None else f"seed {seed}"


def written_report(
    known: ExplainedCandidates,
    *,
    missing: str,
    texts_of: Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]],
    replies: str,
) -> str:
    """Everything known of one row; its replies, where the row is not written.

    Args:
        known: The row, its replies in the journal and its failures.
        missing: What the row does not have where it is not written, such as "no chain".
        texts_of: The row's texts after its prompt, each under its title.
        replies: Which replies the journal has, where the row is written.
    """
    parts = [f"----- row {known.id} -----"]
    if known.row is None:
        parts.append(f"{missing}: the row failed, or is not written yet")
        parts += [titled(f"{stage}: reply", reply_text(reply)) for stage, reply in known.replies]
    else:
        parts += [titled(title, text) for title, text in (*_prompt_texts(known.row["prompt"]), *texts_of(known.row))]
        parts.append(f"replies in the journal: {replies}")
    return "\n\n".join([*parts, *failure_parts(known.failures)])


def _prompt_texts(prompt: Any) -> Iterator[tuple[str, str]]:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    yield from ((f"prompt, {turn['role']}", turn["content"]) for turn in turns)
