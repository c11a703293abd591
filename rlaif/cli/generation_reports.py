"""The texts of `rlaif show run` and `rlaif show row` for candidates, made of what the engine knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif.cli.reports import failure_lines, failure_parts, reply_text, rows_line, spent_of_run, titled
from rlaif.cli.runs import aligned, nearby
from rlaif.engine.explaining import ExplainedCandidates


def generation_report(folder: Path, known: Mapping[str, Any]) -> str:
    """What a run of `rlaif generate` did.

    Args:
        folder: Its folder.
        known: Its `run.json`.
    """
    config, counts = known.get("config") or {}, known.get("counts") or {}
    sampling = config.get("sampling") or {}
    names = ("keep_duplicates" if config.get("keep_duplicates") else "near_duplicate", "pairs", "seed")
    settings = {**sampling, "drop": " and ".join(config.get("drop") or ()) or None}
    settings |= {name: config.get(name) for name in names}
    shown = [f"{name} {value}" for name, value in settings.items() if value is not None]
    by_policy = counts.get("by_policy") or {}
    lines = [
        ("run", f"{nearby(folder)} ({known.get('status')})"),
        ("command", str(known.get("repeat") or "not recorded")),
        *[("policy", _policy(policy, by_policy.get(policy.get("name")))) for policy in known.get("policies") or ()],
        ("settings", ", ".join(shown)),
        ("input", str(config.get("input"))),
        ("rows", rows_line(counts, "answered")),
        ("comparisons", f"{counts.get('comparisons', 0):,}"),
        *spent_of_run(known),
    ]
    return "\n".join([aligned(lines), *failure_lines(folder)])


def _policy(policy: Mapping[str, Any], counts: Mapping[str, Any] | None) -> str:
    name = f"{policy.get('name')}{' (a demonstration policy)' if policy.get('is_demonstration') else ''}"
    if not counts:
        return name
    parts = [f"{counts.get('sampled', 0):,} sampled", f"{counts.get('kept', 0):,} kept"]
    if dropped := counts.get("dropped"):
        parts.append(f"left out {', '.join(f'{count:,} {reason}' for reason, count in dropped.items())}")
    faults = {"empty": "empty", "cut_off": "cut off"}
    parts += [f"{count:,} {word}" for key, word in faults.items() if (count := counts.get(key))]
    return f"{name}: {'; '.join(parts)}"


def candidates_report(known: ExplainedCandidates) -> str:
    """Everything known of one row of candidates; its replies, where the row is not written."""
    parts = [f"----- row {known.id} -----"]
    if known.row is None:
        parts.append("no candidates: the row failed, or is not written yet")
        parts += [titled(f"{stage}: reply", reply_text(reply)) for stage, reply in known.replies]
    else:
        parts += [titled(title, text) for title, text in _texts_of(known.row)]
        parts.append(f"replies in the journal: {', '.join(reply.stage for reply in known.replies) or 'none'}")
    return "\n\n".join([*parts, *failure_parts(known.failures)])


def _texts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    prompt = row["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    yield from ((f"prompt, {turn['role']}", turn["content"]) for turn in turns)
    columns = (row["responses"], row["policies"], row["finish_reasons"], row["seeds"])
    for number, (text, policy, reason, seed) in enumerate(zip(*columns, strict=True), 1):
        yield f"response {number}: {policy}, {_draw(seed)}, finish reason {reason}", text
    for each in row["dropped"]:
        why = f"{each['reason']}{' ' if each['detail'] else ''}{each['detail']}"
        yield f"left out ({why}): {each['policy']}, {_draw(each['seed'])}", each["response"]


def _draw(seed: int | None) -> str:
    return "greedy" if seed is None else f"seed {seed}"
