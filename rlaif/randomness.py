"""Random draws that depend on what is drawn for, never on sequence or timing: a row gets the same draw in any order,
after a resume, and with any concurrency."""

from __future__ import annotations

import hashlib
import random


def seeded_random(seed: int, row_id: str, purpose: str) -> random.Random:
    """A generator of its own for one draw.

    Args:
        seed: The run's `--seed`.
        row_id: Id of the row the draw is for.
        purpose: What is drawn, such as "principle"; two purposes of one row are independent.

    >>> seeded_random(0, "row-1", "principle").random() == seeded_random(0, "row-1", "principle").random()
    True
    >>> seeded_random(0, "row-1", "principle").random() == seeded_random(0, "row-1", "order").random()
    False
    """
    # Lengths stand before the texts, so that no two different triples are written alike.
    key = f"{seed}:{len(row_id)}:{row_id}:{purpose}".encode("utf-8", "surrogatepass")
    return random.Random(int.from_bytes(hashlib.sha256(key).digest()[:16], "big"))
