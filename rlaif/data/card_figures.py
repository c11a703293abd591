"""The sections of a dataset card that are figures over its labels or ratings: counts, calibration, position bias,
distribution, the panel, label mass. Pure: facts in, text out."""

from __future__ import annotations

from rlaif.data.card_facts import LABELS, CardFacts, Words
from rlaif.data.markdown import code, inline, table
from rlaif.data.statistics import LabelStatistics, Moments, RatingStatistics


def figure_sections(facts: CardFacts) -> list[str]:
    """The sections, in their order; one that has nothing to say is empty."""
    counts, words = facts.statistics, facts.words
    of_kind = (
        [
            _calibration_section(facts),
            _clamp_section(facts),
            _label_counts(facts, counts),
            _position_section(facts, counts),
        ]
        if isinstance(counts, LabelStatistics)
        else [_rating_counts(facts, counts), _distribution_section(counts)]
    )
    return [*of_kind, _panel_section(facts, words), _mass_section(counts.masses, counts.bounded, words)]


def _label_counts(facts: CardFacts, counts: LabelStatistics) -> str:
    rows = [
        ("Labeled pairs", _number(counts.rows)),
        _failed(facts),
        ("Identical responses, 0.5 without asking", _number(counts.identical)),
        ("Ties (within 1e-9 of 0.5; A stands as chosen)", _number(counts.ties)),
        *_shortfalls(facts),
        *([("Judge calls behind the labels", _number(counts.calls))] if facts.derived_from is None else []),
    ]
    return f"## Rows\n\n{table(('', 'Count'), rows)}"


def _calibration_section(facts: CardFacts) -> str:
    calibration = facts.calibration
    if calibration is None:
        return ""
    origin = calibration.fitted_on
    rows = [(inline(name.replace("_", " ")), f"{value:.4g}") for name, value in calibration.parameters.items()]
    rows.append(("SHA-256 of these", code(calibration.fingerprint)))
    if origin is not None:
        rows.append(("Fitted to", f"{_number(origin.rows)} rows with human labels"))
        if origin.judges:
            rows.append(("Fitted on", ", ".join(map(code, origin.judges))))
        rows += [
            (f"{title} on rows held out", f"{origin.before[name]:.4f} before, {origin.after[name]:.4f} after")
            for name, title in (("brier", "Brier score"), ("log_loss", "Log loss"), ("ece", "Calibration error (ECE)"))
            if name in origin.before and name in origin.after
        ]
    return (
        f"## Calibration\n\n{table(('', ''), rows)}\n\n"
        "Each order's probability was corrected before the orders were averaged: logit / temperature, less the slot "
        "bias for the response shown first, plus the length slope times ln of the ratio of the lengths. The judge's "
        "own probabilities stand in `raw_prob_a`, `raw_prob_a_ab` and `raw_prob_a_ba`; `by_principle` and `by_judge`, "
        "where they are there, are not calibrated."
    )


def _clamp_section(facts: CardFacts) -> str:
    clamp = facts.settings.get("clamp")
    if clamp is None:
        return ""
    before = "`raw_prob_a` holds what it was before"
    if facts.calibration is not None:
        before = "`raw_prob_a` holds what it was before that and before the calibration"
    return (
        f"## Clamp\n\n`prob_a` is kept within {code(clamp)}, last of all, which changes no verdict: verdicts after "
        "reasons come out near 0 and 1, and a model learns extremes from such labels (Bai et al., Constitutional AI, "
        f"arXiv:2212.08073, section 4). {before}; `prob_a_ab` and `prob_a_ba` are not clamped."
    )


def _rating_counts(facts: CardFacts, counts: RatingStatistics) -> str:
    rows = [
        ("Rows", _number(counts.rows)),
        _failed(facts),
        ("Rated responses", _number(counts.responses)),
        *_shortfalls(facts),
        ("Judge calls behind the ratings", _number(counts.calls)),
    ]
    return f"## Rows\n\n{table(('', 'Count'), rows)}"


def _failed(facts: CardFacts) -> tuple[str, str]:
    return "Failed, in `failures.jsonl` and not in the data", _number(facts.failed)


def _shortfalls(facts: CardFacts) -> list[tuple[str, str]]:
    counts = facts.statistics
    rows = []
    if counts.partial_rows or facts.settings.get("allow_partial_panel"):
        rows.append(("Rows that a judge is missing from (`missing_judges`)", _number(counts.partial_rows)))
    if counts.unreadable_samples or facts.is_sampled:
        rows.append(("Samples that could not be read (`unreadable_samples`)", _number(counts.unreadable_samples)))
    return rows


def _position_section(facts: CardFacts, counts: LabelStatistics) -> str:
    if facts.is_wordless:
        return (
            "## Position bias\n\nNone: a reward model sees each response alone, so that `prob_a_ab` and `prob_a_ba` "
            "are one and the same."
        )
    if not (counts.in_ab.first_rate is not None or counts.in_ba.first_rate is not None or counts.both_orders):
        return ""
    rows = []
    if counts.both_orders:
        same = f"{_share(counts.same_position_rate)} ({counts.same_first:,} first, {counts.same_second:,} second)"
        rows += [
            ("Swap consistency: same verdict in both orders", _share(counts.swap_consistency)),
            ("Same slot preferred in both orders (ideal 0 %)", same),
        ]
    rows += [
        ("First slot preferred when A is shown first", _share(counts.in_ab.first_rate)),
        ("First slot preferred when B is shown first", _share(counts.in_ba.first_rate)),
    ]
    note = (
        f"Over {_number(counts.both_orders)} pairs judged in both orders. `prob_a` is the average of the two: a judge "
        "that looks only at position comes out at 0.5, and a pair whose verdict flips with the order comes out near it."
        if counts.both_orders
        else "Each pair was judged in one order only, so position bias, if there is any, is in the labels."
    )
    if facts.calibration is not None:
        note += " The shares are those of the judge's own probabilities, before calibration."
    return f"## Position bias\n\n{table(('', 'Share'), rows)}\n\n{note}"


def _distribution_section(counts: RatingStatistics) -> str:
    ratings, spread = counts.ratings, counts.spreads.mean
    if spread is None:
        return _rewards_section(counts.rewards)
    figures = [
        ("Mean", f"{ratings.mean:.2f}"),
        ("Standard deviation", f"{ratings.sd:.2f}"),
        ("Lowest and highest", f"{ratings.least:.2f} and {ratings.most:.2f}"),
        ("Standard deviation of the ten scores behind one rating, mean", f"{spread:.2f}"),
    ]
    histogram = [
        (str(score), f"{_number(count)} ({_share(count / counts.responses)})")
        for score, count in enumerate(counts.histogram, 1)
    ]
    return (
        f"## Distribution of ratings\n\n{table(('', 'Rating'), figures)}\n\n"
        "The last figure says how sure the judge is: 0 where it gives one score for certain, 2.87 where it finds all "
        f"ten equally likely (a rating of 5.5).\n\n{table(('Rating, rounded', 'Responses'), histogram)}"
    )


def _rewards_section(rewards: Moments) -> str:
    if rewards.mean is None:
        return ""
    figures = [
        ("Mean", f"{rewards.mean:.3f}"),
        ("Standard deviation", f"{rewards.sd:.3f}"),
        ("Lowest and highest", f"{rewards.least:.3f} and {rewards.most:.3f}"),
    ]
    return f"## Distribution of rewards\n\n{table(('', 'Reward'), figures)}"


def _panel_section(facts: CardFacts, words: Words) -> str:
    found = facts.statistics.judge_correlation
    if not found:
        return ""
    rows = [
        (
            f"{code(one)} and {code(other)}",
            f"{'undefined' if pearson is None else f'{pearson:.2f}'} ({count:,} {words.judged}s)",
        )
        for (one, other), pearson, count in found
    ]
    value = "prob_a" if words is LABELS else "rating"
    return (
        f"## The panel\n\n{table((f'Judges, by their `{value}`', 'Pearson correlation'), rows)}\n\n"
        f"A {words.label} is the mean over the judges. Judges that agree may share their mistakes too: the closer a "
        "correlation is to 1, the fewer independent votes the panel may be worth. How many it is worth, this table "
        "cannot tell: that takes labels by people, from which `rlaif audit` reports it."
    )


def _mass_section(masses: Moments, bounded: int, words: Words) -> str:
    if masses.mean is None:
        return ""
    rows = "rows" if words is LABELS else "responses"
    return (
        "## Label mass\n\n"
        f"The share of the judge's next-token probability that fell on the {words.answers}: {masses.mean:.4f} on "
        f"average, {masses.least:.4f} at least. Where it is low, the judge wanted to say something else. "
        f"Where some of the {words.answers} were not among the tokens the server returned, their mass together is an "
        f"upper bound (`is_bounded`): {rows} with such a bound: {_number(bounded)}."
    )


def _share(value: float | None) -> str:
    return "not asked" if value is None else f"{100 * value:.1f} %"


def _number(count: int) -> str:
    return f"{count:,}"
