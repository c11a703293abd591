"""Find, render and fingerprint prompt templates.

Templates are sandboxed Jinja files and are rendered once: a value is put in and never looked at again, so braces,
`{{ ... }}` or `{% ... %}` in a response stay text. What came in through a variable is told apart from the template's
own text (`Segment.is_template`), so that a backend can keep special tokens in the former inert.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import jinja2
import jinja2.meta
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rlaif.assets import find_asset, shipped_names
from rlaif.errors import PromptError, did_you_mean
from rlaif.judge.config import PreambleStyle
from rlaif.records import Comparison, Message, Order, Segment, Turn

_NONCE = secrets.token_hex(16)
_OPEN, _CLOSE = f"\x00<{_NONCE}<\x00", f"\x00>{_NONCE}>\x00"
_MARKED = re.compile(f"{re.escape(_OPEN)}(.*?){re.escape(_CLOSE)}", re.DOTALL)
"""Marks around each value while a template renders; the nonce is new in each process and never leaves it."""


def _mark_value(value: object) -> object:
    """Jinja's `finalize`: runs on the value of each `{{ ... }}`."""
    if isinstance(value, jinja2.Undefined):
        return value  # StrictUndefined raises when it is printed
    if value is None:
        raise PromptError("a template prints a variable that is none here; guard it with {% if %}")
    text = str(value)
    return text if _OPEN in text else f"{_OPEN}{text}{_CLOSE}"  # the output of a macro is marked already


def _segments(marked: str) -> tuple[Segment, ...]:
    parts = _MARKED.split(marked)
    if any(_NONCE[:8] in text.lower() for text in parts):  # a part: truncated marks are marks, too
        raise PromptError(
            "a {% filter %} block, or a filter on captured text, changes what stands around a value; "
            "apply filters to the values themselves, {{ response_1 | upper }}"
        )
    return tuple(Segment(text, index % 2 == 0) for index, text in enumerate(parts) if text)


@dataclass(frozen=True)
class Exemplars:
    """Worked examples of one task, from the YAML beside its template."""

    path: str
    items: tuple[Mapping[str, Any], ...]

    def first(self, shots: int, *, flag: str = "--shots") -> tuple[Mapping[str, Any], ...]:
        """The first `shots` of them; `flag` is what asked for them.

        Raises:
            PromptError: There are fewer.
        """
        if shots > len(self.items):
            raise PromptError(f"{self.path} holds {len(self.items)} exemplars; {flag} {shots} asks for more")
        return self.items[:shots]


Kind = Literal["pairwise", "rating", "binary", "critique", "revision"]
"""The folders of `prompts`: the first three ask for a label, the others for text."""


class PromptTemplate:
    """One template, with what is the same in all its renderings.

    Args:
        path: Of the .jinja file.
        constants: Variables of every rendering, exemplars among them.

    Raises:
        PromptError: The template cannot be parsed.
    """

    kind: ClassVar[Kind]

    def __init__(self, path: Path, constants: Mapping[str, Any]) -> None:
        self._path = path
        self._environment = _environment(path.parent)
        self._template = _load(self._environment, path)
        self._constants = dict(constants)

    def _render(self, variables: Mapping[str, object]) -> tuple[Segment, ...]:
        try:
            return _segments(self._template.render(**self._constants, **variables))
        except PromptError as error:
            raise PromptError(f"{self._path.name}: {error}") from error
        except jinja2.UndefinedError as error:
            known = ", ".join(sorted({*self._constants, *variables}))
            raise PromptError(f"{self._path.name}: {error.message}; a {self.kind} template has: {known}") from error
        except Exception as error:  # a template is the user's program: whatever it raises is the template's fault
            raise PromptError(f"{self._path.name}: {error or type(error).__name__}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the template, all it extends or includes, and the exemplars and switches in use."""
        digest = hashlib.sha256()
        for source in _sources(self._environment, self._path):
            digest.update(hashlib.sha256(source.encode()).digest())
        if self._constants.get("cot"):  # a second call may ask with it
            digest.update(render_verdict_cue(self.kind).content.encode())
        digest.update(repr(sorted(self._constants.items(), key=lambda item: item[0])).encode())
        return digest.hexdigest()


class JudgeTemplate(PromptTemplate):
    """A template that asks for a label, with its preamble style, exemplars and chain-of-thought switch.

    Args:
        task: A shipped task, or the path of a .jinja file. A file may extend "KIND/base.jinja".
        preamble: "base" or "detailed".
        shots: Exemplars to show.
        cot: Ask for reasons before the verdict.

    Raises:
        PromptError: The template or its exemplars cannot be found or parsed.
    """

    def __init__(self, task: str, *, preamble: PreambleStyle = "base", shots: int = 0, cot: bool = False) -> None:
        self.task = task
        path = find_asset("prompts", _template_name(self.kind, task))
        super().__init__(path, {"preamble": preamble, "exemplars": (), "cot": cot})
        if shots:
            self._constants["exemplars"] = load_exemplars(path).first(shots)


class PairwiseTemplate(JudgeTemplate):
    """Shows two responses and asks for the better one."""

    kind = "pairwise"

    def render(
        self, comparison: Comparison, order: Order, *, principle: str | None = None, verdict_in_reply: bool = False
    ) -> tuple[Message, ...]:
        """The messages that show `comparison` in `order`; byte for byte what the template says.

        Args:
            comparison: What is judged.
            order: Which response stands in the first slot.
            principle: The text of the principle to judge by; None asks the task's own question.
            verdict_in_reply: With chain of thought: ask for the verdict at the end of the same reply.

        Raises:
            PromptError: The template uses a variable that does not exist, or does what the sandbox forbids.
        """
        response_1, response_2 = comparison.in_slots(order)
        variables = {
            **_prompt_variables(comparison.prompt),
            "response_1": response_1,
            "response_2": response_2,
            "principle": principle,
            "verdict_in_reply": verdict_in_reply,
        }
        return (Message("user", self._render(variables)),)


class RatingTemplate(JudgeTemplate):
    """Shows one response and asks for a score from 1 to 10."""

    kind = "rating"

    def render(
        self, prompt: Sequence[Turn], response: str, *, principle: str | None = None, verdict_in_reply: bool = False
    ) -> tuple[Message, ...]:
        """The messages that show `response`; byte for byte what the template says.

        Args:
            prompt: The conversation that it answers.
            response: What is rated.
            principle, verdict_in_reply: As for `PairwiseTemplate.render`.

        Raises:
            PromptError: The template uses a variable that does not exist, or does what the sandbox forbids.
        """
        variables = {
            **_prompt_variables(prompt),
            "response": response,
            "principle": principle,
            "verdict_in_reply": verdict_in_reply,
        }
        return (Message("user", self._render(variables)),)


class BinaryTemplate(JudgeTemplate):
    """Shows one response and asks a question about it that is answered by yes or no."""

    kind = "binary"

    def render(self, prompt: Sequence[Turn], response: str, *, verdict_in_reply: bool = False) -> tuple[Message, ...]:
        """The messages that show `response`; byte for byte what the template says. Arguments and errors are those of
        `RatingTemplate.render`."""
        variables = {**_prompt_variables(prompt), "response": response, "verdict_in_reply": verdict_in_reply}
        return (Message("user", self._render(variables)),)


class _DialogueTemplate(PromptTemplate):
    """A step of a critique and its revision. Both show the same worked dialogues, so that the second one's prompt
    begins with the whole of the first one's.

    Args:
        shots: Dialogues to show.

    Raises:
        PromptError: There are fewer.
    """

    def __init__(self, *, shots: int = 0) -> None:
        dialogues = load_exemplars(find_asset("prompts", "critique/base.jinja")) if shots else None
        exemplars = dialogues.first(shots, flag="--revision-shots") if dialogues else ()
        super().__init__(find_asset("prompts", f"{self.kind}/base.jinja"), {"exemplars": exemplars})


class CritiqueTemplate(_DialogueTemplate):
    """Shows a response and asks what is wrong with it."""

    kind = "critique"

    def render(self, prompt: Sequence[Turn], response: str, critique_request: str) -> tuple[Message, ...]:
        """The messages that ask for a critique of `response`, an answer to `prompt`; byte for byte as in the file."""
        variables = {**_prompt_variables(prompt), "response": response, "critique_request": critique_request}
        return (Message("user", self._render(variables)),)


class RevisionTemplate(_DialogueTemplate):
    """Goes on where the critique's template ends, and asks for a better response."""

    kind = "revision"

    def render(
        self, prompt: Sequence[Turn], response: str, critique_request: str, critique: str, revision_request: str
    ) -> tuple[Message, ...]:
        """The messages that ask for `response` as it should have been, after the critique that was written of it."""
        variables = {
            **_prompt_variables(prompt),
            "response": response,
            "critique_request": critique_request,
            "critique": critique,
            "revision_request": revision_request,
        }
        return (Message("user", self._render(variables)),)


@cache
def render_verdict_cue(kind: Kind = "pairwise") -> Message:
    """The message that asks for the verdict alone, after the reasons."""
    path = find_asset("prompts", f"{kind}/verdict.jinja")
    return Message("user", _segments(_load(_environment(path.parent), path).render()))


def load_exemplars(template: Path) -> Exemplars:
    """Exemplars of a template: `exemplars/NAME.yaml` in its folder, or `NAME.yaml` beside it.

    Raises:
        PromptError: There is no such file, or it is no list of mappings.
    """
    places = [template.parent / "exemplars" / f"{template.stem}.yaml", template.with_suffix(".yaml")]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise PromptError(f"{template.name} has no exemplars; write {places[1].name} beside it, or use --shots 0")
    try:
        items = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PromptError(f"{path.name} is no valid YAML: {error}") from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PromptError(f"{path.name}: expected a list of exemplars, each a mapping")
    return Exemplars(path.name, tuple(items))


def shipped_tasks(kind: Kind = "pairwise") -> tuple[str, ...]:
    """Names that `--task` takes, besides paths."""
    names = (Path(name) for name in shipped_names("prompts"))
    return tuple(name.name for name in names if name.parent == Path(kind) and name.name not in ("base", "verdict"))


def _template_name(kind: Kind, task: str) -> str:
    if task.endswith(".jinja"):
        return task
    if task not in (known := shipped_tasks(kind)):
        raise PromptError(
            f"unknown task {task!r}{did_you_mean(task, known)}; known: {', '.join(known)}, or the path of a .jinja file"
        )
    return f"{kind}/{task}.jinja"


def _prompt_variables(prompt: Sequence[Turn]) -> dict[str, object]:
    transcript = "\n\n".join(f"{turn.role.capitalize()}: {turn.content}" for turn in prompt)
    return {"prompt": prompt[0].content if len(prompt) == 1 else transcript, "turns": prompt}


def _environment(folder: Path) -> jinja2.Environment:
    shipped = find_asset("prompts", "pairwise/base.jinja").parent.parent
    return ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader([str(folder), str(shipped)]),
        undefined=jinja2.StrictUndefined,
        finalize=_mark_value,
        auto_reload=False,
        autoescape=False,  # a prompt is text for a model, not HTML
    )


def _load(environment: jinja2.Environment, path: Path) -> jinja2.Template:
    try:
        return environment.get_template(path.name)
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(f"{error.name or path.name}, line {error.lineno}: {error.message}") from error
    except (jinja2.TemplateError, OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path.name}: {error}") from error


def _sources(environment: jinja2.Environment, path: Path) -> Sequence[str]:
    """The template's source and those of everything it refers to, in the order found."""
    found: dict[str, str] = {}
    pending = [path.name]
    while pending:
        name = pending.pop()
        if name in found:
            continue
        assert environment.loader is not None
        found[name] = environment.loader.get_source(environment, name)[0]
        referred = jinja2.meta.find_referenced_templates(environment.parse(found[name]))
        pending.extend(reference for reference in referred if reference is not None)
    return list(found.values())
