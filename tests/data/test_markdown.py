import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.markdown import code, fence, inline, one_line, plain, table


@settings(deadline=None)
@given(st.text(alphabet="`a\n \r~", max_size=40))
def test_a_fence_cannot_be_closed_from_inside(text):
    first, *inside, last = re.split(r"\r\n|\n|\r", fence(text))
    assert set(first) == {"`"}
    assert first == last
    assert not any(re.fullmatch(rf" {{0,3}}`{{{len(first)},}}\s*", line) for line in inside)


@settings(deadline=None)
@given(st.text(alphabet="<>&`*_[]()!#|~$:@-\\\n\r\x1b\u202ea ", max_size=30))
def test_foreign_text_is_one_line_without_markup(text):
    for shown in (inline(text), code(text)):
        assert not re.search(r"[\n\r\x1b\u202e]", shown)
        bare = re.sub(r"^<code>|</code>$", "", shown)
        assert "<" not in bare
        assert ">" not in bare
    assert not re.search(r"(?<!\\)[|\[\]*#]", inline(text).replace("\\\\", ""))


def test_code():
    assert code("openai:gpt-4.1-mini") == "`openai:gpt-4.1-mini`"
    assert code("a`b") == "<code>a\\`b</code>"
    assert code("a\u202eb") == "<code>a\\\\u202eb</code>"


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "null"), (True, "true"), (1 / 3, "0.333333"), (["a", None, 2], "a, null, 2"), ("x", "x"), (12345, "12345")],
)
def test_values(value, words):
    assert plain(value) == words


def test_one_line():
    assert one_line("a\r\nb\tc\x00") == "a b c\\x00"


def test_a_table():
    assert table(("", "Count"), [("a", "1"), ("b", "2")]) == "|  | Count |\n|---|---|\n| a | 1 |\n| b | 2 |"
