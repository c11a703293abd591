from __future__ import annotations

from dataclasses import replace

import yaml

from rlaif.data.filter_card import FilterFacts, render_filter_card, settings_of
from rlaif.data.filter_inputs import SelectionCounts
from rlaif.data.filtering import Filter, FilterCount
from rlaif.data.selecting import SelectionOptions

FACTS = FilterFacts(
    title="kept <b>pairs</b>",
    source="run|1",
    source_sha256="abc",
    made_by="label",
    judges=("fake:0.8",),
    is_demonstration=False,
    before=1000,
    rows=990,
    failed=3,
    counts=[FilterCount(Filter.CONFIDENCE, 0.7, 1000, 10, 0), FilterCount(Filter.CUT_OFF, True, 990, 0, 990)],
    selection=None,
    selection_counts=None,
    command="rlaif filter run -o kept",
    columns=("id", "prob_a"),
)


def test_tells_what_each_filter_did() -> None:
    card = render_filter_card(FACTS)
    assert "990 of 1,000 pairs" in card
    assert "| `--min-confidence` | probability of the preferred response | `0.7` | 1,000 | 10 | 990 | 0 |" in card
    assert "| `--drop-cut-off` | a response was cut off at the most tokens | yes | 990 | 0 | 990 | 990 |" in card
    assert yaml.safe_load(card.split("---")[1])["configs"][0]["data_files"][0]["path"] == "data/*.parquet"
    assert "Warning" not in card
    assert "How pairs were made" not in card


def test_foreign_text_is_inert() -> None:
    card = render_filter_card(FACTS)
    assert "<b>" not in card.split("---", 2)[2]
    assert "run\\|1" in card


def test_demonstration_judge_and_nothing_left() -> None:
    card = render_filter_card(replace(FACTS, is_demonstration=True, rows=0, counts=[]))
    assert "Warning: labeled by the demonstration judge" in card
    assert "There are no rows" in card
    assert "None was asked for" in card


def test_how_pairs_were_made() -> None:
    counts = SelectionCounts(rows=5, candidates=40, pairs=8, without_pair=1, left_over=2)
    texts = {
        rule: render_filter_card(replace(FACTS, selection=SelectionOptions(rule, eta=0.9), selection_counts=counts))
        for rule in ("all", "best-worst", "rs-dpo", "rso")
    }
    assert "at least 0.9 (RS-DPO" in texts["rs-dpo"]
    assert "| Accepted without a partner | 2 |" in texts["rso"]
    assert all("| Rows that made no pair | 1 |" in text for text in texts.values())


def test_settings_of_a_rule() -> None:
    assert settings_of(SelectionOptions("rs-dpo")) == {"pairs": "rs-dpo", "tau": 1.0, "eta": 0.85}
    assert settings_of(SelectionOptions("rso")) == {"pairs": "rso", "tau": 1.0, "beta": 0.5, "keep": 8}
    assert settings_of(SelectionOptions("all")) == {"pairs": "all", "tau": 1.0}
