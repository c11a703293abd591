"""TRL's reward functions: `f(prompts=, completions=, ..., log_extra=, log_metric=, **columns) -> list[float | None]`.

Read from TRL 1.16.0, `trl/trainer/grpo_trainer.py` (`_calculate_rewards`): async callables are gathered on a loop of
TRL's own; None leaves a completion out of the baseline and gives it no advantage.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rlaif.data.completions import candidates_of
from rlaif.errors import InputError, RlaifError
from rlaif.records import Candidates, Rating
from rlaif.rewards.raters import RaterSource, rate_each, rater_of, run_blocking

logger = logging.getLogger(__name__)


def trl_reward(
    judge: str | Sequence[str] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    name: str = "rlaif",
    blocking: bool = False,
    **settings: Any,
) -> TrlReward | BlockingTrlReward:
    """A reward function for TRL's GRPOTrainer and RLOOTrainer.

    Args:
        judge: BACKEND:MODEL, or several for a panel; by default RLAIF_JUDGE. It is opened here, once for all reward
            functions of this process with the same settings.
        url: Address of an `rlaif serve` instead; by default RLAIF_URL.
        token: Its token; by default RLAIF_TOKEN.
        name: What TRL calls the reward in its logs.
        blocking: Return a plain function instead of an async one, as `trl.experimental.online_dpo` needs.
        **settings: The judge's: task, constitution, cot, concurrency, ... as `rlaif rate --help` has them.

    Returns:
        A callable that can be pickled. Its rewards lie in [-1, 1] (a reward model's are any number); a failed judgement
        is None, is counted in the metric NAME/failed, and its reason stands in the column NAME_error of the completions
        table.

    Raises:
        ConfigError: No judge is named, or a setting is wrong.
    """
    source = RaterSource.of(judge, url, token, settings)
    rater_of(source)
    return BlockingTrlReward(source, name) if blocking else TrlReward(source, name)


class TrlReward:
    """What `trl_reward` returns; a class, because TRL's workers in other processes get it pickled."""

    def __init__(self, source: RaterSource, name: str) -> None:
        self._source = source
        self.__name__ = name

    async def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """Rewards, None for a failed judgement.

        Raises:
            BackendUnusableError: The judge cannot be asked at all.
        """
        items = [
            _item(*pair, f"completions[{place}]") for place, pair in enumerate(zip(prompts, completions, strict=True))
        ]
        outcomes = await rate_each(rater_of(self._source), items)
        _log(self.__name__, outcomes, log_extra, log_metric)
        return [outcome.reward if isinstance(outcome, Rating) else None for outcome in outcomes]


class BlockingTrlReward:
    """As `TrlReward`, for trainers that do not await."""

    def __init__(self, source: RaterSource, name: str) -> None:
        self._reward = TrlReward(source, name)
        self.__name__ = name

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        """As `TrlReward.__call__`."""
        return run_blocking(self._reward(prompts, completions, **columns))


def _item(prompt: Any, completion: Any, where: str) -> Candidates | InputError:
    try:
        return candidates_of(prompt, completion, where)
    except InputError as error:
        return error


def _log(
    name: str,
    outcomes: Sequence[Rating | RlaifError],
    log_extra: Callable[[str, list[Any]], None] | None,
    log_metric: Callable[[str, float], None] | None,
) -> None:
    rated = [outcome.rating for outcome in outcomes if isinstance(outcome, Rating)]
    ratings = [rating for rating in rated if rating is not None]
    failures = [outcome for outcome in outcomes if isinstance(outcome, RlaifError)]
    if failures:
        names = ", ".join(f"{count} {error}" for error, count in Counter(f.error_name for f in failures).most_common())
        logger.warning(
            "%s: %d of %d judgements failed (%s): %s", name, len(failures), len(outcomes), names, failures[0]
        )
    if log_metric is not None:
        log_metric(f"{name}/failed", float(len(failures)))
        if ratings:
            log_metric(f"{name}/rating", math.fsum(ratings) / len(ratings))
    if log_extra is not None:
        if len(ratings) == len(rated):  # a reward model gives none
            column = [outcome.rating if isinstance(outcome, Rating) else None for outcome in outcomes]
            log_extra(f"{name}_rating", column)
        if failures:
            log_extra(
                f"{name}_error",
                [outcome.error_name if isinstance(outcome, RlaifError) else None for outcome in outcomes],
            )
