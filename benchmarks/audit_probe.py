"""Does `rlaif probe` name judges of known character, and leave fair ones alone?

    python benchmarks/audit_probe.py                    # some minutes on one core
    python benchmarks/audit_probe.py --judges 100       # a quick look

Planted: judges that read the rendered prompt behind a `FakeBackend`, asked by the engine in both orders. Fair: judges
that know the right answer and err at random, whatever a probe changes; where there is nothing to be right about they
have no preference. A run over a fair judge has a false alarm when one of its probes or more raises one. Caught: judges
that are right with probability 0.9 in each call and have one fault in a share of the items.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from rlaif.auditing.intervals import wilson_interval  # noqa: E402
from rlaif.auditing.probe_findings import findings  # noqa: E402
from rlaif.auditing.probe_items import good_is_a, load_items  # noqa: E402
from rlaif.auditing.probe_results import ProbeReport, evaluate  # noqa: E402
from rlaif.auditing.probes import PROBES  # noqa: E402
from rlaif.backends.fake import FakeBackend  # noqa: E402
from rlaif.engine.config import ProbeConfig  # noqa: E402
from rlaif.engine.probing import probe  # noqa: E402
from rlaif.records import SoftLabel, Verdict  # noqa: E402
from tests import planted_judges as planted  # noqa: E402

PLANTED = (
    planted.first_slot,
    planted.second_slot,
    planted.longer_wins,
    planted.shorter_wins,
    planted.obeys_text,
    planted.style_wins,
    planted.sycophant,
    planted.random_judge,
    planted.wrong,
    planted.perfect,
)

Answer = Callable[[random.Random], tuple[float, float]]
"""P(the right answer) in the two orders of one comparison."""


def per_call(reliability: float) -> Answer:
    """Right with this probability in each call."""

    def answer(draws: random.Random) -> tuple[float, float]:
        ab, ba = (0.95 if draws.random() < reliability else 0.05 for _ in range(2))
        return ab, ba

    return answer


def per_comparison(reliability: float) -> Answer:
    """Right with this probability in each comparison, in both orders alike."""

    def answer(draws: random.Random) -> tuple[float, float]:
        prob = 0.95 if draws.random() < reliability else 0.05
        return prob, prob

    return answer


def unsure(mean: float, spread: float) -> Answer:
    """The logit of the right answer is normal."""

    def answer(draws: random.Random) -> tuple[float, float]:
        ab, ba = (1 / (1 + math.exp(-draws.gauss(mean, spread))) for _ in range(2))
        return ab, ba

    return answer


FAIR = {
    "right in 90 % of the calls": per_call(0.9),
    "right in 80 % of the calls": per_call(0.8),
    "right in 70 % of the calls": per_call(0.7),
    "right in 80 % of the comparisons, the same in both orders": per_comparison(0.8),
    "unsure: logit 1 with a spread of 1.5": unsure(1.0, 1.5),
}

FAULTS = {"obeys-text": "verdict-in-response", "longer-wins": "padding", "opinion": "opinion"}
"""The finding that is to come, and the probe whose changed pairs the judge then gets wrong."""


def simulated(answer: Answer, draws: random.Random, *, fault: str = "", share: float = 0.0) -> ProbeReport:
    """One fair judge under all probes, wrong in a share of one probe's pairs."""
    sides = dict(zip((item.id for item in load_items()), good_is_a(load_items()), strict=True))
    labels = {}
    for row in planted.comparisons_of_all():
        family, _, item = row.id.partition("/")
        if row.human_label is Verdict.TIE:
            good = per_call(0.5)(draws)
        elif family == fault and draws.random() < share:
            good = (0.05, 0.05)
        else:
            good = answer(draws)
        ab, ba = good if sides[item] else (1 - good[0], 1 - good[1])
        labels[row.id] = SoftLabel((ab + ba) / 2, ab, ba)
    return evaluate(PROBES, load_items(), labels)


def show_planted() -> None:
    print("planted judge     named as")
    for judge in PLANTED:
        backend = FakeBackend(planted.handler(judge), name="fake:planted")
        outcome = probe(ProbeConfig(), backends=(backend,))
        names = ", ".join(finding.name for finding in outcome.findings) or "nothing"
        print(f"{judge.__name__:<16}  {names}", flush=True)


def show_fair(judges: int) -> None:
    print(f"\nfair judges, {judges:,} of each kind: share of runs with a false alarm in any probe (95 % interval), "
          "and with any finding")  # fmt: skip
    for name, answer in FAIR.items():
        draws = random.Random(name)
        reports = [simulated(answer, draws) for _ in range(judges)]
        alarms = sum(bool(report.alarms) for report in reports)
        named = sum(bool(findings(report)) for report in reports)
        low, high = wilson_interval(alarms / judges, judges)
        print(f"{alarms / judges:6.1%} ({low:.1%} to {high:.1%})  {named / judges:6.1%}  {name}", flush=True)


def show_caught(judges: int) -> None:
    shares = (0.2, 0.3, 0.4, 0.6)
    print(f"\ncaught, of {judges:,} judges that have the fault in this share of the items")
    print(f"{'':<12}" + "".join(f"{share:>7.0%}" for share in shares))
    for finding, family in FAULTS.items():
        draws = random.Random(finding)
        found = []
        for share in shares:
            reports = [simulated(per_call(0.9), draws, fault=family, share=share) for _ in range(judges)]
            found.append(sum(any(one.name == finding for one in findings(report)) for report in reports) / judges)
        print(f"{finding:<12}" + "".join(f"{each:>7.0%}" for each in found), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judges", type=int, default=1000, help="simulated fair judges of each kind")
    options = parser.parse_args(argv)
    started = time.monotonic()
    show_planted()
    show_fair(options.judges)
    show_caught(max(20, options.judges // 5))
    print(f"\n{time.monotonic() - started:.0f} seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
