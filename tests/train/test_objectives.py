"""Each method as one value: what it reads, its loss by hand, what ranks its responses, what the mean is taken over."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif.models.examples import Example
from rlaif.train.config import (
    DpoLossConfig,
    IpoLossConfig,
    KtoLossConfig,
    RewardLossConfig,
    RobustDpoLossConfig,
    RrhfLossConfig,
    SimpoLossConfig,
    SmoothedDpoLossConfig,
)
from rlaif.train.items import TrainingItem
from rlaif.train.objectives import MicroBatch, Reading, collate_items, log_ratios_of, make_objective
from tests.train.training import METHODS, OF_PAIRS, REFERRING, exchanged, items_of, objective_of, rows_of

PAIR = TrainingItem(Example("r", (1,), ((4, 5), (6, 7, 8, 9))), (0.75, 0.25), reference=(-3.0, -5.0))
"""Two tokens and four; with the reading below, log-ratios of 1 and -1."""
VALUES = torch.tensor([[-2.0, -6.0]])


def micro_of(*items: TrainingItem, weight: int = 1) -> MicroBatch:
    return collate_items(items, is_packed=True, pad=0, weight=weight)


def cross_entropy(margin: float, prob: float, lead: float = 0.0) -> float:
    return prob * math.log1p(math.exp(lead - margin)) + (1 - prob) * math.log1p(math.exp(margin + lead))


@pytest.mark.parametrize(
    ("method", "config", "loss"),
    [
        ("dpo", DpoLossConfig(beta=0.5), cross_entropy(1.0, 0.75)),
        ("gdpo", DpoLossConfig(beta=0.5), math.log1p(math.exp(-0.5))),  # 2 p - 1 = 0.5
        ("cdpo", SmoothedDpoLossConfig(beta=0.5, label_smoothing=0.2), cross_entropy(1.0, 0.65)),
        ("robust-dpo", RobustDpoLossConfig(beta=0.5, label_smoothing=0.2), cross_entropy(1.0, 0.55 / 0.6)),
        # Means 0.5 and -0.25: h = 0.75; 1 / (2 beta) = 1.
        ("ipo", IpoLossConfig(beta=0.5), 0.75 * 0.25**2 + 0.25 * 1.75**2),
        ("ipo", IpoLossConfig(beta=0.5, ipo_sum=True), 0.75 * 1.0**2 + 0.25 * 3.0**2),
        # Means -1 and -1.5, times 2: a lead of 1.
        ("simpo", SimpoLossConfig(beta=2.0, gamma=0.5), cross_entropy(1.0, 0.75, 0.5)),
        # The better one has the higher mean: no hinge; minus its log-probability.
        ("rrhf", RrhfLossConfig(), 2.0),
        ("rrhf", RrhfLossConfig(sft="mean"), 1.0),
    ],
)
def test_the_loss_of_a_pair_by_hand(method, config, loss):
    micro = micro_of(PAIR)
    found = make_objective(method, config).losses(Reading(VALUES, micro.batch.tokens), micro, None)
    assert found.tolist() == [pytest.approx(loss, rel=1e-5)]


def test_robust_dpo_is_held_constant_beyond_its_largest_margin():
    certain = TrainingItem(PAIR.example, (1.0, 0.0), reference=PAIR.reference)
    micro = micro_of(certain)
    config = RobustDpoLossConfig(beta=0.5, label_smoothing=0.2, max_margin=0.6)
    found = make_objective("robust-dpo", config).losses(Reading(VALUES, micro.batch.tokens), micro, None)
    assert found.tolist() == [pytest.approx(cross_entropy(0.6, 0.8 / 0.6), rel=1e-5)]  # and not at the lead of 1


def test_the_loss_of_a_reward_model_by_hand():
    item = TrainingItem(PAIR.example, (0.75, 0.25), margin=0.5)
    micro = micro_of(item)
    reading = Reading(torch.tensor([[2.0, 1.0]]), micro.batch.tokens)
    found = make_objective("rm", RewardLossConfig(centering=0.1)).losses(reading, micro, None)
    assert found.tolist() == [pytest.approx(cross_entropy(1.0, 0.75, 0.5) + 0.1 * 9.0, rel=1e-5)]


def test_the_loss_of_a_ranking_by_hand():
    example = Example("r", (1,), ((4,), (5,), (6,)))
    micro = micro_of(TrainingItem(example, (1.0, 3.0, 2.0)), TrainingItem(PAIR.example, (2.0, 2.0)))
    reading = Reading(torch.tensor([[0.0, 1.0, 2.0], [1.0, 3.0, 0.0]]), micro.batch.tokens)
    of_ranks = make_objective("rm", RewardLossConfig(), is_ranking=True).losses(reading, micro, None)
    e = math.e
    # Second, third, first; a tied pair is a label of one half.
    expected = [math.log(1 + e + e**2) - 1.0 + math.log(1 + e**2) - 2.0, cross_entropy(2.0, 0.5)]
    assert of_ranks.tolist() == pytest.approx(expected, rel=1e-5)
    config = RewardLossConfig(ranking="all-pairs", centering=0.1)
    of_pairs = make_objective("rm", config, is_ranking=True).losses(reading, micro, None)
    leads = [cross_entropy(1.0, 1.0), cross_entropy(-1.0, 1.0), cross_entropy(2.0, 1.0)]
    expected = [sum(leads) / 3 + 0.1 * 9.0, cross_entropy(2.0, 0.5) + 0.1 * 16.0]
    assert of_pairs.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_kto_by_hand():
    first = TrainingItem(Example("a", (1,), ((4, 5),)), (1.0,), reference=(-3.0,))
    micro = micro_of(PAIR, first)
    reading = Reading(torch.tensor([[-2.0, -6.0], [-1.0, 55.0]]), micro.batch.tokens)
    config = KtoLossConfig(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    z0 = torch.tensor(0.5)

    def value(ratio: float, prob: float) -> float:
        gain = 0.5 * (ratio - 0.5)
        return 2.0 * prob / (1 + math.exp(gain)) + 3.0 * (1 - prob) / (1 + math.exp(-gain))

    found = make_objective("kto", config).losses(reading, micro, z0)
    assert found.tolist() == pytest.approx([value(1.0, 0.75) + value(-1.0, 0.25), value(2.0, 1.0)], rel=1e-5)


def test_the_loss_of_a_demonstration_is_the_sum_over_its_tokens():
    micro = micro_of(TrainingItem(Example("d", (1,), ((4, 5, 6),))))
    found = objective_of("sft").losses(Reading(torch.tensor([[-7.5]]), micro.batch.tokens), micro, None)
    assert found.tolist() == [7.5]


@pytest.mark.parametrize("method", METHODS)
def test_what_a_method_needs(method):
    objective = objective_of(method)
    assert objective.reads == ("rewards" if method.startswith("rm") else "logprobs")
    assert objective.needs_reference == (method in REFERRING)
    assert objective.needs_mismatches == (method in {"kto", "hpo"})
    # Sigma of the difference of rewards is a probability only where the loss fits it to the label.
    assert objective.is_logistic == (method in {"rm", "dpo"})


def test_the_mean_of_a_step_is_over_rows_responses_or_tokens():
    item = TrainingItem(Example("r", (1,), ((4, 5), (6, 7, 8))), (1.0, 0.0))
    counts = {method: objective_of(method).weight(item) for method in METHODS}
    assert counts == dict.fromkeys(METHODS, 1) | {"kto": 2, "hpo": 2, "sft": 5}


@pytest.mark.parametrize("method", OF_PAIRS)
def test_exchanging_a_and_b_changes_no_loss_and_exchanges_the_rewards(method):
    items = rows_of(method, 5)
    objective, generator = objective_of(method), torch.Generator().manual_seed(0)
    values = -20 * torch.rand(5, 2, generator=generator)
    z0 = torch.tensor(0.3)
    micro, turned = micro_of(*items), micro_of(*map(exchanged, items))
    one, other = Reading(values, micro.batch.tokens), Reading(values.flip(1), turned.batch.tokens)
    torch.testing.assert_close(objective.losses(one, micro, z0), objective.losses(other, turned, z0))
    torch.testing.assert_close(objective.rewards(one, micro), objective.rewards(other, turned).flip(1))


def test_rows_of_several_lengths_are_padded_with_what_stands_for_nothing():
    single = TrainingItem(Example("s", (2,), ((4,),)), (1.0,), reference=(-2.0,))
    micro = micro_of(TrainingItem(PAIR.example, PAIR.scores, 0.5, (-3.0, -5.0)), single, weight=3)
    assert micro.scores.tolist() == [[0.75, 0.25], [1.0, 0.0]]
    assert micro.margins.tolist() == [0.5, 0.0]
    assert micro.reference is not None
    assert micro.reference.tolist() == [[-3.0, -5.0], [-2.0, 0.0]]
    assert micro.weight == 3


def test_moving_a_micro_batch_moves_all_of_it():
    micro = micro_of(*rows_of("dpo", 3)).to("meta")
    assert micro.reference is not None
    moved = (micro.scores, micro.margins, micro.reference, micro.batch.targets, micro.batch.input_ids)
    assert {tensor.device.type for tensor in moved} == {"meta"}
    assert micro.weight == 1


def test_log_ratios_need_a_reference():
    micro = micro_of(PAIR)
    assert log_ratios_of(Reading(VALUES, micro.batch.tokens), micro).tolist() == [[1.0, -1.0]]
    (demonstration,) = items_of("sft", 1)
    with pytest.raises(AssertionError, match="the reference was not asked"):
        log_ratios_of(Reading(VALUES, micro.batch.tokens), micro_of(demonstration))


def test_an_unknown_method_is_an_error():
    with pytest.raises(KeyError, match="ppo"):
        make_objective("ppo", None)
