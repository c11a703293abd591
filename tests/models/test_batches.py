"""Examples laid out in rows."""

from __future__ import annotations

import torch

from rlaif.models.batches import PADDING, attention_inputs, block_mask, collate
from rlaif.models.examples import Example

PAIR = Example("pair", (1, 2), ((3, 4, 5), (6, 7)))
SINGLE = Example("single", (8,), ((9,),))


def test_a_packed_row_holds_the_prompt_once_and_restarts_positions() -> None:
    batch = collate([PAIR, SINGLE], is_packed=True, pad=0)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 0, 0, 0, 0, 0]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3], [0, 1, 0, 0, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[0, 0, 1, 1, 1, 2, 2], [0, 1, *[PADDING] * 5]]
    # The prompt's last token (1) predicts the first of both completions.
    assert batch.predictors.tolist() == [1, 2, 3, 1, 5, 7 + 0]
    assert batch.targets.tolist() == [3, 4, 5, 6, 7, 9]
    assert batch.places.tolist() == [0, 1, 2, 3, 4, 6]  # L = 3: SINGLE starts at 2 * 3
    assert batch.tokens.tolist() == [[3, 2], [1, 0]]
    assert batch.is_present.tolist() == [[True, True], [True, False]]
    assert batch.ends.tolist() == [[4, 6], [8, 0]]
    assert batch.ids == ("pair", "single")


def test_plain_rows_hold_one_completion_each() -> None:
    batch = collate([PAIR, SINGLE], is_packed=False, pad=9)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 5], [1, 2, 6, 7, 9], [8, 9, 9, 9, 9]]
    assert batch.predictors.tolist() == [1, 2, 3, 6, 7, 10]
    assert batch.ends.tolist() == [[4, 8], [11, 0]]
    packed = collate([PAIR, SINGLE], is_packed=True)
    for name in ("targets", "places", "tokens"):
        assert torch.equal(getattr(batch, name), getattr(packed, name))
    # Padding is told by place: a pad that is also a token of the completion hides nothing (trl issue 3091).
    assert attention_inputs(batch, torch.float32)["attention_mask"].tolist()[2] == [1, 1, 0, 0, 0]
    assert "position_ids" not in attention_inputs(batch, torch.float32)


def test_width_is_rounded_up() -> None:
    assert collate([PAIR], is_packed=True, multiple=8).input_ids.shape == (1, 8)


def test_each_completion_sees_the_prompt_and_itself() -> None:
    mask = block_mask(collate([PAIR, SINGLE], is_packed=True).segment_ids, torch.float32)
    assert mask.shape == (2, 1, 7, 7)
    sees = [["".join("x" if value == 0 else "." for value in row) for row in one[0].tolist()] for one in mask]
    assert sees[0] == ["x......", "xx.....", "xxx....", "xxxx...", "xxxxx..", "xx...x.", "xx...xx"]
    # Padding sees itself alone: a row of -inf would be NaN.
    assert sees[1] == ["x......", "xx.....", "..x....", "...x...", "....x..", ".....x.", "......x"]
    assert set(mask.unique().tolist()) == {0.0, -torch.inf}


def test_a_batch_moves_as_a_whole() -> None:
    moved = collate([PAIR], is_packed=True).to("meta")
    assert moved.input_ids.is_meta
    assert moved.ends.is_meta
    assert moved.longest == 3
