from __future__ import annotations

import json
import math

import numpy as np
import pytest
from auditing.matches import drawn_matches, matches_of

from rlaif.auditing.ranking import effective_clusters, rank_by_matches, rank_by_ratings, strengths_of_sets
from rlaif.auditing.ranking_results import Matches, Ratings
from rlaif.auditing.results import json_value


def ranked(matches, **settings):
    return rank_by_matches(matches, **{"resamples": 300, "orders": 20, **settings})


def by_name(ranking):
    return {standing.name: standing for standing in ranking.standings}


def test_two_policies_by_hand():
    # 8 labels of 0.75: odds of 3, strengths of +-ln(3) / 2, 400 * log10(3) Elo points apart around 1000.
    ranking = ranked(matches_of([("a", "b", 0.7), ("a", "b", 0.8)] * 4))
    first, second = ranking.standings
    assert (first.name, second.name) == ("a", "b")
    assert first.strength.value == pytest.approx(math.log(3) / 2)
    assert first.elo.value == pytest.approx(1000 + 200 * math.log10(3))
    assert second.elo.value == pytest.approx(1000 - 200 * math.log10(3))
    assert (first.win_rate.value, first.win_rate.n) == (pytest.approx(0.75), 8)
    assert [each.rank.value for each in ranking.standings] == [1, 2]
    (pair,) = ranking.pairs
    assert (pair.first, pair.second, pair.ties, pair.win_rate.n) == ("a", "b", 0, 8)
    assert pair.strength_difference.value == pytest.approx(math.log(3))
    assert (ranking.tie_parameter.value, ranking.tie_parameter.why) == (0.0, "no row is a tie")
    assert ranking.prior_matches == 0.0
    assert ranking.notes == ()


def test_the_order_of_eight_is_found_and_intervals_hold_it():
    strengths = np.linspace(1, -1, 8)
    ranking = ranked(drawn_matches(np.random.default_rng(3), strengths, 2000, of_cluster=4))
    assert "".join(each.name for each in ranking.standings) == "abcdefgh"
    pairs = zip(ranking.standings, strengths, strict=True)
    held = [each.strength.low <= true <= each.strength.high for each, true in pairs]
    assert sum(held) >= 6
    assert all(each.rank.low <= place <= each.rank.high for place, each in enumerate(ranking.standings, 1))
    assert ranking.separability.value > 0.8
    assert sum(each.prob_best for each in ranking.standings) == pytest.approx(1)
    assert len(ranking.pairs) == 28
    for each in ranking.standings:
        online = each.online_elo
        assert online.rating.low < online.rating.value < online.rating.high
        assert online.order_low < online.rating.value < online.order_high
        assert abs(online.rating.value - each.elo.value) < 40


def test_exchanging_the_two_of_every_match_changes_nothing():
    matches = drawn_matches(np.random.default_rng(4), [0.6, 0.1, -0.7], 90, of_cluster=3, ties=0.2)
    forth, back = (json_value(ranked(each)) for each in (matches, matches.swapped()))
    assert flat(back) == pytest.approx(flat(forth), abs=1e-6)
    assert json.dumps(words(forth)) == json.dumps(words(back))


def test_names_do_not_matter():
    matches = drawn_matches(np.random.default_rng(4), [0.6, 0.1, -0.7], 60)
    turned = Matches(
        matches.items[::-1], 2 - matches.first, 2 - matches.second, matches.prob, matches.is_tie, matches.clusters
    )
    one, other = by_name(ranked(matches)), by_name(ranked(turned))
    for name in "abc":
        assert one[name].strength.value == pytest.approx(other[name].strength.value)
        assert one[name].strength.low == pytest.approx(other[name].strength.low)


def flat(value):
    """All numbers, in order."""
    if isinstance(value, dict):
        return [number for each in value.values() for number in flat(each)]
    if isinstance(value, list):
        return [number for each in value for number in flat(each)]
    return [float(value)] if isinstance(value, int | float) else []


def words(value):
    """All but the numbers."""
    if isinstance(value, dict):
        return {name: words(each) for name, each in value.items()}
    if isinstance(value, list):
        return [words(each) for each in value]
    return None if isinstance(value, int | float) else value


def test_matches_of_one_prompt_are_worth_one():
    alone = drawn_matches(np.random.default_rng(5), [0.5, 0.0, -0.5], 60)
    index = np.repeat(np.arange(60), 5)
    copied = Matches(
        alone.items, alone.first[index], alone.second[index], alone.prob[index], alone.is_tie[index], index
    )
    one, five = (by_name(ranked(each, resamples=2000)) for each in (alone, copied))
    for name in "abc":
        assert five[name].strength.value == pytest.approx(one[name].strength.value)
        assert (five[name].strength.low, five[name].strength.high) == pytest.approx(
            (one[name].strength.low, one[name].strength.high)
        )
        assert five[name].win_rate.low == pytest.approx(one[name].win_rate.low)
    assert effective_clusters(np.array([0, 0, 1, 1])) == 2.0
    assert effective_clusters(np.array([0, 0, 0, 1])) == 1.6


def test_one_that_never_loses_is_named_and_finite():
    ranking = ranked(matches_of([("best", "b", 1.0), ("best", "c", 1.0), ("b", "c", 1.0), ("c", "b", 1.0)] * 5))
    (note,) = ranking.notes
    assert note.startswith("'best' never lost to 'b', 'c': the comparisons alone would make the difference infinite")
    assert "one match more, half won and half lost" in note
    assert ranking.prior_matches == 1.0
    assert ranking.groups == (("best",), ("b", "c"))
    assert [each.rank.value for each in ranking.standings] == [1, 2, 2]
    assert 1 < ranking.standings[0].strength.value < 6
    # Soft labels, however sure, leave nothing infinite.
    assert ranked(matches_of([("best", "b", 0.99), ("best", "c", 0.99), ("b", "c", 0.6)] * 5)).notes == ()


def test_those_who_never_met_over_any_chain_have_no_ranks():
    ranking = ranked(matches_of([("a", "b", 0.8), ("a", "b", 0.7), ("c", "d", 0.6), ("d", "c", 0.3)] * 5))
    assert sorted(map(sorted, ranking.groups)) == [["a", "b"], ["c", "d"]]
    assert "nobody compared these with each other" in ranking.notes[0]
    assert all(each.rank.value is None and "no chain of comparisons" in each.rank.why for each in ranking.standings)
    assert all(each.prob_best is None for each in ranking.standings)
    assert ranking.separability.value is None
    strengths = {name: each.strength.value for name, each in by_name(ranking).items()}
    assert strengths["a"] > strengths["b"]
    assert strengths["c"] > strengths["d"]


def test_ties_alone_make_all_equal():
    ranking = ranked(matches_of([("a", "b", 0.5), ("b", "c", 0.5), ("a", "c", 0.5)] * 4))
    assert [each.rank.value for each in ranking.standings] == [1, 1, 1]
    assert [each.strength.value for each in ranking.standings] == pytest.approx([0, 0, 0])
    assert {each.strength.why for each in ranking.standings} == {"resampling has no spread"}
    assert (ranking.tie_parameter.value, ranking.tie_parameter.why) == (None, "every row is a tie")
    assert all(pair.ties == 4 for pair in ranking.pairs)
    assert ranking.separability.value == 0.0
    json.dumps(json_value(ranking), allow_nan=False)


def test_ties_have_davidsons_parameter_with_an_interval():
    rows = [("a", "b", 0.9)] * 30 + [("a", "b", 0.1)] * 30 + [("a", "b", 0.5)] * 20
    figure = ranked(matches_of(rows)).tie_parameter
    # Equals: P(tie) = nu / (2 + nu) = 20 / 80, nu = 2 / 3.
    assert figure.value == pytest.approx(2 / 3)
    assert figure.low < 2 / 3 < figure.high


@pytest.mark.parametrize("items", [(), ("only",)])
def test_one_policy_only_says_why_there_is_no_ranking(items):
    nothing = np.zeros(0, dtype=np.int64)
    empty = np.zeros(0)
    ranking = ranked(Matches(items, nothing, nothing, empty, empty.astype(bool), nothing))
    assert [each.name for each in ranking.standings] == list(items)
    assert all(each.strength.value is None and each.strength.why for each in ranking.standings)
    assert ranking.notes == ("there are fewer than two policies to compare",)


def test_one_cluster_has_values_and_no_intervals():
    ranking = ranked(matches_of([("a", "b", 0.8), ("b", "c", 0.8)], clusters=[0, 0]))
    assert [each.name for each in ranking.standings] == ["a", "b", "c"]
    assert all(each.strength.low is None and each.strength.why for each in ranking.standings)
    assert all(each.rank.low is None for each in ranking.standings)


def test_two_hundred_policies():
    rng = np.random.default_rng(6)
    strengths = rng.normal(0, 1, 200)
    first = np.repeat(np.arange(200), 15)
    second = (first + np.tile([1, 7, 31], 1000)) % 200
    prob = 1 / (1 + np.exp(strengths[second] - strengths[first] + rng.normal(0, 0.5, 3000)))
    names = tuple(f"policy {number:03}" for number in range(200))
    matches = Matches(names, first, second, prob, np.full(3000, False), np.arange(3000))
    ranking = ranked(matches, resamples=10, orders=2)
    found = [each.strength.value for each in sorted(ranking.standings, key=lambda each: each.name)]
    assert np.corrcoef(found, strengths)[0, 1] > 0.98


def test_sets_have_strengths_with_the_prior():
    def counts(rows, size):
        wins, ties = np.zeros((size, size)), np.zeros((size, size))
        for first, second, prob in rows:
            wins[first, second] += prob
            wins[second, first] += 1 - prob
        return wins, ties

    sets = [counts([(0, 1, 1.0)], 2), counts([(0, 1, 0.2), (1, 2, 0.3), (0, 2, 0.1)], 3), counts([(0, 1, 0.0)], 2)]
    strengths = strengths_of_sets(*zip(*sets, strict=True))
    # One match and one prior match each: `test_the_prior_holds_what_would_be_infinite` has the working.
    assert strengths[0] == pytest.approx([0.75631, -0.75631], abs=1e-4)
    assert strengths[2] == pytest.approx(-strengths[0])
    assert strengths[1][2] > strengths[1][1] > strengths[1][0]
    assert strengths_of_sets([], []) == []


def test_ratings_by_hand():
    # a: 8 and 6 in clusters 0 and 1; b: 4 and 6.
    ratings = Ratings(("a", "b"), np.array([0, 1, 0, 1]), np.array([8.0, 4.0, 6.0, 6.0]), np.array([0, 0, 1, 1]))
    ranking = rank_by_ratings(ratings, resamples=300)
    assert [(each.name, each.rating.value, each.rating.n) for each in ranking.standings] == [("a", 7, 2), ("b", 5, 2)]
    assert [each.rank.value for each in ranking.standings] == [1, 2]
    assert ranking.pairs == ()


def test_ratings_that_hard_prompts_share_are_still_told_apart():
    rng = np.random.default_rng(7)
    ease = rng.normal(5, 2, 100)
    score = np.stack([ease + 0.3, ease], axis=1) + rng.normal(0, 0.2, (100, 2))
    ratings = Ratings(("a", "b"), np.tile([0, 1], 100), score.ravel(), np.repeat(np.arange(100), 2))
    first, second = rank_by_ratings(ratings).standings
    assert first.rating.low < second.rating.high  # their own intervals overlap
    assert (first.rank.low, first.rank.high) == (1, 1)  # their difference is sure
    assert first.prob_best == 1.0


def test_one_policy_with_ratings():
    ranking = rank_by_ratings(Ratings(("a",), np.zeros(3, dtype=np.int64), np.array([1.0, 2, 3]), np.arange(3)))
    (standing,) = ranking.standings
    assert (standing.rating.value, standing.rank.value) == (2.0, None)
    assert ranking.separability.value is None
