"""Generated text to a verdict: what is read, and what is refused."""

from __future__ import annotations

import pytest

from rlaif.errors import UnreadableVerdictError
from rlaif.judge.parsing import find_answer, find_rating, find_verdict, token_at
from rlaif.records import GeneratedToken, Slot


@pytest.mark.parametrize(
    ("text", "slot"),
    [
        ("1", Slot.FIRST),
        (" 2.\n", Slot.SECOND),
        ("**1**", Slot.FIRST),
        ("Response 2", Slot.SECOND),
        ("Both answer. Preferred response: 1", Slot.FIRST),
        ("Preferred response (1 or 2): 2", Slot.SECOND),
        ("**Preferred response:** 2", Slot.SECOND),
        ("preferred response is: [[1]]", Slot.FIRST),
        ("Preferred response: Response 2.", Slot.SECOND),
        ("Preferred response: 1\n\nPreferred response: 1", Slot.FIRST),
        ("It has 2 faults and 1 virtue.\nPreferred response: 1", Slot.FIRST),
        ("**Preferred response:**\n\n2", Slot.SECOND),
        ('"Preferred response: 2"', Slot.SECOND),
        ('Response 1 says "Preferred response: 1", a trick.\n\nPreferred response: 2', Slot.SECOND),
        ("> Preferred response: 1\n\nThat is a trick.\n\n**Preferred response: 2**", Slot.SECOND),
        ("To find the preferred response:\n\n1. Length: equal.\n2. Tone: equal.\n\nPreferred response: 2", Slot.SECOND),
        ("Dispreferred response: 2\n_Preferred response: 1_", Slot.FIRST),
    ],
)
def test_a_stated_verdict_is_read(text: str, slot: Slot) -> None:
    found = find_verdict(text)
    assert found.slot is slot
    assert text[found.start] == slot.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "12",
        "I cannot decide between these responses.",
        "1 or 2",
        "Preferred response: 1 ... on reflection, Preferred response: 2",
        "Preferred response: 10",
        "Preferred response: 1.5",
        "Preferred response: both",
        "Preferred response: 1 or 2",
        "Preferred response: 1/2",
        "Preferred response: **1** or **2**",
        "The dispreferred response is 2.",
        "Preferred response: １",
        'Response 1 says "Preferred response: 1", which is a trick; the other is better.',
        'Response 1 says **"Preferred response: 1"**, a trick.',
        "> Preferred response: 1\n\nThis is quoted from the first.",
        "To find the preferred response:\n\n1. Clarity: Response 2 is clearer",
    ],
)
def test_anything_else_is_an_error_and_not_a_guess(text: str) -> None:
    with pytest.raises(UnreadableVerdictError):
        find_verdict(text)


def test_the_token_of_the_verdict_is_found_by_its_place() -> None:
    tokens = tuple(GeneratedToken(text, ()) for text in ["Pre", "ferred response", ":", " 1", "\n"])
    text = "".join(token.token for token in tokens)
    token = token_at(tokens, text, find_verdict(text).start)
    assert token is not None
    assert token.token == " 1"


def test_a_place_beyond_the_tokens_has_none() -> None:
    assert token_at((GeneratedToken("1", ()),), "1 and more", 5) is None


def test_tokens_that_do_not_spell_the_reply_name_no_place() -> None:
    # half a character has no text of its own: counted by lengths, the verdict would be read at the token before it
    texts = ["\\xf0\\x9f", "\\x98\\x80", " 2", " is 1", "\nPreferred response:", " 1"]
    text = "\U0001f600 2 is 1\nPreferred response: 1"
    assert token_at(tuple(GeneratedToken(each, ()) for each in texts), text, find_verdict(text).start) is None


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("7", "7"),
        (" 10.", "10"),
        ("**8**/10", "8"),
        ("8/10", "8"),
        ("It is clear.\nRating: 7", "7"),
        ("It is clear. Rating (1 to 10): 10", "10"),
        ("**Rating:** 9/10", "9"),
        ("## Rating\n\n6\n", "6"),
        ("The rating is 3.", "3"),
        ("My rating: 4 out of 10", "4"),
        ("Rating: 7.\nRating: 7", "7"),
        ("Strong, demonstrating 3 ideas. _Rating: 8_", "8"),
        ("Rating - 6", "6"),
    ],
)
def test_ratings_are_read(text: str, label: str) -> None:
    stated = find_rating(text)
    assert stated.label == label
    assert text[stated.start :].startswith(label)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fine",
        "11",
        "0",
        "Rating: 7.5",
        "Rating: 7 or 8",
        "Rating: 7-8",
        "Rating: 7 to 8",
        "Rating: 100",
        "Rating: 7/5",
        "Rating: **4**/5",
        "Rating: 4 out of 5",
        "Rating: **7** or **8**",
        "Rating: -3",
        "Rating: .7",
        "-3",
        ".7",
        "It wins by illustrating 2 ideas.",
        "Rating: 3\nRating: 9",
        'It says "Rating: 10" to please me.',
        "> Rating: 10",
        "Rating from 1 to 10 is hard",
    ],
)
def test_what_is_no_rating_is_refused(text: str) -> None:
    with pytest.raises(UnreadableVerdictError):
        find_rating(text)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("1", "1"),
        (" 2.\n", "2"),
        ("1 (yes)", "1"),
        ("2: no", "2"),
        ("It insults nobody. Answer: 1", "1"),
        ("**Answer:** 2 (no)", "2"),
        ("Answer (1 = yes, 2 = no): 2", "2"),
        ("The answer is 1.", "1"),
        ("**Answer:**\n\n1", "1"),
        ('The response says "Answer: 1", a trick.\n\nAnswer: 2', "2"),
    ],
)
def test_finds_the_answer(text: str, label: str) -> None:
    stated = find_answer(text)
    assert stated.label == label
    assert text[stated.start :].startswith(label)


@pytest.mark.parametrize(
    "text", ["", "yes", "3", "12", "Answer: 1.5", "Answer: 1 or 2", "Answer (1 = yes, 2 = no):", "Answer: 1\nAnswer: 2"]
)
def test_reads_no_answer(text: str) -> None:
    with pytest.raises(UnreadableVerdictError):
        find_answer(text)
