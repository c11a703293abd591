"""Whether the audit names the fault of a simulated judge, and how often it accuses a fair one.

    python benchmarks/audit_planted.py                 # 1,000 data sets a judge, an hour on two cores
    python benchmarks/audit_planted.py --seeds 100

Each data set has 400 pairs of its own (tests/auditing/planted.py), where people prefer the longer response, and the one
with more lists, in 65 of 100 pairs; one pair in five holds words meant for a judge. "right" is the share of data sets
where the first finding against the judge is the planted one, "named" where it is among the findings. For a fair judge,
any finding against it is a false alarm.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from rlaif.auditing.audit import audit_table  # noqa: E402
from rlaif.auditing.findings import findings  # noqa: E402
from tests.auditing.planted import BIASES, FAIR, PLANTED, plant  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000, metavar="N", help="data sets a judge")
    parser.add_argument("--rows", type=int, default=400, metavar="N", help="pairs a data set")
    parser.add_argument("--resamples", type=int, default=300, metavar="N", help="of the bootstrap")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes")
    arguments = parser.parse_args()
    print("| judge | finding | right | named | other findings against it |")
    print("|---|---|---|---|---|")
    with ProcessPoolExecutor(arguments.workers) as pool:
        for judge in [*FAIR, *PLANTED]:
            audit = partial(against, judge, arguments.rows, arguments.resamples)
            print(line(judge, list(pool.map(audit, range(arguments.seeds), chunksize=10))), flush=True)


def against(judge: str, rows: int, resamples: int, seed: int) -> list[str]:
    """What the audit of one data set finds against the judge, in its order."""
    decide = FAIR[judge] if judge in FAIR else PLANTED[judge].judge
    table = plant(decide, seed, count=rows, longer=0.65, lists=0.65)
    return [each.name for each in findings(audit_table(table, resamples=resamples)) if each.name in BIASES]


def line(judge: str, found: list[list[str]]) -> str:
    """A judge's line of the table."""
    counts = Counter(name for names in found for name in set(names))
    if judge in FAIR:
        return f"| {judge} | none | {_share(not names for names in found)} | | {_listed(counts, len(found))} |"
    wanted = PLANTED[judge].finding
    others = Counter({name: count for name, count in counts.items() if name != wanted})
    right, named = _share(names[:1] == [wanted] for names in found), _share(wanted in names for names in found)
    return f"| {judge} | {wanted} | {right} | {named} | {_listed(others, len(found))} |"


def _share(claims: Iterable[bool]) -> str:
    held = list(claims)
    return f"{sum(held) / len(held):.1%}"


def _listed(counts: Counter[str], total: int) -> str:
    return ", ".join(f"{name} {count / total:.1%}" for name, count in counts.most_common()) or "none"


if __name__ == "__main__":
    main()
