"""Evaluations of a policy on held-out prompts: which figures there are, and what they are. No model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from rlaif.online.assessing import Assessed
from rlaif.online.guard_config import GuardConfig
from rlaif.online.guard_figures import EvaluationFigures
from rlaif.online.guard_signs import Sign
from rlaif.online.kept import KeptRollouts
from rlaif.online.recipes import make_recipe
from rlaif.online.source import Batch, Readings, RolloutSource
from rlaif.online.visits import Visits
from rlaif.online.watching import START, Evaluator, GuardedListener, Watched
from rlaif.train.experience import RunningSpread
from rlaif.train.online_config import GrpoLossConfig, RolloutConfig
from tests.online.made_rollouts import DrawingGenerator, TextScoring, prompt_row

ROWS = [prompt_row(number) for number in range(12)]
SAMPLED = RolloutConfig(response_tokens=3, rollout_temperature=1.0)


def less_sure(rollouts: Any) -> list[Assessed]:
    """The start, whose log-probabilities are lower by 0.2 a token."""
    return [Assessed(tuple(tuple(x - 0.2 for x in one.logprobs) for one in each.completions)) for each in rollouts]


class Better(DrawingGenerator):
    """Writes as at the start, but for the first token of some prompts, which is a 9."""

    share = 0.0

    def _write(self, job: Any) -> Any:
        written = super()._write(job)
        if job.prompt_ids[0] - 90 < self.share * len(ROWS):
            return replace_first(written)
        return written


def replace_first(written: Any) -> Any:
    return written._replace(ids=(9, *written.ids[1:]))


def evaluator_of(
    folder: Path, *, judge: TextScoring | None = None, compares: TextScoring | None = None, **keywords: Any
) -> tuple[Evaluator, Better, TextScoring]:
    rewards, generator = keywords.pop("rewards", TextScoring()), Better()
    watched = Watched(rewards, judge, compares or judge, less_sure)
    evaluator = Evaluator(
        ROWS, generator, watched, SAMPLED, decode=lambda ids: " ".join(map(str, ids)), folder=folder, seed=2,
        pairs=judge is not None,
    )  # fmt: skip
    return evaluator, generator, rewards


def test_rewards_lengths_and_divergence_are_means_over_the_prompts(tmp_path: Path) -> None:
    evaluator, generator, rewards = evaluator_of(tmp_path)
    guarded, found = evaluator.evaluate(0)
    assert len(generator.jobs) == 12
    values = [rewards.worth(each.completions[0].text) or 0.0 for each in rewards.asked]
    mean = sum(values) / 12
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 11)
    tokens = sum(len(each.completions[0].ids) for each in rewards.asked) / 12
    assert found == {
        "reward": pytest.approx(mean),
        "reward_error": pytest.approx(deviation / math.sqrt(12)),
        "completion_tokens": tokens,
        "kl": pytest.approx(0.2 * tokens),
    }
    assert guarded == EvaluationFigures(0, kl=found["kl"])  # what is trained on is no proof


def test_the_draws_are_the_same_each_time(tmp_path: Path) -> None:
    evaluator, generator, _ = evaluator_of(tmp_path)
    for step in (0, 5):
        evaluator.evaluate(step)
    assert generator.jobs[:12] == generator.jobs[12:]


def test_the_win_rate_is_against_the_start_also_after_a_resume(tmp_path: Path) -> None:
    """A quarter of the prompts is answered better, and the rest as before, which is a tie: 0.25 + 0.75 / 2."""
    judge = TextScoring()
    evaluator, generator, _ = evaluator_of(tmp_path, compares=judge)
    assert "win_rate" not in evaluator.evaluate(0)[1]
    evaluator, generator, _ = evaluator_of(tmp_path, compares=judge)
    generator.share = 0.25
    guarded, found = evaluator.evaluate(4)
    changed = [each for each in judge.asked if each.completions[0].text != each.completions[1].text]
    assert 1 <= len(changed) <= 3  # an answer that began with 9 already is a tie
    assert found["win_rate"] == pytest.approx((len(changed) + 0.5 * (12 - len(changed))) / 12)
    assert found["win_low"] <= found["win_rate"] <= found["win_high"]
    assert guarded.win_rate == found["win_rate"]


def test_without_the_start_there_is_no_win_rate(tmp_path: Path) -> None:
    evaluator, _, _ = evaluator_of(tmp_path, compares=TextScoring())
    evaluator.evaluate(0)
    (tmp_path / "evaluations" / START).unlink()
    assert "win_rate" not in evaluator.evaluate(3)[1]


@pytest.mark.parametrize(("sign", "accuracy"), [(1.0, 1.0), (-1.0, 0.0)])
def test_rewards_are_held_against_the_judge_on_pairs_of_answers(sign: float, accuracy: float, tmp_path: Path) -> None:
    """How often what is trained on and the held-out judge order two answers alike: a reward that grows stale falls."""
    judge = TextScoring(lambda text: sign * float(text.split()[0]) if text else 0.0)
    evaluator, generator, _ = evaluator_of(tmp_path, judge=judge)
    guarded, found = evaluator.evaluate(2)
    assert len(generator.jobs) == 24
    assert found["reward_accuracy"] == accuracy
    assert 0.0 < found["reward_accuracy_error"] < 0.3
    assert found["watched_reward"] * sign > 0
    assert guarded.watched_reward == found["watched_reward"]
    assert guarded.reward_accuracy == accuracy


def test_answers_without_a_reward_are_left_out_of_the_mean(tmp_path: Path) -> None:
    scoring = TextScoring(lambda text: None if text.startswith(("1", "2", "3", "4")) else 1.0)
    evaluator, _, _ = evaluator_of(tmp_path, rewards=scoring)
    assert evaluator.evaluate(0)[1]["reward"] == 1.0
    nothing = TextScoring(lambda text: None)
    evaluator, _, _ = evaluator_of(tmp_path, rewards=nothing)
    assert "reward" not in evaluator.evaluate(0)[1]


def test_what_was_said_is_kept(tmp_path: Path) -> None:
    evaluator, _, rewards = evaluator_of(tmp_path)
    evaluator.evaluate(7)
    lines = (tmp_path / "evaluations" / "step-000007.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["id"] for row in rows] == [row.prompt.id for row in ROWS]
    assert [row["response"] for row in rows] == [each.completions[0].text for each in rewards.asked]
    assert rows[0]["prompt"] == [{"role": "user", "content": "Do 0"}]
    assert {row["step"] for row in rows} == {7}


# Guard rails.


def batch_of(step: int, text: str | None = None) -> Batch:
    recipe = make_recipe(GrpoLossConfig(), SAMPLED, seed=0)

    def decode(ids: Any) -> str:
        return text if text is not None else " ".join(map(str, ids))

    source = RolloutSource(
        Visits(ROWS, 0), DrawingGenerator(), TextScoring(lambda _: 0.1 * step), recipe, Readings(), SAMPLED,
        group_size=2, decode=decode, rates=False, seed=0,
    )  # fmt: skip
    begun = source.begin(range(12 * step, 12 * step + 12), step)
    return source.finish(begun, number=step, step=step, beta=0.0, spread=RunningSpread(), more=never)


def never(prompts: int) -> Any:
    raise AssertionError


def test_batches_are_kept_and_shown_to_the_guard_rails_whose_state_goes_through_a_resume(tmp_path: Path) -> None:
    def listener(signs: list[Sign]) -> GuardedListener:
        return GuardedListener(GuardConfig(), KeptRollouts(tmp_path, 3, 0), signs.append)

    whole_signs: list[Sign] = []
    whole = listener(whole_signs)
    texts = [None] * 6 + ["as an answer I say that this is the very best"] * 6
    for step, text in enumerate(texts):
        whole.on_batch(step, step, batch_of(step, text))
    assert len(list((tmp_path / "rollouts" / "data").iterdir())) == 12
    assert whole_signs
    assert whole.signs == whole_signs
    for stop in (3, 7, 10):
        signs: list[Sign] = []
        first, second = listener(signs), listener(signs)
        for step in range(stop):
            first.on_batch(step, step, batch_of(step, texts[step]))
        second.take_up(json.loads(json.dumps(first.as_json())))
        for step in range(stop, 12):
            second.on_batch(step, step, batch_of(step, texts[step]))
        assert second.signs == whole.signs == signs
        assert second.as_json() == whole.as_json()


def test_no_state_is_a_fresh_start(tmp_path: Path) -> None:
    listener = GuardedListener(GuardConfig(), KeptRollouts(tmp_path, 0, 0), pytest.fail)
    listener.take_up(None)
    assert listener.signs == []
