"""The prompts of `prompts/critique` and `prompts/revision`, cut into pieces: the text that the templates render.

The literals here repeat the templates; a test holds them against the real renderer. The preamble and the exemplars are
read from the files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from builtin_judge.layout import Piece, turn_pieces

from rlaif.assets import find_asset

EXEMPLAR_FIELDS = ("prompt", "response", "critique_request", "critique", "revision_request", "revision")


@dataclass(frozen=True)
class Layout:
    """Texts of the shipped templates."""

    preamble: str
    exemplars: tuple[Mapping[str, str], ...]

    def context(self, turns: Sequence[tuple[str, str]], response: str, shots: int = 0) -> list[Piece]:
        """What every request about a response begins with, up to the critique request."""
        shown: list[Piece] = []
        start = self.preamble
        for number, exemplar in enumerate(self.exemplars[:shots], 1):
            shown += _exemplar(start, number, exemplar)
            start = ""
        turn = "\n\n## Your turn" if shown else start
        return [
            *shown,
            Piece(f"{turn}\n\n### Prompt\n", "template"),
            *turn_pieces(tuple(turns)),
            Piece("\n\n### Response\n", "template"),
            Piece(response, "response"),
            Piece("\n\n### Critique request\n", "template"),
        ]

    def critique(self, request: str) -> list[Piece]:
        """What follows the context where a critique is asked for."""
        return [Piece(request, "request"), Piece("\nCritique:", "template")]

    def revision(self, critique_request: str, critique: str, revision_request: str) -> list[Piece]:
        """What follows the context where a revision is asked for."""
        return [
            *self.critique(critique_request),
            Piece(f" {critique}", "critique"),
            Piece("\n\n### Revision request\n", "template"),
            Piece(revision_request, "request"),
            Piece("\nRevised response:", "template"),
        ]


def _exemplar(start: str, number: int, exemplar: Mapping[str, str]) -> list[Piece]:
    value = {name: exemplar[name] for name in EXEMPLAR_FIELDS}
    texts = [
        (f"{start}\n\n## Example", f" {number}"),
        ("\n\n### Prompt\n", value["prompt"]),
        ("\n\n### Response\n", value["response"]),
        ("\n\n### Critique request\n", value["critique_request"]),
        ("\nCritique:", f" {value['critique']}"),
        ("\n\n### Revision request\n", value["revision_request"]),
        ("\nRevised response:", f" {value['revision']}"),
    ]
    return [piece for literal, text in texts for piece in (Piece(literal, "template"), Piece(text, "exemplar"))]


def read_layout() -> Layout:
    """Preamble and exemplars as the shipped files hold them."""
    path = find_asset("prompts", "critique/base.jinja")
    preamble = path.read_text(encoding="utf-8").split("block preamble -%}\n")[1].split("\n{%- endblock")[0]
    exemplars = yaml.safe_load((path.parent / "exemplars" / "base.yaml").read_text(encoding="utf-8"))
    return Layout(preamble, tuple(exemplars))
