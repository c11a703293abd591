"""Train the judge that ships as `builtin:tiny`, from nothing but our own grammar.

    python examples/train_builtin_judge.py --out rlaif/backends/builtin_model --minutes 60

takes an hour on two cores. Stopped, it goes on with `--resume`, also with other `--minutes`. Nothing is downloaded, and
no text but what `examples/builtin_judge/` composes is learnt from. `--write-examples` writes the generated example data
of `examples/data/` instead.
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
    parser.add_argument("--out", type=Path, default=Path("runs/builtin_judge"), help="folder of the finished model")
    parser.add_argument("--state", type=Path, help="folder of the resumable state (default: OUT/state)")
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the whole schedule (default 60)")
    parser.add_argument("--processes", type=int, default=2, help="one-thread processes (default 2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="go on from the saved state")
    parser.add_argument("--write-examples", type=Path, metavar="FOLDER", help="write the example data and stop")
    options = parser.parse_args()
    if options.write_examples:
        from builtin_judge.example_data import write_examples

        write_examples(options.write_examples)
        return
    from builtin_judge.loop import Run
    from builtin_judge.trainer import train

    state = options.state or options.out / "state"
    train(Run(options.out, state, options.minutes, options.processes, options.seed), resume=options.resume)


if __name__ == "__main__":
    main()
