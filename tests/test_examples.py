"""Every script in examples/ and every block of the README runs as a user runs it.

The README's hosted judge is played by a local server with the same protocol; nothing leaves this machine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import Answer, Received, ScriptedServer

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").glob("*.py") if not path.name.startswith("train_builtin_"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^(?:rlaif|export) .*$", re.MULTILINE)


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    scripts = str(Path(sys.executable).parent)
    known = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "HF_HUB_OFFLINE": "1", **environment}
    return subprocess.run(command, cwd=cwd, env=known, check=False, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    finished = run([sys.executable, str(script)], tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip()


def judge(received: Received) -> Answer:
    """Prefers the first response a little."""
    tokens = [{"token": "1", "logprob": -0.5, "bytes": [49]}, {"token": "2", "logprob": -1.0, "bytes": [50]}]
    first = {**tokens[0], "top_logprobs": tokens}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "1"},
        "logprobs": {"content": [first]},
        "finish_reason": "length",
    }
    return Answer({"choices": [choice], "usage": {"prompt_tokens": 300, "completion_tokens": 1}})


def _copy_the_pipeline(folder: Path, prompts: int) -> None:
    """The example pipeline, with the first of its prompts and of the comparisons that people labeled."""
    data = folder / "examples" / "data"
    data.mkdir(parents=True)
    shutil.copy(ROOT / "examples" / "constitution.yaml", folder / "examples")
    lines = (ROOT / "examples" / "data" / "prompts.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    for path in (data / "prompts.jsonl", folder / "prompts.jsonl"):
        path.write_text("".join(lines[:prompts]), encoding="utf-8")
    shutil.copy(folder / "comparisons.jsonl", data)


def test_the_readme_runs_from_top_to_bottom(tmp_path: Path) -> None:
    comparisons = ROOT / "examples" / "data" / "comparisons.jsonl"
    lines = comparisons.read_text(encoding="utf-8").splitlines(keepends=True)[:20]
    (tmp_path / "comparisons.jsonl").write_text("".join(lines), encoding="utf-8")
    responses = (ROOT / "examples" / "data" / "responses.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "responses.jsonl").write_text("".join(responses[:10]), encoding="utf-8")
    shutil.copy(ROOT / "examples" / "data" / "recorded_verdicts.jsonl", tmp_path)
    _copy_the_pipeline(tmp_path, prompts=6)
    ran = 0
    with ScriptedServer(judge) as server:
        keys = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-not-a-key"}
        for language, text in BLOCK.findall(README):
            if language == "python":
                finished = run([sys.executable, "-c", text], tmp_path, **keys)
                assert finished.returncode == 0, f"{text}\n{finished.stderr}"
                ran += 1
            elif language == "":
                for line in COMMANDS.findall(text.replace("\\\n", "")):
                    if line.startswith("export") or line.endswith("..."):
                        continue
                    command = line.replace("ROW_ID", "example-000")
                    finished = run(["bash", "-c", command], tmp_path, **keys)
                    assert finished.returncode == 0, f"{command}\n{finished.stderr}"
                    ran += 1
    assert ran >= 8
    assert (tmp_path / "runs" / "first" / "data").is_dir()
    assert (tmp_path / "runs" / "constitution" / "export" / "pairs.train.jsonl").read_text(encoding="utf-8")
    shutil.rmtree(tmp_path / "runs")
