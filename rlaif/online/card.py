"""The model card of a policy that was trained online: `README.md`. Pure: facts in, text out. What came from the data,
the policy or the user is never live in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from rlaif.auditing.results import Figure
from rlaif.backends.registry import is_demonstration
from rlaif.data.markdown import code, fence, inline, plain, table
from rlaif.engine.training_card import curves_section, policy_use
from rlaif.engine.training_metrics import shown, title_of

if TYPE_CHECKING:
    from rlaif.online.guard_signs import Sign
    from rlaif.online.inputs import Sizes
    from rlaif.online.suite import SuiteRow

_METHODS = {
    "drlaif": "direct RLAIF: REINFORCE with a value baseline on the reward itself, no reward model in between",
    "reinforce": "REINFORCE: the policy gradient with a baseline",
    "rloo": "RLOO: each completion against the mean of the others of its prompt",
    "grpo": "GRPO: rewards relative to those of the other completions of a prompt",
    "ppo": "PPO: clipped steps with a learnt value",
    "online-dpo": "online DPO: the judge's soft label of two fresh completions",
    "rs-dpo": "RS-DPO: DPO on pairs of its own completions whose scores differ clearly",
    "rso": "RSO: statistical rejection sampling of its own completions, then a pairwise loss",
    "best-of-n": "best of n: imitating the best of its own completions",
}

_TOLD = (
    "reward",
    "watched_reward",
    "win_rate",
    "win_rate_swap_consistent",
    "reward_accuracy",
    "kl",
    "completion_tokens",
)
"""Figures of evaluations that stand in the table."""

_ROWS = 12
"""Evaluations in the table, at most: the first, the last, and some between."""


@dataclass(frozen=True, slots=True)
class OnlineCardFacts:
    """All that the card tells.

    Attributes:
        title, method: The policy's name, and how it was trained.
        base_model, base_fingerprint: What it started from.
        data, data_sha256: What the prompts were called, and the fingerprint of their content.
        prompts, watched: To learn from, and held out.
        rewards: Sources of rewards, as `Scorer.describe` says.
        judges: That they come from.
        watch_judges: Judges that were not trained against.
        command, seed, versions: What makes it again.
        steps, sizes: Optimizer steps, and how many of everything there is in one.
        evaluations: Lines of the log that hold one.
        signs: Of reward hacking.
        suite: Questions before and after.
        counts: What became of completions.
        settings: Those that differ from their defaults.
        curves: Paths of plots.
        is_adapter, has_chat_template: What the folder holds.
        seconds, device: Wall time of all sessions, and where.
        notes: Further sentences.
    """

    title: str
    method: str
    base_model: str
    base_fingerprint: str
    data: str
    data_sha256: str
    prompts: int
    watched: int
    rewards: Mapping[str, Any]
    judges: Sequence[str]
    watch_judges: Sequence[str]
    command: str
    seed: int
    versions: Mapping[str, str]
    steps: int
    sizes: Sizes
    evaluations: Sequence[Mapping[str, float]] = ()
    signs: Sequence[Sign] = ()
    suite: Sequence[SuiteRow] = ()
    counts: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    curves: tuple[str, ...] = ()
    is_adapter: bool = False
    has_chat_template: bool = True
    seconds: float | None = None
    device: str | None = None
    notes: tuple[str, ...] = ()


def render_card(facts: OnlineCardFacts) -> str:
    """The text of `README.md`, with the YAML header that the hub reads."""
    header = {
        "library_name": "peft" if facts.is_adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlaif", "ai-feedback", "online-rl", facts.method],
    }
    sections = [
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---",
        f"# {inline(facts.title)}",
        _introduction(facts),
        policy_use(facts.base_model, facts.is_adapter),
        _watched_section(facts),
        _signs_section(facts),
        _suite_section(facts),
        curves_section(facts.curves),
        _training_section(facts),
        f"## How to make it again\n\n{fence(facts.command, 'sh')}\n\nThe same command on this folder resumes or "
        "confirms the run. `run.json` holds all settings, `metrics.jsonl` every figure that was logged, `rollouts/` "
        "completions with their rewards.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _introduction(facts: OnlineCardFacts) -> str:
    sources = ", ".join(
        code(name) + ("" if each["weight"] == 1 else f" (times {each['weight']:g})")
        for name, each in facts.rewards.items()
    )
    judges = facts.judges
    text = (
        f"A language model trained on its own completions with {_METHODS[facts.method]}. It started from "
        f"{code(facts.base_model)}. Rewards came from {sources}"
    )
    text += f", the judge being {', '.join(map(code, judges))}." if judges else "."
    text += " It learnt what these rewards pay for: their tastes and mistakes are in the model."
    if any(map(is_demonstration, judges)):
        text += (
            "\n\n> **Warning: trained on the demonstration judge.** `builtin:tiny` ships with rlaif to show and test "
            "the pipeline, and its scores say little about responses. Do not use this model for anything else."
        )
    return text


def _watched_section(facts: OnlineCardFacts) -> str:
    if not facts.evaluations:
        return (
            "## Results\n\nNone: no prompt was held out. Whether the model is any good, nothing in this folder tells."
        )
    rows = _some(facts.evaluations)
    names = [name for name in _TOLD if any(f"eval_{name}" in row for row in rows)]
    lines = [(f"{row['step']:,}", *(_cell(row, name) for name in names)) for row in rows]
    head = ("Step", *(title_of(name) for name in names))
    whose = (
        f"The held-out judge is {', '.join(map(code, facts.watch_judges))}; it was not trained against."
        if facts.watch_judges
        else "No judge was held out (`--watch-judge`): the win rate is by the judge that was trained against, which is "
        "no proof of anything."
    )
    return (
        f"## Results\n\n{table(head, lines)}\n\nOn {facts.watched:,} prompts that were not learnt from. {whose} In "
        "brackets: the 95 % interval."
    )


def _cell(row: Mapping[str, float], name: str) -> str:
    value = row.get(f"eval_{name}")
    if value is None:
        return ""
    text = shown(name, value)
    low, high = row.get("eval_win_low"), row.get("eval_win_high")
    if name == "win_rate" and low is not None and high is not None:
        text += f" ({shown(name, low)} to {shown(name, high)})"
    return text


def _some(evaluations: Sequence[Mapping[str, float]]) -> list[Mapping[str, float]]:
    count = len(evaluations)
    if count <= _ROWS:
        return list(evaluations)
    return [evaluations[round(place * (count - 1) / (_ROWS - 1))] for place in range(_ROWS)]


def _signs_section(facts: OnlineCardFacts) -> str:
    if facts.settings.get("guards") == "off":
        return "## Signs of reward hacking\n\nNobody looked: the guard rails were off."
    if not facts.signs:
        return "## Signs of reward hacking\n\nNone were seen by the guard rails."
    lines = "\n".join(f"- step {sign.step:,}, **{inline(sign.name)}**: {inline(sign.text)}" for sign in facts.signs)
    return f"## Signs of reward hacking\n\n{lines}"


def _suite_section(facts: OnlineCardFacts) -> str:
    if not facts.suite:
        return ""
    lines = [
        (inline(row.kind), row.words, _interval(row.before), _interval(row.after), _interval(row.difference))
        for row in facts.suite
    ]
    head = ("Questions", "Figure", "Before", "After", "Difference")
    return (
        f"## What it cost elsewhere\n\n{table(head, lines)}\n\nA few dozen questions that ship with rlaif, answered by "
        "log-probability; in brackets the 95 % interval."
    )


def _interval(figure: Figure) -> str:
    if figure.value is None:
        return ""
    if figure.low is None or figure.high is None:
        return f"{figure.value:.3g}"
    return f"{figure.value:.3g} ({figure.low:.3g} to {figure.high:.3g})"


def _training_section(facts: OnlineCardFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    sizes, counts = facts.sizes, facts.counts
    lost = sum(counts.get("dropped", {}).values()) + sum(counts.get("failed", {}).values())
    rows = [
        ("Method", code(facts.method)),
        ("Started from", code(facts.base_model)),
        ("Its fingerprint", code(facts.base_fingerprint)),
        ("Prompts", f"{code(facts.data)}, {facts.prompts:,} to learn from"),
        ("Their content (SHA-256)", code(facts.data_sha256)),
        ("Optimizer steps", f"{facts.steps:,}"),
        ("Prompts of a batch", f"{sizes.prompts:,}, {sizes.group:,} completion{'s' if sizes.group > 1 else ''} each"),
        ("Completions judged in the last session", f"{counts.get('asked', 0):,}, {lost:,} of them without a reward"),
        *([("Wall time", f"{facts.seconds:,.1f} seconds")] if facts.seconds is not None else []),
        *([("Device", code(facts.device))] if facts.device is not None else []),
        ("Seed", str(facts.seed)),
        ("Versions", code(versions)),
        *((code(f"--{name.replace('_', '-')}"), code(plain(value))) for name, value in facts.settings.items()),
    ]
    notes = "".join(f"\n\n{inline(note)}" for note in facts.notes)
    return f"## Training\n\n{table(('', ''), rows)}\n\nAll settings are in `run.json`.{notes}"
