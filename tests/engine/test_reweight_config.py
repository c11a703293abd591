"""Which weights `rlaif reweight` takes."""

from __future__ import annotations

import pytest

from rlaif.config import resolve
from rlaif.engine.reweight_config import ReweightConfig
from rlaif.errors import ConfigError


def weights(given: object) -> object:
    return resolve(ReweightConfig, None, {"input": "run", "out": "new", "weights": given}).weights


def test_from_a_flag_and_from_yaml() -> None:
    assert weights(["a=1,b=0.5", "c=0"]) == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert weights({"a": 1, "b": 0.5}) == {"a": 1.0, "b": 0.5}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("a=-1", "a is -1, expected 0 or a number from 1e-09 to 1e"),
        ("a=1e-300", "a is 1e-300, expected 0 or"),
        ("a=1e300", "a is 1e.300, expected 0 or"),
        ("a=inf", "expected name=number pairs"),
        ("a=nan", "expected name=number pairs"),
        ("a=much", "expected name=number pairs"),
        ("a", "expected name=number pairs"),
        ("", "expected name=number pairs"),
        ("a=1,a=2", "'a' is given twice"),
    ],
)
def test_what_is_no_weight(given: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        weights(given)
