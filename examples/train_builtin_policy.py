"""Train the generator that ships as `builtin:tiny-policy`, from nothing but our own grammar.

    python examples/train_builtin_policy.py --out rlaif/backends/builtin_policy_model --minutes 42

takes that long on two cores. Stopped, it goes on with `--resume`, also with other `--minutes`. Nothing is downloaded,
and no text is learnt from but what `examples/builtin_judge/` and `examples/builtin_policy/` compose and what the
shipped prompts hold. `--write-examples` writes the generated prompts of `examples/data/` instead.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(REPOSITORY)]


def main() -> None:
    """Read the flags and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/builtin_policy"), help="folder of the finished model")
    parser.add_argument("--state", type=Path, help="folder of the resumable state (default: OUT/state)")
    parser.add_argument("--minutes", type=float, default=42.0, help="length of the whole schedule (default 42)")
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the saved state")
    parser.add_argument("--write-examples", type=Path, metavar="FOLDER", help="write the example prompts and stop")
    options = parser.parse_args()
    if options.write_examples:
        from builtin_policy.example_data import write_examples

        write_examples(options.write_examples)
        return
    from builtin_judge.loop import Run
    from builtin_policy.trainer import train

    state = options.state or options.out / "state"
    train(Run(options.out, state, options.minutes, options.processes, options.seed), resume=options.resume)


if __name__ == "__main__":
    main()
