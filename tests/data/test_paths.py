import pytest

from rlaif.data.paths import value_at

NESTED = {
    "judge_votes": {"gpt-3.5-turbo": {"order_12": 1}, "gpt-3": {"5-turbo": 2}},
    "a.b": {"c": 3},
    "a": {"b": {"d": 4}},
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("judge_votes.gpt-3.5-turbo.order_12", 1),
        ("judge_votes.gpt-3.5-turbo", {"order_12": 1}),
        ("a.b", {"c": 3}),
        ("a.b.c", 3),
        ("a.b.d", 4),
    ],
)
def test_the_longest_existing_key_is_taken(path, value):
    assert value_at(NESTED, path) == value


def test_lists_and_json_text():
    assert value_at({"x": [{"y": 1}, {"y": 2}]}, "x.1.y") == 2
    assert value_at({"x": '{"gpt-3.5": {"v": [1, 2]}}'}, "x.gpt-3.5.v.0") == 1
    assert value_at({"x": '{"y": 1}'}, "x") == '{"y": 1}'


@pytest.mark.parametrize("path", ["", "b", "a.c", "a.b.c.d", "judge_votes.gpt-4.order_12", "a.0"])
def test_what_is_not_there(path):
    with pytest.raises(KeyError):
        value_at(NESTED, path)


@pytest.mark.parametrize("value", ["[1, 2", "{broken", "plain", [1], None, 3])
def test_values_without_an_inside(value):
    with pytest.raises(KeyError):
        value_at({"x": value}, "x.5")
