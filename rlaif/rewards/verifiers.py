"""Verifiers, reward functions that compare with a known answer: 1 for the right one, 0 for anything else.

    --reward rlaif.rewards.verifiers:number_match      with a column `answer`

An answer that cannot be read is never rewarded. Where a completion marks its final answer, as \\boxed{...} or after
#### as in GSM8K, only the last mark counts, whatever stands around it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from rlaif.data.columns import described

_MARK = re.compile(r"####|\\boxed\s*\{")

_MARKUP = (
    (re.compile(r"(?<![\w)])\*{1,2}|\*{1,2}(?![\w(])|\\[()\[\]]"), " "),
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\^\{?\\circ\}?|\\(?:left|right)(?![a-z])"), " "),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]{1,64})\}\s*\{([^{}]{1,64})\}"), r"\1/\2"),
    (re.compile(r"\\!|\\,(?=[0-9])"), ""),
    (re.compile(r"\\[ ,;:]|~"), " "),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"\{,\}"), ","),
)
"""What Markdown and LaTeX write around numbers, and what is read in its place."""

_LONGEST = 64
"""Characters: what is longer is no number that anybody was asked for, and would take memory."""

_UNSIGNED = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+"
_NUMBER = re.compile(
    # A minus belongs to the number where nothing stands before it that it could be subtracted from.
    rf"(?<![\w.])(?:(?<![)\]}}])[-+−])?[$€£]?(?P<top>{_UNSIGNED})(?:[eE](?P<exponent>[-+]?[0-9]{{1,2}})(?![0-9]))?"
    r"(?:\s?/\s?(?P<bottom>[0-9]+(?:\.[0-9]+)?))?"
)
_NOT_BEFORE = re.compile(r"[/^_*\\]\Z")
_NOT_AFTER = re.compile(r"[^\W\d]|[(^*/\\√π]")
"""What makes a number part of something else: the 4 of 4x, x/4 and 4\\pi."""

_OPERATOR = re.compile(r"[-+−*/^_\\×·÷√π]")


def exact_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 for a completion that is the row's `answer`, or whose marked final answer is; spaces at the ends do not count.

    Args:
        completions: What the policy wrote.
        answer: Text or a number each; where it is null or empty, the completion is left out (None).

    Returns:
        1.0, 0.0, or None where there is nothing to compare with.

    >>> exact_match([" Paris ", "It is #### Paris", "paris", ""], ["Paris"] * 4)
    [1.0, 1.0, 0.0, 0.0]
    """
    return [_exact(text, _expected(each)) for text, each in zip(completions, answer, strict=True)]


def number_match(completions: Sequence[str], answer: Sequence[Any], **columns: Any) -> list[float | None]:
    """1 for a completion whose final number equals that of the row's `answer`.

    The final number of a text is the one in its last \\boxed{...} or after its last ####; without either, its last
    number. A mark that holds several numbers or an expression is no answer, nor is the 4 of 4x. 1,234 is 1234; 50% is
    50; 1/2 is 0.5, exactly.

    Args:
        completions: What the policy wrote.
        answer: A number, or text that ends in one, each; where it is null, the completion is left out (None).

    Returns:
        1.0, 0.0, or None where there is nothing to compare with.

    Raises:
        ValueError: An answer of the data holds no number.

    >>> number_match(["6 times 7 is 42.", "#### 41", "I do not know"], ["42", 42, "so 6 * 7 = 42 #### 42"])
    [1.0, 0.0, 0.0]
    """
    rewards: list[float | None] = []
    for text, each in zip(completions, answer, strict=True):
        expected = _expected(each)
        if expected is None:
            rewards.append(None)
            continue
        number = final_number(expected)
        if number is None:
            raise ValueError(f"column 'answer' holds {described(each)}, expected a number, or text that ends in one")
        rewards.append(float(final_number(text) == number))
    return rewards


def final_number(text: str) -> Fraction | None:
    """The number that a text comes to, exactly; None where there is none, or more than a number.

    >>> final_number(r"so \\boxed{\\frac{3}{4}}"), final_number("between 3 and 1,200.50"), final_number("#### 2 or 3")
    (Fraction(3, 4), Fraction(2401, 2), None)
    """
    marked = marked_answer(text)
    plain = text if marked is None else marked
    for pattern, replacement in _MARKUP:
        plain = pattern.sub(replacement, plain)
    numbers = list(_NUMBER.finditer(plain))
    if not numbers:
        return None
    last = numbers[-1]
    if marked is not None and (len(numbers) > 1 or _OPERATOR.search(plain[: last.start()] + plain[last.end() :])):
        return None
    if _NOT_BEFORE.search(plain[: last.start()]) or _NOT_AFTER.match(plain, last.end()):
        return None
    return _value(last)


def marked_answer(text: str) -> str | None:
    """What a text marks as its answer last: inside \\boxed{...}, or after #### to the end of the line; "" for a mark
    that is not closed, None without a mark.

    >>> marked_answer("first #### 1, no: \\\\boxed{x^{2}} it is")
    'x^{2}'
    """
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    last, start = marks[-1], marks[-1].end()
    if last.group() == "####":
        return text[start:].partition("\n")[0].strip()
    depth = 1
    for place in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[start:place].strip()
    return ""


def _exact(text: str, expected: str | None) -> float | None:
    if expected is None:
        return None
    marked = marked_answer(text)
    return float((text if marked is None else marked).strip() == expected)


def _expected(answer: Any) -> str | None:
    if answer is None:
        return None
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError(f"column 'answer' holds {described(answer)}, expected text or a number")
    text = str(answer).strip()
    return text or None


def _value(number: re.Match[str]) -> Fraction | None:
    if len(number.group()) > _LONGEST:
        return None
    sign = -1 if number.group()[0] in "-−" else 1
    top = sign * Fraction(number["top"].replace(",", "")) * Fraction(10) ** int(number["exponent"] or 0)
    bottom = Fraction(number["bottom"] or 1)
    return top / bottom if bottom else None
