"""Inputs as a whole, from files and from runs: what their rows are taken for, bad rows, loading."""

import asyncio

import pandas as pd
import pytest

from rlaif.backends.fake import FakeBackend
from rlaif.calibration import Calibration, FittedOn, save_calibration
from rlaif.data.training_methods import RowFilters, RowKind
from rlaif.data.training_rows import load_training_rows, scan_training_rows
from rlaif.data.training_selection import Dropped
from rlaif.engine.config import CalibrateConfig, LabelConfig, RateConfig
from rlaif.engine.labeling import run_label
from rlaif.engine.rating import run_rate
from rlaif.engine.relabeling import calibrate_run
from rlaif.errors import ConfigError, InputError, RequestRefusedError
from rlaif.records import Verdict
from rlaif.training_records import LabeledPair
from tests.data.training_inputs import WRITERS, assistant, fault, options, pair, read, user, write_jsonl

B = Verdict.B


class TestKinds:
    def test_kto_also_reads_pairs(self):
        (found,) = read([pair(prob_a=0.75, label="spam")], "kto")
        assert (type(found), found.prob_a) == (LabeledPair, 0.75)

    def test_neither(self):
        error = fault([{"prompt": "P", "response": "x", "rating": 3}], "kto")
        assert error.reason == (
            "holds nothing that kto trains on, expected pairs (prompt, response_a, response_b, prob_a, or prompt, "
            "chosen, rejected) or unpaired feedback (prompt, response, label); the first row has: prompt, response, "
            "rating"
        )

    def test_rrhf_also_reads_pairs(self):
        assert type(read([pair(prob_a=1)], "rrhf")[0]) is LabeledPair

    def test_what_is_of_pairs_alone(self):
        rows = [{"prompt": "P", "responses": ["x", "y"], "ratings": [1, 2]}]
        with pytest.raises(ConfigError, match=r"^labels: human, min_confidence: needs pairs .* rows holds rated cand"):
            load_training_rows(rows, options("rrhf", labels="human", filters=RowFilters(min_confidence=0.9)))


class TestBadRows:
    ROWS = (
        pair(1, prob_a=0.5),
        pair(2, prob_a=1.5),
        pair(3),
        {"id": "r4", "prompt": "P"},
        pair(1, prob_a=0.25),
        pair(6, prob_a=0.75),
    )

    def test_are_skipped_and_named(self, tmp_path):
        path = tmp_path / "in.jsonl"
        write_jsonl(path, self.ROWS)
        with path.open("a") as file:
            file.write("{broken\n")
        found = load_training_rows(path, options(skip_bad_rows=True))
        assert [(row.id, row.prob_a) for row in found.train] == [("r1", 0.5), ("r6", 0.75)]
        assert [failure.id for failure in found.failures] == ["r2", "r3", "r4", "line 5", "line 7"]
        assert found.failures[0].error == (
            f"InputError: {path}, line 2, column 'prob_a': is 1.5, expected a probability from 0 to 1"
        )
        assert len(found.content_sha256) == 64
        with pytest.raises(InputError, match="line 2, column 'prob_a'"):
            scan_training_rows(path, options())

    def test_none_is_left(self):
        with pytest.raises(InputError, match=r"none of its 2 rows can be trained on; the first: .*column 'prob_a'"):
            load_training_rows([pair(1), pair(2)], options(skip_bad_rows=True))
        with pytest.raises(InputError, match=r"no row is left of 1: 0 of 1 rows kept \(dropped: 1 ties\)"):
            load_training_rows([pair(prob_a=0.5)], options(filters=RowFilters(ties="drop")))
        with pytest.raises(InputError, match="holds no rows"):
            load_training_rows([], options("kto"))

    def test_a_bad_first_row_does_not_hide_what_the_rows_are(self, tmp_path):
        path = tmp_path / "in.jsonl"
        path.write_text('[]\n{"prompt": "P", "response": "x", "label": true}\n')
        assert load_training_rows(path, options("kto", skip_bad_rows=True)).kind is RowKind.FEEDBACK

    def test_names_that_there_are_not(self):
        with pytest.raises(ConfigError, match=r"method 'dop' is unknown \(did you mean 'dpo'\?\), expected one of sft"):
            read([pair()], "dop")
        with pytest.raises(ConfigError, match="--columns names 'label', expected one of id, prompt"):
            read([pair()], columns={"label": "x"})

    def test_equal_rows_have_ids_of_their_own(self):
        rows = [{"prompt": "P", "response": "x", "label": True}] * 3
        assert len({row.id for row in read(rows, "kto")}) == 3


class TestLoading:
    def test_rows_that_the_filter_leaves_out_need_no_human_label(self):
        rows = [pair(1, human_label="a"), pair(2, human_label=None)]
        found = load_training_rows(rows, options(labels="human", filters=RowFilters(only_human=True)))
        assert [row.id for row in found.train] == ["r1"]
        assert found.filtered.dropped[Dropped.NO_HUMAN_LABEL] == 1

    @pytest.mark.parametrize("name", WRITERS)
    def test_single_rows_are_joined_by_prompt(self, tmp_path, name):
        rows = [
            {"prompt": prompt, "response": response, "rating": rating}
            for prompt, response, rating in [("P", "x", 1.5), ("Q", "y", 2.0), ("P", "z", 9.5), ("P", "x", 1.5)]
        ]
        path = WRITERS[name](tmp_path / name, rows)
        assert [each.scores for each in read(path, "rrhf")] == [(1.5,), (2.0,), (9.5,), (1.5,)]
        found = load_training_rows(path, options("rrhf"))
        (only,) = found.train
        assert (only.candidates.responses, only.scores) == (("x", "z", "x"), (1.5, 9.5, 1.5))
        assert (found.joined, found.filtered.before, found.filtered.dropped[Dropped.TOO_FEW]) == (2, 2, 1)
        assert str(found.filtered) == "1 of 2 rows kept (dropped: 1 with too few responses)"


class TestRuns:
    @pytest.fixture
    def run(self, tmp_path):
        """A run of `rlaif label` with a refused row, rows of one prompt, and people's labels on every third row."""
        rows = [
            {"id": f"row {n}", "prompt": f"Question {n // 2}?", "response_a": "y" * n, "response_b": f"no {n}",
             "human_label": "b" if n % 3 == 0 else None, "label": "mine"}
            for n in range(12)
        ]  # fmt: skip

        def handler(request):
            content = request.messages[0].content
            if "### Response 1\nno 7\n" in content:
                raise RequestRefusedError("no")
            return 0.9 if "### Response 1\nno" in content else 0.5

        config = LabelConfig(write_jsonl(tmp_path / "in.jsonl", rows), str(tmp_path / "run"))
        asyncio.run(run_label(config, backends=(FakeBackend(handler),)))
        return config.out

    def test_of_labels(self, run):
        table = pd.read_parquet(f"{run}/data")
        found = load_training_rows(run, options(held_out=0.3, filters=RowFilters(min_confidence=0.6)))
        assert found.kind is RowKind.PAIRS
        assert found.filtered.before == len(table) == 11
        rows = {row.id: row for row in (*found.train, *found.held_out)}
        assert {row.id: row.prob_a for row in rows.values()} == dict(zip(table["id"], table["prob_a"], strict=True))
        assert rows["row 3"].prob_a == pytest.approx(0.3)
        assert rows["row 3"].comparison.human_label is B
        assert not {row.prompt for row in found.train} & {row.prompt for row in found.held_out}
        assert found.split.train_rows + found.split.held_out_rows == 11
        human = load_training_rows(run, options(filters=RowFilters(only_human=True), labels="human"))
        assert [row.id for row in human.train] == ["row 0", "row 3", "row 6", "row 9"]
        assert {type(row) for row in load_training_rows(run, options("kto")).train} == {LabeledPair}

    def test_what_was_chosen_is_demonstrated(self, run):
        found = {row.id: row.response for row in read(run, "sft")}
        assert found["row 3"] == "no 3"
        assert len(found) == 11

    def test_of_calibrated_labels(self, run, tmp_path):
        save_calibration(Calibration(0.5, 0.6, -0.4, FittedOn(100, ("fake:judge",))), tmp_path / "fit.json")
        calibrate_run(CalibrateConfig(run, str(tmp_path / "after"), str(tmp_path / "fit.json")))
        table = pd.read_parquet(tmp_path / "after" / "data")
        found = read(tmp_path / "after")
        assert [row.prob_a for row in found] == list(table["prob_a"])
        assert (table["prob_a"] != table["raw_prob_a"]).any()

    @pytest.mark.parametrize("is_single", [True, False])
    def test_of_ratings(self, tmp_path, is_single):
        rows = [
            {"prompt": f"Question {n // 3 if is_single else n}?", **({"response": f"r{n}"} if is_single else
             {"responses": [f"r{n}", f"s{n}", "same"]})}
            for n in range(9)
        ]  # fmt: skip
        config = RateConfig(write_jsonl(tmp_path / "in.jsonl", rows), str(tmp_path / "run"))
        asyncio.run(run_rate(config, backends=(FakeBackend(lambda request: 0.5),)))
        table = pd.read_parquet(tmp_path / "run" / "data")
        found = load_training_rows(config.out, options("rrhf", held_out=0.4))
        sides = (*found.train, *found.held_out)
        assert all(len(row.candidates.responses) == len(row.scores) == 3 for row in sides)
        assert (found.kind, found.joined) == (RowKind.CANDIDATES, 6 if is_single else 0)
        expected = table["rating"] if is_single else [rating for each in table["ratings"] for rating in each]
        assert sorted(score for row in sides for score in row.scores) == sorted(expected)
        error = fault(config.out, "kto")
        assert "holds nothing that kto trains on" in error.reason

    def test_of_a_conversational_run(self, tmp_path):
        rows = [{"prompt": [user("P"), assistant("x"), user("Q")], "response_a": "y", "response_b": "z"}]
        config = LabelConfig(write_jsonl(tmp_path / "in.jsonl", rows), str(tmp_path / "run"))
        asyncio.run(run_label(config, backends=(FakeBackend(lambda request: 0.5),)))
        (found,) = read(config.out)
        (shown,) = read(config.out, "sft")
        assert (len(found.prompt), found.comparison.is_conversational) == (3, True)
        assert (shown.prompt, shown.response) == (found.prompt, "y")
