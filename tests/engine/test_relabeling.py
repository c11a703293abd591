"""Calibrated labels: while labeling, and from a finished run."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import rlaif
from rlaif.backends.fake import FakeBackend
from rlaif.calibration import Calibration, FittedOn, load_calibration, save_calibration
from rlaif.data import shards
from rlaif.data.files import open_source
from rlaif.engine.config import CalibrateConfig, LabelConfig, RateConfig, SourceConfig
from rlaif.engine.labeling import calibrate, run_label
from rlaif.engine.listening import SilentListener
from rlaif.engine.rating import run_rate
from rlaif.engine.relabeling import calibrate_run
from rlaif.errors import InputError, RequestRefusedError, RunFolderError
from rlaif.judge.config import JudgeConfig
from rlaif.records import Judgment, Request, SoftLabel

RAW = ("raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba")
NUMBERS = ("prob_a", "prob_a_ab", "prob_a_ba")


class Heard(SilentListener):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.warnings: list[str] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)


def handler(request: Request) -> float:
    """P(first slot): some number of the prompt's, so that orders and rows differ; two rows fail."""
    content = request.messages[-1].content
    if "Question 7?" in content:
        raise RequestRefusedError("no")
    return 0.02 + 0.96 * int(hashlib.sha256(content.encode()).hexdigest()[:8], 16) / 2**32


def input_rows(count: int = 30) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "id": f"row {n}",
            "prompt": f"Question {n}?",
            "response_a": "yes " * (n % 11),
            "response_b": "no",
            "human_label": ["a", "b", None][n % 3],
            "raw_prob_a": n / 100,
            "mixed": n if n % 2 else {"nested": [n]},
        }
        for n in range(count)
    ]
    rows[5]["response_a"] = "no"  # identical: no judge is asked
    return rows


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "f.json"
    save_calibration(Calibration(0.5, 0.6, -0.4, FittedOn(100, ("fake:judge",))), path)
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> LabelConfig:
    path = tmp_path / "comparisons.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in input_rows()))
    return LabelConfig(str(path), str(tmp_path / "run"))


async def label(config: LabelConfig, listener: Heard | None = None, *names: str) -> None:
    backends = tuple(FakeBackend(handler, name=name) for name in names) or (FakeBackend(handler),)
    await run_label(config, listener, backends=backends)


def table(folder: str | Path) -> Any:
    return pq.read_table(Path(folder) / "data")


def rows(folder: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(folder).to_pylist()
    return found


def run_json(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
    return content


class TestOneLabel:
    def test_by_hand(self) -> None:
        # T 0.5 doubles logits: odds 4 -> 16, and 1.5 -> 2.25; the mean of 16/17 and 9/13
        judgment = Judgment(SoftLabel(0.7, 0.8, 0.6), calls=2)
        found = calibrate(judgment, "same length", "same-length", Calibration(0.5), "mean-prob")
        assert found.prob_a_ab == pytest.approx(16 / 17)
        assert found.prob_a_ba == pytest.approx(9 / 13)
        assert found.prob_a == pytest.approx((16 / 17 + 9 / 13) / 2)
        assert found.raw_label == judgment.label

    def test_one_order_is_the_label(self) -> None:
        found = calibrate(Judgment(SoftLabel(0.8, None, 0.8)), "a", "b", Calibration(0.5), "mean-prob")
        assert found.label == SoftLabel(found.prob_a, None, found.prob_a)
        assert found.prob_a == pytest.approx(16 / 17)

    def test_what_was_not_asked_stays_one_half(self) -> None:
        found = calibrate(Judgment(SoftLabel(0.5, None, None)), "a", "a", Calibration(2.0, 1.0, 1.0), "mean-prob")
        assert found.label == SoftLabel(0.5, None, None)

    def test_calibrating_again_starts_from_the_judges_own(self) -> None:
        judgment = Judgment(SoftLabel(0.7, 0.8, 0.6))
        once = calibrate(judgment, "a", "bb", Calibration(3.0, 1.0, 1.0), "mean-logit")
        assert calibrate(once, "a", "bb", Calibration(0.5), "mean-logit") == calibrate(
            judgment, "a", "bb", Calibration(0.5), "mean-logit"
        )

    @pytest.mark.parametrize("debias", ["mean-prob", "mean-logit"])
    def test_exchanging_a_and_b(self, debias: Any) -> None:
        calibration = Calibration(0.7, 0.5, 0.3)
        there = calibrate(Judgment(SoftLabel(0.7, 0.8, 0.6)), "a", "bbb", calibration, debias)
        back = calibrate(Judgment(SoftLabel(0.3, 0.4, 0.2)), "bbb", "a", calibration, debias)
        assert back.prob_a == pytest.approx(1 - there.prob_a)
        assert back.prob_a_ab == pytest.approx(1 - there.prob_a_ba)


SETTINGS = {
    "plain": JudgeConfig(),
    "logit": JudgeConfig(debias="mean-logit"),
    "one order": JudgeConfig(orders="ab"),
    "random order": JudgeConfig(orders="random"),
    "reasons": JudgeConfig(cot=True),
    "clamped": JudgeConfig(clamp="0.3-0.7"),
    "principles": JudgeConfig(constitution="helpful-harmless"),
}


@pytest.mark.parametrize("settings", SETTINGS)
async def test_while_labeling_or_afterwards_is_the_same(config: LabelConfig, file: str, settings: str) -> None:
    config = replace(config, judging=SETTINGS[settings])
    at_once = replace(config, out=f"{config.out}-at-once", calibration=file)
    await label(config)
    await label(at_once)
    outcome = calibrate_run(CalibrateConfig(config.out, f"{config.out}-after", file))
    one, other = table(at_once.out), table(outcome.folder)
    assert one.schema.equals(other.schema, check_metadata=True)
    assert one.equals(other)
    if (kept := config.judging.clamp_range) is not None:
        assert {kept.low, kept.high} < set(one["prob_a"].to_pylist())
        assert min(prob for prob in one["prob_a_ab"].to_pylist() if prob is not None) < kept.low
    assert (outcome.rows, outcome.failures) == (29, 1)
    for name in ("rows", "failures", "ties", "swap_consistency", "same_position_rate", "identical", "label_mass_mean"):
        assert run_json(at_once.out)["counts"][name] == run_json(outcome.folder)["counts"][name], name
    assert (Path(at_once.out) / "failures.jsonl").read_text() == (outcome.folder / "failures.jsonl").read_text()


async def test_a_panel_is_calibrated_as_a_whole(config: LabelConfig, file: str) -> None:
    await label(replace(config, calibration=file), None, "one", "two")
    await label(replace(config, out=f"{config.out}-raw"), None, "one", "two")
    for calibrated, raw in zip(rows(config.out), rows(f"{config.out}-raw"), strict=True):
        assert calibrated["by_judge"] == raw["by_judge"]
        assert [calibrated[name] for name in RAW] == [raw[name] for name in NUMBERS]
    after = calibrate_run(CalibrateConfig(f"{config.out}-raw", f"{config.out}-after", file))
    assert rows(after.folder) == rows(config.out)


async def test_the_columns_of_a_calibrated_run(config: LabelConfig, file: str) -> None:
    await label(config)
    await label(replace(config, out=f"{config.out}-new", calibration=file))
    raw, new = table(config.out), table(f"{config.out}-new")
    assert not set(RAW) & set(raw.column_names)
    place = raw.column_names.index("label_mass_ab")
    assert new.column_names == [*raw.column_names[:place], *RAW, *raw.column_names[place:]]
    assert raw["input_raw_prob_a"] == new["input_raw_prob_a"]  # the user's own
    for before, after in zip(raw.to_pylist(), new.to_pylist(), strict=True):
        assert [after[name] for name in RAW] == [before[name] for name in NUMBERS]
        assert after["chosen_prob"] == max(after["prob_a"], 1 - after["prob_a"])
        assert (after["chosen"] == after["response_a"]) == (after["prob_a"] >= 0.5)
        if before["response_a"] == before["response_b"]:
            assert (after["prob_a"], after["is_tie"], after["prob_a_ab"]) == (0.5, True, None)
        else:
            assert after["prob_a"] != before["prob_a"]


async def test_a_run_belongs_to_its_calibration(config: LabelConfig, file: str, tmp_path: Path) -> None:
    calibrated = replace(config, calibration=file)
    await label(calibrated)
    known = run_json(config.out)
    assert known["decisive"]["calibration"] == load_calibration(Path(file)).fingerprint
    assert known["calibration"]["temperature"] == 0.5
    await label(calibrated)  # the same again is a resume
    with pytest.raises(RunFolderError, match="calibration .was .*, now nothing"):
        await label(config)
    save_calibration(Calibration(0.51), tmp_path / "other.json")
    with pytest.raises(RunFolderError, match="calibration"):
        await label(replace(config, calibration=str(tmp_path / "other.json")))
    # where it comes from changes no label
    save_calibration(replace(load_calibration(Path(file)), fitted_on=None), tmp_path / "equal.json")
    await label(replace(config, calibration=str(tmp_path / "equal.json")))


async def test_a_run_without_one_tells_nothing_of_calibration(config: LabelConfig) -> None:
    await label(config)
    known = run_json(config.out)
    assert "calibration" not in known
    assert "calibration" not in known["decisive"]
    assert "alibrat" not in (Path(config.out) / "README.md").read_text()


async def test_a_missing_file_stops_before_anything(config: LabelConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.json"):
        await label(replace(config, calibration=str(tmp_path / "none.json")))
    assert not Path(config.out).exists()


async def test_another_judge_is_warned_of(config: LabelConfig, file: str) -> None:
    heard = Heard()
    await label(replace(config, calibration=file), heard, "fake:stranger")
    assert heard.warnings == [
        "the calibration was fitted on judge fake:judge, not fake:stranger; its numbers may not hold here"
    ]
    for judge, warnings in (("fake:judge", 0), ("fake:stranger", 1)):
        raw = f"{config.out}-{judge}"
        await label(replace(config, out=raw), None, judge)
        heard = Heard()
        calibrate_run(CalibrateConfig(raw, f"{raw}-new", file), heard)
        assert len(heard.warnings) == warnings


async def test_the_python_judge_calibrates_too(file: str) -> None:
    own = rlaif.Judge(FakeBackend(handler))
    with own, rlaif.Judge(FakeBackend(handler), calibration=file) as judge:
        raw, found = own.compare("P", "yes", "no"), judge.compare("P", "yes", "no")
        labeled = judge.label([{"prompt": "P", "response_a": "yes", "response_b": "no"}])
    assert found.raw_label == raw.label
    assert found.prob_a == pytest.approx(calibrate(raw, "yes", "no", load_calibration(Path(file)), "mean-prob").prob_a)
    assert labeled[0]["prob_a"] == found.prob_a
    assert labeled[0]["raw_prob_a"] == raw.prob_a


class TestFromAFinishedRun:
    async def test_the_folder_is_whole(self, config: LabelConfig, file: str) -> None:
        await label(config)
        outcome = calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file), command="rlaif calibrate x")
        known, before = run_json(outcome.folder), run_json(config.out)
        assert (known["command"], known["status"]) == ("calibrate", "finished")
        assert known["derived_from"]["run"] == config.out
        assert known["calls"] == {"asked": 0, "replayed": 0, "retries": 0}
        assert known["counts"]["input"] == before["counts"]["input"] == 30
        assert known["judges"] == before["judges"]
        assert known["repeat"] == "rlaif calibrate x"
        card = (outcome.folder / "README.md").read_text()
        assert "## Calibration" in card
        assert "No call was made" in card
        assert "raw_prob_a_ab" in card
        assert "before calibration" in card
        loaded = load_dataset(str(outcome.folder), split="train", cache_dir=str(outcome.folder / "cache"))
        assert loaded["prob_a"] == [row["prob_a"] for row in rows(outcome.folder)]
        raw = rows(config.out)
        assert outcome.moved == pytest.approx(
            sum(abs(one["prob_a"] - other["prob_a"]) for one, other in zip(raw, rows(outcome.folder), strict=True)) / 29
        )
        assert outcome.changed_sides == sum(
            (one["chosen"], one["is_tie"]) != (other["chosen"], other["is_tie"])
            for one, other in zip(raw, rows(outcome.folder), strict=True)
        )

    async def test_a_calibrated_run_is_calibrated_anew(self, config: LabelConfig, file: str, tmp_path: Path) -> None:
        await label(config)
        save_calibration(Calibration(3.0, -1.0, 1.0), tmp_path / "first.json")
        first = calibrate_run(CalibrateConfig(config.out, f"{config.out}-1", str(tmp_path / "first.json")))
        heard = Heard()
        second = calibrate_run(CalibrateConfig(str(first.folder), f"{config.out}-2", file), heard)
        directly = calibrate_run(CalibrateConfig(config.out, f"{config.out}-3", file))
        assert "calibrated already" in heard.messages[0]
        assert table(second.folder).equals(table(directly.folder))

    async def test_message_lists_stay_so(self, config: LabelConfig, file: str) -> None:
        turns = [{**row, "prompt": [{"role": "user", "content": row["prompt"]}]} for row in input_rows(9)]
        Path(config.input).write_text("".join(json.dumps(row) + "\n" for row in turns))
        await label(config)
        await label(replace(config, out=f"{config.out}-at-once", calibration=file))
        after = calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file))
        assert table(after.folder).equals(table(f"{config.out}-at-once"))
        assert rows(after.folder)[0]["chosen"][0]["role"] == "assistant"

    async def test_values_that_json_has_not_are_kept(self, config: LabelConfig, file: str) -> None:
        given = [
            {**row, "when": datetime.date(2026, 1, 1 + n), "bytes": b"\xff", "number": float("inf") if n else 0.5}
            for n, row in enumerate(input_rows(6))
        ]
        await run_label(config, source=open_source(given), backends=(FakeBackend(handler),))
        after = calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file))
        kept = ["when", "bytes", "number", "mixed", "id", "response_a"]
        assert table(after.folder).select(kept).equals(table(config.out).select(kept))

    async def test_shards_and_row_groups_stay_apart(
        self, config: LabelConfig, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shards, "_GROUP_ROWS", 4)
        monkeypatch.setattr(shards.RowWriter.__init__, "__kwdefaults__", {"rows_per_shard": 10})
        await label(config)
        after = calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file))
        files = [path.name for path in sorted((Path(config.out) / "data").iterdir())]
        assert len(files) == 3
        assert [path.name for path in sorted((after.folder / "data").iterdir())] == files
        assert pq.ParquetFile(after.folder / "data" / files[0]).num_row_groups == 3
        assert [row["id"] for row in rows(after.folder)] == [row["id"] for row in rows(config.out)]

    async def test_cut_short_and_run_again(
        self, config: LabelConfig, file: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(shards.RowWriter.__init__, "__kwdefaults__", {"rows_per_shard": 10})
        await label(config)
        calibrating = CalibrateConfig(config.out, f"{config.out}-new", file)
        written = []

        def failing(source: Path, target: Path) -> None:
            if len(written) == 1:
                raise KeyboardInterrupt
            written.append(target)
            Path(source).rename(target)

        with monkeypatch.context() as patch:
            patch.setattr(
                shards.os, "replace", lambda a, b: failing(a, b) if str(b).endswith("parquet") else Path(a).rename(b)
            )
            with pytest.raises(KeyboardInterrupt):
                calibrate_run(calibrating)
        assert run_json(calibrating.out)["status"] == "running"
        with pytest.raises(RunFolderError, match="is running, expected a finished one"):
            calibrate_run(CalibrateConfig(calibrating.out, f"{config.out}-more", file))
        again = calibrate_run(calibrating)
        whole = calibrate_run(CalibrateConfig(config.out, f"{config.out}-whole", file))
        for path in sorted((whole.folder / "data").iterdir()):
            assert path.read_bytes() == (again.folder / "data" / path.name).read_bytes()
        assert len(list((again.folder / "data").iterdir())) == 3

    async def test_what_is_no_finished_run_is_refused(self, config: LabelConfig, file: str, tmp_path: Path) -> None:
        new = str(tmp_path / "new")
        with pytest.raises(RunFolderError, match="holds no run.json"):
            calibrate_run(CalibrateConfig(str(tmp_path), new, file))
        await label(config)
        known = run_json(config.out)
        (Path(config.out) / "run.json").write_text(json.dumps({**known, "status": "interrupted"}))
        with pytest.raises(RunFolderError, match="is interrupted, expected a finished one"):
            calibrate_run(CalibrateConfig(config.out, new, file))
        (Path(config.out) / "run.json").write_text(json.dumps(known))
        (Path(config.out) / "data" / "train-00000.parquet").unlink()
        with pytest.raises(RunFolderError, match="holds no .parquet"):
            calibrate_run(CalibrateConfig(config.out, new, file))
        assert not Path(new).exists()

    async def test_ratings_are_refused(self, file: str, tmp_path: Path) -> None:
        ratings = RateConfig("rows", str(tmp_path / "ratings"))
        path = tmp_path / "responses.jsonl"
        path.write_text('{"prompt": "P", "response": "R"}\n')
        await run_rate(replace(ratings, input=str(path)), backends=(FakeBackend(lambda request: 0.5),))
        with pytest.raises(RunFolderError, match="is a run of `rlaif rate`"):
            calibrate_run(CalibrateConfig(ratings.out, str(tmp_path / "new"), file))

    async def test_rows_that_changed_since_are_refused(self, config: LabelConfig, file: str) -> None:
        await label(config)
        path = Path(config.out) / "data" / "train-00000.parquet"
        pq.write_table(pq.read_table(path).slice(0, 3), path)
        with pytest.raises(RunFolderError, match="holds 3 rows where run.json tells of 29"):
            calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file))

    async def test_no_folder_is_overwritten(self, config: LabelConfig, file: str, tmp_path: Path) -> None:
        await label(config)
        with pytest.raises(RunFolderError, match="holds a run of `rlaif label`"):
            calibrate_run(CalibrateConfig(config.out, config.out, file))
        new = CalibrateConfig(config.out, f"{config.out}-new", file)
        calibrate_run(new)
        save_calibration(Calibration(2.0), tmp_path / "other.json")
        with pytest.raises(RunFolderError, match="calibration .was"):
            calibrate_run(replace(new, calibration=str(tmp_path / "other.json")))
        with pytest.raises(RunFolderError, match="derived_from"):
            calibrate_run(replace(new, input=new.out))

    async def test_a_run_without_rows(self, config: LabelConfig, file: str) -> None:
        Path(config.input).write_text(json.dumps(input_rows()[0]) + "\n")
        skipping = replace(config, source=SourceConfig(skip_bad_rows=True))
        Path(config.input).write_text('{"prompt": "Question 7?", "response_a": "x", "response_b": "y"}\n')
        await label(skipping)
        after = calibrate_run(CalibrateConfig(config.out, f"{config.out}-new", file))
        assert (after.rows, after.failures, after.moved) == (0, 1, 0.0)
        assert "raw_prob_a" in table(after.folder).column_names
