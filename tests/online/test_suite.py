"""The suite before and after training: scores by the model's own logits, figures by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny_models import byte_level_tokenizer, make_model
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from rlaif.errors import ConfigError
from rlaif.models.batches import collate
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.logprobs import token_logprobs
from rlaif.online.suite import ItemScore, SuiteItem, SuiteScores, compare, run_suite, suite_items, summary
from rlaif.records import Turn
from rlaif.train.step_inputs import ComputePlan

TOKENIZER = byte_level_tokenizer()
ITEMS = (
    SuiteItem("one", "grammar", "Write.", "The dogs bark.", "The dogs barks loud."),
    SuiteItem("two", "truthful", "Is it so?", "No.", "Yes, always."),
    SuiteItem("three", "text", "Tell me.", "A river begins at a spring."),
)


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    return make_model("llama", len(TOKENIZER))


def alone(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, item: SuiteItem, answer: str) -> float:
    """Mean log-probability of a token by the model's own logits of the one sequence."""
    encoder = ExampleEncoder(tokenizer)
    prompt = (Turn("user", item.prompt),)
    start, end = encoder.prompt_ids(prompt), encoder.completion_ids(prompt, answer)
    with torch.no_grad():
        every = model(input_ids=torch.tensor([start + end])).logits[0].log_softmax(-1)
    return float(sum(every[len(start) + place - 1, token] for place, token in enumerate(end)) / len(end))


@pytest.mark.parametrize("plan", [ComputePlan(), ComputePlan(False, False, 50), ComputePlan(True, True, 1, pad=3)])
def test_scores_are_those_of_the_model_alone(model: PreTrainedModel, plan: ComputePlan) -> None:
    model.train()
    found = run_suite(model, ExampleEncoder(TOKENIZER), ITEMS, plan)
    assert model.training
    model.eval()
    assert [one.id for one in found.scores] == ["one", "two", "three"]
    for item, score in zip(ITEMS, found.scores, strict=True):
        assert score.right == pytest.approx(alone(model, TOKENIZER, item, item.right), abs=1e-4)
        if item.wrong is not None:
            assert score.wrong == pytest.approx(alone(model, TOKENIZER, item, item.wrong), abs=1e-4)
    assert found.scores[2].wrong is None


def test_what_does_not_fit_is_left_out_by_name(model: PreTrainedModel) -> None:
    found = run_suite(model, ExampleEncoder(TOKENIZER), ITEMS, ComputePlan(), max_length=50)
    assert found.left_out == ("three",)
    assert [one.id for one in found.scores] == ["one", "two"]
    assert SuiteScores.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_training_on_the_right_answers_shows(model: PreTrainedModel) -> None:
    trained = make_model("llama", len(TOKENIZER))
    items = [item for item in suite_items("mini") if item.kind == "grammar"][:6]
    encoder, plan = ExampleEncoder(TOKENIZER), ComputePlan()
    before = run_suite(trained, encoder, items, plan)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-2)
    rows = [encoder.example(item.id, (Turn("user", item.prompt),), [item.right]) for item in items]
    batch = collate(rows, is_packed=True)
    for _ in range(12):
        optimizer.zero_grad()
        (-token_logprobs(trained, batch).sums.mean()).backward()
        optimizer.step()
    after = run_suite(trained, encoder, items, plan)
    rows_after = {row.measure: row for row in compare(before, after)}
    assert rows_after["right"].after.value == 1.0
    assert rows_after["margin"].difference.low > 0
    rows_back = {row.measure: row for row in compare(after, before)}
    assert rows_back["margin"].is_worse
    assert rows_back["right"].difference.value == -rows_after["right"].difference.value


def scores(*leads: float, kind: str = "grammar") -> SuiteScores:
    """Items whose right answer leads by so much."""
    return SuiteScores(tuple(ItemScore(f"{kind}-{place}", kind, lead - 2, -2.0) for place, lead in enumerate(leads)))


def texts(*nats: float) -> SuiteScores:
    return SuiteScores(tuple(ItemScore(f"text-{place}", "text", -each, None) for place, each in enumerate(nats)))


def test_figures_by_hand() -> None:
    right, margin = compare(scores(0.5, -0.5, 0.0, 1.0), scores(0.5, 0.5, -0.5, 1.0))
    # Right: 1, 0, 0.5 (a tie), 1 before; 1, 1, 0, 1 after.
    assert (right.before.value, right.after.value, right.difference.value) == (0.625, 0.75, 0.125)
    # Agresti and Min: the changes 0, 1, -0.5, 0 with a half up and a half down, over 6 items: mean 0.5 / 6 = 0.0833;
    # squares 1 + 0.25 + 1 = 2.25; error sqrt((2.25 / 6 - 0.0833^2) / 6) = 0.2477.
    assert right.difference.low == pytest.approx(0.0833 - 1.96 * 0.2477, abs=1e-3)
    assert right.difference.high == pytest.approx(0.0833 + 1.96 * 0.2477, abs=1e-3)
    # Leads 0.5, -0.5, 0, 1 before and 0.5, 0.5, -0.5, 1 after: changes 0, 1, -0.5, 0, their mean 0.125, deviation
    # sqrt((0.0156 + 0.7656 + 0.3906 + 0.0156) / 3) = 0.6292; t with 3 degrees of freedom is 3.182.
    assert (margin.before.value, margin.after.value) == (0.25, 0.375)
    assert margin.difference.high == pytest.approx(0.125 + 3.182 * 0.6292 / 2, abs=1e-3)
    assert margin.words == "lead of the right answer, nats a token"
    assert not right.is_worse
    assert not margin.is_worse


def test_text_is_worse_where_it_costs_more() -> None:
    (row,) = compare(texts(2.0, 3.0, 4.0), texts(2.5, 3.6, 4.4))
    assert (row.measure, row.before.value) == ("nats", 3.0)
    assert row.difference.value == pytest.approx(0.5)
    assert row.is_worse
    assert not compare(texts(2.5, 3.6, 4.4), texts(2.0, 3.0, 4.0))[0].is_worse
    assert summary([row]) == (
        "worse than before training: text (nats a token of text); 1 of 1 lines, each wrong once in 20 by chance"
    )


def test_kinds_and_then_all_of_what_several_have() -> None:
    before = SuiteScores(
        (*scores(1.0, 1.0).scores, *scores(1.0, -1.0, kind="truthful").scores, *texts(2.0, 3.0).scores)
    )
    rows = compare(before, before)
    assert [(row.kind, row.measure) for row in rows] == [
        ("grammar", "right"),
        ("grammar", "margin"),
        ("truthful", "right"),
        ("truthful", "margin"),
        ("text", "nats"),
        ("all", "right"),
        ("all", "margin"),
    ]
    assert rows[5].before.value == 0.75
    assert {row.difference.value for row in rows} == {0.0}
    assert summary(rows) == "nothing in the suite became surely worse"


def test_only_items_of_both_are_compared() -> None:
    (right, _) = compare(scores(1.0, 1.0, -1.0), scores(1.0, 1.0))
    assert (right.before.value, right.before.n) == (1.0, 2)
    (alone_right, alone_margin) = compare(scores(1.0), scores(2.0))
    assert (alone_margin.difference.value, alone_margin.difference.low) == (1.0, None)
    assert not alone_margin.is_worse
    assert alone_right.difference.low < 0 < alone_right.difference.high


def test_the_suite_that_ships_is_balanced() -> None:
    items = suite_items("mini")
    kinds = Counter(item.kind for item in items)
    assert set(kinds) == {"truthful", "harmless", "grammar", "text"}
    assert min(kinds.values()) >= 12
    for kind in ("truthful", "harmless", "grammar"):
        # Length says nothing about which answer is right.
        longer = [len(item.right) > len(item.wrong or "") for item in items if item.kind == kind]
        assert longer.count(True) == longer.count(False)
    assert all((item.wrong is None) == (item.kind == "text") for item in items)
    texts_of_items = [text for item in items for text in (item.right, item.wrong)]
    assert all(len(text) < 250 for text in texts_of_items if text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no items"),
        ("{", "line 1 is no JSON"),
        ("[]", "line 1 is no object; expected id, kind, prompt, right, wrong"),
        ('{"id": "a", "kind": "k", "prompt": "p", "right": ""}', "line 1: right is '', expected text"),
        ('{"id": "a", "kind": "k", "right": "r"}', "line 1: prompt is None, expected text"),
        ('{"id": "a", "kind": "k", "prompt": "p", "right": "r", "worng": "w"}', "line 1 has 'worng'; expected id"),
        ('\n{"id": "a", "kind": "k", "prompt": "p", "right": "r"}\n' * 2, "has the id 'a' more than once"),
    ],
)
def test_a_line_that_is_no_item_is_named(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        suite_items(str(file))
    assert message in str(caught.value)


def test_a_suite_of_ones_own_and_one_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "own.jsonl"
    file.write_text('{"id": "a", "kind": "k", "prompt": "p", "right": "r", "wrong": "w"}\n', encoding="utf-8")
    assert suite_items(str(file)) == (SuiteItem("a", "k", "p", "r", "w"),)
    with pytest.raises(ConfigError, match=r"no suite named 'mni' \(did you mean 'mini'\?\); known: mini"):
        suite_items("mni")
