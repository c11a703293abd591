"""The texts of `rlaif show run` and `rlaif show row`, made of what the engine knows."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif.cli.progress import duration, money
from rlaif.cli.runs import aligned, nearby, statistics_lines
from rlaif.cli.terminal import one_line
from rlaif.engine.explaining import ExplainedCall, Explanation
from rlaif.engine.journal import Refusal
from rlaif.engine.kinds import RUNS
from rlaif.errors import RunFolderError
from rlaif.judge.config import PANEL_SETTINGS
from rlaif.records import RATING_LABELS, CandidateLogprobs, Candidates, Comparison, Failure, NamedRating, Reply, Reward

_PRINCIPLES = ("constitution", "principles")


def run_report(folder: Path, known: Mapping[str, Any]) -> str:
    """What a run did.

    Args:
        folder: Its folder.
        known: Its `run.json`.
    """
    config, counts = (known.get(name) or {} for name in ("config", "counts"))
    judging = config.get("judging", {})
    kind = RUNS[known["command"]].kind
    elsewhere = ("task", *_PRINCIPLES, *kind.unused)
    judges = known.get("judges", [])
    asks_words = not judges or any(not judge.get("is_reward_model") for judge in judges)
    names = [name for name in (judging if asks_words else PANEL_SETTINGS) if name not in elsewhere]
    settings = [f"{name} {judging.get(name)}" for name in names]
    principles = ": ".join(str(judging[name]) for name in _PRINCIPLES) if judging.get("constitution") else "none"
    calibration, origin = known.get("calibration"), known.get("derived_from")
    weights = (known.get("decisive") or {}).get("weights")
    lines = [
        ("run", f"{nearby(folder)} ({known.get('status')})"),
        ("command", str(known.get("repeat") or "not recorded")),
        *[("judge", _judge(judge)) for judge in judges],
        *([("task", str(judging.get("task"))), ("principles", principles)] if asks_words else []),
        *([("weights", ", ".join(f"{name} {weight:g}" for name, weight in weights.items()))] if weights else []),
        ("settings", ", ".join([*settings, f"seed {config.get('seed')}"])),
        *([("calibration", _calibration(calibration))] if calibration else []),
        ("input", str(config.get("input"))),
        *([("made from", f"the labels of {origin['run']}, without a call")] if origin else []),
        *[("filter", _filter(each)) for each in counts.get("filters") or ()],
        ("rows", rows_line(counts, kind.done)),
        *statistics_lines(counts),
        *spent_of_run(known),
    ]
    return "\n".join([aligned(lines), *failure_lines(folder)])


def rows_line(counts: Mapping[str, Any], done: str) -> str:
    """How many rows of a run were done."""
    rows, failed, of = (f"{counts.get(name, 0):,}" for name in ("rows", "failures", "input"))
    return f"{rows} {done}, {failed} failed, of {of}"


def spent_of_run(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run took, by its `run.json`."""
    calls, tokens, versions = (known.get(name) or {} for name in ("calls", "tokens", "versions"))
    asked, replayed, retries = (f"{calls.get(name, 0):,}" for name in ("asked", "replayed", "retries"))
    tokens_in, tokens_out = (f"{tokens.get(name, 0):,}" for name in ("prompt_tokens", "completion_tokens"))
    cost = known.get("cost_usd")
    return [
        ("calls", f"{asked} in the last session, {replayed} from the journal, {retries} retries"),
        ("tokens", f"{tokens_in} in, {tokens_out} out"),
        ("cost", money(cost) if cost is not None else "unknown (no --price was given)"),
        ("time", f"{duration(known.get('seconds_total', 0.0))}, last started {known.get('started_at')}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]


def _calibration(calibration: Mapping[str, Any]) -> str:
    numbers = {"temperature": "temperature", "slot_bias": "slot bias", "length_slope": "length slope"}
    shown = [f"{title} {calibration[name]:.4g}" for name, title in numbers.items()]
    return f"{', '.join(shown)} (the figures below are of the judge's own labels)"


def _filter(count: Mapping[str, Any]) -> str:
    asked = "" if count["asked"] is True else f" {count['asked']}"
    return f"{count['filter']}{asked}: {count['dropped']:,} dropped of {count['before']:,}"


def _judge(judge: Mapping[str, Any]) -> str:
    kind = " (a reward model)" if judge.get("is_reward_model") else ""
    return f"{judge.get('name')}{' (a demonstration judge)' if judge.get('is_demonstration') else kind}"


def failure_lines(folder: Path) -> list[str]:
    """How many rows failed with which error, each with its first example."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for failure in _failures(folder / "failures.jsonl"):
        name, _, message = str(failure.get("error")).partition(": ")
        counts[name] += 1
        examples.setdefault(name, f"{failure.get('id')} ({failure.get('stage')}): {message}")
    if not counts:
        return []
    shown = [f"  {count:,} x {name}, such as {one_line(examples[name])}" for name, count in counts.most_common()]
    return ["", "failures", *shown]


def _failures(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error


def label_of(folder: Path, row_id: str) -> dict[str, Any] | None:
    """The row of the dataset with this id; None when it failed or is not written yet.

    Raises:
        RunFolderError: A shard cannot be read.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    for shard in sorted((folder / "data").glob("*.parquet")):
        try:
            found = parquet.read_table(shard, filters=[("id", "=", row_id)])
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise RunFolderError(f"{shard}: cannot be read ({error}); was it written by rlaif?") from error
        if found.num_rows:
            row: dict[str, Any] = found.to_pylist()[0]
            return row
    return None


def row_report(explanation: Explanation, label: Mapping[str, Any] | None, *, is_principle_sampled: bool = False) -> str:
    """Everything known of one row.

    Args:
        explanation: Its prompts, replies and readings.
        label: Its row of the dataset; None when there is none.
        is_principle_sampled: Column `principle` is the run's own, the one drawn; else it is the user's, if there.
    """
    row = explanation.row
    parts = [titled(f"row {row.id}", _people(row))] if isinstance(row, Comparison) else [f"----- row {row.id} -----"]
    parts += [titled(f"prompt, {turn.role}", turn.content) for turn in row.prompt]
    parts += [titled(name, text) for name, text in _responses(row)]
    parts.append(titled("label", _label(row, label, is_principle_sampled=is_principle_sampled)))
    if isinstance(row, Comparison) and row.response_a == row.response_b:
        parts.append("The responses are the same: 0.5, and no judge was asked.")
    parts += [_call(call) for call in explanation.calls]
    return "\n\n".join([*parts, *failure_parts(explanation.failures)])


def failure_parts(failures: Sequence[Failure]) -> list[str]:
    """Why a row failed, each time that it did, as a part of what is shown of it."""
    lines = [f"{one.stage}: {one.error} (attempts: {one.attempts})" for one in failures]
    return [titled("failures, oldest first", "\n".join(lines))] if lines else []


def _people(comparison: Comparison) -> str:
    human = comparison.human_label.value if comparison.human_label else "none"
    votes = f" (votes: {', '.join(vote.value for vote in comparison.human_votes)})" if comparison.human_votes else ""
    return f"human label: {human}{votes}"


def _responses(row: Comparison | Candidates) -> list[tuple[str, str]]:
    if isinstance(row, Comparison):
        return [("response A", row.response_a), ("response B", row.response_b)]
    if row.is_single:
        return [("response", row.responses[0])]
    return [(f"response {number}", response) for number, response in enumerate(row.responses, 1)]


_OF_COMPARISON = (
    "prob_a", "prob_a_ab", "prob_a_ba", "raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba", "label_mass_ab",
    "label_mass_ba", "is_bounded", "chosen_prob", "is_tie", "missing_judges", "unreadable_samples",
)  # fmt: skip
_OF_CANDIDATES = (
    "rating", "reward", "label_mass", "rating_probs", "ratings", "rewards", "label_masses", "is_bounded",
    "missing_judges", "unreadable_samples",
)  # fmt: skip
"""Our columns of a row's label; under the other kind's names stand columns of the user's, if any."""


def _label(row: Comparison | Candidates, label: Mapping[str, Any] | None, *, is_principle_sampled: bool) -> str:
    if label is None:
        return "none: the row failed, or is not labeled yet"
    ours = _OF_COMPARISON if isinstance(row, Comparison) else _OF_CANDIDATES
    columns = (*ours, "principle") if is_principle_sampled else ours
    lines = [(name, _value(label[name])) for name in columns if label.get(name) is not None]
    is_single = isinstance(row, Comparison) or row.is_single
    for several in ("by_principle", "by_judge"):
        of_responses = label.get(several) or ()
        for number, named in enumerate([of_responses] if is_single else of_responses, 1):
            place = "" if is_single else f"response {number}, "
            lines += [(f"{place}{several[3:]} {one['name']}", _probabilities(one)) for one in named]
    return aligned(lines)


def _probabilities(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in named.items() if isinstance(value, float))


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"[{_value(one)}]" if isinstance(one, list) else _value(one) for one in value) or "none"
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _call(call: ExplainedCall) -> str:
    parts = []
    for step, exchange in enumerate(call.exchanges, 1):
        title = call.stage if len(call.exchanges) == 1 else f"{call.stage}, step {step}"
        parts += [titled(f"{title}: {message.role} message", message.content) for message in exchange.request.messages]
        parts.append(titled(f"{title}: reply", reply_text(exchange.reply)))
    parts.append(titled(f"{call.stage}: reading", _reading(call)))
    return "\n\n".join(parts)


def reply_text(reply: Reply | Refusal | None) -> str:
    """A reply of the journal; None where it has none."""
    if reply is None:
        return "none in the journal"
    if isinstance(reply, Refusal):
        return f"refused: {reply.words}"
    if isinstance(reply, CandidateLogprobs):
        tokens = [f"{one.token!r} {math.exp(one.logprob):.6f}" for one in reply.tokens]
        return f"next token: {', '.join(tokens)}{'' if reply.is_exhaustive else ' (others not returned)'}"
    if isinstance(reply, Reward):
        return f"reward {reply.value:.6f}"
    return f"{reply.text}\n(finish reason: {reply.finish_reason})"


def _reading(call: ExplainedCall) -> str:
    if call.error is not None:
        return call.error
    reading = call.reading
    if reading is None:
        return "none: a reply is missing"
    if reading.reward is not None:
        return f"reward {reading.reward:.6f}"
    if reading.probs is None:
        return "the sample states no label"
    mass = f", label mass {reading.label_mass:.6f}" if reading.label_mass is not None else ""
    if len(reading.probs) == len(RATING_LABELS):
        said = f"rating {NamedRating('', reading.probs).rating:.6f} (1 to 10: {_value(list(reading.probs))})"
    else:
        said = f"P(first slot preferred) {reading.probs[0]:.6f}"
    return f"{said}{mass}{' (bounded)' if reading.is_bounded else ''}"


def titled(title: str, text: str) -> str:
    """A text under a line that says what it is."""
    return f"----- {title} -----\n{text}"
