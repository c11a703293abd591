"""Options that there are not."""

import pytest

from rlaif.data.training_methods import RowFilters, TrainingOptions
from rlaif.errors import ConfigError


@pytest.mark.parametrize("value", [0.49, 1.01, float("nan"), -1.0])
def test_no_floor(value):
    with pytest.raises(ConfigError, match="min_confidence: .* expected a number from 0.5 to 1"):
        RowFilters(min_confidence=value)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_no_share(share):
    with pytest.raises(ConfigError, match="held_out: .* expected a share of the prompts from 0 to below 1"):
        TrainingOptions("dpo", held_out=share)
