"""What `builtin:tiny-policy` can do, as the built-in judge sees it, on held-out prompts of the grammar.

    python benchmarks/builtin_policy.py                       # the shipped model, some minutes on a CPU
    python benchmarks/builtin_policy.py --model DIR --prompts 20 --show 5

Answers are sampled at temperature 1; their ratings are the expected scores (1 to 10) that `builtin:tiny` gives them
for helpfulness. Critiques and revisions are of the first sampled answer to each prompt, under every principle of the
shipped constitutions, with and without the worked examples, greedy and sampled. A revision raises the score where the
judge, asked by the same principle in both orders, prefers it to the answer it revises; an unchanged answer raises
nothing and lowers nothing. Intervals are 95 %, bootstrapped over prompts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "examples"), str(REPOSITORY)]

from builtin_policy.asking import Revised, answer, gather_in_parts, prefer, rate, revise  # noqa: E402

from rlaif.auditing.intervals import estimate, mean_statistic  # noqa: E402
from rlaif.backends.builtin import BuiltinBackend  # noqa: E402
from rlaif.backends.hf import HfBackend  # noqa: E402
from rlaif.judge.constitutions import Principle, load_constitution  # noqa: E402
from rlaif.judge.revising import RevisionPrompts  # noqa: E402
from rlaif.policy_records import RevisionRequests  # noqa: E402
from rlaif.records import Turn  # noqa: E402

CONSTITUTIONS = ("helpful-harmless", "honest", "polite", "concise", "detailed", "confident", "blunt")
PROMPTS = REPOSITORY / "examples" / "data" / "prompts.jsonl"


class Outcome(NamedTuple):
    """A revision beside the answer it revises, in the judge's eyes: P(revision preferred)."""

    before: str
    after: Revised
    prob: float


def read_prompts(limit: int) -> list[tuple[Turn, ...]]:
    """The first prompts of the examples."""
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text(encoding="utf-8").splitlines()[:limit]]
    return [(Turn("user", p),) if isinstance(p, str) else tuple(Turn(t["role"], t["content"]) for t in p) for p in rows]


def figure(values: Sequence[float], clusters: Sequence[int], bounds: tuple[float, float] | None = (0.0, 1.0)) -> str:
    """A mean with its interval."""
    array = np.asarray(values, dtype=float)
    mean = mean_statistic(array, np.ones(len(array), dtype=bool), bounds=bounds)
    found = estimate({"mean": mean}, np.asarray(clusters))["mean"]
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


async def print_answers(
    policy: HfBackend, judge: HfBackend, prompts: list[tuple[Turn, ...]], samples: int
) -> list[str]:
    """Ratings of single samples, of the best of them, and of the greedy answer; returns the first samples."""
    texts = await gather_in_parts(answer(policy, turns, seed) for turns in prompts for seed in range(samples))
    greedy = await gather_in_parts(answer(policy, turns, temperature=0.0) for turns in prompts)
    each_turns = [turns for turns in prompts for _ in range(samples)]
    rated = await gather_in_parts(rate(judge, turns, text) for turns, text in zip(each_turns, texts, strict=True))
    greedy_rated = await gather_in_parts(rate(judge, turns, text) for turns, text in zip(prompts, greedy, strict=True))
    by_prompt = np.asarray(rated).reshape(len(prompts), samples)
    places = list(range(len(prompts)))
    print("| answers | mean rating, 1 to 10 |\n|---|---|")
    print(f"| one sample | {figure(by_prompt.mean(1), places, (1, 10))} |")
    for count in (2, 4, 8, 16):
        if count <= samples:
            print(f"| best of {count} | {figure(by_prompt[:, :count].max(1), places, (1, 10))} |")
    print(f"| worst of {samples} | {figure(by_prompt.min(1), places, (1, 10))} |")
    print(f"| greedy | {figure(greedy_rated, places, (1, 10))} |")
    words = [len(text.split()) for text in texts]
    distinct = np.mean([len(set(texts[i : i + samples])) / samples for i in range(0, len(texts), samples)])
    tokens = [len(policy.tokenizer.encode(text, add_special_tokens=False)) for text in texts]
    print(
        f"\n{len(texts)} samples: {np.mean(words):.1f} words and {np.mean(tokens):.1f} tokens in the mean, "
        f"{np.mean(np.asarray(tokens) < 100):.2f} of them under 100 tokens; "
        f"{distinct:.2f} of a prompt's samples are distinct.\n"
    )
    return [texts[i] for i in range(0, len(texts), samples)]


class Reviewers(NamedTuple):
    """The models, the prompts of a revision, and the temperature at which it is sampled."""

    policy: HfBackend
    judge: HfBackend
    prompts: RevisionPrompts
    temperature: float


async def revised(
    by: Reviewers, conversations: list[tuple[Turn, ...]], answers: list[str], principle: Principle
) -> list[Outcome]:
    """Every answer revised under one principle."""
    requests = RevisionRequests(principle.id, principle.critique_request or "", principle.revision_request or "")
    after = await gather_in_parts(
        revise(by.policy, by.prompts, turns, text, requests, by.temperature)
        for turns, text in zip(conversations, answers, strict=True)
    )
    probs = await gather_in_parts(
        prefer(by.judge, turns, new.revision, old, principle.text)
        for turns, old, new in zip(conversations, answers, after, strict=True)
    )
    return [Outcome(*one) for one in zip(answers, after, probs, strict=True)]


def row_of(outcomes: Sequence[Outcome], clusters: Sequence[int]) -> str:
    """Cells of a table: raised, unchanged, lowered, raised of the changed; words after over before."""
    same = [one.before == one.after.revision for one in outcomes]
    raised = [not still and one.prob > 0.5 for one, still in zip(outcomes, same, strict=True)]
    changed = [float(up) for up, still in zip(raised, same, strict=True) if not still]
    kept = [place for place, still in zip(clusters, same, strict=True) if not still]
    of_changed = figure(changed, kept) if changed else "-"
    words = [len(one.after.revision.split()) / max(1, len(one.before.split())) for one in outcomes]
    lowered = abs(1 - np.mean(raised) - np.mean(same))  # no -0.00
    return (
        f"{figure([float(up) for up in raised], clusters)} | {np.mean(same):.2f} | {lowered:.2f} | {of_changed} "
        f"| {np.mean(words):.2f} | {np.median(words):.2f}"
    )


async def print_revisions(by: Reviewers, conversations: list[tuple[Turn, ...]], answers: list[str], show: int) -> None:
    """Whether the judge prefers the revision, by principle."""
    print("| principle | raised | unchanged | lowered | raised of the changed | words, mean ratio | median |")
    print("|---|---|---|---|---|---|---|")
    every: list[Outcome] = []
    shown: list[str] = []
    places = list(range(len(conversations)))
    seen: set[str | None] = set()
    for name in CONSTITUTIONS:
        for principle in load_constitution(name).principles:
            if principle.critique_request in seen:
                continue  # `polite` repeats two of `helpful-harmless`
            seen.add(principle.critique_request)
            outcomes = await revised(by, conversations, answers, principle)
            print(f"| {name}: {principle.id} | {row_of(outcomes, places)} |", flush=True)
            every += outcomes
            for one in outcomes[:show]:
                shown.append(f"[{principle.id}] {one.before}\n  * {one.after.critique}\n  -> {one.after.revision}")
    print(f"| **all** | {row_of(every, places * (len(every) // len(places)))} |\n")
    print("\n".join(shown))


async def run(options: argparse.Namespace) -> None:
    """Everything, as Markdown."""
    started = time.monotonic()
    policy = HfBackend(str(options.model), device="cpu") if options.model else BuiltinBackend("tiny-policy")
    judge = BuiltinBackend("tiny")
    prompts = read_prompts(options.prompts)
    answers = await print_answers(policy, judge, prompts, options.samples)
    for shots in options.shots:
        for temperature in options.temperatures:
            print(f"Revisions with {shots} worked examples at temperature {temperature:g}:\n")
            by = Reviewers(policy, judge, RevisionPrompts(shots), temperature)
            await print_revisions(by, prompts, answers, options.show)
    print(f"{time.monotonic() - started:.0f} s.")
    await policy.aclose()
    await judge.aclose()


def main() -> None:
    """Read the flags and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="a folder in place of the shipped model")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--shots", type=int, nargs="*", default=[0, 3], help="worked examples, each measured by itself")
    parser.add_argument("--temperatures", type=float, nargs="*", default=[0.0, 1.0], help="of revisions")
    parser.add_argument("--show", type=int, default=0, help="revisions to print for each principle")
    asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
