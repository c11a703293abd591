"""The texts of `rlaif show run` and `rlaif show row` for revised responses, made of what the engine knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlaif.cli.policy_reports import draw_text, fault_counts, policy_text, settings_text, written_report
from rlaif.cli.reports import failure_lines, rows_line, spent_of_run
from rlaif.cli.runs import aligned, nearby
from rlaif.engine.explaining import ExplainedCandidates


def revision_report(folder: Path, known: Mapping[str, Any]) -> str:
    """What a run of `rlaif revise` did.

    Args:
        folder: Its folder.
        known: Its `run.json`.
    """
    config, counts = known.get("config") or {}, known.get("counts") or {}
    settings = {**(config.get("revising") or {}), "labels": config.get("labels"), "seed": config.get("seed")}
    judging, revisions, length = config.get("judging") or {}, counts.get("revisions") or {}, counts.get("length") or {}
    faults = {"cut_off": "cut off", "empty": "empty", "refused": "refused", "ran_on": "ran on"}
    told = [f"{revisions.get('asked', 0):,} asked for", *fault_counts(revisions, faults)]
    drawn = ", ".join(f"{name} {times:,}" for name, times in (counts.get("by_principle") or {}).items())
    preference = counts.get("judge_preference")
    lines = [
        ("run", f"{nearby(folder)} ({known.get('status')})"),
        ("command", str(known.get("repeat") or "not recorded")),
        *[("policy", policy_text(policy)) for policy in known.get("policies") or ()],
        ("principles", f"{judging.get('constitution')}: {judging.get('principles')}{f' ({drawn})' if drawn else ''}"),
        ("settings", settings_text(settings)),
        ("input", str(config.get("input"))),
        ("rows", rows_line(counts, "revised")),
        ("revisions", "; ".join(told)),
        *([("longer", f"{length['longer_share']:.1%} of {length['n']:,} last revisions")] if length.get("n") else []),
        *([("judge", f"prefers {_preferred(preference)}")] if preference else []),
        ("sft", f"{counts.get('sft_rows', 0):,} rows"),
        ("comparisons", f"{counts.get('comparisons', 0):,}"),
        *spent_of_run(known),
    ]
    return "\n".join([aligned(lines), *failure_lines(folder)])


def _preferred(preference: Mapping[str, Any]) -> str:
    words = {"overall": "of all", "where_longer": "of the longer", "where_shorter": "of the shorter"}
    figures = [(words[key], preference.get(key) or {}) for key in words]
    return ", ".join(f"{each['share']:.1%} {name} {each['n']:,}" for name, each in figures if each.get("n")) or "none"


def chain_report(known: ExplainedCandidates) -> str:
    """Everything known of one row of revised responses; its replies, where the row is not written."""
    return written_report(known, missing="no chain", texts_of=_texts_of, replies=f"{len(known.replies):,}")


def _texts_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    reason = row["initial_finish_reason"]
    yield (
        "initial response: " + ("from the input" if reason is None else f"finish reason {reason}"),
        row["initial_response"],
    )
    for number, each in enumerate(row["rounds"], 1):
        yield f"round {number}, principle {each['principle']}: asked for a critique", each["critique_request"]
        yield _title(f"round {number}: critique", each, "critique"), each["critique"]
        yield f"round {number}: asked for a revision", each["revision_request"]
        yield _title(f"round {number}: revision", each, "revision"), each["revision"]


def _title(name: str, of_round: Mapping[str, Any], kind: str) -> str:
    seed = of_round["seeds"][kind == "revision"]
    refusal = of_round[f"{kind}_refusal"]
    why = f" ({refusal})" if refusal else ""
    return f"{name}: {draw_text(seed)}, finish reason {of_round[f'{kind}_finish_reason']}{why}"
