from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as parquet

from rlaif.online.kept import KeptRollouts
from rlaif.online.source import JudgedCompletion
from rlaif.rollout_records import Score
from tests.online.made_rollouts import completion, rollout


def judged(count: int = 6) -> list[JudgedCompletion]:
    return [
        JudgedCompletion(
            rollout(completion(number, 0), number=number, step=3), Score(number / 10, {"judge": number / 10}), 0.25
        )
        for number in range(count)
    ]


def rows(folder: Path, batch: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = parquet.read_table(
        folder / "rollouts" / "data" / f"batch-{batch:06}.parquet"
    ).to_pylist()
    return found


def test_some_of_a_batch_are_kept_in_their_order_and_others_of_the_next(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path, 3, seed=0)
    for batch in range(4):
        kept.keep(batch, judged())
    found = [[row["id"] for row in rows(tmp_path, batch)] for batch in range(4)]
    assert all(len(each) == 3 and each == sorted(each) for each in found)
    assert len(set(map(tuple, found))) > 1
    assert rows(tmp_path, 0)[0].keys() == {
        "id", "prompt", "response", "reward", "rewards", "error", "kl", "tokens", "is_finished", "batch", "step",
    }  # fmt: skip


def test_what_is_kept_can_be_loaded_as_a_data_set(tmp_path: Path) -> None:
    """Hostile text and completions without a reward among it; fewer than are asked for."""
    given = judged(2)
    given[0] = replace(given[0], score=Score(None, {"judge": None}, "LowLabelMassError: no mass"), kl=None)
    bad = replace(completion(1, 0), text="half \ud800 of a pair \x00 </s>")
    given[1] = replace(given[1], rollout=rollout(bad))
    KeptRollouts(tmp_path, 5, seed=0).keep(7, given)
    KeptRollouts(tmp_path, 5, seed=0).keep(8, judged(2))
    loaded = datasets.load_dataset(str(tmp_path / "rollouts"), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(loaded) == 4
    assert loaded[0]["reward"] is None
    assert loaded[0]["kl"] is None
    assert loaded[0]["error"] == "LowLabelMassError: no mass"
    assert loaded[1]["response"] == "half ? of a pair \x00 </s>"
    assert loaded[1]["prompt"] == [{"role": "user", "content": "Do 0"}]
    assert loaded[3]["rewards"] == '{"judge": 0.1}'


def test_a_batch_that_is_made_again_replaces_itself(tmp_path: Path) -> None:
    kept = KeptRollouts(tmp_path, 6, seed=0)
    kept.keep(1, judged(2))
    kept.keep(1, judged(4))
    assert [path.name for path in (tmp_path / "rollouts" / "data").iterdir()] == ["batch-000001.parquet"]
    assert len(rows(tmp_path, 1)) == 4


def test_nothing_is_kept_where_none_is_asked_for(tmp_path: Path) -> None:
    KeptRollouts(tmp_path, 0, seed=0).keep(0, judged())
    assert not (tmp_path / "rollouts").exists()
