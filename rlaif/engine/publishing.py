"""Uploads of exported files to the Hugging Face hub, in one commit. The token is found by the hub's own library
(HF_TOKEN, or its login), and looked at here only to keep it out of messages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from rlaif.data.export_card import ExportFacts, render_export_card
from rlaif.data.export_loading import Hint
from rlaif.data.exporting import EXPORT_FORMATS
from rlaif.data.row_files import extension_of
from rlaif.engine.export_config import ExportConfig
from rlaif.engine.exporting import ExportOutcome
from rlaif.errors import HubError

CARD = "README.md"


class HubApi(Protocol):
    """What is asked of `huggingface_hub.HfApi`."""

    def create_repo(self, repo_id: str, **options: Any) -> Any: ...

    def repo_info(self, repo_id: str, **options: Any) -> Any: ...

    def create_commit(self, repo_id: str, operations: Any, **options: Any) -> Any: ...


@dataclass(frozen=True)
class Upload:
    """What is uploaded.

    Attributes:
        repository: OWNER/NAME of a data set.
        files: Name there -> the file here.
        card: What becomes `README.md`.
        is_private: Whether the data set has to be private.
        message: Of the commit.
    """

    repository: str
    files: Mapping[str, Path]
    card: str
    is_private: bool
    message: str


def upload_of(config: ExportConfig, outcome: ExportOutcome, *, command: str = "") -> Upload | None:
    """What an export uploads; None where none was asked for."""
    repository = config.hub.push_to_hub
    if repository is None:
        return None
    names = {split: f"{split}{extension_of(file.path)}" for split, file in outcome.files.items()}
    run = outcome.run or {}
    judges = run.get("judges", ())
    facts = ExportFacts(
        title=repository.partition("/")[2],
        format=config.format,
        files={split: (names[split], file.rows, file.prompts) for split, file in outcome.files.items()},
        columns=tuple(EXPORT_FORMATS[config.format].columns(outcome.layout)),
        judges=tuple(str(judge.get("name")) for judge in judges),
        labels=config.labels,
        is_demonstration=any(judge.get("is_demonstration") is True for judge in judges),
        left_out=outcome.left_out_pairs,
        hints=(Hint("load", f'datasets.load_dataset("{repository}")'),),
        command=command,
        version=version("rlaif"),
    )
    return Upload(
        repository,
        {names[split]: file.path for split, file in outcome.files.items()},
        render_export_card(facts),
        config.hub.private,
        f"rlaif export --format {config.format}",
    )


def push(upload: Upload, api: HubApi | None = None) -> str:
    """Upload, in one commit: a reader sees all of it or nothing.

    Args:
        upload: What.
        api: The hub; None for the real one.

    Returns:
        The address of the data set.

    Raises:
        HubError: The hub did not take it, or has a public data set of that name where a private one was asked for.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    hub: Any = HfApi() if api is None else api
    operations = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in upload.files.items()
    ]
    operations.append(CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=upload.card.encode()))
    kind = {"repo_type": "dataset"}
    try:
        # None leaves it to the owner's own default
        address = hub.create_repo(upload.repository, private=upload.is_private or None, exist_ok=True, **kind)
        is_public = upload.is_private and not hub.repo_info(upload.repository, **kind).private
        if not is_public:
            hub.create_commit(upload.repository, operations, commit_message=upload.message, **kind)
    except (
        Exception
    ) as error:  # no network, no such owner, a token that may not write: the library has a class for each
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise HubError(
            f"{upload.repository}: the hub did not take the upload ({_without_token(lines[0])}); the files are "
            "written; set HF_TOKEN to a token that may write there, and run the same command again"
        ) from error
    if is_public:
        raise HubError(f"{upload.repository}: is public, and --private was asked for; nothing was uploaded")
    return str(address)


def _without_token(text: str) -> str:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        if token := os.environ.get(name):
            text = text.replace(token, "***")
    return text
