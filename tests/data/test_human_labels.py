import csv
import json

import pytest

from rlaif.data.human_labels import read_human_labels, with_human_labels
from rlaif.errors import InputError
from rlaif.records import Comparison, JudgedComparison, Turn, Verdict

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE


def judged(number, label=None, prob=None):
    comparison = Comparison(f"r{number}", (Turn("user", "P"),), f"x{number}", f"y{number}", human_label=label)
    return JudgedComparison(comparison, 0.5, sampling_prob=prob)


def joined(labels, rows=None):
    found = with_human_labels(rows or [judged(1), judged(2), judged(3)], read_human_labels(labels))
    return {row.comparison.id: (row.comparison.human_label, row.comparison.human_votes) for row in found.rows}, found


def test_one_label_a_row_is_a_majority_without_votes():
    said, found = joined([{"id": "r1", "human_label": 1}, {"id": "r2", "human_label": "tie"}])
    assert said == {"r1": (A, ()), "r2": (TIE, ()), "r3": (None, ())}
    assert (found.labelled, found.unknown_ids) == (2, 0)


def test_several_rows_of_an_id_are_several_people():
    said, _ = joined(
        [{"id": "r1", "human_label": value} for value in (1, "b", "2.0")] + [{"id": "r2", "human_label": 1}]
    )
    assert said["r1"] == (B, (A, B, B))
    assert said["r2"] == (A, ())
    said, _ = joined([{"id": "r1", "human_label": value} for value in (1, 2)])
    assert said["r1"] == (None, (A, B))


def test_votes_of_a_row_are_people_too():
    said, _ = joined([{"id": "r1", "human_votes": [1, 2, 2]}, {"id": "r1", "human_votes": ["tie"]}])
    assert said["r1"] == (B, (A, B, B, TIE))
    said, _ = joined([{"id": "r2", "human_votes": ["a"], "human_label": "b"}])
    assert said["r2"] == (A, (A,))


def test_labels_replace_those_of_the_input():
    rows = [judged(1, B), judged(2, B)]
    assert joined([{"id": "r1", "human_label": "a"}], rows)[0] == {"r1": (A, ()), "r2": (None, ())}


def test_rows_that_nobody_annotated_yet_are_counted():
    labels = read_human_labels(
        [{"id": "r1", "human_label": 1}, {"id": "r2", "human_label": None}, {"id": "r3", "human_label": " "}]
    )
    assert labels.unlabelled == 2
    with pytest.raises(InputError, match="holds 1 rows without one, expected rows with a human label"):
        read_human_labels([{"id": "r1", "human_label": None, "human_votes": []}])


@pytest.mark.parametrize("flag", [True, "true", "True", 1, "1"])
def test_a_swapped_row_names_the_responses_the_other_way(flag):
    said, _ = joined(
        [
            {"id": "r1", "human_label": 1, "is_swapped": flag},
            {"id": "r2", "human_label": "2", "is_swapped": flag},
            {"id": "r3", "human_label": 0, "is_swapped": flag},
        ]
    )
    assert [label for label, _ in said.values()] == [B, A, TIE]


@pytest.mark.parametrize("flag", [False, "false", "", None, 0, float("nan")])
def test_a_row_that_is_not_swapped(flag):
    assert joined([{"id": "r1", "human_label": 1, "is_swapped": flag}])[0]["r1"] == (A, ())


def test_people_may_see_the_responses_in_different_orders():
    labels = [
        {"id": "r1", "human_label": 1, "is_swapped": False},
        {"id": "r1", "human_label": 2, "is_swapped": True},
        {"id": "r1", "human_label": 1, "is_swapped": True},
    ]
    assert joined(labels)[0]["r1"] == (A, (A, A, B))


def test_the_responses_as_shown_decide_what_a_label_names():
    # Drawn with another seed, what was A is B now; the file was written before and says is_swapped of then.
    labels = [
        {"id": "r1", "human_label": 1, "response_1": "y1", "response_2": "x1", "is_swapped": False},
        {"id": "r2", "human_label": 1, "response_1": "x2", "response_2": "y2", "is_swapped": True},
        {"id": "r3", "human_label": 1, "response_1": "edited", "response_2": "y3", "is_swapped": True},
    ]
    assert [label for label, _ in joined(labels)[0].values()] == [B, A, B]


def test_a_csv_file_as_a_spreadsheet_saves_it(tmp_path):
    path = tmp_path / "labels.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\r\n")
        writer.writerow(["id", "prompt", "response_1", "response_2", "human_label", "sampling_prob", "is_swapped"])
        writer.writerow(["r1", "P", "", "", " A ", "0.25", "TRUE"])
        writer.writerow(["r2", "P", "", "", "2.0", "1", "FALSE"])
        writer.writerow(["r3", "P", "", "", "", "0.5", "FALSE"])
    said, found = joined(path)
    assert said == {"r1": (B, ()), "r2": (B, ()), "r3": (None, ())}
    assert [row.sampling_prob for row in found.rows] == [0.25, 1.0, 0.5]


def test_sampling_probabilities_of_the_file_or_else_of_the_input():
    rows = [judged(1, prob=0.5), judged(2, prob=0.25)]
    found = joined([{"id": "r1", "human_label": 1}], rows)[1]
    assert [row.sampling_prob for row in found.rows] == [0.5, 0.25]
    found = joined([{"id": "r1", "human_label": 1, "sampling_prob": 0.1}], rows)[1]
    assert [row.sampling_prob for row in found.rows] == [0.1, None]


def test_ids_without_a_row_are_counted():
    found = joined([{"id": "r1", "human_label": 1}, {"id": "other", "human_label": 1}])[1]
    assert (found.labelled, found.unknown_ids) == (1, 1)
    with pytest.raises(InputError, match=r"none of its 1 ids is in the input \(here 'other', there 'r1'\)"):
        joined([{"id": "other", "human_label": 1}])


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"human_label": 1}, "column 'id': is missing; the row has: human_label"),
        ({"id": "r1"}, "column 'human_label': is missing, and human_votes too; the row has: id"),
        ({"id": "r1", "human_label": "left"}, "column 'human_label': holds 'left', expected"),
        ({"id": "r1", "human_label": 1, "is_swapped": "maybe"}, "column 'is_swapped': is 'maybe', expected true"),
        ({"id": "r1", "human_label": 1, "sampling_prob": 0}, "column 'sampling_prob': is 0, expected"),
        ({"id": "r9", "human_label": 1, "sampling_prob": 0.2}, "is 0.2 here and 0.1 in another row of 'r9'"),
    ],
)
def test_faults_are_named_with_their_place(tmp_path, row, said):
    path = tmp_path / "labels.jsonl"
    lines = [{"id": "r9", "human_label": 1, "sampling_prob": 0.1}, row]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(InputError, match=f"labels.jsonl, line 2,? .*{said}"):
        read_human_labels(path)


def test_an_apostrophe_against_formulas_is_taken_off():
    one = judged(1)
    formula = Comparison("=1+1", one.comparison.prompt, "-x", "+y")
    rows = [JudgedComparison(formula, 0.5), judged(2)]
    labels = [
        {"id": "'=1+1", "human_label": 1, "response_1": "'+y", "response_2": "'-x", "sampling_prob": 0.5},
        {"id": "r2", "human_label": 1, "sampling_prob": 1},
    ]
    said, found = joined(labels, rows)
    assert said == {"=1+1": (B, ()), "r2": (A, ())}
    assert found.rows[0].sampling_prob == 0.5


def test_a_file_that_a_german_spreadsheet_saved():
    labels = [
        {"id": "r1", "human_label": "1", "sampling_prob": "0,25", "is_swapped": "WAHR"},
        {"id": "r2", "human_label": "1", "sampling_prob": "2,5E-01", "is_swapped": "FALSCH"},
        {"id": "", "human_label": "", "sampling_prob": "", "is_swapped": ""},
    ]
    said, found = joined(labels)
    assert (said["r1"][0], said["r2"][0], found.labelled) == (B, A, 2)
    assert [row.sampling_prob for row in found.rows] == [0.25, 0.25, None]
    assert read_human_labels(labels).unlabelled == 0
