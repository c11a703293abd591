from __future__ import annotations

from rlaif.rewards.sources import comparison_of
from tests.rewards.rollouts import rollout


def test_a_pair_is_named_by_its_content_alone() -> None:
    pair = comparison_of(rollout(["a", ""], "Why?", row="r1"))
    assert (pair.response_a, pair.response_b, pair.is_conversational) == ("a", "", False)
    assert pair == comparison_of(rollout(["a", ""], "Why?", row="r2", topic="t"))
    others = [rollout(["", "a"], "Why?"), rollout(["a", ""], "Why"), rollout(["a", ""], [("system", "Why?")])]
    assert len({pair.id, *(comparison_of(each).id for each in others)}) == 4
