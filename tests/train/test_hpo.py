"""HPO's loss: by hand, whatever stands in padding, and what its gradient is."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif.models.examples import Example
from rlaif.train.config import HpoLossConfig
from rlaif.train.hpo import aux_losses, hpo_loss
from rlaif.train.items import TrainingItem
from rlaif.train.metrics import preference_metrics
from rlaif.train.objectives import MicroBatch, Reading, collate_items, make_objective

LOGPROBS = torch.tensor([[-2.0, -6.0], [-1.0, -3.0]])
WEIGHTS = torch.tensor([[math.e, 0.5], [2.0, 0.0]])
BOTH = torch.ones(2, 2, dtype=torch.bool)
PAIR = TrainingItem(
    Example("r", (1,), ((4, 5), (6, 7, 8, 9))), (0.75, 0.25), reference=(-3.0, -5.0), aux_weights=(3.0, 0.5)
)
"""With log-probabilities of -2 and -6, log-ratios of 1 and -1; of the auxiliary rewards, -(3 * -2 + 0.5 * -6) = 9."""


def micro_of(*items: TrainingItem) -> MicroBatch:
    return collate_items(items, is_packed=True, pad=0, weight=1)


def test_the_loss_by_hand() -> None:
    # 0.7 - 0.1 (e * -2 + 0.5 * -6) and 0.2 - 0.1 (2 * -1 + 0 * -3)
    found = hpo_loss(torch.tensor([0.7, 0.2]), LOGPROBS, WEIGHTS, BOTH, aux_coef=0.1)
    assert found.tolist() == pytest.approx([0.7 + 0.1 * (2 * math.e + 3.0), 0.2 + 0.1 * 2.0])


def test_without_a_coefficient_it_is_the_preference_loss() -> None:
    preference = torch.tensor([0.7, 0.2])
    assert torch.equal(hpo_loss(preference, LOGPROBS, WEIGHTS, BOTH, aux_coef=0.0), preference)


def test_its_gradient_is_that_of_imitation_times_the_weights() -> None:
    logprobs = LOGPROBS.clone().requires_grad_()
    hpo_loss(torch.zeros(2), logprobs, WEIGHTS, BOTH, aux_coef=0.1).sum().backward()
    torch.testing.assert_close(logprobs.grad, -0.1 * WEIGHTS)


@pytest.mark.parametrize("rubbish", [math.nan, -math.inf, 7.0])
def test_what_stands_in_padding_changes_neither_loss_nor_gradient(rubbish: float) -> None:
    logprobs = torch.tensor([[-2.0, rubbish]], requires_grad=True)
    weights = torch.tensor([[3.0, rubbish]])
    losses = aux_losses(logprobs, weights, torch.tensor([[True, False]]))
    losses.sum().backward()
    assert losses.tolist() == [6.0]
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-3.0, 0.0]]


def test_an_impossible_response_without_a_weight_is_no_nan() -> None:
    assert aux_losses(torch.tensor([[-2.0, -math.inf]]), torch.tensor([[3.0, 0.0]]), BOTH[:1]).tolist() == [6.0]


def test_half_precision_is_computed_in_float32() -> None:
    found = hpo_loss(torch.zeros(2).bfloat16(), LOGPROBS.bfloat16(), WEIGHTS.bfloat16(), BOTH, aux_coef=0.1)
    assert found.dtype == torch.float32


def test_tensors_of_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected tensors of one shape"):
        aux_losses(LOGPROBS, WEIGHTS[:, :1], BOTH)


def test_the_objective_by_hand_with_the_preference_term_of_kto() -> None:
    micro, z0 = micro_of(PAIR), torch.tensor(0.5)
    reading = Reading(LOGPROBS[:1], micro.batch.tokens)
    objective = make_objective("hpo", HpoLossConfig(beta=0.5, desirable_weight=2.0, aux_coef=0.1))

    def value(ratio: float, prob: float) -> float:
        gain = 0.5 * (ratio - 0.5)
        return 2.0 * prob / (1 + math.exp(gain)) + (1 - prob) / (1 + math.exp(-gain))

    found = objective.losses(reading, micro, z0)
    assert found.tolist() == [pytest.approx(value(1.0, 0.75) + value(-1.0, 0.25) + 0.1 * 9.0, rel=1e-5)]
    assert (objective.weight(PAIR), objective.needs_mismatches, objective.needs_reference) == (2, True, True)


def test_the_objective_by_hand_with_the_preference_term_of_dpo() -> None:
    micro = micro_of(PAIR)
    reading = Reading(LOGPROBS[:1], micro.batch.tokens)
    objective = make_objective("hpo", HpoLossConfig(preference="dpo", beta=0.5, aux_coef=0.1))
    # A lead of 0.5 (1 - -1) = 1 for p = 0.75; a row counts once, so the mean of its two responses: 9 / 2.
    preference = 0.75 * math.log1p(math.exp(-1.0)) + 0.25 * math.log1p(math.exp(1.0))
    assert objective.losses(reading, micro, None).tolist() == [pytest.approx(preference + 0.1 * 4.5, rel=1e-5)]
    assert (objective.weight(PAIR), objective.needs_mismatches, objective.needs_reference) == (1, False, True)


def test_both_preference_terms_learn_as_much_from_auxiliary_rewards() -> None:
    """The mean over responses is the same, whether the step's mean is over rows or over responses."""
    single = TrainingItem(PAIR.example, PAIR.scores, reference=PAIR.reference, aux_weights=(0.0, 0.0))
    for preference, weight in (("kto", 2), ("dpo", 1)):
        objective = make_objective("hpo", HpoLossConfig(preference=preference, aux_coef=0.1))  # type: ignore[arg-type]
        reading = Reading(LOGPROBS[:1], micro_of(PAIR).batch.tokens)
        with_aux, without = (objective.losses(reading, micro_of(one), torch.tensor(0.0)) for one in (PAIR, single))
        assert (with_aux - without).item() / weight == pytest.approx(0.1 * 9.0 / 2, rel=1e-5)


def test_a_row_of_one_response_is_padded_with_weight_0() -> None:
    single = TrainingItem(Example("s", (2,), ((4,),)), (1.0,), reference=(-2.0,), aux_weights=(1.5,))
    micro = micro_of(PAIR, single)
    assert micro.aux_weights is not None
    assert micro.aux_weights.tolist() == [[3.0, 0.5], [1.5, 0.0]]
    moved = micro.to("meta").aux_weights
    assert moved is not None
    assert moved.device.type == "meta"


def test_what_auxiliary_rewards_cost_is_logged_over_the_responses_that_have_any() -> None:
    some = TrainingItem(PAIR.example, PAIR.scores, reference=PAIR.reference, aux_weights=(2.0, 0.0))
    micro = micro_of(PAIR, some)
    objective = make_objective("hpo", HpoLossConfig())
    total, count = preference_metrics(objective, Reading(LOGPROBS, micro.batch.tokens), micro)["aux_loss"]
    assert (total.item(), count.item()) == (9.0 + 2.0, 3.0)


def test_rows_that_were_not_weighed_are_refused() -> None:
    micro = micro_of(TrainingItem(PAIR.example, PAIR.scores, reference=PAIR.reference))
    with pytest.raises(AssertionError, match="not weighed"):
        make_objective("hpo", HpoLossConfig()).losses(Reading(LOGPROBS[:1], micro.batch.tokens), micro, None)


def test_weights_of_classes_are_kto_s() -> None:
    with pytest.raises(ValueError, match="undesirable_weight: is of --preference kto"):
        HpoLossConfig(preference="dpo", undesirable_weight=2.0)
