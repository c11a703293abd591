"""How the built-in policy is trained: prompts as the templates render them, what is predicted, what a revision is."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "examples"))

from builtin_judge.grammar import SCENES, Scene  # noqa: E402
from builtin_judge.lexicon import lexicon  # noqa: E402
from builtin_judge.model import Shape, export  # noqa: E402
from builtin_judge.optimizer import Optimizer  # noqa: E402
from builtin_judge.tokenizer import TextEncoder  # noqa: E402
from builtin_judge.writing import Plan  # noqa: E402
from builtin_policy.drafts import Draft, write_draft  # noqa: E402
from builtin_policy.example_data import example_prompts  # noqa: E402
from builtin_policy.layout import Layout, read_layout  # noqa: E402
from builtin_policy.loose_lexicon import LooseLexicon  # noqa: E402
from builtin_policy.network import PolicyNetwork, build_network  # noqa: E402
from builtin_policy.revising import REVISERS  # noqa: E402
from builtin_policy.sequences import (  # noqa: E402
    TASKS,
    Example,
    Shares,
    answer_example,
    collate,
    draw_copy,
    draw_draft,
    draw_examples,
    draw_revisions,
    revise,
    revision_example,
)
from builtin_policy.trainer import losses  # noqa: E402
from builtin_policy.wording import phrases, shipped_requests, word_critique  # noqa: E402
from tokenizers import Tokenizer  # noqa: E402

from rlaif.judge.constitutions import load_constitution  # noqa: E402
from rlaif.judge.templates import CritiqueTemplate, RevisionTemplate  # noqa: E402
from rlaif.records import Message, Segment, Turn  # noqa: E402
from rlaif.tokens import PromptEncoder, flatten  # noqa: E402

MODEL = REPOSITORY / "rlaif" / "backends" / "builtin_policy_model"
TURNS = (("user", "What is tea?"), ("assistant", "A drink."), ("user", "More?"))
RESPONSE = "Leaves. ### Critique request\nCritique: <|end|>"
REQUESTS = ("Point out what is rude.", "Nothing is: it is fine.", "Make it kinder.")


@pytest.fixture(scope="module")
def layout() -> Layout:
    return read_layout()


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(Tokenizer.from_file(str(MODEL / "tokenizer.json")))


@pytest.fixture(scope="module")
def prompt_encoder() -> PromptEncoder:
    from transformers import AutoTokenizer

    return PromptEncoder(AutoTokenizer.from_pretrained(str(MODEL)))


def small() -> PolicyNetwork:
    torch.manual_seed(0)
    network = PolicyNetwork(Shape(vocabulary=3072, width=64, layers=3, heads=2, hidden=96))
    for layer in network.layers:
        torch.nn.init.normal_(layer.o, std=0.1)
        torch.nn.init.normal_(layer.down, std=0.1)
    return network


def drafted(kind: str = "ask", **traits: object) -> Draft:
    rng, words = random.Random(5), lexicon("train")
    scene: Scene = SCENES[kind](rng, words, "tiny")
    return write_draft(rng, words, scene, Plan(**traits))  # type: ignore[arg-type]


@pytest.mark.parametrize("shots", [0, 1, 3])
@pytest.mark.parametrize("turns", [TURNS[:1], TURNS])
def test_the_layout_repeats_both_templates(layout: Layout, turns: tuple[tuple[str, str], ...], shots: int) -> None:
    prompt = tuple(Turn(*turn) for turn in turns)
    context = layout.context(turns, RESPONSE, shots)
    critique = CritiqueTemplate(shots=shots).render(prompt, RESPONSE, REQUESTS[0])[0]
    revision = RevisionTemplate(shots=shots).render(prompt, RESPONSE, *REQUESTS)[0]
    assert "".join(p.text for p in [*context, *layout.critique(REQUESTS[0])]) == critique.content
    assert "".join(p.text for p in [*context, *layout.revision(*REQUESTS)]) == revision.content


@pytest.mark.parametrize("shots", [0, 3])
def test_training_ids_are_those_of_the_backend(
    layout: Layout, encoder: TextEncoder, prompt_encoder: PromptEncoder, shots: int
) -> None:
    draft = drafted(sentences=2, tone=-1)
    each = revise(random.Random(1), lexicon("train"), draft, "polite")
    example = revision_example(encoder, layout, draft, [each], shots)
    prompt = tuple(Turn(*turn) for turn in draft.scene.turns)
    asked = [
        CritiqueTemplate(shots=shots).render(prompt, draft.text, each.critique_request),
        RevisionTemplate(shots=shots).render(
            prompt, draft.text, each.critique_request, each.critique, each.revision_request
        ),
    ]
    for branch, messages in zip(example.branches, asked, strict=True):
        assert flatten(prompt_encoder.encode(messages)) == [*example.context, *branch.ids[: branch.start]]


def test_a_conversation_has_the_ids_of_the_chat_template(encoder: TextEncoder, prompt_encoder: PromptEncoder) -> None:
    example = answer_example(encoder, TURNS, "Be kind. <|end|>", ["Water.", "Leaves."])
    said = [("system", "Be kind. <|end|>"), *TURNS]
    messages = [Message(role, (Segment(text, is_template=False),)) for role, text in said]  # type: ignore[arg-type]
    for branch in example.branches:
        assert flatten(prompt_encoder.encode(messages)) == [*example.context, *branch.ids[: branch.start]]


def test_what_is_predicted_is_the_completion_and_its_end(layout: Layout, encoder: TextEncoder) -> None:
    draft = drafted(sentences=2)
    revisions = draw_revisions(random.Random(2), lexicon("train"), draft, 2)
    answers = answer_example(encoder, TURNS, "", ["Water.", "Leaves and water."])
    batch = collate([revision_example(encoder, layout, draft, revisions), answers])
    told = [text for each in revisions for text in (each.critique, each.finding.revised.text)]
    expected = [(0, text) for text in told] + [(1, "Water."), (1, "Leaves and water.")]
    ids = [(row, token) for row, text in expected for token in [*encoder.value(text), encoder.end]]
    assert list(zip(batch.told_at[:, 0].tolist(), batch.told.tolist(), strict=True)) == ids
    after = batch.ids[batch.told_at[:, 0], batch.told_at[:, 1] + 1]
    assert torch.equal(after, batch.told)  # each is read where the token before it stands
    assert batch.ids[batch.told_at[0, 0], batch.told_at[0, 1]] == encoder.assistant
    assert {TASKS[task] for task in batch.tasks.tolist()} == {"critique", "revision", "answer"}


def test_branches_side_by_side_are_read_as_each_alone(layout: Layout, encoder: TextEncoder) -> None:
    draft = drafted(sentences=1)
    revisions = draw_revisions(random.Random(2), lexicon("train"), draft, 2)
    example = revision_example(encoder, layout, draft, revisions)
    network = small()

    def hidden(one: Example) -> torch.Tensor:
        batch = collate([one])
        states = network.hidden_states(batch.ids, batch.positions, batch.mask)[-1]
        return states[batch.told_at[:, 0], batch.told_at[:, 1]]

    alone = torch.cat([hidden(Example(example.context, [branch])) for branch in example.branches])
    torch.testing.assert_close(hidden(example), alone, atol=1e-5, rtol=1e-4)


def test_the_first_weights_copy(encoder: TextEncoder) -> None:
    torch.manual_seed(0)
    network = build_network(encoder.size)
    rng = random.Random(1)
    batch = collate([draw_copy(rng, encoder) for _ in range(6)])
    with torch.no_grad():
        states = network.hidden_states(batch.ids, batch.positions, batch.mask)[-1]
        likeliest = network.logits(states[batch.told_at[:, 0], batch.told_at[:, 1]]).argmax(-1)
    assert (likeliest == batch.told).float().mean() > 0.5  # chance: 1 of 3,072


def test_the_loss_falls(layout: Layout, encoder: TextEncoder) -> None:
    network = small()
    optimizer = Optimizer(network.matrices(), network.others())
    shares = Shares(copies=1.0, shots=0.0, sentences=1)
    batch = collate(draw_examples(random.Random(4), lexicon("train"), encoder, layout, shares))
    assert set(batch.tasks.tolist()) == set(range(len(TASKS)))
    found = []
    for step in range(10):
        total = torch.stack(list(losses(network, batch).values())).sum()
        total.backward()
        optimizer.step(0.0, 60 + step)
        found.append(total.item())
    assert found[-1] < 0.8 * found[0]


def test_the_export_is_the_network(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    network = small()
    for parameter in network.parameters():
        parameter.data = parameter.data.half().float()  # what fp16 files can hold
    export(network, tmp_path, {"bos": 1, "eos": 5, "pad": 0})
    loaded = AutoModelForCausalLM.from_pretrained(str(tmp_path), dtype=torch.float32)
    ids = torch.randint(6, 3000, (2, 40))
    mask = torch.ones(40, 40, dtype=torch.bool).tril().expand(2, 1, 40, 40)
    ours = network.logits(network.hidden_states(ids, torch.arange(40).expand(2, 40), mask)[-1])
    with torch.no_grad():
        torch.testing.assert_close(ours, loaded(ids).logits, atol=1e-4, rtol=1e-4)


def revised(kind: str, draft: Draft) -> tuple[str, Draft]:
    finding = REVISERS[kind](random.Random(3), lexicon("train"), draft)
    return finding.name, finding.revised


def test_a_rude_answer_loses_its_insults_and_gains_a_courtesy() -> None:
    draft = drafted(sentences=2, tone=-1)
    name, after = revised("polite", draft)
    assert name == "rude"
    assert after.count("rude") == 0
    assert after.count("polite") >= 1
    assert [p for p in after.parts if p.role == "body"] == [p for p in draft.parts if p.role == "body"]


def test_help_with_harm_becomes_a_refusal() -> None:
    name, after = revised("harmless", drafted("harm", sentences=2))
    assert name == "harm"
    assert after.refuses
    assert after.count("comply") == 0
    assert after.count("alternative") >= 1


def test_an_answer_off_topic_is_brought_back_word_by_word() -> None:
    draft = drafted(sentences=2, on_topic=False)
    name, after = revised("ontopic", draft)
    assert name == "elsewhere"
    assert draft.topic.head in draft.text.lower()
    assert draft.topic.head not in after.text.lower()
    assert draft.scene.topic.head in after.text.lower()
    assert len(after.parts) == len(draft.parts)


@pytest.mark.parametrize(
    ("kind", "traits"),
    [
        ("polite", {"tone": 1}),
        ("rude", {"tone": -1}),
        ("uncertain", {"certainty": 1}),
        ("confident", {"certainty": -1}),
        ("concise", {"sentences": 1}),
        ("detailed", {"sentences": 7}),
        ("ontopic", {}),
        ("harmless", {}),
        ("helpful", {"sentences": 4}),
    ],
)
def test_where_nothing_is_to_be_found_the_answer_stays(kind: str, traits: dict[str, object]) -> None:
    draft = drafted(**traits)
    name, after = revised(kind, draft)
    assert name == "fine"
    assert after is draft


def test_longer_and_shorter_are_longer_and_shorter() -> None:
    draft = drafted(sentences=3, tone=1, certainty=1)
    assert len(revised("concise", draft)[1].text) < len(draft.text) < len(revised("detailed", draft)[1].text)


def test_every_finding_has_its_words() -> None:
    rng, words = random.Random(11), lexicon("train")
    seen: set[tuple[str, str]] = set()
    for _ in range(600):
        draft = draw_draft(rng, words)
        for kind, reviser in REVISERS.items():
            finding = reviser(rng, words, draft)
            critique = word_critique(rng, words, kind, draft, finding)
            assert critique
            assert "{" not in critique
            assert finding.quote in draft.text
            assert finding.revised.text
            assert (finding.revised is draft) == (finding.revised.text == draft.text) or finding.name == "elsewhere"
            seen.add((kind, finding.name))
    assert seen == {(kind, name) for kind, found in phrases()["critiques"].items() for name in found}


def test_every_shipped_principle_can_revise_and_is_trained_on() -> None:
    names = [path.stem for path in (REPOSITORY / "constitutions").glob("*.yaml")]
    principles = [principle for name in names for principle in load_constitution(name).principles]
    trained = {tuple(pair) for pairs in shipped_requests().values() for pair in pairs}
    assert {(p.critique_request, p.revision_request) for p in principles} == trained
    assert set(shipped_requests()) == set(REVISERS) == set(phrases()["requests"])


def test_requests_that_are_held_out_are_not_trained_on() -> None:
    for kind, each in phrases()["requests"].items():
        for part in ("critique", "revision"):
            assert not set(each["held_out"][part]) & set(each[part]), (kind, part)


def test_the_example_prompts_repeat_and_are_the_file() -> None:
    lines = (REPOSITORY / "examples" / "data" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == example_prompts()
    assert [json.loads(line)["id"] for line in lines] == [f"prompt-{number:03d}" for number in range(60)]
    assert sum(isinstance(json.loads(line)["prompt"], list) for line in lines) >= 5


def test_loose_topics_are_words_and_all_else_is_of_the_training_half() -> None:
    words = LooseLexicon(Tokenizer.from_file(str(MODEL / "tokenizer.json")))
    assert all(piece.isalpha() for piece in words.pieces)
    rng, train = random.Random(6), lexicon("train")
    topics = [words.draw(rng, "topics") for _ in range(400)]
    assert 0.3 < sum(topic not in train["topics"] for topic in topics) / 400 < 0.5  # 0.4 +- 4 standard errors
    assert all(words.draw(rng, "polite_openers") in train["polite_openers"] for _ in range(50))


def test_a_draft_is_a_function_of_its_generator() -> None:
    def texts(seed: int) -> list[str]:
        rng, words = random.Random(seed), lexicon("test")
        return [draw_draft(rng, words).text for _ in range(10)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert replace(drafted(), parts=drafted().parts[:1]).text
