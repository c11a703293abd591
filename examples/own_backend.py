"""Ask something of your own: a backend is a class with two coroutines, and `FakeBackend` is the shortest one.

python examples/own_backend.py
"""

from __future__ import annotations

import rlaif
from rlaif.backends.fake import FakeBackend
from rlaif.records import Request


def prefers_questions(request: Request) -> float:
    """P("1"): high when the first response asks something back."""
    first, second = request.messages[0].content.split("### Response 2")
    return 0.9 if "?" in first.split("### Response 1")[1] else 0.1 if "?" in second.split("### Question")[0] else 0.5


def main() -> None:
    with rlaif.Judge(FakeBackend(prefers_questions, name="fake:questions")) as judge:
        rows = [
            {"prompt": "Help me plan a trip.", "response_a": "Where to?", "response_b": "Go to Rome."},
            {"prompt": "Help me cook.", "response_a": "Boil an egg.", "response_b": "What do you like?"},
        ]
        for row in rlaif.label(rows, judge):
            print(f"{row['prob_a']:.2f}  {row['chosen']}")


if __name__ == "__main__":
    main()
