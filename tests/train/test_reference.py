"""Log-probabilities of the reference: those of a live pass, computed once, over processes and over kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import byte_level_tokenizer, make_model, save_model
from torch import nn

from rlaif.errors import NonFiniteLossError
from rlaif.models.batches import collate
from rlaif.models.examples import Example
from rlaif.models.loading import find_model
from rlaif.models.logprobs import token_logprobs
from rlaif.train.logprob_cache import Asked, LogprobCache
from rlaif.train.reference import reference_identity, reference_logprobs

VOCABULARY = len(byte_level_tokenizer())


def make_examples(count: int = 12) -> list[Example]:
    """Pairs of unequal lengths, the last row with three completions."""
    generator = torch.Generator().manual_seed(0)

    def ids(most: int) -> tuple[int, ...]:
        size = int(torch.randint(1, most, (), generator=generator))
        return tuple(torch.randint(0, VOCABULARY, (size,), generator=generator).tolist())

    rows = [Example(f"row {number}", ids(12), (ids(9), ids(9))) for number in range(count - 1)]
    return [*rows, Example("ranked", ids(12), (ids(5), ids(9), ids(3)))]


class Forwards:
    """How often a model was called."""

    def __init__(self, model: nn.Module) -> None:
        self.count = 0
        model.register_forward_hook(self._called)

    def _called(self, *arguments: object) -> None:
        self.count += 1


def ask(
    model: nn.Module, examples: Sequence[Example], *, is_packed: bool = True, **rest: Any
) -> list[tuple[float, ...]]:
    settings: dict[str, Any] = {"is_chunked": True, "max_tokens": 64, "device": "cpu", **rest}
    return reference_logprobs(model, examples, is_packed=is_packed, **settings)


def live(model: nn.Module, examples: Sequence[Example], *, is_packed: bool = True) -> list[tuple[float, ...]]:
    """As a training step computes them, all rows in one batch."""
    with torch.no_grad():
        sums = token_logprobs(model.eval(), collate(examples, is_packed=is_packed)).sums
    return [tuple(row[: len(example.completions)].tolist()) for example, row in zip(examples, sums, strict=True)]


def flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


@pytest.mark.parametrize("is_packed", [True, False])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_precomputed_is_what_a_live_pass_gives(kind: str, is_packed: bool) -> None:
    # trl #2423: precomputed reference log-probs differed from those of the step.
    model, examples = make_model(kind, VOCABULARY), make_examples()
    found = ask(model, examples, is_packed=is_packed)
    assert [len(row) for row in found] == [len(example.completions) for example in examples]
    assert flat(found) == pytest.approx(flat(live(model, examples)), abs=1e-4)


def test_the_mode_comes_back_and_dropout_is_off_within() -> None:
    model, examples = make_model("gpt2", VOCABULARY), make_examples(4)
    model.train()
    found = ask(model, examples)
    assert model.training
    assert found == ask(model.eval(), examples)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_exchanging_responses_exchanges_their_numbers() -> None:
    model, examples = make_model("llama", VOCABULARY), make_examples(5)
    turned = [Example(one.id, one.prompt, one.completions[::-1]) for one in examples]
    assert flat(ask(model, turned)) == pytest.approx(flat([row[::-1] for row in ask(model, examples)]), abs=1e-4)


def test_batches_keep_to_the_budget_and_an_example_beyond_it_is_alone() -> None:
    model, examples = make_model("llama", VOCABULARY), make_examples()
    shapes: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    for is_packed in (True, False):
        shapes.clear()
        ask(model, examples, is_packed=is_packed, max_tokens=40)
        assert all(rows * width <= 40 or rows in {1, 2, 3} for rows, width in shapes)
        assert len(shapes) < sum(len(example.completions) for example in examples)
        one_row = max(example.row_tokens(is_packed=is_packed) for example in examples)
        assert max(rows * width for rows, width in shapes) <= max(40, one_row)


def test_what_stands_twice_is_computed_once() -> None:
    model = make_model("llama", VOCABULARY)
    computed: list[int] = []
    model.register_forward_pre_hook(
        lambda module, args, kwargs: computed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    first, second, third = (1, 2, 3), (4, 5), (6, 7, 8)
    twice = [
        Example("a", first, (second, third)),
        Example("again", first, (second, third)),
        Example("alone", first, (third,)),
        Example("same", first, (second, second)),
    ]
    progress: list[tuple[int, int]] = []
    found = ask(model, twice, on_progress=lambda done, total: progress.append((done, total)))
    assert computed == [8]
    assert progress == [(0, 2), (2, 2)]
    a, b = found[0]
    assert found == [(a, b), (a, b), (b,), (a, a)]


def test_a_cache_that_knows_all_computes_nothing(tmp_path: Path) -> None:
    model, examples = make_model("llama", VOCABULARY), make_examples()
    forwards = Forwards(model)
    with closing(LogprobCache({"weights": "a"}, tmp_path)) as cache:
        found = ask(model, examples, cache=cache)
    assert forwards.count > 1
    forwards.count = 0
    progress: list[tuple[int, int]] = []
    with closing(LogprobCache({"weights": "a"}, tmp_path)) as cache:
        again = ask(model, examples, cache=cache, on_progress=lambda done, total: progress.append((done, total)))
    assert forwards.count == 0
    assert again == found
    assert progress == [(25, 25)]


def test_only_what_the_cache_lacks_is_computed(tmp_path: Path) -> None:
    model, examples = make_model("llama", VOCABULARY), make_examples()
    with closing(LogprobCache({"weights": "a"}, tmp_path)) as cache:
        ask(model, examples[:-1], cache=cache)
        forwards = Forwards(model)
        # One new row, and a known completion beside a new one.
        mixed = Example("mixed", examples[0].prompt, (examples[0].completions[1], (9, 9, 9)))
        found = ask(model, [*examples, mixed], cache=cache)
    assert forwards.count == 1
    assert flat(found) == pytest.approx(flat(live(model, [*examples, mixed])), abs=1e-4)


def test_a_reference_that_gives_no_number_is_refused_and_not_kept(tmp_path: Path) -> None:
    model, examples = make_model("llama", VOCABULARY), make_examples(3)
    with torch.no_grad():
        model.get_input_embeddings().weight[examples[1].completions[0][0]] = torch.nan
    with closing(LogprobCache({"weights": "a"}, tmp_path)) as cache:
        expected = r"row 'row \d' a log-probability of nan, expected a number; .*--precision"
        with pytest.raises(NonFiniteLossError, match=expected):
            ask(model, examples, cache=cache)
        assert len(cache.get([Asked(one.prompt, each) for one in examples for each in one.completions])) < 7


def test_a_change_in_the_middle_of_the_weights_is_another_reference(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    weights = folder / "model.safetensors"
    with weights.open("ab") as handle:
        handle.write(bytes(3 << 20))

    def identity() -> dict[str, Any]:
        source = find_model(str(folder), backend=None, device="cpu", dtype="float32")
        return reference_identity(source, dtype="float32", precision="float32")

    before = identity()
    assert identity() == before
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    assert identity() != before
    json.dumps(before)


WORKER = """
import json, os, sys
from contextlib import closing
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import torch
torch.set_num_threads(1)
from test_reference import VOCABULARY, ask, make_examples, make_model
from rlaif.train.logprob_cache import LogprobCache

folder, mode = Path(sys.argv[2]), sys.argv[3]
model = make_model("llama", VOCABULARY)
forwards = [0]
model.register_forward_hook(lambda *arguments: forwards.__setitem__(0, forwards[0] + 1))
if mode == "killed":
    def on_progress(done, total):
        print(json.dumps(done), flush=True)
        if done > total // 2:
            sys.stdin.readline()  # until the kill
    ask(model, make_examples(), max_tokens=1, cache=LogprobCache({"weights": "a"}, folder), on_progress=on_progress)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=int(mode), world_size=2)
progress = []
with closing(LogprobCache({"weights": "a"}, folder / "cache")) as cache:
    found = ask(model, make_examples(), cache=cache, on_progress=lambda *counts: progress.append(counts))
    first, forwards[0] = forwards[0], 0
    again = ask(model, make_examples(), cache=cache)
print(json.dumps([found, again == found, first, forwards[0], progress]))
torch.distributed.destroy_process_group()
"""


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    tests = Path(__file__).parent
    command = [sys.executable, "-c", WORKER, str(tests), str(folder), mode]
    environment = {**os.environ, "PYTHONPATH": str(tests.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_a_killed_process_loses_its_last_batch_at_most(tmp_path: Path) -> None:
    worker = start(tmp_path, "killed")
    assert worker.stdout is not None
    done = 0
    for line in worker.stdout:
        done = json.loads(line)
        if done > 12:
            break
    worker.send_signal(signal.SIGKILL)
    worker.communicate()
    assert worker.returncode == -signal.SIGKILL
    model, examples = make_model("llama", VOCABULARY), make_examples()
    forwards = Forwards(model)
    counts: list[int] = []
    with closing(LogprobCache({"weights": "a"}, tmp_path)) as cache:
        found = ask(model, examples, max_tokens=1, cache=cache, on_progress=lambda done, total: counts.append(done))
    assert counts[0] == done
    assert forwards.count == len(counts) - 1 < len(examples)
    assert flat(found) == pytest.approx(flat(live(model, examples)), abs=1e-4)


def test_two_processes_share_the_work_and_have_the_same_numbers(tmp_path: Path) -> None:
    workers = [start(tmp_path, mode) for mode in ("0", "1")]
    answers = [json.loads(worker.communicate(timeout=120)[0]) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    found, is_same, first, later, progress = answers[0]
    assert answers[1][0] == found
    assert is_same
    assert answers[1][1]
    assert later == answers[1][3] == 0
    model, examples = make_model("llama", VOCABULARY), make_examples()
    forwards = Forwards(model)
    assert flat(found) == pytest.approx(flat(ask(model, examples)), abs=1e-4)
    # As many batches each, so that processes that share one model do not wait for each other for ever.
    assert first == answers[1][2] == (forwards.count + 1) // 2
    assert progress[-1] == [25, 25]
