"""Optimizer steps as the trainer takes them."""

from __future__ import annotations

import pytest

from rlaif.train.config import SftLossConfig
from rlaif.train.objectives import make_objective
from rlaif.train.step_inputs import (
    ComputePlan,
    Steps,
    evaluation_batches,
    micro_batches_of,
    mismatches_of,
    step_input,
    step_part,
)
from tests.train.training import items_of, objective_of

SFT = make_objective("sft", SftLossConfig())


def ids(micros: object) -> list[str]:
    return [each for micro in micros for each in micro.batch.ids]  # type: ignore[attr-defined]


@pytest.mark.parametrize("max_tokens", [1, 40, 10_000])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_every_row_of_a_step_counts_once_over_all_processes(max_tokens: int, world: int) -> None:
    items, plan = items_of("sft", 7), ComputePlan(max_tokens=max_tokens)
    shares = [step_input(items, SFT, plan, rank=rank, world=world) for rank in range(world)]
    total = sum(len(completion) for item in items for completion in item.example.completions)
    counted: list[str] = []
    for share in shares:
        (part,) = share.parts
        assert part.weight == total  # of the whole step, on each process
        assert (part.objective, part.factor) == (SFT, 1.0)
        assert share.ids == tuple(item.example.id for item in items)
        counted += ids(micro for micro in part.micro if micro.weight)
    assert sorted(counted) == sorted(item.example.id for item in items)
    assert sum(micro.weight for share in shares for micro in share.parts[0].micro) == total
    assert len({len(share.parts[0].micro) for share in shares}) == 1


def test_a_step_without_rows_has_nothing_to_learn() -> None:
    (part,) = step_input([], SFT, ComputePlan()).parts
    assert (part.micro, part.weight) == ((), 0)


def test_a_part_has_a_weight_of_its_own() -> None:
    part = step_part(items_of("sft", 3), SFT, ComputePlan(), factor=27.8)
    assert part.factor == 27.8


def test_steps_go_over_all_rows_and_the_seed_decides_their_order() -> None:
    items = items_of("dpo", 6)
    made = Steps(items, 4, 3, objective_of("dpo"), ComputePlan(), seed=1)
    assert len(made) == 3
    assert made.epochs_per_step == pytest.approx(4 / 6)
    seen = [each for step in range(3) for each in made[step].ids]
    assert sorted(seen[:6]) == sorted(seen[6:]) == sorted(item.example.id for item in items)
    assert [Steps(items, 4, 3, objective_of("dpo"), ComputePlan(), seed=1)[step].ids for step in (2, 0)] == [
        made[2].ids, made[0].ids,
    ]  # fmt: skip
    assert [Steps(items, 4, 3, objective_of("dpo"), ComputePlan(), seed=2)[step].ids for step in range(3)] != [
        made[step].ids for step in range(3)
    ]
    with pytest.raises(ValueError, match="an optimizer step takes 7 examples, there are 6"):
        Steps(items, 7, 3, objective_of("dpo"), ComputePlan())


def test_mismatched_responses_go_with_their_rows() -> None:
    items = items_of("kto", 4)
    step = step_input(items, objective_of("kto"), ComputePlan())
    assert sorted(ids(step.mismatched)) == sorted(item.example.id for item in mismatches_of(items))
    assert mismatches_of(items_of("dpo", 4)) == []


def test_no_micro_batch_holds_more_tokens_than_the_budget() -> None:
    items = items_of("dpo", 12)
    for plan in (ComputePlan(is_packed=True, max_tokens=60), ComputePlan(is_packed=False, max_tokens=60)):
        for made in (micro_batches_of, evaluation_batches):
            found = list(made(items, objective_of("dpo"), plan))
            assert len(found) > 2
            assert all(micro.batch.input_ids.numel() <= 60 for micro in found)
            assert sorted(ids(found)) == sorted(item.example.id for item in items)
