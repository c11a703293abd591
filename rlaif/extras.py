"""What an extra of the package brings: whether it is installed, without importing it."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from rlaif.errors import BackendNotInstalledError


def require(extra: str, modules: Sequence[str], needed_by: str) -> None:
    """Make sure that an extra is there, before any work.

    Args:
        extra: Its name, as in `pip install 'rlaif[EXTRA]'`.
        modules: Names to import that it brings.
        needed_by: Who needs them, to begin the message.

    Raises:
        BackendNotInstalledError: A module is missing.

    >>> require("train", ["no_such_module"], "rlaif train")
    Traceback (most recent call last):
    rlaif.errors.BackendNotInstalledError: rlaif train needs no_such_module, which an extra brings; ...
    """
    if missing := [name for name in modules if importlib.util.find_spec(name) is None]:
        raise BackendNotInstalledError(
            f"{needed_by} needs {', '.join(missing)}, which an extra brings; run: pip install 'rlaif[{extra}]'"
        )
