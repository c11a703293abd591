"""Rows as what a step computes: labels, cuts, mismatched responses, references."""

from __future__ import annotations

import math

import pytest
from tiny_models import CHAT_TEMPLATE, byte_level_tokenizer

from rlaif.errors import ConfigError, PromptTooLongError
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.examples import Example
from rlaif.records import Candidates, Comparison, Turn, Verdict
from rlaif.train.items import (
    TrainingItem,
    Truncation,
    kto_balance,
    make_items,
    scored_responses,
    with_mismatches,
    with_references,
)
from rlaif.training_records import Demonstration, Feedback, LabeledPair, RatedCandidates

PROMPT = (Turn("user", "Name a colour."),)
A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE


def pair(prob_a=0.7, votes=(), margin=None, row_id="r", prompt=PROMPT, responses=("red", "blue")):
    return LabeledPair(Comparison(row_id, prompt, *responses, human_votes=votes), prob_a, margin)


def encoder(template=None):
    return ExampleEncoder(byte_level_tokenizer(template))


def item(row_id, prompt, *completions):
    return TrainingItem(Example(row_id, prompt, completions))


@pytest.mark.parametrize(
    ("labels", "row", "scores"),
    [
        ("soft", pair(0.75), (0.75, 0.25)),
        ("hard", pair(0.75), (1.0, 0.0)),
        ("hard", pair(0.25), (0.0, 1.0)),
        ("human", pair(0.75, votes=(A, B, B, TIE)), (0.375, 0.625)),
    ],
)
def test_a_pair_has_the_probability_that_each_response_is_preferred(labels, row, scores):
    assert scored_responses(row, labels) == (("red", "blue"), scores)


def test_a_pair_that_has_no_hard_label_was_to_be_left_out():
    with pytest.raises(ValueError, match="'r' is a tie"):
        scored_responses(pair(0.5), "hard")
    with pytest.raises(ValueError, match="no human label"):
        scored_responses(pair(0.5), "human")


def test_other_rows_have_what_they_bring():
    rated = RatedCandidates(Candidates("c", PROMPT, ("red", "blue", "green")), (3.0, 1.0, 2.5))
    assert scored_responses(rated, "soft") == (("red", "blue", "green"), (3.0, 1.0, 2.5))
    assert scored_responses(Feedback("f", PROMPT, "red", is_desirable=True), "soft") == (("red",), (1.0,))
    assert scored_responses(Feedback("f", PROMPT, "red", is_desirable=False), "soft") == (("red",), (0.0,))
    assert scored_responses(Demonstration("d", PROMPT, "red"), "soft") == (("red",), ())


def test_rows_keep_their_order_ids_and_margins():
    rows = [pair(row_id="x", margin=0.5), pair(row_id="y"), Demonstration("z", PROMPT, "red")]
    done = []
    items, truncation = make_items(
        rows, encoder(), "soft", max_length=100, on_progress=lambda count, total: done.append((count, total))
    )
    assert [one.example.id for one in items] == ["x", "y", "z"]
    assert [one.margin for one in items] == [0.5, 0.0, 0.0]
    assert [len(one.example.completions) for one in items] == [2, 2, 1]
    assert done == [(1, 3), (2, 3), (3, 3)]
    assert str(truncation) == "nothing was cut"


def test_exchanging_a_and_b_exchanges_completions_and_scores():
    one, _ = make_items([pair(0.75)], encoder(), "soft", max_length=100)
    other, _ = make_items([pair(0.25, responses=("blue", "red"))], encoder(), "soft", max_length=100)
    assert other[0].example.completions == one[0].example.completions[::-1]
    assert other[0].scores == one[0].scores[::-1]


@pytest.mark.parametrize("template", [None, CHAT_TEMPLATE])
def test_a_tokenizer_with_or_without_chat_template_encodes_rows(template):
    (found,), _ = make_items([pair()], encoder(template), "soft", max_length=400)
    tokenizer = byte_level_tokenizer(template)
    text = tokenizer.decode(found.example.prompt)
    assert "Name a colour." in text
    assert ("assistant" in text) == (template is not None)
    assert tokenizer.decode(found.example.completions[0]).startswith("red")


def test_what_is_cut_is_counted():
    rows = [pair(responses=("red" * 10, "b")), pair(responses=("r", "b")), pair(responses=("red" * 9, "blue" * 9))]
    long = max(len(one.example.prompt) for one in make_items(rows, encoder(), "soft", max_length=100)[0])
    items, truncation = make_items(rows, encoder(), "soft", max_length=long + 10, cut="completion")
    # "red" * 10 and EOS are 31 tokens, "red" * 9 28, "blue" * 9 37.
    assert truncation == Truncation(long + 10, 0, 0, 3, 21 + 18 + 27)
    assert str(truncation) == f"cut to {long + 10} tokens: 3 responses by 66 tokens in all"
    assert [one.example.length for one in items] == [long + 10, long + 2, long + 10]
    eos = byte_level_tokenizer(None).eos_token_id
    assert [eos in completion for completion in items[0].example.completions] == [False, True]
    items, truncation = make_items(rows, encoder(), "soft", max_length=40, cut="prompt")
    # Prompts of 14 tokens: 40 leave 9, all and 3.
    assert truncation == Truncation(40, 2, 5 + 11, 0, 0)
    assert [len(one.example.prompt) for one in items] == [9, 14, 3]


def test_rows_that_do_not_fit_are_refused_all_at_once():
    rows = [pair(row_id="short", responses=("r", "b")), *(pair(row_id=f"long {number}") for number in range(3))]
    with pytest.raises(PromptTooLongError, match=r"3 of 4 rows are too long, the first: .*'long 0'.*--max-length"):
        make_items(rows, encoder(), "soft", max_length=17)
    with pytest.raises(PromptTooLongError, match=r"4 of 4 rows .* leaves nothing of the completion") as refused:
        make_items(rows, encoder(), "soft", max_length=14, cut="completion")
    assert "--truncate prompt" in str(refused.value)
    assert "--truncate completion" not in str(refused.value)


def test_mismatched_responses_are_drawn_once_and_come_from_another_prompt():
    items = [item(f"r{number}", (number % 4, 50), (10 + number, 99)) for number in range(8)]
    paired = with_mismatches(items, 3, max_length=10)
    assert paired == with_mismatches(items, 3, max_length=10)
    assert paired != with_mismatches(items, 4, max_length=10)
    by_completion = {one.example.completions: one.example.prompt for one in items}
    for one, before in zip(paired, items, strict=True):
        assert (one.example, one.scores) == (before.example, before.scores)
        assert one.mismatched is not None
        assert one.mismatched.example.prompt == one.example.prompt
        assert by_completion[one.mismatched.example.completions] != one.example.prompt


def test_mismatched_responses_are_cut_where_their_new_prompt_is_longer():
    items = [item("long", tuple(range(8)), (20, 99)), item("short", (1,), tuple(range(30, 38)))]
    long, _ = with_mismatches(items, 0, max_length=10)
    assert long.mismatched is not None
    assert long.mismatched.example.completions == ((30, 31),)
    assert items[1].example.completions == (tuple(range(30, 38)),)


def test_rows_of_one_prompt_have_no_mismatch():
    with pytest.raises(ConfigError, match="all rows have one prompt"):
        with_mismatches([item("a", (1,), (2,)), item("b", (1,), (3,))], 0, max_length=10)


def test_the_reference_is_asked_once_for_rows_and_their_mismatches():
    items = with_mismatches([item("a", (1,), (2, 9), (3, 9)), item("b", (4,), (5, 9))], 0, max_length=10)
    asked = []

    def ask(examples):
        asked.append([example.id for example in examples])
        return [tuple(float(sum(completion)) for completion in example.completions) for example in examples]

    found = with_references(items, ask)
    assert asked == [["a", "b", "a with b", "b with a"]]
    assert [one.reference for one in found] == [(11.0, 12.0), (14.0,)]
    assert [one.mismatched.reference for one in found] == [(14.0,), (11.0, 12.0)]
    plain = with_references([item("a", (1,), (2, 9))], ask)
    assert (plain[0].reference, plain[0].mismatched) == ((11.0,), None)


def test_what_a_tie_is_was_for_the_filters_to_say():
    assert scored_responses(pair(0.5 + 1e-12), "hard").scores == (1.0, 0.0)
    with pytest.raises(ValueError, match="is a tie, which has no hard label"):
        scored_responses(pair(0.5), "hard")


def test_the_balance_of_ktos_classes_counts_soft_labels_on_both_sides() -> None:
    def scored(*scores):
        return TrainingItem(Example("r", (1,), ((2,),) * len(scores)), scores)

    assert kto_balance([scored(0.8, 0.2), scored(1.0, 0.0)], 1.0, 1.0) == pytest.approx(1.0)
    assert kto_balance([scored(1.0), scored(1.0), scored(0.25)], 2.0, 3.0) == pytest.approx(2 * 2.25 / (3 * 0.75))
    assert kto_balance([scored(1.0)], 1.0, 1.0) == math.inf
