"""Losses of single responses and pairs: hand-worked values, a second computation in 60 digits, gradients, symmetry."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal, localcontext

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
    log_ratios,
    reward_model_loss,
    robust_dpo_loss,
    sft_loss,
    simpo_loss,
)

LN2 = math.log(2.0)
TOKENS_A, TOKENS_B = 3, 5

PairLoss = Callable[[Tensor, Tensor, Tensor], Tensor]


def tokens(values: Tensor, count: int) -> Tensor:
    return torch.full(values.shape, count)


def ipo(a: Tensor, b: Tensor, p: Tensor, count_a: int = TOKENS_A, count_b: int = TOKENS_B) -> Tensor:
    return ipo_loss(a, b, p, tokens(a, count_a), tokens(b, count_b), beta=0.1)


def simpo(a: Tensor, b: Tensor, p: Tensor, count_a: int = TOKENS_A, count_b: int = TOKENS_B) -> Tensor:
    return simpo_loss(a, b, p, tokens(a, count_a), tokens(b, count_b), beta=2.0, gamma=1.0)


def kto_pair(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    """Both responses of a pair, added."""
    z0 = torch.tensor(0.25, dtype=torch.float64)
    first = kto_loss(a, p, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.25)
    return first + kto_loss(b, 1 - p, z0, beta=0.1, desirable_weight=1.0, undesirable_weight=1.25)


def margin_rm(a: Tensor, b: Tensor, p: Tensor) -> Tensor:
    return reward_model_loss(a, b, p, margin=torch.full_like(a, 0.5), centering=0.01)


PAIR_LOSSES: dict[str, PairLoss] = {
    "rm": reward_model_loss,
    "rm, margin, centering": margin_rm,
    "dpo": lambda a, b, p: dpo_loss(a, b, p, beta=0.1),
    "cdpo": lambda a, b, p: cdpo_loss(a, b, p, beta=0.1, label_smoothing=0.2),
    "robust dpo": lambda a, b, p: robust_dpo_loss(a, b, p, beta=0.1, label_smoothing=0.2),
    "robust dpo, bounded": lambda a, b, p: robust_dpo_loss(a, b, p, beta=0.1, label_smoothing=0.2, max_margin=5.0),
    "gdpo": lambda a, b, p: gdpo_loss(a, b, p, beta=0.1),
    "ipo": ipo,
    "ipo, summed": lambda a, b, p: ipo_loss(
        a, b, p, tokens(a, TOKENS_A), tokens(b, TOKENS_B), beta=0.1, is_summed=True
    ),
    "kto": kto_pair,
    "simpo": simpo,
}


# The formulas of the papers once more, in decimal arithmetic and without any care for overflow.
def nll(z: Decimal) -> Decimal:
    return (1 + (-z).exp()).ln()


def sigma(z: Decimal) -> Decimal:
    return 1 / (1 + (-z).exp())


def decimal_loss(name: str, a: Decimal, b: Decimal, p: Decimal) -> Decimal:
    tenth, eps, q = Decimal("0.1"), Decimal("0.2"), 1 - p
    z = (a - b) * tenth
    match name:
        case "rm":
            return p * nll(a - b) + q * nll(b - a)
        case "rm, margin, centering":
            half = Decimal("0.5")
            return p * nll(a - b - half) + q * nll(b - a - half) + Decimal("0.01") * (a + b) ** 2
        case "dpo":
            return p * nll(z) + q * nll(-z)
        case "cdpo":  # the label is flipped with probability eps
            return p * ((1 - eps) * nll(z) + eps * nll(-z)) + q * ((1 - eps) * nll(-z) + eps * nll(z))
        case "robust dpo":
            first = ((1 - eps) * nll(z) - eps * nll(-z)) / (1 - 2 * eps)
            second = ((1 - eps) * nll(-z) - eps * nll(z)) / (1 - 2 * eps)
            return p * first + q * second
        case "gdpo":
            return nll((2 * p - 1) * z)
        case "ipo":
            mean = a / TOKENS_A - b / TOKENS_B
            return p * (mean - 5) ** 2 + q * (mean + 5) ** 2
        case "ipo, summed":
            return p * (a - b - 5) ** 2 + q * (a - b + 5) ** 2
        case "kto":
            gain_a, gain_b = (a - Decimal("0.25")) * tenth, (b - Decimal("0.25")) * tenth
            weight = Decimal("1.25")
            loss_a = p * (1 - sigma(gain_a)) + q * weight * (1 - sigma(-gain_a))
            return loss_a + q * (1 - sigma(gain_b)) + p * weight * (1 - sigma(-gain_b))
        case "simpo":
            z = 2 * (a / TOKENS_A - b / TOKENS_B)
            return p * nll(z - 1) + q * nll(-z - 1)
    raise KeyError(name)


GRID = [
    (a, b, p)
    for a, b in [
        (0.0, 0.0),
        (0.25, -0.5),
        (-3.0, 4.0),
        (40.0, -30.0),
        (10.5, -10.0),
        (-1e4, 0.0),
        (5e3, -5e3),
        (1e4, 1e4),
    ]
    for p in (0.0, 0.125, 0.5, 0.75, 1.0)
]


def columns(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    a, b, p = torch.tensor(GRID, dtype=dtype).unbind(1)
    return a, b, p


@pytest.mark.parametrize("name", [name for name in PAIR_LOSSES if name != "robust dpo, bounded"])
def test_values_equal_a_second_computation(name: str) -> None:
    with localcontext() as context:
        context.prec = 60
        expected = [float(decimal_loss(name, *map(Decimal, row))) for row in GRID]
    in_64 = PAIR_LOSSES[name](*columns())
    assert in_64.dtype == torch.float64
    assert in_64.tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
    in_32 = PAIR_LOSSES[name](*columns(torch.float32))
    assert in_32.dtype == torch.float32
    # Twice the same cost with opposite signs in robust DPO, hence the absolute part.
    assert in_32.tolist() == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_exchanging_the_responses_leaves_the_loss(name: str) -> None:
    a, b, p = columns()
    swapped: dict[str, PairLoss] = {  # the counts go with their responses
        "ipo": lambda a, b, p: ipo(a, b, p, TOKENS_B, TOKENS_A),
        "simpo": lambda a, b, p: simpo(a, b, p, TOKENS_B, TOKENS_A),
    }
    ours, other = PAIR_LOSSES[name](a, b, p), swapped.get(name, PAIR_LOSSES[name])(b, a, 1 - p)
    torch.testing.assert_close(ours, other, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_equal_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(6, generator=generator, dtype=torch.float64).mul(4).requires_grad_()
    b = torch.randn(6, generator=generator, dtype=torch.float64).mul(4).requires_grad_()
    p = torch.tensor([0.0, 1.0, 0.5, 0.3, 0.9, 0.62], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: PAIR_LOSSES[name](a, b, p), (a, b))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_extreme_values_stay_finite(name: str, dtype: torch.dtype) -> None:
    a, b, p = columns(dtype)
    a, b = a.requires_grad_(), b.requires_grad_()
    losses = PAIR_LOSSES[name](a, b, p)
    losses.sum().backward()
    assert losses.dtype == torch.float32
    assert losses.shape == a.shape
    assert losses.isfinite().all()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_a_bfloat16_input_is_computed_in_float32() -> None:
    # -1000 and 3 are exact in bfloat16; their difference, -1003, is not, and must not be rounded to -1004.
    policy, reference = torch.tensor([-1000.0]).bfloat16(), torch.tensor([3.0]).bfloat16()
    assert log_ratios(policy, reference).item() == -1003.0
    zero, half = torch.zeros(1).bfloat16(), torch.tensor([0.5]).bfloat16()
    a, b = torch.tensor([1000.0]).bfloat16(), torch.tensor([-3.0]).bfloat16()
    assert dpo_loss(a, b, zero, beta=1.0).item() == 1003.0
    assert reward_model_loss(a, b, half).item() == 501.5


def test_no_gradient_reaches_the_reference() -> None:
    policy, reference = torch.tensor([-3.0], requires_grad=True), torch.tensor([-4.0], requires_grad=True)
    log_ratios(policy, reference).sum().backward()
    assert policy.grad is not None
    assert policy.grad.item() == 1.0
    assert reference.grad is None


def test_dpo_by_hand() -> None:
    # beta h = 0.1 * 10 ln 3 = ln 3, sigma = 3/4. p = 1: -ln 3/4. p = 3/4: the entropy of (3/4, 1/4), its minimum.
    h, zero = torch.tensor([10 * math.log(3.0)] * 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    h.requires_grad_()
    losses = dpo_loss(h, zero, torch.tensor([1.0, 0.75], dtype=torch.float64), beta=0.1)
    assert losses.tolist() == pytest.approx([0.2876820724517809, 0.5623351446188083])
    losses.sum().backward()
    assert h.grad is not None
    # beta (sigma - p)
    assert h.grad.tolist() == pytest.approx([0.1 * (0.75 - 1.0), 0.0], abs=1e-15)


def test_the_loss_at_step_one() -> None:
    # The policy is the reference: all log-ratios are 0.
    zero, p = torch.zeros(4), torch.tensor([0.0, 0.3, 0.5, 1.0])
    for name in ("rm", "dpo", "cdpo", "gdpo", "robust dpo"):
        assert PAIR_LOSSES[name](zero, zero, p).tolist() == pytest.approx([LN2] * 4), name
    assert ipo(zero, zero, p).tolist() == pytest.approx([25.0] * 4)  # 1 / (4 * 0.1^2)
    at_reference = kto_loss(zero, p, kto_z0(zero), beta=0.1, undesirable_weight=2.0)
    # 1/2 (p + 2 (1 - p))
    assert at_reference.tolist() == pytest.approx([1.0, 0.85, 0.75, 0.5])


def test_a_certain_label_is_the_loss_of_the_paper() -> None:
    a, b, _ = columns()
    z, one = 0.1 * (a - b), torch.ones_like(a)
    for name in ("dpo", "gdpo"):
        torch.testing.assert_close(PAIR_LOSSES[name](a, b, one), -torch.nn.functional.logsigmoid(z))
    torch.testing.assert_close(cdpo_loss(a, b, one, beta=0.1, label_smoothing=0.0), dpo_loss(a, b, one, beta=0.1))
    torch.testing.assert_close(robust_dpo_loss(a, b, one, beta=0.1, label_smoothing=0.0), dpo_loss(a, b, one, beta=0.1))
    # A label of 1 - eps is what cDPO makes of a certain one.
    torch.testing.assert_close(PAIR_LOSSES["cdpo"](a, b, one), dpo_loss(a, b, 0.8 * one, beta=0.1))


def test_the_gradient_of_the_reward_model_is_sigma_minus_p() -> None:
    difference = torch.linspace(-8, 8, 33, dtype=torch.float64).requires_grad_()
    p = torch.linspace(0, 1, 33, dtype=torch.float64)
    reward_model_loss(difference, torch.zeros_like(difference), p).sum().backward()
    assert difference.grad is not None
    torch.testing.assert_close(difference.grad, difference.detach().sigmoid() - p)


def test_margin_and_centering_by_hand() -> None:
    # D = 1, m = 1: sigma(0) = 1/2 on A's side, sigma(-2) on B's; (2 + 1)^2 * 0.01 = 0.09.
    a, b, margin = torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([1.0])
    hard = reward_model_loss(a, b, torch.tensor([1.0]), margin=margin, centering=0.01)
    assert hard.item() == pytest.approx(LN2 + 0.09)
    soft = reward_model_loss(a, b, torch.tensor([0.75]), margin=margin)
    assert soft.item() == pytest.approx(0.75 * LN2 + 0.25 * math.log(1 + math.e**2))


def test_robust_dpo_is_unbiased_under_flips() -> None:
    a, b, p = columns()
    flipped = 0.8 * PAIR_LOSSES["robust dpo"](a, b, p) + 0.2 * PAIR_LOSSES["robust dpo"](a, b, 1 - p)
    torch.testing.assert_close(flipped, dpo_loss(a, b, p, beta=0.1), rtol=1e-12, atol=1e-12)


def test_robust_dpo_falls_without_end_unless_bounded() -> None:
    h = torch.tensor([20.0, 60.0, 600.0, -600.0], requires_grad=True)  # beta h: 2, 6, 60, -60
    zero, one = torch.zeros(4), torch.ones(4)
    free = robust_dpo_loss(h, zero, one, beta=0.1, label_smoothing=0.2)
    assert free[2].item() == pytest.approx(-0.2 / 0.6 * 60)
    bounded = robust_dpo_loss(h, zero, one, beta=0.1, label_smoothing=0.2, max_margin=5.0)
    assert bounded[0] == free[0]
    assert bounded[3] == free[3]  # a pair on the wrong side is still pulled over
    assert bounded[1] == bounded[2]
    bounded.sum().backward()
    assert h.grad is not None
    assert h.grad[1:3].tolist() == [0.0, 0.0]
    assert (h.grad[[0, 3]] < 0).all()
    # An unsure label has a minimum of its own, and is left alone.
    half = 0.5 * one
    assert torch.equal(
        robust_dpo_loss(h, zero, half, beta=0.1, label_smoothing=0.2, max_margin=5.0),
        robust_dpo_loss(h, zero, half, beta=0.1, label_smoothing=0.2),
    )


@pytest.mark.parametrize("smoothing", [-0.1, 0.5, math.nan])
def test_a_label_smoothing_without_sense_is_refused(smoothing: float) -> None:
    one = torch.ones(1)
    for loss in (cdpo_loss, robust_dpo_loss):
        with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 0.5\)"):
            loss(one, one, one, beta=0.1, label_smoothing=smoothing)


def test_the_gradient_of_gdpo_vanishes_towards_an_even_label() -> None:
    p = torch.tensor([1.0, 0.75, 0.51, 0.5001, 0.5, 0.25], dtype=torch.float64)
    h = torch.zeros_like(p).requires_grad_()
    gdpo_loss(h, torch.zeros_like(p), p, beta=0.1).sum().backward()
    assert h.grad is not None
    # At h = 0: -beta (2 p - 1) / 2
    assert h.grad.tolist() == pytest.approx([-0.05, -0.025, -0.001, -0.00001, 0.0, 0.025], abs=1e-15)


def test_ipo_takes_means_over_tokens_unless_told_otherwise() -> None:
    # Means 6/3 - (-5)/5 = 3 against 1/(2*0.5) = 1: 4. Sums 6 + 5 = 11: 100.
    a, b, one = torch.tensor([6.0]), torch.tensor([-5.0]), torch.ones(1)
    counts = (torch.tensor([3]), torch.tensor([5]))
    assert ipo_loss(a, b, one, *counts, beta=0.5).item() == pytest.approx(4.0)
    assert ipo_loss(a, b, one, *counts, beta=0.5, is_summed=True).item() == pytest.approx(100.0)


def test_simpo_does_not_change_with_length_at_the_same_mean() -> None:
    a, b, p = torch.tensor([-12.0, -40.0]), torch.tensor([-15.0, -6.0]), torch.tensor([1.0, 0.7])
    counts_a, counts_b = torch.tensor([6, 10]), torch.tensor([5, 3])
    once = simpo_loss(a, b, p, counts_a, counts_b, beta=2.0, gamma=1.0)
    assert torch.equal(once, simpo_loss(2 * a, b, p, 2 * counts_a, counts_b, beta=2.0, gamma=1.0))
    # Means -2 and -3: -log sigma(2 * 1 - 1)
    assert once[0].item() == pytest.approx(math.log1p(math.exp(-1)))


def test_kto_by_hand() -> None:
    # beta (rho - z0) = 0.5 (3 - 1) = 1. Desirable 1 - sigma(1); undesirable 2 (1 - sigma(-1)).
    log_ratio, z0, sigma_1 = torch.tensor([3.0, 3.0, 3.0]), torch.tensor(1.0), 1 / (1 + math.exp(-1))
    soft = torch.tensor([1.0, 0.0, 0.25])
    losses = kto_loss(log_ratio, soft, z0, beta=0.5, undesirable_weight=2.0)
    desirable, undesirable = 1 - sigma_1, 2 * sigma_1
    assert losses.tolist() == pytest.approx([desirable, undesirable, 0.25 * desirable + 0.75 * undesirable])
    hard = kto_loss(log_ratio[:2], torch.tensor([True, False]), z0, beta=0.5, undesirable_weight=2.0)
    assert torch.equal(hard, losses[:2])


def test_z0_is_a_clamped_mean_without_gradient() -> None:
    mismatched = torch.tensor([1.0, -0.5, 2.5], requires_grad=True)
    z0 = kto_z0(mismatched)
    assert (z0.item(), z0.shape, z0.requires_grad) == (1.0, (), False)
    assert kto_z0(torch.tensor([-3.0, 1.0])).item() == 0.0
    assert kto_z0(torch.tensor([math.nan])).isnan()  # and not 0
    assert kto_z0(torch.full((3,), 0.1).bfloat16()).dtype == torch.float32
    with pytest.raises(ValueError, match="no two different prompts"):
        kto_z0(torch.zeros(0))
    # Even a z0 that carries a graph gives none.
    live = torch.tensor(1.0, requires_grad=True)
    kto_loss(mismatched, torch.ones(3), live, beta=0.1).sum().backward()
    assert live.grad is None


def test_sft_by_hand() -> None:
    logprobs = torch.tensor([[-9.0, -1.0, -2.0], [math.nan, math.nan, -4.0]], requires_grad=True)
    is_completion = torch.tensor([[False, True, True], [False, False, True]])
    loss = sft_loss(logprobs, is_completion)
    assert loss.sums.tolist() == [3.0, 4.0]
    assert loss.tokens.tolist() == [2, 1]
    loss.sums.sum().backward()
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0.0, -1.0, -1.0], [0.0, 0.0, -1.0]]  # nothing outside the completion
    assert sft_loss(logprobs.bfloat16(), is_completion).sums.dtype == torch.float32


def test_sft_of_micro_batches_is_that_of_the_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(7, generator=generator, dtype=torch.float64).requires_grad_()
    features = torch.randn(4, 9, 7, generator=generator, dtype=torch.float64)
    is_completion = torch.arange(9) >= torch.tensor([[8], [2], [5], [0]])

    def gradient(splits: list[int]) -> Tensor:
        count = is_completion.sum()
        weights.grad = None
        for part, mask in zip(features.split(splits), is_completion.split(splits), strict=True):
            loss = sft_loss(torch.nn.functional.logsigmoid(part @ weights), mask)
            (loss.sums.sum() / count).backward()
        assert weights.grad is not None
        return weights.grad.clone()

    torch.testing.assert_close(gradient([1, 1, 2]), gradient([4]), rtol=1e-12, atol=0)


def test_sft_has_the_gradient_of_finite_differences() -> None:
    logprobs = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    is_completion = torch.tensor([[False, True, True], [True, False, True]])
    assert torch.autograd.gradcheck(lambda values: sft_loss(values, is_completion).sums, logprobs)


def test_shapes_that_would_broadcast_are_refused() -> None:
    row, column = torch.zeros(3), torch.zeros(3, 1)
    for loss in PAIR_LOSSES.values():
        with pytest.raises(ValueError, match="one shape"):
            loss(row, column, row)
        with pytest.raises(ValueError, match="one shape"):
            loss(row, row, column)
    with pytest.raises(ValueError, match=r"one shape, not \(3,\), \(3,\), \(3,\), \(3, 1\)"):
        reward_model_loss(row, row, row, margin=column)
    with pytest.raises(ValueError, match="one shape"):
        log_ratios(row, column)
    with pytest.raises(ValueError, match="one shape"):
        sft_loss(torch.zeros(2, 3), torch.ones(2, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="one shape"):
        simpo_loss(row, row, row, torch.ones(3), torch.ones(3, 1), beta=2.0, gamma=1.0)
