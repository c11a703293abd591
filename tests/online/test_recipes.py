"""Which rows each method makes of judged rollouts, and with what it trains them."""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import pytest
import torch

from rlaif.online.assessing import Assessed
from rlaif.online.recipes import (
    PPO_MAX_REWARD_CLIP,
    JudgedRollout,
    PolicyGradient,
    experience_of,
    make_recipe,
    ppo_max,
)
from rlaif.train.config import DpoLossConfig
from rlaif.train.kl import AdaptiveKl, FixedKl
from rlaif.train.online_config import (
    BestOfNLossConfig,
    DrlaifLossConfig,
    GrpoLossConfig,
    OnlineDpoLossConfig,
    PpoLossConfig,
    ReinforceLossConfig,
    RlooLossConfig,
    RolloutConfig,
    RsDpoLossConfig,
    RsoLossConfig,
)
from tests.online.made_rollouts import completion, rollout

SAMPLED = RolloutConfig(response_tokens=4, rollout_temperature=0.7)


def judged(scores: tuple[float, ...], *, number: int = 0, prob_a: float | None = None) -> JudgedRollout:
    """Completions of one token more each; the reference is surer of each token by 0.05."""
    completions = [completion(*range(1, place + 2)) for place in range(len(scores))]
    made = rollout(*completions, number=number)
    logprobs = tuple(one.logprobs for one in completions)
    reference = tuple(tuple(x + 0.05 for x in each) for each in logprobs)
    values = tuple(tuple(0.1 for _ in each) for each in logprobs)
    return JudgedRollout(made, scores, scores, prob_a, Assessed(logprobs, values), reference)


def made(loss: Any, *rollouts: JudgedRollout, batch: int = 0, beta: float = 0.0) -> list[Any]:
    return make_recipe(loss, SAMPLED, seed=0).items(rollouts, beta, batch)


@pytest.mark.parametrize(
    ("loss", "scores", "reference", "values", "price"),
    [
        (DrlaifLossConfig(), True, True, True, FixedKl(0.05)),
        (DrlaifLossConfig(beta=0.0), True, False, True, FixedKl(0.0)),
        (ReinforceLossConfig(), True, True, False, FixedKl(0.05)),
        (RlooLossConfig(kl_target=2.0), True, True, False, AdaptiveKl(0.03, 2.0, 10000.0)),
        (GrpoLossConfig(), True, False, False, None),
        (GrpoLossConfig(beta=0.01), True, True, False, None),
        (PpoLossConfig(), True, True, True, FixedKl(0.05)),
        (OnlineDpoLossConfig(), False, True, False, None),
        (OnlineDpoLossConfig(loss_type="simpo", beta=2.0), False, False, False, None),
        (RsDpoLossConfig(), True, True, False, None),
        (RsoLossConfig(), True, True, False, None),
        (BestOfNLossConfig(), True, False, False, None),
    ],
)
def test_a_method_asks_for_what_it_needs_and_no_more(
    loss: Any, scores: bool, reference: bool, values: bool, price: Any
) -> None:
    recipe = make_recipe(loss, SAMPLED, seed=0)
    assert (recipe.asks == "scores", recipe.needs_reference, recipe.needs_values) == (scores, reference, values)
    assert recipe.kl == price
    if not isinstance(loss, BestOfNLossConfig):  # which imitates, as sft does
        assert recipe.objective(0).temperature == 0.7
    assert recipe.objective(0).needs_values == values


def test_settings_of_no_online_method_are_our_mistake() -> None:
    with pytest.raises(TypeError, match="no method has settings of DpoLossConfig"):
        make_recipe(DpoLossConfig(), SAMPLED, seed=0)


def test_an_experience_has_what_a_batch_holds_and_zeros_beside_it() -> None:
    experience = experience_of([judged((0.5, -0.5)), judged((1.0,), number=1)])
    assert experience.rewards.tolist() == [[0.5, -0.5], [1.0, 0.0]]
    assert experience.is_completion.tolist() == [[[True, False], [True, True]], [[True, False], [False, False]]]
    assert experience.is_present.tolist() == [[True, True], [True, False]]
    torch.testing.assert_close(experience.old_logprobs[0], torch.tensor([[-0.1, 0.0], [-0.1, -0.2]]))
    torch.testing.assert_close(experience.kl, torch.tensor([[-0.05, -0.1], [-0.05, 0.0]]))


def test_rows_of_a_policy_gradient_have_what_their_own_completions_were_worth() -> None:
    """RLOO with beta 2: rewards less KL are 0.5 + 2 0.05 = 0.6 and -0.5 + 2 0.1 = -0.3, each less the other."""
    first, second = made(RlooLossConfig(), judged((0.5, -0.5)), judged((1.0, 1.0), number=1), beta=2.0)
    assert first.targets.advantages[0] == pytest.approx([0.9])
    assert first.targets.advantages[1] == pytest.approx([-0.9, -0.9])
    assert second.targets.advantages[0] == pytest.approx([-0.1], abs=1e-6)  # 1.1 - 1.2
    assert first.example.id == "p0@0"
    assert made(RlooLossConfig()) == []


def test_rs_dpo_takes_all_pairs_that_differ_clearly_enough() -> None:
    """sigma(d / tau) >= 0.85 is d >= 1.735 tau: of 8, 6, 7 and 9.8 the pairs 8-6, 8-9.8, 6-9.8 and 7-9.8."""
    items = made(RsDpoLossConfig(eta=0.85), judged((8.0, 6.0, 7.0, 9.8)))
    assert [(item.example.id.split()[1], item.scores) for item in items] == [
        ("0-1", (1.0, 0.0)), ("0-3", (0.0, 1.0)), ("1-3", (0.0, 1.0)), ("2-3", (0.0, 1.0)),
    ]  # fmt: skip
    for item in items:
        first, second = map(int, item.example.id.split()[1].split("-"))
        assert [len(ids) for ids in item.example.completions] == [first + 1, second + 1]
        sums = [-0.1 * sum(ids) + 0.05 * len(ids) for ids in item.example.completions]
        assert item.reference == pytest.approx(sums)
    assert [item.example.id for item in made(RsDpoLossConfig(eta=0.85, tau=2.0), judged((8.0, 6.0, 7.0, 9.8)))] == [
        "p0@0 1-3"
    ]


def test_what_rso_accepts_is_drawn_from_the_best_policy() -> None:
    """Of many completions of three kinds, a fifth is accepted: the start's shares times exp(score / beta)."""
    kinds, shares, beta = (0.0, 0.5, 1.0), (0.5, 0.3, 0.2), 1.0
    scores = [kind for kind, share in zip(kinds, shares, strict=True) for _ in range(int(share * 200))]
    seen: Counter[float] = Counter()
    for number in range(30):
        random.Random(number).shuffle(scores)
        for item in made(RsoLossConfig(beta=beta, accept=40), judged(tuple(scores), number=number)):
            first, second = (scores[len(ids) - 1] for ids in item.example.completions)
            seen.update((first, second))
            assert item.scores == ((1.0, 0.0) if first > second else (0.0, 1.0))
    # Pairs of equals teach nothing and are left out: of two drawn from p, each of a kind with 1 - p of another.
    weights = [share * math.exp(kind / beta) for kind, share in zip(kinds, shares, strict=True)]
    best = [weight / sum(weights) for weight in weights]
    paired = [prob * (1.0 - prob) for prob in best]
    expected = {kind: each / sum(paired) for kind, each in zip(kinds, paired, strict=True)}
    total = seen.total()
    assert total > 500
    assert 0.5 * sum(abs(seen[kind] / total - expected[kind]) for kind in kinds) < 0.04


def test_best_of_n_imitates_the_first_of_the_best_and_its_threshold_rises() -> None:
    rows = judged((1.0, 7.0, 7.0)), judged((4.0, 3.0), number=1)
    assert [item.example.completions for item in made(BestOfNLossConfig(), *rows)] == [((1, 2),), ((1,),)]
    rising = BestOfNLossConfig(least_score=4.0, raise_by=1.5)
    assert [len(made(rising, *rows, batch=batch)) for batch in range(4)] == [2, 1, 1, 0]  # from 4, 5.5, 7 and 8.5


def test_a_pair_that_was_compared_has_a_soft_label_and_none_if_it_could_not_be() -> None:
    (item,) = made(OnlineDpoLossConfig(), judged((0.0, 0.0), prob_a=0.7), judged((0.0, 0.0), number=1))
    assert item.scores == pytest.approx((0.7, 0.3))


def test_values_learn_ahead_of_the_policy() -> None:
    recipe = make_recipe(PpoLossConfig(value_warmup=2), SAMPLED, seed=0)
    assert isinstance(recipe, PolicyGradient)
    (item,) = recipe.items([judged((0.5,))], 0.0, 0)
    assert item.targets is not None
    for batch, learns in ((0, False), (1, False), (2, True), (9, True)):
        assert recipe.loss.policy_weight == 1.0
        assert gradient_of_policy(recipe.objective(batch)) == learns


def gradient_of_policy(objective: Any) -> bool:
    from rlaif.models.logprobs import TokenLogprobs
    from rlaif.train.objectives import MicroBatch, Reading, TokenTensors

    logprobs = torch.full((1, 1, 2), -0.5, requires_grad=True)
    ones = torch.ones(1, 1, 2)
    by_token = TokenLogprobs(logprobs, ones.bool(), torch.zeros(1, 1, 2))
    targets = TokenTensors(ones, logprobs.detach(), ones, ones, torch.zeros(1, 1, 2))
    micro = MicroBatch(None, ones[..., 0], ones[0, 0], weight=1, targets=targets)  # type: ignore[arg-type]
    objective.losses(Reading(by_token.sums, ones.sum(-1), by_token), micro, None).sum().backward()
    assert logprobs.grad is not None
    return bool(logprobs.grad.any())


def test_ppo_max_turns_its_stabilisers_on_and_keeps_what_is_stricter() -> None:
    plain = PpoLossConfig(whiten_advantages=False, value_clip=None, reward_clip=None)
    config = ppo_max(plain)
    assert config.scale_rewards
    assert config.whiten_advantages
    assert (config.reward_clip, config.value_clip, config.value_warmup) == (PPO_MAX_REWARD_CLIP, 0.2, 8)
    strict = ppo_max(PpoLossConfig(reward_clip=1.0, value_clip=0.05, value_warmup=3, beta=0.3))
    assert (strict.reward_clip, strict.value_clip, strict.value_warmup, strict.beta) == (1.0, 0.05, 3, 0.3)
    assert make_recipe(PpoLossConfig(preset="ppo-max"), SAMPLED, seed=0).scales_rewards
