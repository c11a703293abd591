"""A prompt template of your own, with a constitution of your own: two files, and the command line to use them.

python examples/own_prompt.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

TEMPLATE = """{% extends "pairwise/base.jinja" %}
{% block preamble %}You compare two answers for a reader who is in a hurry. Answer with 1 or 2.{% endblock %}
"""

CONSTITUTION = """
name: hurry
description: For readers in a hurry.
principles:
  - id: short
    text: Which response is shorter?
  - id: direct
    text: Which response comes to the point first?
    weight: 2
"""

COMPARISONS = Path(__file__).parent / "data" / "comparisons.jsonl"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "hurry.jinja").write_text(TEMPLATE)
        (folder / "hurry.yaml").write_text(CONSTITUTION)
        flags = ["--task", str(folder / "hurry.jinja"), "--constitution", str(folder / "hurry.yaml")]
        rlaif = [sys.executable, "-m", "rlaif"]
        subprocess.run([*rlaif, "show", "prompt", str(COMPARISONS), *flags], check=True)
        out = ["-o", str(folder / "run"), "--limit", "10"]
        subprocess.run([*rlaif, "label", str(COMPARISONS), *out, *flags], check=True)


if __name__ == "__main__":
    main()
