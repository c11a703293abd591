"""The dataset card of a run folder: `README.md`, for the person who finds the folder a year later. Pure: facts in,
text out.

What came from the data or the user is never live in it: no HTML, no Markdown, no fence that it can close.
"""

from __future__ import annotations

from typing import Any

from rlaif.data.card_facts import LABELS, RATINGS, CardFacts, Words
from rlaif.data.card_figures import figure_sections
from rlaif.data.card_layout import render_layout
from rlaif.data.markdown import code, fence, inline, plain, table

_MOST_SHOWN = 1_200
"""Characters of a text in the example row."""

_MOST_RESPONSES = 4
"""Responses of the example row that are shown."""


def render_card(facts: CardFacts) -> str:
    """The text of `README.md`; its YAML header lets `datasets.load_dataset(FOLDER)` find the files."""
    words = facts.words
    sections = [
        _introduction(facts, words),
        _judge_section(facts, words),
        _principles_section(facts, words),
        *figure_sections(facts),
        _cost_section(facts),
        _example_section(facts, words),
        _use_section(facts, words),
    ]
    return render_layout(facts.title, words.tags, facts.statistics.rows, sections)


def _introduction(facts: CardFacts, words: Words) -> str:
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


def _what_it_holds(facts: CardFacts, words: Words) -> str:
    judge, how = "language model", f"counted over sampled {'verdicts' if words is LABELS else 'ratings'}"
    if facts.is_wordless:
        if words is RATINGS:
            return (
                "Responses with rewards: for each response, the number that a reward model gives it, on a scale of its "
                "own, of which only differences between responses to one prompt mean something."
            )
        judge, how = "reward model", "the sigmoid of the difference of their rewards"
    elif not facts.is_sampled:
        how = "read from the model's own log-probabilities"
    if words is RATINGS:
        return (
            "Responses with ratings from 1 to 10: for each response, how likely a language model is to give each "
            f"score, {how}, and the mean score, which is the rating."
        )
    text = (
        f"Pairs of responses with soft preference labels: for each pair, the probability that a {judge} prefers "
        f"one response over the other, {how}."
    )
    if facts.reward_models and not facts.is_wordless:
        names = ", ".join(map(code, facts.reward_models))
        text += f" The probability of a reward model ({names}) is the sigmoid of the difference of their rewards."
    return text


def _judge_section(facts: CardFacts, words: Words) -> str:
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
    if not facts.is_sampled:
        return section
    # The figures are those of `rlaif.judge.scoring.sampled_distribution`.
    smoothing = (
        "half a verdict for each of the two slots: 3 of 4 samples for a slot make (3 + 0.5) / (4 + 1) = 0.7. So no "
        "probability is 0 or 1 for want of samples"
        if words is LABELS
        else "a tenth for each of the ten scores: 3 of 4 samples for a score make (3 + 0.1) / (4 + 1) = 0.62. So no "
        "score is ruled out for want of samples, and few samples draw a rating towards 5.5"
    )
    return (
        f"{section}\n\nThe probabilities are shares of the samples, to which one more is added that is spread evenly, "
        f"{smoothing}. Samples that state no {'verdict' if words is LABELS else 'rating'} are left out."
    )


def _prompt_rows(facts: CardFacts) -> list[tuple[str, str]]:
    if facts.template_fingerprint is None:
        return []
    return [("Task", code(facts.task)), ("Prompt template (SHA-256)", code(facts.template_fingerprint))]


def _principles_section(facts: CardFacts, words: Words) -> str:
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


def _cost_section(facts: CardFacts) -> str:
    if facts.derived_from is not None:
        return (
            f"## Cost\n\nNo call was made: the labels were made from those of the run {code(facts.derived_from)}, "
            "whose card tells what it cost."
        )
    spent = [f"{facts.prompt_tokens:,} prompt and {facts.completion_tokens:,} completion tokens"]
    if facts.cost_usd is not None:
        per_row = f", {facts.cost_usd / facts.statistics.rows:.5f} a row" if facts.statistics.rows else ""
        spent.append(f"{facts.cost_usd:.4f} US dollars{per_row}")
    if facts.seconds is not None:
        spent.append(f"{facts.seconds:.1f} seconds")
    return f"## Cost\n\n{'; '.join(spent)}."


def _example_section(facts: CardFacts, words: Words) -> str:
    example = facts.example
    if example is None:
        return ""
    if words is LABELS:
        shown = ["prompt", "response_a", "response_b"]
        figures = ["prob_a", "prob_a_ab", "prob_a_ba", "chosen_prob", "is_tie", "human_label"]
        if facts.calibration is not None:  # else the columns are the user's own
            figures += ["raw_prob_a", "raw_prob_a_ab", "raw_prob_a_ba"]
        elif facts.settings.get("clamp") is not None:
            figures.append("raw_prob_a")
    else:
        shown = ["prompt", "response", "responses"]
        figures = ["rating", "reward", "label_mass", "ratings", "rewards", "label_masses"]
        if facts.is_wordless:
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


def _use_section(facts: CardFacts, words: Words) -> str:
    listed = f"\n\nColumns: {', '.join(map(code, facts.columns))}." if facts.columns else ""
    load = (
        "import datasets, pandas\n\n"
        'rows = datasets.load_dataset("FOLDER", split="train")\n'
        'frame = pandas.read_parquet("FOLDER/data")'
    )
    meaning = (
        "`prob_a` is P(response A preferred); `chosen` and `rejected` follow from it, with `chosen_prob` at least 0.5. "
        "Train on the probability rather than the hard choice where the trainer can."
        if words is LABELS
        else "`reward` is the reward model's; it gives no ratings, so that `rating` and `rating_probs` are null. In "
        "rows of several responses, `rewards` follows the order of `responses`."
        if facts.is_wordless
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
