from __future__ import annotations

from typing import Any

import pytest

from rlaif.data.files import open_source
from rlaif.data.filter_inputs import CandidatePairs, LabeledPairs
from rlaif.data.filtering import FilterRow
from rlaif.data.selecting import SelectionOptions
from rlaif.data.sources import ReadOptions
from rlaif.errors import InputError
from rlaif.records import Turn

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]


def labeled(rows: list[dict[str, Any]], **options: Any) -> LabeledPairs:
    return LabeledPairs(open_source(rows), ReadOptions(**options))


class TestLabeledPairs:
    def test_what_filters_look_at(self) -> None:
        row = {
            "id": "r",
            "prompt": MESSAGES,
            "response_a": "yes",
            "response_b": "no",
            "prob_a": 0.75,
            "prob_a_ab": 0.9,
            "prob_a_ba": 0.6,
            "label_mass_ab": 0.99,
            "label_mass_ba": None,
            "finish_reason_a": "length",
            "finish_reason_b": None,
        }
        (pair,) = labeled([row]).read()
        turns = (Turn("system", "Be brief."), Turn("user", "Why?"))
        assert pair.row == FilterRow("r", turns, "yes", "no", 0.75, 0.9, 0.6, (0.99,), ("length",))
        assert (pair.line, pair.values) == (1, row)

    def test_numbers_of_a_csv_file_are_texts(self) -> None:
        row = {
            "prompt": "?",
            "response_a": "a",
            "response_b": "b",
            "prob_a": "0.75",
            "label_mass_ab": "",
            "prob_a_ab": "1",
        }
        (pair,) = labeled([row]).read()
        assert (pair.row.prob_a, pair.row.prob_a_ab, pair.row.label_masses) == (0.75, 1.0, ())

    @pytest.mark.parametrize("seed", range(4))
    def test_chosen_and_rejected_whichever_is_a(self, seed: int) -> None:
        row = {"prompt": "?", "chosen": "good", "rejected": "bad", "chosen_prob": 0.75}
        (pair,) = labeled([row], seed=seed).read()
        probs = {pair.row.response_a: pair.row.prob_a, pair.row.response_b: 1.0 - pair.row.prob_a}
        assert probs == {"good": 0.75, "bad": 0.25}

    def test_renamed_columns(self) -> None:
        row = {"q": "?", "left": "a", "right": "b", "label": {"p": 0.75}}
        names = {"prompt": "q", "response_a": "left", "response_b": "right", "prob_a": "label.p"}
        pairs = labeled([row], columns=names)
        (pair,) = pairs.read()
        assert (pair.row.prob_a, pair.row.response_a) == (0.75, "a")
        assert pairs.layout().to_row(pair) == row

    def test_columns_of_varying_type_are_json_as_in_every_run(self) -> None:
        rows: list[dict[str, Any]] = [
            {"prompt": "1?", "response_a": "a", "response_b": "b", "prob_a": 0.75, "x": 1},
            {"prompt": "2?", "response_a": "a", "response_b": "b", "prob_a": 1, "x": {"y": [1]}},
        ]
        pairs = labeled(rows)
        layout = pairs.layout()
        assert [layout.to_row(pair)["x"] for pair in pairs.read()] == ["1", '{"y":[1]}']

    def test_nothing_to_read(self) -> None:
        rows = [{"prompt": "?", "response_a": "a", "response_b": "b"}]
        with pytest.raises(InputError, match="column 'prob_a': is missing, expected a probability from 0 to 1; label"):
            labeled(rows)
        with pytest.raises(InputError, match="none of its 1 rows can be read; the first"):
            labeled(rows, skip_bad_rows=True)


class TestCandidatePairs:
    ROWS = (
        {"id": "c", "prompt": MESSAGES, "responses": ["a", "b", "c"], "rewards": [0.0, 4.0, 1.0], "prob_a": "theirs"},
        {"id": "d", "prompt": "?", "responses": ["a", "b"], "rewards": [2.0, 2.0], "prob_a": None},
    )

    def test_counts_are_of_a_whole_pass(self) -> None:
        pairs = CandidatePairs(open_source(list(self.ROWS)), ReadOptions(), SelectionOptions("rs-dpo", eta=0.9))
        found = list(pairs.read())
        # differences 4, 1, 3: .982, .731, .953
        assert [{pair.values["score_chosen"], pair.values["score_rejected"]} for pair in found] == [
            {4.0, 0.0},
            {4.0, 1.0},
        ]
        list(pairs.read())
        counts = pairs.counts.as_json()
        assert counts.pop("largest_preference") == pytest.approx(0.982, abs=1e-3)
        assert counts == {
            "rows": 2, "candidates": 5, "pairs": 2, "rows_without_pair": 1, "left_over": 0,
            "largest_preference_id": "c",
        }  # fmt: skip

    def test_a_column_of_theirs_with_a_name_of_ours(self) -> None:
        pairs = CandidatePairs(open_source(list(self.ROWS)), ReadOptions(), SelectionOptions("all"))
        layout = pairs.layout()
        found = [layout.to_row(pair) for pair in pairs.read()]
        assert [row["input_prob_a"] for row in found] == ["theirs"] * 3 + [None]
        assert found[3]["prompt"] == [{"role": "user", "content": "?"}]
        assert all(list(row) == layout.schema.names for row in found)

    def test_ratings_before_rewards(self) -> None:
        rows = [{"prompt": "?", "responses": ["a", "b"], "ratings": [9.0, 1.0], "rewards": [0.8, -1.0]}]
        pairs = CandidatePairs(open_source(rows), ReadOptions(), SelectionOptions("best-worst"))
        (pair,) = pairs.read()
        assert (pair.values["score_chosen"], pair.values["score_rejected"]) == (9.0, 1.0)
