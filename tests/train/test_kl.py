"""KL estimates against enumerated divergences, and the controllers of its coefficient."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlaif.train.kl import AdaptiveKl, FixedKl, KlController, KlKind, kl_estimate, sequence_kl

KINDS: tuple[KlKind, ...] = ("k1", "k2", "k3")
LOGITS = torch.tensor([0.3, -1.2, 0.8, 0.0, 2.0], dtype=torch.float64)
REFERENCE = torch.tensor([0.3, 0.1, 0.05, 0.35, 0.2], dtype=torch.float64).log()


def divergence(first: Tensor, second: Tensor) -> Tensor:
    return (first.exp() * (first - second)).sum()


def test_estimates_by_hand() -> None:
    # lr = ln 2: k1 = ln 2, k2 = (ln 2)^2 / 2, k3 = 1/2 - 1 + ln 2. lr = -ln 2: k3 = 2 - 1 - ln 2.
    ln2 = math.log(2.0)
    logprobs, reference = torch.tensor([-1.0 + ln2, -1.0 - ln2, -3.0]), torch.tensor([-1.0, -1.0, -3.0])
    assert kl_estimate(logprobs, reference, "k1").tolist() == pytest.approx([ln2, -ln2, 0.0])
    assert kl_estimate(logprobs, reference, "k2").tolist() == pytest.approx([ln2**2 / 2, ln2**2 / 2, 0.0])
    assert kl_estimate(logprobs, reference, "k3").tolist() == pytest.approx([ln2 - 0.5, 1.0 - ln2, 0.0])


def test_k1_and_k3_are_right_on_average_and_k2_is_near() -> None:
    logprobs = LOGITS.log_softmax(-1)
    means = {kind: (logprobs.exp() * kl_estimate(logprobs, REFERENCE, kind)).sum().item() for kind in KINDS}
    expected = divergence(logprobs, REFERENCE).item()
    assert means["k1"] == pytest.approx(expected)
    assert means["k3"] == pytest.approx(expected)
    assert means["k2"] != pytest.approx(expected, rel=0.01)
    # Near the reference k2 is right too, and both vary less than k1.
    close = (REFERENCE + 0.05 * LOGITS).log_softmax(-1)
    exact = divergence(close, REFERENCE).item()
    spreads = {}
    for kind in KINDS:
        values = kl_estimate(close, REFERENCE, kind)
        assert (close.exp() * values).sum().item() == pytest.approx(exact, rel=0.1)
        spreads[kind] = (close.exp() * (values - exact).square()).sum().sqrt().item()
    assert max(spreads["k2"], spreads["k3"]) < 0.1 * spreads["k1"]


def test_the_gradients_of_the_estimates_are_those_of_the_divergences() -> None:
    """On average over tokens of the policy: none for k1, KL(pi || ref) for k2, KL(ref || pi) for k3."""

    def mean_gradient(kind: KlKind) -> Tensor:
        logits = LOGITS.clone().requires_grad_()
        logprobs = logits.log_softmax(-1)
        (gradient,) = torch.autograd.grad(
            (logprobs.exp().detach() * kl_estimate(logprobs, REFERENCE, kind)).sum(), logits
        )
        return gradient

    logits = LOGITS.clone().requires_grad_()
    (reverse,) = torch.autograd.grad(divergence(logits.log_softmax(-1), REFERENCE), logits)
    (forward,) = torch.autograd.grad(divergence(REFERENCE, logits.log_softmax(-1)), logits)
    assert reverse.norm() > 0.1 < forward.norm()
    torch.testing.assert_close(mean_gradient("k1"), torch.zeros_like(LOGITS))
    torch.testing.assert_close(mean_gradient("k2"), reverse)
    torch.testing.assert_close(mean_gradient("k3"), forward)


@given(st.floats(-30.0, 30.0), st.sampled_from([torch.float32, torch.float64]))
def test_k2_and_k3_are_never_negative(ratio: float, dtype: torch.dtype) -> None:
    logprobs, reference = torch.tensor([-40.0 + ratio], dtype=dtype), torch.tensor([-40.0], dtype=dtype)
    assert kl_estimate(logprobs, reference, "k2").item() >= 0.0
    assert kl_estimate(logprobs, reference, "k3").item() >= 0.0


def test_k3_keeps_its_digits_near_the_reference() -> None:
    ratio = torch.tensor([2.0**-12])
    expected = math.exp(-(2.0**-12)) - 1 + 2.0**-12  # in float64, some lr^2 / 2
    assert kl_estimate(ratio, torch.zeros(1), "k3").item() == pytest.approx(expected, rel=1e-3)


def test_half_precision_is_upcast_before_the_difference() -> None:
    logprobs = torch.tensor([-1000.0, -2.0], dtype=torch.bfloat16)
    reference = torch.tensor([-1000.5, -2.5], dtype=torch.float32)
    assert kl_estimate(logprobs, reference, "k1").tolist() == [0.5, 0.5]


def test_sequence_kl_by_hand() -> None:
    logprobs = torch.tensor([[[-1.0, -2.0, -0.5], [-1.0, math.nan, 7.0]]], requires_grad=True)
    reference = torch.tensor([[[-1.5, -1.0, -2.0], [-0.25, 0.0, math.nan]]])
    is_completion = torch.tensor([[[True, True, True], [True, False, False]]])
    # 0.5 - 1 + 1.5, and -0.75
    measured = sequence_kl(logprobs, reference, is_completion)
    assert measured.tolist() == [[1.0, -0.75]]
    assert not measured.requires_grad


def test_no_gradient_reaches_the_reference() -> None:
    logprobs, reference = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    for kind in KINDS:
        kl_estimate(logprobs, reference, kind).sum().backward()
    assert logprobs.grad is not None
    assert reference.grad is None


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        kl_estimate(torch.zeros(2, 3), torch.zeros(2, 1), "k1")
    with pytest.raises(ValueError, match="one shape"):
        sequence_kl(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4), torch.ones(3, 4, dtype=torch.bool))


def test_a_fixed_coefficient_stays() -> None:
    assert FixedKl(0.05).updated(1e9, 64) == FixedKl(0.05)
    assert FixedKl(0.0).beta == 0.0


@pytest.mark.parametrize(
    ("measured", "factor"),
    [
        (6.6, 1.005),  # e = 0.1: 1 + 0.1 * 500 / 10000
        (5.4, 0.995),  # e = -0.1
        (6.0, 1.0),
        (7.2, 1.01),  # e = 0.2, the most
        (60.0, 1.01),  # cut
        (4.8, 0.99),
        (0.0, 0.99),  # e = -1, cut
        (-3.0, 0.99),  # a mean of k1 may be negative
    ],
)
def test_adaptive_beta_by_hand(measured: float, factor: float) -> None:
    controller = AdaptiveKl(beta=0.2, target=6.0, horizon=10_000)
    updated = controller.updated(measured, 500)
    assert updated.beta == pytest.approx(0.2 * factor, rel=1e-12)
    assert (updated.target, updated.horizon) == (6.0, 10_000)
    assert controller.beta == 0.2
    assert controller.updated(measured, 0) == controller


def test_steps_add_up_however_many_completions_each_has() -> None:
    once = AdaptiveKl(0.2, 6.0, 10_000).updated(60.0, 100).beta
    twice = AdaptiveKl(0.2, 6.0, 10_000).updated(60.0, 50).updated(60.0, 50).beta
    assert twice == pytest.approx(once, rel=1e-5)


def test_a_kl_that_is_no_number_or_too_large_a_step_is_refused() -> None:
    controller = AdaptiveKl(0.2, 6.0, 100.0)
    for measured in (math.nan, math.inf):
        with pytest.raises(ValueError, match="measured KL"):
            controller.updated(measured, 10)
    assert controller.updated(0.0, 499).beta > 0.0  # 1 - 0.2 * 4.99
    with pytest.raises(ValueError, match="set a horizon above 100"):
        controller.updated(0.0, 500)


@pytest.mark.parametrize("controller", [FixedKl(0.05), AdaptiveKl(0.1, 6.0, 10_000.0).updated(4.321, 7)])
def test_a_controller_survives_its_checkpoint_to_the_last_bit(controller: KlController) -> None:
    assert type(controller).from_json(json.loads(json.dumps(controller.as_json()))) == controller


def test_a_state_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="no state of AdaptiveKl: it holds beta, expected beta, target, horizon"):
        AdaptiveKl.from_json(FixedKl(0.1).as_json())
    with pytest.raises(ValueError, match="no state of FixedKl"):
        FixedKl.from_json(AdaptiveKl(0.1, 6.0, 10.0).as_json())
    with pytest.raises(ValueError, match="target must be above 0"):
        AdaptiveKl.from_json({"beta": 0.1, "target": 0.0, "horizon": 10.0})


@pytest.mark.parametrize("beta", [-0.1, math.nan, math.inf])
def test_impossible_coefficients_are_refused(beta: float) -> None:
    with pytest.raises(ValueError, match="beta must be"):
        FixedKl(beta)
    with pytest.raises(ValueError, match="beta must be above 0"):
        AdaptiveKl(beta, 6.0, 10.0)
