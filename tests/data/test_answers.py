import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.answers import LabelAnswers, RecordedAnswers, probability_of
from rlaif.data.columns import RowFault
from rlaif.data.recorded import RecordedColumn
from rlaif.records import Comparison, Turn, Verdict

VERDICTS = st.sampled_from([1, 2, 0, None])


def comparison(label):
    return Comparison("r", (Turn("user", "P"),), "x", "y", human_label=label)


def recorded(ab, ba, *, label=Verdict.A, is_ranked=False):
    columns = RecordedColumn("ab"), RecordedColumn("ba")
    row = {"ab": ab, "ba": ba}
    answers = RecordedAnswers(*columns, first=[row])
    return answers.take(row, comparison(label), is_ranked=is_ranked)()


@given(VERDICTS, VERDICTS)
def test_when_rejected_became_a_everything_is_the_other_way_round(ab, ba):
    one = recorded(ab, ba, label=Verdict.A, is_ranked=True)
    other = recorded(ab, ba, label=Verdict.B, is_ranked=True)

    def turned(prob):
        return None if prob is None else 1.0 - prob

    assert (other.prob_a, other.prob_a_ab, other.prob_a_ba) == (
        turned(one.prob_a),
        turned(one.prob_a_ba),
        turned(one.prob_a_ab),
    )
    # Where the file names the responses itself, people's label turns nothing.
    assert recorded(ab, ba, label=Verdict.B) == recorded(ab, ba, label=Verdict.A) == one


def test_facts_of_recorded_answers():
    rows = [{"ab": 1, "ba": 0.5}, {"ab": None, "ba": 1}, {"ba": 0}]
    answers = RecordedAnswers(RecordedColumn("ab"), RecordedColumn("ba"), first=rows)
    for row in rows:
        answers.take(row, comparison(None), is_ranked=False)
    facts = answers.facts()
    assert facts.columns == ("ab", "ba")
    assert facts.scale == "verdicts: a or 1, b or 2, tie or 0; P(A preferred), 0 to 1"
    assert (facts.unusable, facts.absent, facts.notes) == ({"ab": 1, "ba": 0}, {"ab": 1, "ba": 0}, ())


def test_calibrated_labels_are_told():
    answers = LabelAnswers()
    answers.take({"prob_a": 0.5, "raw_prob_a": None, "raw_prob_a_ba": None}, comparison(None), is_ranked=False)
    answers.take({"prob_a": 0.6, "raw_prob_a": 0.7}, comparison(None), is_ranked=False)  # clamped
    assert not answers.facts().is_calibrated
    answers.take({"prob_a": 0.5, "raw_prob_a": 0.7, "raw_prob_a_ba": 0.7}, comparison(None), is_ranked=False)
    assert answers.facts().is_calibrated


@pytest.mark.parametrize(("value", "prob"), [(0, 0.0), ("1", 1.0), (0.25, 0.25), (None, None), ("", None)])
def test_probabilities(value, prob):
    assert probability_of(value, "prob_a") == prob


@pytest.mark.parametrize("value", [-1e-9, 1.0000001, "nan", {}, 10**400])
def test_what_is_none(value):
    with pytest.raises(RowFault):
        probability_of(value, "prob_a")
