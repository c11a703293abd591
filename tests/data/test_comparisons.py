import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.comparisons import ComparisonReader, plurality
from rlaif.errors import ConfigError, InputError
from rlaif.records import Turn, Verdict

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE
BASE = {"prompt": "P", "response_a": "x", "response_b": "y"}


def read(row, **options):
    return ComparisonReader("in.jsonl", **options).read(7, row)[0]


def fault(row, **options):
    with pytest.raises(InputError) as caught:
        read(row, **options)
    assert caught.value.line == 7
    assert str(caught.value).startswith("in.jsonl, line 7")
    return caught.value


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


class TestNames:
    @pytest.mark.parametrize("prompt", ["prompt", "instruction", "question", "input"])
    @pytest.mark.parametrize(
        "pair",
        [
            ("response_a", "response_b"),
            ("response_1", "response_2"),
            ("output_1", "output_2"),
            ("completion_a", "completion_b"),
        ],
    )
    def test_aliases(self, prompt, pair):
        comparison = read({prompt: "P", pair[0]: "x", pair[1]: "", "more": 1})
        assert comparison.prompt == (Turn("user", "P"),)
        assert (comparison.response_a, comparison.response_b) == ("x", "")
        assert comparison.extra == {"more": 1}
        assert not comparison.is_conversational

    def test_our_own_name_comes_before_an_alias_which_is_then_kept(self):
        comparison = read(BASE | {"input": "context", "response_1": "old"})
        assert comparison.prompt[0].content == "P"
        assert comparison.extra == {"input": "context", "response_1": "old"}

    def test_two_aliases_are_ambiguous(self):
        error = fault({"instruction": "P", "input": "Q", "response_a": "x", "response_b": "y"})
        assert error.reason == "could be instruction or input; choose with --columns prompt=instruction"
        error = fault({"prompt": "P", "output_1": "x", "output_2": "y", "chosen": "x", "rejected": "y"})
        assert "could be output_1/output_2 or chosen/rejected; choose with --columns response_a=output_1" in str(error)

    def test_renaming_chooses_and_frees_the_old_name(self):
        row = {"instruction": "P", "input": "Q", "left": "x", "right": "y", "prompt": "other"}
        comparison = read(row, columns={"prompt": "instruction", "response_a": "left", "response_b": "right"})
        assert comparison.prompt[0].content == "P"
        assert (comparison.response_a, comparison.response_b) == ("x", "y")
        assert comparison.extra == {"input": "Q", "prompt": "other"}

    def test_renaming_reaches_inside(self):
        row = {"task": {"text": "P"}, "out": [{"t": "x"}, {"t": "y"}], "meta": {"who": "r1"}}
        columns = {"prompt": "task.text", "response_a": "out.0.t", "response_b": "out.1.t", "id": "meta.who"}
        comparison = read(row, columns=columns)
        assert (comparison.id, comparison.prompt[0].content) == ("r1", "P")
        assert (comparison.response_a, comparison.response_b) == ("x", "y")
        assert comparison.extra == row
        error = fault({**row, "task": {}}, columns=columns)
        assert (error.column, error.reason) == ("task.text", "is missing; the row has: task, out, meta")

    def test_renaming_to_a_name_that_is_not_ours(self):
        with pytest.raises(ConfigError, match="--columns names 'promt', expected one of id, prompt, response_a"):
            ComparisonReader("in.jsonl", columns={"promt": "x"})

    @pytest.mark.parametrize(
        ("row", "column", "reason"),
        [
            ({"response_a": "x", "response_b": "y"}, "prompt", "is missing (also taken: instruction"),
            ({"prompt": "P", "response_a": "x"}, "response_b", "is missing beside 'response_a'; the row has: prompt"),
            ({"prompt": "P", "rejected": "x"}, "chosen", "is missing beside 'rejected'"),
            ({"prompt": "P"}, "response_a", "is missing, and response_b too (also taken: response_1/response_2"),
            (
                {"prompt": "P", "responses": ["x", "y"]},
                "response_a",
                "is missing, and response_b too, but there is resp",
            ),
            ({}, "response_a", "the row has: nothing"),
        ],
    )
    def test_missing_columns(self, row, column, reason):
        error = fault(row)
        assert error.column == column
        assert reason in error.reason

    def test_a_missing_half_of_a_renamed_pair(self):
        error = fault({"prompt": "P", "left": "x"}, columns={"response_a": "left"})
        assert (error.column, error.reason) == ("response_b", "is missing; the row has: left, prompt")


class TestTexts:
    def test_a_prompt_of_messages(self):
        comparison = read(BASE | {"prompt": [{"role": "system", "content": "S"}, user("P") | {"name": "ann"}]})
        assert comparison.prompt == (Turn("system", "S"), Turn("user", "P"))
        assert comparison.is_conversational

    def test_a_response_as_a_message_or_a_list_with_one(self):
        comparison = read(BASE | {"response_a": assistant("x"), "response_b": [assistant("y")]})
        assert (comparison.response_a, comparison.response_b) == ("x", "y")

    def test_empty_texts_are_texts(self):
        comparison = read({"prompt": "", "response_a": "", "response_b": ""})
        assert (comparison.prompt, comparison.response_a) == ((Turn("user", ""),), "")

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"prompt": None}, "is null, expected a text or a list of {role, content} messages"),
            ({"prompt": float("nan")}, "is NaN, expected a text"),
            ({"prompt": 3}, "is 3, expected a text"),
            ({"prompt": []}, "is an empty list, expected a text"),
            ({"prompt": {"text": "P"}}, "is an object with text, expected a text"),
            ({"prompt": ["P"]}, "message 1 is 'P', expected {role, content}"),
            ({"prompt": [user("P"), {"role": "bot", "content": "x"}]}, "message 2 has the role 'bot', expected one of"),
            ({"prompt": [user(None)]}, "message 1 has null for content, expected a text"),
            ({"response_a": None}, "is null, expected a text or an assistant message"),
            ({"response_b": 1.5}, "is 1.5, expected a text or an assistant message"),
            ({"response_a": user("x")}, "holds messages of user, expected one assistant message"),
            ({"response_a": [assistant("x"), assistant("y")]}, "holds messages of assistant, assistant, expected one"),
        ],
    )
    def test_wrong_types(self, changed, reason):
        error = fault(BASE | changed)
        assert error.reason.startswith(reason)
        assert error.column == next(iter(changed))


class TestRanked:
    SEEDS = range(40)

    def sides(self, row):
        """What A and B become over many seeds: {(a, b, label)}."""
        found = [read(row, seed=seed) for seed in self.SEEDS]
        return {(each.response_a, each.response_b, each.human_label) for each in found}

    def test_which_becomes_a_is_drawn_and_the_label_follows(self):
        row = {"id": "r", "prompt": "P", "chosen": "good", "rejected": "bad"}
        assert self.sides(row) == {("good", "bad", A), ("bad", "good", B)}
        assert read(row, seed=3) == read(row, seed=3)
        assert read(row).extra == {}

    def test_the_draw_is_the_rows_own(self):
        rows = [{"id": f"r{n}", "prompt": "P", "chosen": "good", "rejected": "bad"} for n in range(200)]
        reader = ComparisonReader("in")
        labels = [reader.read(1, row)[0].human_label for row in rows]
        backwards = ComparisonReader("in")
        assert labels == [backwards.read(1, row)[0].human_label for row in reversed(rows)][::-1]
        assert 70 < labels.count(A) < 130  # 4 standard deviations of 7.1 around 100

    def test_a_transcript_holds_its_prompt(self):
        start = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: Why?\n\nAssistant:"
        comparison = read({"chosen": f"{start} Because.", "rejected": f"{start}  No idea \n"})
        assert comparison.prompt == (Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "Why?"))
        assert {comparison.response_a, comparison.response_b} == {"Because.", " No idea \n"}
        assert comparison.is_conversational

    def test_an_empty_last_turn_is_an_empty_response(self):
        start = "\n\nHuman: Hi\n\nAssistant:"
        comparison = read({"chosen": f"{start} Hello.", "rejected": start})
        assert {comparison.response_a, comparison.response_b} == {"Hello.", ""}

    def test_message_lists_with_and_without_the_prompt(self):
        full = {"chosen": [user("Q"), assistant("g")], "rejected": [user("Q"), assistant("b")]}
        for row in (full, full | {"prompt": "Q"}, full | {"prompt": [user("Q")]}):
            comparison = read(row)
            assert comparison.prompt == (Turn("user", "Q"),)
            assert {comparison.response_a, comparison.response_b} == {"g", "b"}
        assert not read(full | {"prompt": "Q"}).is_conversational
        assert read(full).is_conversational
        alone = read({"prompt": "Q", "chosen": [assistant("g")], "rejected": assistant("b")})
        assert {alone.response_a, alone.response_b} == {"g", "b"}

    def test_a_text_prompt_may_be_the_last_of_the_messages(self):
        before = [{"role": "system", "content": "S"}, user("Q")]
        row = {"prompt": "Q", "chosen": [*before, assistant("g")], "rejected": [*before, assistant("b")]}
        assert read(row).prompt == (Turn("system", "S"), Turn("user", "Q"))

    def test_the_inputs_votes_name_no_side_here_and_are_kept_as_they_are(self):
        row = {"prompt": "P", "chosen": "g", "rejected": "b", "human_votes": ["a"], "human_label": "b"}
        comparison = read(row)
        assert comparison.extra == {"human_votes": ["a"], "human_label": "b"}
        assert comparison.human_votes == ()

    @pytest.mark.parametrize(
        ("row", "column", "reason"),
        [
            ({"chosen": "g", "rejected": "b"}, "chosen", "is a text without a prompt in it"),
            ({"chosen": [assistant("g")], "rejected": [assistant("b")]}, "chosen", "holds no prompt and the row has"),
            (
                {"chosen": [user("Q"), assistant("g")], "rejected": [user("R"), assistant("b")]},
                "rejected",
                "begins with other messages than 'chosen'",
            ),
            (
                {"prompt": "Z", "chosen": [user("Q"), assistant("g")], "rejected": [user("Q"), assistant("b")]},
                "chosen",
                "begins with other messages than 'prompt'",
            ),
            ({"prompt": "P", "chosen": [user("g")], "rejected": "b"}, "chosen", "ends with a message of user"),
            ({"prompt": None, "chosen": "g", "rejected": "b"}, "prompt", "is null"),
            ({"prompt": "P", "chosen": None, "rejected": "b"}, "chosen", "is null"),
        ],
    )
    def test_faults(self, row, column, reason):
        error = fault(row)
        assert error.column == column
        assert error.reason.startswith(reason)


class TestPeople:
    @pytest.mark.parametrize(
        ("votes", "expected", "label"),
        [
            (["a", "a", "b"], (A, A, B), A),
            ([1, 2, 2], (A, B, B), B),
            ([0, "tie", 1], (TIE, TIE, A), TIE),
            (["a", "b"], (A, B), None),
            ([1, 2, 0], (A, B, TIE), None),
            ([], (), None),
            (None, (), None),
            (float("nan"), (), None),
            ([1.0, 2.0, 1.0], (A, B, A), A),
            ('["a", "tie", "tie"]', (A, TIE, TIE), TIE),
            ("1, 1", (A, A), A),
            ("2.0, 0.0", (B, TIE), None),
            ("", (), None),
            ("[]", (), None),
        ],
    )
    def test_votes_and_their_strict_plurality(self, votes, expected, label):
        comparison = read(BASE | {"human_votes": votes})
        assert (comparison.human_votes, comparison.human_label) == (expected, label)

    @pytest.mark.parametrize(
        ("given_label", "label"),
        [
            ("a", A), (1, A), ("2", B), ("tie", TIE), (0, TIE), (None, None), (float("nan"), None), ("", None),
            (1.0, A), ("1.0", A), ("2.0", B), ("0.0", TIE),  # a column with nulls becomes floats on its way to CSV
        ],
    )  # fmt: skip
    def test_labels(self, given_label, label):
        assert read(BASE | {"human_label": given_label}).human_label is label
        assert read(BASE | {"human_label": given_label, "human_votes": []}).human_label is label

    def test_votes_come_before_the_label(self):
        assert read(BASE | {"human_label": "b", "human_votes": ["a"]}).human_label is A
        assert read(BASE | {"human_label": "b", "human_votes": ["a", "b"]}).human_label is None

    @pytest.mark.parametrize(
        ("changed", "reason"),
        [
            ({"human_label": "A wins"}, "holds 'A wins', expected 'a', 'b' or 'tie' (or 1, 2, 0)"),
            ({"human_label": True}, "holds True, expected"),
            ({"human_label": 3}, "holds 3, expected"),
            ({"human_votes": ["a", "c"]}, "holds 'c', expected"),
            ({"human_votes": ["a", None]}, "holds null, expected"),
            ({"human_votes": [["a"]]}, "holds a list of 1, expected"),
            ({"human_votes": 2}, "is 2, expected a list of"),
        ],
    )
    def test_what_no_vote_is(self, changed, reason):
        error = fault(BASE | changed)
        assert error.column == next(iter(changed))
        assert error.reason.startswith(reason)

    @settings(deadline=None)
    @given(st.lists(st.sampled_from(list(Verdict))))
    def test_exchanging_a_and_b_exchanges_the_plurality(self, votes):
        other = {A: B, B: A, TIE: TIE}
        swapped = plurality(other[vote] for vote in votes)
        label = plurality(votes)
        assert swapped is (None if label is None else other[label])


class TestIds:
    def test_an_id_made_from_content_is_stable_and_follows_the_content(self):
        made = read(BASE).id
        assert made == read(BASE | {"extra": 1}).id == read({"question": "P", "output_1": "x", "output_2": "y"}).id
        assert len(made) == 16
        assert int(made, 16) >= 0
        others = [BASE | change for change in ({"prompt": "Q"}, {"response_a": "z"}, {"response_b": "z"})]
        others.append({"prompt": "P", "response_a": "y", "response_b": "x"})
        others.append({"prompt": "P", "chosen": "x", "rejected": "y"})
        assert len({made, *(read(row).id for row in others)}) == 6

    @pytest.mark.parametrize("given_id", [None, float("nan")])
    def test_a_missing_id_is_made(self, given_id):
        assert read(BASE | {"id": given_id}).id == read(BASE).id

    def test_numbers_become_text_and_other_things_are_refused(self):
        assert read(BASE | {"id": 12}).id == "12"
        assert read(BASE | {"id": "x y"}).id == "x y"
        for wrong, reason in ((True, "is True"), (1.5, "is 1.5"), ("", "is empty"), (["x"], "is a list of 1")):
            error = fault(BASE | {"id": wrong})
            assert error.column == "id"
            assert error.reason.startswith(f"{reason}, expected a text")


def test_a_row_says_whether_it_brings_chosen_and_rejected():
    reader = ComparisonReader("rows")
    assert not reader.is_ranked(BASE)
    assert reader.is_ranked({"prompt": "P", "chosen": "x", "rejected": "y"})
    assert not reader.is_ranked(BASE | {"chosen": "x", "rejected": "y"})
