from __future__ import annotations

import numpy as np
from auditing.audits import around
from auditing.tables import make_table

from rlaif.auditing.audit import table_statistics
from rlaif.auditing.results import Figure
from rlaif.auditing.wording import named_figures, wording, written, written_interval


def test_every_figure_of_an_audit_has_its_words() -> None:
    names = table_statistics(make_table(np.random.default_rng(0), 20))
    assert [name for name in names if not wording(name).meaning] == []


def test_figures_of_a_section_are_named_in_full() -> None:
    section = {"auc": around(0.7), "length_bias": {"judge": around(0.6), "human": around(0.5)}}
    assert [name for name, _ in named_figures(section)] == ["auc", "length_bias.judge", "length_bias.human"]


def test_minus_is_a_minus() -> None:
    assert written(-0.031, "points") == "−3.1 points"
    assert written_interval(Figure(-0.1, -0.2, 0.01, 5), "points") == "−20.0 to +1.0 points"
    assert written_interval(Figure(-0.1, -0.2, 0.01, 5), "number") == "−0.200 to 0.010"


def test_a_figure_without_interval_has_none_written() -> None:
    assert written_interval(Figure(0.5, None, None, 1, "no spread"), "share") == ""
