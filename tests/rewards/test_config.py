from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rlaif.config import resolve
from rlaif.errors import ConfigError
from rlaif.rewards.config import RewardConfig, RewardSpec, parse_rewards


def test_each_kind_of_source_is_told_by_what_it_looks_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    texts = ["judge", "-0.5*hf-reward:o/rm@main", "2 * runs/rm", "plain", "http://h:1/score", "1e-1*my.mod:A.score"]
    assert parse_rewards(texts) == (
        RewardSpec("judge", "judge", 1.0, "judge"),
        RewardSpec("reward-model", "o/rm@main", -0.5, "hf-reward:o/rm@main"),
        RewardSpec("reward-model", "runs/rm", 2.0, "hf-reward:runs/rm"),
        RewardSpec("reward-model", "plain", 1.0, "hf-reward:plain"),
        RewardSpec("server", "http://h:1", 1.0, "http://h:1"),
        RewardSpec("function", "my.mod:A.score", 0.1, "my.mod:A.score"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0*judge", "the weight is 0, expected a finite number other than 0"),
        ("nan*judge", "the weight is nan"),
        ("-inf*judge", "the weight is -inf"),
        ("half*judge", "the weight is 'half', expected a number"),
        ("*judge", "the weight is ''"),
        ("0.5*", "names no source"),
        ("juge", r"no source of rewards \(did you mean 'judge'\?\); expected judge, the FOLDER"),
        ("hf-reward:", "names no folder"),
        ("openai:gpt-4.1-mini", "named by --judge openai:gpt-4.1-mini and asked by --reward judge"),
        ("0.5*builtin:tiny", "asked by --reward judge"),
        ("./lib/score.py:reward", "a module's name and not its file: lib.score:reward"),
        ("http://", "expected an address"),
        ("http://h:99999", "expected an address"),
        ("http://me:secret-word@h:1", "put the token of the server in RLAIF_TOKEN"),
        ("http://h:1/score?key=secret-word", "put the token of the server in RLAIF_TOKEN"),
        ("mod:", "no source of rewards"),
    ],
)
def test_what_is_no_source_is_refused(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        parse_rewards([text])
    assert "secret-word" not in str(caught.value)


def test_all_faults_are_said_at_once_and_as_the_flag_is_spelled() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(RewardConfig, None, {"reward": ["0*judge", "a:b", "2*a:b", "zzz"]}, spell=lambda name: f"--{name}")
    for words in ("3 faults", "--reward: '0*judge': the weight", "--reward: a:b is named twice", "'zzz': no source"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="at least one is needed"):
        RewardConfig(())


def test_by_default_the_judge_rewards() -> None:
    config = resolve(RewardConfig)
    assert [spec.kind for spec in config.specs] == ["judge"]
    assert config.judge_patience == 300


def test_settings_load_nothing_heavy() -> None:
    code = "import sys; from rlaif.rewards.config import RewardConfig; RewardConfig(('judge', 'a:b'))\n"
    code += "print([name for name in ('torch', 'transformers', 'numpy', 'aiohttp') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
