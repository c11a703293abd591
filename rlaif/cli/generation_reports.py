"""The texts of `rlaif show run` and `rlaif show row` for candidates, made of what the engine knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif.cli.policy_reports import draw_text, fault_counts, policy_text, settings_text, written_report
from rlaif.cli.reports import failure_lines, rows_line, spent_of_run
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
    by_policy = counts.get("by_policy") or {}
    lines = [
        ("run", f"{nearby(folder)} ({known.get('status')})"),
        ("command", str(known.get("repeat") or "not recorded")),
        *[("policy", _policy(policy, by_policy.get(policy.get("name")))) for policy in known.get("policies") or ()],
        ("settings", settings_text(settings)),
        ("input", str(config.get("input"))),
        ("rows", rows_line(counts, "answered")),
        ("comparisons", f"{counts.get('comparisons', 0):,}"),
        *spent_of_run(known),
    ]
    return "\n".join([aligned(lines), *failure_lines(folder)])


def _policy(policy: Mapping[str, Any], counts: Mapping[str, Any] | None) -> str:
    name = policy_text(policy)
    if not counts:
        return name
    parts = [f"{counts.get('sampled', 0):,} sampled", f"{counts.get('kept', 0):,} kept"]
    if dropped := counts.get("dropped"):
        parts.append(f"left out {', '.join(f'{count:,} {reason}' for reason, count in dropped.items())}")
    parts += fault_counts(counts, {"empty": "empty", "cut_off": "cut off"})
    return f"{name}: {'; '.join(parts)}"


def candidates_report(known: ExplainedCandidates) -> str:
    """Everything known of one row of candidates; its replies, where the row is not written."""
    replies = ", ".join(reply.stage for reply in known.replies) or "none"
    return written_report(known, missing="no candidates", texts_of=_texts_of, replies=replies)


def _texts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    columns = (row["responses"], row["policies"], row["finish_reasons"], row["seeds"])
    for number, (text, policy, reason, seed) in enumerate(zip(*columns, strict=True), 1):
        yield f"response {number}: {policy}, {draw_text(seed)}, finish reason {reason}", text
    for each in row["dropped"]:
        why = f"{each['reason']}{' ' if each['detail'] else ''}{each['detail']}"
        yield f"left out ({why}): {each['policy']}, {draw_text(each['seed'])}", each["response"]
