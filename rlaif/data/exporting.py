r"""Labeled pairs as the rows that other trainers read: one format each. Pure: a pair in, rows out, or why it has none.
What the files are called and how they are loaded is told by `export_loading`; files are written by `row_files`.

Each format carries what its consumer's source reads, and little else: a column that a user happens to have may mean
something there (TRL's reward loss takes any `margin` off the difference, and DPO any `ref_chosen_logps`), so no column
of the input's is handed on. Read at:

- trl, trl-conversational, kto: TRL 1.16.0, `trl/trainer/dpo_trainer.py`, `reward_trainer.py`, `kto_trainer.py`.
- openrlhf: OpenRLHF 0.11.0 (commit 3c3be6234e0c), `openrlhf/datasets/reward_dataset.py`, `preprocess_data`.
- axolotl: axolotl 0.18.0 (commit 067b021c8b87), `prompt_strategies/dpo/chat_template.py`, `default`, and
  `prompt_strategies/bradley_terry/chat_template.py`, both under `src/axolotl`; a response as a text since June 2025.
- halos: HALOs (commit 4831988636b4), `train/data.py`, `get_feedback`.
- hh: the files of Anthropic/hh-rlhf, and `rlaif.data.comparisons`, which reads them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from rlaif.data.comparisons import SPEAKERS, TRANSCRIPT_MARK
from rlaif.records import Turn, Verdict, verdict_of

ExportRow = dict[str, Any]
Kind = Literal["text", "messages", "number", "flag", "integer"]

LEAST_PROB = 1e-6
"""A probability nearer to 0 or 1 counts as this far from it where its logit is taken: nobody is infinitely sure."""

LABEL_COLUMNS: Mapping[str, Kind] = {"chosen_prob": "number", "score_chosen": "number", "score_rejected": "number"}

_WORDS = {role: word for word, role in SPEAKERS.items()}
_AXOLOTL_ROLES = {"developer": "system"}
"""Roles that axolotl has not, by what it calls them."""

_AXOLOTL_DUMMY = "[[dummy_message]]"


@dataclass(frozen=True, slots=True)
class ExportPair:
    """A pair that is exported; it is decided.

    Attributes:
        id: Unique in its input.
        prompt: The conversation so far; at least one turn.
        response_a, response_b: The responses; the empty string is valid.
        prob_a: P(A preferred), in [0, 1].
        is_given: Whether the input only says which was chosen; `prob_a` is then 1 or 0, and no probability of a judge.
    """

    id: str
    prompt: tuple[Turn, ...]
    response_a: str
    response_b: str
    prob_a: float
    is_given: bool = False

    @property
    def is_a_chosen(self) -> bool:
        """As in labeled rows: in a tie, A is."""
        return verdict_of(self.prob_a) is not Verdict.B

    @property
    def chosen(self) -> str:
        return self.response_a if self.is_a_chosen else self.response_b

    @property
    def rejected(self) -> str:
        return self.response_b if self.is_a_chosen else self.response_a

    @property
    def chosen_prob(self) -> float:
        """P(chosen preferred), in [0.5, 1]."""
        return max(self.prob_a, 1.0 - self.prob_a)

    @property
    def margin(self) -> float:
        """By how much the chosen response's reward leads under the Bradley-Terry model, in nats, at least 0: the logit
        of `chosen_prob`, at most that of 1 - `LEAST_PROB` (13.8)."""
        prob = min(self.chosen_prob, 1.0 - LEAST_PROB)
        return math.log(prob / (1.0 - prob))


@dataclass(frozen=True, slots=True)
class FileLayout:
    """What is the same for all rows of a file.

    Attributes:
        is_conversational: Of kto: prompts and completions are message lists.
        has_probs: Any pair has a probability; without, the columns made of it are left out.
        with_margin: A column `margin` was asked for.
        is_single_turn: Every prompt is one user turn, after a system turn or not.
        split: "train" or "test" where the rows are split; of halos.
    """

    is_conversational: bool = False
    has_probs: bool = True
    with_margin: bool = False
    is_single_turn: bool = True
    split: str | None = None


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """How pairs are written for a consumer.

    Attributes:
        name: On the command line.
        extensions: Of files that the consumer opens.
        columns: Name -> what it holds, in the order of the row, for a layout.
        rows_of: The rows of a pair that fits.
        why_unfit: Why a pair cannot be written so that the consumer reads what it says; None where it can.
        is_changed: Whether a row says a little less than the pair does, as `change` tells.
        change: In words, to follow a number of pairs.
        takes_margin: Whether the consumer reads `margin`.
        is_unpaired: Whether each response is a row of its own, and a tie therefore none.
    """

    name: str
    extensions: tuple[str, ...]
    columns: Callable[[FileLayout], dict[str, Kind]]
    rows_of: Callable[[ExportPair, FileLayout], tuple[ExportRow, ...]]
    why_unfit: Callable[[ExportPair, FileLayout], str | None]
    is_changed: Callable[[ExportPair], bool] = lambda pair: False
    change: str = ""
    takes_margin: bool = False
    is_unpaired: bool = False


def unfit_reason(export_format: ExportFormat, pair: ExportPair, layout: FileLayout) -> str | None:
    """Why a pair has no row in this format; None for one that has."""
    if layout.with_margin and pair.is_given:
        return "the row says which response was chosen, and no probability to make a margin of"
    return export_format.why_unfit(pair, layout)


def is_one_user_turn(prompt: tuple[Turn, ...], *, or_after_system: bool = False) -> bool:
    """Whether a prompt is a single user turn, with `or_after_system` also one that follows a system turn."""
    turns = prompt[1:] if or_after_system and prompt[0].role in ("system", "developer") else prompt
    return len(turns) == 1 and turns[0].role == "user"


def pair_digest(prompt: tuple[Turn, ...], response: str) -> bytes:
    """What tells a prompt with a response from all others, in 16 bytes."""
    return hashlib.sha256(orjson.dumps([*map(list, prompt), response])).digest()[:16]


# --- TRL and OpenRLHF -------------------------------------------------------------------------------------------------


def _messages(turns: tuple[Turn, ...]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _said(response: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response}]


def _label_columns(layout: FileLayout) -> dict[str, Kind]:
    margin: dict[str, Kind] = {"margin": "number"} if layout.with_margin else {}
    return {**(LABEL_COLUMNS if layout.has_probs else {}), **margin}


def _label_values(pair: ExportPair, layout: FileLayout) -> ExportRow:
    """What rides along: the soft label, and scores whose difference is its logit. Null where there is none."""
    values: ExportRow = {}
    if layout.has_probs:
        half = None if pair.is_given else pair.margin / 2.0
        values = {
            "chosen_prob": None if pair.is_given else pair.chosen_prob,
            "score_chosen": half,
            "score_rejected": None if half is None else 0.0 - half,  # never -0.0
        }
    return {**values, "margin": pair.margin} if layout.with_margin else values


def _pair_columns(kind: Kind) -> Callable[[FileLayout], dict[str, Kind]]:
    def columns(layout: FileLayout) -> dict[str, Kind]:
        return {"id": "text", "prompt": kind, "chosen": kind, "rejected": kind, **_label_columns(layout)}

    return columns


def _text_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    row = {"id": pair.id, "prompt": pair.prompt[0].content, "chosen": pair.chosen, "rejected": pair.rejected}
    return ({**row, **_label_values(pair, layout)},)


def _message_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    row = {
        "id": pair.id,
        "prompt": _messages(pair.prompt),
        "chosen": _said(pair.chosen),
        "rejected": _said(pair.rejected),
    }
    return ({**row, **_label_values(pair, layout)},)


def _why_no_text(pair: ExportPair, layout: FileLayout) -> str | None:
    if is_one_user_turn(pair.prompt):
        return None
    roles = ", ".join(turn.role for turn in pair.prompt)
    return f"the prompt has turns of {roles}, and as plain text it can have one of user; export trl-conversational"


def _kto_columns(layout: FileLayout) -> dict[str, Kind]:
    kind: Kind = "messages" if layout.is_conversational else "text"
    return {"prompt": kind, "completion": kind, "label": "flag"}


def _kto_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    def row(response: str, is_desirable: bool) -> ExportRow:
        if layout.is_conversational:
            return {"prompt": _messages(pair.prompt), "completion": _said(response), "label": is_desirable}
        return {"prompt": pair.prompt[0].content, "completion": response, "label": is_desirable}

    return row(pair.chosen, True), row(pair.rejected, False)


def _why_no_kto(pair: ExportPair, layout: FileLayout) -> str | None:
    if layout.is_conversational or is_one_user_turn(pair.prompt):
        return None
    roles = ", ".join(turn.role for turn in pair.prompt)
    return f"the prompt has turns of {roles}, and as plain text it can have one of user; export with --conversational"


def _always_fits(pair: ExportPair, layout: FileLayout) -> str | None:
    return None


# --- axolotl ----------------------------------------------------------------------------------------------------------


def _axolotl_columns(layout: FileLayout) -> dict[str, Kind]:
    reward_model: dict[str, Kind] = {"system": "text", "input": "text"} if layout.is_single_turn else {}
    responses: dict[str, Kind] = {"chosen": "text", "rejected": "text"}
    return {"id": "text", "messages": "messages", **reward_model, **responses, **_label_columns(layout)}


def _axolotl_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    turns = tuple(Turn(_AXOLOTL_ROLES.get(turn.role, turn.role), turn.content) for turn in pair.prompt)
    row: ExportRow = {"id": pair.id, "messages": _messages(turns)}
    if layout.is_single_turn:
        row |= {"system": turns[0].content if len(turns) == 2 else "", "input": turns[-1].content}
    row |= {"chosen": pair.chosen.strip(), "rejected": pair.rejected.strip()}
    return ({**row, **_label_values(pair, layout)},)


def _why_no_axolotl(pair: ExportPair, layout: FileLayout) -> str | None:
    """axolotl renders each response after a dummy message, and cuts where it first finds the response in that."""
    for response in (pair.chosen, pair.rejected):
        if not response.strip():
            return "a response is empty, and axolotl stops at those"
        if response.strip() in _AXOLOTL_DUMMY:
            return f"the response {response.strip()!r} is part of '{_AXOLOTL_DUMMY}', where axolotl would find it first"
    return None


def _is_changed_for_axolotl(pair: ExportPair) -> bool:
    """Outer whitespace goes: where a chat template trims, axolotl looks for it in vain, and keeps one character of the
    response."""
    return (
        any(turn.role in _AXOLOTL_ROLES for turn in pair.prompt)
        or pair.response_a != pair.response_a.strip()
        or pair.response_b != pair.response_b.strip()
    )


# --- HALOs ------------------------------------------------------------------------------------------------------------


def _halos_columns(layout: FileLayout) -> dict[str, Kind]:
    columns: dict[str, Kind] = {
        "id": "text",
        "type": "text",
        "prompt_id": "text",
        "prompt": "messages",
        "output_A": "messages",
        "output_B": "messages",
        "label": "integer",
        "reward_A": "number",
        "reward_B": "number",
    }
    return {**columns, "split": "text"} if layout.split is not None else columns


def _halos_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    # What HALOs itself takes for the score of a response that has none is 1, or -1.
    half = 1.0 if pair.is_given else pair.margin / 2.0
    reward_a = half if pair.is_a_chosen else 0.0 - half
    row = {
        "id": pair.id,
        "type": "pairwise_feedback",
        "prompt_id": pair_digest(pair.prompt, "").hex(),
        "prompt": _messages(pair.prompt),
        "output_A": _said(pair.response_a),
        "output_B": _said(pair.response_b),
        "label": int(pair.is_a_chosen),
        "reward_A": reward_a,
        "reward_B": 0.0 - reward_a,
    }
    return ({**row, "split": layout.split} if layout.split is not None else row,)


# --- HH ---------------------------------------------------------------------------------------------------------------


def transcript_of(turns: tuple[Turn, ...]) -> str:
    r"""Turns of user and assistant as in Anthropic/hh-rlhf.

    >>> transcript_of((Turn("user", "Hi"), Turn("assistant", "Hello")))
    '\n\nHuman: Hi\n\nAssistant: Hello'
    """
    return "".join(f"\n\n{_WORDS[turn.role]}: {turn.content}" for turn in turns)


def _hh_columns(layout: FileLayout) -> dict[str, Kind]:
    return {"chosen": "text", "rejected": "text"}


def _hh_rows(pair: ExportPair, layout: FileLayout) -> tuple[ExportRow, ...]:
    sides = (pair.chosen, pair.rejected)
    chosen, rejected = (transcript_of((*pair.prompt, Turn("assistant", response))) for response in sides)
    return ({"chosen": chosen, "rejected": rejected},)


def _why_no_hh(pair: ExportPair, layout: FileLayout) -> str | None:
    roles = [turn.role for turn in pair.prompt]
    if strange := [role for role in roles if role not in _WORDS]:
        return f"the prompt has a turn of {strange[0]}, and a transcript has Human and Assistant; use another format"
    if roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or len(roles) % 2 == 0:
        found = ", ".join(roles)
        return f"the prompt has turns of {found}; in a transcript user and assistant alternate, and user comes last"
    for turn in (*pair.prompt, Turn("assistant", pair.response_a), Turn("assistant", pair.response_b)):
        if mark := TRANSCRIPT_MARK.search(turn.content):
            return f"a text of {turn.role} holds {mark[0]!r}, where readers of transcripts begin a new turn"
    return None


# --- all of them ------------------------------------------------------------------------------------------------------

_ALL = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")

EXPORT_FORMATS: Mapping[str, ExportFormat] = {
    each.name: each
    for each in (
        ExportFormat("trl", _ALL, _pair_columns("text"), _text_rows, _why_no_text, takes_margin=True),
        ExportFormat(
            "trl-conversational", _ALL, _pair_columns("messages"), _message_rows, _always_fits, takes_margin=True
        ),
        # it chooses the loader by the last extension, and knows no .gz
        ExportFormat("openrlhf", _ALL[:3], _pair_columns("messages"), _message_rows, _always_fits, takes_margin=True),
        ExportFormat(
            "axolotl",
            _ALL,
            _axolotl_columns,
            _axolotl_rows,
            _why_no_axolotl,
            _is_changed_for_axolotl,
            "lost the whitespace around a response, or have system in place of developer, as axolotl needs it",
        ),
        ExportFormat("kto", _ALL, _kto_columns, _kto_rows, _why_no_kto, is_unpaired=True),
        ExportFormat("halos", (".json",), _halos_columns, _halos_rows, _always_fits),
        ExportFormat("hh", _ALL, _hh_columns, _hh_rows, _why_no_hh),
    )
}
