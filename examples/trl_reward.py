"""A judge as the reward of TRL's GRPOTrainer: two steps with a tiny policy, where TRL is installed (pip install trl).

python examples/trl_reward.py
"""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile

from rlaif.backends.builtin import BuiltinBackend
from rlaif.rewards import trl_reward

# With a real judge: trl_reward("openai:gpt-4.1-mini", task="helpfulness"); with `rlaif serve`: trl_reward(url=...).
reward = trl_reward("builtin:tiny", task="helpfulness")

PROMPTS = ["How do I boil an egg?", "Name a color.", "Say hello.", "Why is the sky blue?"]


def main() -> None:
    answers = ["Put it into boiling water for eight minutes, then cool it.", "No."]
    for answer, value in zip(answers, asyncio.run(reward(PROMPTS[:1] * 2, answers)), strict=True):
        print(f"{value:+.2f}  {answer}")
    if importlib.util.find_spec("trl") is None:
        print("to see it train: pip install trl")
        return
    with tempfile.TemporaryDirectory() as folder:
        train(folder)


def train(folder: str) -> None:
    import datasets
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    policy = BuiltinBackend("tiny").model_path  # the only model at hand offline
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(policy),
        processing_class=AutoTokenizer.from_pretrained(policy),
        reward_funcs=reward,
        args=GRPOConfig(
            folder, max_steps=2, per_device_train_batch_size=4, num_generations=4, max_completion_length=16,
            logging_steps=1, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
        ),
        train_dataset=datasets.Dataset.from_dict(
            {"prompt": [[{"role": "user", "content": prompt}] for prompt in PROMPTS]}
        ),
    )  # fmt: skip
    trainer.train()
    for step, entry in enumerate(trainer.state.log_history[:2], 1):
        print(f"step {step}: mean reward {entry['reward']:+.2f}, judgements failed {entry['rlaif/failed']:.0f}")


if __name__ == "__main__":
    main()
