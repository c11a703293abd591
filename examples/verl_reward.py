"""A judge as verl's reward function, without a file of your own:

    custom_reward_function.path=pkg://rlaif.rewards
    custom_reward_function.name=verl_compute_score
    +custom_reward_function.reward_kwargs.judge=openai:gpt-4.1-mini
    +custom_reward_function.reward_kwargs.task=helpfulness

verl hands no prompt to a reward function: put it into the rows' `extra_info`, under "prompt" or "question".

python examples/verl_reward.py rates two answers as verl would have it do.
"""

from __future__ import annotations

from rlaif.rewards import verl_compute_score


def main() -> None:
    for answer in ("Put it into boiling water for eight minutes, then cool it.", "No."):
        result = verl_compute_score(
            data_source="kitchen",
            solution_str=answer,
            ground_truth=None,
            extra_info={"question": "How do I boil an egg?"},
            judge="builtin:tiny",  # shows how it works, and is not meant to train anyone's model
        )
        print(f"{result['score']:+.2f}  {answer}")


if __name__ == "__main__":
    main()
