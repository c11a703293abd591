"""Layering of typed configurations: defaults < YAML file < flags. Each Config lives beside what it configures.

An option (`rlaif.options`) is a flag by its name with dashes, and a YAML key by its name with dashes or underscores,
flat or inside a mapping named as its section (the nested field that holds it). What concerns several options, a
dataclass refuses in `__post_init__` with a `ValueError`: "NAME: what is wrong", several of them joined by "; ".
Secrets never stand in a configuration.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar, get_origin, get_type_hints

from rlaif.errors import ConfigError, did_you_mean
from rlaif.options import Option, choices_of, expected, is_mapping, is_sequence, is_within, options, scalar_types

C = TypeVar("C")


class _Layer(NamedTuple):
    """Values from one place: `spell` says how a name is written there, `word` what such a name is called."""

    source: str
    values: Mapping[str, Any]
    spell: Callable[[str], str]
    word: str


class _Fault(NamedTuple):
    source: str
    text: str


def resolve(
    config_class: type[C],
    yaml_path: str | None = None,
    flags: Mapping[str, object] | None = None,
    *,
    source: str = "the arguments",
    word: str = "argument",
    spell: Callable[[str], str] = str,
) -> C:
    """Build a configuration from its defaults, a YAML file and flags, the later ones winning.

    Args:
        config_class: A dataclass, possibly of dataclasses.
        yaml_path: A YAML file with some of the options; None for none.
        flags: Values by option name (underscores); text is converted to the field's type.
        source, word, spell: How messages call the place that `flags` come from, and one of them, and spell its name.

    Returns:
        A checked instance of `config_class`.

    Raises:
        ConfigError: One sentence with every fault of every layer: unknown names (with the nearest known ones), values
            of the wrong type or out of bounds, required values that nobody gave, what `__post_init__` refuses.
    """
    layers = [] if yaml_path is None else [_Layer(yaml_path, read_yaml(yaml_path), str, "key")]
    layers.append(_Layer(source, dict(flags or {}), spell, word))
    known = {option.name: option for option in options(config_class)}
    faults: list[_Fault] = []
    values: dict[str, Any] = {}
    faulty: set[str] = set()
    for layer in layers:
        for key, name, value in _flattened(config_class, layer, known, faults):
            try:
                values[name] = _converted(known[name].annotation, value)
            except ValueError as error:
                faulty.add(name)
                is_secret = known[name].is_secret
                shown = f"expected {expected(known[name].annotation)} in quotes" if is_secret else error
                faults.append(_Fault(layer.source, f"{key}: {shown}"))
    for option in known.values():
        if option.is_required and option.name not in values and option.name not in faulty:
            faulty.add(option.name)
            faults.append(_Fault(source, f"{spell(option.name)} is missing"))
    config = _build(config_class, values, faulty, lambda text: _attributed(text, layers, known), faults)
    if faults or config is None:
        raise ConfigError(_sentence(faults))
    return config


def as_dict(config: Any, *, is_flat: bool = False) -> dict[str, Any]:
    """A configuration as JSON values: tuples as lists, enums by their value, paths as text.

    Args:
        config: A dataclass instance.
        is_flat: Put the nested options beside the others, as flags are, instead of by section.
    """
    result: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if is_flat and dataclasses.is_dataclass(value):
            result.update(as_dict(value, is_flat=True))
        else:
            result[field.name] = _as_json(value)
    return result


# --- from a YAML file to values ---------------------------------------------------------------------------------------


def read_yaml(path: str) -> dict[str, Any]:
    """The mapping that a YAML file holds; {} for an empty one.

    Raises:
        ConfigError: It cannot be read, holds a key twice, or something other than a mapping.
    """
    import yaml

    try:
        values = parse_yaml(Path(path).read_text(encoding="utf-8"), path, ConfigError)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); expected a YAML file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; expected a YAML file") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = path if mark is None else f"{path}, line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        problem += "; put what begins with @ in quotes" if "'@'" in problem else ""
        raise ConfigError(f"{where}: not YAML ({problem})") from error
    except (TypeError, ValueError) as error:  # a date that is none
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: not a configuration ({error})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {_shown(values)}, expected options by name")
    return values


def parse_yaml(text: str, path: str, fault: type[ValueError]) -> Any:
    """What a YAML text holds. PyYAML keeps the last of two equal keys; a user who wrote both meant something else.

    Args:
        text: The YAML.
        path: Of its file, for messages.
        fault: Raised where a key stands twice.

    Raises:
        ValueError: `fault`; or a date that is none.
        yaml.YAMLError: It is no YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses keys that stand twice."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise fault(f"{path}, line {key.start_mark.line + 1}: {key.value!r} stands here twice")
                seen.add(key.value)
        return dict(loader.construct_mapping(node, deep=True))

    Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    return yaml.load(text, Loader)  # noqa: S506  # a SafeLoader, stricter


def _flattened(
    config_class: type[Any], layer: _Layer, known: Mapping[str, Option], faults: list[_Fault]
) -> Iterable[tuple[str, str, Any]]:
    """(as written, option name, value) of each known option in the layer; other names become faults."""
    sections = {option.section[:depth] for option in known.values() for depth in range(1, len(option.section) + 1)}
    given: dict[str, str] = {}

    def visit(values: Mapping[Any, Any], section: tuple[str, ...]) -> Iterable[tuple[str, str, Any]]:
        for raw_key, value in values.items():
            name = str(raw_key).replace("-", "_")
            inside = next((path for path in sections if path[-1] == name and path[: len(section)] == section), None)
            written = f"{section[-1]}.{raw_key}" if section else layer.spell(str(raw_key))
            option = known.get(name)
            if inside and (isinstance(value, Mapping) or (value is None and option is None)):
                yield from visit(value or {}, inside)
            elif option is None or option.section[: len(section)] != section:
                here = [other.name for other in known.values() if other.section[: len(section)] == section]
                where = f" in {section[-1]}" if section else ""
                hint = did_you_mean(name, here) if layer.spell is str else did_you_mean(written, map(layer.spell, here))
                if not hint and layer.spell is str:
                    hint = f"; known: {', '.join(here)}"
                faults.append(_Fault(layer.source, f"{written}: unknown {layer.word}{where}{hint}"))
            elif name in given:
                faults.append(_Fault(layer.source, f"{written}: given a second time, after {given[name]}"))
            else:
                given[name] = written
                yield written, name, value

    return visit(layer.values, ())


# --- from values to an instance ---------------------------------------------------------------------------------------


def _converted(annotation: Any, value: Any) -> Any:
    """The value as the field's type.

    Raises:
        ValueError: It is none; the message is "VALUE, expected ...".
    """
    from pydantic import TypeAdapter, ValidationError

    refusal = ValueError(f"{_shown(value)}, expected {expected(annotation)}")
    allowed = scalar_types(annotation)
    if isinstance(value, bool) and not any(kind is bool or get_origin(kind) is Literal for kind in allowed):
        raise refusal  # pydantic takes true for 1
    if isinstance(value, str) and str not in allowed and any(is_sequence(kind) or is_mapping(kind) for kind in allowed):
        value = (value,)
    if isinstance(value, list | tuple) and any(is_mapping(kind) for kind in allowed):
        value = _pairs(value, refusal)
    try:
        result = TypeAdapter(annotation, config={"allow_inf_nan": False}).validate_python(value)
    except ValidationError as error:
        choices = choices_of(annotation)
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        is_number_for_text = not isinstance(value, str | list | tuple | Mapping | None) and allowed == (str,)
        raise ValueError(f"{refusal}{' in quotes' if is_number_for_text else hint}") from error
    if not is_within(annotation, result):
        raise refusal
    return result


def _pairs(texts: Sequence[Any], refusal: ValueError) -> dict[str, str]:
    """`("a=b,c=d", "e=f")` as a dictionary."""
    pairs: dict[str, str] = {}
    for text in texts:
        for item in str(text).split(","):
            name, equals, value = item.partition("=")
            if not (name.strip() and equals and value.strip()):
                raise refusal
            if name.strip() in pairs:
                raise ValueError(f"{name.strip()!r} is given twice")
            pairs[name.strip()] = value.strip()
    return pairs


def _build(
    config_class: type[C],
    values: Mapping[str, Any],
    faulty: set[str],
    attributed: Callable[[str], Iterable[_Fault]],
    faults: list[_Fault],
) -> C | None:
    """An instance, or None when something inside it is at fault; what `__post_init__` refuses joins the faults."""
    hints = get_type_hints(config_class)
    arguments: dict[str, Any] = {}
    is_whole = True
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]  # C is a dataclass
        if dataclasses.is_dataclass(hints[field.name]):
            arguments[field.name] = _build(hints[field.name], values, faulty, attributed, faults)
            is_whole = is_whole and arguments[field.name] is not None
        elif field.name in faulty:
            is_whole = False
        elif field.name in values:
            arguments[field.name] = values[field.name]
    if not is_whole:
        return None
    try:
        return config_class(**arguments)
    except ValueError as error:
        faults.extend(attributed(str(error)))
        return None


def _attributed(text: str, layers: Sequence[_Layer], known: Mapping[str, Option]) -> Iterable[_Fault]:
    """The faults in what a `__post_init__` said, each with the place where its option was given, spelled as there."""
    for part in re.split(f"; (?=(?:{'|'.join(known)}): )", text):
        name, colon, rest = part.partition(": ")
        if not colon or name not in known:
            yield _Fault(layers[-1].source, part)
            continue
        for layer in reversed(layers):
            if written := _written(layer, name):
                yield _Fault(layer.source, f"{written}: {rest}")
                break
        else:
            yield _Fault(layers[-1].source, f"{layers[-1].spell(name)}: {rest}")


def _written(layer: _Layer, name: str) -> str | None:
    """How a layer writes the option, if it gives it at all."""

    def search(values: Mapping[Any, Any]) -> str | None:
        for key, value in values.items():
            if str(key).replace("-", "_") == name:
                return layer.spell(str(key))
            if isinstance(value, Mapping) and (inside := search(value)):
                return inside
        return None

    return search(layer.values)


def _sentence(faults: Sequence[_Fault]) -> str:
    by_source: dict[str, list[str]] = {}
    for fault in faults:
        by_source.setdefault(fault.source, []).append(fault.text)
    return "; ".join(
        f"{source}: {texts[0]}" if len(texts) == 1 else f"{source} has {len(texts)} faults: {'; '.join(texts)}"
        for source, texts in by_source.items()
    )


def _shown(value: Any) -> str:
    """A value as YAML has it, at most 60 characters of it."""
    text = (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= 60 else text[:57] + "..."


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_dict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_as_json(item) for item in value]
    return value
