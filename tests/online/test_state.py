from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlaif.errors import RunFolderError
from rlaif.models.examples import Example
from rlaif.online.state import FILE, FeedState, read_state, write_state
from rlaif.online.visits import Visits
from rlaif.rollout_records import Rollout
from rlaif.train.experience import RunningSpread
from rlaif.train.items import TokenTargets, TrainingItem
from tests.online.made_rollouts import completion, prompt_row

VISITS = Visits([prompt_row(number) for number in range(3)], seed=1)


def begun(number: int) -> Rollout:
    visit = VISITS[number]
    completions = (completion(1, 2, 0), completion(0), completion(5, is_finished=False))
    return Rollout(visit.id, visit.row.prompt, visit.row.ids, completions, 4)


FULL = FeedState(
    batch=3,
    steps_taken=2,
    items=[
        TrainingItem(
            Example("a@0", (1, 2), ((3, 4), (5,))),
            targets=TokenTargets(
                ((0.1, 1 / 3), (-2.5e-9,)),
                ((-0.1, -0.2), (-math.pi,)),
                None,
                ((1.0, 2.0), (3.0,)),
                ((0.0, -0.0), (1e30,)),
            ),
        ),
        TrainingItem(Example("b@0 0-1", (1,), ((3,), (0,))), scores=(0.7, 0.3), reference=(-1 / 7, -2.0)),
    ],
    figures={"reward": 1 / 3},
    next_visit=17,
    begun=[begun(4), begun(5)],
    begun_visits=[4, 5],
    spread=RunningSpread().updated([0.1, 0.7, -2.0]),
    controller={"beta": 0.1},
    guards={"rails": {"x": [1.5]}, "signs": []},
)


@pytest.mark.parametrize(
    "state",
    [
        FULL,
        replace(FULL, items=None, begun=None, begun_visits=[], controller=None, guards=None),
        replace(FULL, items=[]),
    ],
    ids=["full", "not judged yet", "no rows"],
)
def test_what_is_written_is_read_again_bit_for_bit(state: FeedState, tmp_path: Path) -> None:
    write_state(state, tmp_path)
    assert read_state(tmp_path, VISITS) == state


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text(path.read_text()[:-20]),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "items": [{"scores": []}]})),
        lambda path: path.write_text(json.dumps({**json.loads(path.read_text()), "begun_visits": [4]})),
    ],
    ids=["missing", "cut", "another", "rows", "visits"],
)
def test_what_cannot_be_read_is_said_with_what_to_do(spoil: Any, tmp_path: Path) -> None:
    write_state(FULL, tmp_path)
    spoil(tmp_path / FILE)
    with pytest.raises(RunFolderError, match=r"rollouts\.json: cannot be read \(.*remove this checkpoint"):
        read_state(tmp_path, VISITS)
