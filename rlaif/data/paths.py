"""Column paths: reach inside nested values by keys joined with dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson


def value_at(row: Mapping[str, Any], path: str) -> Any:
    """Reach inside nested values, the longest existing key first.

    Args:
        row: A row; nested values may be mappings, lists (a number counts from 0), or JSON text of these.
        path: Keys joined by dots; a key may hold dots itself.

    Raises:
        KeyError: The row has no such value.

    >>> value_at({"votes": {"gpt-3.5-turbo": {"order_12": 1}}}, "votes.gpt-3.5-turbo.order_12")
    1
    """
    found = _find(row, path)
    if found is None:
        raise KeyError(path)
    return found[0]


def _find(value: Any, path: str) -> tuple[Any] | None:
    if isinstance(value, str) and value[:1] in ("{", "["):  # a column of varying keys is written as JSON text
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    if isinstance(value, list):
        head, _, rest = path.partition(".")
        if not head.isdecimal() or int(head) >= len(value):
            return None
        return _find(value[int(head)], rest) if rest else (value[int(head)],)
    if not isinstance(value, Mapping):
        return None
    end = len(path)
    while end > 0:
        key = path[:end]
        if key in value:
            found = (value[key],) if end == len(path) else _find(value[key], path[end + 1 :])
            if found is not None:
                return found
        end = path.rfind(".", 0, end)
    return None
