"""The dataset card of candidates: what a reader wants to know, and nothing live in it that was foreign text."""

from __future__ import annotations

import re
from dataclasses import replace

import yaml

from rlaif.data.generation_card import GenerationFacts, render_generation_card
from rlaif.data.generation_statistics import GenerationStatistics
from rlaif.policy_records import DroppedSample, DropReason, Sample, SampledResponses

HOSTILE = (
    "``` \n````\n</code><script>alert(1)</script> <img src=x onerror=y> | cell | [x](javascript:1) ![i](http://h/i.png)"
    "\n---\nconfigs: []\n# Heading\n\x1b[31m\u202e *b* `c` {{ x }} {% y %}"
)


def statistics(policy: str = "openai:m") -> GenerationStatistics:
    counts = GenerationStatistics()
    dropped = DroppedSample(Sample(policy, "", "stop"), DropReason.EMPTY)
    counts.add(SampledResponses((Sample(policy, "four", "length"), Sample("openai:n", "sixsix", "stop")), (dropped,)))
    return counts


FACTS = GenerationFacts(
    title="demo",
    policies=("openai:m", "openai:n"),
    is_demonstration=False,
    source="prompts.jsonl",
    source_sha256="cd" * 32,
    failed=3,
    statistics=statistics(),
    comparisons=1,
    command="rlaif generate prompts.jsonl -o demo",
    settings={"samples": 2, "temperature": 1.0, "system": None, "drop": ("empty",)},
    example={"id": "r1", "prompt": "Why?", "policies": ["openai:m", "openai:n"], "responses": ["four", "sixsix"]},
)


def outside_fences(card: str) -> str:
    """The card without its header and without fenced blocks, read as CommonMark reads them."""
    kept, closing = [], None
    for line in card.split("---\n", 2)[2].split("\n"):
        if closing is not None:
            if re.fullmatch(rf"`{{{closing},}}\s*", line):
                closing = None
        elif opening := re.match(r"(`{3,})[^`]*$", line):
            closing = len(opening[1])
        else:
            kept.append(line)
    assert closing is None
    return "\n".join(kept)


def test_what_a_reader_wants_to_know_stands_there() -> None:
    card = render_generation_card(FACTS)
    for expected in (
        "2 responses to 1 prompts, and 1 comparisons",
        "3 prompts got no usable response",
        "| policies | `openai:m`, `openai:n` |",
        "cd" * 32,
        "| `samples` | `2` |",
        "| `drop` | `empty` |",
        "| Policy | Sampled | Left out: empty | Kept | Empty | Cut off | Characters, mean |",
        "| `openai:m` | 2 | 1 | 1 | 1 | 1 | 4 |",
        "| `openai:n` | 1 | 0 | 1 | 0 | 0 | 6 |",
        "rlaif generate prompts.jsonl -o demo",
        "rlaif label FOLDER/comparisons",
    ):
        assert expected in card
    assert "`system`" not in card
    assert "demonstration" not in card
    assert "demonstration policy" in render_generation_card(replace(FACTS, is_demonstration=True))


def test_the_header_names_comparisons_only_where_there_are_some() -> None:
    def tables(facts: GenerationFacts) -> list[str]:
        header = yaml.safe_load(render_generation_card(facts).split("---\n")[1])
        return [each["config_name"] for each in header["configs"]]

    assert tables(FACTS) == ["default", "comparisons"]
    none = replace(FACTS, comparisons=0)
    assert tables(none) == ["default"]
    assert "comparisons = " not in render_generation_card(none)


def test_a_run_without_rows_has_a_card() -> None:
    card = render_generation_card(replace(FACTS, statistics=GenerationStatistics(), comparisons=0, example=None))
    assert "0 responses to 0 prompts" in card
    assert "## A row" not in card


def test_long_texts_of_the_example_are_cut_and_say_so() -> None:
    example = {"id": "r1", "prompt": "x" * 700, "policies": ["p"], "responses": ["y" * 600]}
    card = render_generation_card(replace(FACTS, example=example))
    assert "x" * 600 + "\n[... 100 more characters]" in card
    assert "y" * 600 + "\n[" not in card


def test_no_foreign_text_is_live() -> None:
    card = render_generation_card(
        replace(
            FACTS,
            title=HOSTILE,
            policies=(HOSTILE,),
            source=HOSTILE,
            command=HOSTILE,
            settings={"system": HOSTILE},
            statistics=statistics(HOSTILE),
            example={
                "id": HOSTILE,
                "prompt": [{"role": "system", "content": HOSTILE}, {"role": "user", "content": HOSTILE}],
                "policies": [HOSTILE],
                "responses": [HOSTILE],
            },
        )
    )
    header = yaml.safe_load(card.split("---\n")[1])
    assert [each["config_name"] for each in header["configs"]] == ["default", "comparisons"]
    prose = outside_fences(card)
    assert "<script" not in prose
    assert "<img" not in prose
    assert not re.search(r"(?<!\\)!?\[[^\]]*\]\(", prose)
    assert "\x1b" not in card
    assert "\u202e" not in card
    assert [line for line in prose.split("\n") if line.startswith("## ")] == [
        "## How they were sampled", "## Responses", "## A row", "## How to use it", "## How to make it again",
    ]  # fmt: skip
    assert len([line for line in prose.split("\n") if line.startswith("# ")]) == 1
