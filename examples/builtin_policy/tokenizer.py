"""The policy's tokenizer: byte-level BPE on text of the grammar as it is written, and on that of the templates."""

from __future__ import annotations

import random
from collections.abc import Iterator

from builtin_judge.lexicon import lexicon
from builtin_judge.tokenizer import learn_vocabulary
from tokenizers import Tokenizer

from .layout import EXEMPLAR_FIELDS, Layout
from .sequences import draw_draft, draw_revisions

MARKERS = (
    "### Prompt",
    "### Response",
    "### Critique request",
    "### Revision request",
    "## Example",
    "## Your turn",
    "Critique:",
    "Revised response:",
)
VOCABULARY = 3072


def train_tokenizer(layout: Layout, seed: int = 0, drafts: int = 10_000) -> Tokenizer:
    """Learn the vocabulary from generated drafts and revisions, and the templates' texts."""
    fixed = [layout.preamble, *(str(item[name]) for item in layout.exemplars for name in EXEMPLAR_FIELDS)]
    texts = [*_texts(seed, drafts), *[text for text in fixed for _ in range(50)]]
    return learn_vocabulary(texts, MARKERS, VOCABULARY)


def _texts(seed: int, drafts: int) -> Iterator[str]:
    rng, words = random.Random(f"policy tokenizer:{seed}"), lexicon("train")
    for _ in range(drafts):
        draft = draw_draft(rng, words)
        yield from (text for _, text in draft.scene.turns)
        yield draft.text
        for each in draw_revisions(rng, words, draft, 2):
            yield from (each.critique_request, each.critique, each.revision_request, each.finding.revised.text)
