"""What it takes to run a causal model on prompts of token ids, and the plain way to do it: padded batches.

`PaddedRunner` works for every architecture. `prefix_sharing.SharingRunner` computes what prompts share once and is used
where it gives the same numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

from rlaif.backends.drawing import Draw, Drawer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class ScoreJob(NamedTuple):
    """A prompt, never empty, and the tokens whose log-probability after it is wanted."""

    ids: list[int]
    wanted: tuple[int, ...]


class Scored(NamedTuple):
    """Log-probabilities (nats) of the wanted tokens; `cached_tokens` of the prompt were not computed for this job."""

    logprobs: list[float]
    cached_tokens: int


class GenerateJob(NamedTuple):
    """A prompt, never empty, to be continued.

    `temperature` 0 is greedy; `top_p` 1 draws from all tokens; `seed` alone decides the draws, whatever shares the
    batch. `wants_logprobs`: the log-probabilities of what is written are wanted too.
    """

    ids: list[int]
    max_tokens: int
    temperature: float
    seed: int
    top_p: float = 1.0
    wants_logprobs: bool = False


class Generated(NamedTuple):
    """The new tokens, with the one that ended them (`is_stopped`), if one did; `is_broken` where the logits after them
    are no numbers.

    `logprobs` are those of `ids` (nats) where the job wants them, else none: at the job's temperature and before its
    nucleus; of greedy tokens at temperature 1.
    """

    ids: list[int]
    is_stopped: bool
    cached_tokens: int
    is_broken: bool = False
    logprobs: Sequence[float] = ()


OnWritten: TypeAlias = Callable[[int, Generated], None]
"""Takes a job's index and what was written."""


class CancelledRunError(Exception):
    """The caller asked to stop; what the batch had written is lost."""


def never() -> bool:
    """For runs that nobody cancels."""
    return False


def unheard(index: int, generated: Generated) -> None:
    """For runs whose texts are waited for until all have ended."""


class Decoding(Protocol):
    """Prompts being continued together. `logits` is (B, V): what each may say next."""

    logits: torch.Tensor
    cached_tokens: list[int]

    def step(self, tokens: Sequence[int]) -> None:
        """Append a token to each prompt."""

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only; with none, the end."""


class Runner(Protocol):
    """Runs a model; used from one thread."""

    def score(self, jobs: Sequence[ScoreJob]) -> dict[int, Scored]:
        """Score as many jobs, the first among them, as fit into one batch: index -> result."""

    def generate(
        self,
        jobs: Sequence[GenerateJob],
        stops: frozenset[int],
        is_cancelled: Callable[[], bool] = never,
        on_written: OnWritten = unheard,
    ) -> dict[int, Generated]:
        """Continue as many jobs, the first among them, as fit into one batch: index -> result.

        Args:
            jobs: At least one.
            stops: Tokens that end a text.
            is_cancelled: Asked before each token.
            on_written: Told of each text, by its job's index, as soon as it has ended; what it raises ends the run.

        Raises:
            CancelledRunError: `is_cancelled` said True.
        """

    def forget(self) -> None:
        """Forget what earlier batches computed: the model's weights may have changed."""


def read_logprobs(logits: torch.Tensor, jobs: Sequence[ScoreJob], cached: Sequence[int]) -> list[Scored]:
    """Each row's exact log-probabilities of the tokens its job wants; `logits` is (B, V), any dtype."""
    logprobs = logits.float().log_softmax(-1)
    columns = sorted({token for job in jobs for token in job.wanted})
    place = {token: index for index, token in enumerate(columns)}
    values: list[list[float]] = logprobs[:, columns].tolist()
    return [
        Scored([row[place[token]] for token in job.wanted], count)
        for row, job, count in zip(values, jobs, cached, strict=True)
    ]


def decode(
    decoding: Decoding,
    jobs: Sequence[GenerateJob],
    stops: frozenset[int],
    is_cancelled: Callable[[], bool],
    on_written: OnWritten,
) -> list[Generated]:
    """Continue every job until it stops or has its tokens. Raises as `Runner.generate` does."""
    written: list[list[int]] = [[] for _ in jobs]
    logprobs: list[list[float]] = [[] for _ in jobs]
    reads_logprobs = any(job.wants_logprobs for job in jobs)
    drawer = Drawer([Draw(job.temperature, job.top_p, job.seed) for job in jobs], reads_logprobs=reads_logprobs)
    cached = list(decoding.cached_tokens)
    ended: dict[int, Generated] = {}
    rows = list(range(len(jobs)))
    while True:
        if is_cancelled():
            raise CancelledRunError
        going = []
        drawn = drawer.next_tokens(decoding.logits, rows)
        for place, (row, token, logprob) in enumerate(zip(rows, *drawn, strict=True)):
            if token is not None:
                written[row].append(token)
                logprobs[row].append(logprob)
                if token not in stops and len(written[row]) < jobs[row].max_tokens:
                    going.append(place)
                    continue
            found = logprobs[row] if jobs[row].wants_logprobs else ()
            ended[row] = Generated(written[row], token in stops, cached[row], token is None, found)
            on_written(row, ended[row])
        if not going:
            decoding.keep([])
            return [ended[row] for row in range(len(jobs))]
        if len(going) < len(rows):
            decoding.keep(going)
            rows = [rows[place] for place in going]
        decoding.step([written[row][-1] for row in rows])


def fitting(lengths: Sequence[int], max_batch_tokens: int) -> list[int]:
    """The first row and those of the nearest lengths, while the padded batch fits; the first in any case."""
    order = sorted(range(len(lengths)), key=lambda row: (abs(lengths[row] - lengths[0]), row))
    taken: list[int] = []
    longest = 0
    for row in order:
        longest = max(longest, lengths[row])
        if taken and longest * (len(taken) + 1) > max_batch_tokens:
            break
        taken.append(row)
    return taken


class PaddedRunner:
    """Each prompt in its own row, padded on the left, so that the last column is every prompt's last token.

    Args:
        model: A causal model in evaluation mode.
        max_batch_tokens: Most tokens in a batch, padding included; a longer prompt runs alone.
    """

    def __init__(self, model: PreTrainedModel, *, max_batch_tokens: int) -> None:
        self._model = model
        self._max_batch_tokens = max_batch_tokens
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters

    def score(self, jobs: Sequence[ScoreJob]) -> dict[int, Scored]:
        rows = fitting([len(job.ids) for job in jobs], self._max_batch_tokens)
        unique = {tuple(jobs[row].ids): None for row in rows}
        place = {ids: index for index, ids in enumerate(unique)}
        logits = _PaddedDecoding(self._model, list(unique), self._keeps_logits, with_cache=False).logits
        batch = [jobs[row] for row in rows]
        scored = read_logprobs(logits[[place[tuple(job.ids)] for job in batch]], batch, [0] * len(batch))
        return dict(zip(rows, scored, strict=True))

    def generate(
        self,
        jobs: Sequence[GenerateJob],
        stops: frozenset[int],
        is_cancelled: Callable[[], bool] = never,
        on_written: OnWritten = unheard,
    ) -> dict[int, Generated]:
        rows = fitting([len(job.ids) + job.max_tokens for job in jobs], self._max_batch_tokens)
        batch = [jobs[row] for row in rows]
        unique = list(dict.fromkeys(tuple(job.ids) for job in batch))
        decoding = _PaddedDecoding(self._model, unique, self._keeps_logits, with_cache=True)
        if len(unique) < len(batch):  # several samples of a prompt: it is computed once
            place = {ids: index for index, ids in enumerate(unique)}
            decoding.spread([place[tuple(job.ids)] for job in batch])
        generated = decode(decoding, batch, stops, is_cancelled, lambda at, text: on_written(rows[at], text))
        return dict(zip(rows, generated, strict=True))

    def forget(self) -> None:
        """Nothing is kept between batches."""


class _PaddedDecoding:
    def __init__(
        self, model: PreTrainedModel, prompts: Sequence[Sequence[int]], keeps_logits: bool, *, with_cache: bool
    ) -> None:
        import torch

        width = max(map(len, prompts))
        padding = [width - len(ids) for ids in prompts]
        self._model = model
        self._options = {"use_cache": with_cache, **({"logits_to_keep": 1} if keeps_logits else {})}
        self._mask = torch.tensor(
            [[0] * pad + [1] * (width - pad) for pad in padding], device=model.device, dtype=torch.long
        )
        tokens = torch.tensor([[0] * pad + list(ids) for pad, ids in zip(padding, prompts, strict=True)])
        self.cached_tokens = [0] * len(prompts)
        self._cache = None
        self._run(tokens.to(model.device), (self._mask.cumsum(-1) - 1).clamp(min=0))

    def _run(self, tokens: torch.Tensor, positions: torch.Tensor) -> None:
        output = self._model(
            input_ids=tokens,
            attention_mask=self._mask,
            position_ids=positions,
            past_key_values=self._cache,
            **self._options,
        )
        self._cache = output.past_key_values if self._options["use_cache"] else None
        self.logits = output.logits[:, -1]

    def spread(self, places: Sequence[int]) -> None:
        """Continue the prompts at these places from now on; one that is named again is computed by the first."""
        self.keep(places)
        self.logits = self.logits[list(places)]
        first = {place: row for row, place in reversed(list(enumerate(places)))}
        lengths = self._mask.sum(-1).tolist()
        self.cached_tokens = [
            0 if first[place] == row else length - 1
            for row, (place, length) in enumerate(zip(places, lengths, strict=True))
        ]

    def step(self, tokens: Sequence[int]) -> None:
        import torch

        column = torch.tensor(tokens, device=self._mask.device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(column)], dim=1)
        self._run(column, self._mask.sum(-1, keepdim=True) - 1)

    def keep(self, rows: Sequence[int]) -> None:
        import torch

        index = torch.tensor(rows, device=self._mask.device, dtype=torch.long)
        assert self._cache is not None
        self._cache.batch_select_indices(index)
        self._mask = self._mask[index]
