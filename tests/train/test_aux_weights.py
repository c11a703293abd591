"""How much each response weighs by its auxiliary rewards: by hand, whatever rows lack, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import ConfigError
from rlaif.records import Comparison, Turn
from rlaif.train.aux_weights import advantages, likelihood_weight, weigh_aux
from rlaif.train.config import HpoLossConfig
from rlaif.training_records import Feedback, LabeledPair

ONE = HpoLossConfig(aux_tau=1.0)
NUMBERS = st.floats(-1e6, 1e6)


def pair(prompt: str, a: Mapping[str, float], b: Mapping[str, float]) -> LabeledPair:
    return LabeledPair(Comparison(prompt, (Turn("user", prompt),), "x", "y"), 0.8, aux_rewards=(a, b))


def lengths(prompt: str, a: float, b: float) -> LabeledPair:
    return pair(prompt, {"length": a}, {"length": b})


def feedback(prompt: str, length: float) -> Feedback:
    return Feedback(prompt, (Turn("user", prompt),), "x", is_desirable=True, aux_rewards=({"length": length},))


def test_the_weights_of_a_pair_by_hand() -> None:
    # Means 2 and 6: leads 1, -1 and -1, 1. Standard deviation 1.
    found = weigh_aux([lengths("P", 3, 1), lengths("Q", 5, 7)], [], HpoLossConfig())
    e = math.e
    assert [pytest.approx(row) for row in found.train] == [(e, 1 / e), (1 / e, e)]
    summary = found.summary
    assert (summary.tau, summary.baseline, summary.responses, summary.without, summary.clipped) == (1.0, 4.0, 4, 0, 0)
    assert str(summary) == "4 responses weighed by length, tau 1"


def test_the_mean_is_over_all_rows_of_a_prompt() -> None:
    # Rewards 0, 2, 4, 6 of one prompt: a mean of 3.
    assert advantages([(0.0, 2.0), (4.0, 6.0)], ["P", "P"], 99.0) == [(-3.0, -1.0), (1.0, 3.0)]


def test_a_response_alone_on_its_prompt_leads_the_mean_of_all() -> None:
    found = weigh_aux([feedback("P", 1.0), feedback("Q", 5.0)], [], ONE)
    assert found.summary.baseline == 3.0
    assert [pytest.approx(row) for row in found.train] == [(math.exp(-2),), (math.exp(2),)]


def test_rewards_are_summed_by_weight_and_a_response_that_lacks_one_has_none() -> None:
    full, part = {"length": 3.0, "ease": 10.0}, {"length": 9.0}
    rows = [pair("P", full, {"length": 1.0, "ease": 5.0}), pair("Q", full, part), pair("R", {}, {})]
    found = weigh_aux(rows, [], HpoLossConfig(aux={"length": -1.0, "ease": 0.5}, aux_tau=1.0))
    # P: -3 + 5 = 2 and -1 + 2.5 = 1.5; Q: 2 alone. The mean of all is (2 + 1.5 + 2) / 3 = 11 / 6.
    assert [pytest.approx(row) for row in found.train] == [
        (math.exp(0.25), math.exp(-0.25)), (math.exp(2 - 11 / 6), 0.0), (0.0, 0.0),
    ]  # fmt: skip
    assert (found.summary.responses, found.summary.without) == (3, 3)
    assert str(found.summary) == ("3 responses weighed by -1 length, 0.5 ease, tau 1; 3 without auxiliary rewards")
    only = weigh_aux(rows, [], HpoLossConfig(aux={"length": 1.0}))
    assert only.summary.names == {"length": 1.0}
    assert (only.summary.responses, only.summary.without) == (4, 2)
    assert weigh_aux(rows, [], ONE).summary.names == {"ease": 1.0, "length": 1.0}


def test_large_leads_are_held_at_the_largest_weight_and_counted() -> None:
    found = weigh_aux([lengths("P", 1000, 0)], [], HpoLossConfig(aux_tau=1.0, aux_max_weight=5.0))
    assert found.train == [(5.0, math.exp(-500))]
    assert str(found.summary).endswith("1 at the largest weight")
    assert likelihood_weight(1e300, 1e-300, 1e300) == 1e300


def test_held_out_rows_are_weighed_as_if_they_had_come_later() -> None:
    train = [lengths("P", 3, 1), lengths("Q", 5, 7)]
    alone, beside = weigh_aux(train, [], HpoLossConfig()), weigh_aux(train, [lengths("R", 0, 80)], HpoLossConfig())
    assert (beside.train, beside.summary) == (alone.train, alone.summary)
    assert beside.held_out == [(pytest.approx(math.exp(-40)), 20.0)]
    (other,) = weigh_aux([feedback("P", 1.0), feedback("Q", 5.0)], [feedback("R", 4.0)], ONE).held_out
    assert other == (pytest.approx(math.exp(4 - 3)),)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6))
def test_exchanging_a_and_b_exchanges_the_weights(values: list[tuple[float, float]]) -> None:
    rows, turned = ([lengths(str(n), *each) for n, each in enumerate(some)]
                    for some in (values, [(b, a) for a, b in values]))  # fmt: skip
    one, other = weigh_aux(rows, [], ONE), weigh_aux(turned, [], ONE)
    assert one.train == [weights[::-1] for weights in other.train]
    assert all(0.0 <= weight <= 20.0 for row in one.train for weight in row)


@given(st.lists(NUMBERS, min_size=2, max_size=6), NUMBERS)
def test_a_constant_beside_every_reward_changes_nothing(values: list[float], constant: float) -> None:
    def found(extra: float) -> list[float]:
        ((*row,),) = advantages([tuple(value + extra for value in values)], ["P"], 0.0)
        return row

    assert found(constant) == pytest.approx(found(0.0), abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "config", "message"),
    [
        ([pair("P", {}, {})], ONE, "the data has none; expected a column aux_rewards"),
        ([lengths("P", 1, 2)], HpoLossConfig(aux={"lenght": 1.0}), "'lenght' is unknown .did you mean 'length'"),
        ([pair("P", {"a": 1.0}, {"b": 2.0})], ONE, "no response of the data has all of a, b"),
        ([lengths("P", 1, 1), lengths("Q", 2, 2)], HpoLossConfig(), "no response of the data leads the others"),
        ([lengths("P", 0.1, 0.1), feedback("P", 0.1)], HpoLossConfig(), "no response of the data leads the others"),
        ([lengths("P", 1e200, 1)], HpoLossConfig(), "row 'P' come to 1e\\+200, expected at most 1e\\+100"),
        ([pair("P", {f"n{n:02}": 1.0}, {}) for n in range(99)], ONE, "has all of n00, .*, n09 and 89 more, expected"),
        (
            [pair("P", {"a": 1e308, "b": 1e308}, {"a": 1, "b": 1})],
            HpoLossConfig(aux={"a": 9.0, "b": -9.0}),
            "row 'P' come to nan",
        ),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(rows: list[LabeledPair], config: HpoLossConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weigh_aux(rows, [], config)
