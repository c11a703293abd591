"""Audit verdicts that some judge gave earlier against the votes of people: figures, words, and a report to open.

The 200 rows are the example comparisons with the votes of three simulated annotators and of a simulated judge that
leans to the first slot and to longer responses: see whether the audit finds that out.

python examples/audit_recorded_judge.py [FOLDER]    FOLDER keeps report.html, audit.json and the plots
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import rlaif

ROWS = Path(__file__).parent / "data" / "recorded_verdicts.jsonl"


def main(folder: str) -> None:
    report = rlaif.audit(
        str(ROWS), judge_column="judges.chatty-8b.ab", judge_column_ba="judges.chatty-8b.ba", resamples=1000
    )
    print(report)
    agreement = report["agreement"]
    print(f"\nagreement {agreement.value:.3f} ({agreement.low:.3f} to {agreement.high:.3f}) on {agreement.n} rows")
    report.save(folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(temporary)
