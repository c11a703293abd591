"""How the built-in judge is trained: prompts as the templates render them, the block mask, the export, the loss."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

from builtin_judge.batches import block_mask, collate  # noqa: E402
from builtin_judge.grammar import make_comparison  # noqa: E402
from builtin_judge.layout import Exemplar, Layout, Piece, read_layout  # noqa: E402
from builtin_judge.lexicon import lexicon  # noqa: E402
from builtin_judge.model import JudgeNetwork, Shape, export  # noqa: E402
from builtin_judge.optimizer import Optimizer, orthogonalize  # noqa: E402
from builtin_judge.sequences import Encoder, Shares, draw_sequences, pairwise_sequences  # noqa: E402
from builtin_judge.trainer import losses  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from rlaif.judge.templates import PairwiseTemplate  # noqa: E402
from rlaif.records import Comparison, Order, Turn  # noqa: E402
from rlaif.tokens import PromptEncoder, flatten  # noqa: E402

MODEL = REPOSITORY / "rlaif" / "backends" / "builtin_model"
TURNS = (("user", "What is tea?"), ("assistant", "A drink."), ("user", "More?"))


@pytest.fixture(scope="module")
def layout() -> Layout:
    return read_layout()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Tokenizer.from_file(str(MODEL / "tokenizer.json")))


def small() -> JudgeNetwork:
    torch.manual_seed(0)
    network = JudgeNetwork(Shape(width=64, layers=3, heads=2, hidden=96))
    for layer in network.layers:
        torch.nn.init.normal_(layer.o, std=0.1)
        torch.nn.init.normal_(layer.down, std=0.1)
    return network


@pytest.mark.parametrize("turns", [TURNS[:1], TURNS])
def test_the_layout_repeats_the_pairwise_template(layout: Layout, turns: tuple[tuple[str, str], ...]) -> None:
    comparison = Comparison("x", tuple(Turn(*turn) for turn in turns), "Leaves.", "Water.")
    message = PairwiseTemplate("helpfulness").render(comparison, Order.AB, principle="Which is shorter?")[0]
    pieces = layout.pairwise(layout.preambles["helpfulness"], turns, "Leaves.", "Water.")
    assert "".join(p.text for p in pieces) + "Which is shorter?" + layout.pairwise_cue == message.content


def test_the_layout_repeats_exemplars(layout: Layout) -> None:
    template = PairwiseTemplate("helpfulness", shots=2)
    comparison = Comparison("x", (Turn(*TURNS[0]),), "Leaves.", "Water.")
    message = template.render(comparison, Order.AB)[0]
    items = template._constants["exemplars"]
    exemplars = [
        Exemplar(
            *(str(item[name]).rstrip("\n") for name in ("prompt", "response_1", "response_2", "question", "label"))
        )
        for item in items
    ]
    pieces = layout.pairwise(layout.preambles["helpfulness"], TURNS[:1], "Leaves.", "Water.", exemplars)
    whole = "".join(p.text for p in pieces) + layout.questions["helpfulness"] + layout.pairwise_cue
    assert "".join(whole.split()) == "".join(message.content.split())


def test_training_ids_are_those_of_the_backend(layout: Layout, encoder: Encoder) -> None:
    from transformers import AutoTokenizer

    comparison = Comparison("x", tuple(Turn(*turn) for turn in TURNS), "Leaves. ### Response 2", "Water 10.")
    principle = "Which response is shorter?"
    messages = PairwiseTemplate("helpfulness").render(comparison, Order.AB, principle=principle)
    backend = PromptEncoder(AutoTokenizer.from_pretrained(str(MODEL)))
    pieces = layout.pairwise(layout.preambles["helpfulness"], TURNS, comparison.response_a, comparison.response_b)
    context = _ids(encoder, pieces)
    branch = [*encoder.value(principle), *encoder.template(layout.pairwise_cue), encoder.end, encoder.assistant]
    assert flatten(backend.encode(messages)) == [*context, *branch]


def _ids(encoder: Encoder, pieces: list[Piece]) -> list[int]:
    ids = [encoder.bos, encoder.user]
    for piece in pieces:
        ids += encoder.template(piece.text) if piece.segment == "template" else encoder.value(piece.text)
    return ids


def test_a_block_sees_the_context_and_itself() -> None:
    mask = block_mask(torch.tensor([[0, 0, 1, 2, -1]]))[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],  # the first branch
        [1, 1, 0, 1, 0],  # the second does not see the first
        [0, 0, 0, 0, 1],  # padding
    ]


def test_branches_side_by_side_answer_as_each_alone(layout: Layout, encoder: Encoder) -> None:
    pair = make_comparison(random.Random(1), lexicon("train"))
    sequence = pairwise_sequences(random.Random(2), lexicon("train"), encoder, layout, pair, 4)[0]
    network = small()
    batch = collate([sequence])
    together = network.hidden_states(batch.ids, batch.positions, batch.mask)[-1]
    for branch, (_, at) in zip(sequence.branches, batch.answer_at.tolist(), strict=True):
        ids = torch.tensor([[*sequence.context, *branch.ids]])
        length = ids.shape[1]
        causal = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
        alone = network.hidden_states(ids, torch.arange(length)[None], causal)[-1]
        torch.testing.assert_close(alone[0, -1], together[0, at], atol=1e-5, rtol=1e-4)


def test_the_export_is_the_network(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = small()
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()  # what fp16 files can hold
    export(network, tmp_path, {"bos": 1, "eos": 5, "pad": 0})
    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32)
    ids = torch.randint(6, 2000, (2, 40))
    mask = torch.ones(40, 40, dtype=torch.bool).tril().expand(2, 1, 40, 40)
    ours = network.logits(network.hidden_states(ids, torch.arange(40).expand(2, 40), mask)[-1])
    with torch.no_grad():
        torch.testing.assert_close(ours, loaded(ids).logits, atol=1e-4, rtol=1e-4)


def test_orthogonalize_levels_singular_values() -> None:
    torch.manual_seed(0)
    for shape in ((3, 16, 16), (2, 48, 16), (2, 16, 48)):
        values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)))
        assert 0.3 < values.min() < values.max() < 1.4


def test_the_loss_falls(layout: Layout, encoder: Encoder) -> None:
    rng, words = random.Random(4), lexicon("train")
    network = small()
    optimizer = Optimizer(network.matrices(), network.others())
    batch = collate(draw_sequences(rng, words, encoder, layout, Shares(tiny=1.0, long=0.0, copy=0.0)))
    found = []
    for step in range(12):
        every = losses(network, batch, torch.tensor(encoder.labels))
        total = torch.stack(list(every.values())).sum()
        total.backward()
        optimizer.step(0.0, 60 + step)
        found.append(total.item())
    assert found[-1] < 0.6 * found[0]
