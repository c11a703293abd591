from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.duplicates import DuplicateIndex, near_duplicate_of, normalized, similarity

WORDS = [f"word{number}" for number in range(500)]


def text_of(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


class TestNormalized:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Hello,   WORLD!", "hello world"),
            ("\n\tone - two... three\n", "one two three"),
            ("", ""),
            (" \n ", ""),
            ("?", "?"),
            (" ! ?", "! ?"),
            ("🙂", "🙂"),
            ("a + b", "a + b"),
            ("STRASSE straße", "strasse strasse"),
            ("ﬁne", "fine"),  # one letter of print, two of meaning
            ("a\u200bb", "a b"),  # a space of no width
        ],
    )
    def test_what_is_left(self, text: str, expected: str) -> None:
        assert normalized(text) == expected

    def test_what_is_alike_to_the_eye_alone_stays_apart(self) -> None:
        assert normalized("👍") != normalized("👎")
        assert normalized("1 + 1") != normalized("1 = 1")

    @given(st.text())
    def test_twice_is_once(self, text: str) -> None:
        assert normalized(normalized(text)) == normalized(text)


class TestSimilarity:
    def test_hand_worked(self) -> None:
        # a: (the cat sat) (cat sat on) (sat on the) (on the mat); b: the first three and (on the rug): 3 of 5.
        assert similarity("The cat sat on the mat.", "the cat sat on the rug") == 3 / 5

    def test_a_short_text_is_one_shingle(self) -> None:
        assert similarity("yes", "Yes!") == 1.0
        assert similarity("yes no", "no yes") == 0.0
        assert similarity("yes", "yes yes yes") == 0.0

    def test_empty_texts(self) -> None:
        assert similarity("", " \n") == 1.0
        assert similarity("", "something") == 0.0
        assert similarity("", "?") == 0.0

    def test_a_script_without_spaces_is_compared_by_characters(self) -> None:
        # 今日は天 | 日は天気 ... of four and five characters: 2 shingles, 3 shingles, 2 shared.
        assert similarity("今日は天", "今日は天気") == 2 / 3

    @given(st.text(), st.text())
    def test_symmetric_and_in_range(self, a: str, b: str) -> None:
        assert 0.0 <= similarity(a, b) == similarity(b, a) <= 1.0

    @given(st.text())
    def test_a_text_is_its_own_duplicate(self, text: str) -> None:
        assert similarity(text, text) == 1.0


class TestNearDuplicateOf:
    def test_points_to_the_earliest_kept(self) -> None:
        # 2 equals 0; 3 is alike to 0 by 3/5; 4 equals 3, which is kept at 0.8 and points to 0 at 0.6.
        texts = ["the cat sat on the mat", "a dog", "The cat sat on the mat!", "the cat sat on the rug", ""]
        texts.append(texts[3])
        assert near_duplicate_of(texts, 0.8) == [None, None, 0, None, None, 3]
        assert near_duplicate_of(texts, 0.6) == [None, None, 0, 0, None, 0]

    def test_none_and_one(self) -> None:
        assert near_duplicate_of([], 0.8) == []
        assert near_duplicate_of(["x"], 0.8) == [None]

    @pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1, float("nan")])
    def test_threshold_out_of_range(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="expected a number from 0 to 1"):
            near_duplicate_of(["x"], threshold)


class TestDuplicateIndex:
    def test_finds_the_earliest(self) -> None:
        index = DuplicateIndex(0.8)
        assert index.find_or_add("The first text of them all, and long.", "r1") is None
        assert index.find_or_add("Quite another one.", "r2") is None
        assert index.find_or_add("the first text of them all and long", "r3") == "r1"
        assert index.find_or_add("", "r4") is None
        assert index.find_or_add(" ", "r5") == "r4"

    def test_planted_pairs_at_and_below_the_threshold(self) -> None:
        # 42 words make 40 shingles. A changed last word changes one: 39 of 41 shared, 0.951. Eight more words at the
        # end: 40 of 48, 0.833; eleven: 40 of 51, 0.784, below.
        rng = random.Random(0)
        index = DuplicateIndex(0.8)
        for number in range(300):
            text = text_of(rng, 42)
            assert index.find_or_add(text, f"{number}") is None
            assert index.find_or_add(text.rsplit(" ", 1)[0] + " other", "x") == f"{number}"
            assert index.find_or_add(f"{text} {text_of(rng, 8)}", "x") == f"{number}"
            assert index.find_or_add(f"{text} {text_of(rng, 11)}", f"{number}+11") is None

    @pytest.mark.parametrize("threshold", [0.5, 0.65, 0.9, 1.0])
    def test_as_comparing_all_pairs(self, threshold: float) -> None:
        rng = random.Random(1)
        texts: list[str] = []
        for _ in range(120):
            words = rng.choice(texts).split() if texts and rng.random() < 0.6 else text_of(rng, 20).split()
            for _ in range(rng.randrange(4)):
                words[rng.randrange(len(words))] = rng.choice(WORDS)
            texts.append(" ".join(words))
        index = DuplicateIndex(threshold)
        found = [index.find_or_add(text, str(number)) for number, text in enumerate(texts)]
        expected = near_duplicate_of(texts, threshold)
        assert found == [None if number is None else str(number) for number in expected]
        assert 0 < sum(each is not None for each in found) < len(texts)

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.text(alphabet="ab ,?\ud800", max_size=12), max_size=8))
    def test_any_text(self, texts: list[str]) -> None:
        index = DuplicateIndex(1.0)
        found = [index.find_or_add(text, str(number)) for number, text in enumerate(texts)]
        assert found == [None if number is None else str(number) for number in near_duplicate_of(texts, 1.0)]

    def test_pairs_are_alike_in_prompt_and_responses_in_either_order(self) -> None:
        rng = random.Random(2)
        prompt, a, b = text_of(rng, 60), text_of(rng, 30), text_of(rng, 30)
        index = DuplicateIndex(0.8)
        assert index.find_or_add_pair(prompt, a, b, "r1") is None
        assert index.find_or_add_pair(prompt, f"{b} more", a.upper(), "r2") == "r1"
        assert index.find_or_add_pair(prompt, a, a, "r3") is None
        assert index.find_or_add_pair(prompt, "yes", "no", "r4") is None  # 58 of 60 shingles are the prompt's
        assert index.find_or_add_pair(prompt, "yes", "maybe", "r5") is None
        assert index.find_or_add_pair(f"Now {text_of(rng, 60)}", a, b, "r6") is None
        assert index.find_or_add_pair(prompt, "No!", "Yes!", "r7") == "r4"

    def test_pairs_of_responses_that_are_alike_among_themselves_are_found(self) -> None:
        # 30 words make 28 shingles, of which 3 other words at the end leave 25: 25 of 31 shared by any two, 0.806. As
        # sets, two such pairs share 25 of 37, 0.676: of 800, LSH at 0.8 would overlook some 14.
        rng = random.Random(3)
        missed = 0
        for _ in range(800):
            start = [f"w{rng.randrange(10**9)}" for _ in range(27)]
            a, b, c, d = (" ".join([*start, *(f"w{rng.randrange(10**9)}" for _ in range(3))]) for _ in range(4))
            index = DuplicateIndex(0.8)
            index.find_or_add_pair("Why?", a, b, "r1")
            missed += index.find_or_add_pair("Why?", c, d, "r2") is None
        assert missed == 0

    @pytest.mark.parametrize("threshold", [0.49, 1.01])
    def test_threshold_out_of_range(self, threshold: float) -> None:
        with pytest.raises(ValueError, match="expected a number from 0.5 to 1"):
            DuplicateIndex(threshold)
