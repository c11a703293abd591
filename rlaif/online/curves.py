"""Which curves of online training are drawn; how they are drawn stands in `engine.training_curves`."""

from __future__ import annotations

from rlaif.engine.training_curves import Curve

CURVES = (
    Curve("reward", "Reward", {"reward": ""}),
    Curve("watched_reward", "Reward by the held-out judge", {"watched_reward": ""}),
    Curve("win_rate", "Win rate against the start", {"win_rate": ""}, is_share=True),
    Curve("kl", "KL (nats a completion)", {"kl": ""}),
    Curve("entropy", "Entropy (nats a token)", {"entropy": ""}),
    Curve("completion_tokens", "Tokens of a completion", {"completion_tokens": ""}),
    Curve(
        "odd_completions",
        "Share of completions",
        {"truncated": "cut off", "repeated": "looping", "junk": "trailing junk"},
        is_share=True,
        has_coin=False,
    ),
    Curve("shared_phrase", "Completions with one phrase", {"phrase_share": ""}, is_share=True, has_coin=False),
    Curve("silent_groups", "Prompts without a signal", {"silent_groups": ""}, is_share=True, has_coin=False),
    Curve("reward_accuracy", "Rewards and held-out judge agree", {"reward_accuracy": ""}, is_share=True),
    Curve("loss", "Loss", {"loss": ""}),
    Curve("learning_rate", "Learning rate", {"learning_rate": ""}, is_noisy=False),
    Curve("gradient_norm", "Norm of the gradient", {"grad_norm": ""}),
)
"""All plots that there can be; those without data are left out."""
