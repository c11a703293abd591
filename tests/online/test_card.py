"""The card of a policy that was trained online: what it tells, and that nothing in it breaks out of its place."""

from __future__ import annotations

from dataclasses import replace

import yaml

from rlaif.auditing.results import Figure
from rlaif.online.card import OnlineCardFacts, render_card
from rlaif.online.guard_signs import Sign
from rlaif.online.inputs import Sizes
from rlaif.online.suite import SuiteRow

FACTS = OnlineCardFacts(
    title="my-policy",
    method="grpo",
    base_model="base",
    base_fingerprint="abc",
    data="prompts.jsonl",
    data_sha256="def",
    prompts=80,
    watched=8,
    rewards={"judge": {"kind": "judge", "weight": 1.0}},
    judges=("openai:good",),
    watch_judges=("openai:other",),
    command="rlaif train grpo --model base",
    seed=7,
    versions={"rlaif": "1.0"},
    steps=30,
    sizes=Sizes(8, 16, 1, 2, 30),
    evaluations=[
        {"step": step, "eval_reward": 0.1 * step, "eval_watched_reward": 0.2, "eval_kl": 1.0}
        | ({"eval_win_rate": 0.625, "eval_win_low": 0.5, "eval_win_high": 0.75} if step else {})
        for step in range(0, 31, 10)
    ],
    counts={"asked": 240, "dropped": {"judge": 3}, "failed": {"LowLabelMassError": 2}},
)


def test_the_header_is_what_the_hub_reads() -> None:
    header, _ = render_card(FACTS).removeprefix("---\n").split("\n---\n", 1)
    found = yaml.safe_load(header)
    assert found == {
        "library_name": "transformers", "pipeline_tag": "text-generation",
        "tags": ["rlaif", "ai-feedback", "online-rl", "grpo"],
    }  # fmt: skip
    assert "library_name: peft" in render_card(replace(FACTS, is_adapter=True))


def test_it_tells_what_was_watched_and_by_whom() -> None:
    card = render_card(FACTS)
    assert "On 8 prompts that were not learnt from." in card
    assert "The held-out judge is `openai:other`; it was not trained against." in card
    (line,) = [line for line in card.splitlines() if line.startswith("| 30 ")]
    assert "(" in line  # the interval of the win rate
    assert "5 of them without a reward" in card
    assert "None were seen by the guard rails." in card
    assert "16, 8 completions each" in card


def test_it_owns_up_to_what_is_no_proof() -> None:
    nobody = render_card(replace(FACTS, watch_judges=()))
    assert "No judge was held out" in nobody
    assert "no proof of anything" in nobody
    assert "None: no prompt was held out." in render_card(replace(FACTS, evaluations=()))
    assert "Nobody looked: the guard rails were off." in render_card(replace(FACTS, settings={"guards": "off"}))
    assert "trained on the demonstration judge" in render_card(replace(FACTS, judges=("builtin:tiny",)))


def test_signs_and_questions_stand_in_it() -> None:
    figure = Figure(0.5, 0.25, 0.75, 20)
    card = render_card(
        replace(
            FACTS,
            signs=[Sign("shared phrase", 12, "most completions share a phrase\nand a line")],
            suite=[SuiteRow("facts", "right", figure, figure, Figure(None, None, None, 0))],
        )
    )
    assert "- step 12, **shared phrase**: most completions share a phrase and a line" in card
    assert "0.5 (0.25 to 0.75)" in card


def test_hostile_names_stay_in_their_place() -> None:
    bad = "x` | <script>alert(1)</script>\n# Title\n---\nlicense: mit"
    card = render_card(
        replace(FACTS, title=bad, base_model=bad, data=bad, watch_judges=(bad,), rewards={bad: {"weight": 1}})
    )
    _, body = card.removeprefix("---\n").split("\n---\n", 1)
    for line in ("# Title", "---", "license: mit"):
        assert line not in body.splitlines()


def test_a_long_run_is_told_in_a_few_lines_with_its_first_and_last() -> None:
    many = [{"step": step, "eval_reward": 0.0} for step in range(0, 1001, 10)]
    card = render_card(replace(FACTS, evaluations=many))
    lines = [line for line in card.splitlines() if line.startswith("| ") and line.split()[1].replace(",", "").isdigit()]
    assert len(lines) == 12
    assert lines[0].startswith("| 0 ")
    assert lines[-1].startswith("| 1,000 ")
