"""What is a sign and what is noise, one by one, with numbers worked by hand."""

from __future__ import annotations

import math

import pytest

from rlaif.online import guard_signs as signs
from rlaif.online.drift import Series
from rlaif.online.guard_signs import Estimate, Evaluation, Finding


def series_of(start: float, now: float, noise: float = 0.0) -> Series:
    """Five values around `start`, then eight around `now`."""
    series = Series()
    for place in range(13):
        series.add((start if place < 5 else now) + noise * (-1) ** place)
    return series


def test_a_share_counts_by_its_rise_and_by_its_noise() -> None:
    found = signs.share_risen(series_of(0.1, 0.4), 0.15, 32, "go in circles")
    assert found.effect == pytest.approx(2.0)
    assert found.is_sign
    assert found.seen == "40 % of the completions go in circles (10 % at the start)"
    assert not signs.share_risen(series_of(0.1, 0.2), 0.15, 32, "go in circles").is_sign  # too small to matter
    assert not signs.share_risen(series_of(0.1, 0.4, noise=0.3), 0.15, 32, "go in circles").is_sign  # too noisy
    assert signs.share_risen(series_of(0.4, 0.1), 0.15, 32, "go in circles").effect < 0


def test_few_completions_are_noisy_even_where_the_values_are_not() -> None:
    assert signs.share_risen(series_of(0.0, 0.26), 0.2, 64, "x").is_sign
    assert not signs.share_risen(series_of(0.0, 0.26), 0.2, 1, "x").is_sign


@pytest.mark.parametrize(("now", "is_sign"), [(41.0, True), (9.0, True), (30.0, False), (12.0, False)])
def test_length_counts_both_ways_from_a_factor_of_two(now: float, is_sign: bool) -> None:
    reward = series_of(0.0, 0.5, 0.05)
    assert signs.length_changed(series_of(20.0, now, 0.5), reward).is_sign is is_sign


def test_length_without_reward_is_no_sign() -> None:
    tokens = series_of(20.0, 60.0, 0.5)
    assert signs.length_changed(tokens, series_of(0.0, 0.5, 0.05)).is_sign
    assert not signs.length_changed(tokens, series_of(0.0, 0.0, 0.05)).is_sign
    assert not signs.length_changed(tokens, series_of(0.5, 0.0, 0.05)).is_sign
    assert signs.length_changed(series_of(0.0, 0.0), series_of(0.0, 1.0)) == signs.NOTHING


def test_entropy_counts_from_a_fifth() -> None:
    assert signs.entropy_collapsed(series_of(2.0, 0.3, 0.05)).is_sign
    assert not signs.entropy_collapsed(series_of(2.0, 0.5, 0.05)).is_sign
    assert signs.entropy_collapsed(series_of(2.0, 0.4)).effect == pytest.approx(1.0)
    assert signs.entropy_collapsed(series_of(2.0, 0.0)).is_sign
    assert not signs.entropy_collapsed(series_of(0.3, 2.0)).is_sign


def test_the_budget_of_divergence_follows_the_length() -> None:
    assert signs.kl_exceeded(12.0, series_of(20.0, 20.0), None).effect == pytest.approx(1.2)  # 10 at least
    assert signs.kl_exceeded(12.0, series_of(200.0, 20.0), None).effect == pytest.approx(12 / 50)  # 0.25 a token
    assert signs.kl_exceeded(12.0, series_of(200.0, 20.0), 6.0).effect == pytest.approx(2.0)


def test_most_prompts_without_a_signal() -> None:
    assert signs.groups_silent(series_of(0.1, 0.9), 32).is_sign
    assert not signs.groups_silent(series_of(0.1, 0.55), 32).is_sign
    assert not signs.groups_silent(series_of(0.1, 0.62), 4).is_sign


def test_a_phrase_that_is_paid_for_counts_by_its_rise() -> None:
    assert signs.phrase_spread(0.0, 0.6, (40, 64), "thank you so", pay=0.5).is_sign
    assert not signs.phrase_spread(0.3, 0.6, (40, 64), "thank you so", pay=0.5).is_sign
    # (0.6 * 4 + 1) / 6 = 0.57: two prompts a side are no certainty.
    assert not signs.phrase_spread(0.0, 0.6, (2, 4), "thank you so", pay=0.5).is_sign


def test_a_favourite_that_is_not_paid_for_is_no_sign_until_nearly_all_have_it() -> None:
    assert not signs.phrase_spread(0.0, 0.6, (40, 64), "thank you so", pay=0.4, gain=0.2).is_sign
    found = signs.phrase_spread(0.0, 0.8, (40, 64), "thank you so", pay=-0.4, gain=-0.2)
    assert found.is_sign
    assert found.seen == (
        '80 % of the completions, to different prompts, say "thank you so" (0 % at the start), with rewards that are '
        "0.20 lower than without"
    )


def evaluations(*watched: float, error: float = 0.05) -> list[Evaluation]:
    return [Evaluation(10 * place, value, error, 0.1 * place, 0.02) for place, value in enumerate(watched)]


def test_the_watched_reward_falls_while_the_other_rises() -> None:
    start = Estimate(0.0, 0.02)
    # 0.5 over sqrt(2) * 0.05 is 7.07 standard errors.
    found = signs.watched_fell(evaluations(0.6, 0.1), start)
    assert found.effect == pytest.approx(0.5 / (math.sqrt(2) * 0.05) / 3.5)
    assert found.is_sign
    assert found.seen == (
        "since step 0 the reward that is trained on rose from 0.00 to 0.10, and the watched one fell from 0.60 to 0.10"
    )
    assert not signs.watched_fell(evaluations(0.6, 0.5), start).is_sign
    assert not signs.watched_fell(evaluations(0.1, 0.6), start).is_sign
    assert not signs.watched_fell(evaluations(0.6), start).is_sign


def test_it_may_have_risen_first() -> None:
    found = signs.watched_fell(evaluations(0.1, 0.4, 0.7, 0.4, 0.35), Estimate(0.0, 0.02))
    assert found.is_sign
    assert "since step 20" in found.seen


def test_where_both_fall_nothing_is_gamed() -> None:
    falling = [Evaluation(10 * place, 0.6 - 0.3 * place, 0.05, -0.1 * place, 0.02) for place in range(3)]
    assert not signs.watched_fell(falling, Estimate(0.0, 0.02)).is_sign


def test_an_evaluation_before_the_first_batch_stands_beside_the_start() -> None:
    first = Evaluation(0, 0.6, 0.05, None, None)
    later = Evaluation(20, 0.1, 0.05, 0.5, 0.02)
    assert signs.watched_fell([first, later], Estimate(0.1, 0.02)).is_sign
    assert not signs.watched_fell([first, later], Estimate(0.6, 0.02)).is_sign
    assert not signs.watched_fell([first, later._replace(reward=None)], None).is_sign


def test_without_an_error_nothing_is_sure() -> None:
    start = Estimate(0.0, 0.02)
    assert signs.watched_fell(evaluations(0.6, 0.1, error=0.0), start) == signs.NOTHING
    first, second = evaluations(0.6, 0.1)
    assert signs.watched_fell([first._replace(watched_error=0.0), second], start) == signs.watched_fell(
        [first, second], start
    )
    assert signs.win_rate_low([Estimate(0.0, 0.0)], series_of(0.0, 0.5, 0.05)) == signs.NOTHING
    assert signs.accuracy_fell([Estimate(1.0, 0.0)] * 2 + [Estimate(0.0, 0.0)]) == signs.NOTHING


def test_the_starts_answers_are_preferred_though_the_reward_rose() -> None:
    reward = series_of(0.0, 0.5, 0.05)
    # (0.5 - 0.3) / 0.04 = 5 standard errors, 4 are enough.
    assert signs.win_rate_low([Estimate(0.3, 0.04)], reward).effect == pytest.approx(1.25)
    assert signs.win_rate_low([Estimate(0.3, 0.04)], reward).is_sign
    assert not signs.win_rate_low([Estimate(0.3, 0.04)], series_of(0.0, 0.0, 0.05)).is_sign
    assert not signs.win_rate_low([Estimate(0.3, 0.08)], reward).is_sign
    # Three of them: 0.2 / (0.08 / sqrt(3)) = 4.33.
    assert signs.win_rate_low([Estimate(0.3, 0.08)] * 3, reward).effect == pytest.approx(4.33 / 4, rel=1e-3)
    assert not signs.win_rate_low([Estimate(0.6, 0.02)] * 3, reward).is_sign


def test_a_reward_gone_stale() -> None:
    # First 0.8, the mean of two, then 0.5 once: 0.3 over 0.05 * sqrt(1 / 2 + 1) is 4.9 standard errors, 3.5 are enough.
    first = [Estimate(0.75, 0.05), Estimate(0.85, 0.05)]
    found = signs.accuracy_fell([*first, Estimate(0.5, 0.05)])
    assert found.effect == pytest.approx(2.0)
    assert found.certainty == pytest.approx(0.3 / (0.05 * math.sqrt(1 / 2 + 1)) / 3.5)
    assert found.is_sign
    assert not signs.accuracy_fell([*first, Estimate(0.6, 0.05)]).is_sign
    assert signs.accuracy_fell([*first, *[Estimate(0.6, 0.05)] * 3]).is_sign
    assert not signs.accuracy_fell([*first, *[Estimate(0.7, 0.01)] * 3]).is_sign  # a fall of 0.15 matters
    assert signs.accuracy_fell(first) == signs.NOTHING


def test_every_sign_says_what_it_may_mean_and_nothing_that_a_terminal_obeys() -> None:
    for name in signs.SIGNS:
        sign = signs.sign(name, 3, Finding(1.0, 1.0, 'say "\x1b[2J\u202e"'))
        assert "\x1b" not in sign.text
        assert "\u202e" not in sign.text
        assert sign.text.startswith('say "\\x1b[2J\\u202e"; ')
        assert len(sign.text) > 60
    assert [name for name in signs.SIGNS if not signs.Sign(name, 0, "").is_hack] == [
        "entropy-collapse",
        "kl",
        "constant",
    ]
