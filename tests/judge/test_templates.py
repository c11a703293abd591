"""Rendering: one pass, sandboxed, nothing undefined, and values told apart from the template's own text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import PromptError
from rlaif.judge.templates import PairwiseTemplate
from rlaif.records import Comparison, Message, Order, Segment, Turn


def comparison(response_a: str = "alpha", response_b: str = "beta", *turns: Turn) -> Comparison:
    return Comparison("row", turns or (Turn("user", "What?"),), response_a, response_b)


def own(tmp_path: Path, text: str, name: str = "mine.jinja") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


HOSTILE = [
    "{{ 7 * 7 }}",
    "{% raw %}",
    "{# gone #}",
    "{output_2}",
    "{{ response_2 }}",
    "{{ '{{ 7 }}' }}",
    "%} {%",
    "\x00<<",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_stands_in_a_response_stays_text(text: str) -> None:
    (message,) = PairwiseTemplate("helpfulness").render(comparison(text, "beta"), Order.AB)
    assert f"### Response 1\n{text}\n\n### Response 2\nbeta" in message.content
    assert Segment(text, False) in message.segments


@given(st.text(), st.text())
def test_any_pair_of_responses_is_rendered_byte_for_byte_and_swapped_by_the_order(a: str, b: str) -> None:
    template = PairwiseTemplate("helpfulness")
    first, second = (template.render(comparison(a, b), order)[0] for order in Order)
    assert f"### Response 1\n{a}\n\n### Response 2\n{b}\n\n### Question" in first.content
    assert f"### Response 1\n{b}\n\n### Response 2\n{a}\n\n### Question" in second.content
    assert [s for s in first.segments if s.is_template] == [s for s in second.segments if s.is_template]


def test_a_conversation_is_shown_turn_by_turn_and_a_single_turn_bare() -> None:
    turns = Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Why?")
    content = PairwiseTemplate("helpfulness").render(comparison("a", "b", *turns), Order.AB)[0].content
    assert "### Prompt\nUser: Hi\n\nAssistant: Hello\n\nUser: Why?\n\n### Response 1\n" in content
    assert (
        "### Prompt\nWhat?\n\n### Response 1"
        in PairwiseTemplate("helpfulness").render(comparison(), Order.AB)[0].content
    )


def test_the_principle_stands_last_before_the_cue() -> None:
    content = PairwiseTemplate("helpfulness").render(comparison(), Order.AB, principle="Which is shorter?")[0].content
    assert content.endswith("\n\n### Question\nWhich is shorter?\nPreferred response (1 or 2):")


def test_shared_text_is_a_prefix() -> None:
    template = PairwiseTemplate("helpfulness", preamble="detailed", shots=2)
    by_principle = [template.render(comparison(), Order.AB, principle=text)[0].content for text in ("<one>", "<two>")]
    assert by_principle[0].split("<one>")[0] == by_principle[1].split("<two>")[0]
    orders = [template.render(comparison(), order)[0].content for order in Order]
    prefix = orders[0].split("### Response 1\nalpha")[0]
    assert prefix.endswith("### Prompt\nWhat?\n\n")
    assert orders[1].startswith(prefix)


def test_a_template_of_ones_own_can_extend_the_base(tmp_path: Path) -> None:
    path = own(tmp_path, '{% extends "pairwise/base.jinja" %}{% block preamble %}Rate poems.{% endblock %}')
    content = PairwiseTemplate(path).render(comparison(), Order.AB)[0].content
    assert content.startswith("Rate poems.\n\n### Prompt\n")


def test_a_template_of_ones_own_needs_nothing_of_ours(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        "{{ prompt }}|{{ response_1 | upper }}|{{ response_2 }}{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(prompt) }}",
    )
    (message,) = PairwiseTemplate(path).render(comparison(), Order.BA)
    assert message.content == "What?|BETA|alpha<What?>"
    assert Segment("BETA", False) in message.segments


def test_an_unknown_variable_names_the_template_and_what_there_is(tmp_path: Path) -> None:
    template = PairwiseTemplate(own(tmp_path, "{{ contxt }}"))
    with pytest.raises(
        PromptError, match=r"mine\.jinja: 'contxt' is undefined; a pairwise template has: .*prompt.*response_1"
    ):
        template.render(comparison(), Order.AB)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ turns.__class__ }}",
        "{{ exemplars.append(1) }}",
        "{% for i in range(10 ** 9) %}x{% endfor %}",
        "{{ principle }}",
    ],
)
def test_what_a_template_may_not_do_is_an_error(tmp_path: Path, text: str) -> None:
    template = PairwiseTemplate(own(tmp_path, text))
    with pytest.raises(PromptError, match=r"mine\.jinja"):
        template.render(comparison(), Order.AB)


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match=r"mine\.jinja, line 2"):
        PairwiseTemplate(own(tmp_path, "fine\n{% if %}"))


def test_an_unknown_task_names_the_nearest() -> None:
    with pytest.raises(PromptError, match="helpfulness"):
        PairwiseTemplate("helpfullness")


def test_more_shots_than_exemplars_is_refused(tmp_path: Path) -> None:
    path = own(tmp_path, '{% extends "pairwise/base.jinja" %}')
    with pytest.raises(PromptError, match=r"mine\.yaml"):
        PairwiseTemplate(path, shots=1)
    (tmp_path / "mine.yaml").write_text("- {prompt: p, response_1: x, response_2: y, question: q, label: 1}")
    assert (
        "## Example 1\n\n### Prompt\np\n" in PairwiseTemplate(path, shots=1).render(comparison(), Order.AB)[0].content
    )
    with pytest.raises(PromptError, match="1 exemplar"):
        PairwiseTemplate(path, shots=2)


def test_the_fingerprint_changes_with_anything_that_changes_the_prompt(tmp_path: Path) -> None:
    (tmp_path / "part.jinja").write_text("one")
    path = own(tmp_path, '{% include "part.jinja" %}')
    before = PairwiseTemplate(path).fingerprint
    assert PairwiseTemplate(path).fingerprint == before
    (tmp_path / "part.jinja").write_text("two")
    prints = {
        before,
        PairwiseTemplate(path).fingerprint,
        PairwiseTemplate("helpfulness").fingerprint,
        PairwiseTemplate("helpfulness", preamble="detailed").fingerprint,
        PairwiseTemplate("helpfulness", cot=True).fingerprint,
        PairwiseTemplate("helpfulness", shots=1).fingerprint,
        PairwiseTemplate("helpfulness", shots=2).fingerprint,
    }
    assert len(prints) == 7


@pytest.mark.parametrize(
    "text",
    [
        "{% filter upper %}{{ response_1 }}{% endfilter %}{{ response_2 }}",
        "{% set kept %}{{ response_1 }}{% endset %}{{ kept | truncate(20, true, '') }}",
    ],
)
def test_a_filter_around_a_value_is_refused_and_no_mark_reaches_the_judge(tmp_path: Path, text: str) -> None:
    with pytest.raises(PromptError, match="filters to the values themselves"):
        PairwiseTemplate(own(tmp_path, text)).render(comparison(), Order.AB)


def test_the_verdict_cue_is_part_of_the_fingerprint_where_it_may_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def fingerprints() -> tuple[str, str]:
        return PairwiseTemplate("helpfulness").fingerprint, PairwiseTemplate("helpfulness", cot=True).fingerprint

    plain, with_reasons = fingerprints()
    other = Message("user", (Segment("Other cue:", True),))
    monkeypatch.setattr("rlaif.judge.templates.render_verdict_cue", lambda kind: other)
    assert fingerprints()[0] == plain
    assert fingerprints()[1] != with_reasons
