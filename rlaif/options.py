"""The options of a configuration, read off its dataclass: names, types, defaults and descriptions. No values here.

A configuration is a frozen dataclass, nested by owner. Its fields, however deep, share one name space. The string under
a field is its description; a bound stands in `Annotated[int, "at least 1"]` ("above 0", "0 to 1"). Fields may be bool,
int, float, str, Path, an Enum, a Literal, tuples and mappings of these, and unions of all that.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclasses.dataclass(frozen=True)
class Option:
    """One leaf of a configuration: what a flag and a YAML key stand for.

    Attributes:
        name: Unique in its configuration, with underscores.
        section: Names of the nested fields that lead to it; empty at the top.
        owner: The dataclass that declares it.
        annotation: Its type, with bounds.
        default: What it is when nobody says; `dataclasses.MISSING` when somebody has to.
        description: The string under the field, on one line; "" when there is none.
        is_secret: Whether its value must not be shown: the field has `repr=False`.
    """

    name: str
    section: tuple[str, ...]
    owner: type[Any]
    annotation: Any
    default: Any
    description: str
    is_secret: bool = False

    @property
    def is_required(self) -> bool:
        return self.default is dataclasses.MISSING


def options(config_class: type[Any]) -> tuple[Option, ...]:
    """The options of a configuration in the order of their declaration, nested ones in the place of their section.

    Raises:
        TypeError: Two of them have one name: a mistake of ours, not the user's.
    """
    found = tuple(_walk(config_class, ()))
    names = [option.name for option in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TypeError(f"{config_class.__name__} has two options of the name {', '.join(twice)}")
    return found


def expected(annotation: Any) -> str:
    """What a value of this type looks like, to end "expected ...".

    >>> expected(Literal["both", "ab", "ba"])
    'both, ab or ba'
    >>> expected(tuple[int, ...] | None)
    'a list of whole numbers'
    >>> expected(Annotated[float, "0 to 1"])
    'a number from 0 to 1'
    """
    bare, bound = _split(annotation)
    if alternatives := _union_members(bare):
        return _or_list([expected(alternative) for alternative in alternatives])
    if choices := choices_of(bare):
        return _or_list(choices)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    if bare in words:
        preposition = "" if bound.startswith("above") else "from " if bound[:1].isdigit() else "of "
        return f"{words[bare]} {preposition}{bound}" if bound else words[bare]
    arguments = [argument for argument in get_args(bare) if argument is not Ellipsis]
    if is_mapping(bare):
        holds_numbers = arguments and scalar_types(arguments[-1]) in ((int,), (float,))
        return f"name={'number' if holds_numbers else 'value'} pairs"
    if is_sequence(bare):
        element = expected(arguments[0]) if arguments else "values"
        return "a list of " + element.replace("a whole number", "whole numbers").replace("a number", "numbers")
    return str(getattr(bare, "__name__", bare))


def choices_of(annotation: Any) -> tuple[str, ...]:
    """The values of a Literal or Enum as text, in order; empty for other types."""
    bare = _split(annotation)[0]
    if members := _union_members(bare):
        return choices_of(members[0]) if len(members) == 1 else ()
    if get_origin(bare) is Literal:
        return tuple(str(choice) for choice in get_args(bare))
    if isinstance(bare, type) and issubclass(bare, Enum):
        return tuple(str(member.value) for member in bare)
    return ()


def scalar_types(annotation: Any) -> tuple[Any, ...]:
    """The types a value may have, without bounds and None: `(int,)` for `Annotated[int, "at least 1"] | None`."""
    bare = _split(annotation)[0]
    return tuple(_split(member)[0] for member in _union_members(bare)) or (bare,)


def is_sequence(annotation: Any) -> bool:
    """Whether the type is a tuple, list or other sequence, not text."""
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Sequence) and not issubclass(origin, str | bytes)


def is_mapping(annotation: Any) -> bool:
    """Whether the type is a mapping."""
    origin = get_origin(annotation) or annotation
    return isinstance(origin, type) and issubclass(origin, Mapping)


def is_within(annotation: Any, value: Any) -> bool:
    """Whether a value of the right type keeps the bound that its annotation states.

    >>> is_within(Annotated[int, "at least 1"] | None, 0)
    False
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return True
    bounds = [_split(member)[1] for member in (annotation, *_union_members(_split(annotation)[0]))]
    return all(_keeps(bound.split(), value) for bound in bounds)


def _walk(config_class: Any, section: tuple[str, ...]) -> Iterable[Option]:
    hints = get_type_hints(config_class, include_extras=True)
    descriptions = _descriptions(config_class)
    for field in dataclasses.fields(config_class):
        annotation = hints[field.name]
        if dataclasses.is_dataclass(annotation):
            yield from _walk(annotation, (*section, field.name))
            continue
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        yield Option(
            name=field.name,
            section=section,
            owner=config_class,
            annotation=annotation,
            default=default,
            description=descriptions.get(field.name, ""),
            is_secret=not field.repr,
        )


@functools.cache  # reading the source is the slow part of it all
def _descriptions(config_class: Any) -> dict[str, str]:
    """The string literal under each field; those of base classes too. Empty where the source is not at hand."""
    import inspect
    import textwrap

    found: dict[str, str] = {}
    owners: list[type[Any]] = list(reversed(config_class.__mro__))
    for owner in owners:
        if "__dataclass_fields__" not in vars(owner):
            continue
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        except (OSError, SyntaxError):
            continue
        statements = getattr(body, "body", [])
        for statement, below in itertools.pairwise(statements):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                match below:
                    case ast.Expr(value=ast.Constant(value=str(text))):
                        found[statement.target.id] = " ".join(text.split())
    return found


def _keeps(bound: Sequence[str], value: float) -> bool:
    match bound:
        case ["at", "least", low]:
            return value >= float(low)
        case ["above", low]:
            return value > float(low)
        case [low, "to", high]:
            return float(low) <= value <= float(high)
    return True


def _split(annotation: Any) -> tuple[Any, str]:
    """(the type without its bound, the bound in words or "")."""
    if get_origin(annotation) is not Annotated:
        return annotation, ""
    bare, *metadata = get_args(annotation)
    return bare, next((item for item in metadata if isinstance(item, str)), "")


def _union_members(bare: Any) -> tuple[Any, ...]:
    """The members of a union but None; empty for other types."""
    if get_origin(bare) not in (Union, types.UnionType):
        return ()
    return tuple(member for member in get_args(bare) if member is not type(None))


def _or_list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
