"""Policies ranked by soft labels of their matches, or by ratings of their responses: figures with intervals. Pure.

Strengths themselves are fitted in `strengths.py`, ratings in the manner of chess in `elo.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlaif.auditing.elo import ELO_MEAN, ELO_UNIT, elo_ratings, match_orders
from rlaif.auditing.intervals import LEVEL, cluster_draws, estimate
from rlaif.auditing.ranking_notes import NO_OTHER, NOT_JOINED, unconnected_note
from rlaif.auditing.ranking_results import Matches, OnlineElo, PairStanding, Ranking, Ratings, Standing
from rlaif.auditing.results import Figure
from rlaif.auditing.spread import Spread, ranks_with_intervals, share_figure, spread_figure
from rlaif.auditing.strengths import LEAST_WIN, PRIOR_MATCHES, Strengths, connected_groups, fit_strengths, has_strengths
from rlaif.auditing.table import FloatArray, IntArray
from rlaif.auditing.triples import triple_statistic, triples_of_rates

DEFAULT_ORDERS = 200
"""Orders of the matches that an online Elo is averaged over."""


# --- by matches -------------------------------------------------------------------------------------------------------


def rank_by_matches(
    matches: Matches, *, resamples: int = 2000, seed: int = 0, elo_k: float = 16.0, orders: int = DEFAULT_ORDERS
) -> Ranking:
    """Rank items by the soft labels of their matches.

    Args:
        matches: Every item met another, unless there are no matches.
        resamples: Of the bootstrap over clusters.
        seed: Of all draws.
        elo_k: Step of the online Elo.
        orders: That it is averaged over.

    Returns:
        The ranking. Intervals of strengths are value +- t * (bootstrap standard error), as in `intervals.py`; those of
        ranks hold together for all differences of one item to the others (the largest studentized difference over the
        resamples).

    Sources: as of `strengths.py`; Mogstad, Romano, Shaikh and Wilhelm, "Inference for Ranks with Applications to
    Mobility across Neighbourhoods and Academic Achievement across Countries", The Review of Economic Studies 91 (2024),
    for ranks; Li et al., "From Crowdsourced Data to High-Quality Benchmarks: Arena-Hard", arXiv:2406.11939, for
    separability, there of single intervals that do not overlap.
    """
    if len(matches.items) < 2:
        return _no_ranking(matches.items)
    counts = _Counts.of(matches)
    wins, ties = counts.drawn(np.ones((1, counts.clusters)))
    prior = 0.0 if has_strengths(wins, ties)[0] else PRIOR_MATCHES
    fitted = fit_strengths(wins, ties, np.array([prior]))
    values = fitted.values[0]
    drawn, drawn_ties = _resampled(counts, fitted, prior, resamples, seed)
    sizes = _sizes(matches)
    spread = Spread(values, drawn, np.array([each.effective for each in sizes]))
    groups, is_joined = _groups(wins[0], ties[0], values)
    ranked = ranks_with_intervals(spread, [each.rows for each in sizes], "" if is_joined else NOT_JOINED)
    online = _online_elo(matches, elo_k, orders, seed)
    order = np.argsort(-values, kind="stable")
    standings = []
    for item in order:
        strength = spread.figure(int(item), sizes[item].rows)
        standings.append(
            Standing(
                name=matches.items[item],
                rank=ranked.ranks[item],
                prob_best=ranked.prob_best[item],
                strength=strength,
                elo=_on_elo_scale(strength),
                online_elo=online[item],
                win_rate=_win_rate(matches, int(item)),
            )
        )
    names = tuple(tuple(matches.items[item] for item in group) for group in groups)
    return Ranking(
        standings=tuple(standings),
        pairs=_pairs(matches, spread, order),
        separability=spread.separability("" if is_joined else NOT_JOINED),
        tie_parameter=_tie_figure(fitted.tie_parameter[0], drawn_ties, matches),
        cyclic_triples=triples_of_rates(wins[0] + ties[0] / 2),
        cyclic_triples_of_prompts=_cyclic_in_clusters(matches, resamples, seed),
        groups=names if len(names) > 1 else (),
        prior_matches=prior,
        notes=(unconnected_note(names, is_joined=is_joined),) if prior else (),
    )


def strengths_of_sets(wins: Sequence[FloatArray], ties: Sequence[FloatArray]) -> list[FloatArray]:
    """Strengths within many small sets, each of them with the prior matches, as few comparisons are not enough alone.

    Args:
        wins: How often each item of a set beat each other (K, K), for every set.
        ties: How often two tied (K, K), symmetric.

    Returns:
        Of each set, the strengths on the log scale (K,), mean 0.
    """
    found: list[FloatArray] = [np.zeros(0)] * len(wins)
    sizes = np.array([len(each) for each in wins])
    for size in np.unique(sizes):
        (members,) = np.nonzero(sizes == size)
        prior = np.full(len(members), PRIOR_MATCHES)
        stacked = [np.stack([each[member] for member in members.tolist()]) for each in (wins, ties)]
        for member, values in zip(members, fit_strengths(stacked[0], stacked[1], prior).values, strict=True):
            found[int(member)] = values
    return found


class _Counts(NamedTuple):
    """Wins and ties of each cluster, as sparse matrices (K * K, C)."""

    wins: object
    ties: object
    items: int
    clusters: int

    @classmethod
    def of(cls, matches: Matches) -> _Counts:
        from scipy.sparse import csr_array

        items, clusters = len(matches.items), int(matches.clusters.max()) + 1
        forth, back = matches.first * items + matches.second, matches.second * items + matches.first
        cells, columns = np.concatenate([forth, back]), np.concatenate([matches.clusters] * 2)
        decided = np.where(matches.is_tie, 0.0, 1.0)
        won = np.concatenate([matches.prob, 1.0 - matches.prob]) * np.concatenate([decided] * 2)
        tied = np.concatenate([1.0 - decided] * 2)
        shape = (items * items, clusters)
        # Entries of the same place are added up.
        return cls(
            csr_array((won, (cells, columns)), shape), csr_array((tied, (cells, columns)), shape), items, clusters
        )

    def drawn(self, draws: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Wins and ties (R, K, K) when each cluster is drawn so often (R, C)."""
        counted = np.ascontiguousarray(draws.T)
        wins, ties = ((sums @ counted).T.reshape(-1, self.items, self.items) for sums in (self.wins, self.ties))  # type: ignore[operator]
        return wins, ties


_FITTED_AT_ONCE = 4_000_000
"""Numbers of one block of resampled counts."""


def _resampled(
    counts: _Counts, fitted: Strengths, prior: float, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Strengths (R, K) and nu (R,) of the resamples; `fitted` and `prior` are of all matches."""
    strengths, tie_parameters = [], []
    size = max(1, _FITTED_AT_ONCE // counts.items**2)
    for draws in cluster_draws(counts.clusters, resamples, seed):
        for start in range(0, len(draws), size):
            wins, ties = counts.drawn(draws[start : start + size])
            # A resample in which somebody never loses has no strengths of its own, though the data have.
            needed = np.where(has_strengths(wins, ties), prior, PRIOR_MATCHES)
            found = fit_strengths(wins, ties, needed, near=fitted)
            strengths.append(found.values)
            tie_parameters.append(found.tie_parameter)
    return np.concatenate(strengths), np.concatenate(tie_parameters)


class _Size(NamedTuple):
    """Matches of an item, and the effective number of clusters that they lie in."""

    rows: int
    effective: float


def _sizes(matches: Matches) -> list[_Size]:
    found = []
    for item in range(len(matches.items)):
        of_item = (matches.first == item) | (matches.second == item)
        found.append(_Size(int(of_item.sum()), effective_clusters(matches.clusters[of_item])))
    return found


def effective_clusters(clusters: IntArray) -> float:
    """(sum of m)^2 / (sum of m^2) over clusters of m rows each; 1 for a single cluster."""
    sizes = np.unique(clusters, return_counts=True)[1].astype(np.float64)
    return float(sizes.sum() ** 2 / (sizes**2).sum()) if len(sizes) else 0.0


def _groups(wins: FloatArray, ties: FloatArray, values: FloatArray) -> tuple[list[list[int]], bool]:
    """Items that chains of wins lead between, one that never lost to another first; and whether there is a chain of
    matches between all. If not, the groups are those that there is one within."""
    edges = (wins > LEAST_WIN) | (ties > LEAST_WIN)
    number = connected_groups(edges, by_chains_both_ways=False)
    is_joined = bool(number.max() == 0)
    if is_joined:
        number = connected_groups(edges)

    def place(group: list[int]) -> tuple[bool, float]:
        others = np.delete(np.arange(len(values)), group)
        return bool(edges[others][:, group].any()), -float(np.mean(values[group]))

    groups = [[int(item) for item in np.flatnonzero(number == each)] for each in range(int(number.max()) + 1)]
    return sorted(groups, key=place), is_joined


def _on_elo_scale(figure: Figure) -> Figure:
    def scaled(value: float | None) -> float | None:
        return None if value is None else ELO_MEAN + ELO_UNIT * value

    return replace(figure, value=scaled(figure.value), low=scaled(figure.low), high=scaled(figure.high))


def _online_elo(matches: Matches, k: float, orders: int, seed: int) -> list[OnlineElo]:
    rng = np.random.default_rng([seed, 1])
    ratings = []
    for is_resampled in (False, True):
        order = match_orders(matches.clusters, rng, orders=orders, is_resampled=is_resampled)
        items = len(matches.items)
        ratings.append(elo_ratings(matches.first, matches.second, matches.scores, order, items=items, k=k))
    ends = [(1.0 - LEVEL) / 2, (1.0 + LEVEL) / 2]
    (order_low, order_high), (low, high) = (np.quantile(each, ends, axis=0) for each in ratings)
    found = []
    for item, value in enumerate(ratings[0].mean(axis=0)):
        rows = int(((matches.first == item) | (matches.second == item)).sum())
        figure = Figure(float(value), min(float(low[item]), float(value)), max(float(high[item]), float(value)), rows)
        found.append(OnlineElo(figure, float(order_low[item]), float(order_high[item])))
    return found


def _win_rate(matches: Matches, item: int) -> Figure:
    is_first, is_second = matches.first == item, matches.second == item
    scores = np.concatenate([matches.scores[is_first], 1.0 - matches.scores[is_second]])
    return share_figure(scores, np.concatenate([matches.clusters[is_first], matches.clusters[is_second]]))


def _pairs(matches: Matches, spread: Spread, order: IntArray) -> tuple[PairStanding, ...]:
    """Of all who met, sorted as the standings are."""
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    is_turned = place[matches.first] > place[matches.second]
    better = np.where(is_turned, place[matches.second], place[matches.first])
    worse = np.where(is_turned, place[matches.first], place[matches.second])
    scores = np.where(is_turned, 1.0 - matches.scores, matches.scores)
    pairs, pair_of = np.unique(better * len(order) + worse, return_inverse=True)
    by_pair = np.split(np.argsort(pair_of, kind="stable"), np.cumsum(np.bincount(pair_of))[:-1])
    found = []
    for pair, rows in zip(pairs, by_pair, strict=True):
        first, second = (int(order[each]) for each in divmod(int(pair), len(order)))
        found.append(
            PairStanding(
                first=matches.items[first],
                second=matches.items[second],
                ties=int(matches.is_tie[rows].sum()),
                win_rate=share_figure(scores[rows], matches.clusters[rows]),
                strength_difference=spread.difference(first, second, len(rows)),
            )
        )
    return tuple(found)


def _tie_figure(value: float, drawn: FloatArray, matches: Matches) -> Figure:
    """nu with its interval, which is one of ln(nu)."""
    rows = len(matches)
    if np.isnan(value):
        return Figure(None, None, None, rows, "every row is a tie")
    if value == 0.0:
        return Figure(0.0, None, None, rows, "no row is a tie")
    logs = np.log(drawn[np.isfinite(drawn) & (drawn > 0)])
    on_log_scale = spread_figure(float(np.log(value)), logs, effective_clusters(matches.clusters), rows)
    if on_log_scale.low is None or on_log_scale.high is None:
        return replace(on_log_scale, value=float(value))
    return Figure(float(value), float(np.exp(on_log_scale.low)), float(np.exp(on_log_scale.high)), rows)


def _cyclic_in_clusters(matches: Matches, resamples: int, seed: int) -> Figure:
    statistic = triple_statistic(matches.first, matches.second, matches.scores, matches.clusters)
    clusters = np.arange(len(statistic.counted))
    return estimate({"it": statistic}, clusters, resamples=resamples, seed=seed)["it"]


def _no_ranking(items: tuple[str, ...]) -> Ranking:
    """Of one item, or of none."""
    nothing = Figure(None, None, None, 0, NO_OTHER)
    standings = tuple(Standing(name, nothing, None, strength=nothing, elo=nothing) for name in items)
    return Ranking(standings, nothing, notes=(NO_OTHER,))


# --- by ratings -------------------------------------------------------------------------------------------------------


def rank_by_ratings(ratings: Ratings, *, resamples: int = 2000, seed: int = 0) -> Ranking:
    """Rank items by the mean rating of their responses; intervals as of `rank_by_matches`."""
    count = len(ratings.items)
    clusters = int(ratings.clusters.max()) + 1
    sums, rows = (
        np.bincount(ratings.clusters * count + ratings.item, weights, clusters * count).reshape(clusters, count)
        for weights in (ratings.score, np.ones(len(ratings.score)))
    )
    drawn = []
    for draws in cluster_draws(clusters, resamples, seed):
        with np.errstate(invalid="ignore"):  # somebody is in no row of the resample
            drawn.append((draws @ sums) / (draws @ rows))
    values, number = sums.sum(axis=0) / rows.sum(axis=0), rows.sum(axis=0)
    effective = np.array([number[item] ** 2 / (rows[:, item] ** 2).sum() for item in range(count)])
    spread = Spread(values, np.concatenate(drawn), effective)
    rows_of = [int(each) for each in number]
    why = NO_OTHER if count < 2 else ""
    ranked = ranks_with_intervals(spread, rows_of, why)
    order = np.argsort(-values, kind="stable")
    standings = tuple(
        Standing(
            name=ratings.items[item],
            rank=ranked.ranks[item],
            prob_best=ranked.prob_best[item],
            rating=spread.figure(int(item), rows_of[item]),
        )
        for item in order
    )
    return Ranking(standings, spread.separability(why), notes=(why,) if why else ())
