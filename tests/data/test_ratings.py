import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.ratings import OUR_COLUMNS, RatingSchema, arrow_schema, rating_schema, to_rating_row
from rlaif.data.sources import ReadOptions, read_candidates, scan_candidates
from rlaif.records import Candidates, NamedRating, Rating, Turn

PROMPT = (Turn("user", "P"),)
UNIFORM = (0.1,) * 10
TEN = (0.0,) * 9 + (1.0,)
EIGHT_OR_NINE = (0.0,) * 7 + (0.5, 0.5, 0.0)
ALL = {
    "has_rationales": True,
    "has_principles": True,
    "has_judges": True,
    "has_sampled_principle": True,
    "allows_partial_panel": True,
    "is_sampled": True,
}


def one(response="x", **more):
    return Candidates("r", PROMPT, (response,), **more)


def several(*responses, **more):
    return Candidates("r", PROMPT, responses, is_single=False, **more)


class TestOneResponse:
    def test_columns_of_the_plain_case(self):
        row = to_rating_row(one(), [Rating(EIGHT_OR_NINE, label_mass=0.9, is_bounded=True, calls=1)], RatingSchema())
        assert row == {
            "id": "r",
            "prompt": "P",
            "response": "x",
            "rating": 8.5,  # (8 + 9) / 2
            "reward": pytest.approx(3 / 4.5),
            "rating_probs": list(EIGHT_OR_NINE),
            "label_mass": 0.9,
            "is_bounded": True,
        }
        assert list(row) == arrow_schema(RatingSchema()).names

    @pytest.mark.parametrize(("probs", "reward"), [(UNIFORM, 0.0), (TEN, 1.0), (TEN[::-1], -1.0)])
    def test_the_ends_and_the_middle_of_the_reward(self, probs, reward):
        assert to_rating_row(one(), [Rating(probs)], RatingSchema())["reward"] == pytest.approx(reward, abs=1e-12)

    def test_optional_columns(self):
        schema = RatingSchema(**ALL)
        rating = Rating(
            UNIFORM,
            rationale="because",
            by_principle=(NamedRating("kind", TEN), NamedRating("brief", UNIFORM)),
            by_judge=(NamedRating("fake:a", EIGHT_OR_NINE),),
            sampled_principle="kind",
            missing_judges=("fake:b",),
            unreadable_samples=2,
        )
        row = to_rating_row(one(), [rating], schema)
        assert row["rationale"] == "because"
        assert row["by_principle"] == [
            {"name": "kind", "rating": 10.0, "rating_probs": list(TEN)},
            {"name": "brief", "rating": pytest.approx(5.5), "rating_probs": list(UNIFORM)},
        ]
        assert row["by_judge"] == [{"name": "fake:a", "rating": 8.5, "rating_probs": list(EIGHT_OR_NINE)}]
        assert (row["principle"], row["missing_judges"], row["unreadable_samples"]) == ("kind", ["fake:b"], 2)
        assert list(row) == arrow_schema(schema).names

    def test_a_response_without_its_rating_is_a_mistake_of_ours(self):
        with pytest.raises(ValueError, match="zip"):
            to_rating_row(one(), [], RatingSchema())


class TestSeveralResponses:
    SCHEMA = RatingSchema(is_single=False)

    def test_one_row_with_lists_in_the_order_of_the_responses(self):
        ratings = [Rating(TEN, label_mass=0.9), Rating(EIGHT_OR_NINE), Rating(UNIFORM, label_mass=0.5, is_bounded=True)]
        row = to_rating_row(several("x", "y", ""), ratings, self.SCHEMA)
        assert row == {
            "id": "r",
            "prompt": "P",
            "responses": ["x", "y", ""],
            "ratings": [10.0, 8.5, pytest.approx(5.5)],
            "rewards": [1.0, pytest.approx(2 / 3), pytest.approx(0.0, abs=1e-12)],
            "rating_probs": [list(TEN), list(EIGHT_OR_NINE), list(UNIFORM)],
            "label_masses": [0.9, None, 0.5],
            "is_bounded": [False, False, True],
        }
        assert list(row) == arrow_schema(self.SCHEMA).names

    def test_optional_columns(self):
        schema = RatingSchema(is_single=False, **ALL)
        named = (NamedRating("fake:a", TEN),)
        ratings = [
            Rating(TEN, rationale="R", by_judge=named, sampled_principle="kind", missing_judges=("b",)),
            Rating(TEN, by_judge=named, sampled_principle="kind", missing_judges=("b", "c"), unreadable_samples=1),
        ]
        row = to_rating_row(several("x", "y"), ratings, schema)
        assert row["rationales"] == ["R", None]
        assert row["by_judge"] == [[{"name": "fake:a", "rating": 10.0, "rating_probs": list(TEN)}]] * 2
        assert row["by_principle"] == [[], []]
        assert row["unreadable_samples"] == [0, 1]
        assert row["principle"] == "kind"  # one of the row, not one a response
        assert row["missing_judges"] == ["b", "c"]
        assert list(row) == arrow_schema(schema).names

    def test_a_list_of_one_stays_a_list(self):
        row = to_rating_row(several("x"), [Rating(TEN)], self.SCHEMA)
        assert (row["responses"], row["ratings"]) == (["x"], [10.0])

    @settings(deadline=None)
    @given(st.permutations(range(4)))
    def test_another_order_of_responses_is_that_order_of_everything(self, order):
        probs = [TEN, UNIFORM, EIGHT_OR_NINE, TEN[::-1]]
        texts = ["x", "y", "z", ""]
        row = to_rating_row(several(*texts), [Rating(each) for each in probs], self.SCHEMA)
        moved = to_rating_row(
            several(*(texts[place] for place in order)), [Rating(probs[place]) for place in order], self.SCHEMA
        )
        for name in ("responses", "ratings", "rewards", "rating_probs"):
            assert moved[name] == [row[name][place] for place in order]


@pytest.mark.parametrize("is_single", [True, False])
def test_rows_are_what_the_arrow_schema_says(is_single):
    rating = Rating(UNIFORM, by_judge=(NamedRating("a", TEN),), missing_judges=("b",), sampled_principle="p")
    for flags in ({}, ALL):
        schema = RatingSchema(is_single=is_single, **flags)
        candidates = one() if is_single else several("x", "y")
        row = to_rating_row(candidates, [rating] * len(candidates.responses), schema)
        assert pa.Table.from_pylist([row], schema=arrow_schema(schema)).to_pylist() == [row]


class TestUserColumns:
    def test_a_name_of_ours_gets_a_prefix(self):
        rows = [{"prompt": "P", "response": "x", "rating": 3, "reward": 0.5, "ratings": [1], "topic": "t", "prob_a": 1}]
        summary = scan_candidates(rows)
        schema = rating_schema(summary)
        assert schema.is_single
        row = to_rating_row(next(read_candidates(rows)), [Rating(TEN)], schema)
        users = {"input_rating": 3, "input_reward": 0.5, "input_ratings": [1], "topic": "t", "prob_a": 1}
        assert {name: row[name] for name in users} == users
        assert row["rating"] == 10.0
        assert list(row) == arrow_schema(schema).names

    def test_columns_of_candidates_pass_through(self):
        rows = [{"prompt": "P", "responses": ["x"], "policies": ["p"], "finish_reasons": ["stop"], "ratings": [7.0]}]
        schema = rating_schema(scan_candidates(rows))
        assert not schema.is_single
        row = to_rating_row(next(read_candidates(rows)), [Rating(TEN)], schema)
        assert (row["policies"], row["finish_reasons"]) == (["p"], ["stop"])
        assert (row["ratings"], row["input_ratings"]) == ([10.0], [7.0])

    def test_the_other_kinds_name_is_ours_too(self):
        rows = [{"prompt": "P", "response": "x", "responses": ["y"]}]
        schema = rating_schema(scan_candidates([{"prompt": "P", "response": "x"}]))
        assert schema.extras == ()
        chosen = rating_schema(scan_candidates(rows, ReadOptions({"response": "response"})))
        assert [each.output for each in chosen.extras] == ["input_responses"]

    def test_principle_is_ours_only_where_one_is_sampled(self):
        summary = scan_candidates([{"prompt": "P", "response": "x", "principle": "mine"}])
        assert [each.output for each in rating_schema(summary).extras] == ["principle"]
        sampled = rating_schema(summary, has_sampled_principle=True)
        assert [each.output for each in sampled.extras] == ["input_principle"]

    def test_names_of_every_column_we_may_write_are_ours(self):
        for is_single in (True, False):
            names = arrow_schema(RatingSchema(is_single=is_single, **ALL)).names
            assert set(names) - {"principle"} <= set(OUR_COLUMNS)

    def test_ratings_of_an_earlier_run_are_kept_apart(self):
        rows = [{"prompt": "P", "response": "x"}]
        first = to_rating_row(next(read_candidates(rows)), [Rating(TEN)], rating_schema(scan_candidates(rows)))
        schema = rating_schema(scan_candidates([first]))
        second = to_rating_row(next(read_candidates([first])), [Rating(UNIFORM)], schema)
        assert (second["input_rating"], second["input_rating_probs"]) == (10.0, list(TEN))
        assert second["rating"] == pytest.approx(5.5)


def test_conversations_are_messages():
    rows = [{"prompt": [{"role": "user", "content": "P"}], "response": "x"}, {"prompt": "Q", "response": "y"}]
    schema = rating_schema(scan_candidates(rows))
    written = [to_rating_row(each, [Rating(TEN)], schema) for each in read_candidates(rows)]
    assert [row["prompt"] for row in written] == [
        [{"role": "user", "content": "P"}],
        [{"role": "user", "content": "Q"}],
    ]
