"""The wheel holds what the package needs: it is built, installed beside nothing else of ours, and renders and lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

CHECK = """
import sys
from pathlib import Path
import rlaif
assert Path(rlaif.__file__).is_relative_to(sys.argv[1]), rlaif.__file__
from rlaif.judge.constitutions import load_constitution
from rlaif.judge.templates import PairwiseTemplate, shipped_tasks
from rlaif.records import Comparison, Order, Turn
comparison = Comparison("row", (Turn("user", "What?"),), "a", "b")
for task in shipped_tasks():
    template = PairwiseTemplate(task, preamble="detailed", shots=2)
    print(template.render(comparison, Order.AB)[0].content[-40:])
print(load_constitution("helpful-harmless").principles[0].id)
from rlaif.backends.builtin import BuiltinBackend
print(BuiltinBackend("tiny").name)
rows = [{"prompt": "P", "response_a": "x", "response_b": "y", "prob_a": 0.9, "human_label": "a"}]
rlaif.audit(rows, resamples=100).save(Path(sys.argv[2]) / "report.html")
from rlaif.auditing.probe_items import load_items
print(len(load_items()))
from rlaif.online.suite import suite_items
print(len(suite_items("mini")))
"""


def test_an_installed_wheel_finds_prompts_constitutions_and_the_judge(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(ROOT)], check=True
    )
    (wheel,) = tmp_path.glob("rlaif-*.whl")
    assert wheel.stat().st_size < 10_000_000
    place = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    checked = subprocess.run(
        [sys.executable, "-c", CHECK, str(place), str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert checked.stdout.count("Preferred response (1 or 2):") == 4
    assert checked.stdout.endswith("builtin:tiny\n40\n50\n")
    assert "<h1" in (tmp_path / "report.html").read_text(encoding="utf-8")
