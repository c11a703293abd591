"""Figures of a batch and of an evaluation, by hand."""

from __future__ import annotations

import math

import pytest

from rlaif.online.guard_figures import BatchFigures, EvaluationFigures, batch_figures, texts_of
from rlaif.online.phrases import PromptTexts
from rlaif.records import Prompt, Turn
from rlaif.rollout_records import Completion, Rollout, Score


def rollout(name: str, *texts: str, is_finished: bool = True) -> Rollout:
    prompt = Prompt(name, (Turn("system", "Be kind."), Turn("user", f"About {name}?")))
    completions = [Completion((1,) * len(text.split()), text, is_finished, ()) for text in texts]
    return Rollout(name, prompt, (1,), tuple(completions), 0)


def scores(*values: float | None) -> list[Score]:
    return [Score(value) for value in values]


def test_by_hand() -> None:
    rollouts = [rollout("a", "so nice to meet you", "no #"), rollout("b", "so nice to be here", " ", is_finished=False)]
    found = batch_figures(7, rollouts, [scores(1.0, 1.0), scores(0.0, None)], kl=0.5, entropy=2.0)
    # Tokens: 5, 2, 5, 0. Rewards: 1, 1, 0. Of the groups with two rewards, the only one has equal ones.
    assert found == BatchFigures(
        step=7,
        completions=4,
        reward=pytest.approx(2 / 3),
        reward_spread=pytest.approx(math.sqrt(2 / 9)),
        kl=0.5,
        entropy=2.0,
        tokens=3.0,
        tokens_spread=pytest.approx(math.sqrt((4 + 1 + 4 + 9) / 4)),
        truncated=0.5,
        repeated=0.0,
        junk=0.25,
        empty=0.25,
        phrase="so nice to",
        phrase_share=0.5,
        dropped=1,
        silent_groups=1.0,
    )
    assert "phrase" not in found.numbers()
    assert found.numbers()["phrase_share"] == 0.5


def test_single_completions_are_compared_with_each_other() -> None:
    rollouts = [rollout("a", "x"), rollout("b", "y")]
    assert batch_figures(1, rollouts, [scores(0.3), scores(0.3)]).silent_groups == 1.0
    assert batch_figures(1, rollouts, [scores(0.3), scores(0.4)]).silent_groups == 0.0
    assert batch_figures(1, rollouts, [scores(0.3), scores(None)]).silent_groups is None


def test_a_batch_without_any_reward() -> None:
    found = batch_figures(1, [rollout("a", "x")], [scores(None)])
    assert (found.reward, found.reward_spread, found.dropped, found.silent_groups) == (None, None, 1, None)


def test_the_whole_conversation_is_the_prompts_text() -> None:
    assert texts_of([rollout("a", "x", "y")]) == [PromptTexts("Be kind.\nAbout a?", ("x", "y"))]
    assert texts_of([rollout("a", "x", "y")], [(Score(1.0), Score(None))])[0].rewards == (1.0, None)


def test_what_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="kl of step 3 is nan; expected a finite number, or None"):
        BatchFigures(3, kl=math.nan)
    with pytest.raises(ValueError, match="watched_reward of step 3 is inf"):
        EvaluationFigures(3, watched_reward=math.inf, watched_error=0.1)
    with pytest.raises(ValueError, match="step 3 has win_rate without win_low"):
        EvaluationFigures(3, win_rate=0.5)
