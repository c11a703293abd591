"""The dataset card of a run folder: `README.md`, for the person who finds the folder a year later. Pure: facts in,
text out.

What came from the data or the user is never live in it: no HTML, no Markdown, no fence that it can close.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from rlaif.data.card_layout import render_layout
from rlaif.data.markdown import code, fence, inline, plain, table
from rlaif.data.statistics import LabelStatistics, Moments, RatingStatistics

if TYPE_CHECKING:
    from rlaif.calibration import Calibration

_MOST_SHOWN = 1_200
"""Characters of a text in the example row."""

_MOST_RESPONSES = 4
"""Responses of the example row that are shown."""


class _Words(NamedTuple):
    """What a card calls things: a label of a comparison, or a rating of a response."""

    label: str
    made: str
    judged: str
    answers: str
    tags: tuple[str, ...]


_LABELS = _Words("label", "labeled", "comparison", "two labels", ("preference", "ai-feedback", "soft-labels"))
_RATINGS = _Words("rating", "rated", "response", "ten scores", ("ai-feedback", "ratings"))


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a card tells.

    Attributes:
        title: The data set's name.
        judges: `BACKEND:MODEL` of each judge.
        is_demonstration: A judge is the built-in one, whose labels are for trying things out.
        task: The task or the template's file name.
        template_fingerprint: SHA-256 of the prompt template and all it includes; None where all judges are reward
            models, which get no prompt.
        settings: Further settings of the judge that can change a label, in the order to show: name -> value.
        constitution, constitution_fingerprint: Name and fingerprint; None without one.
        principles: (id, text) of all the constitution's.
        own_weights: Principle -> weight, as the constitution says; empty where all weigh the same.
        principle_choice: What `--principles` was.
        weights: Principle -> weight, where `rlaif reweight` gave them; else they were averaged by the constitution's.
        source, source_sha256: What the input was called, and the fingerprint of its content.
        failed: Rows in `failures.jsonl`.
        statistics: Counts over the labels, or over the ratings: which of the two decides what card it is.
        prompt_tokens, completion_tokens: All calls together.
        cost_usd: At the prices given; None when none were.
        seconds: Wall time of the run, all sessions together; None when unknown.
        command: What makes the folder again.
        version: Of rlaif.
        example: A row as written; None when there is none.
        columns: Names of all columns, in their order.
        calibration: What the labels were calibrated with; None where they are the judge's own.
        reward_models: Those of the judges that are reward models.
        derived_from: The run whose labels these were made from, without a call; None for a run that asked a judge.
    """

    title: str
    judges: tuple[str, ...]
    task: str
    template_fingerprint: str | None
    source: str
    source_sha256: str
    statistics: LabelStatistics | RatingStatistics
    command: str
    version: str
    is_demonstration: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    constitution: str | None = None
    constitution_fingerprint: str | None = None
    principles: tuple[tuple[str, str], ...] = ()
    own_weights: Mapping[str, float] = field(default_factory=dict)
    principle_choice: str = "all"
    weights: Mapping[str, float] = field(default_factory=dict)
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    seconds: float | None = None
    example: Mapping[str, Any] | None = None
    columns: tuple[str, ...] = ()
    calibration: Calibration | None = None
    reward_models: tuple[str, ...] = ()
    derived_from: str | None = None


def render_card(facts: CardFacts) -> str:
    """The text of `README.md`; its YAML header lets `datasets.load_dataset(FOLDER)` find the files."""
    counts = facts.statistics
    words = _LABELS if isinstance(counts, LabelStatistics) else _RATINGS
    of_kind = (
        (
            _calibration_section(facts),
            _clamp_section(facts),
            _label_counts(facts, counts),
            _position_section(facts, counts),
        )
        if isinstance(counts, LabelStatistics)
        else (_rating_counts(facts, counts), _distribution_section(counts))
    )
    sections = [
        _introduction(facts, words),
        _judge_section(facts, words),
        _principles_section(facts, words),
        *of_kind,
        _panel_section(facts, words),
        _mass_section(counts.masses, counts.bounded, words),
        _cost_section(facts),
        _example_section(facts, words),
        _use_section(facts, words),
    ]
    return render_layout(facts.title, words.tags, counts.rows, sections)


def _introduction(facts: CardFacts, words: _Words) -> str:
    text = _what_it_holds(facts, words)
    text += f" No person made these {words.label}s; they carry the judge's tastes and mistakes."
    if facts.statistics.rows == 0:
        text += (
            f"\n\nThere are no rows: none could be {words.made}. `failures.jsonl` says why. pandas reads the empty "
            "file in `data/`; `datasets` refuses a data set without rows."
        )
    if facts.is_demonstration:
        text += (
            "\n\n> **Warning: made by the demonstration judge.** `builtin:tiny` is a model of a few million parameters "
            f"that ships with rlaif to show and test the pipeline. Its {words.label}s say little about the responses: "
            "do not train a model for use on them, and do not publish them as preferences. The same command with "
            f"another `--judge` makes {words.label}s worth using."
        )
    return text


def _what_it_holds(facts: CardFacts, words: _Words) -> str:
    judge, how = "language model", f"counted over sampled {'verdicts' if words is _LABELS else 'ratings'}"
    if _is_wordless(facts):
        if words is _RATINGS:
            return (
                "Responses with rewards: for each response, the number that a reward model gives it, on a scale of its "
                "own, of which only differences between responses to one prompt mean something."
            )
        judge, how = "reward model", "the sigmoid of the difference of their rewards"
    elif not _is_sampled(facts):
        how = "read from the model's own log-probabilities"
    if words is _RATINGS:
        return (
            "Responses with ratings from 1 to 10: for each response, how likely a language model is to give each "
            f"score, {how}, and the mean score, which is the rating."
        )
    text = (
        f"Pairs of responses with soft preference labels: for each pair, the probability that a {judge} prefers "
        f"one response over the other, {how}."
    )
    if facts.reward_models and not _is_wordless(facts):
        names = ", ".join(map(code, facts.reward_models))
        text += f" The probability of a reward model ({names}) is the sigmoid of the difference of their rewards."
    return text


def _judge_section(facts: CardFacts, words: _Words) -> str:
    judges = facts.judges
    rows = [
        ("Judge" if len(judges) == 1 else f"Panel of {len(judges)} judges", ", ".join(map(code, judges))),
        *_prompt_rows(facts),
        *((inline(name), code(plain(value))) for name, value in facts.settings.items()),
        ("Made with", code(f"rlaif {facts.version}")),
        ("Input", code(facts.source)),
        ("Input content (SHA-256)", code(facts.source_sha256)),
    ]
    section = f"## How the {words.label}s were made\n\n{table(('', ''), rows)}"
    if not _is_sampled(facts):
        return section
    # The figures are those of `rlaif.judge.scoring.sampled_distribution`.
    smoothing = (
        "half a verdict for each of the two slots: 3 of 4 samples for a slot make (3 + 0.5) / (4 + 1) = 0.7. So no "
        "probability is 0 or 1 for want of samples"
        if words is _LABELS
        else "a tenth for each of the ten scores: 3 of 4 samples for a score make (3 + 0.1) / (4 + 1) = 0.62. So no "
        "score is ruled out for want of samples, and few samples draw a rating towards 5.5"
    )
    return (
        f"{section}\n\nThe probabilities are shares of the samples, to which one more is added that is spread evenly, "
        f"{smoothing}. Samples that state no {'verdict' if words is _LABELS else 'rating'} are left out."
    )


def _prompt_rows(facts: CardFacts) -> list[tuple[str, str]]:
    if facts.template_fingerprint is None:
        return []
    return [("Task", code(facts.task)), ("Prompt template (SHA-256)", code(facts.template_fingerprint))]


def _principles_section(facts: CardFacts, words: _Words) -> str:
    if facts.constitution is None:
        return ""
    each = f"Each {words.judged} was judged under"
    how = {
        "all": f"{each} every principle, and the {words.label}s were averaged by weight.",
        "sample": f"{each} one principle, drawn from the seed for its row; column `principle` names it.",
    }.get(facts.principle_choice, f"{each} these principles, averaged by weight.")
    if facts.weights:
        how = f"{each} each of these principles; `rlaif reweight` averaged the answers by the weights given here."
        if len(facts.judges) > 1:
            how += (
                " What each judge says under these weights is not known, as only the mean of the judges was kept for a "
                "single principle: there is no column `by_judge`."
            )
    asked = {name.strip() for name in facts.principle_choice.split(",")}
    is_part = facts.principle_choice not in ("all", "sample")
    texts = {name: inline(text) for name, text in facts.principles if name in asked or not is_part}
    if facts.weights:
        texts = {name: texts.get(name, "its text is not at hand") for name in facts.weights}
    shown = {name: f" (weight {weight:g})" for name, weight in (facts.weights or facts.own_weights).items()}
    listed = "\n".join(f"- {code(name)}{shown.get(name, '')}: {text}" for name, text in texts.items())
    fingerprint = facts.constitution_fingerprint
    stamp = f" (SHA-256 {code(fingerprint)})" if fingerprint else ""
    return f"## Principles\n\nConstitution {code(facts.constitution)}{stamp}. {how}\n\n{listed}"


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
    if counts.unreadable_samples or _is_sampled(facts):
        rows.append(("Samples that could not be read (`unreadable_samples`)", _number(counts.unreadable_samples)))
    return rows


def _position_section(facts: CardFacts, counts: LabelStatistics) -> str:
    if _is_wordless(facts):
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


def _panel_section(facts: CardFacts, words: _Words) -> str:
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
    value = "prob_a" if words is _LABELS else "rating"
    return (
        f"## The panel\n\n{table((f'Judges, by their `{value}`', 'Pearson correlation'), rows)}\n\n"
        f"A {words.label} is the mean over the judges. Judges that agree may share their mistakes too: the closer a "
        "correlation is to 1, the fewer independent votes the panel may be worth. How many it is worth, this table "
        "cannot tell: that takes labels by people, from which `rlaif audit` reports it."
    )


def _mass_section(masses: Moments, bounded: int, words: _Words) -> str:
    if masses.mean is None:
        return ""
    rows = "rows" if words is _LABELS else "responses"
    return (
        "## Label mass\n\n"
        f"The share of the judge's next-token probability that fell on the {words.answers}: {masses.mean:.4f} on "
        f"average, {masses.least:.4f} at least. Where it is low, the judge wanted to say something else. "
        f"Where some of the {words.answers} were not among the tokens the server returned, their mass together is an "
        f"upper bound (`is_bounded`): {rows} with such a bound: {_number(bounded)}."
    )


def _cost_section(facts: CardFacts) -> str:
    if facts.derived_from is not None:
        return (
            f"## Cost\n\nNo call was made: the labels were made from those of the run {code(facts.derived_from)}, "
            "whose card tells what it cost."
        )
    spent = [f"{_number(facts.prompt_tokens)} prompt and {_number(facts.completion_tokens)} completion tokens"]
    if facts.cost_usd is not None:
        per_row = f", {facts.cost_usd / facts.statistics.rows:.5f} a row" if facts.statistics.rows else ""
        spent.append(f"{facts.cost_usd:.4f} US dollars{per_row}")
    if facts.seconds is not None:
        spent.append(f"{facts.seconds:.1f} seconds")
    return f"## Cost\n\n{'; '.join(spent)}."


def _example_section(facts: CardFacts, words: _Words) -> str:
    example = facts.example
    if example is None:
        return ""
    if words is _LABELS:
        shown = ["prompt", "response_a", "response_b"]
        figures = ["prob_a", "prob_a_ab", "prob_a_ba", "chosen_prob", "is_tie", "human_label"]
        if facts.calibration is not None:  # else the columns are the user's own
            figures += ["raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba"]
        elif facts.settings.get("clamp") is not None:
            figures.append("raw_prob_a")
    else:
        shown = ["prompt", "response", "responses"]
        figures = ["rating", "reward", "label_mass", "ratings", "rewards", "label_masses"]
        if _is_wordless(facts):
            figures = ["reward", "rewards"]
        elif "response" in example:  # of several responses, the lists would be too long for a table
            figures.append("rating_probs")
    if facts.constitution is not None and facts.principle_choice == "sample":  # else the column is the user's own
        figures.append("principle")
    texts = [f"{code(name)}\n\n{_example_text(example[name])}" for name in shown if name in example]
    rows = [(code(name), code(plain(example[name]))) for name in figures if name in example]
    return f"## A row\n\nIts id: {code(plain(example.get('id')))}\n\n" + "\n\n".join(
        [*texts, table(("Column", "Value"), rows)]
    )


def _use_section(facts: CardFacts, words: _Words) -> str:
    listed = f"\n\nColumns: {', '.join(map(code, facts.columns))}." if facts.columns else ""
    load = (
        "import datasets, pandas\n\n"
        'rows = datasets.load_dataset("FOLDER", split="train")\n'
        'frame = pandas.read_parquet("FOLDER/data")'
    )
    meaning = (
        "`prob_a` is P(response A preferred); `chosen` and `rejected` follow from it, with `chosen_prob` at least 0.5. "
        "Train on the probability rather than the hard choice where the trainer can."
        if words is _LABELS
        else "`reward` is the reward model's; it gives no ratings, so that `rating` and `rating_probs` are null. In "
        "rows of several responses, `rewards` follows the order of `responses`."
        if _is_wordless(facts)
        else "`rating_probs` holds the probabilities of the scores 1 to 10, `rating` their mean score, and `reward` is "
        "(rating - 5.5) / 4.5, from -1 to 1. In rows of several responses, `ratings`, `rewards` and the other lists "
        "follow the order of `responses`."
    )
    again = (
        "The same command on this folder resumes or confirms the run; replies in `journal/` are not asked for again."
        if facts.derived_from is None
        else f"It takes the run {code(facts.derived_from)}, and asks no judge."
    )
    return (
        f"## How to load it\n\n{fence(load, 'python')}\n\n{meaning}{listed}\n\n"
        f"## How to make it again\n\n{fence(facts.command, 'sh')}\n\n"
        f"{again} `run.json` holds the full configuration."
    )


def _example_text(value: Any) -> str:
    """A prompt, a response, or several responses, as fenced blocks."""
    if isinstance(value, str):
        return fence(_cut(value))
    if value and isinstance(value[0], str):
        left_out = len(value) - _MOST_RESPONSES
        more = [f"And {left_out:,} more."] if left_out > 0 else []
        return "\n\n".join([*(fence(_cut(text)) for text in value[:_MOST_RESPONSES]), *more])
    return fence(_cut("\n\n".join(f"{turn['role']}: {turn['content']}" for turn in value)))


def _cut(text: str) -> str:
    left_out = len(text) - _MOST_SHOWN
    return f"{text[:_MOST_SHOWN]}\n[... {left_out:,} more characters]" if left_out > 0 else text


def _is_wordless(facts: CardFacts) -> bool:
    """Whether all judges are reward models."""
    return facts.template_fingerprint is None


def _is_sampled(facts: CardFacts) -> bool:
    return facts.settings.get("scoring") == "sample"


def _number(count: int) -> str:
    return f"{count:,}"


def _share(value: float | None) -> str:
    return "not asked" if value is None else f"{100 * value:.1f} %"
