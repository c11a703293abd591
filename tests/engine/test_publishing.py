"""Uploads, to a hub that is none."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rlaif.engine.export_config import ExportConfig, HubConfig
from rlaif.engine.exporting import export_rows
from rlaif.engine.publishing import Upload, push, upload_of
from rlaif.errors import HubError


class Hub:
    """Takes what it is given, as `HfApi` would; every call is written down."""

    def __init__(self, *, is_private: bool = False, error: Exception | None = None) -> None:
        self.is_private = is_private
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}

    def create_repo(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("create_repo", {"repo_id": repo_id, **options}))
        return f"https://huggingface.co/datasets/{repo_id}"

    def repo_info(self, repo_id: str, **options: Any) -> Any:
        self.calls.append(("repo_info", {"repo_id": repo_id, **options}))
        return SimpleNamespace(private=self.is_private)

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> None:
        self.calls.append(("create_commit", {"repo_id": repo_id, **options}))
        if self.error is not None:
            raise self.error
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    return upload_from(tmp_path, monkeypatch)


def upload_from(folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_private: bool = False) -> Upload:
    monkeypatch.chdir(folder)
    lines = [f'{{"prompt": "Q{n}?", "response_a": "x", "response_b": "y", "prob_a": 0.{n}}}\n' for n in range(1, 9)]
    Path("in.jsonl").write_text("".join(lines))
    hub = HubConfig("me/pairs", is_private)
    config = ExportConfig("in.jsonl", "trl", "out/p.jsonl.gz", test_share=0.3, hub=hub)
    found = upload_of(config, export_rows(config), command="rlaif export in.jsonl")
    assert found is not None
    return found


def test_one_commit_with_all_files_and_the_card(upload: Upload) -> None:
    hub = Hub()
    assert push(upload, hub) == "https://huggingface.co/datasets/me/pairs"
    assert [name for name, _ in hub.calls] == ["create_repo", "create_commit"]
    assert all(options["repo_type"] == "dataset" for _, options in hub.calls)
    assert hub.calls[0][1]["private"] is None
    assert set(hub.files) == {"train.jsonl.gz", "test.jsonl.gz", "README.md"}
    assert hub.files["test.jsonl.gz"] == Path("out/p.test.jsonl.gz").read_bytes()
    card = hub.files["README.md"].decode()
    assert "path: test.jsonl.gz" in card
    assert "Left out: 1 ties" in card


def test_private_stays_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = upload_from(tmp_path, monkeypatch, is_private=True)
    hub = Hub(is_private=True)
    push(private, hub)
    assert hub.calls[0][1]["private"] is True
    assert hub.files
    public = Hub(is_private=False)
    with pytest.raises(HubError, match="is public, and --private was asked for"):
        push(private, public)
    assert public.files == {}
    assert "create_commit" not in [name for name, _ in public.calls]


def test_a_refusal_is_one_sentence_without_the_token(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(HubError) as caught:
        push(upload, Hub(error=RuntimeError("401 for Bearer hf_secret\nmore")))
    said = str(caught.value)
    assert "401 for Bearer ***" in said
    assert "hf_secret" not in said
    assert "set HF_TOKEN" in said
    assert "more)" not in said


def test_the_real_hub_takes_what_is_asked_of_it(upload: Upload) -> None:
    from huggingface_hub import HfApi

    hub = Hub(is_private=True)
    push(replace(upload, is_private=True), hub)
    assert len(hub.calls) == 3
    for name, options in hub.calls:
        more = {"operations": []} if name == "create_commit" else {}
        inspect.signature(getattr(HfApi, name)).bind(None, **options, **more)


def test_without_a_network(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match="did not take the upload"):
        push(upload)


def test_no_upload_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload_from(tmp_path, monkeypatch)
    config = ExportConfig("in.jsonl", "trl", "other.jsonl")
    assert upload_of(config, export_rows(config)) is None
