"""What the figures of training are called, and how they are written: for the card, the progress and the summary."""

from __future__ import annotations

_TITLES = {
    "loss": "Loss",
    "accuracy": "Preferred response ranked first",
    "margin": "Margin: lead of the preferred response's reward",
    "reward_better": "Reward of the preferred response",
    "reward_worse": "Reward of the other response",
    "logprob_better": "Log-probability of the preferred response (nats)",
    "logprob_worse": "Log-probability of the other response (nats)",
    "aux_loss": "Negative log-likelihood, weighed by auxiliary rewards (nats)",
    "labels_agreement": "Same side as the labels, ties left out",
    "labels_squared_error": "Squared distance of the probability from the label, mean",
    "labels_calibration_error": "Calibration error beside the labels",
    "reward": "Reward",
    "watched_reward": "Reward by the held-out judge",
    "win_rate": "Win rate against the start",
    "win_rate_swap_consistent": "The same, orders agreeing",
    "reward_accuracy": "Rewards and held-out judge agree",
    "kl": "KL (nats a completion)",
    "completion_tokens": "Tokens of a completion",
    "human_agreement": "Same side as people, ties left out",
    "human_brier": "Brier score beside people",
    "human_log_loss": "Log loss beside people (nats)",
    "human_ece": "Calibration error beside people (ECE)",
    "human_auc": "AUC beside people",
}
"""By the name in metrics.jsonl; those that begin with a section of `evaluation` in run.json are made after training."""

_SHARES = (
    "accuracy", "labels_agreement", "human_agreement", "win_rate", "win_rate_swap_consistent", "reward_accuracy",
)  # fmt: skip


def title_of(name: str) -> str:
    """A figure in words.

    Args:
        name: As in metrics.jsonl, with "eval_" or without.

    >>> title_of("eval_accuracy"), title_of("some_thing")
    ('Preferred response ranked first', 'Some thing')
    """
    bare = name.removeprefix("eval_")
    return _TITLES.get(bare, bare.replace("_", " ").capitalize())


def shown(name: str, value: float) -> str:
    """A figure as people read it.

    >>> shown("accuracy", 0.6251), shown("eval_loss", 0.69314), shown("learning_rate", 1e-6), shown("kl", -2e-7)
    ('62.5 %', '0.6931', '1e-06', '0')
    """
    bare = name.removeprefix("eval_")
    if bare in _SHARES:
        return f"{100 * value:.1f} %"
    if bare == "kl":  # of a policy that has not moved it is rounding alone
        value = round(value, 4) + 0.0
    return f"{value:.4g}"
