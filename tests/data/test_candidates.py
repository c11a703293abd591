import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.candidates import CandidatesReader
from rlaif.errors import ConfigError, InputError
from rlaif.records import Turn


def read(row, **options):
    return CandidatesReader("in.jsonl", **options).read(7, row)[0]


def fault(row, **options):
    with pytest.raises(InputError) as caught:
        read(row, **options)
    assert str(caught.value).startswith("in.jsonl, line 7")
    return caught.value


def assistant(text):
    return {"role": "assistant", "content": text}


class TestOneResponse:
    @pytest.mark.parametrize("name", ["response", "completion", "output", "answer"])
    def test_aliases(self, name):
        found = read({"prompt": "P", name: "x", "rating": 3})
        assert (found.prompt, found.responses) == ((Turn("user", "P"),), ("x",))
        assert found.is_single
        assert found.extra == {"rating": 3}

    def test_our_own_name_comes_before_an_alias_which_is_then_kept(self):
        found = read({"prompt": "P", "response": "x", "answer": "42"})
        assert (found.responses, found.extra) == (("x",), {"answer": "42"})

    def test_two_aliases_are_ambiguous(self):
        error = fault({"prompt": "P", "completion": "x", "answer": "42"})
        assert error.reason == "could be completion or answer; choose with --columns response=completion"

    def test_as_a_message_or_a_list_with_one(self):
        for value in (assistant("x"), [assistant("x")]):
            assert read({"prompt": "P", "response": value}).responses == ("x",)

    def test_empty_text_is_a_response(self):
        assert read({"prompt": "P", "response": ""}).responses == ("",)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "is null, expected a text or an assistant message"),
            (3, "is 3, expected a text or an assistant message"),
            ([{"role": "user", "content": "x"}], "holds messages of user, expected one assistant message"),
            (["x", "y"], "is a list of 2, expected a text or an assistant message; choose a column of lists with "
                         "--columns responses=response"),
        ],
    )  # fmt: skip
    def test_what_no_response_is(self, value, reason):
        error = fault({"prompt": "P", "response": value})
        assert (error.column, error.reason) == ("response", reason)


class TestSeveralResponses:
    def test_texts_and_messages(self):
        row = {"prompt": "P", "responses": ["x", assistant("y"), [assistant("")]], "policies": ["a", "b", "c"]}
        found = read(row)
        assert found.responses == ("x", "y", "")
        assert not found.is_single
        assert found.extra == {"policies": ["a", "b", "c"]}

    def test_one_response_in_a_list_stays_a_list(self):
        found = read({"prompt": "P", "responses": ["x"]})
        assert (found.responses, found.is_single) == (("x",), False)

    def test_an_alias_beside_them_is_a_column_like_others(self):
        assert read({"prompt": "P", "responses": ["x"], "answer": "42"}).extra == {"answer": "42"}

    def test_a_renamed_list(self):
        row = {"prompt": "P", "out": {"texts": ["x", "y"]}}
        found = read(row, columns={"responses": "out.texts"})
        assert (found.responses, found.is_single, found.extra) == (("x", "y"), False, {"out": row["out"]})

    def test_csv_has_no_lists(self):
        assert read({"prompt": "P", "responses": '["x", "y, z"]'}).responses == ("x", "y, z")

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ([], "is an empty list, expected a list of texts or assistant messages, at least one"),
            (None, "is null, expected a list of texts or assistant messages, at least one"),
            ("x", "is 'x', expected a list of texts or assistant messages, at least one"),
            ("[x", "is '[x', expected a list of texts or assistant messages, at least one"),
            (assistant("x"), "is an object with role, content, expected a list of texts"),
            (["x", None], "response 2 is null, expected a text or an assistant message"),
            (["x", 3], "response 2 is 3, expected a text or an assistant message"),
            (["x", {"role": "user", "content": "y"}], "response 2 holds messages of user, expected one assistant"),
        ],
    )
    def test_what_no_list_of_responses_is(self, value, reason):
        error = fault({"prompt": "P", "responses": value})
        assert error.column == "responses"
        assert error.reason.startswith(reason)

    @settings(deadline=None)
    @given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=5))
    def test_every_text_is_kept_as_it_is_in_its_place(self, texts):
        assert read({"prompt": "P", "responses": texts}).responses == tuple(texts)


BOTH = {"prompt": "P", "response": "x", "responses": ["y", "z"]}


class TestWhichKind:
    def test_both_columns_are_ambiguous_and_say_how_to_choose(self):
        error = fault(BOTH)
        assert error.reason == (
            "could be 'response' or 'responses'; choose with --columns response=response or "
            "--columns responses=responses"
        )
        one = read(BOTH, columns={"response": "response"})
        assert (one.responses, one.extra) == (("x",), {"responses": ["y", "z"]})
        several = read(BOTH, columns={"responses": "responses"})
        assert (several.responses, several.extra) == (("y", "z"), {"response": "x"})

    def test_choosing_both_is_a_fault_of_the_flag(self):
        with pytest.raises(ConfigError, match="--columns names both 'response' and 'responses', expected one of them"):
            CandidatesReader("in", columns={"response": "a", "responses": "b"})

    @pytest.mark.parametrize(
        ("first", "second", "column", "reason"),
        [
            ({"response": "x"}, {"responses": ["x"]}, "responses", "holds a list of responses where the first row has"),
            ({"responses": ["x"]}, {"answer": "x"}, "answer", "holds one response where the first row has a list"),
        ],
    )
    def test_the_first_row_decides(self, first, second, column, reason):
        reader = CandidatesReader("in")
        reader.read(1, {"prompt": "P", **first})
        with pytest.raises(InputError, match=f"in, line 2, column '{column}': {reason}"):
            reader.read(2, {"prompt": "P", **second})
        assert reader.read(3, {"prompt": "Q", **first})[0].responses == ("x",)

    def test_neither(self):
        error = fault({"prompt": "P", "chosen": "x", "rejected": "y"})
        assert (error.column, error.reason) == (
            "response",
            "is missing, and responses too (also taken: completion, output, answer); "
            "the row has: chosen, prompt, rejected",
        )


def test_ids_follow_the_responses_and_their_order():
    rows = [["x", "y"], ["y", "x"], ["x"], ["x", "y", ""]]
    assert len({read({"prompt": "P", "responses": each}).id for each in rows}) == 4
    assert read({"prompt": "P", "response": "x"}).id == read({"question": "P", "answer": assistant("x")}).id
