"""Responses of a policy to a prompt: what is asked, and which answers are kept. Nothing here awaits, as in `judge/`.

sampler.plan(prompt)          which calls a prompt needs: one a sample
sampler.ask(prompt, call)     yields a GenerateRequest, is sent the Generation, returns a Sample
sampler.combine(prompt, ...)  samples in their order
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

from rlaif.errors import RequestRefusedError
from rlaif.policy_records import Sample, SampledResponses
from rlaif.randomness import seeded_random
from rlaif.records import GenerateRequest, Generation, Message, Prompt, Reply, Request, Role, Segment, Turn

ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""Roles of a conversation, and how a model is told of them; "developer" is a newer word for "system". No policy is told
of tools: rows with such turns are refused when they are read."""

REFUSED = "refused"
_FILTERED = "content_filter"
"""The `finish_reason` of a provider whose filter cut the answer."""


@dataclass(frozen=True)
class SamplingConfig:
    """How policies are sampled from. Every field changes the responses."""

    samples: Annotated[int, "at least 1"] = 4
    """Responses a prompt, from each policy."""

    temperature: Annotated[float, "at least 0"] = 1.0
    """Sampling temperature; 0 takes the likeliest token each time."""

    top_p: Annotated[float, "0 to 1"] = 1.0
    """Sample from the likeliest tokens whose probabilities come to this; 1 from all."""

    max_tokens: Annotated[int, "at least 1"] = 512
    """Most tokens of a response; one that is cut off there has the finish reason length."""

    system: str | None = None
    """System prompt for the policies, where a prompt has none of its own; no part of the data that is written."""

    def __post_init__(self) -> None:
        faults = [
            *(["top_p: 0 leaves no token to choose from, expected above 0"] if self.top_p == 0 else []),
            *(
                ["temperature: 0 draws the same response each time; more than one of samples needs it above 0"]
                if self.samples > 1 and self.temperature == 0
                else []
            ),
        ]
        if faults:
            raise ValueError("; ".join(faults))


class SampleCall(NamedTuple):
    """The call for the n-th sample."""

    sample: int

    @property
    def words(self) -> tuple[str, ...]:
        return ("response",)


class Sampler:
    """What one policy is asked about a prompt.

    Args:
        policy: Its name, `BACKEND:MODEL`.
        config: How it is sampled from.
        seed: Of the draws, which depend on it, the row's id and the sample's number alone.
    """

    def __init__(self, policy: str, config: SamplingConfig, *, seed: int) -> None:
        self.policy = policy
        self.config = config
        self.seed = seed

    @property
    def samples(self) -> int:
        """Responses a prompt."""
        return self.config.samples

    def plan(self, prompt: Prompt) -> tuple[SampleCall, ...]:
        """One call a sample."""
        return tuple(map(SampleCall, range(self.config.samples)))

    def ask(self, prompt: Prompt, call: SampleCall) -> Generator[Request, Reply, Sample]:
        """Yield what to ask for one sample, be sent the reply, return it; a refusal is a sample too."""
        config = self.config
        seed = sample_seed(self.seed, prompt.id, call.sample) if config.temperature > 0 else None
        messages = conversation(prompt.prompt, config.system)
        request = GenerateRequest(messages, config.max_tokens, config.temperature, seed, top_p=config.top_p)
        return (yield from ask_for_sample(self.policy, request))

    def combine(self, prompt: Prompt, samples: Mapping[SampleCall, Sample]) -> SampledResponses:
        """The samples in their order; none is left out yet.

        Raises:
            RequestRefusedError: The provider refused every one.
        """
        found = tuple(samples.values())
        if all(sample.refusal is not None for sample in found):
            raise RequestRefusedError(found[0].refusal or REFUSED)
        return SampledResponses(found)


def ask_for_sample(policy: str, request: GenerateRequest) -> Generator[Request, Reply, Sample]:
    """Yield a request for text, be sent the reply, return it; a refusal is a sample too.

    Args:
        policy: Who is asked.
        request: What for.
    """
    try:
        reply = yield request
    except RequestRefusedError as error:
        return Sample(policy, "", REFUSED, request.seed, refusal=str(error))
    assert isinstance(reply, Generation)
    if reply.finish_reason == _FILTERED:
        return Sample(policy, reply.text, REFUSED, request.seed, refusal="the provider's content filter cut it off")
    return Sample(policy, reply.text, reply.finish_reason, request.seed)


def sample_seed(seed: int, row_id: str, sample: int) -> int:
    """The sampler's seed for one response, in [0, 2^31)."""
    return seeded_random(seed, row_id, f"response {sample}").getrandbits(31)


def conversation(turns: Sequence[Turn], system: str | None) -> tuple[Message, ...]:
    """The messages that a policy is sent, all of them text of the data's.

    Args:
        turns: The conversation so far, of `ROLES`.
        system: A system prompt for conversations that begin without one.

    >>> [message.role for message in conversation([Turn("user", "Hi.")], "Be brief.")]
    ['system', 'user']
    """
    if system is not None and ROLES[turns[0].role] != "system":
        turns = (Turn("system", system), *turns)
    return tuple(Message(ROLES[turn.role], (Segment(turn.content, is_template=False),)) for turn in turns)
