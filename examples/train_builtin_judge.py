"""Train the judge that ships as `builtin:tiny`, from nothing but our own grammar.

    python examples/train_builtin_judge.py --out rlaif/backends/builtin_model --minutes 60

takes an hour on two cores. Stopped, it goes on with `--resume`, also with other `--minutes`. Nothing is downloaded, and
no text but what `examples/builtin_judge/` composes is learnt from. `--write-examples` writes the generated example data
of `examples/data/` instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(REPOSITORY)]

from builtin_judge.command import train_from_command_line  # noqa: E402

if __name__ == "__main__":
    train_from_command_line("builtin_judge", __doc__, minutes=60.0)
