"""Rows to be answered: what is the prompt, what may it end with, and which columns stay the user's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.prompts import PromptReader
from rlaif.errors import ConfigError, InputError
from rlaif.records import Prompt, Turn


def read(row: dict[str, Any], **options: Any) -> Prompt:
    return PromptReader("in.jsonl", **options).read(7, row)[0]


def fault(row: dict[str, Any], **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        read(row, **options)
    assert str(caught.value).startswith("in.jsonl, line 7")
    return caught.value


def turn(role: str, content: Any = "text") -> dict[str, Any]:
    return {"role": role, "content": content}


class TestPrompts:
    @pytest.mark.parametrize("name", ["prompt", "instruction", "question", "input"])
    def test_a_text_is_one_turn_of_the_user(self, name: str) -> None:
        found = read({name: "P", "topic": 3})
        assert found.prompt == (Turn("user", "P"),)
        assert found.extra == {"topic": 3}
        assert not found.is_conversational
        assert found.response is None

    @pytest.mark.parametrize("text", ["", " \n", "{{ x }}", "\x1b[31m\u202e", "\n\nHuman: a\n\nAssistant:"])
    def test_a_text_is_taken_as_it_is(self, text: str) -> None:
        assert read({"prompt": text}).prompt == (Turn("user", text),)

    def test_a_conversation_keeps_its_turns_and_roles(self) -> None:
        roles = ("developer", "user", "assistant", "user")
        found = read({"prompt": [turn(role, role) for role in roles]})
        assert found.prompt == tuple(Turn(role, role) for role in roles)
        assert found.is_conversational

    @pytest.mark.parametrize("role", ["assistant", "system", "developer", "tool"])
    def test_a_conversation_that_nobody_waits_for_an_answer_in_is_refused(self, role: str) -> None:
        error = fault({"prompt": [turn("user"), turn(role)]})
        assert error.column == "prompt"
        assert error.reason == f"ends with a message of the {role}, expected one of the user to be answered"

    def test_a_tools_message_is_refused(self) -> None:
        assert "a message of a tool" in fault({"prompt": [turn("tool"), turn("user")]}).reason

    @pytest.mark.parametrize("value", [None, 3, [], {}, [turn("user", None)], [turn("wizard")], ["text"]])
    def test_what_is_no_prompt_is_refused_by_column(self, value: Any) -> None:
        assert fault({"prompt": value}).column == "prompt"

    def test_a_row_without_a_prompt_says_what_it_has(self) -> None:
        assert "the row has: id, text" in fault({"id": "x", "text": "P"}).reason

    @given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
    def test_an_id_is_made_of_the_prompt_alone(self, text: str) -> None:
        one, other = read({"prompt": text, "topic": 1}), read({"prompt": text, "topic": 2})
        assert one.id == other.id
        assert read({"prompt": text + "!"}).id != one.id


RANKED = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?\n\nAssistant: Well",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: How?\n\nAssistant: Badly",
}


class TestRankedPairs:
    def test_transcripts_are_asked_what_both_answer_and_stay_with_the_row(self) -> None:
        found = read({"id": "x", **RANKED})
        assert found.prompt == (Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "How?"))
        assert found.is_conversational
        assert found.extra == RANKED

    def test_a_prompt_of_their_own_comes_first(self) -> None:
        assert read({"prompt": "Mine", **RANKED}).prompt == (Turn("user", "Mine"),)

    def test_transcripts_that_begin_otherwise_are_refused(self) -> None:
        error = fault({**RANKED, "rejected": "\n\nHuman: Ho\n\nAssistant: Hello"})
        assert (error.column, "begins with other messages" in error.reason) == ("rejected", True)

    def test_one_of_the_two_is_no_prompt(self) -> None:
        assert "is missing" in fault({"chosen": RANKED["chosen"]}).reason


class TestResponses:
    """Rows to be revised may bring one."""

    @pytest.mark.parametrize("name", ["response", "completion", "output", "answer"])
    def test_a_response_is_left_alone_unless_it_is_asked_for(self, name: str) -> None:
        row = {"prompt": "P", name: "x"}
        assert (read(row).response, read(row).extra) == (None, {name: "x"})
        taken = read(row, takes_responses=True)
        assert (taken.response, taken.extra) == ("x", {})
        assert taken.id != read(row).id

    def test_the_first_candidate_is_taken_whatever_an_answer_beside_it_says(self) -> None:
        found = read({"prompt": "P", "responses": ["x", "y"], "answer": "42"}, takes_responses=True)
        assert (found.response, found.extra) == ("x", {"answer": "42"})

    def test_a_column_that_is_named_comes_before_one_that_is_not(self) -> None:
        row = {"prompt": "P", "response": "x", "drafts": ["y"]}
        assert read(row, takes_responses=True, columns={"responses": "drafts"}).response == "y"
        assert read(row, takes_responses=True, columns={"response": "drafts"}).response == "y"

    @pytest.mark.parametrize(
        ("reasons", "expected"), [(["length", "stop"], "length"), (["length"], None), ([None, "stop"], None), (7, None)]
    )
    def test_why_the_first_of_a_list_ends(self, reasons: object, expected: str | None) -> None:
        row = {"prompt": "P", "responses": ["x", "y"], "finish_reasons": reasons}
        found = read(row, takes_responses=True)
        assert (found.response, found.finish_reason) == ("x", expected)
        assert found.extra["finish_reasons"] == reasons
        assert read({**row, "response": "z"}, takes_responses=True).finish_reason is None

    def test_an_empty_list_of_responses_is_refused(self) -> None:
        assert fault({"prompt": "P", "responses": []}, takes_responses=True).column == "responses"

    @pytest.mark.parametrize("name", ["response", "responses"])
    def test_a_column_for_responses_is_refused_where_none_is_read(self, name: str) -> None:
        with pytest.raises(ConfigError, match=f"'{name}', which is not read here, expected one of id, prompt"):
            read({"prompt": "P"}, columns={name: "x"})
