"""What can be counted in a response's text that a judge may be swayed by: its length, its markdown, words said to the
judge."""

from __future__ import annotations

import re
from dataclasses import dataclass

STYLE_FEATURES = ("list items", "headers", "bold spans")

_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+\S", re.MULTILINE)
_HEADER = re.compile(r"^#{1,6}[ \t]+\S", re.MULTILINE)
_BOLD = re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__")
_ADDRESSES_JUDGE = tuple(
    (literals, re.compile(pattern))
    for literals, pattern in (
        (
            ("preferred ", "better ", "best ", "winning "),
            r"(?:preferred|better|best|winning) (?:response|answer|output|assistant|summary)\s*(?:is|:|=)"
            r"\s*(?:response |answer )?[\"'(\[]*[12ab]\b",
        ),
        (
            (" 1 is ", " 2 is ", " a is ", " b is "),
            r"\b(?:response|answer|output|assistant) [12ab] is (?:clearly |much |by far )?(?:better|best|preferred)",
        ),
        (
            ("ignore ", "disregard ", "forget "),
            r"\b(?:ignore|disregard|forget) (?:all |any |the )*(?:previous|prior|above|earlier|other)"
            r" (?:instructions?|responses?|answers?|text)",
        ),
        (("verdict",), r"\bverdict\s*[:=]\s*[\"'(\[]*[12ab]\b"),
        (("[[",), r"\[\[[12ab]\]\]"),
        (
            ("choose ", "pick ", "prefer ", "select ", "rate "),
            r"\b(?:choose|pick|prefer|select|rate) (?:this|my|the (?:first|second|present)) (?:response|answer|output)",
        ),
        (("note to ",), r"\bnote to (?:the )?(?:judge|rater|grader|evaluator|annotator)"),
        (("<|",), r"<\|(?:im_start|im_end|eot_id|start_header_id|end_header_id|endoftext|assistant|user|system)\|>"),
        (("inst]",), r"\[/?inst\]"),
        (("<s>", "</s>"), r"</?s>(?=\s|$)"),
    )
)
"""Patterns over lower-case text, each behind texts one of which any match holds: looking for those is ten times as
fast, and most responses hold none."""


@dataclass(frozen=True, slots=True)
class ResponseFeatures:
    """Counts over one response.

    Attributes:
        length: Characters.
        style: List items, headers and bold spans of markdown, in the order of `STYLE_FEATURES`.
        addresses_judge: Whether it holds words meant for a judge (a verdict, an order to prefer it) or chat control
            tokens.
    """

    length: int
    style: tuple[int, int, int]
    addresses_judge: bool


def response_features(text: str) -> ResponseFeatures:
    """Count.

    >>> response_features("- **one**\\n- two").style
    (2, 0, 1)
    >>> response_features("Preferred response: 1").addresses_judge
    True
    """
    style = (len(_LIST_ITEM.findall(text)), len(_HEADER.findall(text)), len(_BOLD.findall(text)))
    return ResponseFeatures(len(text), style, addresses_judge(text))


def addresses_judge(text: str) -> bool:
    """Whether a text holds words meant for a judge (a verdict, an order to prefer it) or chat control tokens."""
    lowered = text.lower()
    return any(
        any(literal in lowered for literal in literals) and pattern.search(lowered) is not None
        for literals, pattern in _ADDRESSES_JUDGE
    )
