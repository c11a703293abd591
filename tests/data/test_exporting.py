"""Rows for other trainers: what each format holds, by hand, and whether its consumer reads what the pair says."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.comparisons import ComparisonReader
from rlaif.data.exporting import (
    EXPORT_FORMATS,
    ExportPair,
    ExportRow,
    FileLayout,
    is_one_user_turn,
    pair_digest,
    unfit_reason,
)
from rlaif.records import Turn

ASK = (Turn("user", "Why?"),)
TALK = (Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello"), Turn("user", "Why?"))
PAIR = ExportPair("7", ASK, "so", "no", 0.9)
HALF = math.log(9) / 2  # the logit of 0.9 is ln(0.9 / 0.1) = ln 9
PLAIN = FileLayout()
GIVEN = FileLayout(has_probs=False)

texts = st.text(max_size=8) | st.sampled_from(["a\n\nHuman: b", "\n\nAssistant:", " x ", "\n", "m", "[[d", "Human:"])
prompts = st.lists(texts, min_size=1, max_size=5).map(
    lambda said: tuple(Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(said))
)
pairs = st.builds(ExportPair, st.just("7"), prompts, texts, texts, st.floats(0, 1))


def rows(name: str, pair: ExportPair, layout: FileLayout = PLAIN) -> tuple[ExportRow, ...]:
    assert unfit_reason(EXPORT_FORMATS[name], pair, layout) is None
    return EXPORT_FORMATS[name].rows_of(pair, layout)


def reason(name: str, pair: ExportPair, layout: FileLayout = PLAIN) -> str:
    found = unfit_reason(EXPORT_FORMATS[name], pair, layout)
    assert found is not None
    return found


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


class TestThePair:
    @pytest.mark.parametrize(("prob", "chosen", "sure"), [(0.9, "so", 0.9), (0.2, "no", 0.8), (0.5, "so", 0.5)])
    def test_the_side_and_how_sure(self, prob: float, chosen: str, sure: float) -> None:
        pair = replace(PAIR, prob_a=prob)
        assert (pair.chosen, pair.chosen_prob) == (chosen, sure)
        assert {pair.chosen, pair.rejected} == {"so", "no"}

    def test_the_margin_is_a_logit_that_stays_finite(self) -> None:
        assert PAIR.margin == pytest.approx(math.log(9))
        assert replace(PAIR, prob_a=0.5).margin == 0.0
        assert replace(PAIR, prob_a=0.0).margin == pytest.approx(math.log(999_999)) == replace(PAIR, prob_a=1.0).margin

    def test_what_tells_prompts_apart(self) -> None:
        other = (Turn("user", "Why"), Turn("user", "?"))
        assert len({pair_digest(ASK, ""), pair_digest(ASK, "x"), pair_digest(other, ""), pair_digest(TALK, "")}) == 4
        assert [is_one_user_turn(one) for one in (ASK, TALK[:2], TALK)] == [True, False, False]
        assert [is_one_user_turn(one, or_after_system=True) for one in (ASK, TALK[:2], TALK)] == [True, True, False]


class TestTheRows:
    def test_trl(self) -> None:
        row = {"id": "7", "prompt": "Why?", "chosen": "so", "rejected": "no"}
        label = {"chosen_prob": 0.9, "score_chosen": pytest.approx(HALF), "score_rejected": pytest.approx(-HALF)}
        assert rows("trl", PAIR) == ({**row, **label},)
        assert rows("trl", replace(PAIR, is_given=True, prob_a=1.0), GIVEN) == (row,)

    @pytest.mark.parametrize("name", ["trl-conversational", "openrlhf"])
    def test_messages(self, name: str) -> None:
        (row,) = rows(name, replace(PAIR, prompt=TALK, prob_a=0.1), GIVEN)
        prompt = [{"role": turn.role, "content": turn.content} for turn in TALK]
        assert row == {"id": "7", "prompt": prompt, "chosen": said("no"), "rejected": said("so")}

    def test_axolotl(self) -> None:
        (row,) = rows("axolotl", replace(PAIR, prompt=TALK[:2], response_a=" so\n"), GIVEN)
        assert row == {
            "id": "7",
            "messages": [*said("Be kind.", "system"), *said("Hi", "user")],
            "system": "Be kind.",
            "input": "Hi",
            "chosen": "so",
            "rejected": "no",
        }
        (row,) = rows("axolotl", replace(PAIR, prompt=TALK), FileLayout(is_single_turn=False))
        assert "input" not in row
        assert len(row["messages"]) == 4

    def test_kto(self) -> None:
        assert rows("kto", PAIR) == (
            {"prompt": "Why?", "completion": "so", "label": True},
            {"prompt": "Why?", "completion": "no", "label": False},
        )
        assert rows("kto", replace(PAIR, prob_a=0.3), FileLayout(is_conversational=True)) == (
            {"prompt": said("Why?", "user"), "completion": said("no"), "label": True},
            {"prompt": said("Why?", "user"), "completion": said("so"), "label": False},
        )

    def test_halos(self) -> None:
        (row,) = rows("halos", replace(PAIR, prob_a=0.1), FileLayout(split="test"))
        assert row == {
            "id": "7",
            "type": "pairwise_feedback",
            "prompt_id": pair_digest(ASK, "").hex(),
            "prompt": said("Why?", "user"),
            "output_A": said("so"),
            "output_B": said("no"),
            "label": 0,
            "reward_A": pytest.approx(-HALF),
            "reward_B": pytest.approx(HALF),
            "split": "test",
        }
        (row,) = rows("halos", replace(PAIR, prob_a=1.0, is_given=True), GIVEN)
        assert (row["label"], row["reward_A"], row["reward_B"]) == (1, 1.0, -1.0)
        assert "split" not in row

    def test_hh(self) -> None:
        before = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant: "
        row = {"chosen": before + "so", "rejected": before + "no"}
        assert rows("hh", replace(PAIR, prompt=TALK[1:])) == (row,)

    @pytest.mark.parametrize("name", ["trl", "trl-conversational", "openrlhf"])
    def test_a_margin_only_on_request(self, name: str) -> None:
        assert "margin" not in rows(name, PAIR)[0]
        assert rows(name, PAIR, FileLayout(with_margin=True))[0]["margin"] == pytest.approx(math.log(9))
        given_pair = replace(PAIR, is_given=True, prob_a=1.0)
        assert "no probability" in reason(name, given_pair, FileLayout(with_margin=True))

    def test_a_pair_without_a_probability_among_others_that_have_one(self) -> None:
        (row,) = rows("trl", replace(PAIR, is_given=True, prob_a=1.0))
        assert [row[name] for name in ("chosen_prob", "score_chosen", "score_rejected")] == [None] * 3

    @pytest.mark.parametrize("name", EXPORT_FORMATS)
    @pytest.mark.parametrize("layout", [PLAIN, GIVEN, FileLayout(True, True, True, False, "train")])
    def test_every_row_has_the_columns_of_the_file(self, name: str, layout: FileLayout) -> None:
        of_kind = {"text": str, "messages": list, "number": float, "flag": bool, "integer": int}
        columns = EXPORT_FORMATS[name].columns(layout)
        for row in rows(name, PAIR, layout):
            assert list(row) == list(columns)
            assert all(type(row[column]) is of_kind[kind] for column, kind in columns.items())

    @pytest.mark.parametrize("name", EXPORT_FORMATS)
    def test_no_name_that_means_something_else_to_a_consumer(self, name: str) -> None:
        # what TRL 1.16 takes from a row unasked (its trainers' signature columns, and what decides how a row is read)
        traps = {"margin", "ref_chosen_logps", "ref_rejected_logps", "ref_logps", "ref_KL_logps", "tools", "image",
                 "images", "chat_template_kwargs", "chosen_ids", "rejected_ids", "prompt_ids"}  # fmt: skip
        assert traps.isdisjoint(EXPORT_FORMATS[name].columns(PLAIN))


class TestExchangingAAndB:
    @given(pairs.filter(lambda pair: abs(pair.prob_a - 0.5) > 1e-9))
    def test_changes_no_row_but_the_names(self, pair: ExportPair) -> None:
        # 1 - p is exact from 0.5 up, and 1 - (1 - p) is p again
        pair = (
            replace(pair, prob_a=pair.chosen_prob) if pair.is_a_chosen else replace(pair, prob_a=1 - pair.chosen_prob)
        )
        other = replace(pair, response_a=pair.response_b, response_b=pair.response_a, prob_a=1 - pair.prob_a)
        for name, each in EXPORT_FORMATS.items():
            if unfit_reason(each, pair, PLAIN) is not None:
                assert unfit_reason(each, other, PLAIN) is not None
                continue
            mine, theirs = each.rows_of(pair, PLAIN), each.rows_of(other, PLAIN)
            if name == "halos":
                for row in theirs:
                    row["output_A"], row["output_B"] = row["output_B"], row["output_A"]
                    row["reward_A"], row["reward_B"] = row["reward_B"], row["reward_A"]
                    row["label"] = 1 - row["label"]
            assert mine == theirs


class TestWhatDoesNotFit:
    def test_more_than_one_user_turn_is_no_plain_text(self) -> None:
        assert "export trl-conversational" in reason("trl", replace(PAIR, prompt=TALK))
        assert "--conversational" in reason("kto", replace(PAIR, prompt=(Turn("system", "x"),)))
        rows("kto", replace(PAIR, prompt=TALK), FileLayout(is_conversational=True))

    def test_a_transcript_has_two_speakers_who_alternate(self) -> None:
        assert "a turn of system" in reason("hh", replace(PAIR, prompt=TALK))
        assert "user, user" in reason("hh", replace(PAIR, prompt=ASK * 2))
        assert "user, assistant" in reason("hh", replace(PAIR, prompt=TALK[1:3]))

    @pytest.mark.parametrize("place", ["prompt", "response_a", "response_b"])
    def test_a_mark_inside_a_turn(self, place: str) -> None:
        text = "x\n\nAssistant: y"
        pair = replace(PAIR, **{place: (Turn("user", text),) if place == "prompt" else text})
        assert "holds '\\n\\nAssistant:'" in reason("hh", pair)
        for name in EXPORT_FORMATS.keys() - {"hh"}:
            rows(name, pair)

    def test_what_axolotl_stumbles_over(self) -> None:
        assert "empty" in reason("axolotl", replace(PAIR, response_b=" \n"))
        assert "dummy" in reason("axolotl", replace(PAIR, response_a="message "))
        is_changed = EXPORT_FORMATS["axolotl"].is_changed
        assert [is_changed(one) for one in (PAIR, replace(PAIR, response_b="no\n"))] == [False, True]
        developer = replace(PAIR, prompt=(Turn("developer", "x"), *ASK))
        assert is_changed(developer)
        assert rows("axolotl", developer)[0]["messages"][0]["role"] == "system"


class TestReadByItsConsumer:
    """What the sources named in the module read from a row, said again in a few lines."""

    @given(pairs)
    def test_hh_is_what_our_own_reader_reads(self, pair: ExportPair) -> None:
        spoken = (*pair.prompt, Turn("assistant", pair.response_a), Turn("assistant", pair.response_b))
        is_marked = any(f"\n\n{who}:" in turn.content for turn in spoken for who in ("Human", "Assistant"))
        if unfit_reason(EXPORT_FORMATS["hh"], pair, PLAIN) is not None:
            assert is_marked or len(pair.prompt) % 2 == 0
            return
        (row,) = rows("hh", pair)
        read, _ = ComparisonReader("hh").read(1, row)
        assert read.prompt == pair.prompt
        assert {read.response_a, read.response_b} == {pair.response_a, pair.response_b}
        assert (read.response_a == pair.chosen) == (read.human_label == "a" or pair.chosen == pair.rejected)

    @given(pairs)
    def test_axolotl_finds_the_responses(self, pair: ExportPair) -> None:
        if unfit_reason(EXPORT_FORMATS["axolotl"], pair, PLAIN) is not None:
            return
        (row,) = rows("axolotl", pair, FileLayout(is_single_turn=False))
        for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            for trims in (False, True):  # as the templates of Qwen, and of Llama 3
                content = row[side].strip() if trims else row[side]
                rendered = f"\ue000[[dummy_message]]\ue001{content}\ue002"
                assert rendered[rendered.find(row[side]) :].rstrip() == f"{response.strip()}\ue002"

    @given(pairs, st.booleans())
    def test_openrlhf_joins_prompt_and_response(self, pair: ExportPair, with_margin: bool) -> None:
        def template(messages: list[dict[str, str]], *, asks: bool = False) -> str:
            return "".join(f"<{one['role']}>{one['content']}</>" for one in messages) + ("<assistant>" if asks else "")

        (row,) = rows("openrlhf", pair, FileLayout(with_margin=with_margin))
        prompt = template(row["prompt"], asks=True)
        for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            assert template(row["prompt"] + row[side])[len(prompt) :] == f"{response}</>"
        margin = row["margin"] if row.get("margin") is not None else 0
        assert margin == (pair.margin if with_margin else 0)

    @given(st.lists(st.tuples(texts, texts, st.floats(0, 1)), min_size=1, max_size=6))
    def test_halos_gathers_the_pairs_of_a_prompt(self, found: list[tuple[str, str, float]]) -> None:
        given_pairs = [ExportPair(str(number), ASK, *one) for number, one in enumerate(found)]
        samples: list[dict[str, Any]] = [row for pair in given_pairs for row in rows("halos", pair)]
        assert {sample["prompt_id"] for sample in samples} == {pair_digest(ASK, "").hex()}
        places: dict[str, int] = {}
        preferred = []
        for sample in samples:
            for name in ("output_A", "output_B"):
                places.setdefault(sample[name][0]["content"], len(places))
            sides = [places[sample[name][0]["content"]] for name in ("output_A", "output_B")]
            preferred.append(tuple(sides if sample["label"] == 1 else sides[::-1]))
            assert (sample["reward_A"] >= sample["reward_B"]) == (sample["label"] == 1)
        assert preferred == [(places[pair.chosen], places[pair.rejected]) for pair in given_pairs]
