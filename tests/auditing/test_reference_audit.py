"""The audit's figures beside those of an independent script, on recorded judges and people's labels.

The data is third-party and stays outside the repository; without it these tests are skipped.
"""

import importlib.util
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(not (SHARED / "reference_audit.json").is_file(), reason="needs ../shared/data")


@pytest.fixture(scope="module")
def found():
    """Set -> judge -> the figures compared."""
    spec = importlib.util.spec_from_file_location("audit_reference", REPOSITORY / "benchmarks" / "audit_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sets: dict = {}
    for name, judge, figures in module.compared(SHARED):
        sets.setdefault(name, {})[judge] = figures
    return sets


@pytest.mark.parametrize(("name", "judges"), [("llmbar_natural", 65), ("vicuna80_dev", 5), ("pandalm_dev", 2)])
def test_every_figure_of_every_recorded_judge(found, name, judges):
    assert len(found[name]) == judges + 1
    for judge, figures in found[name].items():
        for each in figures:
            assert each.difference <= 1e-6, (judge, each)
    compared = {judge: len(figures) for judge, figures in found[name].items() if judge != "people"}
    assert set(compared.values()) == {11 if name == "pandalm_dev" else 35}  # one order, or two and both together


def test_every_figure_of_people_and_lengths(found):
    assert len(found) == 8
    for name, judges in found.items():
        for each in judges["people"]:
            assert each.difference <= 1e-6, (name, each)
    assert {len(found[name]["people"]) for name in ("pandalm_dev", "vicuna80_dev")} == {16}
