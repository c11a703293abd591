"""Reward models where language models judge: runs, panels, the Python API, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

import rlaif
from rlaif.backends.fake import REWARDS, FakeBackend
from rlaif.cli.main import main
from rlaif.engine.config import LabelConfig, RateConfig
from rlaif.engine.labeling import label_file
from rlaif.engine.rating import rate_file
from rlaif.errors import ConfigError, JudgmentError
from rlaif.judge.config import JudgeConfig
from rlaif.records import RATING_LABELS, CandidateLogprobs, Request, RewardRequest, ScoreRequest, TokenLogprob
from tests.tiny_models import save_reward_model

PAIRS = [
    {"id": "x", "prompt": "Why?", "response_a": "because", "response_b": "so"},
    {"id": "same", "prompt": "Why?", "response_a": "so", "response_b": "so"},
    {"id": "empty", "prompt": "How?", "response_a": "", "response_b": "like that"},
]


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_reward_model(tmp_path_factory.mktemp("models") / "tiny-rm", shift=0.5)


def write(rows: list[dict[str, Any]], name: str = "in.jsonl") -> str:
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return name


def table(folder: str) -> list[dict[str, Any]]:
    return parquet.read_table(f"{folder}/data").to_pylist()


def run_json(folder: str) -> dict[str, Any]:
    return json.loads(Path(folder, "run.json").read_text())


def by_length(request: Request) -> float:
    assert isinstance(request, RewardRequest)
    return len(request.response) / 4


def rewarder(handler: Callable[[Request], Any] = by_length, name: str = "fake:rm") -> FakeBackend:
    return FakeBackend(handler, name=name, capabilities=REWARDS)


def sure_of_ten(request: Request) -> CandidateLogprobs:
    assert isinstance(request, ScoreRequest)
    return CandidateLogprobs((TokenLogprob(RATING_LABELS[-1], 0.0),), is_exhaustive=True)


class TestLabel:
    def test_pairs_are_the_sigmoid_of_the_difference_and_a_second_run_asks_nothing(self) -> None:
        config = LabelConfig(input=write(PAIRS), out="run")
        backend = rewarder()
        outcome = label_file(config, backends=(backend,))
        rows = {row["id"]: row for row in table("run")}
        # "because" has 7 letters and "so" 2: rewards 1.75 and 0.5; "" and "like that": 0 and 2.25.
        assert rows["x"]["prob_a"] == pytest.approx(1 / (1 + math.exp(-1.25)))
        assert rows["empty"]["prob_a"] == pytest.approx(1 / (1 + math.exp(2.25)))
        assert rows["empty"]["chosen"] == "like that"
        assert rows["x"]["prob_a_ab"] == rows["x"]["prob_a_ba"] == rows["x"]["prob_a"]
        assert (rows["same"]["prob_a"], rows["same"]["prob_a_ab"], rows["same"]["is_tie"]) == (0.5, None, True)
        assert {row["label_mass_ab"] for row in rows.values()} == {None}
        assert outcome.statistics.swap_consistency == 1.0
        assert len(backend.requests) == 4
        again = rewarder()
        assert label_file(config, backends=(again,)).rows == 3
        assert again.requests == []

    def test_what_a_reward_model_is_not_told_decides_nothing(self) -> None:
        source = write(PAIRS)
        label_file(LabelConfig(input=source, out="run"), backends=(rewarder(),))
        other = JudgeConfig(task="summarization", preamble="detailed", orders="ab", debias="mean-logit")
        label_file(LabelConfig(input=source, out="run", judging=other), backends=(rewarder(),))
        decisive = run_json("run")["decisive"]
        assert decisive["task"] is None
        assert decisive["allow_partial_panel"] is False
        assert not {"preamble", "orders", "debias", "cot", "min_label_mass"} & {*decisive}

    def test_the_card_tells_of_a_reward_model_and_of_no_prompt(self) -> None:
        label_file(LabelConfig(input=write(PAIRS), out="run"), backends=(rewarder(),))
        card = Path("run/README.md").read_text()
        assert "the probability that a reward model prefers" in card
        assert "a reward model sees each response alone" in card
        for word in ("Prompt template", "language model", "log-probabilities", "Label mass", "preamble"):
            assert word not in card

    def test_beside_a_language_model_the_probabilities_are_averaged(self) -> None:
        language = FakeBackend(lambda request: 0.5, name="fake:lm")
        config = LabelConfig(input=write(PAIRS[:1]), out="run")
        label_file(config, backends=(rewarder(), language))
        (row,) = table("run")
        of_rewards = 1 / (1 + math.exp(-1.25))
        assert row["prob_a"] == pytest.approx((of_rewards + 0.5) / 2)
        assert {each["name"]: each["prob_a"] for each in row["by_judge"]} == {
            "fake:rm": pytest.approx(of_rewards),
            "fake:lm": pytest.approx(0.5),
        }
        assert run_json("run")["decisive"]["task"] is not None
        assert "The probability of a reward model (`fake:rm`) is the sigmoid" in Path("run/README.md").read_text()

    def test_a_failed_call_fails_its_row_alone(self) -> None:
        def fails(request: Request) -> float:
            assert isinstance(request, RewardRequest)
            if request.response == "because":
                raise JudgmentError("no reward")
            return 0.0

        outcome = label_file(LabelConfig(input=write(PAIRS), out="run"), backends=(rewarder(fails),))
        assert (outcome.rows, outcome.failures) == (2, 1)
        (failure,) = map(json.loads, Path("run/failures.jsonl").read_text().splitlines())
        assert (failure["id"], failure["stage"]) == ("x", "response a")


class TestRate:
    def test_a_reward_and_no_rating(self) -> None:
        source = write([{"id": "one", "prompt": "Why?", "response": "because"}])
        outcome = rate_file(RateConfig(input=source, out="run"), backends=(rewarder(),))
        (row,) = table("run")
        assert row["reward"] == 1.75
        assert row["rating"] is row["rating_probs"] is row["label_mass"] is None
        assert (outcome.statistics.responses, outcome.statistics.rewards.mean) == (1, 1.75)
        assert run_json("run")["counts"]["rating_mean"] is None
        card = Path("run/README.md").read_text()
        assert "the number that a reward model gives" in card
        assert "## Distribution of rewards" in card

    def test_candidates_have_lists(self) -> None:
        source = write([{"id": "three", "prompt": "Why?", "responses": ["so", "because", "so"]}])
        backend = rewarder()
        rate_file(RateConfig(input=source, out="run"), backends=(backend,))
        (row,) = table("run")
        assert (row["rewards"], row["ratings"], row["rating_probs"]) == ([0.5, 1.75, 0.5], [None] * 3, [None] * 3)
        assert len(backend.requests) == 2

    @pytest.mark.parametrize("other", [rewarder(name="fake:rm2"), FakeBackend(sure_of_ten, name="fake:lm")])
    def test_scales_are_not_mixed(self, other: FakeBackend) -> None:
        source = write([{"prompt": "Why?", "response": "because"}])
        with pytest.raises(ConfigError, match="fake:rm scores on a scale of its own"):
            rate_file(RateConfig(input=source, out="run"), backends=(rewarder(), other))
        assert not Path("run").exists()


@pytest.mark.parametrize(
    ("settings", "flag"),
    [
        ({"cot": True}, "--cot"),
        ({"shots": 1}, "--shots"),
        ({"constitution": "honest"}, "--constitution"),
        ({"scoring": "sample", "samples": 2}, "--scoring sample"),
    ],
)
def test_what_has_no_meaning_for_a_reward_model_is_refused(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"is a reward model.*leave out {flag}, or ask a language model"):
        rlaif.Judge(rewarder(), **settings)


def test_a_mixed_panel_needs_both_orders() -> None:
    with pytest.raises(ConfigError, match="needs --orders both"):
        rlaif.Judge(rewarder(), FakeBackend(lambda request: 0.5), orders="ab")
    with rlaif.Judge(rewarder(), rewarder(name="fake:rm2"), orders="ab") as judge:
        assert judge.compare("Why?", "same length", "length same").prob_a == 0.5


class TestTheModel:
    """Through a saved model, from Python and by the command line."""

    def test_from_python(self, model: Path) -> None:
        with rlaif.Judge(f"hf-reward:{model}") as judge:
            one, other = (judge.rate("Why?", response).reward for response in ("because", "so"))
            judgment = judge.compare("Why?", "because", "so")
        assert one != other
        assert judgment.prob_a == pytest.approx(1 / (1 + math.exp(other - one)), abs=1e-6)

    def test_by_the_command_line(self, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--judge", f"hf-reward:{model}"]
        assert main(["label", write(PAIRS), "-o", "run", *flags, "--quiet"]) == 0
        before = {row["id"]: row["prob_a"] for row in table("run")}
        assert main(["label", "in.jsonl", "-o", "run", *flags]) == 0
        assert "0, 4 replies from the journal" in capsys.readouterr().out
        assert {row["id"]: row["prob_a"] for row in table("run")} == before
        assert main(["label", "in.jsonl", "-o", "dry", *flags, "--dry-run"]) == 0
        out = capsys.readouterr().out
        assert "calls   4" in out
        assert "at most 0 out" in out
        assert main(["show", "run", "run"]) == 0
        out = capsys.readouterr().out
        assert "hf-reward:tiny-rm (a reward model)" in out
        assert "task" not in out
        assert main(["show", "row", "run", "x"]) == 0
        out = capsys.readouterr().out
        assert "----- response a: assistant message -----\nbecause" in out
        assert out.count("reward ") == 4  # each response's reply and reading
        assert main(["show", "prompt", "in.jsonl", *flags]) == 0
        shown = capsys.readouterr()
        assert shown.out.splitlines() == ["Why?", "because", "Why?", "so"]
        assert "row x, response b, step 1 (asks for the reward of the last message), assistant" in shown.err

    def test_probes_and_an_audit_of_its_labels(self, model: Path) -> None:
        flags = ["--judge", f"hf-reward:{model}", "--quiet"]
        assert main(["probe", "-o", "probed", *flags, "--only", "order", "--only", "identical"]) == 0
        probed = json.loads(Path("probed/probe.json").read_text())
        for name in ("order", "identical"):  # it sees no order
            assert (probed["probes"][name]["value"], probed["probes"][name]["missing"]) == (0.0, 0)
        labeled = [{**row, "human_label": "a", "response_a": f"{row['response_a']}!"} for row in PAIRS]
        assert main(["label", write(labeled), "-o", "run", *flags]) == 0
        assert main(["audit", "run", "-o", "audited", "--quiet"]) == 0
        audited = json.loads(Path("audited/audit.json").read_text())
        assert audited["swap_consistency"]["value"] == 1.0

    def test_a_model_that_cannot_be_loaded_stops_the_run(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = save_reward_model(tmp_path / "rm")
        (folder / "model.safetensors").unlink()
        assert main(["label", write(PAIRS), "-o", "run", "--judge", f"hf-reward:{folder}", "--quiet"]) == 2
        assert "cannot be loaded" in capsys.readouterr().err
