"""Exports: which pairs are in which file, what is counted, and that nothing is written by halves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rlaif.data.exporting import EXPORT_FORMATS
from rlaif.data.files import open_source
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import read_training_rows
from rlaif.data.training_selection import Dropped, split_by_prompt
from rlaif.engine.config import SourceConfig
from rlaif.engine.export_config import ExportConfig
from rlaif.engine.exporting import ExportOutcome, export_rows
from rlaif.errors import ConfigError, InputError, RlaifError, RunFolderError

ROWS: list[dict[str, Any]] = [
    {
        "id": f"row {n}",
        "prompt": f"Question {n // 3}?",
        "response_a": f"yes {n}",
        "response_b": f"no {n}",
        "prob_a": (n * 37 % 101 + 0.25) / 101.5,
        "topic": "t",
    }
    for n in range(60)
]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.jsonl", ROWS)
    return tmp_path


def export(name: str = "trl", out: str = "out.jsonl", path: str = "in.jsonl", **more: Any) -> ExportOutcome:
    return export_rows(ExportConfig(path, name, out, **more))  # type: ignore[arg-type]


def read(path: str | Path) -> list[dict[str, Any]]:
    return [row.values for row in open_source(path).read() if isinstance(row.values, dict)]


class TestWhatIsWritten:
    def test_a_file_of_labels(self, here: Path) -> None:
        outcome = export()
        assert [row["id"] for row in read("out.jsonl")] == [row["id"] for row in ROWS]
        assert outcome.counts.read == outcome.files["train"].rows == 60
        assert outcome.files["train"].prompts == 20
        assert outcome.files["train"].size == Path("out.jsonl").stat().st_size
        assert outcome.left_out == ("topic",)
        assert outcome.failures == ()
        assert sorted(path.name for path in here.iterdir()) == ["in.jsonl", "out.jsonl"]

    @pytest.mark.parametrize("extension", EXPORT_FORMATS["trl-conversational"].extensions)
    def test_every_kind_of_file_holds_the_same(self, here: Path, extension: str) -> None:
        export("trl-conversational")
        export("trl-conversational", f"new/folder/x{extension}")
        assert read(f"new/folder/x{extension}") == read("out.jsonl")

    def test_ties_are_dropped_and_counted_or_kept(self, here: Path) -> None:
        write(here / "in.jsonl", [{**ROWS[0], "prob_a": 0.5}, ROWS[1]])
        assert export().counts.dropped == {Dropped.TIE: 1}
        export(out="all.jsonl", ties="keep")
        row = read("all.jsonl")[0]
        assert (row["chosen"], row["chosen_prob"]) == ("yes 0", 0.5)

    def test_a_pair_that_only_says_which_was_chosen(self, here: Path) -> None:
        write(here / "in.jsonl", [{"id": "1", "prompt": "Why?", "chosen": "so", "rejected": "no"}])
        export()
        assert read("out.jsonl") == [{"id": "1", "prompt": "Why?", "chosen": "so", "rejected": "no"}]
        with pytest.raises(InputError, match="no probability to make a margin of"):
            export(out="m.jsonl", margin=True)

    def test_labels_of_people(self, here: Path) -> None:
        votes = [["a", "b", "b", "b"], ["a", "b"], []]
        rows = [{**row, "human_votes": each} for row, each in zip(ROWS, votes, strict=False)]
        write(here / "in.jsonl", rows)
        outcome = export(labels="human")
        assert [(row["chosen"], row["chosen_prob"]) for row in read("out.jsonl")] == [("no 0", 0.75)]
        assert outcome.counts.dropped == {Dropped.TIE: 1, Dropped.NO_HUMAN_LABEL: 1}

    def test_messages_where_any_prompt_is_messages(self, here: Path) -> None:
        export("kto")
        assert isinstance(read("out.jsonl")[0]["prompt"], str)
        export("kto", "c.jsonl", conversational=True)
        talk = {**ROWS[0], "id": "talk", "prompt": [{"role": "user", "content": "Hi"}]}
        write(here / "in.jsonl", [*ROWS, talk])
        assert export("kto", "m.jsonl").layout.is_conversational
        assert read("m.jsonl")[:120] == read("c.jsonl")

    def test_axolotl_has_columns_for_reward_models_where_all_prompts_fit(self, here: Path) -> None:
        export("axolotl")
        assert read("out.jsonl")[0]["input"] == "Question 0?"
        turns = [{"role": role, "content": role} for role in ("user", "assistant", "user")]
        write(here / "in.jsonl", [*ROWS, {**ROWS[0], "id": "talk", "prompt": turns}])
        export("axolotl", "m.jsonl")
        assert all("input" not in row for row in read("m.jsonl"))


class TestKto:
    def test_a_response_of_several_pairs_is_one_row_for_each_of_its_labels(self, here: Path) -> None:
        # x beats y, x beats z, z beats y: x is good twice, y bad twice, z bad and then good
        pairs = [("x", "y", 0.9), ("z", "x", 0.1), ("y", "z", 0.4)]
        rows = [
            {"prompt": "Why?", "response_a": a, "response_b": b, "prob_a": prob} for a, b, prob in pairs
        ]  # and the same responses to another prompt are other rows
        write(here / "in.jsonl", [*rows, {**rows[0], "prompt": "How?"}])
        outcome = export("kto")
        assert [(row["prompt"], row["completion"], row["label"]) for row in read("out.jsonl")] == [
            ("Why?", "x", True), ("Why?", "y", False), ("Why?", "z", False), ("Why?", "z", True),
            ("How?", "x", True), ("How?", "y", False),
        ]  # fmt: skip
        assert (outcome.counts.repeated, outcome.counts.conflicting) == (2, 1)
        assert outcome.labels == {True: 3, False: 3}


class TestTheSplit:
    @pytest.mark.parametrize("name", EXPORT_FORMATS)
    def test_no_prompt_stands_in_both(self, here: Path, name: str) -> None:
        outcome = export(name, "x.json", test_share=0.3)
        files = {split: read(file.path) for split, file in outcome.files.items()}
        assert set(files) == {"train", "test"}

        def prompts(rows: list[dict[str, Any]]) -> set[str]:
            column = {"axolotl": "messages", "hh": "chosen"}.get(name, "prompt")
            return {str(row[column]).partition("Assistant:")[0] for row in rows}

        assert prompts(files["train"]).isdisjoint(prompts(files["test"]))
        assert {split: len(prompts(rows)) for split, rows in files.items()} == {
            split: file.prompts for split, file in outcome.files.items()
        }
        per_pair = 2 if name == "kto" else 1
        assert sum(file.rows for file in outcome.files.values()) == 60 * per_pair

    def test_is_the_split_of_training(self, here: Path) -> None:
        export(out="x.jsonl", test_share=0.3, seed=5)
        rows = list(read_training_rows("in.jsonl", TrainingOptions("dpo")))
        expected = split_by_prompt(rows, 0.3, 5)
        assert [row["id"] for row in read("x.test.jsonl")] == [row.id for row in expected.held_out]
        assert [row["id"] for row in read("x.train.jsonl")] == [row.id for row in expected.train]

    def test_a_seed_and_a_share_of_its_own(self, here: Path) -> None:
        export(out="a.jsonl", test_share=0.3)
        export(out="b.jsonl", test_share=0.3, seed=1)
        assert read("a.test.jsonl") != read("b.test.jsonl")
        tiny = export(out="c.jsonl", test_share=1e-6)
        assert tiny.files["test"].prompts == 1

    def test_one_prompt_cannot_be_split(self, here: Path) -> None:
        write(here / "in.jsonl", ROWS[:3])
        with pytest.raises(ConfigError, match="one prompt"):
            export(test_share=0.5)
        assert not Path("out.train.jsonl").exists()


class TestRoundTrips:
    """METHODS check 57: what was exported is read, and exported to the same bytes."""

    @pytest.mark.parametrize("name", ["trl", "trl-conversational", "openrlhf", "hh"])
    @pytest.mark.parametrize("seed", [0, 3])
    def test_export_read_and_exported_again(self, here: Path, name: str, seed: int) -> None:
        export(name, "once.jsonl")
        export(name, "twice.jsonl", "once.jsonl", seed=seed)
        assert Path("twice.jsonl").read_bytes() == Path("once.jsonl").read_bytes()

    def test_axolotl_by_another_name(self, here: Path) -> None:
        export("axolotl", "once.jsonl")
        source = SourceConfig({"prompt": "messages"})
        export("axolotl", "twice.jsonl", "once.jsonl", source=source)
        assert Path("twice.jsonl").read_bytes() == Path("once.jsonl").read_bytes()

    def test_a_file_of_transcripts(self, here: Path) -> None:
        talk = "\n\nHuman: Hi\n\nAssistant:  Hello \n\nHuman: Why?\n\nAssistant:"
        original = f"{json.dumps({'chosen': talk + ' so', 'rejected': talk + ' no'}, separators=(',', ':'))}\n"
        Path("hh.jsonl").write_text(original)
        export("hh", path="hh.jsonl")
        assert Path("out.jsonl").read_text() == original


class TestWhatIsNotWritten:
    def test_pairs_that_do_not_fit_are_named(self, here: Path) -> None:
        marked = {**ROWS[1], "id": "marked", "response_a": "a\n\nHuman: b"}
        system = {**ROWS[2], "id": "system", "prompt": [{"role": "system", "content": "x"}]}
        write(here / "in.jsonl", [ROWS[0], marked, system])
        outcome = export("hh")
        assert outcome.files["train"].rows == 1
        assert outcome.counts.unfit == 2
        failures = read("out.failures.jsonl")
        assert [failure["id"] for failure in failures] == ["marked", "system"]
        assert all(failure["stage"] == "export" for failure in failures)
        assert failures[0]["error"].startswith("InputError: in.jsonl, line 2: a text of assistant holds")

    def test_the_names_go_where_all_fit(self, here: Path) -> None:
        marked = {**ROWS[1], "response_a": "a\n\nHuman: b"}
        write(here / "in.jsonl", [ROWS[0], marked])
        export("hh")
        write(here / "in.jsonl", ROWS[:2])
        assert export("hh", overwrite=True).failures_file is None
        assert not Path("out.failures.jsonl").exists()

    def test_rows_that_cannot_be_read(self, here: Path) -> None:
        write(here / "in.jsonl", [ROWS[0], {**ROWS[1], "prob_a": 2}])
        with pytest.raises(InputError, match="line 2, column 'prob_a'"):
            export()
        outcome = export(source=SourceConfig(skip_bad_rows=True))
        assert (outcome.counts.unreadable, outcome.files["train"].rows) == (1, 1)
        assert [failure["stage"] for failure in read("out.failures.jsonl")] == ["input"]

    def test_nothing_is_left(self, here: Path) -> None:
        write(here / "in.jsonl", [{**ROWS[0], "prob_a": 0.5}])
        with pytest.raises(InputError, match="no pair is left of 1: 1 ties"):
            export()
        assert not Path("out.jsonl").exists()

    def test_a_run_that_is_not_finished(self, here: Path) -> None:
        Path("run/data").mkdir(parents=True)
        Path("run/run.json").write_text('{"command": "label", "status": "running"}')
        with pytest.raises(InputError, match="the run is running"):
            export(path="run")

    def test_candidates_are_no_pairs(self, here: Path) -> None:
        write(here / "in.jsonl", [{"prompt": "Why?", "responses": ["a", "b"]}])
        with pytest.raises(InputError, match="response_a"):
            export()


class TestTheFiles:
    def test_the_same_again_touches_nothing(self, here: Path) -> None:
        export()
        os.utime("out.jsonl", (1, 1))
        assert export().files["train"].is_unchanged
        assert Path("out.jsonl").stat().st_mtime == 1

    def test_other_content_is_refused_unless_told(self, here: Path) -> None:
        Path("out.jsonl").write_text("mine\n")
        with pytest.raises(RunFolderError, match="--overwrite replaces it"):
            export()
        assert Path("out.jsonl").read_text() == "mine\n"
        export(overwrite=True)
        assert len(read("out.jsonl")) == 60
        assert not list(here.glob(".*"))

    def test_neither_of_two_files_where_one_is_refused(self, here: Path) -> None:
        Path("out.test.jsonl").write_text("mine\n")
        with pytest.raises(RunFolderError, match=r"out\.test\.jsonl"):
            export(test_share=0.3)
        assert not Path("out.train.jsonl").exists()

    def test_the_input_is_not_the_output(self, here: Path) -> None:
        with pytest.raises(ConfigError, match="is the input"):
            export(out="./in.jsonl", overwrite=True)
        assert len(read("in.jsonl")) == 60

    @pytest.mark.parametrize("folder", ["run", "run/data"])
    def test_nor_a_part_of_it(self, here: Path, folder: str) -> None:
        export(out="run/data/train-00000.parquet")
        export(out="run/x.jsonl", path="run")
        with pytest.raises(ConfigError, match="a part of the input"):
            export(out=f"{folder}/x.parquet", path="run")

    @pytest.mark.parametrize("out", ["folder/x.jsonl", "in.jsonl/x.jsonl"])
    def test_what_cannot_be_written_is_named(self, here: Path, out: str) -> None:
        Path("folder/x.jsonl").mkdir(parents=True)
        with pytest.raises(RlaifError, match=r"x\.jsonl: is a folder|in\.jsonl.*cannot be written"):
            export(out=out)

    def test_a_dry_run_writes_nothing(self, here: Path) -> None:
        before = sorted(here.rglob("*"))
        dry = export(test_share=0.3, dry_run=True)
        assert sorted(here.rglob("*")) == before
        wet = export(test_share=0.3)
        assert {split: (file.rows, file.size) for split, file in dry.files.items()} == {
            split: (file.rows, file.size) for split, file in wet.files.items()
        }

    @pytest.mark.parametrize("renames", [0, 1])
    def test_killed_and_run_again(self, here: Path, renames: int) -> None:
        # killed for good, with everything written under other names, or between the two renames
        code = f"""
import os, signal
from rlaif.engine import exporting
from rlaif.engine.config import SourceConfig
from rlaif.engine.export_config import ExportConfig
left, replace = {renames}, os.replace
def replace_or_die(source, target):
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    replace(source, target)
exporting.os.replace = replace_or_die
exporting.export_rows(ExportConfig("in.jsonl", "trl", "out.jsonl", test_share=0.3))
"""
        killed = subprocess.run([sys.executable, "-c", code], cwd=here, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert [path.exists() for path in (Path("out.train.jsonl"), Path("out.test.jsonl"))] == [renames == 1, False]
        export(test_share=0.3)
        export(out="other.jsonl", test_share=0.3)
        for split in ("train", "test"):
            assert Path(f"out.{split}.jsonl").read_bytes() == Path(f"other.{split}.jsonl").read_bytes()
        assert not list(here.glob(".*"))


class TestWarnings:
    def test_of_texts_that_would_be_read_as_times(self, here: Path) -> None:
        rows = [{**row, "response_a": "2024-01-01", "response_b": "2024-01-02 10:00:00"} for row in ROWS]
        write(here / "in.jsonl", rows)
        heard: list[str] = []
        export_rows(ExportConfig("in.jsonl", "trl", "out.jsonl"), on_warning=heard.append)
        assert len(heard) == 1
        assert "all chosen and rejected are dates" in heard[0]
        heard.clear()
        export_rows(ExportConfig("in.jsonl", "trl", "out.parquet"), on_warning=heard.append)
        write(here / "in.jsonl", [*rows, {**ROWS[1], "id": "other"}])
        export_rows(ExportConfig("in.jsonl", "trl", "more.jsonl"), on_warning=heard.append)
        assert heard == []
