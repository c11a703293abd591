"""Constitutions: load principles from our YAML and from the formats in the wild, choose among them, fingerprint them.

Formats, told apart by their keys (YAML is a superset of JSON, so one safe loader reads both):

    ours             {name, description, principles: [{id, text, source?, weight?}]}, each with critique_request and
                     revision_request where it is for revising too
    CAI              {ID: {prompt, edit_request}, ...}, or a list of such entries
    HF llm-swarm     {"constitutions": [{critic, revision}, ...], "system_chat": ...}
    named pairs      [{name, critique_request, revision_request}, ...], also under a key "principles" or "constitutions"
    plain list       ["Choose the response that ...", ...]: comparison principles as they are

The middle three hold requests for critique and revision, which ask about one response. `comparison_text` turns a
critique request into a comparison principle by quoting it inside a fixed sentence; `critique_request_of` takes it out
again, and the requests themselves are kept, to the letter, in `Principle.critique_request` and `revision_request`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rlaif.assets import find_asset
from rlaif.config import parse_yaml
from rlaif.errors import ConstitutionError, did_you_mean
from rlaif.policy_records import RevisionRequests
from rlaif.randomness import seeded_random

_FRAME = "Imagine a reviewer is asked this about each response, and prefer the response with less to answer for: "

_MARKERS = re.compile(r"^\s*(?:Critique|Revision) ?Request:\s*|\s*(?:Critique|Revision):\s*$")
"""How CAI's few-shot dialogues frame a request; no part of the request itself."""

_OUR_FIELDS = ("id", "text", "source", "weight", "critique_request", "revision_request")


@dataclass(frozen=True, slots=True)
class Principle:
    """One thing to judge by.

    Attributes:
        id: Unique in its constitution; names the principle in `by_principle` and `--principles`.
        text: What the judge is told, as a criterion for choosing between two responses.
        source: Where it comes from.
        weight: Its share in the weighted mean over principles, relative to the others; positive.
        critique_request, revision_request: What a reviser is asked, where the file says so.
    """

    id: str
    text: str
    source: str | None = None
    weight: float = 1.0
    critique_request: str | None = None
    revision_request: str | None = None


@dataclass(frozen=True, slots=True)
class Constitution:
    """Principles under one name.

    Attributes:
        name: As in the file, else the file's stem.
        principles: At least one; ids are unique.
        description: What it is for.
        system_chat: Example conversations that came with an HF file, kept for revision.
    """

    name: str
    principles: tuple[Principle, ...]
    description: str = ""
    system_chat: tuple[tuple[tuple[str, str], ...], ...] = ()

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that can change a label: ids, texts, weights and requests; not name, source or layout."""
        content = [
            [each.id, each.text, each.weight, each.critique_request, each.revision_request] for each in self.principles
        ]
        canonical = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def comparison_text(critique_request: str) -> str:
    """A comparison principle out of a critique request: the request, quoted in a fixed sentence.

    >>> text = comparison_text("Point out where the reply is rude.")
    >>> critique_request_of(text)
    'Point out where the reply is rude.'
    """
    return f"{_FRAME}{_MARKERS.sub('', critique_request).strip()}"


def critique_request_of(text: str) -> str | None:
    """The critique request inside a text made by `comparison_text`; None for any other text."""
    return text.removeprefix(_FRAME) if text.startswith(_FRAME) else None


def load_constitution(name_or_path: str) -> Constitution:
    """Read a constitution.

    Args:
        name_or_path: A shipped constitution's name, or a YAML or JSON file in one of the formats above.

    Raises:
        ConstitutionError: Nothing goes by that name, or the file is no constitution; says which entry and field.
    """
    path = find_asset("constitutions", name_or_path)
    return parse_constitution(_read_yaml(path), path=str(path))


def parse_constitution(content: Any, *, path: str) -> Constitution:
    """A constitution out of a loaded file; `path` is for messages, and its stem is the name where the file has none.

    Raises:
        ConstitutionError: As `load_constitution`.
    """
    name, description = Path(path).stem, ""
    system_chat: tuple[tuple[tuple[str, str], ...], ...] = ()
    entries: Any = content
    if isinstance(content, Mapping):
        key = next((key for key in ("principles", "constitutions") if key in content), None)
        if key is not None:
            entries = content[key]
            _refuse_unknown(content, (key, "name", "description", "system_chat", "version", "license"), path)
            name = _text(content, "name", path) or name
            description = _text(content, "description", path) or ""
            system_chat = _chats(content.get("system_chat"), path)
    principles = _principles(entries, path)
    seen: dict[str, int] = {}
    for number, principle in enumerate(principles, 1):
        if principle.id in seen:
            raise ConstitutionError(
                f"{path}: entry {number} has the id {principle.id!r} of entry {seen[principle.id]}; ids must be unique"
            )
        seen[principle.id] = number
    return Constitution(name, principles, description, system_chat)


def choose_principles(constitution: Constitution, spec: str, *, seed: int, row_id: str) -> tuple[Principle, ...]:
    """The principles one row is judged by.

    Args:
        constitution: Where they come from.
        spec: "all"; "sample" (one, drawn from seed and row); or ids joined by commas, in the order they are wanted.
        seed, row_id: For the draw.

    Raises:
        ConstitutionError: An id is unknown, given twice, or none is given.
    """
    if spec == "all":
        return constitution.principles
    if spec == "sample":
        return (seeded_random(seed, row_id, "principle").choice(constitution.principles),)
    known = {principle.id: principle for principle in constitution.principles}
    wanted = [each for each in (part.strip() for part in spec.split(",")) if each]
    if not wanted:
        raise ConstitutionError(f"no principle is named in {spec!r}; expected all, sample, or ids: {', '.join(known)}")
    for each in wanted:
        if each not in known:
            raise ConstitutionError(
                f"constitution {constitution.name!r} has no principle {each!r}{did_you_mean(each, known)}; "
                f"known: {', '.join(known)}"
            )
        if wanted.count(each) > 1:
            raise ConstitutionError(
                f"principle {each!r} is named twice in {spec!r}; name it once, and weigh it instead"
            )
    return tuple(known[each] for each in wanted)


def revision_requests(constitution: Constitution, spec: str) -> tuple[RevisionRequests, ...]:
    """What a response can be revised by: the principles with both requests, without the marks of CAI's dialogues.

    Args:
        constitution: Where they come from.
        spec: As in `choose_principles`: ids joined by commas leave these; "all" and "sample" leave all that have both.

    Raises:
        ConstitutionError: None has both, or one that was named has not; says which entries lack what.
    """
    is_named = spec not in ("all", "sample")
    principles = choose_principles(constitution, spec, seed=0, row_id="") if is_named else constitution.principles
    found, lacking = [], []
    for each in principles:
        requests = {"critique_request": each.critique_request, "revision_request": each.revision_request}
        if missing := [field for field, request in requests.items() if request is None]:
            lacking.append(f"{each.id} (no {' and no '.join(missing)})")
        else:
            critique, revision = (_MARKERS.sub("", request or "").strip() for request in requests.values())
            found.append(RevisionRequests(each.id, critique, revision))
    if lacking and (is_named or not found):
        raise ConstitutionError(
            f"constitution {constitution.name!r} cannot revise by {', '.join(lacking)}; give the entries a "
            "critique_request and a revision_request, or choose another constitution"
        )
    return tuple(found)


def _read_yaml(path: Path) -> Any:
    # YAML loaded here and not at the top: it costs start-up time that a run without a constitution need not pay.
    import yaml

    try:
        text = path.read_text(encoding="utf-8-sig")
        # JSON allows tabs between tokens and paired surrogate escapes, and YAML does not: read it as what it is.
        if path.suffix == ".json":
            return json.loads(text, object_pairs_hook=partial(_unique, path))
        return parse_yaml(text, str(path), ConstitutionError)
    except UnicodeDecodeError as error:
        raise ConstitutionError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise ConstitutionError(f"{path}, line {error.lineno}: not valid JSON: {error.msg}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise ConstitutionError(f"{where}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except OSError as error:
        raise ConstitutionError(f"{path}: cannot be read: {error.strerror}") from None
    except ConstitutionError:
        raise
    except ValueError as error:  # a date that is none
        raise ConstitutionError(f"{path}: not valid YAML: {error}") from None


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; refuses keys that stand twice, of which the last would hide the others."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise ConstitutionError(f"{path}: {key!r} stands twice in one object")
        content[key] = value
    return content


def _principles(entries: Any, path: str) -> tuple[Principle, ...]:
    if isinstance(entries, Mapping):  # CAI's dict of entries; the keys are the ids
        if any(not isinstance(value, Mapping) for value in entries.values()):
            has = ", ".join(map(str, entries))
            raise ConstitutionError(f"{path} has no field 'principles' (nor 'constitutions'); it has: {has}")
        numbered: Sequence[tuple[str | None, Any]] = [(str(key), value) for key, value in entries.items()]
    elif isinstance(entries, list):
        numbered = [(None, value) for value in entries]
    else:
        raise ConstitutionError(
            f"{path}: holds {_described(entries)}, expected a mapping with 'principles' or 'constitutions', "
            "entries with 'prompt' and 'edit_request', or a list of principles"
        )
    if not numbered:
        raise ConstitutionError(f"{path}: holds no principles, expected at least one")
    return tuple(_principle(value, key, number, path) for number, (key, value) in enumerate(numbered, 1))


def _principle(entry: Any, key: str | None, number: int, path: str) -> Principle:
    where = f"{path}: entry {number}" + (f" ({key!r})" if key else "")
    fallback_id = key or f"principle-{number}"
    if isinstance(entry, str):
        if not entry.strip():
            raise ConstitutionError(f"{where} is an empty text, expected a principle")
        return Principle(fallback_id, entry.strip())
    if not isinstance(entry, Mapping):
        raise ConstitutionError(f"{where} is {_described(entry)}, expected a text or a mapping with 'text'")
    if key is None and isinstance(entry.get("id", entry.get("name")), str):
        where += f" ({entry.get('id', entry.get('name'))!r})"
    if "text" in entry:
        return _our_principle(entry, fallback_id, where)
    for critique_field, revision_field in (
        ("critique_request", "revision_request"),
        ("critic", "revision"),
        ("prompt", "edit_request"),
    ):
        if critique_field in entry or revision_field in entry:
            _refuse_unknown(entry, ("id", "name", "source", "weight", critique_field, revision_field), where)
            critique = _required_text(entry, critique_field, where)
            return Principle(
                id=_text(entry, "id", where) or _text(entry, "name", where) or fallback_id,
                text=comparison_text(critique),
                source=_text(entry, "source", where),
                weight=_weight(entry, where),
                critique_request=critique,
                revision_request=_required_text(entry, revision_field, where),
            )
    has = ", ".join(map(str, entry)) or "nothing"
    raise ConstitutionError(
        f"{where} has no field 'text' (nor critique_request and revision_request, critic and revision, or prompt and "
        f"edit_request); it has: {has}"
    )


def _our_principle(entry: Mapping[str, Any], fallback_id: str, where: str) -> Principle:
    _refuse_unknown(entry, (*_OUR_FIELDS, "name"), where)
    principle_id = _text(entry, "id", where) or _text(entry, "name", where) or fallback_id
    if "," in principle_id or principle_id in ("all", "sample"):
        raise ConstitutionError(
            f"{where}, field 'id': {principle_id!r} cannot be named in --principles; "
            "expected an id without commas, other than 'all' and 'sample'"
        )
    return Principle(
        id=principle_id,
        text=_required_text(entry, "text", where).strip(),
        source=_text(entry, "source", where),
        weight=_weight(entry, where),
        critique_request=_text(entry, "critique_request", where),
        revision_request=_text(entry, "revision_request", where),
    )


def _text(entry: Mapping[str, Any], field: str, where: str) -> str | None:
    value = entry.get(field)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ConstitutionError(f"{where}, field {field!r}: is {_described(value)}, expected a text")
    if not value.strip():
        raise ConstitutionError(f"{where}, field {field!r}: is empty, expected a text")
    return value


def _required_text(entry: Mapping[str, Any], field: str, where: str) -> str:
    value = _text(entry, field, where)
    if value is None:
        raise ConstitutionError(f"{where} has no field {field!r}; it has: {', '.join(map(str, entry))}")
    return value


def _weight(entry: Mapping[str, Any], where: str) -> float:
    value = entry.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ConstitutionError(f"{where}, field 'weight': is {value!r}, expected a number above 0")
    return float(value)


def _chats(value: Any, path: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    if value is None:
        return ()
    try:
        return tuple(tuple((str(turn["role"]), str(turn["content"])) for turn in chat) for chat in value)
    except (TypeError, KeyError):
        raise ConstitutionError(f"{path}, field 'system_chat': expected a list of lists of {{role, content}}") from None


def _refuse_unknown(entry: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for field in entry:
        if field not in known:
            hint = did_you_mean(str(field), known)
            raise ConstitutionError(f"{where} has an unknown field {str(field)!r}{hint}; known: {', '.join(known)}")


def _described(value: Any) -> str:
    if value is None:
        return "empty"
    return f"a {type(value).__name__}" if isinstance(value, Mapping | list) else f"{value!r}"
