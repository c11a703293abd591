"""`rlaif filter`: planted faults are all caught, what is kept is as it was, and wrong inputs are refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from rlaif.backends.fake import REWARDS, FakeBackend, logprobs_of
from rlaif.calibration import Calibration, save_calibration
from rlaif.data.filtering import FilterOptions
from rlaif.data.selecting import PairRule, SelectionOptions, preference
from rlaif.engine.config import CalibrateConfig, LabelConfig, RateConfig, SourceConfig
from rlaif.engine.filter_config import FilterConfig
from rlaif.engine.filtering import FilterOutcome, filter_pairs
from rlaif.engine.labeling import run_label
from rlaif.engine.listening import SilentListener
from rlaif.engine.rating import run_rate
from rlaif.engine.relabeling import calibrate_run
from rlaif.engine.training_origin import origin_of
from rlaif.errors import ConfigError, InputError, RunFolderError
from rlaif.records import Request, RewardRequest, ScoreRequest

PATHOLOGICAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "pathological.jsonl"

ALL_FILTERS = FilterOptions(
    min_label_mass=0.5, drop_ties=True, swap_consistent=True, min_confidence=0.7, max_length_ratio=3.0,
    drop_cut_off=True, duplicates="near", max_per_prompt=2,
)  # fmt: skip

PLANTED = {"mass": 3, "tie": 2, "flip": 4, "weak": 3, "long": 2, "cut": 5, "exact": 4, "near": 3, "crowd": 2}
CLEAN = 40
"""Rows without fault; a few of them are what the duplicates repeat and the crowds crowd."""


class Heard(SilentListener):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, text: str) -> None:
        self.warnings.append(text)


def judge(request: Request) -> Any:
    """Prefers the goodly response; rows are marked where it is to fail in some way."""
    assert isinstance(request, ScoreRequest)
    text = request.messages[-1].content.lower()
    first = 0.9 if text.rindex("goodly") < text.rindex("badly") else 0.1
    if "planted flip" in text:
        first = 0.95 if first > 0.5 else 0.55  # the first slot both times, and no tie on average
    if "planted weak" in text:
        first = 0.5 + (first - 0.5) / 4
    if "planted tie" in text:
        first = 0.5
    share = 0.1 if "planted mass" in text else 1.0
    return logprobs_of({"1": first * share, "2": (1 - first) * share, "x": 1.0 - share}, request)


def planted_rows() -> list[dict[str, Any]]:
    rng = random.Random(0)
    words = [f"w{number}" for number in range(1000)]

    def text(count: int, mark: str = "") -> str:
        return " ".join([*rng.choices(words, k=count), mark]).strip()

    def clean(name: str) -> dict[str, Any]:
        return {
            "id": name,
            "prompt": text(12),
            "response_a": text(30, "goodly"),
            "response_b": text(30, "badly"),
            "finish_reason_a": "stop",
            "finish_reason_b": "stop",
            "topic": ["x", "y", None][len(name) % 3],
        }

    rows = [clean(f"clean {number}") for number in range(CLEAN)]
    for kind in ("mass", "tie", "flip", "weak"):
        for number in range(PLANTED[kind]):
            row = clean(f"{kind} {number}")
            rows.append({**row, "prompt": f"{row['prompt']} planted {kind}"})
    for number in range(PLANTED["long"]):
        row = clean(f"long {number}")
        rows.append({**row, "response_a": text(120, "goodly")} if number % 2 else {**row, "response_b": "badly"})
    for number in range(PLANTED["cut"]):
        rows.append({**clean(f"cut {number}"), f"finish_reason_{'ab'[number % 2]}": "length"})
    for number in range(PLANTED["exact"]):
        row = {**rows[number], "id": f"exact {number}"}
        if number % 2:
            row["response_a"], row["response_b"] = row["response_b"], row["response_a"]
        rows.append(row)
    for number in range(PLANTED["near"]):
        row = rows[10 + number]
        rows.append({**row, "id": f"near {number}", "response_b": f"{row['response_b'].upper()}! {text(1)}"})
    for number in range(PLANTED["crowd"]):  # a third pair of a prompt, after the two kept
        prompt = rows[20 + number]["prompt"]
        rows.append({**clean(f"second {number}"), "prompt": prompt})
        rows.append({**clean(f"crowd {number}"), "prompt": prompt})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


async def labeled(folder: Path, rows: list[dict[str, Any]], handler: Any = judge) -> str:
    config = LabelConfig(write(folder / "rows.jsonl", rows), str(folder / "run"))
    await run_label(config, backends=(FakeBackend(handler),))
    return config.out


def table(folder: str | Path) -> Any:
    return pq.read_table(Path(folder) / "data")


def ids(folder: str | Path) -> list[str]:
    found: list[str] = table(folder).column("id").to_pylist()
    return found


def run_json(folder: str | Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(folder) / "run.json").read_text())
    return content


def dropped(folder: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(folder) / "dropped.jsonl").read_text().splitlines()]


def counts(outcome: FilterOutcome) -> list[tuple[str, int, int, int]]:
    return [(each.filter.value, each.before, each.dropped, each.after) for each in outcome.counts]


class TestPlanted:
    async def test_all_are_caught_with_right_counts(self, tmp_path: Path) -> None:
        rows = planted_rows()
        run = await labeled(tmp_path, rows)
        outcome = filter_pairs(FilterConfig(run, str(tmp_path / "new"), ALL_FILTERS))
        total = CLEAN + sum(PLANTED.values()) + 2  # and two rows that come second in a crowd
        steps = (
            ("min-label-mass", "mass"), ("drop-ties", "tie"), ("swap-consistent", "flip"), ("min-confidence", "weak"),
            ("max-length-ratio", "long"), ("drop-cut-off", "cut"), ("duplicates", "both"), ("max-per-prompt", "crowd"),
        )  # fmt: skip
        expected, left = [], total
        for name, kind in steps:
            bad = PLANTED["exact"] + PLANTED["near"] if kind == "both" else PLANTED[kind]
            expected.append((name, left, bad, left - bad))
            left -= bad
        assert counts(outcome) == expected
        assert (outcome.before, outcome.rows) == (total, CLEAN + 2)
        kinds = {line["id"]: line["filter"] for line in dropped(outcome.folder)}
        of_kind = {**{kind: name for name, kind in steps}, "exact": "duplicates", "near": "duplicates"}
        names = [row["id"] for row in rows]
        assert kinds == {name: of_kind[name.split()[0]] for name in names if name.split()[0] in of_kind}
        assert ids(outcome.folder) == [name for name in names if name not in kinds]
        told = {line["id"]: (line["value"], line["asked"]) for line in dropped(outcome.folder)}
        assert told["exact 3"] == ("clean 3", "near 0.8")
        assert told["near 2"] == ("clean 12", "near 0.8")
        assert told["cut 1"] == (["stop", "length"], True)
        assert told["flip 0"] == ([pytest.approx(0.95), pytest.approx(0.45)], True)
        assert told["tie 0"] == (0.5, 1e-9)
        content = run_json(outcome.folder)
        assert content["status"] == "finished"
        assert content["counts"]["filters"] == [each.as_json() for each in outcome.counts]
        assert content["counts"]["swap_consistency"] == 1.0
        card = (outcome.folder / "README.md").read_text()
        assert "| `--swap-consistent` |" in card
        assert load_dataset(str(outcome.folder), split="train").num_rows == CLEAN + 2

    async def test_exact_duplicates_alone(self, tmp_path: Path) -> None:
        run = await labeled(tmp_path, planted_rows())
        outcome = filter_pairs(FilterConfig(run, str(tmp_path / "new"), FilterOptions(duplicates="exact")))
        assert [line["id"].split()[0] for line in dropped(outcome.folder)] == ["exact"] * PLANTED["exact"]

    async def test_exchanging_a_and_b_changes_no_count(self, tmp_path: Path) -> None:
        turned = [
            {
                **row,
                "response_a": row["response_b"],
                "response_b": row["response_a"],
                "finish_reason_a": row["finish_reason_b"],
                "finish_reason_b": row["finish_reason_a"],
            }
            for row in planted_rows()
        ]
        found = []
        for name, rows in (("one", planted_rows()), ("other", turned)):
            (tmp_path / name).mkdir()
            run = await labeled(tmp_path / name, rows)
            outcome = filter_pairs(FilterConfig(run, str(tmp_path / name / "new"), ALL_FILTERS))
            found.append((counts(outcome), ids(outcome.folder)))
        assert found[0] == found[1]


class TestRuns:
    async def test_without_filters_the_rows_are_as_they_were(self, tmp_path: Path) -> None:
        run = await labeled(tmp_path, planted_rows())
        outcome = filter_pairs(FilterConfig(run, str(tmp_path / "new")))
        assert table(outcome.folder).equals(table(run))
        assert table(outcome.folder).schema == table(run).schema
        assert dropped(outcome.folder) == []
        assert outcome.counts == ()

    async def test_row_groups_and_shards_that_lose_all_rows(self, tmp_path: Path) -> None:
        run = Path(await labeled(tmp_path, planted_rows()))
        whole = table(run)
        for number, start in enumerate(range(0, whole.num_rows, 25)):
            pq.write_table(whole.slice(start, 25), run / "data" / f"train-{number:05d}.parquet", row_group_size=10)
        keep = FilterOptions(min_label_mass=0.5, duplicates="exact")
        outcome = filter_pairs(FilterConfig(str(run), str(tmp_path / "new"), keep))
        gone = {line["id"] for line in dropped(outcome.folder)}
        assert len(gone) == PLANTED["mass"] + PLANTED["exact"]
        assert ids(outcome.folder) == [each for each in whole.column("id").to_pylist() if each not in gone]
        nothing = filter_pairs(FilterConfig(str(run), str(tmp_path / "none"), FilterOptions(min_confidence=0.99)))
        assert nothing.rows == 0
        assert table(nothing.folder).num_rows == 0
        assert "There are no rows" in (nothing.folder / "README.md").read_text()

    async def test_can_be_filtered_calibrated_and_trained_on(self, tmp_path: Path) -> None:
        run = await labeled(tmp_path, planted_rows())
        one = filter_pairs(FilterConfig(run, str(tmp_path / "one"), FilterOptions(drop_ties=True)))
        two = filter_pairs(FilterConfig(str(one.folder), str(tmp_path / "two"), FilterOptions(min_confidence=0.7)))
        assert run_json(two.folder)["derived_from"]["command"] == "filter"
        assert "filter drop-ties" not in run_json(two.folder)["decisive"]
        save_calibration(Calibration(2.0), tmp_path / "f.json")
        calibrated = calibrate_run(CalibrateConfig(str(two.folder), str(tmp_path / "c"), str(tmp_path / "f.json")))
        assert calibrated.rows == two.rows
        three = filter_pairs(FilterConfig(str(calibrated.folder), str(tmp_path / "three"), FilterOptions()))
        assert run_json(three.folder)["calibration"] == run_json(calibrated.folder)["calibration"]
        origin = origin_of(str(three.folder))
        assert origin is not None
        assert (origin.command, origin.judges, origin.is_calibrated) == ("filter", ("fake:handler",), True)

    async def test_the_same_again_and_other_settings(self, tmp_path: Path) -> None:
        run = await labeled(tmp_path, planted_rows())
        config = FilterConfig(run, str(tmp_path / "new"), ALL_FILTERS)
        filter_pairs(config)
        names = ("data/train-00000.parquet", "dropped.jsonl", "README.md", "failures.jsonl")
        before = [(tmp_path / "new" / name).read_bytes() for name in names]
        filter_pairs(config)
        assert [(tmp_path / "new" / name).read_bytes() for name in names] == before
        with pytest.raises(RunFolderError, match=r"other settings: filter min-confidence \(was 0.7, now 0.8\)"):
            filter_pairs(FilterConfig(run, config.out, FilterOptions(**{**vars(ALL_FILTERS), "min_confidence": 0.8})))

    async def test_killed_midway_and_run_again(self, tmp_path: Path) -> None:
        run = await labeled(tmp_path, planted_rows())
        out, whole = tmp_path / "new", tmp_path / "whole"
        script = (
            "import os, signal, sys\n"
            "from rlaif.engine import filtering\n"
            "from rlaif.engine.filter_config import FilterConfig\n"
            "from rlaif.data.filtering import FilterOptions\n"
            "def kill(*given): os.kill(os.getpid(), signal.SIGKILL)\n"
            "filtering.rewrite_shards = kill\n"
            "filtering.filter_pairs(FilterConfig(sys.argv[1], sys.argv[2], FilterOptions(duplicates='near')))\n"
        )
        killed = subprocess.run([sys.executable, "-c", script, run, str(out)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert run_json(out)["status"] == "running"
        with pytest.raises(RunFolderError, match="the run is running, expected a finished one"):
            filter_pairs(FilterConfig(str(out), str(tmp_path / "of it")))
        for folder in (out, whole):
            filter_pairs(FilterConfig(run, str(folder), FilterOptions(duplicates="near")))
        assert table(out).equals(table(whole))
        assert (out / "dropped.jsonl").read_bytes() == (whole / "dropped.jsonl").read_bytes()
        assert not [name for name in os.listdir(out) if name.endswith(".new")]

    async def test_what_cannot_be_told_is_kept_and_said(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"{n}?", "response_a": "yes", "response_b": "no"} for n in range(3)]
        run = await labeled(tmp_path, rows, lambda request: 0.6)
        heard = Heard()
        config = FilterConfig(run, str(tmp_path / "new"), FilterOptions(drop_cut_off=True))
        outcome = filter_pairs(config, heard)
        assert outcome.rows == outcome.counts[0].untold == 3
        assert "--drop-cut-off could be told of none of the 3 pairs" in heard.warnings[0]

    @pytest.mark.skipif(not PATHOLOGICAL.is_file(), reason="the shared data are not here")
    async def test_hostile_rows(self, tmp_path: Path) -> None:
        config = LabelConfig(str(PATHOLOGICAL), str(tmp_path / "run"), source=SourceConfig(skip_bad_rows=True))
        await run_label(config, backends=(FakeBackend(lambda request: 0.8),))
        outcome = filter_pairs(FilterConfig(config.out, str(tmp_path / "new"), ALL_FILTERS))
        assert outcome.rows + len(dropped(outcome.folder)) == outcome.before == table(config.out).num_rows
        assert len(ids(outcome.folder)) == outcome.rows


class TestFiles:
    @pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
    def test_rows_with_prob_a(self, tmp_path: Path, suffix: str) -> None:
        rows = [
            {"question": "1?", "output_1": "a b", "output_2": "c", "prob_a": 0.9, "extra": "x"},
            {"question": "2?", "output_1": "a b", "output_2": "c", "prob_a": 0.4, "extra": "y"},
        ]
        path = tmp_path / f"rows.{suffix}"
        if suffix == "jsonl":
            write(path, rows)
        elif suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path)
        else:
            path.write_text("question,output_1,output_2,prob_a,extra\n1?,a b,c,0.9,x\n2?,a b,c,0.4,y\n")
        outcome = filter_pairs(FilterConfig(str(path), str(tmp_path / "new"), FilterOptions(min_confidence=0.7)))
        kept = {name: str(value) if suffix == "csv" else value for name, value in rows[0].items()}
        assert table(outcome.folder).to_pylist() == [kept]
        (line,) = dropped(outcome.folder)
        assert (line["filter"], line["value"], line["asked"]) == ("min-confidence", 0.6, 0.7)
        content = run_json(outcome.folder)
        assert (content["is_label_run"], content["judges"]) == (False, [])

    def test_chosen_and_rejected_without_a_probability(self, tmp_path: Path) -> None:
        rows = [{"prompt": f"{n}?", "chosen": "yes", "rejected": "no " * n} for n in range(1, 4)]
        config = FilterConfig(
            write(tmp_path / "rows.jsonl", rows),
            str(tmp_path / "new"),
            FilterOptions(min_confidence=0.9, max_length_ratio=2.0),
        )
        outcome = filter_pairs(config)
        assert counts(outcome) == [("min-confidence", 3, 0, 3), ("max-length-ratio", 3, 1, 2)]
        assert table(outcome.folder).to_pylist() == rows[:2]

    def test_a_run_folder_without_run_json(self, tmp_path: Path) -> None:
        rows = [{"id": str(n), "prompt": "?", "response_a": "a", "response_b": "b", "prob_a": n / 4} for n in range(5)]
        (tmp_path / "given" / "data").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "given" / "data" / "train-00000.parquet")
        outcome = filter_pairs(
            FilterConfig(str(tmp_path / "given"), str(tmp_path / "new"), FilterOptions(max_per_prompt=2))
        )
        assert ids(outcome.folder) == ["0", "4"]

    def test_prompts_of_both_kinds_are_written_as_messages(self, tmp_path: Path) -> None:
        messages = [{"role": "user", "content": "2?"}]
        rows = [
            {"id": 1, "prompt": "1?", "response_a": "a", "response_b": "b", "prob_a": 0.9},
            {"id": "x", "prompt": messages, "response_a": {"role": "assistant", "content": "a"}, "response_b": "b",
             "prob_a": 0.9},
        ]  # fmt: skip
        outcome = filter_pairs(FilterConfig(write(tmp_path / "rows.jsonl", rows), str(tmp_path / "new")))
        found = table(outcome.folder).to_pylist()
        assert [row["prompt"] for row in found] == [[{"role": "user", "content": "1?"}], messages]
        assert [(row["id"], row["response_a"]) for row in found] == [("1", "a"), ("x", "a")]

    def test_chosen_of_both_kinds_is_refused(self, tmp_path: Path) -> None:
        rows = [
            {"prompt": "1?", "chosen": "a", "rejected": "b"},
            {"prompt": "2?", "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"},
        ]
        with pytest.raises(InputError, match="column 'chosen': holds texts in some rows and messages in others"):
            filter_pairs(FilterConfig(write(tmp_path / "rows.jsonl", rows), str(tmp_path / "new")))

    def test_rows_that_cannot_be_read(self, tmp_path: Path) -> None:
        rows = [
            {"id": "1", "prompt": "1?", "response_a": "a", "response_b": "b", "prob_a": 0.9},
            {"id": "2", "prompt": "2?", "response_a": "a", "response_b": "b", "prob_a": None},
            {"id": "3", "prompt": "3?", "response_a": "a", "response_b": "b", "prob_a": 1.5},
        ]
        given, out = write(tmp_path / "rows.jsonl", rows), str(tmp_path / "new")
        with pytest.raises(InputError, match=r"line 2, column 'prob_a': is null, expected a probability"):
            filter_pairs(FilterConfig(given, out))
        assert not Path(out).exists()
        outcome = filter_pairs(FilterConfig(given, out, source=SourceConfig(skip_bad_rows=True)))
        assert (outcome.rows, outcome.failures) == (1, 2)
        failures = (Path(out) / "failures.jsonl").read_text().splitlines()
        assert [json.loads(line)["id"] for line in failures] == ["2", "3"]


CANDIDATES = [
    {"id": "p1", "prompt": "1?", "responses": ["aaaa", "a", "aaaaaaa", "aaaa "], "policies": ["m1", "m1", "m2", "m2"],
     "finish_reasons": ["stop", "stop", "stop", "length"], "topic": "x", "seeds": [1, 2, 3, 4]},
    {"id": "p2", "prompt": "2?", "responses": ["a", "b", "c"], "policies": ["m1", "m1", "m2"],
     "finish_reasons": ["stop", "stop", "stop"], "topic": "y", "seeds": [1, 2, 3]},
    {"id": "p3", "prompt": "3?", "responses": ["a"], "policies": ["m1"], "finish_reasons": ["stop"], "topic": None,
     "seeds": [1]},
]  # fmt: skip


async def rated(folder: Path) -> str:
    """A run whose reward is the length of a response: 4, 1, 7 and 5; 1, 1 and 1; 1."""

    def reward(request: Request) -> float:
        assert isinstance(request, RewardRequest)
        return float(len(request.response))

    config = RateConfig(write(folder / "candidates.jsonl", CANDIDATES), str(folder / "rated"))
    await run_rate(config, backends=(FakeBackend(reward, capabilities=REWARDS),))
    return config.out


class TestPairs:
    async def test_rs_dpo(self, tmp_path: Path) -> None:
        # differences of p1: 3, 3, 1, 6, 4, 2; at tau 2 sigmoids .818, .818, .622, .953, .881, .731
        options = SelectionOptions("rs-dpo", tau=2.0, eta=0.85)
        outcome = filter_pairs(FilterConfig(await rated(tmp_path), str(tmp_path / "new"), selection=options))
        found = table(outcome.folder).to_pylist()
        assert {frozenset((row["candidate_a"], row["candidate_b"])) for row in found} == {
            frozenset((1, 2)), frozenset((1, 3)),
        }  # fmt: skip
        assert outcome.selection is not None
        assert (outcome.selection.rows, outcome.selection.candidates, outcome.selection.without_pair) == (3, 8, 2)
        responses, policies, reasons = (CANDIDATES[0][name] for name in ("responses", "policies", "finish_reasons"))
        for row in found:
            a, b = row["candidate_a"], row["candidate_b"]
            score_a, score_b = len(responses[a]), len(responses[b])
            assert row["prob_a"] == preference(score_a, score_b, 2.0)
            assert (row["response_a"], row["response_b"]) == (responses[a], responses[b])
            assert (row["policy_a"], row["policy_b"]) == (policies[a], policies[b])
            assert (row["finish_reason_a"], row["finish_reason_b"]) == (reasons[a], reasons[b])
            assert (row["score_chosen"], row["score_rejected"]) == (max(score_a, score_b), min(score_a, score_b))
            assert len(row["chosen"]) > len(row["rejected"])
            assert row["chosen_prob"] >= 0.85
            assert (row["candidates_id"], row["topic"], row["id"]) == ("p1", "x", f"p1/{a}-{b}")
        assert "seeds" not in found[0]

    async def test_none_passes(self, tmp_path: Path) -> None:
        run = await rated(tmp_path)
        config = FilterConfig(run, str(tmp_path / "new"), selection=SelectionOptions("rs-dpo", tau=10.0, eta=0.85))
        # 6 / 10: 0.6457; to reach logit 0.85 = 1.7346, tau has to be 3.459 at most
        with pytest.raises(InputError, match=r"the largest is 0.6457, of row 'p1', .* --eta 0.645 or --tau 3.45 would"):
            filter_pairs(config)
        assert not (tmp_path / "new").exists()
        for options in (SelectionOptions("rs-dpo", tau=3.45), SelectionOptions("rs-dpo", tau=10.0, eta=0.645)):
            outcome = filter_pairs(FilterConfig(run, str(tmp_path / f"{options.tau}"), selection=options))
            assert outcome.rows == 1

    async def test_is_no_run_to_make_new_labels_of(self, tmp_path: Path) -> None:
        config = FilterConfig(await rated(tmp_path), str(tmp_path / "new"), selection=SelectionOptions("all"))
        filter_pairs(config)
        content = run_json(config.out)
        assert (content["derived_from"]["command"], content["judges"][0]["name"]) == ("rate", "fake:handler")
        save_calibration(Calibration(2.0), tmp_path / "f.json")
        with pytest.raises(RunFolderError, match="is a run of `rlaif filter` over rows of another kind"):
            calibrate_run(CalibrateConfig(config.out, str(tmp_path / "c"), str(tmp_path / "f.json")))

    @pytest.mark.parametrize("rule", ["all", "best-worst", "rs-dpo", "rso"])
    def test_single_candidates_are_not_said_to_be_equal(self, tmp_path: Path, rule: PairRule) -> None:
        given = write(tmp_path / "rows.jsonl", [{"prompt": "?", "responses": ["a"], "ratings": [3.0]}])
        with pytest.raises(InputError, match="none of its 1 rows has two candidates"):
            filter_pairs(FilterConfig(given, str(tmp_path / "new"), selection=SelectionOptions(rule)))

    async def test_all_equal(self, tmp_path: Path) -> None:
        rows = [{"prompt": "?", "responses": ["a", "b"], "ratings": [3.0, 3.0]}]
        given = write(tmp_path / "rows.jsonl", rows)
        for rule in ("rs-dpo", "best-worst"):
            with pytest.raises(InputError, match="in all of its 1 rows the candidates have equal scores"):
                filter_pairs(FilterConfig(given, str(tmp_path / "new"), selection=SelectionOptions(rule)))
        outcome = filter_pairs(FilterConfig(given, str(tmp_path / "new"), selection=SelectionOptions("all")))
        (row,) = table(outcome.folder).to_pylist()
        assert (row["prob_a"], row["is_tie"], row["chosen"]) == (0.5, True, row["response_a"])

    @pytest.mark.parametrize(("rule", "pairs", "without"), [("all", 9, 1), ("best-worst", 1, 2), ("rso", 3, 1)])
    async def test_the_other_rules(self, tmp_path: Path, rule: Any, pairs: int, without: int) -> None:
        config = FilterConfig(await rated(tmp_path), str(tmp_path / "new"), selection=SelectionOptions(rule))
        outcome = filter_pairs(config)
        assert outcome.selection is not None
        assert (outcome.before, outcome.rows, outcome.selection.without_pair) == (pairs, pairs, without)
        if rule == "best-worst":
            (row,) = table(outcome.folder).to_pylist()
            assert {row["candidate_a"], row["candidate_b"]} == {1, 2}
        before = table(outcome.folder)
        filter_pairs(config)
        assert table(outcome.folder).equals(before)

    async def test_then_filtered(self, tmp_path: Path) -> None:
        filters = FilterOptions(drop_ties=True, drop_cut_off=True, max_per_prompt=1)
        config = FilterConfig(await rated(tmp_path), str(tmp_path / "new"), filters, SelectionOptions("all"))
        outcome = filter_pairs(config)
        # 3 pairs of p2 are ties, 3 of p1 have its fourth candidate; of those left (4, 1), (4, 7), (1, 7) the last
        assert counts(outcome) == [("drop-ties", 9, 3, 6), ("drop-cut-off", 6, 3, 3), ("max-per-prompt", 3, 2, 1)]
        (row,) = table(outcome.folder).to_pylist()
        assert {row["candidate_a"], row["candidate_b"]} == {1, 2}

    async def test_seed_draws_which_is_a(self, tmp_path: Path) -> None:
        rows = [{"id": str(n), "prompt": f"{n}?", "responses": ["good", "bad"], "ratings": [9, 1]} for n in range(200)]
        given = write(tmp_path / "rows.jsonl", rows)
        found = []
        for seed in (0, 0, 1):
            out = tmp_path / str(len(found))
            filter_pairs(FilterConfig(given, str(out), selection=SelectionOptions("all"), seed=seed))
            found.append([row["response_a"] for row in table(out).to_pylist()])
        assert found[0] == found[1] != found[2]
        assert 70 < found[0].count("good") < 130

    async def test_the_wrong_kind_of_input(self, tmp_path: Path) -> None:
        out, all_pairs = str(tmp_path / "new"), SelectionOptions("all")
        with pytest.raises(ConfigError, match=r"holds candidates, .* --pairs all, best-worst, rs-dpo or rso"):
            filter_pairs(FilterConfig(await rated(tmp_path), out))
        given = write(tmp_path / "p.jsonl", [{"prompt": "?", "response_a": "a", "response_b": "b", "prob_a": 1}])
        with pytest.raises(ConfigError, match="holds pairs, and --pairs makes them of candidates"):
            filter_pairs(FilterConfig(given, out, selection=all_pairs))
        given = write(tmp_path / "s.jsonl", [{"prompt": "?", "response": "a", "rating": 3}])
        with pytest.raises(InputError, match="holds one response a row"):
            filter_pairs(FilterConfig(given, out, selection=all_pairs))
        given = write(tmp_path / "u.jsonl", [{"prompt": "?", "responses": ["a", "b"]}])
        with pytest.raises(InputError, match=r"column 'ratings': is missing, .* rate the rows first"):
            filter_pairs(FilterConfig(given, out, selection=all_pairs))
        given = write(
            tmp_path / "l.jsonl", [{"prompt": "?", "responses": ["a", "b"], "rewards": [1, 2], "policies": ["m"]}]
        )
        with pytest.raises(InputError, match="line 1, column 'policies': is a list of 1, expected a list of 2 texts"):
            filter_pairs(FilterConfig(given, out, selection=all_pairs))
        assert not Path(out).exists()
