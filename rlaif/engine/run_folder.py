"""The folder a command writes: `run.json`, who may resume it, and `failures.jsonl`. CONTRACT: one folder, one run."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlaif.errors import RunFolderError
from rlaif.records import Failure

REPORTED_PACKAGES = ("rlaif", "torch", "transformers", "vllm", "openai", "aiohttp", "jinja2", "pyarrow")


class RunFolder:
    """A run's folder.

    Args:
        path: Made when missing.
        command: The command that owns it, such as "label".
    """

    def __init__(self, path: Path, command: str) -> None:
        self.path = path
        self.command = command

    @property
    def journal(self) -> Path:
        return self.path / "journal"

    def open(self, decisive: Mapping[str, Any]) -> dict[str, Any] | None:
        """Make the folder, or check that what stands there is the same run.

        Args:
            decisive: Everything that can change a value in `data/`, by the flag's name, as JSON values.

        Returns:
            The `run.json` of the run to resume; None for a new one.

        Raises:
            RunFolderError: The folder holds something else, another command's run, or a run with other settings.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            occupied = any(not _is_of_no_run(entry) for entry in self.path.iterdir())
        except OSError as error:
            raise RunFolderError(f"{self.path}: cannot be used as an output folder ({error.strerror})") from error
        if not os.access(self.path, os.W_OK):
            raise RunFolderError(f"{self.path}: cannot be used as an output folder (no permission to write)")
        if not occupied:
            return None
        known = self.read()
        if known is None:
            raise RunFolderError(f"{self.path}: is not empty and holds no run.json; choose another folder with -o")
        if known.get("command") != self.command:
            raise RunFolderError(
                f"{self.path}: holds a run of `rlaif {known.get('command')}`; choose another folder with -o"
            )
        before: dict[str, Any] = known.get("decisive", {})
        changed = [
            "{} (was {}, now {})".format(name, *_told_apart(before.get(name), decisive.get(name)))
            for name in sorted({*before, *decisive})
            if before.get(name) != decisive.get(name)
        ]
        if changed:
            raise RunFolderError(
                f"{self.path}: holds a run with other settings: {', '.join(changed)}; "
                "use those again to resume it, or choose another folder with -o"
            )
        return known

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process may write here; the lock ends with the process, however that ends.

        Raises:
            RunFolderError: Another one does.
        """
        with (self.path / ".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunFolderError(f"{self.path}: another process is writing this run; wait for it") from error
            yield

    def read(self) -> dict[str, Any] | None:
        """`run.json`, or None when there is none.

        Raises:
            RunFolderError: It is no JSON object.
        """
        path = self.path / "run.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunFolderError(f"{path}: cannot be read ({error}); was it written by rlaif?") from error
        if not isinstance(content, dict):
            raise RunFolderError(f"{path}: expected a JSON object; was it written by rlaif?")
        return content

    def write(self, content: Mapping[str, Any]) -> None:
        """Replace `run.json` in one step."""
        self.replace("run.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_failures(self, failures: Iterable[Failure]) -> None:
        """Replace `failures.jsonl`: `id`, `stage`, `error`, `attempts` a line; an empty file when nothing failed."""
        lines = [
            json.dumps({"id": one.id, "stage": one.stage, "error": one.error, "attempts": one.attempts})
            for one in failures
        ]
        self.replace("failures.jsonl", "".join(f"{line}\n" for line in lines))

    def write_card(self, text: str) -> None:
        """Replace the dataset card."""
        self.replace("README.md", text)

    def replace(self, name: str, text: str) -> None:
        """Replace one of the folder's files in one step.

        Raises:
            RunFolderError: It cannot be written.
        """
        temporary = self.path / f".{name}.new"
        try:
            temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
            os.replace(temporary, self.path / name)
        except OSError as error:
            raise RunFolderError(f"{self.path / name}: cannot be written ({error.strerror})") from error


def _is_of_no_run(entry: Path) -> bool:
    """Whether something in a folder is none of what a run has written: a run killed in its first moments leaves a
    journal, or half a run.json under a hidden name; a pipeline begins with journals, that of a run inside a run too."""
    if entry.name == "journal" or entry.name[0] == ".":
        return True
    return entry.is_dir() and [inner.name for inner in entry.iterdir()] == ["journal"]


def versions() -> dict[str, str]:
    """Versions of what can change a result, without importing it."""
    found = {"python": platform.python_version(), "platform": sys.platform}
    for package in REPORTED_PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def run_fingerprint(known: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of what decided a run's labels, and how many there are: its id, wherever the folder lies.

    Args:
        known: Its `run.json`.
    """
    counts = known["counts"]
    content = {"decisive": known["decisive"], "rows": counts["rows"], "failures": counts["failures"]}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def public_config(config: Any) -> dict[str, Any]:
    """A configuration as `run.json` holds it: addresses without what some servers take their key in."""
    public: dict[str, Any] = dataclasses.asdict(config)
    public["backend"]["base_url"] = [without_queries(url) for url in public["backend"]["base_url"]]
    return public


def without_queries(text: str) -> str:
    """A text whose web addresses end before their "?": some servers take their key there.

    >>> without_queries("rlaif label x --base-url 'http://host/v1?api-key=secret' -o y")
    "rlaif label x --base-url 'http://host/v1' -o y"
    """
    return re.sub(r"(https?://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text)


def _told_apart(before: Any, now: Any) -> tuple[str, str]:
    """Two values as JSON; of long ones what stands around the first difference.

    >>> _told_apart("a" * 80 + "b", None)[1]
    'nothing'
    """
    texts = ["nothing" if value is None else json.dumps(value, ensure_ascii=False) for value in (before, now)]
    same = next((place for place, (a, b) in enumerate(zip(*texts, strict=False)) if a != b), min(map(len, texts)))
    first = max(0, same - 24)
    one, other = (_excerpt(text, first) for text in texts)
    return one, other


def _excerpt(text: str, first: int, most: int = 60) -> str:
    if len(text) <= most:
        return text
    first = min(first, len(text) - most)
    return f"{'…' if first else ''}{text[first : first + most]}{'…' if first + most < len(text) else ''}"
