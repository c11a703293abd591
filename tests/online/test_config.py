from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest

from rlaif.online.config import GROUP_SIZES, ONLINE_CONFIGS, ROUNDS
from rlaif.options import options
from rlaif.train.config import LEARNING_RATES


def test_every_method_has_a_size_of_group_and_a_learning_rate() -> None:
    assert GROUP_SIZES.keys() == ONLINE_CONFIGS.keys()
    assert LEARNING_RATES.keys() >= ONLINE_CONFIGS.keys()
    assert ONLINE_CONFIGS.keys() > ROUNDS


@pytest.mark.parametrize("method", ONLINE_CONFIGS)
def test_every_setting_of_a_method_has_a_name_of_its_own_and_words(method: str) -> None:
    """Settings of nested configs share the command line."""
    found = options(ONLINE_CONFIGS[method])
    names = [option.name for option in found]
    assert len(names) == len(set(names))
    assert all(option.description for option in found)


def test_only_the_loss_tells_the_methods_apart() -> None:
    shared = [{field.name for field in fields(kind)} for kind in ONLINE_CONFIGS.values()]
    assert all(each == shared[0] for each in shared)
    losses = [type(kind(model="", data="", out="").loss) for kind in ONLINE_CONFIGS.values()]  # type: ignore[attr-defined]
    assert len(set(losses)) == len(ONLINE_CONFIGS)


def test_settings_load_no_torch() -> None:
    code = "import sys, rlaif.online.config, rlaif.online.inputs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
