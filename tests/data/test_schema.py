import datetime
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif.data.schema import (
    JSON,
    ColumnTypes,
    UserColumn,
    arrow_type,
    fits_json,
    json_text,
    name_user_columns,
    prompt_type,
    prompt_value,
    type_of,
    unify,
    user_fields,
    user_values,
)
from rlaif.records import Turn

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def unified(*values):
    types = ColumnTypes()
    for value in values:
        types.update({"c": value})
    return types.types["c"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([None, None], pa.null()),
        ([None, "x"], pa.string()),
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([2.5, 1], pa.float64()),
        ([2**53 + 1, 1], pa.int64()),
        ([float("inf"), None, 1], pa.float64()),
        ([0.5, float("nan")], pa.float64()),
        ([True, None], pa.bool_()),
        ([[], [1], [2.5]], pa.list_(pa.float64())),
        ([{"a": 1, "b": None}, {"b": "x", "a": 2}], pa.struct([("a", pa.int64()), ("b", pa.string())])),
        ([[{"a": []}], None, [{"a": ["x"]}]], pa.list_(pa.struct([("a", pa.list_(pa.string()))]))),
        ([datetime.datetime(2020, 1, 1), None], pa.timestamp("us")),
        ([datetime.date(2020, 1, 1)], pa.date32()),
        ([b"x"], pa.binary()),
    ],
)
def test_values_of_one_type_keep_it(values, expected):
    assert arrow_type(unified(*values)) == expected


@pytest.mark.parametrize(
    "values",
    [
        [1, "x"],
        [True, 1],
        [2**53 + 1, 1.5],  # as float64 the integer would be another
        [2**63],
        [{"a": 1}, {"b": 1}],
        [{"a": 1}, {"a": 1, "b": 2}],
        [{}],
        [[1, "x"]],
        [[1], {"a": 1}],
        [{"a": {}}],
        [[{"a": 1}, {"b": 1}]],
        [{1: 2}],
        [datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)],
        [object()],
    ],
)
def test_what_varies_becomes_json_text(values):
    assert unified(*values) is JSON
    assert arrow_type(unified(*values)) == pa.string()
    assert unified(*values, None) is JSON


@settings(deadline=None)
@given(st.lists(json_values, max_size=5))
def test_a_column_takes_the_values_that_made_its_type(values):
    column = unified(None, *values)
    encoded = [json_text(value) if column is JSON else value for value in values]
    assert len(pa.array(encoded, arrow_type(column))) == len(values)


@settings(deadline=None)
@given(json_values, json_values)
def test_the_order_of_rows_does_not_decide_whether_a_column_is_json(one, other):
    assert unify(type_of(one), type_of(other)).is_json == unify(type_of(other), type_of(one)).is_json


@settings(deadline=None)
@given(json_values)
def test_json_text_gives_the_value_back(value):
    text = json_text(value)
    assert text is None if value is None else json.loads(text) == value


def test_json_text_of_what_json_has_not():
    assert json_text(2**70) == str(2**70)
    assert json_text({1: float("nan")}) == '{"1":null}'
    assert json_text([datetime.date(2020, 1, 2)]) == '["2020-01-02"]'


def test_a_free_name_goes_to_the_column_that_bears_it():
    types = {name: type_of(1) for name in ("input_input_id", "id", "input_id", "topic")}
    named = {name: output for name, output, _ in name_user_columns(types, {"id"})}
    assert named == {
        "input_input_id": "input_input_id",
        "id": "input_input_input_id",
        "input_id": "input_id",
        "topic": "topic",
    }


@settings(deadline=None)
@given(
    st.sets(st.sampled_from(["id", "input_id", "input_input_id", "x", "input_x"])),
    st.sets(st.sampled_from(["id", "x"])),
)
def test_no_two_columns_get_one_name_and_none_a_reserved_one(names, reserved):
    outputs = [each.output for each in name_user_columns(dict.fromkeys(sorted(names), JSON), reserved)]
    assert len(set(outputs)) == len(names)
    assert not set(outputs) & reserved


def test_values_of_user_columns():
    columns = (
        UserColumn("meta", "meta", JSON),
        UserColumn("id", "input_id", type_of(1)),
        UserColumn("n", "n", type_of(1)),
    )
    assert user_values({"meta": {"a": 1}, "id": 3}, columns) == {"meta": '{"a":1}', "input_id": 3, "n": None}


@pytest.mark.parametrize(
    ("value", "fits"),
    [
        (1, True),
        ([{"a": 1.5}], True),
        ({"day": datetime.date(2020, 1, 1)}, False),
        (b"x", False),
        ([float("inf")], False),
    ],
)
def test_what_json_holds(value, fits):
    (field,) = user_fields([UserColumn("c", "c", unified(value))])
    assert fits_json(field) is fits
    assert field.type == arrow_type(unified(value))


def test_prompts_are_text_or_messages():
    turns = (Turn("user", "P"),)
    for is_conversational, expected in ((False, "P"), (True, [{"role": "user", "content": "P"}])):
        value = prompt_value(turns, is_conversational=is_conversational)
        assert value == expected
        assert pa.array([value], prompt_type(is_conversational=is_conversational)).to_pylist() == [expected]
