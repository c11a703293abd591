"""Labels by other weights of the principles: beside real runs by those weights, by one principle, and by hand."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from datasets import load_dataset

from rlaif.backends.fake import FakeBackend
from rlaif.calibration import Calibration, save_calibration
from rlaif.engine.audit_inputs import read_inputs
from rlaif.engine.config import AuditConfig, CalibrateConfig, LabelConfig
from rlaif.engine.explaining import explain_row
from rlaif.engine.labeling import run_label
from rlaif.engine.listening import SilentListener
from rlaif.engine.relabeling import calibrate_run
from rlaif.engine.reweight_config import ReweightConfig
from rlaif.engine.reweighting import ReweightOutcome, reweight_run
from rlaif.engine.run_folder import RunFolder
from rlaif.engine.training_origin import origin_of
from rlaif.errors import ConfigError, RequestRefusedError, RunFolderError
from rlaif.judge.config import JudgeConfig
from rlaif.records import Request

FIRST = {"short": 1.0, "kind": 3.0, "true": 0.7}
OTHER = {"short": 2.5, "kind": 0.1, "true": 0.3}
ROWS = 15
TEXTS = {"short": "Which is shorter?", "kind": "Which is kinder?", "true": "Which is true?"}


def handler(request: Request) -> float:
    """P(first slot): some number of the prompt's, so that orders, principles and rows differ; one row fails."""
    content = request.messages[0].content
    if "Question 7?" in content:
        raise RequestRefusedError("no")
    return 0.02 + 0.96 * int(hashlib.sha256(content.encode()).hexdigest()[:8], 16) / 2**32


def write_constitution(path: Path, weights: dict[str, float]) -> str:
    principles = [{"id": name, "text": TEXTS[name], "weight": weight} for name, weight in weights.items()]
    path.write_text(yaml.safe_dump({"principles": principles}))
    return str(path)


@pytest.fixture
def config(tmp_path: Path) -> LabelConfig:
    """To label rows under `FIRST`: two of them with identical responses, one that fails."""
    path = tmp_path / "comparisons.jsonl"
    rows = [
        {
            "id": f"row {n}",
            "prompt": f"Question {n}?",
            "response_a": "no" if n in (5, 11) else "yes " * (n % 11),
            "response_b": "no",
            "human_label": ["a", "b", None][n % 3],
            "by_principle": n,
        }
        for n in range(ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    constitution = write_constitution(tmp_path / "first.yaml", FIRST)
    return LabelConfig(str(path), str(tmp_path / "run"), JudgeConfig(constitution=constitution))


def other(config: LabelConfig) -> LabelConfig:
    """The same under `OTHER`, elsewhere."""
    path = Path(config.out).parent / "other.yaml"
    judging = replace(config.judging, constitution=write_constitution(path, OTHER))
    return replace(config, out=f"{config.out}-other", judging=judging)


async def label(config: LabelConfig, *names: str) -> None:
    backends = tuple(
        FakeBackend(lambda request, name=name: (handler(request) + len(name) / 10) % 1.0, name=name)  # type: ignore[misc]
        for name in names
    )
    await run_label(config, backends=backends or (FakeBackend(handler),))


def reweight(config: LabelConfig, weights: dict[str, float], out: str = "new", **more: Any) -> ReweightOutcome:
    return reweight_run(ReweightConfig(config.out, f"{config.out}-{out}", weights), **more)


def table(folder: str | Path) -> pa.Table:
    return pq.read_table(Path(folder) / "data")


def rows(folder: str | Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = table(folder).to_pylist()
    return found


def run_json(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
    return content


class Heard(SilentListener):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logit": {"debias": "mean-logit"},
    "one order": {"orders": "ba"},
    "random order": {"orders": "random"},
    "reasons": {"cot": True},
    "reasons, clamped": {"cot": True, "clamp": True},
    "sampled": {"scoring": "sample", "samples": 3},
    "two of three": {"principles": "true,short"},
}


class TestExactness:
    async def test_by_hand(self, config: LabelConfig) -> None:
        def by_principle(request: Request) -> float:
            return 0.8 if "shorter" in request.messages[0].content else 0.4

        judging = replace(config.judging, orders="ab", principles="short,kind")
        await run_label(replace(config, judging=judging), backends=(FakeBackend(by_principle),))
        before, after = rows(config.out)[0], rows(reweight(config, {"short": 3, "kind": 1}).labels.folder)[0]
        assert before["prob_a"] == pytest.approx(0.5)  # (1 * 0.8 + 3 * 0.4) / 4
        assert after["prob_a"] == pytest.approx(0.7)  # (3 * 0.8 + 1 * 0.4) / 4
        assert (before["is_tie"], after["is_tie"], after["chosen"]) == (True, False, after["response_a"])
        assert after["by_principle"] == before["by_principle"]

    @pytest.mark.parametrize("settings", SETTINGS)
    async def test_it_is_what_a_run_by_these_weights_says(self, config: LabelConfig, settings: str) -> None:
        config = replace(config, judging=replace(config.judging, **SETTINGS[settings]))
        await label(config)
        await label(other(config))
        known = [each["name"] for each in rows(config.out)[0]["by_principle"]]
        outcome = reweight(config, {name: OTHER[name] for name in known})
        asked, made = table(other(config).out), table(outcome.labels.folder)
        assert made.schema.equals(asked.schema, check_metadata=True)
        assert made.equals(asked)
        assert not made.equals(table(config.out))
        assert (outcome.labels.rows, outcome.labels.failures) == (ROWS - 1, 1)
        for name in ("rows", "failures", "ties", "swap_consistency", "identical", "label_mass_mean"):
            assert run_json(outcome.labels.folder)["counts"][name] == run_json(other(config).out)["counts"][name], name

    @pytest.mark.parametrize("settings", SETTINGS)
    async def test_the_runs_own_weights_change_nothing(self, config: LabelConfig, settings: str) -> None:
        config = replace(config, judging=replace(config.judging, **SETTINGS[settings]))
        await label(config)
        outcome = reweight(config, {"short": FIRST["short"]})
        assert table(outcome.labels.folder).equals(table(config.out))
        assert (outcome.labels.changed_sides, outcome.labels.moved) == (0, 0.0)

    @pytest.mark.parametrize("settings", ["plain", "logit", "one order", "reasons, clamped"])
    async def test_one_weight_alone_is_that_principle_alone(self, config: LabelConfig, settings: str) -> None:
        judging = replace(config.judging, **SETTINGS[settings])
        config = replace(config, judging=judging)
        alone = replace(config, out=f"{config.out}-alone", judging=replace(judging, principles="kind"))
        await label(config)
        await label(alone)
        made = table(reweight(config, {"short": 0, "true": 0}).labels.folder)
        columns = [name for name in table(alone.out).column_names if not name.startswith(("label_mass", "rationale"))]
        assert made.select(columns).equals(table(alone.out).select(columns))
        assert set(made.column_names) - set(table(alone.out).column_names) == {"by_principle"}

    @pytest.mark.parametrize("debias", ["mean-prob", "mean-logit"])
    async def test_a_panel(self, config: LabelConfig, debias: Any) -> None:
        config = replace(config, judging=replace(config.judging, debias=debias))
        await label(config, "one", "another")
        await label(other(config), "one", "another")
        outcome = reweight(config, OTHER)
        for made, asked in zip(rows(outcome.labels.folder), rows(other(config).out), strict=True):
            for name in ("prob_a", "prob_a_ab", "prob_a_ba", "chosen_prob"):
                assert made[name] == pytest.approx(asked[name], abs=1e-12), name
            assert made["chosen"] == asked["chosen"]
            assert made["by_principle"] == asked["by_principle"]
        own = table(reweight(config, FIRST, "own").labels.folder)["prob_a"].to_pylist()
        assert own == pytest.approx(table(config.out)["prob_a"].to_pylist(), abs=1e-12)

    async def test_what_each_judge_says_by_these_weights_is_not_made_up(self, config: LabelConfig) -> None:
        await label(config, "one", "another")
        folder = reweight(config, OTHER).labels.folder
        assert "by_judge" in table(config.out).column_names
        assert "by_judge" not in table(folder).column_names
        assert "judge_correlation" not in run_json(folder)["counts"]
        assert "there is no column `by_judge`" in (folder / "README.md").read_text()
        assert [judge["name"] for judge in run_json(folder)["judges"]] == ["one", "another"]


class TestCalibrated:
    @pytest.fixture
    def file(self, tmp_path: Path) -> str:
        save_calibration(Calibration(0.5, 0.6, -0.4), tmp_path / "f.json")
        return str(tmp_path / "f.json")

    @pytest.mark.parametrize("clamp", [None, "0.3-0.7"])
    async def test_the_new_labels_are_calibrated_and_clamped_too(
        self, config: LabelConfig, file: str, clamp: str | None
    ) -> None:
        config = replace(config, calibration=file, judging=replace(config.judging, clamp=clamp))
        await label(config)
        await label(other(config))
        heard = Heard()
        outcome = reweight(config, OTHER, listener=heard)
        assert table(outcome.labels.folder).equals(table(other(config).out))
        (warning,) = heard.warnings
        assert "fitted to labels by other weights" in warning
        assert run_json(outcome.labels.folder)["calibration"] == run_json(config.out)["calibration"]
        assert "## Calibration" in (outcome.labels.folder / "README.md").read_text()

    async def test_weights_and_calibration_in_either_order(self, config: LabelConfig, file: str) -> None:
        await label(config)
        weighed = reweight(config, OTHER).labels.folder
        one = calibrate_run(CalibrateConfig(str(weighed), f"{config.out}-1", file)).folder
        calibrated = calibrate_run(CalibrateConfig(config.out, f"{config.out}-2", file)).folder
        two = reweight_run(ReweightConfig(str(calibrated), f"{config.out}-3", OTHER)).labels.folder
        assert table(one).equals(table(two))
        for folder in (one, two):
            assert run_json(folder)["decisive"]["weights"] == OTHER
            assert "(weight 2.5)" in (folder / "README.md").read_text()


class TestWhichWeights:
    async def test_those_not_given_stay(self, config: LabelConfig) -> None:
        await label(config)
        once = reweight(config, {"kind": 9})
        assert once.weights == {"short": 1.0, "kind": 9.0, "true": 0.7}
        again = reweight_run(ReweightConfig(str(once.labels.folder), f"{config.out}-2", {"true": 0}))
        assert again.weights == {"short": 1.0, "kind": 9.0, "true": 0.0}
        at_once = reweight(config, {"kind": 9, "true": 0}, "at-once")
        assert table(again.labels.folder).equals(table(at_once.labels.folder))

    async def test_moved_and_changed_are_against_the_old_run(self, config: LabelConfig) -> None:
        await label(config)
        first = reweight(config, {"kind": 9})
        again = reweight_run(ReweightConfig(str(first.labels.folder), f"{config.out}-2", {"short": 9}))
        pairs = list(zip(rows(first.labels.folder), rows(again.labels.folder), strict=True))
        assert again.labels.moved == pytest.approx(sum(abs(a["prob_a"] - b["prob_a"]) for a, b in pairs) / (ROWS - 1))
        assert again.labels.changed_sides == sum(a["chosen"] != b["chosen"] for a, b in pairs) > 0

    async def test_a_constitution_that_is_gone_or_another(self, config: LabelConfig) -> None:
        await label(config)
        assert config.judging.constitution is not None
        path = Path(config.judging.constitution)
        write_constitution(path, OTHER)
        for _ in range(2):
            with pytest.raises(ConfigError, match=r"kind, true: not given, .* gone or another by now; give all of"):
                reweight(config, {"short": 2})
            outcome = reweight(config, FIRST)  # the same again is the same run
            assert table(outcome.labels.folder).equals(table(config.out))
            path.unlink(missing_ok=True)
        assert "`kind` (weight 3): its text is not at hand" in (outcome.labels.folder / "README.md").read_text()

    @pytest.mark.parametrize(
        ("weights", "message"),
        [
            ({"knd": 1.0}, r"has no principle 'knd' \(did you mean 'kind'\?\); known: short, kind, true"),
            ({"short": 0.0, "kind": 0.0, "true": 0.0}, "all are 0, expected one above 0 at least"),
        ],
    )
    async def test_weights_that_make_no_label(self, config: LabelConfig, weights: Any, message: str) -> None:
        await label(config)
        with pytest.raises(ConfigError, match=message):
            reweight(config, weights)
        assert not Path(f"{config.out}-new").exists()


class TestWhichRuns:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"principles": "sample"}, "by one principle a row, drawn from the seed"),
            ({"principles": "kind"}, "by one principle alone"),
            ({"constitution": None}, "without a constitution"),
        ],
    )
    async def test_one_principle_cannot_be_weighed(self, config: LabelConfig, settings: Any, message: str) -> None:
        config = replace(config, judging=replace(config.judging, **settings))
        await label(config)
        with pytest.raises(RunFolderError, match=f"{message}.*rlaif label --constitution NAME --principles all"):
            reweight(config, {"kind": 2})
        assert not Path(f"{config.out}-new").exists()

    async def test_rows_that_no_judge_was_asked_about_stay(self, config: LabelConfig) -> None:
        await label(config)
        made = {row["id"]: row for row in rows(reweight(config, OTHER).labels.folder)}
        for name in ("row 5", "row 11"):
            assert (made[name]["prob_a"], made[name]["is_tie"], made[name]["by_principle"]) == (0.5, True, [])
        assert "row 7" not in made
        assert made["row 3"]["input_by_principle"] == 3  # the user's own

    async def test_a_run_where_no_row_was_asked_about(self, config: LabelConfig) -> None:
        Path(config.input).write_text('{"prompt": "P", "response_a": "same", "response_b": "same"}\n')
        await label(config)
        outcome = reweight(config, {"kind": 2})
        assert outcome.weights == {**FIRST, "kind": 2.0}
        assert table(outcome.labels.folder).equals(table(config.out))

    async def test_rows_that_changed_since(self, config: LabelConfig) -> None:
        await label(config)
        path = Path(config.out) / "data" / "train-00000.parquet"
        kept = pq.read_table(path)
        labels = kept["by_principle"].to_pylist()
        labels[3] = labels[3][:2]
        place = kept.column_names.index("by_principle")
        pq.write_table(
            kept.set_column(place, kept.schema.field(place), pa.array(labels, kept.schema.types[place])), path
        )
        with pytest.raises(
            RunFolderError, match="row row 3: by_principle holds short, kind, expected short, kind, true"
        ):
            reweight(config, OTHER)


class TestTheNewFolder:
    async def test_is_whole(self, config: LabelConfig) -> None:
        await label(config)
        outcome = reweight(config, OTHER, command="rlaif reweight x")
        folder, before = outcome.labels.folder, run_json(config.out)
        known = run_json(folder)
        assert (known["command"], known["status"], known["repeat"]) == ("reweight", "finished", "rlaif reweight x")
        assert known["derived_from"]["run"] == config.out
        assert known["decisive"] == {
            **before["decisive"], "derived_from": known["derived_from"]["sha256"], "weights": OTHER,
        }  # fmt: skip
        assert known["calls"]["asked"] == 0
        card = (folder / "README.md").read_text()
        assert "- `short` (weight 2.5): Which is shorter?" in card
        assert "`rlaif reweight` averaged the answers by the weights given here" in card
        assert "No call was made" in card
        assert "by_judge" not in card
        loaded = load_dataset(str(folder), split="train", cache_dir=str(folder / "cache"))
        assert loaded["prob_a"] == table(folder)["prob_a"].to_pylist()
        assert (folder / "failures.jsonl").read_text() == (Path(config.out) / "failures.jsonl").read_text()

    async def test_belongs_to_its_weights(self, config: LabelConfig) -> None:
        await label(config)
        folder = reweight(config, {"kind": 2}).labels.folder
        before = (folder / "data" / "train-00000.parquet").read_bytes()
        reweight(config, {"true": 0.7, "kind": 2.0})  # the same weights
        assert (folder / "data" / "train-00000.parquet").read_bytes() == before
        with pytest.raises(RunFolderError, match="weights .was"):
            reweight(config, {"kind": 3})
        with pytest.raises(RunFolderError, match="holds a run of `rlaif label`"):
            reweight_run(ReweightConfig(config.out, config.out, OTHER))

    async def test_is_taken_by_what_takes_runs(self, config: LabelConfig) -> None:
        await label(config)
        folder = str(reweight(config, OTHER).labels.folder)
        inputs = read_inputs(AuditConfig(folder, f"{config.out}-audit"))
        assert inputs.source["run"]["weights"] == OTHER
        assert [row.prob_a for row in inputs.rows] == table(folder)["prob_a"].to_pylist()
        origin = origin_of(folder)
        assert origin is not None
        assert (origin.command, origin.is_calibrated) == ("reweight", False)
        with pytest.raises(RunFolderError, match=f"rlaif show row {config.out} row 1"):
            explain_row(RunFolder(Path(folder), "show"), "row 1")
