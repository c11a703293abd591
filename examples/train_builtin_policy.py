"""Train the generator that ships as `builtin:tiny-policy`, from nothing but our own grammar.

    python examples/train_builtin_policy.py --out rlaif/backends/builtin_policy_model --minutes 42

takes that long on two cores. Stopped, it goes on with `--resume`, also with other `--minutes`. Nothing is downloaded,
and no text is learnt from but what `examples/builtin_judge/` and `examples/builtin_policy/` compose and what the
shipped prompts hold. `--write-examples` writes the generated prompts of `examples/data/` instead.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(REPOSITORY)]

from builtin_judge.command import train_from_command_line  # noqa: E402

if __name__ == "__main__":
    train_from_command_line("builtin_policy", __doc__, minutes=42.0)
