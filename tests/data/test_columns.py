"""What comparisons and rows to be rated have in common, tried on both."""

import pytest

from rlaif.data.candidates import CandidatesReader
from rlaif.data.columns import described
from rlaif.data.comparisons import ComparisonReader
from rlaif.errors import ConfigError, InputError
from rlaif.records import Turn

COMPARISON = {"prompt": "P", "response_a": "x", "response_b": "y"}
ONE = {"prompt": "P", "response": "x"}
SEVERAL = {"prompt": "P", "responses": ["x", "y"]}

each_kind = pytest.mark.parametrize(
    ("kind", "base"), [(ComparisonReader, COMPARISON), (CandidatesReader, ONE), (CandidatesReader, SEVERAL)]
)


def read(kind, row, **options):
    return kind("in.jsonl", **options).read(7, row)[0]


def fault(kind, row, **options):
    with pytest.raises(InputError) as caught:
        read(kind, row, **options)
    assert str(caught.value).startswith("in.jsonl, line 7")
    return caught.value


@each_kind
class TestPrompts:
    @pytest.mark.parametrize("name", ["prompt", "instruction", "question", "input"])
    def test_aliases(self, kind, base, name):
        renamed = {name if key == "prompt" else key: value for key, value in base.items()}
        assert read(kind, renamed) == read(kind, base)

    def test_two_aliases_are_ambiguous_unless_one_is_chosen(self, kind, base):
        row = {key: value for key, value in base.items() if key != "prompt"} | {"input": "Q", "question": "P"}
        assert fault(kind, row).reason == "could be question or input; choose with --columns prompt=question"
        chosen = read(kind, row, columns={"prompt": "question"})
        assert chosen.prompt == (Turn("user", "P"),)
        assert chosen.extra == {"input": "Q"}

    def test_none_at_all(self, kind, base):
        error = fault(kind, {key: value for key, value in base.items() if key != "prompt"})
        assert error.column == "prompt"
        assert error.reason.startswith("is missing (also taken: instruction, question, input); the row has: ")

    def test_messages(self, kind, base):
        turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]
        record = read(kind, base | {"prompt": turns})
        assert record.prompt == (Turn("system", "S"), Turn("user", "P"))
        assert record.is_conversational
        assert not read(kind, base).is_conversational

    @pytest.mark.parametrize(
        ("prompt", "reason"),
        [
            (None, "is null, expected a text or a list of {role, content} messages"),
            ([], "is an empty list, expected a text"),
            ([{"role": "bot", "content": "x"}], "message 1 has the role 'bot', expected one of system, developer"),
            ([{"role": "user"}], "message 1 is an object with role, expected {role, content}"),
        ],
    )
    def test_what_no_prompt_is(self, kind, base, prompt, reason):
        error = fault(kind, base | {"prompt": prompt})
        assert error.column == "prompt"
        assert error.reason.startswith(reason)


@each_kind
class TestIds:
    def test_made_from_the_content_alone(self, kind, base):
        made = read(kind, base).id
        assert len(made) == 16
        assert made == read(kind, base | {"more": 1, "id": None}).id
        assert made != read(kind, base | {"prompt": "Q"}).id

    def test_given(self, kind, base):
        assert read(kind, base | {"id": 12}).id == "12"
        assert read(kind, {**base, "key": "k"}, columns={"id": "key"}).id == "k"
        error = fault(kind, base | {"id": ""})
        assert (error.column, error.reason) == ("id", "is empty, expected a text that no other row has, or null")

    def test_repeated_content_gets_a_suffix(self, kind, base):
        made = read(kind, base).id
        reader = kind("in", repeated_ids={made: 0})
        assert [reader.read(1, base)[0].id for _ in range(3)] == [made, f"{made}-2", f"{made}-3"]

    def test_half_a_surrogate_pair_is_refused(self, kind, base):
        assert "not valid Unicode" in fault(kind, base | {"prompt": "\ud800"}).reason


@each_kind
def test_renaming_to_a_name_that_is_not_ours(kind, base):
    with pytest.raises(ConfigError, match="--columns names 'promt', expected one of id, prompt, response"):
        kind("in.jsonl", columns={"promt": "x"})


@each_kind
def test_a_path_that_leads_nowhere(kind, base):
    error = fault(kind, base, columns={"prompt": "meta.text"})
    assert (error.column, error.reason) == ("meta.text", f"is missing; the row has: {', '.join(base)}")


@each_kind
def test_columns_named_by_no_text(kind, base):
    assert fault(kind, base | {3: "x"}).reason.startswith("has columns that are not named by texts: 'prompt', ")


@each_kind
def test_rows_whose_keys_are_all_new_do_not_fill_the_memory(kind, base):
    reader = kind("in")
    for number in range(2_500):
        reader.read(number + 1, base | {f"column {number}": number})
    assert len(reader._plans) <= 1_000


def test_ids_tell_the_kinds_of_rows_apart():
    pair = read(ComparisonReader, COMPARISON).id
    several = read(CandidatesReader, SEVERAL).id
    one_of_list = read(CandidatesReader, SEVERAL | {"responses": ["x"]}).id
    assert len({pair, several, one_of_list, read(CandidatesReader, ONE).id}) == 4


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "null"), (float("nan"), "NaN"), ({}, "an object with no keys"), ([1], "a list of 1"), ("x" * 99, "...")],
)
def test_values_in_a_few_words(value, words):
    assert described(value).endswith(words)
    assert len(described(value)) <= 40
