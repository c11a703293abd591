"""A reviser's requests and what it makes of replies, without any model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.errors import NoResponseError, RequestRefusedError
from rlaif.policies.revision import ReviseCall, Reviser, RevisionConfig
from rlaif.policies.sampling import sample_seed
from rlaif.policy_records import RevisionChain, RevisionRequests
from rlaif.records import GenerateRequest, Generation, Message, Prompt, Segment, Turn

REQUESTS = tuple(RevisionRequests(name, f"find {name}", f"mend {name}") for name in ("rude", "long", "wrong"))
Script = Callable[[str], str | Generation | RequestRefusedError]


class PlainPrompts:
    """Prompts that say what they were given, one a line."""

    def critique(self, prompt: Sequence[Turn], response: str, requests: RevisionRequests) -> tuple[Message, ...]:
        return self._said("critique", prompt[-1].content, response, requests.critique_request)

    def revision(
        self, prompt: Sequence[Turn], response: str, requests: RevisionRequests, critique: str
    ) -> tuple[Message, ...]:
        return self._said("revision", prompt[-1].content, response, critique, requests.revision_request)

    def _said(self, *parts: str) -> tuple[Message, ...]:
        return (Message("user", (Segment("|".join(parts), False),)),)


def reviser(seed: int = 0, **settings: object) -> Reviser:
    config = RevisionConfig(**settings)  # type: ignore[arg-type]
    return Reviser("fake:p", config, REQUESTS, PlainPrompts(), lambda text: text.partition("<next>")[0], seed=seed)


def played(
    of: Reviser, script: Script, response: str | None = "draft", row_id: str = "x"
) -> tuple[RevisionChain, list[GenerateRequest]]:
    """The chain of a row, and what was asked on the way."""
    asked: list[GenerateRequest] = []
    conversation = of.ask(Prompt(row_id, (Turn("user", "Q?"),), response), ReviseCall())
    request = next(conversation)
    while True:
        assert isinstance(request, GenerateRequest)
        asked.append(request)
        reply = script(request.messages[-1].content)
        try:
            if isinstance(reply, RequestRefusedError):
                request = conversation.throw(reply)
            else:
                request = conversation.send(Generation(reply, "stop") if isinstance(reply, str) else reply)
        except StopIteration as finished:
            chain: RevisionChain = finished.value
            return chain, asked


def numbered(said: str) -> str:
    """A critique or revision that names the response it is of."""
    if said == "Q?":
        return "draft"
    kind, _, response, *_ = said.split("|")
    return f" {response}{'?' if kind == 'critique' else '+'}\n"


def contents(asked: Sequence[GenerateRequest]) -> list[str]:
    return [request.messages[-1].content for request in asked]


def test_each_round_revises_the_last_revision_by_its_own_principle() -> None:
    of = reviser(rounds=3)
    chain, asked = played(of, numbered)
    names = [of.requests_of("x", number).principle for number in (1, 2, 3)]
    assert [each.requests.principle for each in chain.rounds] == names
    assert contents(asked) == [
        f"critique|Q?|draft|find {names[0]}",
        f"revision|Q?|draft|draft?|mend {names[0]}",  # texts are stripped before they go on
        f"critique|Q?|draft+|find {names[1]}",
        f"revision|Q?|draft+|draft+?|mend {names[1]}",
        f"critique|Q?|draft++|find {names[2]}",
        f"revision|Q?|draft++|draft++?|mend {names[2]}",
    ]
    assert [each.revision.text for each in chain.rounds] == ["draft+", "draft++", "draft+++"]
    assert (chain.initial, chain.sample) == ("draft", None)


def test_without_a_response_the_policy_writes_one_with_its_system_prompt() -> None:
    chain, asked = played(
        reviser(rounds=1, policy_system="Be brief."), lambda said: "  mine " if said == "Q?" else numbered(said), None
    )
    assert [(each.role, each.content) for each in asked[0].messages] == [("system", "Be brief."), ("user", "Q?")]
    assert asked[0].seed == sample_seed(0, "x", 0)  # that of the first sample of rlaif generate
    assert chain.initial == "  mine "  # a response is kept as it is
    assert chain.sample is not None
    assert contents(asked)[1].startswith("critique|Q?|  mine |")


def test_what_is_sampled_has_a_seed_of_its_own_and_the_limits_asked_for() -> None:
    _, asked = played(reviser(rounds=3, policy_max_tokens=7, policy_temperature=0.5, policy_top_p=0.9), numbered, None)
    assert len({request.seed for request in asked}) == 7
    assert {(each.max_tokens, each.temperature, each.top_p) for each in asked} == {(7, 0.5, 0.9)}
    _, greedy = played(reviser(rounds=1, policy_temperature=0.0), numbered)
    assert {request.seed for request in greedy} == {None}


@given(st.integers(0, 2**32), st.text(max_size=8), st.integers(1, 20))
def test_draws_are_a_function_of_seed_row_and_round(seed: int, row_id: str, number: int) -> None:
    assert reviser(seed).requests_of(row_id, number) == reviser(seed, rounds=20).requests_of(row_id, number)


def test_draws_differ_between_rounds_rows_and_seeds_and_reach_all() -> None:
    by_round = [reviser().requests_of("x", number) for number in range(1, 40)]
    by_row = [reviser().requests_of(str(row), 1) for row in range(40)]
    by_seed = [reviser(seed).requests_of("x", 1) for seed in range(40)]
    for drawn in (by_round, by_row, by_seed):
        assert set(drawn) == set(REQUESTS)


@pytest.mark.parametrize(
    ("reply", "reason", "refusal"),
    [
        ("", "stop", None),
        (" \n", "stop", None),
        ("<next> rest", "ran on", None),
        (RequestRefusedError("no"), "refused", "no"),
        (Generation("half of", "content_filter"), "refused", "the provider's content filter cut it off"),
    ],
)
def test_an_empty_or_refused_revision_ends_the_chain(
    reply: str | Generation | RequestRefusedError, reason: str, refusal: str | None
) -> None:
    def script(said: str) -> str | Generation | RequestRefusedError:
        return reply if said.startswith("revision|Q?|draft+|") else numbered(said)

    chain, asked = played(reviser(rounds=4), script)
    assert len(asked) == 4
    assert [each.is_usable for each in chain.rounds] == [True, False]
    assert [each.revision.text for each in chain.usable] == ["draft+"]
    assert (chain.rounds[1].revision.finish_reason, chain.rounds[1].revision.refusal) == (reason, refusal)


@pytest.mark.parametrize("reply", ["", RequestRefusedError("no")])
def test_a_critique_that_is_empty_or_refused_is_told_and_the_revision_asked_for(
    reply: str | RequestRefusedError,
) -> None:
    chain, asked = played(reviser(rounds=1), lambda said: reply if said.startswith("critique") else "better")
    assert contents(asked)[1].startswith("revision|Q?|draft||mend")
    assert chain.rounds[0].critique.text == ""
    assert (chain.rounds[0].critique.refusal is None) == isinstance(reply, str)
    assert chain.rounds[0].is_usable


def test_a_revision_that_is_cut_off_is_revised_further_and_flagged() -> None:
    def script(said: str) -> Generation:
        return Generation(numbered(said), "length" if said.startswith("revision|Q?|draft|") else "stop")

    chain, _ = played(reviser(rounds=2), script)
    assert [(each.revision.text, each.revision.finish_reason) for each in chain.rounds] == [
        ("draft+", "length"),
        ("draft++", "stop"),
    ]


def test_a_reply_that_goes_on_is_cut_and_told() -> None:
    chain, asked = played(reviser(rounds=1), lambda said: Generation(f"{said[:8]}\n\n<next> more", "length"))
    assert chain.rounds[0].critique.text == "critique"
    assert contents(asked)[1].split("|")[3] == "critique"
    assert {chain.rounds[0].critique.finish_reason, chain.rounds[0].revision.finish_reason} == {"ran on"}


def test_without_an_initial_response_there_is_nothing_to_revise() -> None:
    with pytest.raises(NoResponseError, match="fake:p wrote an empty response"):
        played(reviser(), lambda said: " ", None)
    with pytest.raises(RequestRefusedError, match="never"):
        played(reviser(), lambda said: RequestRefusedError("never"), None)


def test_an_empty_response_of_the_input_is_revised_as_it_is() -> None:
    chain, asked = played(reviser(rounds=1), lambda said: "better", "")
    assert chain.initial == ""
    assert contents(asked)[0].startswith("critique|Q?||find")


def test_top_p_of_0_is_refused() -> None:
    with pytest.raises(ValueError, match="policy_top_p: 0 leaves no token"):
        RevisionConfig(policy_top_p=0.0)
