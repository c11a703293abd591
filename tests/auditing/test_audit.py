import json
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from auditing.tables import make_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.auditing.audit import FIGURES_OF_A_GROUP, audit_table, row_counts
from rlaif.auditing.results import Figure

A, TIE, B, NONE = 1.0, 0.5, 0.0, np.nan


def mixed_table(seed=0, count=120, **arrays):
    """Rows of every kind: ties, unknown answers and labels, clusters, votes, two groups."""
    rng = np.random.default_rng(seed)
    table = make_table(
        rng, count, clusters=count // 3, judges=2, human_ties=0.1, judge_ties=0.1, unlabelled=0.1, unanswered=0.1
    )
    groups = {"task": np.array(["short", "long", "long"] * count, dtype=object)[:count]}
    return replace(table, votes=rng.integers(0, 4, (count, 3)), groups=groups, **arrays)


def figures_in(value):
    if isinstance(value, Figure):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from figures_in(each)
    elif isinstance(value, tuple):
        for each in value:
            yield from figures_in(each)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            yield from figures_in(getattr(value, name))


def strict_json(audit):
    return json.loads(json.dumps(audit.as_json(), allow_nan=False))


def test_everything_the_contract_names_is_there():
    audit = audit_table(mixed_table(), by=["task"], resamples=100, source={"input": "x"})
    content = strict_json(audit)
    assert content["source"] == {"input": "x"}
    assert set(FIGURES_OF_A_GROUP) <= set(content)
    assert set(content["length_bias"]) == {"judge", "human", "difference"}
    assert list(content["orders"]) == ["ab", "ba"]
    assert {"agreement", "cohen_kappa", "brier", "auc", "length_bias", "first_slot_rate"} <= set(
        content["orders"]["ab"]
    )
    assert set(content["by"]["task"]["long"]) == set(FIGURES_OF_A_GROUP)
    assert list(content["by"]["task"]) == ["long", "short"]  # the larger first
    assert {"length_controlled_agreement", "style_controlled_agreement"} <= set(content)
    assert content["panel"] is not None
    assert set(content["prediction_powered"]) >= {"agreement", "win_rate"}
    assert content["findings"]
    assert content["against"] is None
    assert audit.figure("length_bias.difference").n == audit.figure("length_bias.judge").n


def test_groups_of_one_size_are_in_the_order_of_their_names():
    table = table_of([0.9] * 4, [A] * 4, groups={"task": np.array(["b", "a", "c", "c"], dtype=object)})
    assert list(audit_table(table, by=["task"], resamples=100).by["task"]) == ["c", "a", "b"]


def test_a_group_is_audited_as_if_it_were_alone():
    table = mixed_table()
    audit = audit_table(table, by=["task"], resamples=200)
    alone = audit_table(table.take(table.groups["task"] == "short"), resamples=200)
    for name in FIGURES_OF_A_GROUP:
        assert audit.by["task"]["short"][name] == alone.figures[name], name


def test_an_order_alone_has_the_rows_it_was_judged_in():
    table = table_of(
        [0.6, NONE, 0.2],
        [A, A, B],
        prob_a_ab=np.array([0.9, 0.4, 0.3]),
        prob_a_ba=np.array([0.3, NONE, 0.1]),
    )
    audit = audit_table(table, resamples=100)
    assert audit.orders["ab"]["agreement"].value == pytest.approx(2 / 3)
    assert audit.orders["ba"]["agreement"].value == pytest.approx(1 / 2)
    assert (audit.orders["ab"]["first_slot_rate"].value, audit.orders["ab"]["first_slot_rate"].n) == (1 / 3, 3)
    assert audit.orders["ba"]["first_slot_rate"].value == 1.0
    assert audit.figure("agreement").n == 2
    one_order = audit_table(replace(table, prob_a_ba=np.full(3, NONE)), resamples=100)
    assert list(one_order.orders) == ["ab"]
    assert one_order.figure("swap_consistency").why == "no row was judged in both orders"


def test_hand_worked_counts():
    table = table_of(
        [0.9, 0.5, 0.1, NONE, 0.5],
        [A, TIE, None, B, A],
        prob_a_ab=np.array([0.9, 0.9, 0.1, NONE, 0.8]),
        prob_a_ba=np.array([0.9, 0.1, 0.1, 0.3, 0.5]),
        votes=[[2, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0], [3, 0, 0]],
        clusters=[0, 0, 1, 2, 2],
    )
    assert row_counts(table) == {
        "rows": 5,
        "clusters": 3,
        "rows_judged": 4,
        "rows_judged_both_orders": 4,
        "rows_with_human_label": 4,
        "rows_human_tie": 1,
        "rows_with_votes": 4,
        "rows_without_plurality": 1,
        # Rows 1 and 3 choose once each way, row 2 the first slot twice, row 5 the first slot and a tie.
        "first_chosen": 5,
        "second_chosen": 2,
        "inconsistent_always_first": 1,
        "inconsistent_always_second": 0,
        "annotator_pairs": 1 + 1 + 1 + 3,
        "left_out_annotators": 2 + 2 + 2 + 3,
        "verdicts_a": 1,
        "verdicts_tie": 2,
        "verdicts_b": 1,
        "verdicts_null": 1,
        "verdicts_ab_a": 3,
        "verdicts_ab_tie": 0,
        "verdicts_ab_b": 1,
        "verdicts_ab_null": 1,
        "verdicts_ba_a": 1,
        "verdicts_ba_tie": 1,
        "verdicts_ba_b": 3,
        "verdicts_ba_null": 0,
    }


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_nothing_but_counts_of_sides_knows_which_response_is_called_a(seed):
    table = mixed_table(seed, 60)
    audit, swapped = audit_table(table, resamples=100), audit_table(table.swapped(), resamples=100)
    for name, figure in flat(audit.figures).items():
        if name == "ece":  # Bins of rows with equal probabilities are not the same bins from the other end.
            continue
        assert values(flat(swapped.figures)[name]) == pytest.approx(values(figure), nan_ok=True, abs=1e-9), name
    for name, figure in flat(audit.orders["ab"]).items():
        if name != "ece":
            assert values(flat(swapped.orders["ba"])[name]) == pytest.approx(values(figure), abs=1e-9), name
    assert {k: v for k, v in swapped.counts.items() if k.partition("_")[0] != "verdicts"} == {
        k: v for k, v in audit.counts.items() if k.partition("_")[0] != "verdicts"
    }
    assert swapped.confusion == tuple(row[::-1] for row in audit.confusion[::-1])
    assert [each.agreement.value for each in swapped.coverage] == pytest.approx(
        [each.agreement.value for each in audit.coverage]
    )
    assert swapped.brier_decomposition["uncertainty"] == pytest.approx(audit.brier_decomposition["uncertainty"])


def flat(section):
    found = {}
    for name, value in section.items():
        found |= (
            {name: value} if isinstance(value, Figure) else {f"{name}.{part}": each for part, each in value.items()}
        )
    return found


def values(figure):
    return [np.nan if number is None else number for number in (figure.value, figure.low, figure.high)]


@pytest.mark.parametrize(
    "table",
    [
        table_of([], []),
        table_of([0.7], [A]),
        table_of([NONE, NONE], [A, B]),
        table_of([0.7, 0.2], [None, None]),
        table_of([0.5, 0.5], [TIE, TIE]),
        table_of([1.0, 0.0], [A, B], prob_a_ab=[NONE, NONE], prob_a_ba=[NONE, NONE]),
        table_of([1.0] * 3, [A] * 3, clusters=[0, 0, 0]),
        table_of([0.0] * 3, [A] * 3, length_a=[9, 9, 9], weights=[1.0, 2.0, 5.0]),
        table_of([0.3], [A], votes=[[0, 0, 0]], by_judge={"one": [0.3], "two": [NONE]}),
    ],
    ids=[
        "empty",
        "one row",
        "no answers",
        "no labels",
        "ties",
        "no orders",
        "one cluster",
        "all wrong",
        "half a panel",
    ],
)
def test_little_data_is_a_why_and_never_a_fault(table):
    audit = audit_table(table, resamples=100)
    strict_json(audit)
    figures = list(figures_in(audit))
    assert figures
    for figure in figures:
        assert (figure.value is None) <= bool(figure.why)
        if figure.low is not None:
            assert figure.low <= figure.value <= figure.high


def test_a_perfect_judge_and_its_opposite():
    rng = np.random.default_rng(0)
    human = (rng.random(200) < 0.5).astype(float)
    perfect = audit_table(table_of(human.tolist(), human.tolist()), resamples=200)
    for name in ("agreement", "cohen_kappa", "gwet_ac1", "auc", "swap_consistency"):
        assert perfect.figure(name).value == pytest.approx(1.0), name
    for name in ("brier", "ece"):
        assert perfect.figure(name).value == 0.0
    opposite = audit_table(table_of((1 - human).tolist(), human.tolist()), resamples=200)
    assert opposite.figure("agreement").value == 0.0
    assert opposite.figure("cohen_kappa").value < -0.9
    assert opposite.figure("brier").value == 1.0


def test_another_judge_is_compared_on_the_same_rows():
    rng = np.random.default_rng(0)
    table = make_table(rng, 80)
    other = replace(table, prob_a=1.0 - table.prob_a)
    against = audit_table(table, other=other, name_of_other="its opposite", resamples=100).against
    assert against.name == "its opposite"
    assert against.agreement.value + against.other_agreement.value == pytest.approx(1.0)


def test_columns_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match="no groups by 'source'; there are: task"):
        audit_table(mixed_table(), by=["source"])


def test_bins_points_and_gaps_have_intervals():
    audit = audit_table(mixed_table(count=300), resamples=200)
    assert len(audit.reliability) > 10
    assert len(audit.length_gaps) == 8
    assert audit.coverage[0].share_kept == 1.0
    assert audit.coverage[0].agreement == audit.figure("agreement")
    for figure in figures_in((audit.reliability, audit.coverage, audit.length_gaps)):
        assert figure.low <= figure.value <= figure.high
