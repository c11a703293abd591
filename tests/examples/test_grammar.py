"""The grammar behind the built-in judge: its splits are apart, its ground truth is right, its output repeats."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

from builtin_judge.example_data import example_comparisons, example_responses  # noqa: E402
from builtin_judge.grammar import make_comparison, make_copy_pair  # noqa: E402
from builtin_judge.lexicon import TOPIC_SECTIONS, held_out, is_shared, lexicon, read_sections  # noqa: E402
from builtin_judge.principles import (  # noqa: E402
    KIND_NAMES,
    OPPOSITES,
    Situation,
    prefers,
    prefers_all,
    quality,
    rating_of,
    shipped_wordings,
    word_principle,
)
from builtin_judge.writing import Plan, Response  # noqa: E402

ASKED, HARMFUL, CONSTRAINED = Situation(), Situation(is_harmful=True), Situation(has_constraint=True)
TEN_WORDS = "one two three four five six seven eight nine ten"


def made(text: str = TEN_WORDS, concrete: int = 0, vague: int = 0, **traits: object) -> Response:
    return Response(text, Plan(**traits), concrete, vague)  # type: ignore[arg-type]


def test_the_splits_share_no_entry() -> None:
    train, test = lexicon("train"), lexicon("test")
    for section, entries in read_sections().items():
        if is_shared(section):
            continue
        assert not set(train[section]) & set(test[section]), section
        assert set(train[section]) | set(held_out()[section]) == set(entries), section
        assert set(test[section]) <= set(held_out()[section]), section
        if len(entries) >= 10 and "." not in section:
            assert test[section], section


def test_nothing_that_is_held_out_is_generated_for_training() -> None:
    rng, words = random.Random(7), lexicon("train")
    texts = []
    for _ in range(1500):
        pair = make_comparison(rng, words)
        texts += [pair.first.text, pair.second.text, *(text for _, text in pair.scene.turns)]
        texts.append(word_principle(rng, words, [rng.choice(KIND_NAMES)]))
    everything = f" {' '.join(' '.join(texts).lower().split())} "
    test = lexicon("test")
    for section in held_out():
        for entry in test[section]:
            is_word = section in TOPIC_SECTIONS - {"topics", "harm_targets", "harm_things"}
            if "{" not in entry and not is_word and len(entry.split()) > 1:
                assert f" {entry} " not in everything, (section, entry)


def test_words_of_held_out_phrasings_are_known_to_training() -> None:
    def words(entries: Iterable[str]) -> set[str]:
        return set(re.findall(r"[a-z0-9']+", " ".join(entries).lower()))

    sections = read_sections()
    known = words(
        entry for name in sections for entry in (sections[name] if is_shared(name) else lexicon("train")[name])
    )
    slots = {"v_good", "v_bad"}
    for name in set(held_out()) - TOPIC_SECTIONS:
        assert words(lexicon("test")[name]) <= known | slots, name


def test_responses_do_not_recur_between_the_splits() -> None:
    def responses(split: str) -> set[str]:
        rng, words = random.Random(3), lexicon(split)  # type: ignore[arg-type]
        pairs = [make_comparison(rng, words) for _ in range(400)]
        return {response.text for pair in pairs for response in (pair.first, pair.second) if response.words > 8}

    assert not responses("train") & responses("test")


@pytest.mark.parametrize("size", ["tiny", "short", "long"])
def test_the_same_seed_makes_the_same_comparisons(size: str) -> None:
    def texts(seed: int) -> list[str]:
        rng, words = random.Random(seed), lexicon("test")
        return [make_comparison(rng, words, size).first.text for _ in range(20)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)


def test_the_shorter_is_concise_unless_the_lengths_are_close() -> None:
    short, long, similar = made("a b c d e"), made(TEN_WORDS), made(TEN_WORDS + " eleven")
    assert prefers("concise", ASKED, short, long) == 1.0
    assert prefers("detailed", ASKED, short, long) == 0.0
    assert prefers("concise", ASKED, long, similar) == 0.5  # ln(11 / 10) is less than the margin of 0.2


def test_a_refusal_is_harmless_only_where_there_is_harm() -> None:
    refusal, answer = made(refuses=True), made()
    assert prefers("harmless", HARMFUL, refusal, answer) == 1.0
    assert prefers("complies", HARMFUL, refusal, answer) == 0.0
    assert prefers("harmless", ASKED, refusal, answer) == 0.5
    assert prefers("complies", ASKED, refusal, answer) == 0.0
    assert prefers("harmless", ASKED, made(tone=-1), answer) == 0.0  # an insult harms, if less


def test_tone_certainty_and_topic_decide_their_own_kinds_alone() -> None:
    polite, rude = made(tone=1, certainty=-1), made(tone=-1, certainty=1)
    assert prefers("polite", ASKED, polite, rude) == 1.0
    assert prefers("rude", ASKED, polite, rude) == 0.0
    assert prefers("uncertain", ASKED, polite, rude) == 0.0
    assert prefers("confident", ASKED, polite, rude) == 1.0
    assert prefers("ontopic", ASKED, polite, rude) == 0.5
    assert prefers("ontopic", ASKED, made(on_topic=False), rude) == 0.0


def test_instructions_are_followed_or_not() -> None:
    assert prefers("follows", CONSTRAINED, made(follows=True), made(follows=False)) == 1.0
    assert prefers("follows", CONSTRAINED, made(follows=True), made(follows=True, on_topic=False)) == 1.0
    assert prefers("ignores", CONSTRAINED, made(follows=True), made(follows=False)) == 0.0


def test_quality_is_graded() -> None:
    # 4 + 1.1 * 2 concrete sentences = 6.2; rude takes 2.5, polite gives 0.7
    assert quality(ASKED, made(concrete=2)) == pytest.approx(6.2)
    assert quality(ASKED, made(concrete=2, tone=-1)) == pytest.approx(3.7)
    assert quality(ASKED, made(concrete=2, tone=1)) == pytest.approx(6.9)
    assert quality(ASKED, made(vague=3)) == 3.0
    assert quality(ASKED, made(concrete=5, on_topic=False)) == 1.5
    assert quality(ASKED, made(refuses=True)) == 2.0
    assert quality(HARMFUL, made(refuses=True, reason=True, alternative=True)) == 9.5
    assert quality(HARMFUL, made(concrete=4)) == 1.2
    assert prefers("helpful", ASKED, made(concrete=3), made(concrete=1)) == 1.0


def test_two_principles_at_once_need_to_agree() -> None:
    polite_long, rude_short = made(tone=1), made("a b c", tone=-1)
    assert prefers_all(("polite", "detailed"), ASKED, polite_long, rude_short) == 1.0
    assert prefers_all(("polite", "concise"), ASKED, polite_long, rude_short) is None
    assert prefers_all(("polite", "ontopic"), ASKED, polite_long, rude_short) == 1.0


def test_swapping_the_responses_swaps_every_verdict() -> None:
    rng, words = random.Random(5), lexicon("test")
    for _ in range(150):
        pair = make_comparison(rng, words)
        for kind in KIND_NAMES:
            there = prefers(kind, pair.scene.situation, pair.first, pair.second)
            back = prefers(kind, pair.scene.situation, pair.second, pair.first)
            assert there + back == 1.0


def test_opposite_principles_disagree_wherever_both_decide() -> None:
    rng, words = random.Random(6), lexicon("train")
    seen = set()
    for _ in range(400):
        pair = make_comparison(rng, words)
        decided = pair.decided_kinds()
        for kind, opposite in OPPOSITES.items():
            if kind == "harmless" and pair.first.plan.refuses == pair.second.plan.refuses:
                continue  # less harmful by being kinder, not by refusing
            if kind == "harmless" and pair.scene.situation != HARMFUL:
                continue  # a refusal of what is harmless
            if kind in decided and opposite in decided:
                args = (pair.scene.situation, pair.first, pair.second)
                assert prefers(kind, *args) == 1.0 - prefers(opposite, *args), (kind, pair)
                seen.add(kind)
    assert seen == set(OPPOSITES)


def test_off_topic_answers_are_common_enough_to_learn_from() -> None:
    rng, words = random.Random(8), lexicon("train")
    pairs = [make_comparison(rng, words) for _ in range(600)]
    asked = [p for p in pairs if p.scene.situation == ASKED]
    differing = [p for p in asked if p.first.plan.on_topic != p.second.plan.on_topic]
    assert 0.35 < len(differing) / len(asked) < 0.55


def test_an_answer_on_topic_names_it_and_one_off_topic_does_not() -> None:
    rng, words = random.Random(9), lexicon("test")
    for _ in range(300):
        pair = make_comparison(rng, words)
        for response in (pair.first, pair.second):
            if pair.scene.situation.is_harmful or response.plan.refuses:
                continue
            names_it = pair.scene.topic.head in response.text.lower()
            assert names_it == response.plan.on_topic, (pair.scene.topic, response)


def test_a_copy_pair_differs_in_what_it_repeats() -> None:
    rng, words = random.Random(10), lexicon("train")
    for _ in range(100):
        pair = make_copy_pair(rng, words)
        prompt = set(pair.scene.topic.full.split())
        for response in (pair.first, pair.second):
            assert bool(prompt & set(response.text.split())) == response.plan.on_topic


def test_ratings_follow_the_kind_asked_for() -> None:
    assert rating_of("polite", ASKED, made(tone=1)) > 9
    assert rating_of("rude", ASKED, made(tone=1)) < 2
    assert rating_of("concise", ASKED, made("a b c")) == 10.0
    assert rating_of("detailed", ASKED, made("a b c")) == 1.0
    assert rating_of("harmless", HARMFUL, made()) == 1.0
    for kind in KIND_NAMES:
        assert 1.0 <= rating_of(kind, CONSTRAINED, made(follows=False)) <= 10.0


def test_every_principle_of_our_constitutions_is_trained_on() -> None:
    assert sum(len(texts) for texts in shipped_wordings().values()) >= 14
    assert {"concise", "detailed", "polite", "rude", "uncertain", "confident", "harmless", "helpful"} <= set(
        shipped_wordings()
    )


def test_the_example_data_is_what_the_generator_makes() -> None:
    folder = REPOSITORY / "examples" / "data"
    for name, rows in (("comparisons", example_comparisons()), ("responses", example_responses())):
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows
