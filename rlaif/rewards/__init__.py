"""The judge as the reward function of other trainers: TRL, verl, OpenRLHF.

    GRPOTrainer(reward_funcs=trl_reward("openai:gpt-4.1-mini", task="summarization"), ...)

Each takes a judge to ask from this process, or the URL of an `rlaif serve`. A failed judgement is None where the
trainer knows that (TRL), and an error where it does not; never a number.
"""

from rlaif.rewards.openrlhf import openrlhf_reward
from rlaif.rewards.trl import trl_reward
from rlaif.rewards.verl import verl_compute_score, verl_compute_score_async, verl_compute_scores

__all__ = [
    "openrlhf_reward",
    "trl_reward",
    "verl_compute_score",
    "verl_compute_score_async",
    "verl_compute_scores",
]
