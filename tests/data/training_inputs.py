"""Rows to be trained on, files of each format, and what is read of them: for the tests of readers and of loading."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.data.sources import ReadOptions
from rlaif.data.training_methods import TrainingOptions
from rlaif.data.training_rows import read_training_rows
from rlaif.errors import InputError


def options(method="dpo", columns=None, seed=0, skip_bad_rows=False, **more):
    return TrainingOptions(method, ReadOptions(columns or {}, seed, skip_bad_rows), **more)


def read(source, method="dpo", **more):
    return list(read_training_rows(source, options(method, **more)))


def fault(source, method="dpo", **more):
    with pytest.raises(InputError) as caught:
        read(source, method, **more)
    return caught.value


def pair(number=1, **more):
    return {"id": f"r{number}", "prompt": f"P{number}", "response_a": "x", "response_b": "y", **more}


def assistant(text):
    return {"role": "assistant", "content": text}


def user(text):
    return {"role": "user", "content": text}


def write_jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: json.dumps(value) if isinstance(value, list) else value for key, value in row.items()}
            )
    return str(path)


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return str(path)


WRITERS = {"in.jsonl": write_jsonl, "in.csv": write_csv, "in.parquet": write_parquet}
