from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.rewards.verifiers import exact_match, final_number, marked_answer, number_match


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42.", 42),
        ("It is **42**.", 42),
        (r"So \(x = 42\).", 42),
        ("12 + 30 = 42", 42),
        ("$1,234.50 in all", Fraction("1234.5")),
        ("-7", -7),
        ("−7 °C", -7),
        ("5-3", 3),  # the minus belongs to a difference
        ("1e3", 1000),
        ("50%", 50),
        ("1/2", Fraction(1, 2)),
        ("#### 42", 42),
        ("#### $42 dollars\nor 43?", 42),  # what follows the marked line is not the answer
        (r"\boxed{42}, not 43", 42),
        (r"\boxed{1} no, \boxed{\text{42}}", 42),
        (r"\boxed{\dfrac{1}{2}}", Fraction(1, 2)),
        (r"\boxed{10{,}000}", 10000),
        (r"\boxed{42\text{ kg}}", 42),
        (r"\boxed{x = 42}", 42),
    ],
)
def test_the_final_number(text: str, number: Fraction | int) -> None:
    assert final_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", "none", "H20x", "4x", "2^10", "1/0", "9" * 100, "3.14.15 is 3.14 point 15x",
        "#### ", "#### unknown, perhaps 42 or 43", "#### 42 + 0", "I say 42 #### ?",
        r"\boxed{42", r"\boxed{4x}", r"\boxed{4\pi}", r"\boxed{\sqrt{42}}", r"\boxed{\frac{x}{42}}", r"\boxed{42, 43}",
    ],
)  # fmt: skip
def test_what_is_no_single_number_is_none(text: str) -> None:
    assert final_number(text) is None
    assert number_match([text], [42]) == [0.0]


def test_answers_of_the_data_may_be_numbers_or_whole_solutions() -> None:
    answers = [7, 7.0, "7", "3 + 4 = 7\n#### 7", None, " "]
    assert number_match(["it is 7"] * 6, answers, topic=["sums"] * 6) == [1.0, 1.0, 1.0, 1.0, None, None]
    with pytest.raises(ValueError, match="'answer' holds 'seven', expected a number"):
        number_match(["7"], ["seven"])
    with pytest.raises(ValueError, match="'answer' holds a list of 1"):
        number_match(["7"], [[7]])


def test_exact_match_compares_the_marked_answer_or_all_of_it() -> None:
    texts = ["Paris\n", "Well. #### Paris", r"\boxed{Paris}", "Paris, France", "#### Paris, not Rome", ""]
    assert exact_match(texts, ["Paris"] * 6) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    assert exact_match(["", "12"], ["", 12]) == [None, 1.0]


def test_a_mark_that_is_not_closed_holds_nothing() -> None:
    assert marked_answer("no mark") is None
    assert marked_answer(r"\boxed{\boxed{1}}") == "1"
    assert (marked_answer(r"\boxed{a{b}c}"), marked_answer(r"\boxed{a{b}"), marked_answer("#### a #### b")) == (
        "a{b}c",
        "",
        "b",
    )


@given(st.text(alphabet="0123456789.,-/eE#\\boxed{}$ x\n*", max_size=60))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert number_match([text], [10**40]) == [0.0]
    assert exact_match([text], ["the answer"]) == [0.0]


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{}", "#### {}", r"\boxed{{{}}}", "it is {}.", "**{}**"]))
def test_an_integer_is_found_however_it_is_marked(number: int, form: str) -> None:
    assert final_number(form.format(number)) == number
    assert final_number(form.format(f"{number:,}")) == number
    assert number_match([form.format(number)], [number + 1]) == [0.0]
