"""Batches: what is written and judged for them, what is left out, replaced and counted. No model."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from rlaif.errors import BackendUnusableError
from rlaif.online.assessing import Assessed
from rlaif.online.recipes import make_recipe
from rlaif.online.source import Batch, Begun, Readings, RolloutSource
from rlaif.online.visits import Visits
from rlaif.rollout_records import Rollout
from rlaif.train.experience import RunningSpread
from rlaif.train.online_config import (
    BestOfNLossConfig,
    GrpoLossConfig,
    OnlineDpoLossConfig,
    PpoLossConfig,
    RlooLossConfig,
    RolloutConfig,
    RsDpoLossConfig,
)
from tests.online.made_rollouts import DrawingGenerator, TextScoring, prompt_row

SAMPLED = RolloutConfig(response_tokens=3, rollout_temperature=1.0)
PLAIN = GrpoLossConfig(variant="dr-grpo")


def source_of(
    loss: Any = PLAIN,
    scoring: TextScoring | None = None,
    *,
    group: int = 4,
    config: RolloutConfig = SAMPLED,
    readings: Readings | None = None,
    **keywords: Any,
) -> RolloutSource:
    keywords = {"rates": False, "seed": 5, **keywords}
    return RolloutSource(
        Visits([prompt_row(number) for number in range(6)], 5), DrawingGenerator(), scoring or TextScoring(),
        make_recipe(loss, config, seed=5), readings or Readings(), config,
        group_size=group, decode=lambda ids: " ".join(map(str, ids)), **keywords,
    )  # fmt: skip


def no_more(prompts: int) -> Begun:
    raise AssertionError("no further prompts were needed")


def batch_of(source: RolloutSource, visits: range = range(4), **keywords: Any) -> Batch:
    keywords = {"number": 0, "step": 3, "beta": 0.0, "spread": RunningSpread(), "more": no_more, **keywords}
    return source.finish(source.begin(visits, 1), **keywords)


def rewards_of(batch: Batch) -> list[float | None]:
    return [one.score.value for one in batch.completions]


def test_what_is_written_depends_on_the_visit_and_the_number_alone() -> None:
    together = source_of().begin(range(4), 0).rollouts
    source = source_of(group=6)
    apart = [source.begin([number], 9).rollouts[0] for number in reversed(range(4))][::-1]
    for one, other in zip(together, apart, strict=True):
        assert one.id == other.id
        assert one.completions == other.completions[:4]
        assert (one.step, other.step) == (0, 9)
    written = [completion for each in together for completion in each.completions]
    assert len({completion.ids for completion in written}) > 8  # and from one to the next
    for completion in written:  # what ended an answer is no part of its text
        shown = completion.ids[:-1] if completion.is_finished else completion.ids
        assert completion.text == " ".join(map(str, shown))


def test_a_prompt_is_judged_as_soon_as_it_is_answered_or_only_after_all_where_the_judge_is_the_policy() -> None:
    for meanwhile in (True, False):
        scoring = TextScoring()
        source = source_of(scoring=scoring, judges_meanwhile=meanwhile)
        begun = source.begin(range(4), 0)
        judged = [rollout.id for rollout in scoring.asked]
        order = [rollout.id for rollout in begun.rollouts]
        assert judged == (order[::-1] if meanwhile else order)  # the generator ends the last one first


def test_rows_hold_the_advantages_of_their_groups() -> None:
    """Dr. GRPO: the reward less the group's mean, at each token."""
    batch = batch_of(source_of())
    assert len(batch.items) == 4
    for place, item in enumerate(batch.items):
        rewards = [value for value in rewards_of(batch)[4 * place : 4 * place + 4] if value is not None]
        assert item.targets is not None
        for tokens, reward, ids in zip(item.targets.advantages, rewards, item.example.completions, strict=True):
            assert tokens == pytest.approx([reward - sum(rewards) / 4] * len(ids), abs=1e-6)
        assert sum(tokens[0] for tokens in item.targets.advantages) == pytest.approx(0.0, abs=1e-6)
        assert item.targets.old_logprobs == tuple(
            pytest.approx([-0.1 * each for each in ids], abs=1e-6) for ids in item.example.completions
        )


def test_completions_without_a_reward_change_nothing_for_the_others() -> None:
    """As if they had not been written; a prompt without any is no row, and all are counted."""

    def worth(text: str) -> float | None:
        return None if text.startswith(("1", "2", "3")) else float(text[0])

    warnings: list[str] = []
    source = source_of(scoring=TextScoring(worth), group=2, on_warning=warnings.append)
    batch = batch_of(source, range(6))
    kept = [value for value in rewards_of(batch) if value is not None]
    assert 0 < len(kept) < 12
    assert batch.figures["dropped"] == pytest.approx(1 - len(kept) / 12)
    assert batch.figures["reward"] == pytest.approx(sum(kept) / len(kept))
    assert 0 < len(batch.items) < 6
    learnt = [ids for item in batch.items for ids in item.example.completions]
    assert len(learnt) == len(kept)
    assert all(str(ids[0]) not in "123" for ids in learnt)
    alone = [item for item in batch.items if len(item.example.completions) == 1]
    assert alone
    assert all(item.targets is not None and set(item.targets.advantages[0]) == {0.0} for item in alone)
    assert warnings == [
        "a completion without a reward is left out (LowLabelMassError: no mass); further ones are counted (dropped)"
    ]


def test_a_batch_without_any_reward_has_no_rows() -> None:
    batch = batch_of(source_of(scoring=TextScoring(lambda text: None)))
    assert batch.items == []
    assert batch.figures["dropped"] == 1.0
    assert "reward" not in batch.figures


def test_a_judge_that_is_gone_is_no_reward() -> None:
    scoring = TextScoring()
    scoring.fault = BackendUnusableError("gone")
    with pytest.raises(BackendUnusableError, match="gone"):
        batch_of(source_of(scoring=scoring))


def test_prompts_without_a_signal_are_replaced_and_the_others_stay() -> None:
    """DAPO: the completions of p0 and p1 are all worth the same, whatever they are."""
    scoring = TextScoring()
    source = source_of(GrpoLossConfig(variant="dapo"), scoring)
    silent = {source.visits[0].row.prompt.id, source.visits[1].row.prompt.id}
    plain = scoring.worth

    def submit(rollouts: Any) -> Any:
        scoring.worth = (lambda text: 0.5) if rollouts[0].prompt.id in silent else plain
        return TextScoring.submit(scoring, rollouts)

    source._scoring.submit = submit  # type: ignore[method-assign]
    asked: list[int] = []

    def more(prompts: int) -> Begun:
        asked.append(prompts)
        return source.begin(range(4, 4 + prompts), 1)

    batch = batch_of(source, range(4), more=more)
    assert asked == [2]
    assert batch.figures["replaced_prompts"] == 2.0
    assert batch.figures["silent_groups"] == 0.0
    assert [item.example.id for item in batch.items] == [source.visits[number].id for number in (2, 3, 4, 5)]


def test_rewards_over_their_running_spread() -> None:
    """PPO with scale_rewards: 1, 3 and 5 so far, and this batch's; the spread goes on to the next."""
    values = Readings(policy=lambda rollouts: [assessed(each) for each in rollouts])
    loss = PpoLossConfig(scale_rewards=True, beta=0.0, whiten_advantages=False, lam=1.0, reward_clip=None)
    before = RunningSpread().updated([1.0, 3.0, 5.0])
    batch = batch_of(source_of(loss, group=1, readings=values), spread=before)
    rewards = [value for value in rewards_of(batch) if value is not None]
    assert batch.spread == before.updated(rewards)
    for item, reward in zip(batch.items, rewards, strict=True):
        assert item.targets is not None
        assert item.targets.returns is not None
        assert item.targets.returns[0][-1] == pytest.approx(reward / batch.spread.value, rel=1e-5)


def assessed(rollout: Rollout) -> Assessed:
    logprobs = tuple(one.logprobs for one in rollout.completions)
    return Assessed(logprobs, tuple(tuple(0.0 for _ in each) for each in logprobs))


def test_the_kl_is_what_the_policy_says_less_what_the_reference_says() -> None:
    """The reference is less sure of each token by 0.3."""

    def reference(rollouts: Any) -> list[Assessed]:
        return [Assessed(tuple(tuple(x - 0.3 for x in one.logprobs) for one in each.completions)) for each in rollouts]

    batch = batch_of(source_of(RlooLossConfig(), readings=Readings(reference=reference)), beta=0.1)
    tokens = [len(one.rollout.completions[0].ids) for one in batch.completions]
    assert batch.figures["kl"] == pytest.approx(0.3 * sum(tokens) / len(tokens))
    assert [one.kl for one in batch.completions] == pytest.approx([0.3 * count for count in tokens])
    drawn = [logprob for one in batch.completions for logprob in one.rollout.completions[0].logprobs]
    assert batch.figures["entropy"] == pytest.approx(-math.fsum(drawn) / len(drawn))
    assert batch.figures["staleness"] == 2.0


@pytest.mark.parametrize(("rates", "scale", "shift"), [(True, 4.5, 5.5), (False, 1.0, 0.0)])
def test_what_is_selected_by_is_on_the_scale_of_ratings_where_there_are_ratings(
    rates: bool, scale: float, shift: float
) -> None:
    """The best of a prompt is imitated if it reaches the threshold on that scale; a cut-off end costs."""
    config = replace(SAMPLED, missing_eos_penalty=0.25)
    threshold = 0.5 * scale + shift
    batch = batch_of(source_of(BestOfNLossConfig(least_score=threshold), config=config, rates=rates), range(6))
    best = []
    for place in range(6):
        of_prompt = batch.completions[4 * place : 4 * place + 4]
        worth = [(one.score.value or 0.0) - 0.25 * (not one.rollout.completions[0].is_finished) for one in of_prompt]
        top = max(range(4), key=worth.__getitem__)
        if worth[top] >= 0.5:
            best.append(of_prompt[top].rollout.completions[0].ids)
    assert 0 < len(best) < 6
    assert [item.example.completions for item in batch.items] == [(ids,) for ids in best]


def test_two_that_are_compared_are_a_soft_pair_and_dropped_together() -> None:
    def worth(text: str) -> float | None:
        return None if text.startswith("1") else float(text[0])

    def reference(rollouts: Any) -> list[Assessed]:
        return [Assessed(tuple(one.logprobs for one in each.completions)) for each in rollouts]

    scoring = TextScoring(worth)
    source = source_of(OnlineDpoLossConfig(), scoring, group=2, readings=Readings(reference=reference))
    batch = batch_of(source, range(12))
    known = [rollout for rollout in scoring.asked if not any(one.text.startswith("1") for one in rollout.completions)]
    assert 0 < len(known) < 12
    assert batch.figures["dropped"] == pytest.approx(1 - len(known) / 12)
    assert len(batch.items) == len(known)
    assert {round(sum(item.scores), 9) for item in batch.items} == {1.0}
    assert {item.scores[0] for item in batch.items} <= {0.1, 0.5, 0.9}
    for item in batch.items:
        assert item.reference == pytest.approx([-0.1 * sum(ids) for ids in item.example.completions])
    # The surer side's probability, 0.5 of a tie among them.
    assert 0.5 < batch.figures["sureness"] <= 0.9


def test_no_pair_of_ratings_is_chosen_by_rewards_scaled_to_one() -> None:
    """On [-1, 1] no sigmoid of a difference passes 0.88: RS-DPO asks the rating."""

    def reference(rollouts: Any) -> list[Assessed]:
        return [Assessed(tuple(one.logprobs for one in each.completions)) for each in rollouts]

    for rates in (True, False):
        source = source_of(RsDpoLossConfig(eta=0.9), rates=rates, readings=Readings(reference=reference))
        assert bool(batch_of(source).items) == rates
