"""A prompt and its responses as token ids: the encoding of judging and of rollouts, with what ends a response.

The prompt is what a model is given when it is asked to answer, and a completion what it would have to write then, up to
the token that stops it. Both come in through data, so special tokens in them are plain characters; the completion is
encoded alone, so that no token spans the border to the prompt, whatever the response is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, cast

from rlaif.errors import ConfigError
from rlaif.models.examples import Example
from rlaif.records import Message, Role, Segment, Turn
from rlaif.tokens import PromptEncoder, flatten

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class ExampleEncoder(PromptEncoder):
    """Encodes prompts with responses for one tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers.
        stops: Further ids that end an answer, such as the generation config's.

    Raises:
        ConfigError: The tokenizer has no `tokenizers` pipeline behind it, or no EOS.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, stops: Collection[int] = ()) -> None:
        super().__init__(tokenizer)
        eos = tokenizer.eos_token_id
        if eos is None:
            raise ConfigError(
                "the tokenizer has no EOS token; a model trained with it would not learn where to end; name one in the "
                "model's tokenizer_config.json (eos_token)"
            )
        self._eos: int = eos
        self._stops = frozenset({eos, *stops})

    def example(self, example_id: str, prompt: Sequence[Turn], responses: Sequence[str]) -> Example:
        """The prompt with all of its responses, each ended.

        Raises:
            ValueError: The prompt has no turn or ends with the assistant's.
            ConfigError: The chat template cannot render the prompt's roles.
        """
        completions = tuple(self.completion_ids(prompt, response) for response in responses)
        return Example(example_id, self.prompt_ids(prompt), completions)

    def prompt_ids(self, prompt: Sequence[Turn]) -> tuple[int, ...]:
        """What a model is given to answer: exactly one BOS where the model has one, and the cue for the answer.

        A model without chat template gets the contents joined by blank lines, and nothing after the last.
        Raises as `example` does.
        """
        if not prompt or prompt[-1].role == "assistant":
            raise ValueError("a prompt must end with a turn that the assistant answers")
        messages = [Message(cast(Role, turn.role), (Segment(turn.content, is_template=False),)) for turn in prompt]
        return tuple(flatten(self.encode(messages)))

    def completion_ids(self, prompt: Sequence[Turn], response: str, *, is_finished: bool = True) -> tuple[int, ...]:
        """What a model would write for this response: its text, and what ends it (`is_finished`), one stop token last.

        The end is what the chat template puts after an answer, up to the first token that stops a model; EOS where it
        puts none. A response that was cut off has no end to learn.

        Raises:
            ValueError: As `example`; or a response without text was cut off, so that nothing is left of it.
            ConfigError: As `example`.
        """
        end, strips = self._end([turn.role for turn in prompt])
        text = response.strip() if strips else response
        if not text and not is_finished:
            raise ValueError("a response that was cut off has no text; expected at least one character")
        ids = self._ids_of(text, False, False)
        return (*ids, *end) if is_finished else ids

    def _end(self, roles: Sequence[str]) -> tuple[tuple[int, ...], bool]:
        """The ids after an answer, and whether the chat template strips it."""
        if not self._has_chat_template:
            return (self._eos,), False
        try:
            skeleton = self._skeleton((*roles, "assistant"))
        except ConfigError:
            if roles[0] != "system" or len(roles) == 1:
                raise
            skeleton = self._skeleton((*roles[1:], "assistant"))  # as `encode` does
        ids = self._ids_of(skeleton.texts[-1], True, False)
        for index, token in enumerate(ids):
            if token in self._stops:
                return ids[: index + 1], skeleton.strips
        return (*self._ids_of(skeleton.texts[-1].rstrip(), True, False), self._eos), skeleton.strips
