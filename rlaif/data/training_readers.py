"""What the columns of rows that are trained on mean: pairs with their labels, responses with their scores, unpaired
feedback, demonstrations. Pure: values in; a `Comparison` or `Candidates`, whose `extra` holds the label, or an
`InputError` out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from rlaif.data.answers import probability_of
from rlaif.data.aux_rewards import AUX_COLUMNS, AuxCells, aux_of_pair, aux_of_response, find_aux_of_pair
from rlaif.data.candidates import RESPONSE_ALIASES, CandidatesPlan, CandidatesReader
from rlaif.data.columns import (
    PROMPT_ALIASES,
    Cell,
    RowFault,
    described,
    find_cell,
    find_prompt,
    finite_number,
    missing_prompt,
)
from rlaif.data.comparisons import ComparisonPlan, ComparisonReader
from rlaif.data.training_methods import MethodNeeds, TrainingOptions
from rlaif.errors import ConfigError
from rlaif.records import Candidates, Comparison, Verdict

_FEEDBACK_WORDS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True, slots=True)
class PairPlan(ComparisonPlan):
    """Which columns of a pair mean what; `prob` is P(chosen preferred) where the two are chosen and rejected."""

    prob: Cell | None
    margin: Cell | None
    is_given: bool
    """Whether chosen and rejected stand for themselves, without a probability."""

    aux: AuxCells | None
    """None where auxiliary rewards were not asked for."""


@dataclass
class PairReader(ComparisonReader):
    """Reads pairs with their labels. `extra` of what it reads holds `prob_a`, `margin` and `aux_rewards`, and no other
    column."""

    our_columns = (*ComparisonReader.our_columns, "prob_a", "chosen_prob", "margin", *AUX_COLUMNS)

    options: TrainingOptions = field(default_factory=lambda: TrainingOptions("dpo"))

    def is_given(self, row: Mapping[str, Any]) -> bool:
        """Whether a row that can be read says which response was chosen, and no probability."""
        plan = self._plan_of(tuple(row))
        assert isinstance(plan, PairPlan)
        return plan.is_given

    def _plan(self, keys: tuple[str, ...]) -> PairPlan:
        plan = super()._plan(keys)
        present = set(keys)
        prob = find_cell("prob_a", (), present, self.columns)
        chosen_prob = find_cell("chosen_prob", (), present, self.columns) if plan.is_ranked else None
        margin = find_cell("margin", (), present, self.columns) if self.options.with_margins else None
        if self.options.with_margins and margin is None:
            raise RowFault(f"is missing; the row has: {', '.join(keys)}", "margin")
        if plan.is_ranked and prob is not None and chosen_prob is None:
            raise RowFault(
                "stands beside chosen and rejected, and which of them it calls A is not said; expected columns "
                "response_a and response_b, or name them with --columns response_a=chosen,response_b=rejected",
                prob.path,
            )
        return PairPlan(
            id=plan.id,
            prompt=plan.prompt,
            extras=(),
            first=plan.first,
            second=plan.second,
            is_ranked=plan.is_ranked,
            votes=plan.votes,
            label=plan.label,
            prob=chosen_prob if plan.is_ranked else prob,
            margin=margin,
            is_given=plan.is_ranked and chosen_prob is None,
            aux=find_aux_of_pair(present, self.columns, is_ranked=plan.is_ranked) if self.options.with_aux else None,
        )

    def _record(self, row: Mapping[str, Any], plan: ComparisonPlan, given_id: str | None) -> Comparison:
        assert isinstance(plan, PairPlan)
        comparison = super()._record(row, plan, given_id)
        is_reversed = plan.is_ranked and comparison.human_label is Verdict.B
        first, second = comparison.response_a, comparison.response_b
        for response, cell in zip(
            (second, first) if is_reversed else (first, second), (plan.first, plan.second), strict=True
        ):
            _check_not_empty(self.options.needs, (response,), cell.path)
        prob = 1.0 if plan.is_given else None
        if plan.prob is not None:
            prob = probability_of(plan.prob.of(row), plan.prob.path, "a probability from 0 to 1")
        prob_a = None if prob is None else 1.0 - prob if is_reversed else prob
        if plan.is_ranked and not plan.is_given:  # a judge chose, not people
            comparison = replace(comparison, human_label=None)
        self._check_label(row, plan, prob_a, comparison)
        margin = None if plan.margin is None else _margin(plan.margin.of(row), plan.margin.path)
        aux = () if plan.aux is None else aux_of_pair(row, plan.aux)
        return replace(
            comparison,
            extra={"prob_a": prob_a, "margin": margin, "aux_rewards": aux[::-1] if is_reversed else aux},
        )

    def _check_label(
        self, row: Mapping[str, Any], plan: PairPlan, prob_a: float | None, comparison: Comparison
    ) -> None:
        labels = self.options.labels
        if labels != "human":
            if prob_a is None:
                column = "prob_a" if plan.prob is None else plan.prob.path
                found = "is missing" if plan.prob is None else f"is {_shown(plan.prob.of(row))}"
                raise RowFault(
                    f"{found}, expected the probability from 0 to 1 that --labels {labels} trains on; label the rows "
                    "first (rlaif label), or train on people's labels with --labels human",
                    column,
                )
            return
        if self.options.filters.only_human or comparison.human_votes or comparison.human_label is not None:
            return
        cell = plan.label or plan.votes
        raise RowFault(
            f"{'is missing' if cell is None else 'holds no label'}, expected human_votes or human_label for "
            "--labels human; keep only rows that people labeled, or train on the judge's labels with --labels soft",
            "human_label" if cell is None else cell.path,
        )


def _margin(value: Any, column: str) -> float:
    margin = finite_number(value)
    if margin is None or margin < 0.0:
        raise RowFault(f"is {described(value)}, expected a number, at least 0", column)
    return margin


@dataclass(frozen=True, slots=True)
class RatedPlan(CandidatesPlan):
    """Which columns of rated candidates mean what."""

    scores: tuple[tuple[str, Cell], ...]
    """By our name for them; the first ones that are not all null are taken."""


@dataclass
class RatedReader(CandidatesReader):
    """Reads responses with their scores, ratings before rewards where there are both and the ratings are not null, as a
    reward model leaves them. The first row decides which. The `extra` of what it reads holds `scores`, and no other
    column.

    Raises:
        ConfigError: As `CandidatesReader`; or two columns of scores are renamed.
    """

    our_columns = (*CandidatesReader.our_columns, "rating", "reward", "ratings", "rewards")
    expected = "a prompt with a response and its rating, or with lists of responses and ratings, a row"

    options: TrainingOptions = field(default_factory=lambda: TrainingOptions("rrhf"))
    _scores: str | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        named = [name for name in ("rating", "reward", "ratings", "rewards") if name in self.columns]
        if len(named) > 1:
            raise ConfigError(f"--columns names {' and '.join(map(repr, named))}, expected one column of scores")

    def _plan(self, keys: tuple[str, ...]) -> RatedPlan:
        plan = super()._plan(keys)
        names = ["rating", "reward"] if plan.is_single else ["ratings", "rewards"]
        names.sort(key=lambda name: name not in self.columns)  # a renamed one was chosen
        cells = [(name, find_cell(name, (), set(keys), self.columns)) for name in names]
        scores = tuple((name, cell) for name, cell in cells if cell is not None)
        if not scores:
            also = f"is missing, and {names[1]} too; rate the rows first (rlaif rate)"
            raise RowFault(f"{also}; the row has: {', '.join(keys)}", names[0])
        if names[0] in self.columns:
            scores = scores[:1]
        return RatedPlan(
            id=plan.id, prompt=plan.prompt, extras=(), responses=plan.responses, is_single=plan.is_single, scores=scores
        )

    def _record(self, row: Mapping[str, Any], plan: CandidatesPlan, given_id: str | None) -> Candidates:
        assert isinstance(plan, RatedPlan)
        candidates = super()._record(row, plan, given_id)
        responses, needs = candidates.responses, self.options.needs
        _check_not_empty(needs, responses, plan.responses.path)
        if not plan.is_single and len(responses) < needs.fewest_responses:
            reason = f"is a list of {len(responses)}, expected at least {needs.fewest_responses} responses"
            raise RowFault(f"{reason}, which {needs.method} ranks", plan.responses.path)
        value, path = self._found(row, plan.scores)
        if plan.is_single:
            return replace(candidates, extra={"scores": (_score(value, path, "is"),)})
        return replace(candidates, extra={"scores": _scores_of(value, path, len(responses))})

    def _found(self, row: Mapping[str, Any], cells: tuple[tuple[str, Cell], ...]) -> tuple[Any, str]:
        """The scores, and where they stand."""
        name, cell = next(((name, cell) for name, cell in cells if not _is_null(cell.of(row))), cells[0])
        self._scores = self._scores or name
        if name != self._scores:
            reason = f"holds the scores that the first row has in {self._scores!r}, expected one column for all rows"
            raise RowFault(reason, cell.path)
        return cell.of(row), cell.path


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, list | tuple) and bool(value) and all(each is None for each in value))


def _scores_of(value: Any, column: str, count: int) -> tuple[float, ...]:
    expected = f"a list of {count} numbers, one a response"
    if isinstance(value, str):  # CSV has no lists
        with suppress(orjson.JSONDecodeError):  # what is no list is refused below
            value = orjson.loads(value)
    if not isinstance(value, list | tuple) or len(value) != count:
        raise RowFault(f"is {described(value)}, expected {expected}", column)
    return tuple(_score(each, column, f"number {place} is") for place, each in enumerate(value, 1))


def _score(value: Any, column: str, found: str) -> float:
    score = finite_number(value)
    if score is None:
        raise RowFault(f"{found} {_shown(value)}, expected a finite number", column)
    return score


@dataclass(frozen=True, slots=True)
class FeedbackPlan(CandidatesPlan):
    """Which columns of unpaired feedback mean what."""

    label: Cell
    aux: Cell | None


@dataclass
class FeedbackReader(CandidatesReader):
    """Reads unpaired feedback. The `extra` of what it reads holds `label`, a bool, and `aux_rewards`, and no other
    column."""

    our_columns = ("id", "prompt", "response", "label", "aux_rewards")
    expected = "a prompt with a response and its label a row"

    options: TrainingOptions = field(default_factory=lambda: TrainingOptions("kto"))

    def _plan(self, keys: tuple[str, ...]) -> FeedbackPlan:
        plan = super()._plan(keys)
        if not plan.is_single:
            raise RowFault("holds several responses, expected one and its label", plan.responses.path)
        label = find_cell("label", (), set(keys), self.columns)
        if label is None:
            raise RowFault(f"is missing, expected true or false; the row has: {', '.join(keys)}", "label")
        aux = find_cell("aux_rewards", (), set(keys), self.columns) if self.options.with_aux else None
        return FeedbackPlan(
            id=plan.id, prompt=plan.prompt, extras=(), responses=plan.responses, is_single=True, label=label, aux=aux
        )

    def _record(self, row: Mapping[str, Any], plan: CandidatesPlan, given_id: str | None) -> Candidates:
        assert isinstance(plan, FeedbackPlan)
        candidates = super()._record(row, plan, given_id)
        _check_not_empty(self.options.needs, candidates.responses, plan.responses.path)
        label = _is_desirable(plan.label.of(row), plan.label.path)
        aux = (aux_of_response(row, plan.aux),) if self.options.with_aux else ()
        return replace(candidates, extra={"label": label, "aux_rewards": aux})


def _is_desirable(value: Any, column: str) -> bool:
    if isinstance(value, bool):
        return value
    # str() of a number: 1, 1.0 and their texts in a CSV file are one label.
    label = _FEEDBACK_WORDS.get(str(value).strip().lower()) if isinstance(value, int | float | str) else None
    if label is None:
        raise RowFault(f"is {_shown(value)}, expected true or false (or 1, 0)", column)
    return label


@dataclass
class DemonstrationReader(ComparisonReader):
    """Reads responses to be imitated: each is read as if it were both chosen and rejected, so that message lists,
    transcripts and implicit prompts mean here what they mean there."""

    our_columns = ("id", "prompt", "response", "messages")
    expected = "a prompt with a response, or a conversation that ends with the assistant, a row"

    options: TrainingOptions = field(default_factory=lambda: TrainingOptions("sft"))

    def _plan(self, keys: tuple[str, ...]) -> ComparisonPlan:
        present = set(keys)
        response = messages = prompt = None
        if "messages" not in self.columns:
            response = find_cell("response", (*RESPONSE_ALIASES, "chosen"), present, self.columns)
        if "response" not in self.columns:
            messages = find_cell("messages", (), present, self.columns)
        has_prompt = "prompt" in self.columns or not present.isdisjoint(("prompt", *PROMPT_ALIASES))
        if response is not None and (has_prompt or messages is None):
            prompt = find_prompt(keys, self.columns)
            if prompt is None and response.path != "chosen":  # only chosen, as in pairs, may hold its prompt
                raise missing_prompt(keys)
            taken = response
        elif messages is not None:
            taken = messages  # a prompt beside it is its first message, or a summary of it
        else:
            also = ", ".join((*RESPONSE_ALIASES, "chosen"))
            raise RowFault(
                f"is missing, and messages too (also taken: {also}); the row has: {', '.join(keys) or 'nothing'}",
                "response",
            )
        identity = find_cell("id", (), present, self.columns)
        return ComparisonPlan(
            id=identity, prompt=prompt, extras=(), first=taken, second=taken, is_ranked=True, votes=None, label=None
        )

    def _record(self, row: Mapping[str, Any], plan: ComparisonPlan, given_id: str | None) -> Comparison:
        comparison = super()._record(row, plan, given_id)
        _check_not_empty(self.options.needs, (comparison.response_a,), plan.first.path)
        return comparison


def _check_not_empty(needs: MethodNeeds, responses: Iterable[str], column: str) -> None:
    if needs.why_not_empty and not all(responses):
        reason = f"holds an empty response, expected text: {needs.method} {needs.why_not_empty}"
        raise RowFault(f"{reason}; skip such rows with --skip-bad-rows", column)


def _shown(value: Any) -> str:
    return "empty" if value == "" else described(value)
