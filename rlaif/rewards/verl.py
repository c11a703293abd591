"""verl's reward functions: `compute_score(data_source, solution_str, ground_truth, extra_info, **reward_kwargs)`.

    custom_reward_function.path=pkg://rlaif.rewards
    custom_reward_function.name=verl_compute_score
    +custom_reward_function.reward_kwargs.judge=openai:gpt-4.1-mini

Read from verl b178a3c, `trainer/ppo/reward.py` (`get_custom_reward_fn`) and `experimental/reward_loop/reward_manager`:
sync functions run in a thread each, async ones are awaited. verl gives a reward function no prompt, so the data has to:
in `extra_info`, under "prompt" or "question".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.data.completions import candidates_of
from rlaif.errors import InputError, RlaifError
from rlaif.records import Candidates, Rating
from rlaif.rewards.raters import RaterSource, rate_each, rater_of, run_blocking

PROMPT_KEYS = ("prompt", "question", "raw_prompt")
_NOT_OURS = ("reward_router_address", "reward_model_tokenizer")
"""What verl hands to every reward function when it runs a reward model of its own."""


def verl_compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    judge: str | Sequence[str] | None = None,
    url: str | None = None,
    token: str | None = None,
    prompt_key: str | None = None,
    **settings: Any,
) -> dict[str, float]:
    """The reward of one solution; blocks until it is judged.

    Args:
        data_source, ground_truth: Not looked at.
        solution_str: The response.
        extra_info: Holds the prompt, as text or messages.
        judge, url, token: As `trl_reward`.
        prompt_key: Where in `extra_info` the prompt stands; by default the first of "prompt", "question", "raw_prompt".
        **settings: The judge's.

    Returns:
        `{"score": reward in [-1, 1], "rating": 1 to 10}`; of a reward model only the score, any number.

    Raises:
        InputError: There is no prompt.
        BackendError, JudgmentError: The judgement failed; verl has no value for that.
    """
    return run_blocking(
        verl_compute_score_async(
            data_source, solution_str, ground_truth, extra_info,
            judge=judge, url=url, token=token, prompt_key=prompt_key, **settings,
        )
    )  # fmt: skip


async def verl_compute_score_async(
    data_source: str,
    solution_str: str,
    ground_truth: Any,
    extra_info: Mapping[str, Any] | None = None,
    *,
    judge: str | Sequence[str] | None = None,
    url: str | None = None,
    token: str | None = None,
    prompt_key: str | None = None,
    **settings: Any,
) -> dict[str, float]:
    """`verl_compute_score` for verl's reward loop, which asks for many at a time."""
    item = _item(solution_str, extra_info, prompt_key, "extra_info")
    (score,) = await _scores([item], judge, url, token, settings)
    return score


def verl_compute_scores(
    data_sources: Sequence[str],
    solution_strs: Sequence[str],
    ground_truths: Sequence[Any],
    extra_infos: Sequence[Mapping[str, Any] | None],
    *,
    judge: str | Sequence[str] | None = None,
    url: str | None = None,
    token: str | None = None,
    prompt_key: str | None = None,
    **settings: Any,
) -> list[dict[str, float]]:
    """`verl_compute_score` for a whole batch at a time (`reward_manager.name=batch`)."""
    items = [
        _item(solution, extra_info, prompt_key, f"extra_infos[{place}]")
        for place, (solution, extra_info) in enumerate(zip(solution_strs, extra_infos, strict=True))
    ]
    return run_blocking(_scores(items, judge, url, token, settings))


async def _scores(
    items: Sequence[Candidates],
    judge: str | Sequence[str] | None,
    url: str | None,
    token: str | None,
    settings: Mapping[str, Any],
) -> list[dict[str, float]]:
    own = {name: value for name, value in settings.items() if name not in _NOT_OURS}
    outcomes = await rate_each(rater_of(RaterSource.of(judge, url, token, own)), items)
    return [_score(outcome) for outcome in outcomes]


def _score(outcome: Rating | RlaifError) -> dict[str, float]:
    if isinstance(outcome, RlaifError):
        raise outcome
    rating = {} if outcome.rating is None else {"rating": outcome.rating}
    return {"score": outcome.reward, **rating}


def _item(solution: str, extra_info: Mapping[str, Any] | None, prompt_key: str | None, where: str) -> Candidates:
    held = extra_info or {}
    keys = PROMPT_KEYS if prompt_key is None else (prompt_key,)
    key = next((key for key in keys if held.get(key) is not None), None)
    if key is None:
        found = ", ".join(map(str, held)) or "nothing"
        raise InputError(f"holds {found}, expected the prompt under {' or '.join(keys)}", path=where)
    prompt = held[key]
    # A list of messages comes out of a parquet file as an array.
    return candidates_of(prompt.tolist() if hasattr(prompt, "tolist") else prompt, solution, where)
