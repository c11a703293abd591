from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlaif.data.files import open_source
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import load_training_rows
from rlaif.engine import ranking as ranking_module
from rlaif.engine.ranking import RankOutcome, rank_file
from rlaif.engine.ranking_config import RankConfig
from rlaif.errors import BackendNotInstalledError, ConfigError, InputError, RunFolderError

POLICIES = {"best": 1.2, "middle": 0.0, "worst": -1.2}
HOSTILE = {"# *big* `x`": 1.2, "<img src=x onerror=alert(1)>": 0.0, "a | b\n---\nconfigs: []\x1b[31m": -1.2}


def label_rows(policies: dict[str, float] = POLICIES, prompts: int = 12, **more: Any) -> list[dict[str, Any]]:
    """All pairs of one candidate a policy, for each prompt, with labels that are more or less right."""
    draw = random.Random(0)
    names = list(policies)
    rows = []
    for prompt in range(prompts):
        for one, other in ((0, 1), (1, 2), (0, 2)):
            first, second = (one, other) if draw.random() < 0.5 else (other, one)
            gap = policies[names[first]] - policies[names[second]] + draw.gauss(0, 0.7)
            rows.append(
                {
                    "id": f"{prompt}-{one}-{other}",
                    "prompt": f"Question {prompt}?",
                    "response_a": f"{names[first]} answers {prompt}",
                    "response_b": f"{names[second]} answers {prompt}",
                    "prob_a": 1 / (1 + math.exp(-gap)),
                    "candidates_id": f"c{prompt}",
                    "candidate_a": first,
                    "candidate_b": second,
                    "policy_a": names[first],
                    "policy_b": names[second],
                    "task": f"t{prompt % 2}",
                    "note": draw.random(),
                    **more,
                }
            )
    return rows


def rated_rows(prompts: int = 12) -> list[dict[str, Any]]:
    draw = random.Random(1)
    return [
        {
            "id": f"c{prompt}",
            "prompt": f"Question {prompt}?",
            "responses": [f"{name} answers" for name in POLICIES],
            "ratings": [5.0 + 2 * value + draw.gauss(0, 0.5) for value in POLICIES.values()],
            "policies": list(POLICIES),
        }
        for prompt in range(prompts)
    ]


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def rank(tmp_path: Path, rows: list[dict[str, Any]], out: str = "out", **settings: Any) -> RankOutcome:
    source = written(tmp_path / f"{out}.jsonl", rows)
    return rank_file(RankConfig(source, str(tmp_path / out), **{"resamples": 200, **settings}))


def result(outcome: RankOutcome) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((outcome.folder / "policies.json").read_text())
    return content


def test_policies_and_candidates_of_a_label_run(tmp_path: Path) -> None:
    outcome = rank(tmp_path, label_rows())
    content = result(outcome)
    assert [each["name"] for each in content["standings"]] == ["best", "middle", "worst"]
    assert content["source"]["by_columns"] == ["policy_a", "policy_b"]
    assert content["source"]["counts"] == {
        "input": 36, "labeled": 36, "without_label": 0, "ties": 0, "identical_responses": 0, "same_policy": 0,
        "failures": 0,
    }  # fmt: skip
    assert content["source"]["clusters"] == 12
    figures = [content["standings"][0][name] for name in ("strength", "elo", "win_rate", "rank")]
    assert all(set(each) == {"value", "low", "high", "n"} and each["n"] == 24 for each in figures)
    rows = [row.values for row in open_source(outcome.folder).read()]
    assert [row["id"] for row in rows] == [f"c{number}" for number in range(12)]
    assert list(rows[0]) == [
        "id", "prompt", "responses", "policies", "ranks", "candidates", "strengths", "rewards", "comparisons", "ties",
        "task",
    ]  # fmt: skip
    assert rows[3]["responses"] == ["best answers 3", "middle answers 3", "worst answers 3"]
    for row in rows:
        by_rank = sorted(zip(row["ranks"], row["strengths"], strict=True))
        assert [strength for _, strength in by_rank] == sorted(row["strengths"], reverse=True)
        assert sum(row["strengths"]) == pytest.approx(0)
    known = json.loads((outcome.folder / "run.json").read_text())
    assert (known["command"], known["status"], known["counts"]["rows"]) == ("rank", "finished", 12)
    assert known["columns_left_out"] == ["note"]
    assert (outcome.folder / "policies.png").read_bytes().startswith(b"\x89PNG")
    assert (outcome.folder / "failures.jsonl").read_text() == ""


def test_exchanging_a_and_b_in_the_rows_changes_nothing(tmp_path: Path) -> None:
    rows = label_rows()
    for row in rows[::2]:
        row["prob_a"] = 0.5
    swapped = [
        {
            **row,
            **{f"{name}_a": row[f"{name}_b"] for name in ("response", "candidate", "policy")},
            **{f"{name}_b": row[f"{name}_a"] for name in ("response", "candidate", "policy")},
            "prob_a": 1 - row["prob_a"],
        }
        for row in rows
    ]
    outcomes = [rank(tmp_path, each, out) for each, out in ((rows, "one"), (swapped, "other"))]
    one, other = (result(outcome) for outcome in outcomes)
    for mine, theirs in zip(one["standings"], other["standings"], strict=True):
        assert mine["name"] == theirs["name"]
        for name in ("strength", "elo", "win_rate", "rank"):
            assert list(mine[name].values()) == pytest.approx(list(theirs[name].values()))
    first, second = ([row.values for row in open_source(each.folder).read()] for each in outcomes)
    for row, twin in zip(first, second, strict=True):
        assert row["strengths"] == pytest.approx(twin["strengths"])
        assert (row["ranks"], row["responses"]) == (twin["ranks"], twin["responses"])


def test_identical_responses_tie_and_rows_without_use_are_counted(tmp_path: Path) -> None:
    rows = label_rows()
    rows[0] |= {"response_a": "same", "response_b": "same", "candidates_id": "other"}
    rows[1] |= {"prob_a": None}
    rows[4] |= {"policy_b": rows[4]["policy_a"]}
    rows = [{**row, "candidate_a": 0, "candidate_b": 1, "candidates_id": row["id"]} for row in rows]
    content = result(rank(tmp_path, rows))
    counts = content["source"]["counts"]
    assert (counts["labeled"], counts["without_label"], counts["ties"]) == (35, 1, 1)
    assert (counts["identical_responses"], counts["same_policy"]) == (1, 1)
    assert sum(pair["win_rate"]["n"] for pair in content["pairs"]) == 34
    assert sum(pair["ties"] for pair in content["pairs"]) == 1
    assert content["tie_parameter"]["value"] > 0


def test_the_same_again_writes_the_same_and_another_is_refused(tmp_path: Path) -> None:
    outcome = rank(tmp_path, label_rows())
    names = ("data/train-00000.parquet", "policies.json", "policies.png", "README.md", "failures.jsonl")
    before = {name: (outcome.folder / name).read_bytes() for name in names}
    for name in ("policies.json", "data/train-00000.parquet"):  # as if it had been killed
        (outcome.folder / name).unlink()
    rank(tmp_path, label_rows())
    assert {name: (outcome.folder / name).read_bytes() for name in names} == before
    with pytest.raises(RunFolderError, match="other settings: seed"):
        rank(tmp_path, label_rows(), seed=1)
    with pytest.raises(RunFolderError, match="other settings: input"):
        rank(tmp_path, label_rows()[:-1])
    assert {name: (outcome.folder / name).read_bytes() for name in names} == before


def test_training_on_rankings_takes_both_kinds(tmp_path: Path) -> None:
    for rows, out in ((label_rows(ratings=[1.0, 1.0, 1.0]), "labels"), (rated_rows(), "ratings")):
        outcome = rank(tmp_path, rows, out)
        data = load_training_rows(str(outcome.folder), TrainingOptions("rrhf"))
        assert len(data.train) == 12
        written_rows = [row.values for row in open_source(outcome.folder).read()]
        for row, read in zip(written_rows, data.train, strict=True):
            scores = read.scores  # type: ignore[union-attr]
            best = max(range(3), key=lambda place: scores[place])
            assert row["ranks"][best] == 1
            assert list(scores) == row["strengths" if out == "labels" else "ratings"]


def test_ratings_rank_policies_by_their_mean(tmp_path: Path) -> None:
    rows = rated_rows()
    content = result(rank(tmp_path, rows))
    assert [each["name"] for each in content["standings"]] == ["best", "middle", "worst"]
    mean = sum(row["ratings"][0] for row in rows) / 12
    rating = content["standings"][0]["rating"]
    assert (rating["value"], rating["n"]) == (pytest.approx(mean), 12)
    assert rating["low"] < mean < rating["high"]
    assert content["pairs"] == []
    assert content["source"]["model"] == "mean rating"


def test_what_the_input_lacks_is_left_out_or_said(tmp_path: Path) -> None:
    bare = [{name: value for name, value in row.items() if not name.startswith("candidate")} for row in label_rows()]
    outcome = rank(tmp_path, bare, "policies")
    assert (outcome.rows, (outcome.folder / "data").exists()) == (None, False)
    assert "configs" not in header(outcome)
    no_policies = [{name: value for name, value in row.items() if "policy" not in name} for row in label_rows()]
    outcome = rank(tmp_path, no_policies, "candidates")
    assert (outcome.ranking, outcome.rows) == (None, 12)
    assert not (outcome.folder / "policies.json").exists()
    named = [{**row, "who": {"a": row["policy_a"], "b": row["policy_b"]}} for row in label_rows()]
    assert result(rank(tmp_path, named, "named", by_columns="who.a, who.b"))["source"]["by_columns"] == [
        "who.a",
        "who.b",
    ]
    with pytest.raises(InputError, match="none of its rows has a label"):
        rank(tmp_path, label_rows(prob_a=None), "empty")
    assert not (tmp_path / "empty").exists()


def test_one_policy_only(tmp_path: Path) -> None:
    outcome = rank(tmp_path, label_rows(policy_a="only", policy_b="only"))
    content = result(outcome)
    assert content["standings"] == []
    assert content["notes"] == ["there are fewer than two policies to compare"]
    assert content["separability"] == {"value": None, "low": None, "high": None, "n": 0, "why": content["notes"][0]}
    assert content["source"]["counts"]["same_policy"] == 36
    assert outcome.rows == 12
    assert not (outcome.folder / "policies.png").exists()


def test_a_column_of_something_else_than_policies_is_refused(tmp_path: Path) -> None:
    rows = label_rows(prompts=80)
    with pytest.raises(InputError, match=r"'response_a, response_b': names 240 policies, expected at most 200"):
        rank(tmp_path, rows, by_columns="response_a,response_b")
    with pytest.raises(ConfigError, match="expected two columns"):
        rank(tmp_path, rows, by_columns="policy_a")
    with pytest.raises(ValueError, match="by_columns: 'policy_a,'"):
        RankConfig("in", "out", by_columns="policy_a,")


def test_rows_that_contradict_stop_it_or_are_skipped(tmp_path: Path) -> None:
    rows = label_rows()
    rows[2] |= {"response_a": "something else"}
    with pytest.raises(InputError, match=r"line 3, column 'response_a': is another one than in an earlier row of"):
        rank(tmp_path, rows)
    from rlaif.engine.config import SourceConfig

    outcome = rank(tmp_path, rows, source=SourceConfig(skip_bad_rows=True))
    (failure,) = [json.loads(line) for line in (outcome.folder / "failures.jsonl").read_text().splitlines()]
    assert (failure["id"], failure["stage"], outcome.failures) == ("0-0-2", "input", 1)
    assert result(outcome)["source"]["counts"]["labeled"] == 35


def header(outcome: RankOutcome) -> dict[str, Any]:
    _, head, _ = (outcome.folder / "README.md").read_text().split("---\n", 2)
    content: dict[str, Any] = yaml.safe_load(head)
    return content


def test_the_card_tells_and_holds_no_live_name(tmp_path: Path) -> None:
    outcome = rank(tmp_path, label_rows(HOSTILE))
    card = (outcome.folder / "README.md").read_text()
    assert header(outcome)["configs"][0]["data_files"] == [{"split": "train", "path": "data/*.parquet"}]
    prose = card.split("The first row:")[0] + card.split("## How it was made")[1]
    assert "<img" not in prose
    assert "\x1b" not in card
    assert "<code>\\# \\*big\\* \\`x\\`</code>" in prose
    table = [line for line in prose.splitlines() if line.startswith("| <code>")]
    assert len(table) == 3
    assert {line.replace("\\|", "").count("|") for line in table} == {7}
    assert "rlaif train rrhf --data" in card
    assert [each["name"] for each in result(outcome)["standings"]] == list(HOSTILE)


def test_what_the_run_says_of_itself_is_told(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "run" / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(label_rows()), tmp_path / "run" / "data" / "train-00000.parquet")
    known = {
        "command": "label",
        "status": "interrupted",
        "judges": [{"name": "builtin:tiny", "is_demonstration": True}],
    }
    (tmp_path / "run" / "run.json").write_text(json.dumps(known))
    warnings: list[str] = []
    config = RankConfig(str(tmp_path / "run"), str(tmp_path / "out"), resamples=100)
    outcome = rank_file(config, on_warning=warnings.append)
    assert ["interrupted" in each for each in warnings] == [True]
    assert result(outcome)["source"]["judges"] == ["builtin:tiny"]
    assert "Warning: made by the demonstration judge" in (outcome.folder / "README.md").read_text()


def test_a_missing_extra_is_said_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking_module, "_NEEDED", ("no_such_module",))
    with pytest.raises(BackendNotInstalledError, match=r"rlaif rank needs no_such_module.*rlaif\[audit\]"):
        rank(tmp_path, label_rows())
    assert not (tmp_path / "out").exists()
