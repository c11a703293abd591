from __future__ import annotations

import numpy as np
from auditing.matches import drawn_matches, matches_of

from rlaif.auditing.ranking import rank_by_matches, rank_by_ratings
from rlaif.auditing.ranking_results import Matches, Ratings
from rlaif.auditing.ranking_summary import MOST_SHOWN, ranking_head, ranking_remarks, ranking_rows, ranking_text


def ranked(matches):
    return rank_by_matches(matches, resamples=200, orders=5)


def test_a_line_a_policy_best_first():
    text = ranked(matches_of([("b", "a", 0.7), ("b", "a", 0.8)] * 4))
    lines = ranking_text(text).splitlines()
    assert lines[0].split() == ["rank", "policy", "strength", "(95", "%)", "Elo", "scale", "win", "rate", "matches"]
    # ln(3) / 2 = 0.549; 1000 + 200 * log10(3) = 1095.4.
    assert lines[1].startswith("1 (1 to 1)  b       0.549 (0.")
    assert "1095 (" in lines[1]
    assert lines[1].endswith("75.0 %    8")
    assert lines[2].startswith("2 (2 to 2)  a       −0.549 (−0.")
    assert lines[3].startswith("told apart: 100.0 % of the 1 pair of")


def test_what_is_missing_is_a_dash_and_notes_stand_below():
    text = ranking_text(ranked(matches_of([("a", "b", 0.8), ("c", "d", 0.6), ("c", "d", 0.7)] * 3)))
    assert text.splitlines()[1].startswith("-     ")
    assert "\n! nobody compared these with each other" in text
    assert max(map(len, text.splitlines())) <= 100
    nobody = np.zeros(0, dtype=np.int64)
    alone = rank_by_matches(Matches(("only",), nobody, nobody, np.zeros(0), nobody.astype(bool), nobody))
    assert "fewer than two policies" in ranking_text(alone)


def test_names_from_data_are_inert():
    name = "\x1b[31mred\nnext"
    rows = ranked(matches_of([(name, "b", 0.7), (name, "b", 0.8)] * 4))
    assert "\x1b" not in ranking_text(rows)
    assert "\\x1b[31mred\\nnext" in ranking_text(rows)
    assert len(ranking_text(rows).splitlines()) == 4
    assert ranking_rows(rows)[0].name == name  # whoever writes a card makes it inert there


def test_ratings_have_their_own_columns():
    ratings = Ratings(("a", "b"), np.tile([0, 1], 20), np.linspace(2, 9, 40), np.repeat(np.arange(20), 2))
    ranking = rank_by_ratings(ratings, resamples=200)
    assert ranking_head(ranking) == ("rank", "mean rating (95 %)", "responses")
    assert ranking_text(ranking).splitlines()[1].split()[-1] == "20"


def test_remarks_tell_of_circles_and_ties():
    circle = [("a", "b", 0.8), ("b", "c", 0.8), ("c", "a", 0.8), ("a", "b", 0.5)]
    rows = [row for row in circle for _ in range(3)]
    remarks = "\n".join(ranking_remarks(ranked(matches_of(rows, clusters=[0, 1, 2] * 4))))
    assert "100.0 % of the 1 triples of policies go round in circles" in remarks
    assert "of the triples judged within a prompt" in remarks
    assert "between equals, by Davidson's model" in remarks


def test_more_policies_than_fit_are_counted():
    count = MOST_SHOWN + 2
    rng = np.random.default_rng(0)
    few = drawn_matches(rng, [0.0] * 5, 10)
    first = np.arange(count)
    names = tuple(f"p{number:02}" for number in range(count))
    matches = Matches(names, first, (first + 1) % count, rng.random(count), np.full(count, False), first)
    assert "and 2 more" in ranking_text(ranked(matches))
    assert "more" not in ranking_text(ranked(few))
