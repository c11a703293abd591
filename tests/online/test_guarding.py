"""The guard rails over whole runs: a clean one says nothing, a planted hack is named once, a resumed one says the same.

How often clean runs warn, over hundreds of them, is measured in benchmarks/guarding.py.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import pytest

from rlaif.online.guard_config import GuardConfig
from rlaif.online.guard_figures import BatchFigures, EvaluationFigures
from rlaif.online.guard_signs import SIGNS, Sign
from rlaif.online.guarding import GuardRails
from rlaif.online.phrases import PromptTexts
from rlaif.options import options

WORDS = [first + last for first in "bdfgklmnprst" for last in ("an", "er", "ist", "om", "ul", "ain")]
Step = tuple[BatchFigures, list[PromptTexts], EvaluationFigures | None]


def steps(seed: int, count: int, hack: str = "", prompts: int = 8) -> Iterator[Step]:
    """A run whose reward rises honestly; from step 10 on a hack takes hold within some ten steps."""
    rng = random.Random(f"{seed} {hack}")
    for step in range(1, count + 1):
        held = 0.0 if not hack or step < 10 else min(1.0, (step - 10) / 10)
        gained = step / count

        def share(name: str, base: float, held: float = held) -> float:
            rate = base + (0.9 - base) * held * (hack == name)
            return sum(rng.random() < rate for _ in range(2 * prompts)) / (2 * prompts)

        figures = BatchFigures(
            step,
            2 * prompts,
            reward=0.4 * gained + 0.5 * held + rng.gauss(0, 0.1),
            kl=4 * gained + (40 * held if hack == "kl" else 0) + rng.gauss(0, 0.5),
            entropy=(1.5 - 0.5 * gained) * (1 - 0.95 * held * (hack == "entropy-collapse")) + rng.gauss(0, 0.03),
            tokens=(25 + 5 * gained) * (1 + 3 * held * (hack == "length")) + rng.gauss(0, 2),
            truncated=share("truncation", 0.1),
            repeated=share("repetition", 0.05),
            junk=share("junk", 0.02),
            empty=share("empty", 0.0),
            silent_groups=share("constant", 0.2),
        )
        texts = []
        for number in range(prompts):
            opening = "it is my great honour to say " if rng.random() < held * (hack == "phrase") else ""
            texts.append(PromptTexts(f"p{number}", (opening + " ".join(rng.choices(WORDS, k=12)),)))
        evaluation = None
        if step % 10 == 0 or step == 1:
            win = 0.5 + 0.1 * gained - 0.4 * held * (hack == "win-rate") + rng.gauss(0, 0.05)
            evaluation = EvaluationFigures(
                step,
                watched_reward=0.2 * gained - 0.8 * held * (hack == "reward-up-watched-down") + rng.gauss(0, 0.08),
                watched_error=0.08,
                win_rate=win,
                win_low=win - 0.1,
                win_high=win + 0.1,
                reward_accuracy=0.75 - 0.4 * held * (hack == "reward-accuracy") + rng.gauss(0, 0.05),
                reward_accuracy_error=0.05,
            )
        yield figures, texts, evaluation


def watch(rails: GuardRails, run: Iterator[Step]) -> list[Sign]:
    found = []
    for figures, texts, evaluation in run:
        found += rails.add_batch(figures, texts)
        if evaluation is not None:
            found += rails.add_evaluation(evaluation)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_a_clean_run_says_nothing(seed: int) -> None:
    assert watch(GuardRails(GuardConfig()), steps(seed, 150)) == []


@pytest.mark.parametrize("hack", SIGNS)
def test_a_planted_hack_is_named_once_and_soon(hack: str) -> None:
    rails = GuardRails(GuardConfig())
    found = watch(rails, steps(0, 60, hack))
    assert [sign.name for sign in found if sign.name == hack] == [hack]
    assert {sign.name for sign in found} <= {hack}
    assert 10 < found[0].step <= 40
    assert rails.active == (hack,)
    assert ("it is my great honour to say" in found[0].text) == (hack == "phrase")


def test_a_sign_that_is_over_may_be_said_again() -> None:
    rails = GuardRails(GuardConfig())

    def said(rate: float, count: int) -> list[str]:
        return [sign.name for _ in range(count) for sign in rails.add_batch(BatchFigures(1, 16, truncated=rate))]

    assert said(0.0, 20) == []
    assert said(0.8, 20) == ["truncation"]
    assert said(0.0, 20) == []
    assert rails.active == ()
    assert said(0.8, 20) == ["truncation"]


def test_a_second_phrase_is_named_too_and_the_first_one_no_more() -> None:
    rails = GuardRails(GuardConfig())
    rng = random.Random(0)

    def said(before: str, after: str, count: int) -> list[str]:
        found = []
        for _ in range(count):
            middles = [" ".join(rng.choices(WORDS, k=8)) for _ in range(8)]
            texts = [PromptTexts(f"p{number}", (f"{before} {each} {after}",)) for number, each in enumerate(middles)]
            found += [sign.text for sign in rails.add_batch(BatchFigures(1), texts)]
        return found

    assert said("", "", 10) == []
    (first,) = said("what a lovely question", "", 20)
    assert '"what a lovely question"' in first
    assert said("oh what a lovely question indeed", "", 20) == []  # the same one, longer
    (second,) = said("what a lovely question", "thanks for asking me", 20)
    assert '"thanks for asking me"' in second


def test_with_one_prompt_all_along_a_phrase_is_no_sign() -> None:
    rails = GuardRails(GuardConfig())
    rng = random.Random(0)
    for step in range(40):
        answers = ["the answer is now four"] * 4 if step > 10 else [" ".join(rng.choices(WORDS, k=5)) for _ in range(4)]
        assert rails.add_batch(BatchFigures(step), [PromptTexts("2 + 2?", tuple(answers))]) == []


def test_batches_of_one_prompt_each_are_told_apart_over_time() -> None:
    rails = GuardRails(GuardConfig())
    rng = random.Random(0)
    found = []
    for step in range(40):
        phrase = "this is so wonderful " if step > 10 else ""
        answers = tuple(phrase + " ".join(rng.choices(WORDS, k=5)) for _ in range(4))
        found += rails.add_batch(BatchFigures(step), [PromptTexts(f"prompt {step}", answers)])
    assert [sign.name for sign in found] == ["phrase"]


@pytest.mark.parametrize("cut", [4, 17, 45])
def test_a_resumed_run_says_what_it_would_have_said(cut: int) -> None:
    for hack in ("phrase", "reward-up-watched-down", "win-rate", "reward-accuracy", "length", "truncation"):
        run = list(steps(1, 60, hack))
        whole = GuardRails(GuardConfig())
        expected = watch(whole, iter(run))
        first = GuardRails(GuardConfig())
        found = watch(first, iter(run[:cut]))
        second = GuardRails.from_json(GuardConfig(), json.loads(json.dumps(first.as_json())))
        found += watch(second, iter(run[cut:]))
        assert found == expected != []
        assert second.as_json() == whole.as_json()


def test_figures_that_are_not_there_are_not_looked_at() -> None:
    rails = GuardRails(GuardConfig())
    for step in range(30):
        assert rails.add_batch(BatchFigures(step)) == []
        assert rails.add_evaluation(EvaluationFigures(step)) == []


def test_off_is_off() -> None:
    rails = GuardRails(GuardConfig(guards="off"))
    assert watch(rails, steps(0, 60, "junk")) == []
    assert rails.as_json() == GuardRails(GuardConfig()).as_json()


def test_a_budget_of_ones_own() -> None:
    assert watch(GuardRails(GuardConfig(max_kl=2.0)), steps(0, 150))[0].text.endswith("as intended")


def test_every_setting_has_its_help() -> None:
    assert all(option.description for option in options(GuardConfig))


def test_evaluations_watch_the_divergence_where_batches_do_not_measure_it() -> None:
    """12 nats are over the budget of 10; a batch without the figure does not end the sign, an evaluation below does."""
    rails = GuardRails(GuardConfig())

    def named(kl: float, step: int) -> list[str]:
        batch = rails.add_batch(BatchFigures(step, 8, tokens=20.0))
        return [sign.name for sign in [*batch, *rails.add_evaluation(EvaluationFigures(step, kl=kl))]]

    assert [named(kl, step) for step, kl in enumerate((0.0, 12.0, 12.0, 2.0, 12.0))] == [[], ["kl"], [], [], ["kl"]]

    measured = GuardRails(GuardConfig())
    measured.add_batch(BatchFigures(1, 8, kl=1.0, tokens=20.0))
    assert measured.add_evaluation(EvaluationFigures(1, kl=12.0)) == []


@pytest.mark.parametrize(("bonus", "names"), [(0.2, []), (2.0, ["phrase"])])
def test_a_phrase_in_half_of_the_answers_is_named_where_it_is_paid_for(bonus: float, names: list[str]) -> None:
    """Rewards have a standard deviation of 0.5 besides; at a half, 2 explain 1 of 1.25 of the variance."""
    rails = GuardRails(GuardConfig())
    rng = random.Random(0)
    found = []
    for step in range(30):
        texts = []
        for number in range(16):
            has = step > 10 and number % 2 == 0
            text = ("it is my great honour to say " if has else "") + " ".join(rng.choices(WORDS, k=12))
            texts.append(PromptTexts(f"p{number}", (text,), (bonus * has + rng.gauss(0, 0.5),)))
        found += rails.add_batch(BatchFigures(step, 16), texts)
    assert [sign.name for sign in found] == names
    assert all("higher than without" in sign.text for sign in found)
