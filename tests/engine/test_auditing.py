"""An audit from files to files: what is read, joined, written and refused."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import math
import pkgutil
import random
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

import rlaif
from rlaif.backends.config import BackendConfig
from rlaif.backends.fake import FakeBackend
from rlaif.engine.auditing import AuditReport, audit, audit_file
from rlaif.engine.config import AuditConfig, LabelConfig, RateConfig, SourceConfig
from rlaif.engine.labeling import run_label
from rlaif.engine.rating import run_rate
from rlaif.errors import (
    BackendNotInstalledError,
    CalibrationError,
    ConfigError,
    InputError,
    RunFolderError,
)

FEW = {"resamples": 100}


def rows(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    """People say a in two of three; the judge, b every fourth time."""
    return [
        {
            "id": f"r{n}",
            "prompt": f"Question {n}?",
            "response_a": f"yes {n}",
            "response_b": "no" * (n % 5 + 1),
            "prob_a": 0.2 if n % 4 == 0 else 0.8,
            "human_label": "b" if n % 3 == 0 else "a",
            **more,
        }
        for n in range(count)
    ]


def write(path: Path, content: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    return str(path)


def result(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    return content


def run_folder(folder: Path, source: list[dict[str, Any]], p_first: float = 0.9) -> Path:
    """A finished run whose judge gives the first slot this probability."""
    path = write(folder.with_suffix(".jsonl"), [{k: v for k, v in row.items() if k != "prob_a"} for row in source])
    backend = BackendConfig(base_url=("http://host/v1?api-key=secret",))
    config = LabelConfig(path, str(folder), backend=backend)
    asyncio.run(run_label(config, backends=(FakeBackend(lambda _: p_first, name="fake:judge"),)))
    return folder


class TestFiles:
    def test_everything_is_written(self, tmp_path: Path) -> None:
        config = AuditConfig(write(tmp_path / "in.jsonl", rows()), str(tmp_path / "out"), resamples=100)
        steps: list[str] = []
        outcome = audit_file(config, on_step=steps.append)
        names = {path.name for path in outcome.files}
        assert {"audit.json", "report.html", "confusion.png"} <= names
        assert {path.name for path in (tmp_path / "out").iterdir()} == names
        # 12 rows; judge and people differ where one of n % 4, n % 3 is 0 and not both: n = 3, 4, 6, 8, 9.
        assert result(tmp_path / "out")["agreement"]["value"] == pytest.approx(7 / 12)
        assert result(tmp_path / "out") == json.loads(json.dumps(outcome.audit.as_json()))
        assert (outcome.failures, len(outcome.rows), len(steps)) == (0, 12, 3)
        assert "<title>" in (tmp_path / "out" / "report.html").read_text()

    def test_the_same_audit_gives_the_same_file(self, tmp_path: Path) -> None:
        config = AuditConfig(write(tmp_path / "in.jsonl", rows()), str(tmp_path / "out"), resamples=100)
        audit_file(config)
        before = (tmp_path / "out" / "audit.json").read_bytes()
        (tmp_path / "out" / "old.png").write_bytes(b"of an earlier audit")
        audit_file(config)
        assert (tmp_path / "out" / "audit.json").read_bytes() == before
        assert not (tmp_path / "out" / "old.png").exists()

    def test_a_folder_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")
        with pytest.raises(RunFolderError, match=r"is not empty and holds no audit\.json; choose another folder"):
            audit_file(AuditConfig(write(tmp_path / "in.jsonl", rows()), str(tmp_path / "out"), resamples=100))
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]

    def test_wrong_use_leaves_no_folder(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", rows())
        out = tmp_path / "new" / "out"
        for wrong in ({"cluster": "nowhere"}, {"by": ("nowhere",)}, {"judge_column": "nowhere"}, {"human": "nowhere"}):
            with pytest.raises(InputError):
                audit_file(AuditConfig(path, str(out), **wrong))  # type: ignore[arg-type]
        with pytest.raises(RunFolderError, match=r"in\.jsonl is a file"):
            audit_file(AuditConfig(path, f"{path}/out"))
        assert [each.name for each in tmp_path.iterdir()] == ["in.jsonl"]

    def test_what_a_killed_audit_drew_is_removed(self, tmp_path: Path) -> None:
        (tmp_path / "out" / ".audit-1").mkdir(parents=True)
        (tmp_path / "out" / ".audit-1" / "half.png").write_bytes(b"half")
        audit_file(AuditConfig(write(tmp_path / "in.jsonl", rows()), str(tmp_path / "out"), resamples=100))
        assert not (tmp_path / "out" / ".audit-1").exists()

    def test_a_calibration_replaces_no_other_file(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", rows())
        before = Path(path).read_bytes()
        for file, message in ((path, "holds something else than a calibration"), (str(tmp_path), "is a folder")):
            with pytest.raises(RunFolderError, match=message):
                audit_file(AuditConfig(path, str(tmp_path / "out"), fit_calibration=file))
        assert Path(path).read_bytes() == before

    def test_rows_that_cannot_be_read_are_listed_when_skipped(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", [*rows(), {**rows()[0], "id": "bad", "prob_a": 3}])
        config = AuditConfig(path, str(tmp_path / "out"), resamples=100, source=SourceConfig(skip_bad_rows=True))
        outcome = audit_file(config)
        assert (outcome.failures, len(outcome.rows)) == (1, 12)
        failure = json.loads((tmp_path / "out" / "failures.jsonl").read_text())
        assert (failure["id"], failure["stage"]) == ("bad", "input")
        assert result(tmp_path / "out")["source"]["rows_skipped"] == 1
        bad = write(tmp_path / "bad.jsonl", [{"prompt": 3, "prob_a": 1}])
        with pytest.raises(InputError, match="none of its 1 rows can be read; the first: InputError"):
            audit_file(AuditConfig(bad, str(tmp_path / "bad"), source=SourceConfig(skip_bad_rows=True)))

    def test_a_missing_extra_is_named_before_any_work(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        known = importlib.util.find_spec
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sklearn" else known(name))
        with pytest.raises(BackendNotInstalledError, match=r"needs sklearn, .* pip install 'rlaif\[audit\]'"):
            audit_file(AuditConfig("nowhere", str(tmp_path / "out")))
        assert not (tmp_path / "out").exists()


class TestRuns:
    def test_a_run_names_its_judge_and_no_secret(self, tmp_path: Path) -> None:
        folder = run_folder(tmp_path / "run", rows(task="chat"))
        found = audit(folder, **FEW)
        assert found.audit.source["judge"] == "fake:judge"
        assert found.audit.source["run"]["debias"] == "mean-prob"
        assert found.audit.source["run"]["status"] == "finished"
        assert found.audit.source["is_demonstration"] is False
        assert "secret" not in json.dumps(found.audit.as_json())
        assert list(found.audit.by) == ["task"]
        # The first slot always wins: both orders average to a tie, and no verdict survives the swap.
        assert found["swap_consistency"].value == 0.0
        assert found["first_position_rate"].value == 1.0
        assert found["agreement_with_ties"].value == 0.0

    def test_a_run_of_ratings_is_refused(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", [{"prompt": "P", "response": "x"}])
        config = RateConfig(path, str(tmp_path / "run"))
        asyncio.run(run_rate(config, backends=(FakeBackend(lambda _: 0.5),)))
        with pytest.raises(InputError, match="holds a run of `rlaif rate`, expected one of `rlaif label`"):
            audit(tmp_path / "run", **FEW)

    def test_two_judges_on_the_same_rows(self, tmp_path: Path) -> None:
        other = run_folder(tmp_path / "run", rows())
        found = audit(rows(), against=other, **FEW).audit.against
        assert found is not None
        assert found.name == "fake:judge"
        assert (found.agreement.value, found.other_agreement.value) == (pytest.approx(7 / 12), 0.0)
        assert (found.only_this, found.only_other) == (7, 0)

    def test_two_columns_of_one_file(self) -> None:
        table = rows(votes={"x": {"order_12": "a", "order_21": "b"}, "y": {"order_12": "a"}})
        columns = {"judge_column": "votes.x.order_12", "judge_column_ba": "votes.x.order_21"}
        found = audit(table, against_column="votes.y.order_12", **columns, **FEW).audit
        assert found.source["judge"] == "votes.x"
        assert found.against is not None
        assert found.against.name == "votes.y.order_12"
        assert found.against.other_agreement.value == pytest.approx(8 / 12)

    def test_judges_without_a_common_row_cannot_be_compared(self) -> None:
        others = [{**row, "id": f"other-{row['id']}"} for row in rows()]
        with pytest.raises(InputError, match=r"none of its 12 ids is in the input \(here 'other-r0', there 'r0'\)"):
            audit(rows(), against=others, **FEW)
        others = [{**row, "response_a": "another"} for row in rows()]
        with pytest.raises(InputError, match="has other responses than the input in each of the 12 rows"):
            audit(rows(), against=others, **FEW)

    def test_another_file_needs_answers_too(self) -> None:
        without = [{key: value for key, value in row.items() if key != "prob_a"} for row in rows()]
        with pytest.raises(InputError, match=r"named with --against-column \(and --against-column-ba\)"):
            audit(rows(), against=without, **FEW)

    def test_a_draw_with_another_seed_does_not_turn_the_other_judge_round(self) -> None:
        ranked = [
            {"id": f"r{n}", "prompt": f"P{n}", "chosen": f"good {n}", "rejected": "bad", "v": "a"} for n in range(40)
        ]
        turned = [
            {"id": f"r{n}", "prompt": f"P{n}", "response_a": "bad", "response_b": f"good {n}", "prob_a": 0.1}
            for n in range(40)
        ]
        found = audit(ranked, judge_column="v", against=turned, **FEW).audit.against
        assert found is not None
        assert (found.agreement.value, found.other_agreement.value, found.same_verdict.value) == (1.0, 1.0, 1.0)


class TestPeople:
    def test_labels_from_a_file(self, tmp_path: Path) -> None:
        labels = [{"id": f"r{n}", "human_label": 1} for n in range(6)] + [{"id": "x", "human_label": 2}]
        found = audit(rows(), human=write(tmp_path / "labels.jsonl", labels), **FEW)
        assert found["agreement"].value == pytest.approx(4 / 6)  # n = 0 and n = 4 say b
        assert found.audit.source["human"].endswith("labels.jsonl")
        assert found.audit.source["human_rows"] == {"labelled": 6, "not_yet_labelled": 0, "ids_not_in_input": 1}
        assert audit(rows(), human=labels, **FEW)["agreement"].value == pytest.approx(4 / 6)

    def test_suggested_rows_come_back_weighted(self, tmp_path: Path) -> None:
        random_draw = random.Random(1)
        source = rows(300)
        for row in source:
            row["prob_a"] = random_draw.random()
            del row["human_label"]
        path, out = write(tmp_path / "in.jsonl", source), tmp_path / "out"
        outcome = audit_file(AuditConfig(path, str(out), suggest=60, resamples=100))
        assert {out / "suggested.csv", out / "suggested.jsonl"} <= set(outcome.files)
        assert outcome.audit.figure("agreement").value is None

        sheet = pd.read_csv(out / "suggested.csv", keep_default_na=False)
        prefers_a = [row["response_1"].startswith("yes") for row in sheet.to_dict("records")]
        sheet["human_label"] = [1 if is_a else 2 for is_a in prefers_a]  # always the response that says yes: A
        sheet.to_csv(out / "suggested.csv", index=False)
        found = audit(path, human=out / "suggested.csv", **FEW)
        assert {row.comparison.human_label for row in found.rows if row.sampling_prob} == {"a"}
        weights = {row["id"]: 1 / row["sampling_prob"] for row in sheet.to_dict("records")}
        right = {row["id"]: row["prob_a"] > 0.5 for row in source}
        expected = sum(weights[i] * right[i] for i in weights) / sum(weights.values())
        assert found["agreement"].value == pytest.approx(expected)

        with pytest.raises(RunFolderError, match=r"suggested\.csv: somebody has written labels into it"):
            audit_file(AuditConfig(path, str(out), suggest=60, resamples=100))
        audit_file(AuditConfig(path, str(out), resamples=100))
        assert "1" in (out / "suggested.csv").read_text()

    def test_half_of_the_labels_with_sampling_probabilities(self) -> None:
        table = rows()
        table[0]["sampling_prob"] = 0.5
        with pytest.raises(InputError, match="column 'sampling_prob': 11 of 12 rows with human labels have none"):
            audit(table, **FEW)


class TestCalibration:
    def judged(self, count: int) -> list[dict[str, Any]]:
        """A judge that is three times too sure, without slot bias."""
        draw = random.Random(0)
        table = []
        for row in rows(count):
            logit = draw.gauss(0, 1.5)
            judge = 1 / (1 + math.exp(-3 * logit))
            label = "a" if draw.random() < 1 / (1 + math.exp(-logit)) else "b"
            table.append({**row, "prob_a": judge, "prob_a_ab": judge, "prob_a_ba": judge, "human_label": label})
        return table

    def test_it_is_fitted_saved_and_reported(self, tmp_path: Path) -> None:
        found = audit(self.judged(400), fit_calibration=str(tmp_path / "c.json"), **FEW)
        assert found.audit.calibration is not None
        assert found.audit.calibration["temperature"] == pytest.approx(3, abs=0.8)
        assert "temperature" in (tmp_path / "c.json").read_text()

    def test_too_few_labels_are_refused_and_nothing_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(CalibrationError):
            audit(self.judged(10), fit_calibration=str(tmp_path / "c.json"), out=tmp_path / "out", **FEW)
        assert not (tmp_path / "c.json").exists()
        assert not (tmp_path / "out").exists()

    def test_calibrated_probabilities_are_not_fitted_again(self) -> None:
        table = [{**row, "raw_prob_a": row["prob_a"], "raw_prob_a_ab": row["prob_a_ab"]} for row in self.judged(100)]
        with pytest.raises(CalibrationError, match="was calibrated before; fit on the judge's own"):
            audit(table, fit_calibration="c.json", **FEW)

    def test_of_clamped_labels_the_orders_are_fitted(self, tmp_path: Path) -> None:
        own = self.judged(400)
        clamped = [{**row, "prob_a": min(0.6, max(0.4, row["prob_a"])), "raw_prob_a": row["prob_a"]} for row in own]
        one, other = (audit(table, fit_calibration=str(tmp_path / "c.json"), **FEW).audit for table in (own, clamped))
        assert one.calibration == other.calibration is not None


class TestPython:
    def test_any_rows(self, tmp_path: Path) -> None:
        path = write(tmp_path / "in.jsonl", rows())
        sources = (rows(), iter(rows()), pd.DataFrame(rows()), datasets.Dataset.from_list(rows()), path, Path(path))
        for source in sources:
            assert audit(source, **FEW)["agreement"].value == pytest.approx(7 / 12)

    def test_a_report(self, tmp_path: Path) -> None:
        report = rlaif.audit(rows(task="chat"), by="task", **FEW)
        assert isinstance(report, AuditReport)
        assert "58.3 %" in str(report)
        assert repr(report) == "<AuditReport: Audit of prob_a, 12 rows>"
        assert report.figures["agreement"] == report["agreement"] == report.audit.figure("agreement")
        with pytest.raises(KeyError):
            report["nothing"]

        assert report.save(tmp_path / "deep" / "report.html").read_text().startswith("<!DOCTYPE html>")
        assert json.loads(report.save(tmp_path / "figures.json").read_text())["agreement"]["n"] == 12
        folder = report.save(tmp_path / "folder")
        assert {"audit.json", "report.html", "confusion.png"} <= {path.name for path in folder.iterdir()}
        with pytest.raises(RunFolderError, match=r"holds no audit\.json"):
            report.save(tmp_path / "deep")

    def test_with_a_folder_it_is_as_the_command(self, tmp_path: Path) -> None:
        audit(rows(), out=tmp_path / "one", **FEW)
        audit_file(AuditConfig("rows", str(tmp_path / "two"), resamples=100), source=rows())
        assert result(tmp_path / "one") == result(tmp_path / "two")

    def test_settings_are_checked_all_at_once(self) -> None:
        with pytest.raises(ConfigError, match=r"2 faults: .*judge_colum: unknown.*resamples: 3"):
            audit(rows(), judge_colum="x", resamples=3)
        with pytest.raises(ConfigError, match="suggest: needs out"):
            audit(rows(), suggest=10)

    def test_audit_is_a_function_after_every_module_was_imported(self) -> None:
        for module in pkgutil.walk_packages(rlaif.__path__, "rlaif."):
            if not any(part in module.name for part in ("__main__", "vllm")):
                importlib.import_module(module.name)
        assert inspect.isfunction(rlaif.audit)
        assert rlaif.audit is audit
