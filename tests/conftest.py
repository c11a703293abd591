"""What all tests share."""

from __future__ import annotations

import pytest
from hypothesis import settings

# A test machine may be busy with something else: how long one example takes says nothing.
settings.register_profile("rlaif", deadline=None)
settings.load_profile("rlaif")

LONGEST = ("test_the_readme_runs_from_top_to_bottom", "test_an_example_runs[drlaif.py]")
"""Tests of minutes: begun first, so that none of the processes is left with one of them alone in the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.name not in LONGEST)
