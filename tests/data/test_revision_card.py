"""The card of revised responses: what it tells, and that hostile text stays text."""

from __future__ import annotations

from dataclasses import replace

import pytest
import yaml

from rlaif.data.revision_card import RevisionFacts, length_text, preference_text, render_revision_card
from rlaif.data.revision_statistics import LengthConfound, RevisionPreference, RevisionStatistics
from rlaif.policy_records import RevisionChain, RevisionRequests, RevisionRound, Sample

HOSTILE = (
    "``` \n````\n</code><script>alert(1)</script> <img src=x onerror=y> | cell | [x](javascript:1) ![i](http://h/i.png)"
    "\n---\nconfigs: []\n# Heading\n\x1b[31m\u202e *b* `c` {{ x }} {% y %} <|im_end|>"
)


def statistics(principle: str = "kind") -> RevisionStatistics:
    counts = RevisionStatistics(rounds_wanted=2)
    of_round = RevisionRound(
        RevisionRequests(principle, "c", "r"), Sample("p", "Rude.", "stop"), Sample("p", "Longer", "stop")
    )
    counts.add(RevisionChain("Ever", None, (of_round,)))
    return counts


FACTS = RevisionFacts(
    title="demo",
    policy="openai:some-model",
    judges=(),
    is_demonstration=False,
    constitution="polite",
    constitution_fingerprint="ab" * 32,
    source="prompts.jsonl",
    source_sha256="cd" * 32,
    failed=3,
    statistics=statistics(),
    labels="assumed",
    demonstrations=1,
    comparisons=1,
    command="rlaif revise prompts.jsonl -o demo",
    settings={"rounds": 2, "policy_system": None},
    example={
        "id": "r1", "prompt": "P", "initial_response": "I",
        "rounds": [{"principle": "kind", "critique": "C", "revision": "R"}],
    },
)  # fmt: skip


def test_the_header_names_the_tables_that_have_rows() -> None:
    header = yaml.safe_load(render_revision_card(FACTS).split("---\n")[1])
    assert [each["config_name"] for each in header["configs"]] == ["default", "sft", "comparisons"]
    header = yaml.safe_load(render_revision_card(replace(FACTS, comparisons=0)).split("---\n")[1])
    assert [each["config_name"] for each in header["configs"]] == ["default", "sft"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ("assumed", "**The labels of `comparisons` are assumed, not judged**"),
        ("judge", "are those of `openai:judge`"),
        ("none", "have no labels"),
    ],
)
def test_where_the_labels_come_from_is_said(labels: str, said: str) -> None:
    assert said in render_revision_card(replace(FACTS, labels=labels, judges=("openai:judge",)))


def test_what_it_tells() -> None:
    card = render_revision_card(FACTS)
    assert "3 rows have no chain" in card
    assert "1 chains ended before the last round, 0 of them without any revision" in card
    assert "| critiques | 1 | 0 | 0 | 0 | 0 | 5 |" in card
    assert "100.0% of 1 revisions are longer than the initial response, 0.0% shorter; 1.50 times as long" in card
    assert "policy_system" not in card
    assert "Warning" not in card
    assert "**Warning: made with demonstration models.**" in render_revision_card(replace(FACTS, is_demonstration=True))


def test_a_judges_preference_is_split_by_length() -> None:
    preference = RevisionPreference()
    preference.add("ab", "abcd", 0.9)
    preference.add("abcd", "ab", 0.4)
    card = render_revision_card(replace(FACTS, labels="judge", preference=preference))
    assert "| all | 2 | 0.500 | 0.650 |" in card
    assert "| where it is longer | 1 | 1.000 | 0.900 |" in card
    assert "| where it is shorter | 1 | 0.000 | 0.400 |" in card
    assert preference_text(preference) == (
        "prefers 50.0% of 2; 100.0% of 1 that are longer, 0.0% of 1 that are shorter"
    )
    assert preference_text(RevisionPreference()).startswith("prefers none of 0;")


def test_without_revisions_there_is_no_length() -> None:
    assert length_text(LengthConfound()) == "no revision to compare"
    assert "## Rounds" in render_revision_card(
        replace(FACTS, statistics=RevisionStatistics(2), example=None, demonstrations=0, comparisons=0)
    )


def test_hostile_text_is_never_live() -> None:
    round_value = {"principle": HOSTILE, "critique": HOSTILE, "revision": HOSTILE}
    example = {"id": HOSTILE, "prompt": HOSTILE, "initial_response": HOSTILE, "rounds": [round_value]}
    hostile = replace(
        FACTS,
        title=HOSTILE,
        policy=HOSTILE,
        judges=(HOSTILE,),
        constitution=HOSTILE,
        source=HOSTILE,
        settings={"policy_system": HOSTILE},
        labels="judge",
        statistics=statistics(HOSTILE),
        example=example,
        command=HOSTILE,
    )
    card = render_revision_card(hostile)
    assert len(yaml.safe_load(card.split("---\n")[1])["configs"]) == 3
    outside, is_fenced, fence = [], False, ""
    for line in card.partition("\n---\n\n")[2].splitlines():
        ticks = line[: len(line) - len(line.lstrip("`"))]
        if not is_fenced and len(ticks) >= 3:
            is_fenced, fence = True, ticks
        elif is_fenced and line == fence:
            is_fenced = False
        elif not is_fenced:
            outside.append(line)
    assert not is_fenced
    text = "\n".join(outside)
    for live in ("<script", "<img", "](javascript", "![i]", "\x1b", "\u202e", "\n# Heading", "*b*"):
        assert live not in text
