"""Auxiliary rewards beside responses: numbers by name that no judge gave, such as a length or a readability. Pure:
values in, a map a response or a `RowFault` out.

Of a pair they stand in one column, `aux_rewards`, as {name: [of the first, of the second]} or as a list of two maps, or
in two columns, `aux_rewards_a` and `aux_rewards_b`, {name: number} each; of a single response as {name: number}.
Where chosen and rejected are the responses, the first is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

import orjson

from rlaif.data.columns import Cell, RowFault, described, find_cell, finite_number

AUX_COLUMNS = ("aux_rewards", "aux_rewards_a", "aux_rewards_b")
_OF_RANKED = ("aux_rewards_chosen", "aux_rewards_rejected")
_OF_PAIR = "{name: [number, number]}, or a list of two {name: number}"

AuxRewards = Mapping[str, float]
"""Name -> reward of one response; a name that it has no reward of is absent."""


class AuxCells(NamedTuple):
    """Where the auxiliary rewards of a pair stand: in one cell, or in one for each response."""

    both: Cell | None = None
    first: Cell | None = None
    second: Cell | None = None


def find_aux_of_pair(present: Set[str], renames: Mapping[str, str], *, is_ranked: bool) -> AuxCells:
    """The cells of a pair's auxiliary rewards; all None where the row has none.

    Args:
        present: Names of the row's columns.
        renames: Our column name -> the input's.
        is_ranked: Whether the responses are chosen and rejected.

    Raises:
        RowFault: One response has a column and the other has none; or which response a column is of is not said.
    """
    cells = AuxCells(
        find_cell("aux_rewards", (), present, renames),
        find_cell("aux_rewards_a", _OF_RANKED[:1] if is_ranked else (), present, renames),
        find_cell("aux_rewards_b", _OF_RANKED[1:] if is_ranked else (), present, renames),
    )
    if not is_ranked and (misnamed := sorted(present & set(_OF_RANKED))):
        reason = "stands beside response_a and response_b, expected aux_rewards_a and aux_rewards_b"
        raise RowFault(reason, misnamed[0])
    if is_ranked and {"response_a", "response_b"} <= present and (unsaid := sorted(present & set(AUX_COLUMNS))):
        reason = "is of response_a and response_b, and the row is read as chosen and rejected, expected one of the two"
        raise RowFault(reason, unsaid[0])
    if (cells.first is None) != (cells.second is None):
        alone = cells.first or cells.second
        assert alone is not None
        raise RowFault("stands alone, expected a column of auxiliary rewards for each response", alone.path)
    if cells.both is not None and cells.first is not None:
        raise RowFault(f"stands beside {cells.first.path!r}, expected one of the two", cells.both.path)
    return cells


def aux_of_pair(row: Mapping[str, Any], cells: AuxCells) -> tuple[AuxRewards, AuxRewards]:
    """The auxiliary rewards of the first and of the second response.

    Raises:
        RowFault: They cannot be read.
    """
    if cells.first is not None and cells.second is not None:
        return aux_of_response(row, cells.first), aux_of_response(row, cells.second)
    if cells.both is None:
        return {}, {}
    path, value = cells.both.path, _decoded(cells.both.of(row))
    if _is_nothing(value):
        return {}, {}
    if isinstance(value, Mapping):
        pairs = {name: each for name, each in value.items() if not _is_nothing(each)}
        for name, each in pairs.items():
            if not isinstance(each, list | tuple) or len(each) != 2:
                raise RowFault(f"is {described(each)} for {name!r}, expected {_OF_PAIR}", path)
        first, second = ({name: each[place] for name, each in pairs.items()} for place in (0, 1))
        return _rewards(first, path), _rewards(second, path)
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise RowFault(f"is {described(value)}, expected {_OF_PAIR}", path)
    return _rewards(value[0], path), _rewards(value[1], path)


def aux_of_response(row: Mapping[str, Any], cell: Cell | None) -> AuxRewards:
    """The auxiliary rewards of one response; none where there is no cell.

    Raises:
        RowFault: They cannot be read.
    """
    return {} if cell is None else _rewards(_decoded(cell.of(row)), cell.path)


def followed_aux(extra: Mapping[str, Any], *, is_exchanged: bool) -> dict[str, Any]:
    """The other columns of a row whose chosen and rejected became A and B: its auxiliary rewards go with them.

    Args:
        extra: The columns.
        is_exchanged: Whether chosen became B.

    >>> followed_aux({"aux_rewards": {"length": [3, 5]}, "task": "x"}, is_exchanged=True)
    {'aux_rewards': {'length': [5, 3]}, 'task': 'x'}
    >>> followed_aux({"aux_rewards_chosen": {"length": 3}, "aux_rewards_rejected": {"length": 5}}, is_exchanged=True)
    {'aux_rewards_a': {'length': 5}, 'aux_rewards_b': {'length': 3}}
    """
    pairs = [pair for pair in (AUX_COLUMNS[1:], _OF_RANKED) if extra.keys() >= set(pair)]
    if len(pairs) == 1:
        ours = dict(zip(pairs[0], AUX_COLUMNS[1:], strict=True))
        theirs = dict(zip(pairs[0], pairs[0][::-1] if is_exchanged else pairs[0], strict=True))
        return {ours.get(name, name): extra[theirs.get(name, name)] for name in extra}
    if is_exchanged and AUX_COLUMNS[0] in extra:
        return {**extra, AUX_COLUMNS[0]: _turned(extra[AUX_COLUMNS[0]])}
    return dict(extra)


def _turned(value: Any) -> Any:
    """With the two responses exchanged; what cannot be read is left as it is."""
    if isinstance(value, str):
        decoded = _decoded(value)
        return value if decoded is value else orjson.dumps(_turned(decoded)).decode()
    if isinstance(value, Mapping):
        return {name: each[::-1] if isinstance(each, list | tuple) else each for name, each in value.items()}
    return value[::-1] if isinstance(value, list | tuple) else value


def _decoded(value: Any) -> Any:
    """CSV has neither maps nor lists, and a run folder writes maps of varying keys as text."""
    if not isinstance(value, str):
        return value
    try:
        return orjson.loads(value) if value.strip() else None
    except orjson.JSONDecodeError:
        return value  # refused where it is read


def _is_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _rewards(value: Any, column: str) -> AuxRewards:
    if _is_nothing(value):
        return {}
    if not isinstance(value, Mapping):
        raise RowFault(f"is {described(value)}, expected {{name: number}}", column)
    found = {}
    for name, each in value.items():
        if each is None:  # parquet gives every row the keys of all
            continue
        number = finite_number(each)
        if number is None:
            raise RowFault(f"is {described(each)} for {name!r}, expected a finite number", column)
        found[str(name)] = number
    return found
