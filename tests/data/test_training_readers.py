"""The columns of pairs, feedback, rated candidates and demonstrations: what they come to, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.training_methods import METHODS, MethodNeeds, RowKind
from rlaif.errors import ConfigError, InputError
from rlaif.records import Candidates, Comparison, Turn, Verdict
from rlaif.training_records import Demonstration, Feedback, LabeledPair, RatedCandidates
from tests.data.training_inputs import WRITERS, assistant, fault, pair, read, user, write_jsonl, write_parquet

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Writes rows to a file of each format."""
    return lambda rows: WRITERS[request.param](tmp_path / request.param, rows)


class TestPairs:
    def test_of_every_format(self, write):
        rows = [
            pair(1, prob_a=0.75, human_label="b", human_votes=["a", "b", "b"]),
            pair(2, prob_a=0.0, human_label="tie", human_votes=["tie"]),
        ]
        first, second = read(write(rows))
        assert first == LabeledPair(
            Comparison("r1", (Turn("user", "P1"),), "x", "y", human_votes=(A, B, B), human_label=B), 0.75
        )
        assert (second.prob_a, second.comparison.human_label) == (0.0, TIE)
        assert (first.id, first.prompt) == ("r1", (Turn("user", "P1"),))

    def test_other_columns_are_not_kept(self):
        (found,) = read([pair(prob_a=0.5, rationale_ab="long", margin=-3)])
        assert (found.comparison.extra, found.margin) == ({}, None)

    @pytest.mark.parametrize("seed", range(6))
    def test_chosen_is_a_hard_label_of_people_whichever_side_it_is_drawn_to(self, seed):
        rows = [{"prompt": f"P{n}", "chosen": "good", "rejected": "bad"} for n in range(8)]
        found = read(rows, seed=seed)
        for each in found:
            is_a = each.comparison.response_a == "good"
            assert each.prob_a == (1.0 if is_a else 0.0)
            assert each.comparison.human_label is (A if is_a else B)
        assert {each.prob_a for each in found} == {0.0, 1.0}
        assert read(rows, labels="human", seed=seed) == found

    @pytest.mark.parametrize("seed", range(4))
    def test_the_probability_beside_chosen_is_a_judges(self, seed):
        rows = [{"prompt": f"P{n}", "chosen": "good", "rejected": "bad", "chosen_prob": 0.75} for n in range(8)]
        for each in read(rows, seed=seed):
            assert each.prob_a == (0.75 if each.comparison.response_a == "good" else 0.25)
            assert not each.has_human_label
        assert fault(rows, labels="human").column == "human_label"

    def test_prob_a_beside_only_chosen_and_rejected_says_nothing(self):
        row = {"prompt": "P", "chosen": "x", "rejected": "y", "prob_a": 0.7}
        error = fault([row])
        assert (error.line, error.column) == (1, "prob_a")
        assert "which of them it calls A is not said" in error.reason
        (found,) = read([row], columns={"response_a": "chosen", "response_b": "rejected"})
        assert (found.comparison.response_a, found.prob_a, found.comparison.human_label) == ("x", 0.7, None)

    def test_transcripts_and_message_lists(self):
        (one,) = read([{"chosen": "\n\nHuman: Hi\n\nAssistant: good", "rejected": "\n\nHuman: Hi\n\nAssistant: bad"}])
        (two,) = read([{"chosen": [user("Hi"), assistant("good")], "rejected": [user("Hi"), assistant("bad")]}])
        for found in (one, two):
            assert found.prompt == (Turn("user", "Hi"),)
            assert {found.comparison.response_a, found.comparison.response_b} == {"good", "bad"}

    def test_renamed_and_nested(self):
        row = {"q": "P", "left": "x", "right": "y", "judge": {"gpt-4.1": {"p": 0.125}}, "lead": 2}
        columns = {
            "prompt": "q", "response_a": "left", "response_b": "right", "prob_a": "judge.gpt-4.1.p", "margin": "lead",
        }  # fmt: skip
        (found,) = read([row], "rm", columns=columns, with_margins=True)
        assert (found.prob_a, found.margin, found.prompt) == (0.125, 2.0, (Turn("user", "P"),))

    def test_the_ends_of_the_scale_and_texts_of_numbers(self):
        found = read([pair(n, prob_a=prob) for n, prob in enumerate([0, 1, 0.0, 1.0, "0.25", 5e-324])])
        assert [each.prob_a for each in found] == [0.0, 1.0, 0.0, 1.0, 0.25, 5e-324]

    @pytest.mark.parametrize(
        "value", [-1e-9, 1.0000001, 2, "1.5", "high", True, [0.5], {"p": 0.5}, float("inf"), -float("inf"), 10**400]
    )
    def test_what_no_probability_is(self, value):
        error = fault([pair(1, prob_a=0.5), pair(2, prob_a=value)])
        assert (error.path, error.line, error.column) == ("rows", 2, "prob_a")
        assert error.reason.endswith("expected a probability from 0 to 1")

    @pytest.mark.parametrize("value", [None, "", float("nan")])
    @pytest.mark.parametrize("labels", ["soft", "hard"])
    def test_a_row_without_a_label(self, value, labels):
        error = fault([pair(1, prob_a=0.5), pair(2, prob_a=value, human_label="a")], labels=labels)
        assert (error.line, error.column) == (2, "prob_a")
        assert f"that --labels {labels} trains on" in error.reason
        assert "--labels human" in error.reason

    def test_nan_is_said_to_be_nan(self):
        assert fault([pair(prob_a=float("nan"))]).reason.startswith("is NaN, expected the probability")

    def test_a_file_without_labels(self, write):
        error = fault(write([pair()]))
        assert error.reason.startswith("is missing, expected the probability from 0 to 1 that --labels soft trains on")
        assert error.path.endswith(("in.jsonl", "in.csv", "in.parquet"))
        assert error.line == (2 if error.path.endswith("csv") else 1)

    def test_labels_of_people_need_no_judge(self):
        rows = [pair(1, human_votes=["a", "b"]), pair(2, human_label="tie")]
        assert [each.prob_a for each in read(rows, labels="human")] == [None, None]
        error = fault([*rows, pair(3, human_label=None, human_votes=[])], labels="human")
        assert (error.line, error.column) == (3, "human_label")
        assert error.reason.startswith("holds no label, expected human_votes or human_label for --labels human")
        assert fault([pair(prob_a=0.5)], labels="human").reason.startswith("is missing, expected human_votes")

    def test_margins(self):
        (found,) = read([pair(prob_a=1, margin="0.5")], "rm", with_margins=True)
        assert found.margin == 0.5
        for value in (-1, None, float("nan"), float("inf"), "much", True):
            error = fault([pair(prob_a=1, margin=value)], "rm", with_margins=True)
            assert (error.column, error.reason.split(", expected ")[1]) == ("margin", "a number, at least 0")
        assert fault([pair(prob_a=1)], "rm", with_margins=True).reason.startswith("is missing; the row has:")

    @pytest.mark.parametrize("method", [name for name, needs in METHODS.items() if RowKind.PAIRS in needs.kinds])
    def test_an_empty_response_where_the_method_cannot_train_on_it(self, method):
        for side in ("response_a", "response_b"):
            rows = [pair(1, prob_a=0.5), pair(2, prob_a=0.5, **{side: ""})]
            if method in ("ipo", "simpo", "rrhf"):
                error = fault(rows, method)
                assert (error.line, error.column) == (2, side)
                assert f"{method} averages over the tokens of each response" in error.reason
            else:
                assert len(read(rows, method)) == 2

    @pytest.mark.parametrize("seed", range(5))
    def test_the_empty_one_of_chosen_and_rejected_is_named(self, seed):
        assert fault([{"prompt": "P", "chosen": "x", "rejected": ""}], "simpo", seed=seed).column == "rejected"
        assert fault([{"prompt": "P", "chosen": "", "rejected": "x"}], "simpo", seed=seed).column == "chosen"

    def test_a_swap_of_the_file_is_a_swap_of_the_label(self):
        row = pair(prob_a=0.75, human_votes=["a", "a", "b"])
        other = pair(prob_a=0.25, human_votes=["b", "b", "a"], response_a="y", response_b="x")
        (one,), (two,) = read([row]), read([other])
        assert (one.comparison.response_a, one.prob_a) == (two.comparison.response_b, 1.0 - two.prob_a)
        assert (one.comparison.human_label, two.comparison.human_label) == (A, B)


class TestFeedback:
    def test_of_every_format(self, write):
        rows = [{"prompt": "P", "completion": "x", "label": True}, {"prompt": "P", "completion": "y", "label": False}]
        first, second = read(write(rows), "kto")
        assert first == Feedback(first.id, (Turn("user", "P"),), "x", True)
        assert (second.response, second.is_desirable) == ("y", False)
        assert first.id != second.id

    @pytest.mark.parametrize(
        ("value", "is_desirable"),
        [(1, True), (0, False), (1.0, True), (0.0, False), ("true", True), ("False", False), (" TRUE ", True),
         ("1", True), ("0.0", False)],
    )  # fmt: skip
    def test_labels(self, value, is_desirable):
        (found,) = read([{"prompt": "P", "response": "x", "label": value}], "kto")
        assert found.is_desirable is is_desirable

    @pytest.mark.parametrize("value", [None, "", "yes", 2, -1, 0.5, float("nan"), [True], {}, "nan", 10**400])
    def test_what_no_label_is(self, value):
        error = fault([{"prompt": "P", "response": "x", "label": value}], "kto")
        assert (error.line, error.column) == (1, "label")
        assert error.reason.endswith("expected true or false (or 1, 0)")

    def test_renamed_and_conversational(self):
        row = {"prompt": [user("P")], "response": [assistant("x")], "meta": {"liked": "false"}}
        (found,) = read([row], "kto", columns={"label": "meta.liked"})
        assert (found.is_desirable, found.is_conversational, found.response) == (False, True, "x")

    def test_a_row_in_the_middle_without_a_label(self):
        error = fault([{"prompt": "P", "response": "x", "label": 1}, {"prompt": "P", "response": "x"}], "kto")
        assert (error.line, error.column) == (2, "label")
        several = [{"prompt": "P", "responses": ["x"], "label": True}]
        assert fault(several, "kto").reason == "holds several responses, expected one and its label"


class TestCandidates:
    def test_of_every_format(self, write):
        rows = [
            {"id": "1", "prompt": "P", "responses": ["x", "y", "z"], "ratings": [3.5, 9.0, 1.0]},
            {"id": "2", "prompt": "Q", "responses": ["x", "y"], "ratings": [2.0, 2.0]},
        ]
        first, second = read(write(rows), "rrhf")
        candidates = Candidates("1", (Turn("user", "P"),), ("x", "y", "z"), is_single=False)
        assert first == RatedCandidates(candidates, (3.5, 9.0, 1.0))
        assert second.scores == (2.0, 2.0)

    def test_a_reward_model_gives_rewards_and_null_ratings(self):
        several = {"prompt": "P", "responses": ["x", "y"], "ratings": [None, None], "rewards": [-3.5, 12.0]}
        assert read([several], "rrhf")[0].scores == (-3.5, 12.0)
        single = {"prompt": "P", "response": "x", "rating": None, "reward": -3.5}
        assert [row.scores for row in read([single, {**single, "reward": 1.0}], "rrhf")] == [(-3.5,), (1.0,)]
        with pytest.raises(InputError, match="first row has in 'rewards', expected one column for all rows"):
            read([several, {**several, "ratings": [1, 2]}], "rrhf")

    def test_ratings_come_before_rewards_unless_these_are_named(self):
        row = {"prompt": "P", "responses": ["x", "y"], "ratings": [1, 10], "rewards": [-1.0, 1.0]}
        assert read([row], "rrhf")[0].scores == (1.0, 10.0)
        assert read([row], "rrhf", columns={"rewards": "rewards"})[0].scores == (-1.0, 1.0)
        row = {"prompt": "P", "responses": ["x", "y"], "scores": [-100, 1e300]}
        assert read([row], "rm", columns={"ratings": "scores"})[0].scores == (-100.0, 1e300)
        with pytest.raises(ConfigError, match="names 'rating' and 'rewards', expected one column of scores"):
            read([row], "rrhf", columns={"rating": "scores", "rewards": "scores"})

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ([1.0], "is a list of 1, expected a list of 2 numbers, one a response"),
            ([1.0, 2.0, 3.0], "is a list of 3, expected a list of 2 numbers, one a response"),
            ([], "is a list of 0, expected a list of 2 numbers"),
            (None, "is null, expected a list of 2 numbers"),
            (3.0, "is 3.0, expected a list of 2 numbers"),
            ("[1, 2", "is '[1, 2', expected a list of 2 numbers"),
            ([1.0, None], "number 2 is null, expected a finite number"),
            ([float("nan"), 1.0], "number 1 is NaN, expected a finite number"),
            ([1.0, float("inf")], "number 2 is inf, expected a finite number"),
            ([True, 1.0], "number 1 is True, expected a finite number"),
            ([10**400, 1.0], "number 1 is 1000"),
            ([[1.0], 1.0], "number 1 is a list of 1, expected a finite number"),
        ],
    )
    def test_what_no_scores_are(self, value, reason):
        error = fault([{"prompt": "P", "responses": ["x", "y"], "ratings": value}], "rrhf")
        assert (error.line, error.column) == (1, "ratings")
        assert error.reason.startswith(reason)

    def test_without_scores(self):
        error = fault([{"prompt": "P", "responses": ["x", "y"]}], "rrhf")
        assert (error.column, error.line) == ("ratings", 1)
        assert error.reason.startswith("is missing, and rewards too; rate the rows first (rlaif rate)")

    def test_scores_of_all_rows_stand_in_one_column(self):
        rows = [{"prompt": "P", "responses": ["x", "y"], name: [1, 2]} for name in ("ratings", "rewards")]
        assert fault(rows, "rrhf").reason == (
            "holds the scores that the first row has in 'ratings', expected one column for all rows"
        )

    def test_one_response_cannot_be_ranked(self):
        error = fault([{"prompt": "P", "responses": ["x"], "ratings": [1]}], "rrhf")
        assert error.reason == "is a list of 1, expected at least 2 responses, which rrhf ranks"

    def test_an_empty_response(self):
        rows = [{"prompt": "P", "responses": ["x", ""], "ratings": [1, 2]}]
        assert fault(rows, "rrhf").column == "responses"
        assert len(read(rows, "rm")) == 1


class TestDemonstrations:
    @pytest.mark.parametrize("name", ["response", "completion", "output", "answer", "chosen"])
    def test_of_every_format(self, write, name):
        (found,) = read(write([{"prompt": "P", name: "x", "score": 3}]), "sft")
        assert found == Demonstration(found.id, (Turn("user", "P"),), "x")

    @pytest.mark.parametrize("name", ["messages", "chosen"])
    def test_a_conversation(self, tmp_path, name):
        turns = [{"role": "system", "content": "S"}, user("P"), assistant("x"), user("Q"), assistant("y")]
        for path in (
            write_jsonl(tmp_path / "in.jsonl", [{name: turns}]),
            write_parquet(tmp_path / "in.parquet", [{name: turns}]),
        ):
            (found,) = read(path, "sft")
            assert [turn.content for turn in found.prompt] == ["S", "P", "x", "Q"]
            assert (found.response, found.is_conversational) == ("y", True)

    def test_a_transcript(self):
        row = {"chosen": "\n\nHuman: P\n\nAssistant: x", "rejected": "\n\nHuman: P\n\nAssistant: y"}
        (found,) = read([row], "sft")
        assert (found.prompt, found.response) == ((Turn("user", "P"),), "x")

    def test_a_prompt_beside_messages(self):
        row = {"prompt": "P", "messages": [user("P"), assistant("x"), user("Q"), assistant("y")]}
        assert read([row], "sft")[0].response == "y"
        both = {**row, "response": "z"}
        assert read([both], "sft")[0].response == "z"
        assert read([both], "sft", columns={"messages": "messages"})[0].response == "y"
        assert read([{"messages": row["messages"], "answer": "42"}], "sft")[0].response == "y"

    def test_renamed(self):
        (found,) = read([{"ask": "P", "out": {"text": "x"}}], "sft", columns={"prompt": "ask", "response": "out.text"})
        assert (found.prompt, found.response) == ((Turn("user", "P"),), "x")
        row = {"ask": "P", "text": "x", "messages": [user("Q"), assistant("y")]}
        assert read([row], "sft", columns={"prompt": "ask", "response": "text"})[0].response == "x"

    @pytest.mark.parametrize(
        ("row", "column", "reason"),
        [
            ({"prompt": "P"}, "response", "is missing, and messages too (also taken: completion, output, answer, ch"),
            ({"response": "x"}, "prompt", "is missing (also taken: instruction, question, input)"),
            ({"prompt": "P", "completion": "x", "chosen": "y"}, "response", "could be completion or chosen; choose"),
            ({"prompt": "P", "response": None}, "response", "is null, expected a text or a list"),
            ({"prompt": "P", "response": 3}, "response", "is 3, expected a text or a list"),
            ({"prompt": "P", "response": ""}, "response", "holds an empty response, expected text: sft imitates each"),
            ({"messages": [user("P"), assistant("")]}, "messages", "holds an empty response"),
            ({"messages": [user("P")]}, "messages", "ends with a message of user, expected one of assistant"),
            ({"messages": [assistant("x")]}, "messages", "holds no prompt"),
            ({"messages": []}, "messages", "is an empty list"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages", "message 1 has the role 'robot'"),
            ({"chosen": "x"}, "chosen", "is a text without a prompt in it"),
        ],
    )
    def test_what_no_demonstration_is(self, row, column, reason):
        error = fault([{"prompt": "P", "response": "x"}, row], "sft")
        assert (error.line, error.column) == (2, column)
        assert error.reason.startswith(reason)


class TestAnyRow:
    def test_needs_of_another_method(self):
        needs = MethodNeeds("hpo", (RowKind.FEEDBACK,), "cannot")
        assert fault([{"prompt": "P", "response": "", "label": 1}], needs).reason.startswith("holds an empty response")

    @given(
        st.dictionaries(
            st.sampled_from(["id", "prompt", "response", "responses", "ratings", "label", "chosen", "rejected",
                             "messages", "prob_a", "response_a", "response_b", "human_votes"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
                lambda inner: st.lists(inner, max_size=3)
                | st.dictionaries(st.sampled_from(["role", "content"]), inner, max_size=2),
                max_leaves=5,
            ),
        ),
        st.sampled_from(sorted(METHODS)),
    )  # fmt: skip
    def test_any_row_is_read_or_refused(self, row, method):
        try:
            found = read([row], method)
        except InputError:
            return
        assert len(found) == 1
        if isinstance(found[0], LabeledPair):
            assert 0.0 <= found[0].prob_a <= 1.0
