"""What a reviser is sent, and which part of what it wrote is its answer. The policy that writes is no matter of this
module; `rlaif.policies.revision` asks it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from rlaif.judge.templates import CritiqueTemplate, RevisionTemplate
from rlaif.policy_records import RevisionRequests
from rlaif.records import Message, Turn

_NEXT_SECTION = re.compile(
    r"^(?:### (?:Prompt|Response|Critique request|Revision request)|## (?:Example \d+|Your turn))[ \t]*$", re.MULTILINE
)
"""The headings of prompts/critique/base.jinja and prompts/revision/base.jinja."""


class RevisionPrompts:
    """The prompts of both steps.

    Args:
        shots: Worked dialogues to show in each.

    Raises:
        PromptError: There are fewer.
    """

    def __init__(self, shots: int) -> None:
        self._critique = CritiqueTemplate(shots=shots)
        self._revision = RevisionTemplate(shots=shots)

    def critique(self, prompt: Sequence[Turn], response: str, requests: RevisionRequests) -> tuple[Message, ...]:
        """The messages that ask what is wrong with `response`, an answer to `prompt`."""
        return self._critique.render(prompt, response, requests.critique_request)

    def revision(
        self, prompt: Sequence[Turn], response: str, requests: RevisionRequests, critique: str
    ) -> tuple[Message, ...]:
        """The messages that ask for `response` as it should have been."""
        return self._revision.render(prompt, response, requests.critique_request, critique, requests.revision_request)

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of both templates and the dialogues in use."""
        return hashlib.sha256(f"{self._critique.fingerprint}{self._revision.fingerprint}".encode()).hexdigest()


def before_next_section(text: str) -> str:
    r"""What a model wrote before it went on with a section of the prompt that nobody asked it for.

    Models that continue text, and small ones, write the next turn of the worked dialogues as well.

    >>> before_next_section("It is rude.\n\n### Revision request\nRewrite it.")
    'It is rude.\n\n'
    """
    found = _NEXT_SECTION.search(text)
    return text if found is None else text[: found.start()]
