"""The pairs of an export: how they are decided, and what one look at all of them finds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlaif.data.exporting import ExportPair
from rlaif.data.training_selection import Dropped
from rlaif.engine.config import SourceConfig
from rlaif.engine.export_config import ExportConfig
from rlaif.engine.export_pairs import Pairs, held_out_prompts, plan_export


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def labeled(number: int, prob_a: float, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "prompt": f"Q{number}?", "response_a": "x", "response_b": "no", "prob_a": prob_a, **more}


def test_can_be_read_again_and_again(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", labeled(1, 0.9), labeled(2, 0.5), labeled(3, 0.1))
    pairs = Pairs(ExportConfig(path, "trl", "p.jsonl"))
    found = list(pairs.read())
    assert found == list(pairs.read())
    assert [line for line, _ in found] == [1, 2, 3]
    assert found[1][1] is Dropped.TIE
    third = found[2][1]
    assert isinstance(third, ExportPair)
    assert (third.chosen, third.is_given) == ("no", False)


def test_what_is_given_and_what_is_probable(tmp_path: Path) -> None:
    chosen = {"prompt": "Q?", "chosen": "x", "rejected": "y"}
    path = write(tmp_path / "a.jsonl", {**chosen, "id": "1"}, {**chosen, "id": "2", "chosen_prob": 0.7})
    pairs = [pair for _, pair in Pairs(ExportConfig(path, "trl", "p.jsonl")).read() if isinstance(pair, ExportPair)]
    assert [pair.is_given for pair in pairs] == [True, False]
    assert [pair.chosen_prob for pair in pairs] == [1.0, 0.7]
    assert {pair.chosen for pair in pairs} == {"x"}


def test_columns_that_stay_behind(tmp_path: Path) -> None:
    row = labeled(1, 0.9, topic="t", margin=3, label_mass_ab=0.9)
    path = write(tmp_path / "a.jsonl", {**row, "said": row.pop("response_a")})
    config = ExportConfig(path, "trl", "p.jsonl", source=SourceConfig({"response_a": "said"}))
    assert Pairs(config).left_out() == ("topic", "margin")


def test_one_look_finds_what_the_rows_share(tmp_path: Path) -> None:
    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    rows = [labeled(1, 0.9), labeled(2, 0.9, prompt=talk), labeled(3, 0.9, prompt=[*talk, *talk]), labeled(4, 0.5)]
    config = ExportConfig(write(tmp_path / "a.jsonl", *rows), "axolotl", "p.jsonl", test_share=0.4)
    plan = plan_export(config, Pairs(config))
    assert (plan.left, plan.dropped, plan.dates) == (3, {Dropped.TIE: 1}, set())
    assert plan.layout.has_probs
    assert not plan.layout.is_single_turn
    assert len(plan.draws) == 3
    assert held_out_prompts(config, plan) < set(plan.draws)
    fewer = ExportConfig(write(tmp_path / "b.jsonl", *rows[:2]), "axolotl", "p.jsonl")
    assert plan_export(fewer, Pairs(fewer)).layout.is_single_turn
