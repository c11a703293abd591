from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.visibility import visible


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("a\rb\x08c\x7f", "a\\rb\\x08c\\x7f"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("zero\u200bwidth\ufeff", "zero\\u200bwidth\\ufeff"),
        ("\ud83d", "\\ud83d"),
        ("\U000e0041tag", "\\U000e0041tag"),
    ],
)
def test_what_a_terminal_would_obey_or_hide_is_spelled_out(hostile: str, shown: str) -> None:
    assert visible(hostile) == shown


def test_text_stays_as_it_is() -> None:
    text = "Zeile\n\tdürr 漢字 🙂 [bold]no markup[/bold] \\x1b"
    assert visible(text) == text


@settings(deadline=None)
@given(st.text(st.characters()))
def test_nothing_a_terminal_obeys_is_left(text: str) -> None:
    left = visible(text).replace("\n", "").replace("\t", "")
    assert [char for char in left if unicodedata.category(char) in ("Cc", "Cs")] == []
    assert not set(left) & set(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F]))
    left.encode()
