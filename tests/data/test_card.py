import re
from dataclasses import replace

import pytest
import yaml

from rlaif.calibration import Calibration, FittedOn
from rlaif.data.card import render_card
from rlaif.data.card_facts import CardFacts
from rlaif.data.statistics import LabelStatistics, RatingStatistics
from rlaif.records import Judgment, NamedLabel, NamedRating, Rating, SoftLabel

HOSTILE = (
    "``` \n````\n</code><script>alert(1)</script> <img src=x onerror=y> | cell | [x](javascript:1) ![i](http://h/i.png)"
    "\n---\nconfigs: []\n# Heading\n\x1b[31m\u202e *b* `c` {{ x }} {% y %}"
)


def statistics():
    counts = LabelStatistics()
    counts.add(Judgment(SoftLabel(0.85, 0.9, 0.8), 0.99, 0.97, calls=2))
    counts.add(Judgment(SoftLabel(0.55, 0.9, 0.2), 0.95, 0.93, is_bounded=True, calls=2))
    counts.add(Judgment(SoftLabel(0.5, None, None)))
    return counts


FACTS = CardFacts(
    title="demo",
    judges=("openai:some-model",),
    task="helpfulness",
    template_fingerprint="ab" * 32,
    source="examples/data/comparisons.jsonl",
    source_sha256="cd" * 32,
    statistics=statistics(),
    command="rlaif label examples/data/comparisons.jsonl -o runs/demo",
    version="0.1.0",
    settings={"orders": "both", "shots": 2, "cot": False},
    constitution="helpful-harmless",
    constitution_fingerprint="ef" * 32,
    principles=(("kind", "The kinder answer is better."), ("brief", "The shorter answer is better.")),
    failed=3,
    prompt_tokens=12_345,
    completion_tokens=4,
    cost_usd=0.0297,
    seconds=1.25,
    example={"id": "r1", "prompt": "P", "response_a": "x", "response_b": "y", "prob_a": 0.85, "is_tie": False},
    columns=("id", "prompt", "prob_a"),
)


def certain(score, **more):
    return Rating(tuple(float(each == score) for each in range(1, 11)), **more)


def rating_statistics():
    counts = RatingStatistics()
    counts.add([certain(2, label_mass=0.98, calls=1), certain(9, label_mass=0.96, calls=1)])
    counts.add([Rating((0.5, *[0.0] * 8, 0.5), label_mass=0.94, is_bounded=True, calls=1)])
    return counts


RATED = replace(
    FACTS,
    source="examples/data/responses.jsonl",
    statistics=rating_statistics(),
    command="rlaif rate examples/data/responses.jsonl -o runs/demo",
    settings={"shots": 2, "cot": False},
    example={
        "id": "r1", "prompt": "P", "responses": ["x", "the other"], "ratings": [2.0, 9.0], "rewards": [-0.7778, 0.7778],
        "rating_probs": [[0.1] * 10] * 2, "label_masses": [0.98, None],
    },
    columns=("id", "prompt", "responses", "ratings"),
)  # fmt: skip
ONE_RESPONSE = replace(
    RATED,
    example={"id": "r1", "prompt": "P", "response": "x", "rating": 5.5, "reward": 0.0, "rating_probs": [0.1] * 10},
)


def header(card):
    return yaml.safe_load(card.split("---\n")[1])


def outside_fences(card):
    """The card without its header and without fenced blocks, read as CommonMark reads them."""
    kept, closing = [], None
    for line in card.split("---\n", 2)[2].split("\n"):
        if closing is not None:
            if re.fullmatch(rf"`{{{closing},}}\s*", line):
                closing = None
        elif opening := re.match(r"(`{3,})[^`]*$", line):
            closing = len(opening[1])
        else:
            kept.append(line)
    assert closing is None
    return "\n".join(kept)


def test_the_header_names_the_files():
    found = header(render_card(FACTS))
    assert found["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}
    ]
    assert found["pretty_name"] == "demo"
    assert "license" not in found
    assert found["size_categories"] == ["n<1K"]


def test_what_a_reader_wants_to_know_stands_there():
    card = render_card(FACTS)
    for expected in (
        "| Judge | `openai:some-model` |",
        "| Task | `helpfulness` |",
        "ab" * 32,
        "cd" * 32,
        "| orders | `both` |",
        "| cot | `false` |",
        "Constitution `helpful-harmless` (SHA-256 `" + "ef" * 32,
        "- `brief`: The shorter answer is better.",
        "| Labeled pairs | 3 |",
        "| Failed, in `failures.jsonl` and not in the data | 3 |",
        "| Identical responses, 0.5 without asking | 1 |",
        "| Swap consistency: same verdict in both orders | 50.0 % |",  # row 1 of the two that were asked
        "| Same slot preferred in both orders (ideal 0 %) | 50.0 % (1 first, 0 second) |",
        "| First slot preferred when A is shown first | 100.0 % |",
        "| First slot preferred when B is shown first | 50.0 % |",
        "0.9600 on average, 0.9300 at least",  # (0.99 + 0.97 + 0.95 + 0.93) / 4
        "rows with such a bound: 1.",
        "12,345 prompt and 4 completion tokens; 0.0297 US dollars, 0.00990 a row; 1.2 seconds.",
        "rlaif label examples/data/comparisons.jsonl -o runs/demo",
        "datasets.load_dataset",
        "Columns: `id`, `prompt`, `prob_a`.",
    ):
        assert expected in card


def test_the_demonstration_judge_is_warned_about():
    assert "demonstration judge" not in render_card(FACTS)
    assert "> **Warning: made by the demonstration judge.**" in render_card(replace(FACTS, is_demonstration=True))


def test_what_was_not_measured_is_left_out_or_said():
    one_order = LabelStatistics()
    one_order.add(Judgment(SoftLabel(0.9, 0.9, None), calls=1))
    bare = replace(FACTS, statistics=one_order, constitution=None, cost_usd=None, seconds=None, example=None)
    card = render_card(bare)
    for absent in ("## Principles", "## Label mass", "Swap consistency", "US dollars", "seconds", "## A row"):
        assert absent not in card
    assert "| First slot preferred when B is shown first | not asked |" in card
    assert "judged in one order only" in card
    empty = render_card(replace(bare, statistics=LabelStatistics()))
    assert "There are no rows" in empty
    assert "## Position bias" not in empty


@pytest.mark.parametrize(
    "changed",
    [
        {"title": HOSTILE},
        {"judges": (HOSTILE, "x")},
        {"task": HOSTILE, "source": HOSTILE, "command": HOSTILE},
        {"settings": {HOSTILE: HOSTILE}},
        {"constitution": HOSTILE, "principles": ((HOSTILE, HOSTILE),)},
        {"weights": {HOSTILE: 1.0}},
        {"columns": (HOSTILE,)},
        {"example": {"id": HOSTILE, "prompt": [{"role": "user", "content": HOSTILE}], "response_a": HOSTILE}},
        {"example": {"id": HOSTILE, "prompt": HOSTILE, "responses": [HOSTILE, "```", HOSTILE], "ratings": [HOSTILE]}},
        {
            "example": {"id": HOSTILE, "prompt": HOSTILE, "response": HOSTILE, "principle": HOSTILE},
            "principle_choice": "sample",
        },
    ],
)
@pytest.mark.parametrize("facts", [FACTS, RATED])
def test_hostile_text_is_inert(changed, facts):
    card = render_card(replace(facts, **changed))
    assert header(card)["configs"][0]["config_name"] == "default"
    text = outside_fences(card)
    assert set(re.findall(r"</?[a-z]+", text)) <= {"<code", "</code"}
    assert not re.search(r"(?<!\\)\]\(", text)  # no link
    assert "# Heading" not in [line.strip() for line in text.split("\n")]
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", card)
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)  # two cells each, whatever stands in them


def test_text_that_hides_is_spelled_out():
    # Tag characters and soft hyphens show nothing and still reach a model.
    example = {"id": "r", "prompt": "hid\U000e0041\u00adden", "response_a": "x", "response_b": "y"}
    assert "hid\\U000e0041\\xadden" in render_card(replace(FACTS, example=example))


def test_sampled_verdicts_are_not_called_log_probabilities():
    assert "read from the model's own log-probabilities" in render_card(FACTS)
    sampled = render_card(replace(FACTS, settings={"scoring": "sample"}))
    assert "counted over sampled verdicts" in sampled
    assert "log-probabilities" not in sampled


def test_only_the_principles_that_were_asked_are_listed():
    card = render_card(replace(FACTS, principle_choice="brief, other"))
    assert "- `brief`: The shorter answer is better." in card
    assert "The kinder answer is better." not in card
    assert "The kinder answer is better." in render_card(replace(FACTS, principle_choice="sample"))


def test_a_principle_is_shown_where_the_run_drew_it():
    example = {"id": "r", "prompt": "P", "response_a": "x", "response_b": "y", "principle": "kind"}
    users_own = replace(FACTS, example=example)
    assert "| `principle` | `kind` |" not in render_card(users_own)
    assert "| `principle` | `kind` |" in render_card(replace(users_own, principle_choice="sample"))


def test_long_texts_are_cut_and_say_so():
    card = render_card(replace(FACTS, example={"id": "r", "prompt": "p" * 5_000, "response_a": "x", "response_b": "y"}))
    assert "p" * 1_200 + "\n[... 3,800 more characters]" in card
    assert "p" * 1_201 not in card


def test_a_card_of_ratings():
    card = render_card(RATED)
    for expected in (
        "Responses with ratings from 1 to 10",
        "read from the model's own log-probabilities",
        "## How the ratings were made",
        "Each response was judged under every principle, and the ratings were averaged by weight.",
        "| Rows | 2 |",
        "| Rated responses | 3 |",
        "| Failed, in `failures.jsonl` and not in the data | 3 |",
        "| Judge calls behind the ratings | 3 |",
        "| Mean | 5.50 |",  # (2 + 9 + 5.5) / 3
        "| Standard deviation | 2.86 |",  # deviations -3.5 3.5 0: sqrt(24.5 / 3)
        "| Lowest and highest | 2.00 and 9.00 |",
        "| Standard deviation of the ten scores behind one rating, mean | 1.50 |",  # (0 + 0 + 4.5) / 3
        "| 2 | 1 (33.3 %) |",
        "| 3 | 0 (0.0 %) |",
        "| 6 | 1 (33.3 %) |",  # 5.5 rounds up
        "fell on the ten scores: 0.9600 on average, 0.9400 at least",
        "responses with such a bound: 1.",
        "`reward` is (rating - 5.5) / 4.5, from -1 to 1",
        "```\nthe other\n```",
        "| `ratings` | `2, 9` |",
        "| `label_masses` | `0.98, null` |",
        "rlaif rate examples/data/responses.jsonl -o runs/demo",
    ):
        assert expected in card
    for absent in ("prob_a", "swap", "Swap", "position", "Pairs", "comparison", "## The panel", "rating_probs` |"):
        assert absent not in card
    assert header(card)["tags"] == ["rlaif", "ai-feedback", "ratings"]


def test_a_single_rating_shows_its_distribution():
    assert f"| `rating_probs` | `{', '.join(['0.1'] * 10)}` |" in render_card(ONE_RESPONSE)


def test_of_many_candidates_a_few_are_shown():
    example = {"id": "r", "prompt": "P", "responses": [f"response {number}" for number in range(1, 8)]}
    card = render_card(replace(RATED, example=example))
    assert "response 4" in card
    assert "response 5" not in card
    assert "And 3 more." in card


def test_a_run_without_ratings():
    card = render_card(replace(RATED, statistics=RatingStatistics(), example=None))
    assert "There are no rows: none could be rated." in card
    for absent in ("## Distribution", "## Label mass", "## A row", "nan", "None"):
        assert absent not in card


def test_the_smoothing_of_samples_is_stated_and_right():
    from rlaif.judge.scoring import sampled_distribution

    sampled = {"scoring": "sample", "samples": 4}
    labels = render_card(replace(FACTS, settings=sampled))
    assert (
        "half a verdict for each of the two slots: 3 of 4 samples for a slot make (3 + 0.5) / (4 + 1) = 0.7" in labels
    )
    assert sampled_distribution([3, 1])[0] == pytest.approx(0.7)
    ratings = render_card(replace(RATED, settings=sampled))
    assert "a tenth for each of the ten scores: 3 of 4 samples for a score make (3 + 0.1) / (4 + 1) = 0.62" in ratings
    assert sampled_distribution([3, 1, *[0] * 8])[0] == pytest.approx(0.62)
    assert "counted over sampled ratings" in ratings
    for card in (labels, ratings):
        assert "| Samples that could not be read (`unreadable_samples`) | 0 |" in card
        assert "log-probabilities" not in card
    assert "spread evenly" not in render_card(FACTS) + render_card(RATED)


def test_a_panel_of_pairwise_judges():
    counts = LabelStatistics()
    for x, y in ((0.1, 0.1), (0.2, 0.3), (0.3, 0.2)):
        named = tuple(NamedLabel(name, SoftLabel(prob, prob, None)) for name, prob in (("fake:x", x), ("fake:y", y)))
        counts.add(Judgment(SoftLabel(x, x, None), by_judge=named, calls=2))
    alone = (NamedLabel("fake:x", SoftLabel(0.9, 0.9, None)),)
    counts.add(Judgment(SoftLabel(0.9, 0.9, None), by_judge=alone, missing_judges=("fake:y",), calls=1))
    facts = replace(
        FACTS,
        judges=("fake:x", "fake:y"),
        statistics=counts,
        settings={"scoring": "logprobs", "allow_partial_panel": True},
    )
    card = render_card(facts)
    assert "| Panel of 2 judges | `fake:x`, `fake:y` |" in card
    assert "| `fake:x` and `fake:y` | 0.50 (3 comparisons) |" in card
    assert "fewer independent votes" in card
    assert "| allow\\_partial\\_panel | `true` |" in card
    assert "| Rows that a judge is missing from (`missing_judges`) | 1 |" in card
    none_missing = replace(facts, statistics=statistics(), settings={"allow_partial_panel": True})
    assert "(`missing_judges`) | 0 |" in render_card(none_missing)
    assert "missing_judges" not in render_card(FACTS)


def test_a_panel_of_raters_that_always_say_the_same():
    counts = RatingStatistics()
    for _ in range(3):
        counts.add([certain(5, by_judge=(NamedRating("a", certain(5).probs), NamedRating("b", certain(5).probs)))])
    card = render_card(replace(RATED, statistics=counts))
    assert "| `a` and `b` | undefined (3 responses) |" in card
    assert "by their `rating`" in card


CALIBRATED = replace(
    FACTS,
    calibration=Calibration(
        1.75,
        -0.25,
        0.5,
        FittedOn(321, ("openai:`x`",), before={"brier": 0.25, "log_loss": 0.7}, after={"brier": 0.2, "log_loss": 0.6}),
    ),
    example={**FACTS.example, "raw_prob_a": 0.9},
)


def test_a_calibration_is_told_with_what_it_is_worth():
    card = render_card(CALIBRATED)
    assert "| temperature | 1.75 |" in card
    assert "| slot bias | -0.25 |" in card
    assert "| Fitted to | 321 rows with human labels |" in card
    assert "| Brier score on rows held out | 0.2500 before, 0.2000 after |" in card
    assert "ECE" not in card  # it was not measured
    assert "before calibration" in card
    assert "| `raw_prob_a` | `0.9` |" in card
    assert "## Calibration" not in render_card(FACTS)


def test_labels_made_without_a_call_say_from_which_run():
    card = render_card(replace(CALIBRATED, derived_from="the `run`"))
    assert "No call was made" in card
    assert "Judge calls behind" not in card
    assert "asks no judge" in card
    assert "US dollars" not in card


def test_a_clamp_is_told():
    clamped = replace(
        FACTS, settings={**FACTS.settings, "clamp": "0.4-0.6"}, example={**FACTS.example, "raw_prob_a": 0.97}
    )
    card = render_card(clamped)
    assert "## Clamp\n\n`prob_a` is kept within `0.4-0.6`" in card
    assert "`raw_prob_a` holds what it was before;" in card
    assert "| `raw_prob_a` | `0.97` |" in card
    both = render_card(replace(clamped, calibration=Calibration(0.5)))
    assert "before that and before the calibration" in both
    unclamped = render_card(replace(clamped, settings={**FACTS.settings, "clamp": None}))
    assert "## Clamp" not in unclamped
    assert "raw_prob_a" not in unclamped  # the column is the user's own


def test_unequal_weights_of_the_constitution_are_named():
    assert "(weight" not in render_card(FACTS)
    weighed = replace(FACTS, own_weights={"kind": 2.0, "brief": 1.0})
    assert "- `kind` (weight 2): The kinder answer is better.\n- `brief` (weight 1): The sh" in render_card(weighed)
    given = replace(weighed, weights={"kind": 0.5, "brief": 3.0})  # what rlaif reweight was given counts
    assert "- `kind` (weight 0.5): The kinder answer is better.\n- `brief` (weight 3): The sh" in render_card(given)


def test_new_weights_are_named_with_their_principles():
    weighed = replace(FACTS, weights={"kind": 2.5, "brief": 0.0})
    card = render_card(weighed)
    assert "- `kind` (weight 2.5): The kinder answer is better.\n- `brief` (weight 0): The shorter" in card
    assert "`rlaif reweight` averaged the answers by the weights given here" in card
    assert "by_judge" not in card
    assert "there is no column `by_judge`" in render_card(replace(weighed, judges=("a", "b")))
    assert "- `kind` (weight 2.5): its text is not at hand" in render_card(replace(weighed, principles=()))
