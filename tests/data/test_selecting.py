from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.selecting import (
    SelectionOptions,
    all_pairs,
    best_and_worst,
    best_of,
    best_of_n_kl,
    first_round_pairs,
    preference,
    rejection_sample,
    rs_dpo_pairs,
    select_pairs,
)

SCORES = st.lists(st.floats(-20, 20, allow_nan=False), min_size=1, max_size=12)


def total_variation(counts: Counter[int], expected: list[float]) -> float:
    total = sum(counts.values())
    return sum(abs(counts[value] / total - prob) for value, prob in enumerate(expected)) / 2


class TestRsDpo:
    """METHODS row 40: the pair set is all pairs with sigma(delta / tau) >= eta."""

    def test_by_hand(self) -> None:
        # ratings 9, 7, 6.5, 9: differences 2, 2.5, 0, 0.5, 2, 2.5; sigmoids .881, .924, .5, .622, .881, .924
        scores = [9.0, 7.0, 6.5, 9.0]
        assert rs_dpo_pairs(scores, eta=0.85, tau=1.0) == ((0, 1), (0, 2), (1, 3), (2, 3))
        assert rs_dpo_pairs(scores, eta=0.9, tau=1.0) == ((0, 2), (2, 3))
        # at tau 2: .731, .777, .5, .562
        assert rs_dpo_pairs(scores, eta=0.75, tau=2.0) == ((0, 2), (2, 3))
        assert rs_dpo_pairs(scores, eta=0.95, tau=1.0) == ()

    def test_the_threshold_itself_passes(self) -> None:
        assert rs_dpo_pairs([1.0, 0.0], eta=preference(1.0, 0.0), tau=1.0) == ((0, 1),)

    def test_rewards_of_the_judge_scale_never_pass(self) -> None:
        # in [-1, 1] the largest difference is 2: 0.8808
        assert rs_dpo_pairs([-1.0, 1.0], eta=0.89, tau=1.0) == ()

    @given(SCORES, st.floats(0.5, 1.0), st.floats(0.01, 10.0))
    def test_as_the_rule_says_and_blind_to_order(self, scores: list[float], eta: float, tau: float) -> None:
        found = set(rs_dpo_pairs(scores, eta, tau))
        for first, second in all_pairs(len(scores)):
            largest = max(
                preference(scores[first], scores[second], tau), preference(scores[second], scores[first], tau)
            )
            assert ((first, second) in found) == (largest >= eta)
        last = len(scores) - 1
        turned = {(last - second, last - first) for first, second in rs_dpo_pairs(scores[::-1], eta, tau)}
        assert found == turned


class TestRejectionSample:
    """METHODS row 41: what is accepted is distributed as the policy times e^(r / beta)."""

    POLICY = (0.5, 0.3, 0.15, 0.05)
    REWARDS = (0.0, 0.5, 1.0, 1.5)

    @pytest.mark.parametrize("beta", [0.25, 0.5, 2.0])
    def test_accepted_follow_the_optimal_policy(self, beta: float) -> None:
        # Of 256 candidates few are kept, so that not replacing those accepted and the highest score of the sample,
        # here always that of the whole policy but once in 500,000, make no difference.
        weights = [prob * math.exp(reward / beta) for prob, reward in zip(self.POLICY, self.REWARDS, strict=True)]
        optimal = [weight / sum(weights) for weight in weights]
        rng = random.Random(0)
        counts: Counter[int] = Counter()
        for _ in range(1500):
            values = rng.choices(range(4), self.POLICY, k=256)
            accepted = rejection_sample([self.REWARDS[value] for value in values], beta, 4, rng)
            assert len(accepted) == len(set(accepted)) == 4
            counts.update(values[place] for place in accepted)
        assert total_variation(counts, optimal) < 0.02
        assert total_variation(counts, list(self.POLICY)) > 0.05

    def test_small_beta_is_the_best_of_n(self) -> None:
        scores = [3.0, 9.0, 1.0, 7.0, 8.0]
        assert rejection_sample(scores, 1e-9, 1, random.Random(0)) == (best_of(scores),)
        assert rejection_sample(scores, 1e-9, 3, random.Random(0)) == (1, 4, 3)
        assert rejection_sample(scores, 5e-324, 2, random.Random(0)) == (1, 4)

    def test_large_beta_takes_them_as_they_come(self) -> None:
        assert rejection_sample([3.0, 9.0, 1.0, 7.0], 1e12, 3, random.Random(0)) == (0, 1, 2)

    @given(SCORES, st.floats(1e-6, 1e6), st.integers(1, 20), st.integers())
    def test_each_once_and_as_many_as_there_are(self, scores: list[float], beta: float, keep: int, seed: int) -> None:
        accepted = rejection_sample(scores, beta, keep, random.Random(seed))
        assert len(set(accepted)) == len(accepted) == min(keep, len(scores))
        shifted = rejection_sample([score + 4.0 for score in scores], beta, keep, random.Random(seed))
        assert len(shifted) == len(accepted)

    def test_none(self) -> None:
        assert rejection_sample([], 0.5, 8, random.Random(0)) == ()


class TestFirstRound:
    @given(st.integers(0, 9), st.integers())
    def test_each_in_one_pair(self, count: int, seed: int) -> None:
        pairs = first_round_pairs(range(count), random.Random(seed))
        used = [place for pair in pairs for place in pair]
        assert len(pairs) == count // 2
        assert len(set(used)) == len(used)
        assert all(first < second for first, second in pairs)

    def test_every_partner_is_as_likely(self) -> None:
        rng = random.Random(0)
        partners = Counter(next(b for a, b in first_round_pairs(range(4), rng) if a == 0) for _ in range(3000))
        assert total_variation(partners, [0.0, 1 / 3, 1 / 3, 1 / 3]) < 0.03


class TestBestOfN:
    """METHODS row 39."""

    def test_the_mean_rises_with_n(self) -> None:
        rng = random.Random(0)
        means = []
        for n in (1, 2, 4, 8, 16):
            draws = [[rng.gauss(0, 1) for _ in range(n)] for _ in range(2000)]
            means.append(sum(scores[best_of(scores)] for scores in draws) / len(draws))
        # means of the largest of n from a standard normal: 0, 0.564, 1.029, 1.424, 1.766
        assert means == pytest.approx([0.0, 0.564, 1.029, 1.424, 1.766], abs=0.06)
        assert means == sorted(means)

    @pytest.mark.parametrize("n", [1, 2, 4, 16])
    def test_distance(self, n: int) -> None:
        # With quantile u uniform in [0, 1], the best of n has density n u^(n - 1); KL is the integral of it times its
        # log, by the midpoint rule.
        steps = 100_000
        densities = [n * ((step + 0.5) / steps) ** (n - 1) for step in range(steps)]
        assert sum(each * math.log(each) for each in densities) / steps == pytest.approx(best_of_n_kl(n), abs=1e-3)

    def test_the_first_of_equal_ones(self) -> None:
        assert best_of([1.0, 2.0, 2.0]) == 1

    def test_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            best_of_n_kl(0)
        with pytest.raises(ValueError, match="empty"):
            best_of([])


class TestBestAndWorst:
    def test_by_hand(self) -> None:
        assert best_and_worst([3.0, 9.0, 1.0, 9.0, 1.0]) == (1, 2)
        assert best_and_worst([1.0, 9.0]) == (0, 1)

    @pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0, 2.0]])
    def test_nothing_to_tell_apart(self, scores: list[float]) -> None:
        assert best_and_worst(scores) is None


class TestSelect:
    SCORES = (9.0, 7.0, 6.5, 9.0, 2.0)

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            (SelectionOptions("all"), 10),
            (SelectionOptions("best-worst"), 1),
            (SelectionOptions("rs-dpo", eta=0.9), 6),  # (9, 6.5) twice, and 2 against the four others
            (SelectionOptions("rso", keep=4), 2),
            (SelectionOptions("rso", keep=8), 2),
        ],
    )
    def test_how_many(self, options: SelectionOptions, expected: int) -> None:
        assert len(select_pairs(self.SCORES, options, random.Random(0)).pairs) == expected

    def test_an_odd_one_is_left_over(self) -> None:
        assert select_pairs(self.SCORES, SelectionOptions("rso", keep=8), random.Random(0)).left_over == 1
        assert select_pairs(self.SCORES, SelectionOptions("rso", keep=4), random.Random(0)).left_over == 0


@given(st.floats(-1e300, 1e300), st.floats(-1e300, 1e300), st.floats(1e-300, 1e6))
def test_preference_of_exchanged_scores(score_a: float, score_b: float, tau: float) -> None:
    assert preference(score_a, score_b, tau) == pytest.approx(1.0 - preference(score_b, score_a, tau))
