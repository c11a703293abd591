"""Completions with their rewards, kept to be looked at: a data set below the run's folder, one file a batch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from rlaif.online.source import JudgedCompletion
from rlaif.randomness import seeded_random

FOLDER = "rollouts"


class KeptRollouts:
    """Writes some completions of each batch.

    Args:
        folder: Of the run.
        count: Completions of a batch that are kept, drawn; 0 keeps none.
        seed: Of the draw.
    """

    def __init__(self, folder: Path, count: int, seed: int) -> None:
        self._folder, self._count, self._seed = folder / FOLDER / "data", count, seed

    def keep(self, number: int, completions: Sequence[JudgedCompletion]) -> None:
        """Keep some of a batch; a batch that is made again after a resume replaces itself.

        Columns: `prompt`, `response`, `reward`, `rewards` (of each source, as JSON), `error`, `kl` (nats, null where
        the reference was not asked), `tokens`, `is_finished`, `batch`, `step` (of the policy that wrote), `id`.

        Raises:
            OSError: It cannot be written.
        """
        if not self._count:
            return
        import pyarrow as pa
        import pyarrow.parquet as parquet

        drawn = seeded_random(self._seed, str(number), "kept rollouts").sample(
            range(len(completions)), min(self._count, len(completions))
        )
        rows = [_row(number, completions[place]) for place in sorted(drawn)]
        schema = pa.schema([
            ("id", pa.string()), ("prompt", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
            ("response", pa.string()), ("reward", pa.float64()), ("rewards", pa.string()), ("error", pa.string()),
            ("kl", pa.float64()), ("tokens", pa.int64()), ("is_finished", pa.bool_()), ("batch", pa.int64()),
            ("step", pa.int64()),
        ])  # fmt: skip
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"batch-{number:06}.parquet"
        temporary = path.with_suffix(".new")
        parquet.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
        os.replace(temporary, path)


def _row(number: int, one: JudgedCompletion) -> dict[str, object]:
    (completion,) = one.rollout.completions
    return {
        "id": _clean(one.rollout.id),
        "prompt": [{"role": _clean(turn.role), "content": _clean(turn.content)} for turn in one.rollout.prompt.prompt],
        "response": _clean(completion.text),
        "reward": one.score.value,
        "rewards": json.dumps(dict(one.score.parts)),
        "error": _clean(one.score.error),
        "kl": one.kl,
        "tokens": len(completion.ids),
        "is_finished": completion.is_finished,
        "batch": number,
        "step": one.rollout.step,
    }


def _clean(text: str) -> str:
    """Text that Parquet takes: half surrogate pairs become a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")
