"""`rlaif train hpo` from rows to a folder: auxiliary rewards pull where they point, and preferences hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlaif.engine.training_config import RowsConfig
from rlaif.errors import ConfigError, InputError
from rlaif.models.batches import collate
from rlaif.models.encoding import ExampleEncoder
from rlaif.models.loading import find_model, load_model, stop_ids
from rlaif.models.logprobs import token_logprobs
from rlaif.records import Turn
from rlaif.train.config import HpoLossConfig
from tests.engine.training_runs import aux_rows, feedback_rows, losses, metrics, pair_rows, run, run_json, write_rows

pytestmark = pytest.mark.usefixtures("quick_training")

GOOD, BAD = ("yes", "yep"), ("not", "nah")
ANSWERS = (*GOOD, *BAD)
FORMAL = {"yes": 1.0, "yep": 0.0, "not": 1.0, "nah": 0.0}


def crossed_rows(count: int = 16) -> list[dict[str, object]]:
    """Pairs of a good and a bad answer, each formal or not whatever the other is: preferences say nothing of that."""
    rows: list[dict[str, object]] = []
    for number in range(count):
        pair = GOOD[number % 2], BAD[number // 2 % 2]
        first, second = pair if number % 3 else pair[::-1]
        rows.append(
            {
                "prompt": f"Do {number // 4}",
                "response_a": first,
                "response_b": second,
                "prob_a": 0.9 if number % 3 else 0.1,
                "aux_rewards_a": {"formal": FORMAL[first]},
                "aux_rewards_b": {"formal": FORMAL[second]},
            }
        )
    return rows


def probs_of(folder: Path) -> dict[str, float]:
    """Of each answer, mean over the prompts, under the model in a folder."""
    source = find_model(str(folder), backend=None, device="cpu", dtype="auto")
    encoder = ExampleEncoder(source.tokenizer, stop_ids(source))
    examples = [encoder.example(f"r{number}", (Turn("user", f"Do {number}"),), ANSWERS) for number in range(4)]
    with torch.no_grad():
        found = token_logprobs(load_model(source), collate(examples, is_packed=True)).sums
    return dict(zip(ANSWERS, found.exp().mean(0).tolist(), strict=True))


def test_auxiliary_rewards_move_what_they_reward_and_leave_preferences(model, tmp_path):
    """METHODS check 43: the aux metric moves with lambda, whichever way it counts, while preference accuracy stays."""
    data = write_rows(tmp_path / "rows.jsonl", crossed_rows())
    formal = {}
    for coef, sign in ((0.0, 1.0), (0.03, 1.0), (0.03, -1.0)):
        out = tmp_path / f"out {coef} {sign}"
        run("hpo", model, data, out, loss=HpoLossConfig(aux_coef=coef, aux={"formal": sign}, beta=0.5),
            optimization={"max_steps": 12, "batch_size": 16, "learning_rate": 3e-3})  # fmt: skip
        probs = probs_of(out)
        formal[coef, sign] = probs["yes"] / (probs["yes"] + probs["yep"])
        assert metrics(out)[-1]["accuracy"] == 1.0
    assert formal[0.03, 1.0] > max(0.8, formal[0.0, 1.0] + 0.3)
    assert formal[0.03, -1.0] < 0.2


def test_what_was_weighed_stands_in_the_folder(model, tmp_path):
    rows = aux_rows(pair_rows(16))
    rows[3]["aux_rewards"] = None
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    run("hpo", model, data, out, loss=HpoLossConfig(aux={"brevity": 2.0}), rows=RowsConfig(held_out=0.25))
    aux = run_json(out)["resolved"]["aux"]
    train_rows = run_json(out)["rows"]["train_rows"]
    assert aux["names"] == {"brevity": 2.0}
    assert (aux["responses"] + aux["without"], aux["without"]) == (2 * train_rows, 2)
    assert f"{aux['responses']} responses weighed by 2 brevity" in (out / "README.md").read_text()
    assert {"aux_loss", "eval_aux_loss"} <= {name for line in metrics(out) for name in line}


def test_without_a_coefficient_it_is_kto_or_dpo(model, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", aux_rows(pair_rows()))
    for method in ("kto", "dpo"):
        run(method, model, data, tmp_path / method, optimization={"max_steps": 2})
        loss = HpoLossConfig(preference=method, aux_coef=0.0)
        run("hpo", model, data, tmp_path / f"hpo {method}", loss=loss, optimization={"max_steps": 2})
        assert losses(tmp_path / f"hpo {method}") == losses(tmp_path / method)


def test_feedback_has_auxiliary_rewards_too_and_no_preference_term_of_dpo(model, tmp_path):
    rows = [{**row, "aux_rewards": {"brevity": -len(row["response"])}} for row in feedback_rows()]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    run("hpo", model, data, tmp_path / "out", optimization={"max_steps": 1})
    first = metrics(tmp_path / "out")[0]
    # Each response is alone on its prompt; at the reference, half of KTO's weight beside the likelihood.
    weighed = run_json(tmp_path / "out")["resolved"]["aux"]
    assert weighed["baseline"] == pytest.approx(-sum(len(row["response"]) for row in rows) / len(rows))
    assert first["loss"] == pytest.approx(0.5 + 0.01 * first["aux_loss"], rel=1e-5)
    with pytest.raises(InputError, match="'response_a'"):
        run("hpo", model, data, tmp_path / "dpo", loss=HpoLossConfig(preference="dpo"))


@pytest.mark.parametrize(
    ("aux", "loss", "message"),
    [
        (None, HpoLossConfig(), "rows.jsonl has none; expected a column aux_rewards"),
        ({"brevity": [-1, -1]}, HpoLossConfig(), "no response of .*rows.jsonl leads the others"),
        ({"brevity": [-1, -2]}, HpoLossConfig(aux={"brief": 1.0}), "'brief' is unknown"),
    ],
)
def test_what_cannot_be_learnt_is_refused_before_a_folder_is_made(aux, loss, message, model, tmp_path):
    rows = [{**row, "aux_rewards": aux} for row in pair_rows()]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out"
    with pytest.raises(ConfigError, match=message):
        run("hpo", model, data, out, loss=loss)
    assert not out.exists()


def test_a_row_that_cannot_be_read_is_named_or_skipped(model, tmp_path):
    rows = aux_rows(pair_rows(6))
    rows[2]["aux_rewards"] = {"brevity": [1, "much"]}
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(InputError, match=r"line 3, column 'aux_rewards': is 'much' for 'brevity'"):
        run("hpo", model, data, tmp_path / "out")
