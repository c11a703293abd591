"""What `rlaif show` says alike of candidates and of revised responses."""

from rlaif.cli.policy_reports import draw_text, fault_counts, policy_text, settings_text, written_report
from rlaif.engine.explaining import ExplainedCandidates
from rlaif.engine.journal import JournaledReply
from rlaif.records import Failure, Generation


def report(row, replies=(), failures=()):
    known = ExplainedCandidates("r1", row, tuple(replies), tuple(failures))
    return written_report(known, missing="no text", texts_of=lambda row: [("response", row["text"])], replies="1")


def test_a_written_row_shows_its_prompt_and_texts():
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert report({"prompt": "P", "text": "T"}) == (
        "----- row r1 -----\n\n----- prompt, user -----\nP\n\n----- response -----\nT\n\nreplies in the journal: 1"
    )
    assert "----- prompt, system -----\nS\n\n----- prompt, user -----\nU" in report({"prompt": messages, "text": "T"})


def test_a_row_that_failed_shows_its_replies_and_why():
    said = report(
        None, [JournaledReply("draw 1", Generation("half", "length"))], [Failure("r1", "draw 2", "Odd: no", 3)]
    )
    assert "no text: the row failed, or is not written yet" in said
    assert "----- draw 1: reply -----\nhalf\n(finish reason: length)" in said
    assert "draw 2: Odd: no (attempts: 3)" in said


def test_what_is_not_there_is_not_told():
    assert settings_text({"samples": 4, "system": None, "top_p": 1.0}) == "samples 4, top_p 1.0"
    assert fault_counts({"empty": 0, "cut_off": 1200}, {"empty": "empty", "cut_off": "cut off"}) == ["1,200 cut off"]
    assert (draw_text(None), draw_text(0)) == ("greedy", "seed 0")
    assert policy_text({"name": "fake:x"}) == "fake:x"
    assert policy_text({"name": "builtin:x", "is_demonstration": True}) == "builtin:x (a demonstration policy)"
