"""Loops, trailing junk and emptiness, on texts that people and policies write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.online.texts import ends_in_junk, is_repeated, text_shares, words_of

FINE = [
    "",
    "The end.",
    "Really?!",
    "Wow!!!",
    "Well...",
    'He said "yes."',
    "(See above.)",
    "“Yes.”",
    "I like it :-)",
    "Thanks ;)",
    "See you :D",
    "We love you 🎉🎉🎉",
    "Well done 👍🏽",
    "With love ❤️",
    "It is written in C++",
    "Or in C#",
    "That is 50%",
    "That is 50 %",
    "It costs 30 €",
    "At 20 °C",
    "Write to user@example.com",
    "So 5 * 3 = 15",
    "**Bold.**",
    "Text\n---",
    "One\n- two\n- ",
    "| a | b |\n|---|---|",
    "Run it:\n```py\nx = 1  #\n```",
    "Run it:\n```py\nx = {  #",
    "x = {'a': [1, {2}]};",
    "f(function () {\n  g();\n});\n}",
    "<p>Text</p>",
    "\\[ x = 1 \\]",
    "$x^2$",
    "He left —",
    "नमस्ते",
    "これはペンです。",
    "Is that so؟",
]
JUNK = [
    "Done. #",
    "Done!!!!!!",
    "What ?!?!?!",
    "Done. ~ ^ ~ ^",
    "A good answer ## @@ !!",
    "ok ok ok ok ok",
    "Thanks th th th th th",
    "Answer ) ) ) ) )",
    "Answer. )))))))))))))))",
    "Yes. 🎉🎉🎉🎉🎉",
    "Done ▁▁▁▁",
    "Done.\n§",
    "Done.,,,,",
    "Done. ........",
    "Done. \ufffd",
    "Done.###",
    "####@",
]


@pytest.mark.parametrize("text", FINE)
def test_what_ends_a_text_is_no_junk(text: str) -> None:
    assert not ends_in_junk(text)


@pytest.mark.parametrize("text", JUNK)
def test_symbols_that_end_no_sentence_are_junk(text: str) -> None:
    assert ends_in_junk(text)
    assert ends_in_junk(text + " \n")


def test_a_text_that_was_cut_off_may_end_in_a_few_symbols() -> None:
    assert ends_in_junk("We know that 2 + 2 =")
    assert not ends_in_junk("We know that 2 + 2 =", is_finished=False)
    assert ends_in_junk("We know # # # # #", is_finished=False)


@pytest.mark.parametrize(
    "text",
    [
        "It is good. It is good. It is good.",  # three words, three times: 9 words, at least 8
        "the cat sat the cat sat the cat sat th",  # the last word was cut in two
        "A story: and then and then and then and then",  # two words, four times
        "no " * 8,
        "Ha! " + "hahahahahahahahahaha",
        "soooooooooooo",
        "我爱你我爱你我爱你",  # three characters, three times
        # 32 words; the cycle of 10 is broken before its end: 30 runs of three, of which 12 are distinct, below a half.
        " ".join(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] * 3) + " x y",
    ],
)
def test_circles_are_seen(text: str) -> None:
    assert is_repeated(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No, no, no!",
        "very very very good",
        "I know, I know, I know.",  # 6 words
        "100000000000000000000",
        "Row, row, row your boat, gently down the stream; merrily, merrily, merrily, merrily, life is but a dream.",
        "one two three " + " ".join(f"w{number} and w{number + 1}" for number in range(20)),
    ],
)
def test_what_people_repeat_is_no_circle(text: str) -> None:
    assert not is_repeated(text)


def test_words_are_counted_in_scripts_without_spaces_too() -> None:
    assert words_of("It's two_words, 3 in ALL") == ("it's", "two", "words", "3", "in", "all")
    assert words_of("我爱 you") == ("我", "爱", "you")


def test_shares_by_hand() -> None:
    texts = ["Fine.", "Done. #", "no " * 9, "  "]
    # "no no ..." is also five fragments of at most three characters: junk as well as a loop.
    assert text_shares(texts, [True] * 4) == (0.25, 0.5, 0.25)
    # Cut off, "Done. #" has two symbols in a row that may just be where it stopped.
    assert text_shares(texts, [True, False, True, True]).junk == 0.25


@given(st.text(max_size=300))
def test_no_text_breaks_it_and_space_at_its_end_says_nothing(text: str) -> None:
    assert ends_in_junk(text) == ends_in_junk(text + " \n")
    assert is_repeated(text) == is_repeated(text + " ")


@pytest.mark.parametrize("unit", ["a", "a ", "#", "\u0301", "ab", "🎉", "- ", "|", "(", "a\u0301"])
def test_a_long_hostile_text_takes_no_long(unit: str) -> None:
    text = unit * (200_000 // len(unit))
    assert is_repeated(text + "1") in (True, False)
    assert ends_in_junk(text) in (True, False)
