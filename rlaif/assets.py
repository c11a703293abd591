"""Find the files that ship with the package: prompts, constitutions, suites. What they hold is read elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from rlaif.errors import ConfigError, ConstitutionError, PromptError, did_you_mean

AssetKind = Literal["prompts", "constitutions", "suites"]

_PACKAGE = Path(__file__).resolve().parent
_SUFFIX: dict[str, str] = {"prompts": ".jinja", "constitutions": ".yaml", "suites": ".jsonl"}
_ERROR: dict[str, type[PromptError] | type[ConstitutionError] | type[ConfigError]] = {
    "prompts": PromptError,
    "constitutions": ConstitutionError,
    "suites": ConfigError,
}


def find_asset(kind: AssetKind, name: str) -> Path:
    """The file behind a name: a path the user gave, then the live checkout, then the copy in the wheel.

    Args:
        kind: The folder to look in.
        name: A path to an existing file, or a shipped file's name relative to its folder, with or without the suffix.

    Returns:
        An existing file.

    Raises:
        PromptError, ConstitutionError, ConfigError (suites): Nothing goes by that name; the message ends with the
            nearest or all known names.

    >>> find_asset("constitutions", "no-such-thing")
    Traceback (most recent call last):
    rlaif.errors.ConstitutionError: ...
    """
    given = Path(name).expanduser()
    looks_like_path = bool(given.suffix) or given.parent != Path()
    if looks_like_path and os.path.isfile(given):  # unlike `Path.is_file`, no error for a name that no file could have
        return given
    for folder in _shipped_folders(kind):
        for candidate in (folder / name, folder / f"{name}{_SUFFIX[kind]}"):
            # Names come from users: "../x" must not leave the folder.
            if os.path.isfile(candidate) and folder.resolve() in candidate.resolve().parents:
                return candidate
    if looks_like_path and os.path.isdir(given):
        raise _ERROR[kind](f"{name} is a folder, expected a file")
    known = shipped_names(kind)
    missing = f"there is no file {name}, nor" if looks_like_path else "there is no"
    raise _ERROR[kind](
        f"{missing} {kind.removesuffix('s')} named {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}"
    )


def shipped_names(kind: AssetKind) -> tuple[str, ...]:
    """Names of the shipped files of a kind, without suffix, sorted."""
    suffix = _SUFFIX[kind]
    names = {
        path.relative_to(folder).as_posix().removesuffix(suffix)
        for folder in _shipped_folders(kind)
        for path in folder.rglob(f"*{suffix}")
    }
    return tuple(sorted(names))


def _shipped_folders(kind: AssetKind) -> list[Path]:
    places = (_PACKAGE.parent / kind, _PACKAGE / "_data" / kind)
    # In site-packages a folder `prompts` beside ours would be some other package's.
    is_checkout = (_PACKAGE.parent / "pyproject.toml").is_file()
    return [place for place in (places if is_checkout else places[1:]) if place.is_dir()]
