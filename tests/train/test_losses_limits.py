"""What the losses lead to: tabular policies and linear rewards trained to the end, against closed forms."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlaif.train.losses import (
    cdpo_loss,
    dpo_loss,
    gdpo_loss,
    ipo_loss,
    kto_loss,
    kto_z0,
    reward_model_loss,
    robust_dpo_loss,
)
from rlaif.train.ranking_losses import all_pairs_loss, order_probs, plackett_luce_loss

BETA = 0.5
REWARDS = torch.tensor([0.0, 0.4, 0.9, -0.6, 0.2], dtype=torch.float64)
REFERENCE = torch.tensor([0.3, 0.1, 0.05, 0.35, 0.2], dtype=torch.float64).log()
FIRST, SECOND = torch.tensor(list(itertools.permutations(range(5), 2))).unbind(1)
PROBS = (REWARDS[FIRST] - REWARDS[SECOND]).sigmoid()
"""P(first preferred) of an annotator who follows the rewards: Bradley-Terry."""


def minimised(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int = 100) -> Tensor:
    values = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [values], max_iter=steps, tolerance_grad=1e-10, tolerance_change=1e-13, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = loss(values)
        total.backward()
        return total

    optimizer.step(closure)
    return values.detach()


def ratios(logits: Tensor) -> Tensor:
    return logits.log_softmax(-1) - REFERENCE


def optimum(beta: float) -> Tensor:
    """pi*(y) proportional to pi_ref(y) exp(r(y) / beta)."""
    return (REFERENCE + REWARDS / beta).softmax(-1)


def distance(logits: Tensor, policy: Tensor) -> float:
    """Total variation."""
    return 0.5 * (logits.softmax(-1) - policy).abs().sum().item()


def test_dpo_on_soft_labels_converges_to_the_closed_form() -> None:
    def loss(logits: Tensor) -> Tensor:
        ours = ratios(logits)
        return dpo_loss(ours[FIRST], ours[SECOND], PROBS, beta=BETA).mean()

    assert distance(REFERENCE, optimum(BETA)) > 0.3
    assert distance(minimised(loss, REFERENCE), optimum(BETA)) < 1e-6


def test_a_large_beta_stays_at_the_reference_and_a_small_one_leaves_it() -> None:
    distances = []
    for beta in (100.0, 1.0, 0.1):

        def loss(logits: Tensor, beta: float = beta) -> Tensor:
            ours = ratios(logits)
            return dpo_loss(ours[FIRST], ours[SECOND], PROBS, beta=beta).mean()

        distances.append(distance(minimised(loss, REFERENCE), REFERENCE.exp()))
    assert distances[0] < 0.01 < distances[1] < 0.85 < distances[2]


def test_ipo_ends_at_its_margin_where_dpo_runs_away() -> None:
    one, count = torch.ones(1, dtype=torch.float64), torch.ones(1)

    def trained(loss: Callable[[Tensor, Tensor], Tensor], steps: int) -> float:
        h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
        for _ in range(steps):
            (gradient,) = torch.autograd.grad(loss(h, torch.zeros_like(h)).sum(), h)
            h = (h - 0.4 * gradient).detach().requires_grad_()
        return h.item()

    def ipo(a: Tensor, b: Tensor) -> Tensor:
        return ipo_loss(a, b, one, count, count, beta=0.1)

    def dpo(a: Tensor, b: Tensor) -> Tensor:
        return dpo_loss(a, b, one, beta=1.0)

    assert trained(ipo, 50) == pytest.approx(5.0)  # 1 / (2 * 0.1)
    assert trained(ipo, 500) == pytest.approx(5.0)
    # d/dt h = sigma(-h): h grows as ln t
    assert trained(dpo, 500) > trained(dpo, 50) + 0.9 * math.log(10)


@pytest.mark.parametrize("p", [0.5, 0.7, 0.25])
def test_soft_labels_set_the_margin(p: float) -> None:
    prob, zero, count = torch.tensor([p], dtype=torch.float64), torch.zeros(1, dtype=torch.float64), torch.ones(1)
    start = torch.tensor([0.3], dtype=torch.float64)
    rm = minimised(lambda h: reward_model_loss(h, zero, prob).sum(), start)
    assert rm.item() == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
    entropy = -p * math.log(p) - (1 - p) * math.log(1 - p)
    assert reward_model_loss(rm, zero, prob).item() == pytest.approx(entropy)
    ipo = minimised(lambda h: ipo_loss(h, zero, prob, count, count, beta=0.2).sum(), start)
    assert ipo.item() == pytest.approx((2 * p - 1) / 0.4, abs=1e-6)
    # cDPO ends at the smoothed label's margin, robust DPO (of a label seen through flips) at the label's own.
    smoothed = 0.9 * p + 0.1 * (1 - p)
    cdpo = minimised(lambda h: cdpo_loss(h, zero, prob, beta=0.2, label_smoothing=0.1).sum(), start)
    assert 0.2 * cdpo.item() == pytest.approx(math.log(smoothed / (1 - smoothed)), abs=1e-6)
    seen = torch.tensor([smoothed], dtype=torch.float64)
    robust = minimised(lambda h: robust_dpo_loss(h, zero, seen, beta=0.2, label_smoothing=0.1).sum(), start)
    assert 0.2 * robust.item() == pytest.approx(math.log(p / (1 - p)), abs=1e-6)


def test_an_even_label_has_its_minimum_ln_2_at_no_difference() -> None:
    difference, half = torch.linspace(-2, 2, 41), torch.full((41,), 0.5)
    losses = reward_model_loss(difference, torch.zeros(41), half)
    assert losses.argmin().item() == 20
    assert losses[20].item() == pytest.approx(math.log(2.0))


def test_a_linear_reward_model_on_soft_labels_recovers_the_rewards() -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    features = torch.randn(2, 200, 4, generator=generator, dtype=torch.float64)
    prob_a = ((features[0] - features[1]) @ truth).sigmoid()
    weights = minimised(lambda w: reward_model_loss(features[0] @ w, features[1] @ w, prob_a).mean(), 0 * truth)
    torch.testing.assert_close(weights, truth, rtol=0, atol=1e-5)
    # Rounded to 0 and 1 the labels are separable: the scale is lost.
    hard = minimised(lambda w: reward_model_loss(features[0] @ w, features[1] @ w, prob_a.round()).mean(), 0 * truth)
    assert hard.norm() > 3 * truth.norm()


def test_bradley_terry_recovers_the_order_of_items() -> None:
    """From sampled hard labels, 300 comparisons a pair."""
    strengths = torch.arange(8, dtype=torch.float64) / 2
    first, second = torch.tensor(list(itertools.combinations(range(8), 2))).unbind(1)
    wins = torch.binomial(
        torch.full(first.shape, 300.0, dtype=torch.float64),
        (strengths[first] - strengths[second]).sigmoid(),
        generator=torch.Generator().manual_seed(0),
    )

    def loss(values: Tensor) -> Tensor:
        won = reward_model_loss(values[first], values[second], torch.ones_like(wins))
        lost = reward_model_loss(values[first], values[second], torch.zeros_like(wins))
        return (wins * won + (300 - wins) * lost).mean() / 300

    fitted = minimised(loss, torch.zeros(8, dtype=torch.float64))
    assert fitted.argsort().tolist() == list(range(8))


def test_robust_dpo_beats_plain_dpo_when_a_fifth_of_the_labels_is_flipped() -> None:
    """10,000 sampled hard labels a run; distance to the closed form, mean over 8 runs."""
    losses: dict[str, Callable[..., Tensor]] = {
        "dpo": dpo_loss,
        "cdpo": functools.partial(cdpo_loss, label_smoothing=0.2),
        "robust": functools.partial(robust_dpo_loss, label_smoothing=0.2),
    }
    distances = dict.fromkeys(losses, 0.0)
    for seed in range(8):
        draws = torch.full(PROBS.shape, 500.0, dtype=torch.float64)
        won = torch.binomial(draws, 0.8 * PROBS + 0.2 * (1 - PROBS), generator=torch.Generator().manual_seed(seed))
        for name, pair_loss in losses.items():

            def loss(logits: Tensor, of: Callable[..., Tensor] = pair_loss, won: Tensor = won) -> Tensor:
                a, b = ratios(logits)[FIRST], ratios(logits)[SECOND]
                ones = torch.ones_like(a)
                return (won * of(a, b, ones, beta=BETA) + (500 - won) * of(a, b, 0 * ones, beta=BETA)).mean() / 500

            distances[name] += distance(minimised(loss, REFERENCE), optimum(BETA)) / 8
    assert distances["robust"] < 0.5 * distances["dpo"]
    assert distances["dpo"] < distances["cdpo"]  # smoothing shrinks what the flips have shrunk already


def test_gdpo_follows_a_soft_label_slowly_and_past_its_margin() -> None:
    probs = torch.tensor([0.5, 0.55, 0.9, 1.0], dtype=torch.float64)
    h = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    path = []
    for _ in range(200):
        (gradient,) = torch.autograd.grad(gdpo_loss(h, torch.zeros_like(h), probs, beta=1.0).sum(), h)
        h = (h - gradient).detach().requires_grad_()
        path.append(h.tolist())
    assert path[4] == sorted(path[4])
    assert path[4][1] < 0.2 * path[4][3]
    assert path[-1][0] == 0.0
    # Soft DPO would stop at logit p.
    assert path[-1][1] > math.log(0.55 / 0.45)
    assert path[-1][2] > math.log(9.0)


def test_unpaired_feedback_improves_a_tabular_policy() -> None:
    """Three prompts with four responses, two of them desirable; z0 of each step from the other prompts' responses."""
    is_desirable = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    reference = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    logits = reference.clone().requires_grad_()
    optimizer = torch.optim.SGD([logits], lr=1.0)
    points = []
    for _ in range(60):
        optimizer.zero_grad()
        log_ratio = logits.log_softmax(-1) - reference
        z0 = kto_z0(log_ratio.roll(1, dims=0))
        kto_loss(log_ratio.flatten(), is_desirable.flatten(), z0, beta=0.5).sum().backward()
        optimizer.step()
        points.append(z0.item())
    before = (reference.softmax(-1) * is_desirable).sum(-1)
    after = (logits.detach().softmax(-1) * is_desirable).sum(-1)
    assert min(points) >= 0.0
    assert (after > before).all()
    assert (after > 0.9).all()


def test_whole_rankings_tell_more_than_their_pairs() -> None:
    """Linear rewards fitted to the same sampled rankings of four, 300 runs: squared error of the weights."""
    runs, prompts, k, size = 300, 60, 4, 4
    generator = torch.Generator().manual_seed(0)
    truth = torch.tensor([1.5, -1.0, 0.5, 0.0], dtype=torch.float64)
    features = torch.randn(runs, prompts, k, size, generator=generator, dtype=torch.float64)
    uniform = torch.rand(runs, prompts, k, generator=generator, dtype=torch.float64)
    # Rewards with Gumbel noise rank as Plackett-Luce draws.
    ratings = (features @ truth - uniform.log().neg().log()).flatten(0, 1)

    def fitted(loss: Callable[[Tensor], Tensor]) -> Tensor:
        def total(weights: Tensor) -> Tensor:
            return loss((features @ weights[:, None, :, None]).flatten(0, 1).squeeze(-1)).sum() / prompts

        return (minimised(total, torch.zeros(runs, size, dtype=torch.float64), steps=12) - truth).square().sum(-1)

    whole = fitted(lambda rewards: plackett_luce_loss(rewards, ratings))
    split = fitted(lambda rewards: all_pairs_loss(rewards, order_probs(ratings)))
    gain = split - whole  # a tenth, in other seeds too
    assert gain.mean() > 3 * gain.std() / math.sqrt(runs)
    assert whole.mean() < 0.95 * split.mean()
