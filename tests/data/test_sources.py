import gzip
import json
import tracemalloc

import pytest

from rlaif.data.sources import ReadOptions, read_comparisons, scan
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
    assert [each.id for each in read_comparisons(path, skip_bad_rows=True)] == ["r1", "r4"]
    assert [each.id for each in read_comparisons(path, skip_bad_rows=True, summary=summary)] == ["r1", "r4"]


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
    found = list(read_comparisons(path, skip_bad_rows=True, summary=summary))
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
    found = list(read_comparisons(rows, seed=4))
    assert len({each.id for each in found}) == 20
    assert {each.human_label for each in found} == {Verdict.A, Verdict.B}  # each row draws for itself, equal ones too
    assert all((each.response_a == "g") == (each.human_label is Verdict.A) for each in found)
    assert found == list(read_comparisons(rows, seed=4))
    assert found != list(read_comparisons(rows, seed=5))


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
