"""A response criticised and revised by a policy, round by round: what is asked, and what becomes of the answers.
Nothing here awaits, as in `judge/`; the prompts come from there.

reviser.plan(prompt)          one call: each request needs the reply before it
reviser.ask(prompt, call)     yields GenerateRequests, is sent the Generations, returns a RevisionChain
reviser.combine(prompt, ...)  the chain

Source: Bai et al., Constitutional AI, arXiv:2212.08073, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple, Protocol

from rlaif.errors import NoResponseError, RequestRefusedError
from rlaif.policies.sampling import ask_for_sample, conversation, sample_seed
from rlaif.policy_records import RAN_ON, RevisionChain, RevisionRequests, RevisionRound, Sample
from rlaif.randomness import seeded_random
from rlaif.records import GenerateRequest, Message, Prompt, Reply, Request, Turn


@dataclass(frozen=True)
class RevisionConfig:
    """How responses are revised. Every field changes the texts."""

    rounds: Annotated[int, "at least 1"] = 4
    """Critiques and revisions of each response, one after the other, each by a principle of its own."""

    revision_shots: Annotated[int, "at least 0"] = 3
    """Worked dialogues shown before each critique and revision, so that small models keep the roles apart."""

    policy_temperature: Annotated[float, "at least 0"] = 1.0
    """Sampling temperature of the policy; 0 takes the likeliest token each time."""

    policy_top_p: Annotated[float, "0 to 1"] = 1.0
    """Sample from the policy's likeliest tokens whose probabilities come to this; 1 from all."""

    policy_max_tokens: Annotated[int, "at least 1"] = 512
    """Most tokens of a response, a critique or a revision; one that is cut off there has the finish reason length."""

    policy_system: str | None = None
    """System prompt for initial responses, where a prompt has none of its own; no part of the data that is written."""

    def __post_init__(self) -> None:
        if self.policy_top_p == 0:
            raise ValueError("policy_top_p: 0 leaves no token to choose from, expected above 0")


class Prompts(Protocol):
    """The prompts of both steps."""

    def critique(self, prompt: Sequence[Turn], response: str, requests: RevisionRequests) -> tuple[Message, ...]: ...

    def revision(
        self, prompt: Sequence[Turn], response: str, requests: RevisionRequests, critique: str
    ) -> tuple[Message, ...]: ...


class ReviseCall(NamedTuple):
    """The only call of a row."""

    sample: int = 0

    @property
    def words(self) -> tuple[str, ...]:
        return ("revising",)


class Reviser:
    """What a policy is asked about a prompt and its response.

    Args:
        policy: Its name, `BACKEND:MODEL`.
        config: How it revises.
        requests: Of the principles that are drawn from; at least one.
        prompts: What critiques and revisions are asked for with.
        own_text: The part of such a reply that is the answer.
        seed: Of the draws, which depend on it, the row's id and the round alone.
    """

    samples = 1

    def __init__(
        self,
        policy: str,
        config: RevisionConfig,
        requests: Sequence[RevisionRequests],
        prompts: Prompts,
        own_text: Callable[[str], str],
        *,
        seed: int,
    ) -> None:
        self.policy = policy
        self.config = config
        self.seed = seed
        self._requests = requests
        self._prompts = prompts
        self._own_text = own_text

    def plan(self, prompt: Prompt) -> tuple[ReviseCall, ...]:
        """One call."""
        return (ReviseCall(),)

    def ask(self, prompt: Prompt, call: ReviseCall) -> Generator[Request, Reply, RevisionChain]:
        """Yield what to ask, be sent the replies, return what became of the response.

        An answer that the input brings is revised as it is; else the policy writes one. Of replies to critiques and
        revisions, the whitespace around the text is layout and goes. A critique that is empty or refused is passed on
        as such; a revision that is ends the chain, since there is nothing to go on from.

        Raises:
            NoResponseError: The policy's own response is empty.
            RequestRefusedError: The provider refused to write one.
        """
        sample = None
        response = prompt.response
        if response is None:
            sample = yield from self._respond(prompt)
            response = sample.text
        initial = response
        rounds: list[RevisionRound] = []
        for number in range(1, self.config.rounds + 1):
            requests = self.requests_of(prompt.id, number)
            asked = self._prompts.critique(prompt.prompt, response, requests)
            critique = yield from self._write(asked, prompt.id, f"critique {number}")
            asked = self._prompts.revision(prompt.prompt, response, requests, critique.text)
            revision = yield from self._write(asked, prompt.id, f"revision {number}")
            rounds.append(RevisionRound(requests, critique, revision))
            if not rounds[-1].is_usable:
                break
            response = revision.text
        return RevisionChain(initial, sample, tuple(rounds))

    def combine(self, prompt: Prompt, chains: Mapping[ReviseCall, RevisionChain]) -> RevisionChain:
        """The chain of the only call."""
        (chain,) = chains.values()
        return chain

    def requests_of(self, row_id: str, number: int) -> RevisionRequests:
        """The principle of a round, the first being 1: a function of seed, row and round alone."""
        return seeded_random(self.seed, row_id, f"principle of round {number}").choice(self._requests)

    def _respond(self, prompt: Prompt) -> Generator[Request, Reply, Sample]:
        seed = sample_seed(self.seed, prompt.id, 0)
        sample = yield from self._generate(conversation(prompt.prompt, self.config.policy_system), seed)
        if sample.refusal is not None:
            raise RequestRefusedError(sample.refusal)
        if not sample.text.strip():
            raise NoResponseError(f"{self.policy} wrote an empty response, and there is nothing to revise")
        return sample

    def _write(self, messages: tuple[Message, ...], row_id: str, purpose: str) -> Generator[Request, Reply, Sample]:
        """A critique or a revision; a refusal is one, too, with an empty text."""
        seed = seeded_random(self.seed, row_id, purpose).getrandbits(31)
        written = yield from self._generate(messages, seed)
        own = self._own_text(written.text)
        ran_on = own != written.text and written.refusal is None
        reason = RAN_ON if ran_on else written.finish_reason
        return Sample(written.policy, own.strip(), reason, written.seed, written.refusal)

    def _generate(self, messages: tuple[Message, ...], seed: int) -> Generator[Request, Reply, Sample]:
        config = self.config
        request = GenerateRequest(
            messages,
            config.policy_max_tokens,
            config.policy_temperature,
            seed if config.policy_temperature > 0 else None,
            top_p=config.policy_top_p,
        )
        return (yield from ask_for_sample(self.policy, request))
