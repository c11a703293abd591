from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rlaif.cli.main import main
from rlaif.judge.templates import PairwiseTemplate
from rlaif.records import Comparison, Order, Turn
from tests.servers import Answer, Received, ScriptedServer, chat_reply, error_reply

NO_ROW = "InputError: in.jsonl: has no row with the id"
HOSTILE = "nice\x1b]0;owned\x07 {{ braces }} \u202e"


@pytest.fixture(autouse=True)
def _rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    rows = [
        {"id": "first", "prompt": "Hello?", "response_a": "Hi.", "response_b": "Good day.", "human_votes": list("aab")},
        {"id": "second", "prompt": "Bye?", "response_a": HOSTILE, "response_b": "See you."},
        {"id": "third", "prompt": "Same?", "response_a": "x", "response_b": "x"},
    ]  # fmt: skip
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def prompt_of(comparison: Comparison, order: Order, **settings: object) -> str:
    template = PairwiseTemplate("helpfulness", **settings)  # type: ignore[arg-type]
    return "".join(message.content for message in template.render(comparison, order))


FIRST = Comparison("first", (Turn("user", "Hello?"),), "Hi.", "Good day.")
SECOND = Comparison("second", (Turn("user", "Bye?"),), HOSTILE, "See you.")


def test_prompt_prints_what_the_judge_gets_for_each_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "prompt", "in.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert out == "".join(prompt_of(FIRST, order) + "\n" for order in Order)
    assert err.splitlines() == [
        f"----- row first, order {order}, step 1 (asks for the log-probabilities of 1 and 2), user message -----"
        for order in ("ab", "ba")
    ]


def test_prompt_settings_are_those_of_label(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--orders", "ba", "--shots", "2", "--preamble", "detailed", "--quiet"]
    assert main(["show", "prompt", "in.jsonl", "--id", "second", *flags, "--raw"]) == 0
    out, err = capsys.readouterr()
    assert out == prompt_of(SECOND, Order.BA, shots=2, preamble="detailed")
    assert err == ""


def test_hostile_text_is_shown_and_not_obeyed_unless_asked_for(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    command = ["show", "prompt", "in.jsonl", "--id", "second", "--orders", "ab", "--quiet"]
    assert main(command) == 0
    shown = capfdbinary.readouterr().out
    assert b"nice\\x1b]0;owned\\x07 {{ braces }} \\u202e" in shown
    assert b"\x1b" not in shown
    assert main([*command, "--raw"]) == 0
    assert capfdbinary.readouterr().out == prompt_of(SECOND, Order.AB).encode()


def test_prompt_shows_each_principle(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("principles:\n- {id: short, text: Be short.}\n- {id: long, text: Be long.}\n")
    assert main(["show", "prompt", "in.jsonl", "--constitution", "mine.yaml"]) == 0
    out, err = capsys.readouterr()
    assert [line.split("principle ")[1].split(",")[0] for line in err.splitlines()] == [
        "short",
        "short",
        "long",
        "long",
    ]
    assert (out.count("Be short."), out.count("Be long.")) == (2, 2)


def test_prompt_shows_both_steps_of_a_chain_of_thought(capsys: pytest.CaptureFixture[str]) -> None:
    judge, when = "openai:m", ", only where the reply before has no verdict that can be read"
    assert main(["show", "prompt", "in.jsonl", "--cot", "--orders", "ab", "--judge", judge]) == 0
    out, err = capsys.readouterr()
    assert [line.split(", ", 2)[2] for line in err.splitlines()] == [
        "step 1 (asks for text, at most 512 tokens), user message -----",
        *(
            f"step 2 (asks for the log-probabilities of 1 and 2{when}), {role} message -----"
            for role in ("user", "assistant", "user")
        ),
    ]
    assert "\n(the judge's reasons stand here)\n" in out


def test_prompt_of_equal_responses_says_that_nobody_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "prompt", "in.jsonl", "--id", "third"]) == 0
    assert capsys.readouterr() == (
        "",
        "row third: both responses are the same, so the label is 0.5 and no judge is asked\n",
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["prompt", "in.jsonl", "--id", "secnd"], f"{NO_ROW} 'secnd' (did you mean 'second'?)"),
        (["prompt", "in.jsonl", "--id", "zzz"], f"{NO_ROW} 'zzz'; the first are first, second, third"),
        (["prompt", "none.jsonl"], "InputError: none.jsonl"),
        (["prompt", "in.jsonl", "--task", "helpfullness"], "PromptError: "),
        (["prmpt"], "ConfigError: unknown: rlaif show prmpt (did you mean 'prompt'?); known: prompt, run, row"),
        ([], "ConfigError: rlaif show needs one of prompt, run, row"),
        (["run", "."], "RunFolderError: "),
        (["run", "nowhere"], "RunFolderError: "),
        (["run"], "ConfigError: the command line: FOLDER is missing"),
        (["row", "nowhere"], "ConfigError: the command line: ID is missing"),
    ],
)  # fmt: skip
def test_wrong_use(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(message)
    assert err.count("\n") == 1


def test_run_tells_what_a_run_did(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["label", "in.jsonl", "-o", "out", "--judge", "fake:0.75", "--price", "1000000/0", "--limit", "2"]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["show", "run", "out"]) == 0
    found = {line[:18].strip(): line[18:] for line in capsys.readouterr().out.splitlines()}
    assert found["run"] == "out (finished)"
    assert found["command"] == f"rlaif {' '.join(command)}"
    assert found["judge"] == "fake:0.75"
    assert found["rows"] == "2 labeled, 0 failed, of 3"
    assert found["swap consistency"].startswith("0.0%")  # P(first slot) is 0.75 whatever stands there
    assert found["position bias"].startswith("100.0%")
    assert found["calls"].startswith("4 in the last session")
    assert found["cost"].startswith("$")
    assert "python 3." in found["versions"]


def test_row_tells_everything_of_a_label(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "in.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet"]) == 0
    assert main(["show", "row", "out", "first"]) == 0
    out = capsys.readouterr().out
    assert "human label: a (votes: a, a, b)" in out
    assert "prob_a_ab      0.750000\nprob_a_ba      0.250000" in out
    for order in Order:
        assert f"----- {order.value}: user message -----\n{prompt_of(FIRST, order)}\n" in out
        assert f"----- {order.value}: reply -----\nnext token: '1' 0.750000, '2' 0.250000" in out
        assert f"----- {order.value}: reading -----\nP(first slot preferred) 0.750000, label mass 1.000000" in out
    assert main(["show", "row", "out", "second"]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["show", "row", "out", "third"]) == 0
    assert "The responses are the same: 0.5, and no judge was asked." in capsys.readouterr().out
    assert main(["show", "row", "out", "frst"]) == 2
    assert "(did you mean 'first'?)" in capsys.readouterr().err


def test_columns_of_other_names_are_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"key": {"n": "x"}, "ask": "Hello?", "left": "Hi.", "right": "Good day."}]
    Path("other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = ["--columns", "id=key.n,prompt=ask", "--columns", "response_a=left,response_b=right"]
    assert main(["show", "prompt", "other.jsonl", *columns, "--orders", "ab", "--quiet"]) == 0
    assert capsys.readouterr().out == prompt_of(FIRST, Order.AB) + "\n"
    assert main(["label", "other.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet", *columns]) == 0
    assert main(["show", "row", "out", "x"]) == 0
    assert prompt_of(FIRST, Order.AB) in capsys.readouterr().out


def test_row_tells_why_there_is_no_label(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(received: Received) -> Answer:
        asks_about_second = b"Bye?" in received.payload
        return Answer(error_reply("too \x1b[1mrude"), status=400) if asks_about_second else Answer(chat_reply())

    with ScriptedServer(answer) as server:
        assert main(["label", "in.jsonl", "-o", "out", "--judge", "openai:m", "--base-url", server.url, "--quiet"]) == 3
    capsys.readouterr()
    assert main(["show", "row", "out", "second"]) == 0
    out = capsys.readouterr().out
    assert "----- label -----\nnone: the row failed, or is not labeled yet" in out
    assert "----- ab: reply -----\nnone in the journal" in out
    assert "RequestRefusedError" in out
    assert "(attempts: 1)" in out
    assert "\x1b" not in out


def test_row_shows_principles_and_judges(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("principles:\n- {id: short, text: Be short.}\n- {id: long, text: Be long.}\n")
    judges = ["--judge", "fake:0.75", "--judge", "fake:longer"]
    assert main(["label", "in.jsonl", "-o", "out", *judges, "--constitution", "mine.yaml", "--quiet"]) == 0
    assert main(["show", "row", "out", "first"]) == 0
    out = capsys.readouterr().out
    for line in ("principle short", "principle long", "judge fake:0.75", "judge fake:longer"):
        assert f"\n{line} " in out
    assert "----- fake:longer: ba, long: reply -----" in out


def test_row_names_the_principle_that_was_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yaml").write_text("principles:\n- {id: short, text: Be short.}\n")
    drawn = ["--constitution", "mine.yaml", "--principles", "sample"]
    assert main(["label", "in.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet", *drawn]) == 0
    assert main(["show", "row", "out", "first"]) == 0
    assert re.search(r"^principle +short$", capsys.readouterr().out, re.MULTILINE)


def test_a_column_of_the_user_is_not_shown_as_the_principle_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "x", "prompt": "Hello?", "response_a": "Hi.", "response_b": "Good day.", "principle": "mine"}
    Path("own.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["label", "own.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet"]) == 0
    assert main(["show", "row", "out", "x"]) == 0
    assert "\nprinciple" not in capsys.readouterr().out


def test_a_damaged_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["label", "in.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet"]) == 0
    Path("out/failures.jsonl").write_text("{nonsense")
    assert main(["show", "run", "out"]) == 2
    next(Path("out/data").glob("*.parquet")).write_bytes(b"nonsense")
    assert main(["show", "row", "out", "first"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].startswith("RunFolderError: out/failures.jsonl: cannot be read")
    assert errors[1].startswith("RunFolderError: out/data/train-00000.parquet: cannot be read")


def test_a_pipelines_folder_is_told_from_its_stages(capsys: pytest.CaptureFixture[str]) -> None:
    stages = {"label": {"input": "in.jsonl", "judge": "fake:0.7"}, "export": {"format": "trl", "ties": "keep"}}
    Path("p.yaml").write_text(json.dumps({"out": "all", "stages": stages}))
    assert main(["pipeline", "p.yaml", "--quiet"]) == 0
    assert main(["show", "run", "all"]) == 2
    assert "a pipeline wrote into it, and these of its stages are runs: label\n" in capsys.readouterr().err
    assert main(["show", "run", "all/label"]) == 0


def test_row_shows_the_values_of_candidates_by_their_place_and_none_of_the_users(
    capsys: pytest.CaptureFixture[str],
) -> None:
    row = {"id": "x", "prompt": "Q?", "responses": ["a", "b"], "prob_a": 0.125}
    Path("in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    panel = ["--judge", "fake:0.75", "--judge", "fake:0.25"]
    assert main(["rate", "in.jsonl", "-o", "out", *panel, "--quiet"]) == 0
    assert main(["show", "row", "out", "x"]) == 0
    label = capsys.readouterr().out.partition("----- label -----")[2].partition("-----")[0]
    assert "prob_a" not in label
    shown = [line.split("  ")[0] for line in label.splitlines() if "judge fake" in line]
    assert shown == [f"response {place}, judge fake:{prob}" for place in (1, 2) for prob in ("0.75", "0.25")]
    assert main(["show", "run", "out"]) == 0
    assert "debias" not in capsys.readouterr().out  # means nothing for a rating


def test_row_shows_no_column_of_the_users_as_part_of_a_label(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"id": "x", "prompt": "Q?", "response_a": "a", "response_b": "b", "rating": 4, "label_mass": 0.125}
    Path("in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    assert main(["label", "in.jsonl", "-o", "out", "--judge", "fake:0.75", "--quiet"]) == 0
    assert main(["show", "row", "out", "x"]) == 0
    label = capsys.readouterr().out.partition("----- label -----")[2].partition("-----")[0]
    names = [line.split()[0] for line in label.split("\n") if line]
    assert "prob_a" in names
    assert not {"rating", "label_mass"} & {*names}
