import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from rlaif.data.sources import ReadOptions, read_candidates, read_comparisons, scan, scan_candidates
from rlaif.errors import InputError
from rlaif.records import Failure, Verdict


def row(number, **more):
    return {"id": f"r{number}", "prompt": f"P{number}", "response_a": "x", "response_b": "y", **more}


def without_id(number, **more):
    return {key: value for key, value in row(number, **more).items() if key != "id"}


def write(folder, rows, name="in.jsonl"):
    path = folder / name
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return path


def test_a_summary(tmp_path):
    rows = [row(1, topic="t", n=1), row(2, topic=None, n=2.5, human_label="a"), without_id(3, votes={"j": 1})]
    rows[1]["prompt"] = [{"role": "user", "content": "P2"}]
    summary = scan(write(tmp_path, rows))
    assert (summary.rows, summary.failures, summary.repeated_ids) == (3, (), {})
    assert summary.is_conversational
    assert summary.has_human_labels
    assert not summary.has_human_votes
    assert {name: each.kind for name, each in summary.extras.items()} == {
        "topic": "text",
        "n": "float",
        "votes": "struct",
    }


def test_comparisons_come_in_input_order(tmp_path):
    path = write(tmp_path, [row(n) for n in range(50)])
    assert [each.id for each in read_comparisons(path)] == [f"r{n}" for n in range(50)]


def test_the_fingerprint_is_of_the_content_not_of_the_file(tmp_path):
    rows = [row(1), row(2)]
    plain = write(tmp_path, rows)
    packed = tmp_path / "other.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    array = tmp_path / "array.json"
    array.write_text(json.dumps(rows, indent=1))
    fingerprint = scan(plain).content_sha256
    assert fingerprint == scan(packed).content_sha256 == scan(array).content_sha256 == scan(rows).content_sha256
    changed = [[row(2), row(1)], [row(1)], [row(1), row(2, more=1)], [row(1), row(3)]]
    assert len({fingerprint, *(scan(each).content_sha256 for each in changed)}) == 5


def test_a_bad_row_stops_the_run_with_its_place(tmp_path):
    path = write(tmp_path, [row(1), row(2) | {"prompt": None}])
    with pytest.raises(InputError, match=r"in\.jsonl, line 2, column 'prompt': is null, expected a text"):
        scan(path)


def test_bad_rows_are_collected_when_they_are_skipped(tmp_path):
    rows = [row(1), row(2) | {"prompt": None}, "broken", row(4), "[3]", without_id(6) | {"response_a": 3}]
    path = write(tmp_path, rows)
    summary = scan(path, ReadOptions(skip_bad_rows=True))
    assert summary.rows == 2
    assert [failure.id for failure in summary.failures] == ["r2", "line 3", "line 5", "line 6"]
    assert summary.failures[0] == Failure(
        id="r2",
        stage="input",
        error=f"InputError: {path}, line 2, column 'prompt': is null, expected a text or a list of "
        "{role, content} messages",
        attempts=0,
    )
    assert [each.id for each in read_comparisons(path, ReadOptions(skip_bad_rows=True))] == ["r1", "r4"]
    assert [each.id for each in read_comparisons(path, ReadOptions(skip_bad_rows=True), summary=summary)] == [
        "r1",
        "r4",
    ]


def test_a_whole_file_that_cannot_be_read_is_no_bad_row(tmp_path):
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(write(tmp_path, [row(n) for n in range(900)]).read_bytes())[:-20])
    with pytest.raises(InputError, match="gzip data ends too early"):
        scan(path, ReadOptions(skip_bad_rows=True))


def test_a_duplicate_id_names_both_lines(tmp_path):
    path = write(tmp_path, [row(1), row(2), row(3), row(2) | {"prompt": "other"}])
    with pytest.raises(InputError, match=r"line 4, column 'id': 'r2' is also the id of line 2, expected ids that are"):
        scan(path)
    with pytest.raises(InputError, match="line 4"):
        list(read_comparisons(path))


def test_a_duplicate_id_is_one_bad_row_and_the_first_stands(tmp_path):
    path = write(tmp_path, [row(1), row(1) | {"prompt": "other"}, "broken", row(1), row(2)])
    summary = scan(path, ReadOptions(skip_bad_rows=True))
    assert [failure.id for failure in summary.failures] == ["line 2", "line 3", "line 4"]
    assert summary.rows == 2
    found = list(read_comparisons(path, ReadOptions(skip_bad_rows=True), summary=summary))
    assert [(each.id, each.prompt[0].content) for each in found] == [("r1", "P1"), ("r2", "P2")]


def test_equal_rows_without_ids_get_suffixes_in_input_order(tmp_path):
    path = write(tmp_path, [without_id(1), without_id(2), without_id(1), without_id(1, more=1)])
    summary = scan(path)
    assert summary.rows == 4
    ids = [each.id for each in read_comparisons(path, summary=summary)]
    assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3"]
    assert ids == [each.id for each in read_comparisons(path)]


def test_a_made_id_gives_way_to_the_same_id_given():
    made = next(read_comparisons([without_id(1)])).id
    ids = [each.id for each in read_comparisons([without_id(1), row(5) | {"id": made}])]
    assert ids == [f"{made}-2", made]


def test_the_first_pass_and_the_second_agree_on_ranked_rows():
    rows = [{"prompt": "P", "chosen": "g", "rejected": "b"}] * 20
    found = list(read_comparisons(rows, ReadOptions(seed=4)))
    assert len({each.id for each in found}) == 20
    assert {each.human_label for each in found} == {Verdict.A, Verdict.B}  # each row draws for itself, equal ones too
    assert all((each.response_a == "g") == (each.human_label is Verdict.A) for each in found)
    assert found == list(read_comparisons(rows, ReadOptions(seed=4)))
    assert found != list(read_comparisons(rows, ReadOptions(seed=5)))


@pytest.mark.parametrize(
    ("name", "content"), [("in.jsonl", "\n\n"), ("in.csv", "prompt,response_a\n"), ("in.json", "[]")]
)
def test_an_input_without_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match="holds no rows, expected one comparison a row"):
        scan(tmp_path / name)


def test_half_a_surrogate_pair_in_memory_is_refused_before_it_reaches_a_judge():
    for bad in (row(1) | {"prompt": "\ud800"}, row(1, more=["\udfff"])):
        with pytest.raises(InputError, match="rows, line 1: holds .* half a surrogate pair"):
            scan([bad])


def test_deep_nesting_is_text_or_refused_and_never_a_crash():
    deep = "[" * 400 + "]" * 400
    summary = scan([row(1, deep=json.loads(deep))])
    assert summary.extras["deep"].is_json
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InputError, match="nested too deeply"):
        scan([row(1, deep=nested)])


def test_both_passes_stream(tmp_path):
    path = tmp_path / "in.jsonl"
    with path.open("w") as file:
        for number in range(6_000):
            file.write(json.dumps(row(number) | {"response_a": "word " * 100}) + "\n")
    assert path.stat().st_size > 3_000_000
    scan(path)  # what is imported on first use is not counted
    tracemalloc.start()
    try:
        summary = scan(path)
        assert sum(1 for _ in read_comparisons(path, summary=summary)) == 6_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000  # the ids' hashes, and a row at a time


def test_the_input_is_not_changed():
    rows = [row(1, more={"a": [1]})]
    before = json.dumps(rows)
    list(read_comparisons(rows))
    assert json.dumps(rows) == before


def rated(number, **more):
    return {"id": f"r{number}", "prompt": f"P{number}", "response": f"x{number}", **more}


class TestCandidates:
    def test_rows_of_one_response(self, tmp_path):
        path = write(tmp_path, [rated(1, rating=3, policy="p"), rated(2, rating=None)])
        summary = scan_candidates(path)
        assert (summary.rows, summary.is_single, summary.is_conversational) == (2, True, False)
        assert {name: each.kind for name, each in summary.extras.items()} == {"rating": "int", "policy": "text"}
        found = list(read_candidates(path, summary=summary))
        assert [(each.id, each.responses) for each in found] == [("r1", ("x1",)), ("r2", ("x2",))]
        assert found == list(read_candidates(path))

    def test_rows_of_several(self, tmp_path):
        rows = [{"prompt": "P", "responses": ["x", "y"], "ratings": [1, 9]}, {"prompt": "P", "responses": ["z"]}]
        summary = scan_candidates(write(tmp_path, rows))
        assert (summary.rows, summary.is_single) == (2, False)
        assert [each.responses for each in read_candidates(rows)] == [("x", "y"), ("z",)]

    @pytest.mark.parametrize("name", ["in.csv", "in.parquet"])
    def test_other_formats(self, tmp_path, name):
        import pandas as pd

        path = tmp_path / name
        frame = pd.DataFrame({"question": ["P", "Q"], "completion": ["x, y", "z"], "n": [1, 2]})
        frame.to_csv(path, index=False) if name.endswith("csv") else frame.to_parquet(path)
        assert [each.responses for each in read_candidates(path)] == [("x, y",), ("z",)]
        assert [each.responses for each in read_candidates(frame)] == [("x, y",), ("z",)]

    def test_lists_in_parquet_and_in_a_data_frame(self, tmp_path):
        import pandas as pd

        frame = pd.DataFrame({"prompt": ["P"], "responses": [["x", "y"]]})
        frame.to_parquet(tmp_path / "in.parquet")
        for source in (frame, tmp_path / "in.parquet"):
            assert [each.responses for each in read_candidates(source)] == [("x", "y")]

    def test_mixed_rows_stop_the_run_or_are_skipped(self, tmp_path):
        path = write(tmp_path, [rated(1), {"id": "m", "prompt": "P", "responses": ["x"]}, rated(3)])
        with pytest.raises(InputError, match=r"line 2, column 'responses': holds a list of responses where the first"):
            scan_candidates(path)
        options = ReadOptions(skip_bad_rows=True)
        summary = scan_candidates(path, options)
        assert [failure.id for failure in summary.failures] == ["m"]
        assert [each.id for each in read_candidates(path, options, summary=summary)] == ["r1", "r3"]

    def test_a_first_row_that_cannot_be_read_decides_nothing_it_does_not_say(self):
        # A row without a response names no kind; one with an unreadable response does.
        options = ReadOptions(skip_bad_rows=True)
        several = {"prompt": "P", "responses": ["x"]}
        assert not scan_candidates([{"prompt": "P"}, several], options).is_single
        summary = scan_candidates([{"prompt": "P", "response": None}, several, rated(1)], options)
        assert (summary.is_single, summary.rows, len(summary.failures)) == (True, 1, 2)

    def test_a_row_without_responses_is_a_bad_row(self):
        options = ReadOptions(skip_bad_rows=True)
        rows = [{"prompt": "P", "responses": []}, {"prompt": "P", "responses": ["x"]}]
        summary = scan_candidates(rows, options)
        assert (summary.rows, summary.failures[0].id) == (1, "line 1")
        assert "is an empty list, expected a list of texts" in summary.failures[0].error

    def test_repeated_ids(self, tmp_path):
        path = write(tmp_path, [rated(1), rated(1, response="other")])
        with pytest.raises(InputError, match="line 2, column 'id': 'r1' is also the id of line 1"):
            scan_candidates(path)
        rows = [{"prompt": "P", "response": "x"}] * 3
        ids = [each.id for each in read_candidates(rows)]
        assert ids == [ids[0], f"{ids[0]}-2", f"{ids[0]}-3"]

    def test_no_rows(self):
        with pytest.raises(
            InputError, match="holds no rows, expected a prompt with a response, or with a list of resp"
        ):
            scan_candidates([])

    def test_a_comparison_is_no_row_to_be_rated(self):
        with pytest.raises(InputError, match="line 1, column 'response': is missing, and responses too"):
            scan_candidates([row(1)])

    def test_the_examples_responses_are_read(self):
        path = Path(__file__).resolve().parents[2] / "examples" / "data" / "responses.jsonl"
        summary = scan_candidates(path)
        assert summary.is_single
        assert sum(1 for _ in read_candidates(path, summary=summary)) == summary.rows > 100
