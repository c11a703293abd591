"""A `ScriptedServer` as `openai:` sees one: completions by script, and beside them what the server says of itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.servers import Answer, Received, ScriptedServer

NOT_FOUND = Answer({"detail": "Not Found"}, status=404)


class ApiServer(ScriptedServer):
    """Answers POSTs below /v1 with `answer`, and GETs and `/tokenize` with `facts`.

    Args:
        answer: As for `ScriptedServer`.
        facts: Path -> its answer; any other is 404.

    Attributes:
        received: The calls, without the questions of `facts`.
        looks: The paths of those.
    """

    def __init__(
        self,
        answer: Answer | Sequence[Answer] | Callable[[Received], Answer],
        facts: Mapping[str, Answer | Callable[[Received], Answer]] | None = None,
    ) -> None:
        super().__init__(answer)
        self._facts = facts or {}
        self.looks: list[Received] = []

    def _next(self, received: Received) -> Answer:
        path = received.path.partition("?")[0]
        if received.method == "POST" and path.startswith("/v1/"):
            return super()._next(received)
        self.looks.append(received)
        fact = self._facts.get(path, NOT_FOUND)
        return fact if isinstance(fact, Answer) else fact(received)


def lists(*models: str, **entry: Any) -> Answer:
    """The answer of `/v1/models`."""
    return Answer({"object": "list", "data": [{"id": model, "object": "model", **entry} for model in models]})
