"""A judge as OpenRLHF's reward function. Name the judge, and give this file as the reward:

    export RLAIF_JUDGE=openai:gpt-4.1-mini OPENAI_API_KEY=...
    python -m openrlhf.cli.train_ppo_ray --reward.remote_url examples/openrlhf_reward.py ...

`rlaif serve` does the same over HTTP, with one judge for all actors: --reward.remote_url http://HOST:8400/get_reward
(http://rlaif:TOKEN@HOST:8400/get_reward where the server has a token).

python examples/openrlhf_reward.py rates two answers as OpenRLHF would have it do.
"""

from __future__ import annotations

import os

from rlaif.rewards import openrlhf_reward

# The judge that ships shows how it works, and is not meant to train anyone's model.
reward_func = openrlhf_reward(os.environ.get("RLAIF_JUDGE", "builtin:tiny"), task="helpfulness")


def main() -> None:
    prompt = "User: How do I boil an egg?\nAssistant: "
    answers = ["Put it into boiling water for eight minutes, then cool it.", "No."]
    result = reward_func([prompt + answer + "</s>" for answer in answers], [prompt] * 2, ["", ""])
    for answer, reward in zip(answers, result["rewards"].tolist(), strict=True):
        print(f"{reward:+.2f}  {answer}")


if __name__ == "__main__":
    main()
