import datetime
import math
import subprocess
import sys
from collections import Counter

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlaif.data.card import render_card
from rlaif.data.card_facts import CardFacts
from rlaif.data.preferences import PreferenceSchema, arrow_schema, preference_schema, to_row
from rlaif.data.ratings import RatingSchema, to_rating_row
from rlaif.data.ratings import arrow_schema as rating_arrow_schema
from rlaif.data.shards import RowWriter, column_values
from rlaif.data.sources import read_comparisons, scan
from rlaif.data.statistics import LabelStatistics
from rlaif.errors import RunFolderError
from rlaif.records import Candidates, Comparison, Judgment, Rating, SoftLabel, Turn, Verdict

PLAIN = PreferenceSchema()


def comparison(**more):
    return Comparison(**({"id": "r", "prompt": (Turn("user", "P"),), "response_a": "x", "response_b": "y"} | more))


def judged(prob_a):
    return Judgment(SoftLabel(prob_a, prob_a, prob_a), 0.99, 0.98, calls=2)


def write(folder, rows, schema, **options):
    with RowWriter(folder, arrow_schema(schema), **options) as writer:
        for row in rows:
            writer.write(row)
    return writer


def label_all(folder, rows, **options):
    """What the engine does, with a judge that always says 0.75."""
    schema = preference_schema(scan(rows))
    written = [to_row(each, judged(0.75), schema) for each in read_comparisons(rows)]
    write(folder, written, schema, **options)
    return written


def load(folder):
    import datasets

    facts = CardFacts("t", ("fake:x",), "helpfulness", "0", "in", "0", LabelStatistics(), "rlaif label", "0")
    (folder / "README.md").write_text(render_card(facts))
    return datasets.load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))["train"]


ODD = [
    {"response_a": "", "response_b": "\x00\x1b[0m\u2028\u202e😀"},
    {"response_a": "<|im_end|>\n```", "response_b": "x" * 2_000_000},  # longer than a block of Arrow's reader
    {"prompt": '{"a": "2020-01-01"}', "response_a": "2020-01-01T00:00:00", "response_b": "NaN"},
    {"response_a": "null", "response_b": "true", "n": 1, "day": "2020-01-01", "all_null": None, "empty": []},
    {"response_a": "1e5", "response_b": "007", "n": 0.1 + 0.2, "day": None, "all_null": None, "empty": []},
    {"response_a": "a", "response_b": "b", "n": -0.0, "big": 2**60 + 1, "flag": True, "deep": [{"x": [1, None]}]},
]
ODD = [{"prompt": f"P{number}"} | row for number, row in enumerate(ODD)]


class TestFiles:
    @pytest.mark.parametrize("rows_per_shard", [1, 2, 100])
    def test_every_value_comes_back_as_it_was(self, tmp_path, rows_per_shard):
        written = label_all(tmp_path, ODD, rows_per_shard=rows_per_shard)
        table = pq.read_table(tmp_path / "data")
        assert table.to_pylist() == written
        assert len(list((tmp_path / "data").iterdir())) == -(-len(ODD) // rows_per_shard)

    def test_datasets_and_pandas_load_it(self, tmp_path):
        written = label_all(tmp_path / "run", ODD, rows_per_shard=4)
        dataset = load(tmp_path / "run")
        assert list(dataset) == written
        frame = pd.read_parquet(tmp_path / "run" / "data")
        assert list(frame["id"]) == [row["id"] for row in written]
        assert frame["prob_a"].dtype == "float64"

    def test_conversations_load_as_trainers_take_them(self, tmp_path):
        rows = [{"prompt": [{"role": "user", "content": "P"}], "response_a": "x", "response_b": "y"}]
        label_all(tmp_path / "run", rows)
        first = load(tmp_path / "run")[0]
        assert first["prompt"] == [{"role": "user", "content": "P"}]
        assert first["chosen"] == [{"role": "assistant", "content": "x"}]

    def test_one_schema_in_all_shards(self, tmp_path):
        label_all(tmp_path, ODD, rows_per_shard=1)
        schemas = [pq.read_schema(path) for path in (tmp_path / "data").iterdir()]
        assert all(schema.equals(schemas[0]) for schema in schemas)
        types = dict(zip(schemas[0].names, schemas[0].types, strict=True))
        assert (types["prob_a"], types["is_tie"], types["n"]) == (pa.float64(), pa.bool_(), pa.float64())

    def test_no_rows_at_all_still_have_a_schema(self, tmp_path):
        schema = preference_schema(scan(ODD))
        write(tmp_path, [], schema)
        frame = pd.read_parquet(tmp_path / "data")
        assert (len(frame), list(frame.columns)) == (0, arrow_schema(schema).names)

    def test_values_that_json_has_not_take_the_other_way(self, tmp_path):
        when = datetime.datetime(2020, 1, 2, 3, 4, 5, 678)
        base = {"prompt": "P", "response_a": "x", "response_b": "y"}
        rows = [
            base | {"when": when, "raw": b"\xff", "day": when.date(), "x": 1},
            base | {"when": None, "x": -math.inf},
        ]
        written = label_all(tmp_path, rows)
        assert pq.read_table(tmp_path / "data").to_pylist() == written
        assert (written[0]["when"], written[0]["raw"]) == (when, b"\xff")

    def test_many_rows_stay_in_order_across_row_groups_and_shards(self, tmp_path):
        rows = [to_row(comparison(id=f"r{n}"), judged(n / 6_000), PLAIN) for n in range(6_000)]
        writer = write(tmp_path, rows, PLAIN, rows_per_shard=5_500)
        assert (writer.rows, writer.shards) == (6_000, 2)
        groups = pq.ParquetFile(tmp_path / "data" / "train-00000.parquet").num_row_groups
        assert groups == 3  # 2,500, 2,500 and 500: memory does not grow with the shard
        assert pq.read_table(tmp_path / "data").to_pylist() == rows

    def test_the_same_rows_give_the_same_bytes(self, tmp_path):
        label_all(tmp_path / "one", ODD, rows_per_shard=4)
        label_all(tmp_path / "two", ODD, rows_per_shard=4)
        for path in (tmp_path / "one" / "data").iterdir():
            assert path.read_bytes() == (tmp_path / "two" / "data" / path.name).read_bytes()

    def test_a_shorter_run_leaves_nothing_of_a_longer_one(self, tmp_path):
        label_all(tmp_path, ODD, rows_per_shard=1)
        (tmp_path / "data" / ".train-00009.parquet.tmp").write_text("cut short")
        label_all(tmp_path, ODD[:2], rows_per_shard=1)
        assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [
            "train-00000.parquet",
            "train-00001.parquet",
        ]

    def test_an_error_midway_leaves_whole_shards_only(self, tmp_path):
        row = to_row(comparison(), judged(0.5), PLAIN)
        with pytest.raises(KeyboardInterrupt), RowWriter(tmp_path, arrow_schema(PLAIN), rows_per_shard=2_600) as writer:  # noqa: PT012
            for _ in range(5_190):  # the second shard wants ten more rows, and one of its row groups is in the file
                writer.write(row)
            raise KeyboardInterrupt
        assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000.parquet"]
        assert len(pq.read_table(tmp_path / "data")) == 2_600

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "run").write_text("a file")
        with pytest.raises(RunFolderError, match=r"run.data cannot be written: Not a directory"):
            RowWriter(tmp_path / "run", arrow_schema(PLAIN))
        with pytest.raises(ValueError, match="rows_per_shard is 0, expected at least 1"):
            RowWriter(tmp_path, arrow_schema(PLAIN), rows_per_shard=0)

    def test_writing_does_not_import_pandas(self, tmp_path):
        code = (
            "import sys; from pathlib import Path; from rlaif.data.preferences import *; "
            "from rlaif.data.shards import RowWriter; "
            "writer = RowWriter(Path(sys.argv[1]), arrow_schema(PreferenceSchema())); "
            f"writer.write({to_row(comparison(), judged(0.5), PLAIN)!r}); writer.close(); "
            "print('pandas' in sys.modules, 'datasets' in sys.modules)"
        )
        command = [sys.executable, "-c", code, str(tmp_path)]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "False False\n"

    def test_ratings_of_candidates_come_back_nested_as_they_were(self, tmp_path):
        schema = RatingSchema(is_single=False, has_judges=True)
        ratings = (Rating((0.1,) * 10, label_mass=0.5), Rating((*[0.0] * 9, 1.0)))
        row = to_rating_row(Candidates("r", (Turn("user", "P"),), ("", "\x00😀"), is_single=False), ratings, schema)
        with RowWriter(tmp_path / "run", rating_arrow_schema(schema)) as writer:
            writer.write(row)
        assert pq.read_table(tmp_path / "run" / "data").to_pylist() == [row]
        assert load(tmp_path / "run")[0] == row

    def test_notes_to_the_writer_stay_out_of_the_files(self, tmp_path):
        rows = [{"prompt": "P", "response_a": "x", "response_b": "y", "n": math.inf, "raw": b"x"}]
        schema = preference_schema(scan(rows))
        assert any(field.metadata for field in arrow_schema(schema))
        label_all(tmp_path, rows)
        assert not any(
            b"rlaif" in (field.metadata or {}) for field in pq.read_schema(tmp_path / "data" / "train-00000.parquet")
        )


def test_shared_data_goes_through_whole(shared_data, tmp_path):
    for path in [shared_data / "pathological.jsonl", shared_data / "llmbar_natural.jsonl"]:
        summary = scan(path)
        schema = preference_schema(summary)
        found = list(read_comparisons(path, summary=summary))
        written = [to_row(each, judged(0.75), schema) for each in found]
        write(tmp_path / path.name, written, schema)
        assert len(found) == summary.rows
        assert summary.failures == ()
        assert pq.read_table(tmp_path / path.name / "data").to_pylist() == written
        with_votes = Counter(each.human_label for each in found if each.human_votes)
        assert set(with_votes) <= {Verdict.A, Verdict.B, Verdict.TIE, None}


def test_a_column_is_read_row_by_row_over_all_shards(tmp_path):
    label_all(
        tmp_path,
        [{"id": f"r{n}", "prompt": "P", "response_a": "x", "response_b": f"{n}"} for n in range(7)],
        rows_per_shard=3,
    )
    values = column_values(tmp_path, "id")
    assert next(values) == "r0"
    assert list(values) == [f"r{n}" for n in range(1, 7)]
    with pytest.raises(RunFolderError, match=r"train-00000\.parquet: column nothing cannot be read"):
        list(column_values(tmp_path, "nothing"))
