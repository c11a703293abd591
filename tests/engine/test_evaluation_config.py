"""Settings of `rlaif evaluate`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif.backends.config import BackendConfig
from rlaif.engine.evaluation_config import AnswerConfig, EvaluateConfig, is_policy


def test_what_is_a_model_and_what_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "odd:name.jsonl"
    path.write_text("{}")
    assert not is_policy(str(path))
    assert is_policy("hf:runs/model")
    assert not is_policy("hf://OWNER/NAME:test")


def test_sampling_is_told_to_policies_under_their_own_names() -> None:
    given = AnswerConfig(
        policy_samples=3, policy_temperature=0.5, policy_top_p=0.9, policy_max_tokens=7, policy_system="s"
    )
    sampling = given.sampling
    assert (sampling.samples, sampling.temperature, sampling.top_p) == (3, 0.5, 0.9)
    assert (sampling.max_tokens, sampling.system) == (7, "s")
    with pytest.raises(ValueError, match=r"^policy_temperature: 0 draws the same .* more than one of policy_samples"):
        AnswerConfig(policy_samples=2, policy_temperature=0.0)


def test_policies_may_run_elsewhere_than_the_judge() -> None:
    config = EvaluateConfig("openai:a", "openai:b", "out", backend=BackendConfig(base_url=("http://judge/v1",)))
    assert config.policy_model.base_url == ("http://judge/v1",)
    elsewhere = EvaluateConfig("openai:a", "openai:b", "out", policy_base_url=("http://policy/v1",))
    assert elsewhere.policy_model.base_url == ("http://policy/v1",)
