import csv
import gzip
import json
import sys

import pytest

from rlaif.data.files import HubAddress, open_source, parse_hub_address
from rlaif.errors import InputError

ROWS = [
    {"id": "1", "prompt": 'Hé, "you"', "response_a": "a\nb", "response_b": ""},
    {"id": "2", "prompt": "x,y", "response_a": "'", "response_b": "\u2028 😀"},
]


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def as_parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)


def values(source):
    return [row.values for row in open_source(source).read()]


def fault(source):
    """The message of the first error, whether the row's or the whole input's."""
    with pytest.raises(InputError) as caught:  # noqa: PT012  opening and reading may both fail
        for row in open_source(source).read():
            if isinstance(row.values, InputError):
                raise row.values
    return str(caught.value)


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.csv", "r.parquet", "r.jsonl.gz", "r.json.gz", "r.csv.gz"])
def test_every_format_gives_the_same_rows(tmp_path, name):
    path = tmp_path / name
    plain = tmp_path / name.removesuffix(".gz")
    if ".jsonl" in name:
        plain.write_bytes(lines_of(ROWS))
    elif ".json" in name:
        plain.write_text(json.dumps(ROWS))
    elif ".csv" in name:
        as_csv(plain, ROWS)
    else:
        as_parquet(plain, ROWS)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(plain.read_bytes()))
    assert values(path) == ROWS
    source = open_source(str(path))
    assert list(source.read()) == list(source.read())  # can be read again


@pytest.mark.parametrize(
    "content",
    [
        json.dumps({"data": ROWS}).encode(),
        json.dumps(ROWS, indent=2).encode(),
        lines_of(ROWS),
        b"\xef\xbb\xbf" + json.dumps(ROWS).encode(),
    ],
)
def test_shapes_of_json(tmp_path, content):
    path = tmp_path / "r.json"
    path.write_bytes(content)
    assert values(path) == ROWS


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_windows_ends(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + lines_of(ROWS).replace(b"\n", b"\r\n\r\n"))
    rows = list(open_source(path).read())
    assert [row.values for row in rows] == ROWS
    assert [row.line for row in rows] == [1, 3]


def test_csv_lines_are_those_where_rows_begin(tmp_path):
    path = tmp_path / "r.csv"
    as_csv(path, ROWS)
    assert [row.line for row in open_source(path).read()] == [2, 4]  # row 1 holds a line break


@pytest.mark.parametrize("mark", [";", "\t"])
def test_a_csv_of_a_spreadsheet_may_be_parted_otherwise(tmp_path, mark):
    path = tmp_path / "r.csv"
    path.write_bytes(f'\ufeff"id"{mark}"a, b"{mark}c\r\n1{mark}"x{mark}y"{mark}2,5\r\n'.encode())
    assert [row.values for row in open_source(path).read()] == [{"id": "1", "a, b": f"x{mark}y", "c": "2,5"}]


def test_a_csv_field_may_be_very_long(tmp_path):
    path = tmp_path / "r.csv"
    as_csv(path, [{"prompt": "p", "response_a": "x" * 300_000, "response_b": "b"}])
    assert len(values(path)[0]["response_a"]) == 300_000


def test_folders_of_parquet_and_of_datasets(tmp_path):
    import datasets

    (tmp_path / "run" / "data").mkdir(parents=True)
    for number, row in enumerate(ROWS):
        as_parquet(tmp_path / "run" / "data" / f"train-{number:05d}.parquet", [row])
    assert values(tmp_path / "run") == ROWS
    assert values(tmp_path / "run" / "data") == ROWS
    assert [row.line for row in open_source(tmp_path / "run").read()] == [1, 2]
    dataset = datasets.Dataset.from_list(ROWS)
    dataset.save_to_disk(tmp_path / "saved")
    assert values(tmp_path / "saved") == ROWS
    datasets.DatasetDict({"test": dataset, "train": dataset.select([1])}).save_to_disk(tmp_path / "splits")
    assert values(tmp_path / "splits") == ROWS[1:]


def test_a_folder_whose_files_are_named_by_another_tool(tmp_path):
    for number, row in enumerate(ROWS):
        as_parquet(tmp_path / f"part-{number:05d}-0b1c-c000.snappy.parquet", [row])
    assert values(tmp_path) == ROWS


@pytest.mark.parametrize("name", ["r.json", "r.json.gz", "r.jsonl.gz"])
def test_nothing_but_blanks_is_no_rows(tmp_path, name):
    content = b" \n\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert values(tmp_path / name) == []


def test_rows_in_memory():
    import datasets
    import pandas as pd

    assert values(ROWS) == ROWS
    assert values(iter(ROWS)) == ROWS
    assert values(datasets.Dataset.from_list(ROWS)) == ROWS
    assert values(pd.DataFrame(ROWS)) == ROWS
    frame = pd.DataFrame(
        {"n": [1.0, None], "s": ["x", None], "votes": [["a"], None], "when": [pd.Timestamp(0), pd.NaT]}
    )
    assert values(frame)[1] == {"n": None, "s": None, "votes": None, "when": None}
    assert values(frame)[0]["votes"] == ["a"]


def test_an_iterator_given_once_can_be_read_twice():
    source = open_source(row for row in ROWS)
    assert len(list(source.read())) == len(list(source.read())) == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.txt", b"x", r"has the unknown extension '.txt', expected one of .jsonl, .json, .csv, .parquet, .jsonl.gz"),
        ("rows", b"x", "has no extension, expected one of .jsonl"),
        ("r.parquet.gz", b"x", "unknown extension '.parquet.gz'"),
        ("r.jsonl", b"", "is empty, expected rows"),
        ("r.jsonl", b'{"a": 1}\n{"a": }\n', "r.jsonl, line 2: is not valid JSON at character 7"),
        ("r.json", b'[{"a": "\xc3\xa9"},\n {"a": }]\n', "r.json, line 2: is not valid JSON at character 8"),
        ("r.jsonl", b'{"a": 1}\n[1]\n', "r.jsonl, line 2: is a list, expected an object"),
        ("r.jsonl", b'{"a": 1}\nnull\n', "r.jsonl, line 2: is null, expected an object"),
        ("r.jsonl", b'{"a": NaN}\n', "line 1: is not valid JSON: NaN and Infinity are no JSON values"),
        ("r.jsonl", b'{"a": "\xff"}\n', "line 1: byte 8 is not UTF-8"),
        ("r.jsonl", b'{"a": "\\ud800"}\n', "line 1: is not valid JSON at character 8: no low surrogate"),
        ("r.json", b'[{"a": 1},\n{"a": }]', "r.json, line 2: is not valid JSON"),
        ("r.json", b'[{"a": 1},\n{"a": "\xff"}]', "r.json, line 2: byte 8 is not UTF-8"),
        ("r.json", b"3", r"holds 3, expected an array of rows"),
        ("r.json", b'{"data": 3}', r"holds 3, expected an array of rows"),
        ("r.json", b'[{"a": 1}, 3]', "r.json, line 2: is 3, expected an object"),
        ("r.csv", b"a,b\n1,2,3\n", "r.csv, line 2: has 3 fields, expected 2 as in the header"),
        ("r.csv", b"a,a\n1,2\n", "line 1, column 'a': stands twice in the header"),
        ("r.csv", b"a,b\n1,\xff\n", "r.csv, line 2: byte 3 is not UTF-8"),
        ("r.csv", b'a,b\n1,"open\n2,3\n', "r.csv, line 2: is not valid CSV: unexpected end of data"),
        ("r.csv", b"\n", "is empty, expected a header line"),
        ("r.parquet", b"no parquet", "r.parquet: cannot be read as parquet"),
        ("r.jsonl.gz", b'{"a": 1}\n', "is no gzip file though its name ends in .gz"),
        (
            "r.jsonl.gz",
            gzip.compress(lines_of(ROWS * 400))[:-30],
            "the gzip data ends too early, the file was cut short",
        ),
    ],
)
def test_faults_are_one_sentence_with_the_place(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    found = fault(path)
    assert message in found
    assert found.startswith(str(path))
    assert "\n" not in found


def test_a_truncated_gzip_names_the_line_where_it_ends(tmp_path):
    path = tmp_path / "r.jsonl.gz"
    rng_like = "".join(chr(33 + (n * n * 31) % 90) for n in range(20_000))
    whole = gzip.compress(lines_of([{"p": rng_like[n : n + 40]} for n in range(3_000)]))
    path.write_bytes(whole[: len(whole) // 2])
    found = fault(path)
    line = int(found.split("line ")[1].split(":")[0])
    assert 1 < line < 3_000


def test_damaged_gzip(tmp_path):
    whole = bytearray(gzip.compress(lines_of(ROWS * 400)))
    whole[15:25] = b"\xff" * 10
    (tmp_path / "r.jsonl.gz").write_bytes(bytes(whole))
    assert "gzip data" in fault(tmp_path / "r.jsonl.gz")


def test_reading_goes_on_after_a_bad_line(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\nbroken\n{"a": 3}\n')
    assert [row.values if isinstance(row.values, dict) else row.line for row in open_source(path).read()] == [
        {"a": 1},
        2,
        {"a": 3},
    ]
    path = tmp_path / "r.csv"
    path.write_bytes(b"a,b\n1,\xff\n2,3,4\n5,6\n")
    rows = list(open_source(path).read())
    assert [row.line for row in rows] == [2, 3, 4]
    assert rows[2].values == {"a": "5", "b": "6"}


def test_missing_files_and_folders_without_data(tmp_path):
    assert fault(tmp_path / "none.jsonl").endswith("does not exist, expected a file or a folder")
    (tmp_path / "folder.jsonl").mkdir()
    assert "is a folder without a data set in it" in fault(tmp_path / "folder.jsonl")
    for name in ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"):
        as_parquet(tmp_path / "folder.jsonl" / name, ROWS)
    assert "holds several splits (test, train)" in fault(tmp_path / "folder.jsonl")
    assert "does not exist" in fault("x" * 5_000 + ".jsonl")


@pytest.mark.parametrize("rows", [3, {"train": ROWS}])
def test_what_holds_no_rows(rows):
    assert "expected a path, a Dataset, a DataFrame or a list of dicts" in fault(rows)


def test_elements_that_are_no_rows():
    assert fault([ROWS[0], "text"]) == "rows, line 2: is a text, expected an object with a column a key"


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("hf://o/n", HubAddress("o/n", None, "train")),
        ("hf://o/n:test", HubAddress("o/n", None, "test")),
        ("hf://o/n@v1.0", HubAddress("o/n", "v1.0", "train")),
        ("hf://o/n-1_x.y@refs/pr/3:train[:10%]", None),
        ("hf://o/n@main:validation", HubAddress("o/n", "main", "validation")),
        ("hf://o", None),
        ("hf://o/n:", None),
        ("hf://o/n@", None),
        ("hf://o/n/m", None),
    ],
)
def test_hub_addresses(address, parsed):
    if parsed is None:
        with pytest.raises(InputError, match="expected hf://OWNER/NAME"):
            parse_hub_address(address)
    else:
        assert parse_hub_address(address) == parsed


def test_what_the_hub_says_is_passed_on(monkeypatch):
    import datasets

    def refuse(name, **arguments):
        assert (name, arguments) == ("o/n", {"revision": "v1", "split": "test", "streaming": True})
        raise FileNotFoundError("Dataset 'o/n' doesn't exist on the Hub\nmore")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    assert fault("hf://o/n@v1:test") == (
        "hf://o/n@v1:test: cannot be loaded from the hub: Dataset 'o/n' doesn't exist on the Hub"
    )
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **arguments: iter(ROWS))
    assert values("hf://o/n") == ROWS


def test_opening_loads_nothing_heavy(tmp_path):
    import subprocess

    (tmp_path / "r.jsonl").write_bytes(lines_of(ROWS))
    code = (
        "import sys; from rlaif.data.sources import read_comparisons; "
        f"assert len(list(read_comparisons({str(tmp_path / 'r.jsonl')!r}))) == 2; "
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'openai'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
