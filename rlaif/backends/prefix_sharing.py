"""Running a model on a tree of prompts: each token that prompts share is computed once, in one row without padding.

A batch's new tokens stand in one row; how they attend to each other and to what was computed before stands in
`tree_attention`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from rlaif.backends.model_runs import (
    Generated,
    GenerateJob,
    OnWritten,
    PaddedRunner,
    Scored,
    ScoreJob,
    decode,
    fitting,
    never,
    read_logprobs,
    unheard,
)
from rlaif.backends.prefix_tree import Node, PrefixTree
from rlaif.backends.tree_attention import ATTENTION, SharingUnsupportedError, StepPlan, TreePlan, running

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class SharingRunner:
    """Runs a model on what prompts do not share yet, and remembers keys and values.

    Args:
        model: A causal model in evaluation mode; its attention is replaced.
        max_batch_tokens: Most tokens computed in one batch; a longer prompt runs alone.
        max_cache_bytes: Memory for keys and values between batches; with 0 nothing is kept, and what is written is not
            even put aside.

    Raises:
        SharingUnsupportedError: The model's architecture needs another attention, or a trial gave other numbers.
    """

    def __init__(self, model: PreTrainedModel, *, max_batch_tokens: int, max_cache_bytes: int = 1 << 29) -> None:
        _check_config(model.config)
        self._model = model
        self._max_batch_tokens = 1 << 10  # for the trial
        self._max_cache_bytes = max_cache_bytes
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._tree = PrefixTree()
        self._check_by_trial()
        self._max_batch_tokens = max_batch_tokens

    def score(self, jobs: Sequence[ScoreJob]) -> dict[int, Scored]:
        rows, cached = self._fitting([job.ids for job in jobs])
        batch = [jobs[row] for row in rows]
        logits = self._extend([job.ids for job in batch])[1]
        self._forget()
        return dict(zip(rows, read_logprobs(logits, batch, cached), strict=True))

    def generate(
        self,
        jobs: Sequence[GenerateJob],
        stops: frozenset[int],
        is_cancelled: Callable[[], bool] = never,
        on_written: OnWritten = unheard,
    ) -> dict[int, Generated]:
        rows = self._fitting_texts([len(job.ids) + job.max_tokens for job in jobs])
        batch = [jobs[row] for row in rows]
        cached = self._known([job.ids for job in batch])
        leaves, logits = self._extend([job.ids for job in batch])
        decoding = _SharedDecoding(self, leaves, logits, cached, max(job.max_tokens for job in batch))
        generated = decode(decoding, batch, stops, is_cancelled, lambda at, text: on_written(rows[at], text))
        self._forget()
        return dict(zip(rows, generated, strict=True))

    def forget(self) -> None:
        """Forget all keys and values."""
        self._tree.clear()

    def _fitting(self, prompts: Sequence[list[int]]) -> tuple[list[int], list[int]]:
        """The first prompts while their new tokens fit, and how many tokens each need not compute."""
        rows: list[int] = []
        cached: list[int] = []
        load = 0
        for row, ids in enumerate(prompts):
            known = self._tree.known_tokens(ids)
            load += max(1, len(ids) - known)
            if rows and load > self._max_batch_tokens:
                break
            self._tree.place(ids)
            rows.append(row)
            cached.append(min(known, len(ids) - 1))
        return rows, cached

    def _fitting_texts(self, lengths: Sequence[int]) -> list[int]:
        """The first row and those of the nearest lengths, while the texts fit.

        A prompt that is sampled from several times is computed once, but each of its texts has keys and values of its
        own, in as much memory as the longest: at most half of it may be padding.
        """
        rows: list[int] = []
        load = 0
        for row in fitting(lengths, 2 * self._max_batch_tokens):
            load += lengths[row]
            if rows and load > self._max_batch_tokens:
                break
            rows.append(row)
        return rows

    def _known(self, prompts: Sequence[list[int]]) -> list[int]:
        """How many tokens each need not compute, those that one before it brings among them."""
        known = []
        for ids in prompts:
            known.append(min(self._tree.known_tokens(ids), len(ids) - 1))
            self._tree.place(ids)
        return known

    def _extend(self, prompts: Sequence[list[int]]) -> tuple[list[Node], torch.Tensor]:
        """Compute what is new of the prompts: their nodes, and the logits (B, V) after each."""
        try:
            leaves = [self._tree.place(ids) for ids in prompts]
            ends = {leaf: self._last_token(leaf) for leaf in leaves}  # a prompt that comes twice runs once
            plan = TreePlan(list(ends.values()), self._model.device, self._model.dtype)
            logits = self._run(plan, plan.ids, plan.positions, plan.end_rows)
            place = {leaf: index for index, leaf in enumerate(ends)}
            logits = logits[[place[leaf] for leaf in leaves]]
            plan.store()
        except BaseException:
            self._tree.clear()  # nodes without keys and values must not stay
            raise
        return leaves, logits

    def _last_token(self, leaf: Node) -> Node:
        """The node to run for the logits after `leaf`: itself when new, else a copy of its last token."""
        if not leaf.is_computed:
            return leaf
        before = self._tree.split(leaf, len(leaf.ids) - 1) if len(leaf.ids) > 1 else leaf.parent
        assert before is not None
        return Node(leaf.ids[-1:], leaf.stop - 1, before)

    def _run(
        self, plan: TreePlan | StepPlan, ids: Sequence[int], positions: Sequence[int], rows: Sequence[int]
    ) -> torch.Tensor:
        device = self._model.device
        wanted = torch.tensor(rows, device=device)
        options: dict[str, Any] = {"logits_to_keep": wanted} if self._keeps_logits else {}
        implementation = self._model.config._attn_implementation
        if implementation != ATTENTION:
            self._model.set_attn_implementation(ATTENTION)
        with running(plan):
            logits: torch.Tensor = self._model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                **options,
            ).logits[0]
        return logits if self._keeps_logits else logits[wanted]

    def _forget(self) -> None:
        node = next((node for node in self._tree.nodes() if node.keys is not None), None)
        if node is None or node.keys is None or node.values is None:
            return
        token_bytes = (node.keys.nbytes + node.values.nbytes) // len(node.ids)
        self._tree.shrink(self._max_cache_bytes // max(1, token_bytes))

    def _check_by_trial(self) -> None:
        """Compare with the plain way on prompts that share and branch: an architecture that differs shows here."""
        size = self._model.config.get_text_config().vocab_size
        numbers = [(7919 * index + 13) % size for index in range(48)]
        prompts = [numbers[:24], numbers[:12], numbers[:16] + numbers[30:40], numbers[:16] + numbers[30:36]]
        wanted = tuple(range(min(size, 1000)))
        jobs = [ScoreJob(ids, wanted) for ids in prompts]
        original = self._model.config._attn_implementation
        padded = PaddedRunner(self._model, max_batch_tokens=1)  # one prompt a batch
        with torch.no_grad():  # not inference mode: the model may be one that is trained afterwards
            expected = [padded.score([job])[0].logprobs for job in jobs]
            try:
                found = [*self.score(jobs[:2]).values(), *self.score(jobs[2:]).values()]
            except Exception as error:
                self._model.set_attn_implementation(original)
                raise SharingUnsupportedError(f"its attention cannot be replaced ({error})") from error
            finally:
                self._tree.clear()
        furthest = float((torch.tensor([one.logprobs for one in found]) - torch.tensor(expected)).abs().max())
        allowed = 1e-3 if self._model.dtype == torch.float32 else 0.5
        if not furthest <= allowed:
            self._model.set_attn_implementation(original)
            raise SharingUnsupportedError(f"a trial gave log-probabilities that differ by {furthest:.2g}")


class _SharedDecoding:
    """Prompts of the tree being continued; what they wrote is put into the tree as they end."""

    def __init__(
        self, runner: SharingRunner, leaves: Sequence[Node], logits: torch.Tensor, cached: list[int], max_tokens: int
    ) -> None:
        self.logits = logits
        self.cached_tokens = cached
        self._runner = runner
        self._ids = [[token for node in leaf.path() for token in node.ids] for leaf in leaves]
        self._slots = list(range(len(leaves)))  # where in keys and values each stands: the first ones, in any order
        longest = max(map(len, self._ids)) + max_tokens
        some = leaves[0].keys, leaves[0].values
        self._keys, self._values = (
            tensor.new_zeros(tensor.shape[0], len(leaves), tensor.shape[1], longest, tensor.shape[3])
            for tensor in some
            if tensor is not None
        )
        for row, leaf in enumerate(leaves):
            for node in leaf.path():
                assert node.keys is not None
                assert node.values is not None
                self._keys[:, row, :, node.start : node.stop] = node.keys
                self._values[:, row, :, node.start : node.stop] = node.values

    def step(self, tokens: Sequence[int]) -> None:
        order = sorted(range(len(tokens)), key=self._slots.__getitem__)
        positions = [len(self._ids[row]) for row in order]
        for ids, token in zip(self._ids, tokens, strict=True):
            ids.append(token)
        plan = StepPlan(self._keys[:, : len(order)], self._values[:, : len(order)], positions)
        logits = self._runner._run(plan, [tokens[row] for row in order], positions, range(len(tokens)))
        self.logits = logits[self._slots]

    def keep(self, rows: Sequence[int]) -> None:
        ended = sorted(set(range(len(self._ids))) - set(rows))
        for row in ended if self._runner._max_cache_bytes else ():
            self._store(row)
        # The last slots move into those that become free: closing the ranks would copy nearly all keys and values.
        free = sorted(slot for row in ended if (slot := self._slots[row]) < len(rows))
        self._ids, self._slots = [self._ids[row] for row in rows], [self._slots[row] for row in rows]
        for row, slot in enumerate(self._slots):
            if slot >= len(rows):
                to, length = free.pop(), len(self._ids[row])
                self._keys[:, to, :, :length] = self._keys[:, slot, :, :length]
                self._values[:, to, :, :length] = self._values[:, slot, :, :length]
                self._slots[row] = to

    def _store(self, row: int) -> None:
        node = self._runner._tree.place(self._ids[row])
        if not node.is_computed:
            slot = self._slots[row]
            node.keys = self._keys[:, slot, :, node.start : node.stop].clone()
            node.values = self._values[:, slot, :, node.start : node.stop].clone()


def _check_config(config: Any) -> None:
    """Refuse what a short trial would not show: windows and positions that depend on the length."""
    config = config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"}:
        raise SharingUnsupportedError(f"it has layers of the kind {', '.join(sorted(kinds - {'full_attention'}))}")
    if not kinds and getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise SharingUnsupportedError(f"its attention slides over {config.sliding_window} tokens")
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") in {"dynamic", "longrope"}:
        raise SharingUnsupportedError(f"its {rope['rope_type']} positions depend on the prompt's length")
