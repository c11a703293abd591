"""Drawn tokens: hand-worked, against the formula for one row, and against the nucleus of transformers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TopPLogitsWarper

from rlaif.backends import drawing
from rlaif.backends.drawing import Draw, Drawer, drawn_tokens, in_nucleus


def logits_of(*probs: float) -> torch.Tensor:
    return torch.tensor([[math.log(prob) for prob in probs]], dtype=torch.float64)


def nucleus(probs: Sequence[float], top_p: float) -> list[int]:
    inside = in_nucleus(torch.tensor([probs], dtype=torch.float64), torch.tensor([[top_p]], dtype=torch.float64))
    return inside[0].nonzero()[:, 0].tolist()


def drawn_alone(logits: torch.Tensor, temperature: float, uniform: float) -> int:
    """The plain formula for one row, as samples of earlier versions were drawn: their seeds keep their texts."""
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    return min(int((cumulative < uniform * float(cumulative[-1])).sum()), len(cumulative) - 1)


@pytest.mark.parametrize(
    ("top_p", "inside"),
    # masses, likeliest first: 0.5 (token 1), 0.75 (token 3), 0.875 (token 0), 1 (token 2)
    [
        (0.1, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.75, [1, 3]),
        (0.76, [0, 1, 3]),
        (0.9, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_the_smallest_set_that_has_the_mass(top_p: float, inside: list[int]) -> None:
    assert nucleus([0.125, 0.5, 0.125, 0.25], top_p) == inside


def test_of_equally_likely_tokens_the_first_are_in() -> None:
    assert nucleus([0.25, 0.25, 0.25, 0.25], 0.5) == [0, 1]
    assert nucleus([0.125, 0.125, 0.5, 0.125, 0.125], 0.7) == [0, 1, 2]  # 0.5, 0.625, 0.75


def test_a_draw_inverts_the_cumulative_distribution_in_the_order_of_the_vocabulary() -> None:
    # 0.2, 0.7, 1.0
    found = [
        drawn_tokens(logits_of(0.2, 0.5, 0.3), [Draw(1.0, 1.0, 0)], [u]).tokens
        for u in (0.0, 0.19, 0.21, 0.69, 0.71, 0.999)
    ]
    assert found == [[0], [0], [1], [1], [2], [2]]
    # 0.7 leaves tokens 1 and 2, with 0.5 and 0.3 of 0.8: up to 0.625, up to 1
    found = [drawn_tokens(logits_of(0.2, 0.5, 0.3), [Draw(1.0, 0.7, 0)], [u]).tokens for u in (0.01, 0.62, 0.63, 0.999)]
    assert found == [[1], [1], [2], [2]]


def test_the_temperature_comes_before_the_nucleus() -> None:
    # roots of 0.81, 0.16, 0.03 over their sum 1.4732: 0.611, 0.272, 0.118; 0.8 takes two, where 0.81 alone would do
    assert drawn_tokens(logits_of(0.81, 0.16, 0.03), [Draw(2.0, 0.8, 0)], [0.95]).tokens == [1]
    assert drawn_tokens(logits_of(0.81, 0.16, 0.03), [Draw(1.0, 0.8, 0)], [0.95]).tokens == [0]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 2**32),
        st.floats(0.05, 5.0),
        st.sampled_from([0.01, 0.3, 0.9, 0.999, 1.0]),
        st.floats(0.0, 1.0, exclude_max=True),
    ),
    min_size=1,
    max_size=6,
)


@given(rows=ROWS, size=st.sampled_from([2, 97, 3001]), is_coarse=st.booleans())
def test_a_row_draws_the_same_alone_and_in_any_batch(
    rows: list[tuple[int, float, float, float]], size: int, is_coarse: bool
) -> None:
    dtype = torch.bfloat16 if is_coarse else torch.float32  # coarse logits have many ties
    logits = torch.stack([torch.randn(size, generator=torch.Generator().manual_seed(row[0])) * 4 for row in rows])
    logits = logits.to(dtype)
    draws, uniforms = [Draw(row[1], row[2], 0) for row in rows], [row[3] for row in rows]
    together = drawn_tokens(logits, draws, uniforms)
    for index, (token, logprob) in enumerate(zip(*together, strict=True)):
        row = slice(index, index + 1)
        assert drawn_tokens(logits[row], draws[row], uniforms[row]) == ([token], [logprob])
        assert token is not None
        expected = (logits[index].double() / draws[index].temperature).log_softmax(-1)[token]
        assert logprob == pytest.approx(float(expected), abs=1e-9)
        if draws[index].top_p == 1.0:
            assert token == drawn_alone(logits[index], draws[index].temperature, uniforms[index])


def test_blocks_of_rows_draw_as_the_whole_batch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0)) * 3
    draws, uniforms = [Draw(1.0, 0.8, 0)] * 7, [random.Random(3).random() for _ in range(7)]
    whole = drawn_tokens(logits, draws, uniforms)
    monkeypatch.setattr(drawing, "_BLOCK", 120)
    assert drawn_tokens(logits, draws, uniforms) == whole


@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 0.99])
def test_the_nucleus_is_that_of_transformers(top_p: float) -> None:
    logits = torch.randn(20, 500, generator=torch.Generator().manual_seed(1)).double() * 3
    theirs = TopPLogitsWarper(top_p)(torch.zeros(20, 1, dtype=torch.long), logits).isfinite()
    ours = in_nucleus(logits.softmax(-1), torch.full((20, 1), top_p, dtype=torch.float64))
    assert torch.equal(ours, theirs)


def test_greedy_and_drawn_rows_share_a_batch_and_each_draws_its_own_numbers() -> None:
    logits = torch.randn(3, 30, generator=torch.Generator().manual_seed(2))
    drawer = Drawer([Draw(1.0, 1.0, 11), Draw(0.0, 1.0, 0), Draw(1.0, 1.0, 12)])
    numbers = {seed: random.Random(seed) for seed in (11, 12)}
    for rows in ([0, 1, 2], [0, 1, 2], [1, 2], [2]):
        expected = {0: 11, 2: 12}
        found = drawer.next_tokens(logits[rows], rows)
        assert found.tokens == [
            drawn_alone(logits[row], 1.0, numbers[expected[row]].random())
            if row in expected
            else int(logits[1].argmax())
            for row in rows
        ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_give_no_token_and_leave_the_others_alone(temperature: float) -> None:
    logits = torch.zeros(3, 5)
    logits[:, 3] = 50.0
    logits[1, 2] = math.nan
    drawer = Drawer([Draw(temperature, 0.9, seed) for seed in range(3)])
    assert drawer.next_tokens(logits, [0, 1, 2]).tokens == [3, None, 3]


def test_a_token_comes_with_its_log_probability_at_its_temperature_and_before_the_nucleus() -> None:
    # Roots of 0.81, 0.16, 0.03 over their sum 1.4732: token 1 has 0.4 / 1.4732, whatever the nucleus leaves out.
    found = drawn_tokens(logits_of(0.81, 0.16, 0.03), [Draw(2.0, 0.8, 0)], [0.95])
    assert found.tokens == [1]
    assert found.logprobs == [pytest.approx(math.log(0.4 / 1.47321), abs=1e-5)]
    # A greedy one at temperature 1, and only where it is wanted.
    logits = logits_of(0.2, 0.5, 0.3)
    assert Drawer([Draw(0.0, 1.0, 0)], reads_logprobs=True).next_tokens(logits, [0]).logprobs == [
        pytest.approx(math.log(0.5), abs=1e-6)
    ]
    assert math.isnan(Drawer([Draw(0.0, 1.0, 0)]).next_tokens(logits, [0]).logprobs[0])


def test_greedy_and_drawn_rows_of_a_batch_each_have_their_own_log_probability() -> None:
    drawer = Drawer([Draw(0.0, 1.0, 0), Draw(0.5, 1.0, 7)], reads_logprobs=True)
    logits = logits_of(0.2, 0.5, 0.3).repeat(2, 1)
    (greedy, drawn), logprobs = drawer.next_tokens(logits, [0, 1])
    assert greedy == 1
    assert drawn is not None
    # Squares of 0.2, 0.5, 0.3 over their sum 0.38.
    expected = [0.5, [0.04, 0.25, 0.09][drawn] / 0.38]
    assert logprobs == pytest.approx([math.log(prob) for prob in expected], abs=1e-6)
