import json
from dataclasses import replace

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.preferences import PreferenceSchema, arrow_schema, preference_schema, read_judgment, to_row
from rlaif.data.shards import RowWriter
from rlaif.data.sources import read_comparisons, scan
from rlaif.records import Comparison, Judgment, NamedLabel, SoftLabel, Turn, Verdict

PLAIN = PreferenceSchema()


def comparison(**more):
    return Comparison(**({"id": "r", "prompt": (Turn("user", "P"),), "response_a": "x", "response_b": "y"} | more))


def judged(prob_a, **more):
    return Judgment(SoftLabel(prob_a, prob_a, prob_a), 0.99, 0.98, calls=2, **more)


def label_all(folder, rows):
    """What the engine does, with a judge that always says 0.75."""
    schema = preference_schema(scan(rows))
    written = [to_row(each, judged(0.75), schema) for each in read_comparisons(rows)]
    with RowWriter(folder, arrow_schema(schema)) as writer:
        for row in written:
            writer.write(row)
    return written


class TestRows:
    def test_columns_of_the_plain_case(self):
        label = SoftLabel(0.7, 0.9, 0.5)
        row = to_row(comparison(), Judgment(label, 0.99, 0.98, is_bounded=True, calls=2), PLAIN)
        assert row == {
            "id": "r",
            "prompt": "P",
            "response_a": "x",
            "response_b": "y",
            "chosen": "x",
            "rejected": "y",
            "chosen_prob": 0.7,
            "is_tie": False,
            "prob_a": 0.7,
            "prob_a_ab": 0.9,
            "prob_a_ba": 0.5,
            "label_mass_ab": 0.99,
            "label_mass_ba": 0.98,
            "is_bounded": True,
        }
        assert list(row) == arrow_schema(PLAIN).names

    def test_a_calibrated_row_keeps_the_judges_own(self):
        schema = PreferenceSchema(is_calibrated=True)
        label, own = SoftLabel(0.3, 0.4, 0.2), SoftLabel(0.7, 0.9, 0.5)
        judgment = Judgment(label, 0.99, 0.98, calls=1, raw_label=own)
        row = to_row(comparison(), judgment, schema)
        assert list(row) == arrow_schema(schema).names
        assert list(row)[8:14] == ["prob_a", "prob_a_ab", "prob_a_ba", "raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba"]
        assert list(row.values())[8:14] == [0.3, 0.4, 0.2, 0.7, 0.9, 0.5]
        assert (row["chosen"], row["chosen_prob"]) == ("y", 0.7)
        assert read_judgment(row, is_calibrated=True) == judgment
        assert read_judgment(row, is_calibrated=False).raw_label is None

    def test_a_clamped_row_keeps_what_prob_a_was(self):
        schema = PreferenceSchema(is_clamped=True)
        judgment = Judgment(SoftLabel(0.6, 1.0, 0.9), 0.99, 0.98, calls=1, raw_label=SoftLabel(0.95, 1.0, 0.9))
        row = to_row(comparison(), judgment, schema)
        assert list(row) == arrow_schema(schema).names
        assert list(row)[8:12] == ["prob_a", "prob_a_ab", "prob_a_ba", "raw_prob_a"]
        assert list(row.values())[8:12] == [0.6, 1.0, 0.9, 0.95]
        assert (row["chosen"], row["chosen_prob"]) == ("x", 0.6)
        assert read_judgment(row, is_calibrated=False, is_clamped=True) == judgment

    def test_a_judgment_is_read_back_from_its_row(self):
        schema = PreferenceSchema(has_principles=True, has_judges=True, allows_partial_panel=True, is_sampled=True)
        named = (NamedLabel("one", SoftLabel(0.6, 0.7, 0.5)),)
        judgment = judged(
            0.6, by_principle=named, by_judge=named, missing_judges=("two",), unreadable_samples=3, is_bounded=True
        )
        assert read_judgment(to_row(comparison(), judgment, schema), is_calibrated=False) == replace(judgment, calls=1)
        identical = Judgment(SoftLabel(0.5, None, None))
        assert read_judgment(to_row(comparison(), identical, PLAIN), is_calibrated=False) == identical

    @pytest.mark.parametrize(
        ("prob_a", "chosen", "chosen_prob", "is_tie"),
        [
            (1.0, "x", 1.0, False),
            (0.25, "y", 0.75, False),
            (0.5, "x", 0.5, True),
            (0.5 - 5e-10, "x", 0.5 + 5e-10, True),  # within 1e-9: a tie, and A stands as chosen
            (0.5 - 2e-9, "y", 0.5 + 2e-9, False),
        ],
    )
    def test_chosen_follows_from_the_soft_label(self, prob_a, chosen, chosen_prob, is_tie):
        row = to_row(comparison(), judged(prob_a), PLAIN)
        assert (row["chosen"], row["is_tie"]) == (chosen, is_tie)
        assert {row["chosen"], row["rejected"]} == {"x", "y"}
        assert row["chosen_prob"] == pytest.approx(chosen_prob, abs=1e-15)

    @settings(deadline=None)
    @given(st.floats(0, 1))
    def test_exchanging_a_and_b_keeps_chosen_unless_tied(self, prob_a):
        row = to_row(comparison(), judged(prob_a), PLAIN)
        swapped = to_row(comparison(response_a="y", response_b="x"), judged(1 - prob_a), PLAIN)
        assert row["chosen_prob"] >= 0.5
        assert swapped["chosen_prob"] == pytest.approx(row["chosen_prob"], abs=1e-15)
        if not row["is_tie"] and not swapped["is_tie"]:
            assert swapped["chosen"] == row["chosen"]

    def test_conversations_are_messages_everywhere(self):
        schema = PreferenceSchema(is_conversational=True)
        turns = (Turn("system", "S"), Turn("user", "P"))
        row = to_row(comparison(prompt=turns, is_conversational=True), judged(0.25), schema)
        assert row["prompt"] == [{"role": "system", "content": "S"}, {"role": "user", "content": "P"}]
        assert row["chosen"] == [{"role": "assistant", "content": "y"}]
        assert row["rejected"] == [{"role": "assistant", "content": "x"}]
        assert row["response_a"] == "x"
        assert to_row(comparison(), judged(0.25), schema)["prompt"] == [{"role": "user", "content": "P"}]

    def test_optional_columns(self):
        schema = PreferenceSchema(
            has_rationales=True,
            has_principles=True,
            has_judges=True,
            has_sampled_principle=True,
            allows_partial_panel=True,
            is_sampled=True,
            has_human_label=True,
            has_human_votes=True,
        )
        named = (NamedLabel("kind", SoftLabel(0.6, 0.7, 0.5)), NamedLabel("brief", SoftLabel(0.8, 0.8, None)))
        judgment = judged(
            0.7,
            rationale_ab="because",
            by_principle=named,
            by_judge=named[:1],
            sampled_principle="kind",
            missing_judges=("openai:x",),
            unreadable_samples=3,
        )
        people = comparison(human_votes=(Verdict.A, Verdict.TIE, Verdict.A), human_label=Verdict.A)
        row = to_row(people, judgment, schema)
        assert (row["rationale_ab"], row["rationale_ba"]) == ("because", None)
        assert row["by_principle"] == [
            {"name": "kind", "prob_a": 0.6, "prob_a_ab": 0.7, "prob_a_ba": 0.5},
            {"name": "brief", "prob_a": 0.8, "prob_a_ab": 0.8, "prob_a_ba": None},
        ]
        assert [each["name"] for each in row["by_judge"]] == ["kind"]
        assert row["principle"] == "kind"
        assert (row["missing_judges"], row["unreadable_samples"]) == (["openai:x"], 3)
        assert (row["human_label"], row["human_votes"]) == ("a", ["a", "tie", "a"])
        assert list(row) == arrow_schema(schema).names
        assert to_row(comparison(), judgment, schema)["human_label"] is None


class TestUserColumns:
    BASE = ("prompt", "response_a", "response_b")

    def row(self, **more):
        return dict(zip(self.BASE, ("P", "x", "y"), strict=True)) | more

    def names(self, row, **flags):
        return {name: output for name, output, _ in preference_schema(scan([row]), **flags).extras}

    def test_a_name_of_ours_gets_a_prefix(self):
        row = self.row(topic=1, prob_a=0.1, chosen="c", input_prob_a=2, rationale_ab="r")
        assert self.names(row) == {
            "topic": "topic",
            "prob_a": "input_input_prob_a",
            "chosen": "input_chosen",
            "input_prob_a": "input_prob_a",
            "rationale_ab": "input_rationale_ab",
        }

    def test_principle_is_ours_only_where_one_is_sampled(self):
        row = self.row(principle="mine")
        assert self.names(row) == {"principle": "principle"}
        assert self.names(row, has_sampled_principle=True) == {"principle": "input_principle"}

    def test_labels_of_an_earlier_run_are_kept_apart(self, tmp_path):
        label_all(tmp_path / "one", [self.row(human_label="a")])
        rows = label_all(tmp_path / "two", pd.read_parquet(tmp_path / "one" / "data"))
        assert rows[0]["prob_a"] == rows[0]["input_prob_a"] == 0.75
        assert rows[0]["human_label"] == "a"
        assert "input_human_label" not in rows[0]

    def test_what_varies_is_written_as_json_text(self, tmp_path):
        rows = [self.row(meta={"a": 1}, mixed=1, same={"k": 1}), self.row(meta={"b": [2]}, mixed="x"), self.row()]
        written = label_all(tmp_path, rows)
        assert [row["meta"] for row in written] == ['{"a":1}', '{"b":[2]}', None]
        assert [row["mixed"] for row in written] == ["1", '"x"', None]
        table = pq.read_table(tmp_path / "data")
        assert table.column("same").to_pylist() == [{"k": 1}, None, None]
        assert json.loads(table.column("meta")[1].as_py()) == {"b": [2]}
