"""OpenRLHF's reward functions: `reward_func(queries, prompts, labels)` in the file that `--reward.remote_url` names.

Read from OpenRLHF 0.11.0, `openrlhf/utils/agent.py` (`SingleTurnAgentExecutor`): the file is loaded in each vLLM actor,
and the function is called in threads, with one sample at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlaif.data.completions import END_TOKENS, candidates_of, split_query, without_end_tokens
from rlaif.errors import RlaifError
from rlaif.records import Candidates
from rlaif.rewards.raters import RaterSource, rate_each, rater_of, run_blocking

RewardFunc = Callable[..., dict[str, Any]]


def openrlhf_reward(
    judge: str | Sequence[str] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    end_tokens: Sequence[str] = END_TOKENS,
    **settings: Any,
) -> RewardFunc:
    """A `reward_func` for OpenRLHF.

    Args:
        judge, url, token: As `trl_reward`, but opened with the first call: OpenRLHF loads the file in every actor.
        end_tokens: Cut from the end of responses, which OpenRLHF decodes with the special tokens kept.
        **settings: The judge's.

    Returns:
        `reward_func(queries, prompts, labels, **kwargs)`. It returns `rewards` in [-1, 1] (a reward model's are any
        number) and `scores` in [0, 1] (what OpenRLHF filters prompts by) as float32 tensors `(N,)`, and raises where a
        judgement failed.

    Raises:
        ConfigError: No judge is named.
    """
    source = RaterSource.of(judge, url, token, settings)

    def reward_func(queries: Sequence[str], prompts: Sequence[str], labels: Any, **kwargs: Any) -> dict[str, Any]:
        import torch

        pairs = enumerate(zip(queries, prompts, strict=True))
        items = [_item(query, prompt, end_tokens, f"query[{place}]") for place, (query, prompt) in pairs]
        outcomes = run_blocking(rate_each(rater_of(source), items))
        values, shares = [], []
        for outcome in outcomes:
            if isinstance(outcome, RlaifError):
                raise outcome
            values.append(outcome.reward)
            shares.append(outcome.unit_reward)
        rewards, scores = (torch.tensor(column, dtype=torch.float32) for column in (values, shares))
        return {"rewards": rewards, "scores": scores, "extra_logs": {}}

    return reward_func


def _item(query: str, prompt: str, end_tokens: Sequence[str], where: str) -> Candidates:
    split = split_query(query, prompt, where)
    return candidates_of(split.prompt, without_end_tokens(split.response, end_tokens), where)
