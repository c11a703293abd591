import re
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.card import CardFacts, fence, render_card
from rlaif.data.statistics import LabelStatistics
from rlaif.records import Judgment, SoftLabel

HOSTILE = (
    "``` \n````\n</code><script>alert(1)</script> <img src=x onerror=y> | cell | [x](javascript:1) ![i](http://h/i.png)"
    "\n---\nconfigs: []\n# Heading\n\x1b[31m\u202e *b* `c` {{ x }} {% y %}"
)


def statistics():
    counts = LabelStatistics()
    counts.add(Judgment(SoftLabel(0.85, 0.9, 0.8), 0.99, 0.97, calls=2))
    counts.add(Judgment(SoftLabel(0.55, 0.9, 0.2), 0.95, 0.93, is_bounded=True, calls=2))
    counts.add(Judgment(SoftLabel(0.5, None, None)))
    return counts


FACTS = CardFacts(
    title="demo",
    judges=("openai:some-model",),
    task="helpfulness",
    template_fingerprint="ab" * 32,
    source="examples/data/comparisons.jsonl",
    source_sha256="cd" * 32,
    statistics=statistics(),
    command="rlaif label examples/data/comparisons.jsonl -o runs/demo",
    version="0.1.0",
    settings={"orders": "both", "shots": 2, "cot": False},
    constitution="helpful-harmless",
    constitution_fingerprint="ef" * 32,
    principles=(("kind", "The kinder answer is better."), ("brief", "The shorter answer is better.")),
    failed=3,
    prompt_tokens=12_345,
    completion_tokens=4,
    cost_usd=0.0297,
    seconds=1.25,
    example={"id": "r1", "prompt": "P", "response_a": "x", "response_b": "y", "prob_a": 0.85, "is_tie": False},
    columns=("id", "prompt", "prob_a"),
)


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def outside_fences(card):
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


def test_the_header_names_the_files():
    found = header(render_card(FACTS))
    assert found["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert found["pretty_name"] == "demo"
    assert "license" not in found
    assert found["size_categories"] == ["n<1K"]


def test_what_a_reader_wants_to_know_stands_there():
    card = render_card(FACTS)
    for expected in (
        "| Judge | `openai:some-model` |",
        "| Task | `helpfulness` |",
        "ab" * 32,
        "cd" * 32,
        "| orders | `both` |",
        "| cot | `false` |",
        "Constitution `helpful-harmless` (SHA-256 `" + "ef" * 32,
        "- `brief`: The shorter answer is better.",
        "| Labeled pairs | 3 |",
        "| Failed, in `failures.jsonl` and not in the data | 3 |",
        "| Identical responses, 0.5 without asking | 1 |",
        "| Swap consistency: same verdict in both orders | 50.0 % |",  # row 1 of the two that were asked
        "| Same slot preferred in both orders (ideal 0 %) | 50.0 % (1 first, 0 second) |",
        "| First slot preferred when A is shown first | 100.0 % |",
        "| First slot preferred when B is shown first | 50.0 % |",
        "0.9600 on average, 0.9300 at least",  # (0.99 + 0.97 + 0.95 + 0.93) / 4
        "rows with such a bound: 1.",
        "12,345 prompt and 4 completion tokens; 0.0297 US dollars, 0.00990 a row; 1.2 seconds.",
        "rlaif label examples/data/comparisons.jsonl -o runs/demo",
        "datasets.load_dataset",
        "Columns: `id`, `prompt`, `prob_a`.",
    ):
        assert expected in card


def test_the_demonstration_judge_is_warned_about():
    assert "demonstration judge" not in render_card(FACTS)
    assert "> **Warning: made by the demonstration judge.**" in render_card(replace(FACTS, is_demonstration=True))


def test_what_was_not_measured_is_left_out_or_said():
    one_order = LabelStatistics()
    one_order.add(Judgment(SoftLabel(0.9, 0.9, None), calls=1))
    bare = replace(FACTS, statistics=one_order, constitution=None, cost_usd=None, seconds=None, example=None)
    card = render_card(bare)
    for absent in ("## Principles", "## Label mass", "Swap consistency", "US dollars", "seconds", "## A row"):
        assert absent not in card
    assert "| First slot preferred when B is shown first | not asked |" in card
    assert "judged in one order only" in card
    empty = render_card(replace(bare, statistics=LabelStatistics()))
    assert "There are no rows" in empty
    assert "## Position bias" not in empty


@pytest.mark.parametrize(
    "changed",
    [
        {"title": HOSTILE},
        {"judges": (HOSTILE, "x")},
        {"task": HOSTILE, "source": HOSTILE, "command": HOSTILE},
        {"settings": {HOSTILE: HOSTILE}},
        {"constitution": HOSTILE, "principles": ((HOSTILE, HOSTILE),)},
        {"columns": (HOSTILE,)},
        {"example": {"id": HOSTILE, "prompt": [{"role": "user", "content": HOSTILE}], "response_a": HOSTILE}},
    ],
)
def test_hostile_text_is_inert(changed):
    card = render_card(replace(FACTS, **changed))
    assert header(card)["configs"][0]["config_name"] == "default"
    text = outside_fences(card)
    assert set(re.findall(r"</?[a-z]+", text)) <= {"<code", "</code"}
    assert not re.search(r"(?<!\\)\]\(", text)  # no link
    assert "# Heading" not in [line.strip() for line in text.split("\n")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", card)
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)  # two cells each, whatever stands in them


def test_text_that_hides_is_spelled_out():
    # Tag characters and soft hyphens show nothing and still reach a model.
    example = {"id": "r", "prompt": "hid\U000e0041\u00adden", "response_a": "x", "response_b": "y"}
    assert "hid\\U000e0041\\xadden" in render_card(replace(FACTS, example=example))


def test_sampled_verdicts_are_not_called_log_probabilities():
    assert "read from the model's own log-probabilities" in render_card(FACTS)
    sampled = render_card(replace(FACTS, settings={"scoring": "sample"}))
    assert "counted over sampled verdicts" in sampled
    assert "log-probabilities" not in sampled


def test_only_the_principles_that_were_asked_are_listed():
    card = render_card(replace(FACTS, principle_choice="brief, other"))
    assert "- `brief`: The shorter answer is better." in card
    assert "The kinder answer is better." not in card
    assert "The kinder answer is better." in render_card(replace(FACTS, principle_choice="sample"))


def test_a_principle_is_shown_where_the_run_drew_it():
    example = {"id": "r", "prompt": "P", "response_a": "x", "response_b": "y", "principle": "kind"}
    users_own = replace(FACTS, example=example)
    assert "| `principle` | `kind` |" not in render_card(users_own)
    assert "| `principle` | `kind` |" in render_card(replace(users_own, principle_choice="sample"))


def test_long_texts_are_cut_and_say_so():
    card = render_card(replace(FACTS, example={"id": "r", "prompt": "p" * 5_000, "response_a": "x", "response_b": "y"}))
    assert "p" * 1_200 + "\n[... 3,800 more characters]" in card
    assert "p" * 1_201 not in card


@settings(deadline=None)
@given(st.text(alphabet="`a\n \r~", max_size=40))
def test_a_fence_cannot_be_closed_from_inside(text):
    first, *inside, last = re.split(r"\r\n|\n|\r", fence(text))
    assert set(first) == {"`"}
    assert first == last
    assert not any(re.fullmatch(rf" {{0,3}}`{{{len(first)},}}\s*", line) for line in inside)
