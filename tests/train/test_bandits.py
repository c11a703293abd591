"""What advantages, KL and losses lead to together: a tabular policy trained on its own samples, against closed forms.

The policy writes up to two tokens of three, of which the first ends the completion: seven completions of one or two
tokens, each with its own reward. All is known exactly: probabilities, divergences, gradients and the best policy.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from rlaif.train.advantages import (
    batch_advantages,
    drlaif_returns,
    gae,
    group_advantages,
    leave_one_out_advantages,
    silent_groups,
    terminal_rewards,
    whiten,
)
from rlaif.train.kl import AdaptiveKl, FixedKl, KlController, kl_estimate, sequence_kl
from rlaif.train.policy_losses import Aggregation, aggregate, aggregate_weight, clipped_loss, reinforce_loss, value_loss

# Stop at once, or one of two tokens and then any of three.
COMPLETIONS = [(0,), *itertools.product((1, 2), (0, 1, 2))]
TOKENS = torch.tensor([[*completion, 0][:2] for completion in COMPLETIONS])
STATES = torch.tensor([[0, completion[0]] for completion in COMPLETIONS])  # what the second token sees is the first
IS_COMPLETION = torch.tensor([[True, len(completion) > 1] for completion in COMPLETIONS])

# As judges' are: in a narrow band, and nearly as good for a short answer as for the best.
REWARDS = torch.tensor([0.8, 0.3, 0.5, 0.1, 0.4, 0.9, 0.2], dtype=torch.float64)
BEST = COMPLETIONS.index((2, 1))
REFERENCE = torch.tensor([[0.8, 0.3, 0.0], [0.2, -0.5, 0.4], [0.6, -0.3, 0.1]], dtype=torch.float64).log_softmax(-1)

PROMPTS, SAMPLES, MOST_TOKENS = 16, 8, 2


class Tabular(nn.Module):
    """Logits of the next token and the value, for each of the three states; it starts at the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.values = nn.Parameter(REFERENCE.clone()), nn.Parameter(torch.zeros(3, dtype=torch.float64))

    def logprobs(self, drawn: Tensor) -> Tensor:
        return token_logprobs(self.logits.log_softmax(-1))[drawn]

    def state_values(self, drawn: Tensor) -> Tensor:
        return self.values[STATES].where(IS_COMPLETION, 0.0)[drawn]

    def policy(self) -> Tensor:
        """Probability of each completion, (7,)."""
        return token_logprobs(self.logits.detach().log_softmax(-1)).sum(-1).exp()


class Rollout(NamedTuple):
    """`PROMPTS` groups of `SAMPLES`: which completion each is, and what its tokens' log-probabilities were."""

    drawn: Tensor
    logprobs: Tensor

    @property
    def is_completion(self) -> Tensor:
        return IS_COMPLETION[self.drawn]

    @property
    def rewards(self) -> Tensor:
        return REWARDS[self.drawn]

    @property
    def is_present(self) -> Tensor:
        return torch.ones_like(self.drawn, dtype=torch.bool)

    @property
    def reference(self) -> Tensor:
        return token_logprobs(REFERENCE)[self.drawn]

    @property
    def kl(self) -> Tensor:
        return sequence_kl(self.logprobs, self.reference, self.is_completion)


def token_logprobs(next_token: Tensor) -> Tensor:
    """Log-probability of each completion's tokens, (7, 2)."""
    return next_token[STATES, TOKENS].where(IS_COMPLETION, 0.0)


def mean(per_token: Tensor, rollout: Rollout, how: Aggregation = "constant") -> Tensor:
    tokens = rollout.is_completion.sum(-1).tolist()
    weight = sum(aggregate_weight(row, how, MOST_TOKENS) for row in tokens)
    return aggregate(per_token, rollout.is_completion, how).sum() / weight


def divergence(policy: Tensor) -> float:
    return (policy * (policy.log() - token_logprobs(REFERENCE).sum(-1))).sum().item()


def optimum(beta: float, reward_share: float = 1.0) -> Tensor:
    """What maximises reward_share * reward - beta * KL."""
    return (token_logprobs(REFERENCE).sum(-1) + reward_share * REWARDS / beta).softmax(-1)


def distance(policy: Tensor, other: Tensor) -> float:
    """Total variation."""
    return 0.5 * (policy - other).abs().sum().item()


Loss = Callable[[Tabular, Rollout, float], Tensor]


def rewards_less_kl(rollout: Rollout, beta: float) -> Tensor:
    return rollout.rewards - beta * rollout.kl


def by_advantages(estimate: Callable[[Tensor, Tensor], Tensor], how: Aggregation = "constant") -> Loss:
    """REINFORCE on advantages of whole completions, with the KL inside the reward."""

    def loss(model: Tabular, rollout: Rollout, beta: float) -> Tensor:
        advantages = estimate(rewards_less_kl(rollout, beta), rollout.is_present).unsqueeze(-1)
        return mean(reinforce_loss(model.logprobs(rollout.drawn), advantages), rollout, how)

    return loss


def drlaif(model: Tabular, rollout: Rollout, beta: float) -> Tensor:
    """The return less the value at each token, and the value's squared error."""
    logprobs, values = model.logprobs(rollout.drawn), model.state_values(rollout.drawn)
    returns = drlaif_returns(rollout.rewards, rollout.kl, beta).unsqueeze(-1).expand_as(values)
    policy_loss = reinforce_loss(logprobs, returns - values)
    return mean(policy_loss + 2.0 * value_loss(values, values, returns, clip=None), rollout)


def ppo(model: Tabular, rollout: Rollout, beta: float, *, old_values: Tensor) -> Tensor:
    """A KL on each token, the reward on the last; GAE, whitening, both clips."""
    flat = (-1, rollout.drawn.shape[-1], MOST_TOKENS)
    scores = terminal_rewards(rollout.rewards.flatten(), rollout.is_completion.flatten(0, 1)).reshape(flat)
    rewards = scores - beta * kl_estimate(rollout.logprobs, rollout.reference, "k1")
    rows = (tensor.flatten(0, 1) for tensor in (rewards, old_values, rollout.is_completion))
    advantages, returns = (tensor.reshape(flat) for tensor in gae(*rows, gamma=1.0, lam=0.95))
    advantages = whiten(advantages, rollout.is_completion)
    clipped = clipped_loss(model.logprobs(rollout.drawn), rollout.logprobs, advantages, clip_low=0.2, clip_high=0.2)
    values = value_loss(model.state_values(rollout.drawn), old_values, returns, clip=0.2)
    return mean(clipped.loss + values, rollout)


METHODS: dict[str, Loss] = {
    "reinforce": by_advantages(functools.partial(batch_advantages, scale=False)),
    "reinforce++": by_advantages(functools.partial(batch_advantages, scale=True)),
    "reinforce++-baseline": by_advantages(functools.partial(group_advantages, scale="batch")),
    "rloo": by_advantages(leave_one_out_advantages),
    "grpo": by_advantages(group_advantages, "sequence"),
    "dapo": by_advantages(group_advantages, "token"),
    "dr grpo": by_advantages(functools.partial(group_advantages, scale="none")),
    "drlaif": drlaif,
}


class Trained(NamedTuple):
    """The last policy, and the KL of each step's samples with the coefficient that was used."""

    policy: Tensor
    kl: list[float]
    beta: list[float]


def train(
    method: str,
    controller: KlController,
    *,
    steps: int,
    rate: float = 0.1,
    epochs: int = 1,
    decays: bool = True,
    seed: int = 0,
) -> Trained:
    """Sample, take `epochs` steps on the sample, sample again."""
    model, generator = Tabular(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.8, 0.95))
    measured, betas = [], []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1.0 - step / steps if decays else 1.0)
        drawn = torch.multinomial(model.policy().expand(PROMPTS, -1), SAMPLES, replacement=True, generator=generator)
        with torch.no_grad():
            rollout, old_values = Rollout(drawn, model.logprobs(drawn)), model.state_values(drawn)
        loss = functools.partial(ppo, old_values=old_values) if method == "ppo" else METHODS[method]
        for _ in range(epochs):
            optimizer.zero_grad()
            loss(model, rollout, controller.beta).backward()
            optimizer.step()
        measured.append(rollout.kl.mean().item())
        betas.append(controller.beta)
        controller = controller.updated(measured[-1], rollout.drawn.numel())
    return Trained(model.policy(), measured, betas)


def test_the_seven_completions_are_all_there_are() -> None:
    assert Tabular().policy().sum().item() == pytest.approx(1.0)
    assert REWARDS.argmax().item() == BEST
    assert Tabular().policy()[BEST] < 0.1


@pytest.mark.parametrize("method", [name for name in METHODS if name != "drlaif"])
def test_each_method_finds_the_best_completion(method: str) -> None:
    assert train(method, FixedKl(0.0), steps=250).policy[BEST] > 0.95


def test_ppo_finds_the_best_completion() -> None:
    assert train("ppo", FixedKl(0.0), steps=80, epochs=2).policy[BEST] > 0.95


# There, and only there, all completions have the same reward less KL: every estimator with a baseline rests, whatever
# it divides by.
@pytest.mark.parametrize("method", [*(name for name in METHODS if name != "drlaif"), "ppo"])
def test_with_a_kl_in_the_reward_the_policy_is_the_closed_form(method: str) -> None:
    trained = train(method, FixedKl(0.1), steps=150 if method != "ppo" else 80, epochs=1 if method != "ppo" else 2)
    assert distance(Tabular().policy(), optimum(0.1)) > 0.4
    assert distance(trained.policy, optimum(0.1)) < 0.01


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5])
def test_drlaif_ends_at_the_reference_times_the_exponential_of_its_share_of_the_reward(beta: float) -> None:
    trained = train("drlaif", FixedKl(beta), steps=200)
    assert distance(trained.policy, optimum(beta, 1.0 - beta)) < 0.01
    assert distance(trained.policy, optimum(beta)) > 0.01  # the factor 1 - beta is seen


def test_a_larger_beta_stays_nearer_and_none_collapses_to_the_largest_reward() -> None:
    exact, measured = [], []
    for beta in (0.0, 0.1, 0.3, 1.0):
        trained = train("rloo", FixedKl(beta), steps=250 if not beta else 150)
        exact.append(divergence(trained.policy))
        measured.append(sum(trained.kl[-20:]) / 20)
        if not beta:
            assert trained.policy[BEST] > 0.95
    for values in (exact, measured):
        assert values[0] > 2 * values[1] > 4 * values[2] > 8 * values[3] > 0.0
    assert measured == pytest.approx(exact, rel=0.2)


@pytest.mark.parametrize(("method", "start"), [("rloo", 0.003), ("rloo", 3.0), ("ppo", 3.0)])
def test_an_adaptive_beta_settles_where_the_kl_is_the_target(method: str, start: float) -> None:
    """From below and from above; 128 completions a step, so that beta moves by at most 5 % a step."""
    target = 0.4
    controller = AdaptiveKl(start, target, horizon=0.2 * PROMPTS * SAMPLES / 0.05)
    trained = train(method, controller, steps=250, rate=0.05, epochs=2 if method == "ppo" else 1, decays=False)
    assert sum(trained.kl[-100:]) / 100 == pytest.approx(target, rel=0.2)
    if start > 1.0:  # the coefficient of 0.4 nats, from `optimum`, is 0.207
        assert sum(trained.beta[-100:]) / 100 == pytest.approx(0.207, rel=0.1)
    is_above = [kl > target for kl in trained.kl]
    assert any(is_above[:150])
    assert not all(is_above[:150])
    for above, (beta, following) in zip(is_above, itertools.pairwise(trained.beta), strict=False):
        assert (following > beta) == above
        assert 0.95 - 1e-9 <= following / beta <= 1.05 + 1e-9


def test_a_clip_keeps_many_steps_on_one_sample_near_the_policy_that_drew_it() -> None:
    drawn = torch.multinomial(
        Tabular().policy().expand(PROMPTS, -1), SAMPLES, replacement=True, generator=torch.Generator().manual_seed(0)
    )

    def moved(clip: float) -> tuple[float, float]:
        """KL to the policy that drew, and the share of tokens that are clipped at the end."""
        model = Tabular()
        with torch.no_grad():
            rollout = Rollout(drawn, model.logprobs(drawn))
        advantages = group_advantages(rollout.rewards, rollout.is_present).unsqueeze(-1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        for _ in range(60):
            optimizer.zero_grad()
            result = clipped_loss(model.logprobs(drawn), rollout.logprobs, advantages, clip_low=clip, clip_high=clip)
            mean(result.loss, rollout).backward()
            optimizer.step()
        return divergence(model.policy()), result.is_clipped.double().mean().item()

    held, share = moved(0.2)
    free, none = moved(math.inf)
    assert held < 0.1 * free
    assert share > 0.3
    assert none == 0.0


def scores() -> Tensor:
    """Gradient of each completion's log-probability in the logits, (7, 9)."""
    logits = REFERENCE.clone().requires_grad_()
    sums = token_logprobs(logits.log_softmax(-1)).sum(-1)
    return torch.stack([torch.autograd.grad(total, logits, retain_graph=True)[0].flatten() for total in sums])


Kind = Literal["reinforce", "rloo", "batch", "dr grpo", "grpo"]


def estimated(kind: Kind, size: int = 3) -> tuple[Tensor, float]:
    """Mean of the estimated gradient over all groups of `size` that can be drawn, and its variance: no sampling."""
    drawn = torch.tensor(list(itertools.product(range(7), repeat=size)))
    weights = Tabular().policy()[drawn].prod(-1)
    rewards, is_present = REWARDS[drawn], torch.ones_like(drawn, dtype=torch.bool)
    match kind:
        case "reinforce":
            advantages = rewards
        case "rloo":
            advantages = leave_one_out_advantages(rewards, is_present)
        case "batch":  # each as a batch of as many prompts, one sample each
            columns = [batch_advantages(row.unsqueeze(-1), row.unsqueeze(-1) > -1.0, scale=False) for row in rewards]
            advantages = torch.stack(columns).squeeze(-1)
        case "dr grpo":
            advantages = group_advantages(rewards, is_present, scale="none")
        case "grpo":
            advantages = group_advantages(rewards, is_present)
    gradients = (advantages.unsqueeze(-1) * scores()[drawn]).mean(1)
    average = (weights.unsqueeze(-1) * gradients).sum(0)
    return average, (weights * (gradients - average).square().sum(-1)).sum().item()


def test_baselines_leave_the_expected_gradient_and_lower_its_variance() -> None:
    """Exactly, over all 343 groups of three."""
    policy = Tabular().policy()
    exact = (policy * REWARDS) @ scores()
    plain, plain_variance = estimated("reinforce")
    torch.testing.assert_close(plain, exact)
    for kind in ("rloo", "batch"):
        gradient, variance = estimated(kind)
        torch.testing.assert_close(gradient, exact)
        assert variance < 0.6 * plain_variance
    # The own reward inside the mean shortens it by (K - 1) / K, and turns it nowhere.
    gradient, variance = estimated("dr grpo")
    torch.testing.assert_close(gradient, 2 / 3 * exact)
    assert variance < (2 / 3) ** 2 * 0.6 * plain_variance
    # GRPO's division by the group's spread turns it a little.
    gradient, variance = estimated("grpo")
    assert torch.cosine_similarity(gradient, exact, dim=0) > 0.95
    assert variance / gradient.square().sum() < 0.8 * plain_variance / exact.square().sum()


def test_the_gradient_of_the_loss_is_the_estimate() -> None:
    """The same group through `reinforce_loss` and `aggregate`."""
    model, drawn = Tabular(), torch.tensor([[0, 5, 3], [5, 5, 5]])
    rollout = Rollout(drawn, model.logprobs(drawn).detach())
    advantages = leave_one_out_advantages(rollout.rewards, rollout.is_present)
    assert silent_groups(rollout.rewards, rollout.is_present).tolist() == [False, True]
    loss = MOST_TOKENS * mean(reinforce_loss(model.logprobs(drawn), advantages.unsqueeze(-1)), rollout)
    (gradient,) = torch.autograd.grad(loss, model.logits)
    expected = -(advantages.unsqueeze(-1) * scores()[drawn]).mean((0, 1))
    torch.testing.assert_close(gradient.flatten(), expected)
