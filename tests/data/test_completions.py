from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.completions import Split, candidates_of, split_query, without_end_tokens
from rlaif.errors import InputError
from rlaif.records import Turn


def test_a_text_prompt_is_one_turn() -> None:
    item = candidates_of("Hi", "Hello")
    assert (item.prompt, item.responses, item.is_conversational) == ((Turn("user", "Hi"),), ("Hello",), False)


def test_what_an_agent_did_before_it_answered_belongs_to_the_prompt() -> None:
    completion = [
        {"role": "assistant", "content": None, "tool_calls": [{"name": "search"}]},
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": [{"type": "text", "text": "It "}, {"type": "text", "text": "rains."}]},
    ]
    item = candidates_of([{"role": "user", "content": "Weather?"}], completion)
    assert item.responses == ("It rains.",)
    assert [turn.role for turn in item.prompt] == ["user", "assistant", "tool"]


def test_equal_content_has_one_id_and_other_content_another() -> None:
    same = {candidates_of("a", "b").id, candidates_of([{"role": "user", "content": "a"}], "b").id}
    others = {candidates_of("a", "c").id, candidates_of("b", "b").id, candidates_of("a\x00b", "").id}
    assert (len(same), len(same | others)) == (1, 4)
    assert candidates_of("\ud800", "lone surrogates are text, too").id


@pytest.mark.parametrize(
    ("prompt", "response", "words"),
    [
        (None, "b", "item.prompt: is null, expected a text or a list"),
        (b"bytes", "b", "item.prompt: is b'bytes'"),
        ([{"content": "a"}], "b", "item.prompt[0]: is an object with content, expected {role, content}"),
        ([{"role": "user", "content": [{"type": "image"}]}], "b", "item.prompt[0].content: is a list of 1, expected"),
        ([{"role": "user", "content": None}], "b", "item.prompt[0].content: is null"),
        ("a", [], "item.response: is an empty list"),
        ("a", [{"role": "tool", "content": "x"}], "item.response: ends with a message of tool"),
        ("a", 3, "item.response: is 3"),
    ],
)
def test_anything_else_is_refused(prompt: object, response: object, words: str) -> None:
    with pytest.raises(InputError) as caught:
        candidates_of(prompt, response)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("query", "prompt", "expected"),
    [
        ("Q: 1+1? A: 2", "Q: 1+1? A: ", ("Q: 1+1? A: ", "2")),
        ("abc", "", ("", "abc")),
        ("abc", "abc", ("abc", "")),
        ("<s> [INST] Hi [/INST] Hello", "<s>[INST] Hi [/INST]", ("<s>[INST] Hi [/INST]", " Hello")),
        ("a b c", "a  b ", ("a  b ", " c")),
        ("<|user|>hi there<|end|>Yes", "<|user|>Hi there<|end|>", ("<|user|>Hi there<|end|>", "Yes")),
    ],
)
def test_a_query_is_split_behind_its_prompt(query: str, prompt: str, expected: tuple[str, str]) -> None:
    assert split_query(query, prompt) == Split(*expected)


def test_a_prompt_cut_from_the_left_is_found_by_what_is_left() -> None:
    prompt = "word " * 50 + "What is the capital of France, and how many people live there? Answer:"
    kept = prompt[150:]
    assert split_query(f"{kept} Paris", prompt) == Split(kept, " Paris")


@pytest.mark.parametrize(
    ("query", "prompt"), [("b c", "a"), ("short end. yes", "a long prompt with a short end."), ("", "a"), ("a", "ab")]
)
def test_a_query_without_its_prompt_is_refused(query: str, prompt: str) -> None:
    with pytest.raises(InputError, match="does not begin with its prompt"):
        split_query(query, prompt)


@given(st.text(), st.text())
def test_prompt_and_response_come_back(prompt: str, response: str) -> None:
    assert split_query(prompt + response, prompt) == Split(prompt, response)


def test_end_tokens_are_cut_from_the_end_only() -> None:
    assert without_end_tokens("a</s>b<|im_end|></s>") == "a</s>b"
    assert without_end_tokens("a</s>", ()) == "a</s>"
    assert without_end_tokens("<|eot_id|>") == ""
