import pytest

from rlaif.data.columns import RowFault
from rlaif.data.recorded import NOT_THERE, RecordedColumn, Scale, missing_column, verdict_like


def read(column, values, name="v"):
    recorded = RecordedColumn(column)
    taken = [recorded.take({name: value}, is_ranked=False) for value in values]
    return recorded, [recorded.prob_a(each) for each in taken]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 2, 0], Scale.VERDICTS),
        (["a", "b", None], Scale.VERDICTS),
        ([None, ""], Scale.VERDICTS),
        ([1, 0, 0.5], Scale.PROBABILITY),
        (["0.25", "1"], Scale.PROBABILITY),
        ([1, 1.5, 2], Scale.PREFERENCE),
        ([1.0000001827, 2.0], Scale.PREFERENCE),  # as good as certain, and still no whole number
        ([0.9999999, 1.0], Scale.PROBABILITY),
        ([0.9999999, 1.4], Scale.PREFERENCE),
        ([0.4, 1.0000001], Scale.PROBABILITY),
    ],
)
def test_the_scale_is_the_whole_columns(values, scale):
    recorded, found = read("v", values)
    assert recorded.scale is scale
    assert all(prob is None or 0 <= prob <= 1 for prob in found)


def test_the_name_preference_is_alpacaevals():
    assert read("x.preference", [], "x")[0].scale is Scale.VERDICTS
    recorded = RecordedColumn("x.preference")
    recorded.take({"x": {"preference": 2}}, is_ranked=False)
    assert recorded.scale is Scale.PREFERENCE


def test_ranked_rows_may_say_chosen():
    recorded = RecordedColumn("v")
    taken = recorded.take({"v": " Chosen"}, is_ranked=True), recorded.take({"v": "rejected"}, is_ranked=True)
    assert [recorded.prob_a(each) for each in taken] == [1.0, 0.0]
    with pytest.raises(RowFault) as caught:
        recorded.prob_a(recorded.take({"v": "x"}, is_ranked=True))
    assert "chosen or rejected" in caught.value.reason


def test_scores_need_both():
    recorded = RecordedColumn("s, t")
    values = [{"s": 1, "t": 2}, {"s": 1, "t": None}, {"s": 1}]
    taken = [recorded.take(row, is_ranked=False) for row in values]
    assert [recorded.prob_a(each) for each in taken] == [0.0, None, None]
    assert taken[2].value is NOT_THERE
    assert (recorded.nulls, recorded.absent) == (1, 1)


def test_what_could_be_verdicts_is_found_at_any_depth():
    rows = [
        {"id": 1, "human_label": 1, "prompt": "P", "votes": [{"x": "1"}], "text": "tie me", "n": 7},
        {"id": 2, "human_label": 1, "prompt": "1", "votes": [{"x": None}], "json": '{"y": 0.5}', "flag": True},
    ]
    assert verdict_like(rows) == "such as votes.0.x, json.y"
    many = [{f"judge {n}": 1 for n in range(20)}]
    assert verdict_like(many).endswith("judge 7 and 12 more")


def test_what_is_said_of_a_missing_column():
    rows = [{"votes": {"gpt4": {"order_12": 1}}, "prompt": "P"}]
    assert missing_column("votes.gpt4.order12", rows) == "is in no row (did you mean 'votes.gpt4.order_12'?)"
    assert missing_column("prompt,votes.gpt4.order12", rows).startswith("is in no row (did you mean")
    assert missing_column("quite different", rows) == "is in no row; the rows have: votes.gpt4.order_12, prompt"
