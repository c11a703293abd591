"""Running a model on a tree of prompts: each token that prompts share is computed once, in one row without padding.

A batch's new tokens stand in one row. Everything but attention works on tokens one by one, so the row needs nothing but
the right position of each token. Attention is ours: each subtree of the batch looks at the computed keys and values of
what stands before it, and at itself under a mask that lets a token see its own ancestors alone.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from rlaif.backends.model_runs import (
    Generated,
    GenerateJob,
    PaddedRunner,
    Scored,
    ScoreJob,
    decode,
    read_logprobs,
)
from rlaif.backends.prefix_tree import Node, PrefixTree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "rlaif_prefix_sharing"
_BLOCK_TOKENS = 1024
"""A subtree of at most this many tokens is attended in one go: fewer and larger operations, a mask that wastes more."""

_UNSUPPORTED_OPTIONS = ("sliding_window", "softcap", "s_aux", "position_bias")


class SharingUnsupportedError(Exception):
    """This model cannot run on a tree of prompts; the message says why. The padded runner takes over."""


class SharingRunner:
    """Runs a model on what prompts do not share yet, and remembers keys and values.

    Args:
        model: A causal model in evaluation mode; its attention is replaced.
        max_batch_tokens: Most tokens computed in one batch; a longer prompt runs alone.
        max_cache_bytes: Memory for keys and values between batches.

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

    def generate(self, jobs: Sequence[GenerateJob], stops: frozenset[int]) -> dict[int, Generated]:
        rows, cached = self._fitting([job.ids for job in jobs], [job.max_tokens for job in jobs])
        batch = [jobs[row] for row in rows]
        leaves, logits = self._extend([job.ids for job in batch])
        decoding = _SharedDecoding(self, leaves, logits, cached, max(job.max_tokens for job in batch))
        generated = decode(decoding, batch, stops)
        self._forget()
        return dict(zip(rows, generated, strict=True))

    def _fitting(self, prompts: Sequence[list[int]], extra: Sequence[int] = ()) -> tuple[list[int], list[int]]:
        """The first prompts while their new tokens fit, and how many tokens each need not compute."""
        rows: list[int] = []
        cached: list[int] = []
        load = 0
        for row, ids in enumerate(prompts):
            known = self._tree.known_tokens(ids)
            load += len(ids) + extra[row] if extra else max(1, len(ids) - known)
            if rows and load > self._max_batch_tokens:
                break
            self._tree.place(ids)
            rows.append(row)
            cached.append(min(known, len(ids) - 1))
        return rows, cached

    def _extend(self, prompts: Sequence[list[int]]) -> tuple[list[Node], torch.Tensor]:
        """Compute what is new of the prompts: their nodes, and the logits (B, V) after each."""
        try:
            leaves = [self._tree.place(ids) for ids in prompts]
            ends = {leaf: self._last_token(leaf) for leaf in leaves}  # a prompt that comes twice runs once
            plan = _TreePlan(list(ends.values()), self._model.device, self._model.dtype)
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
        self, plan: _TreePlan | _StepPlan, ids: Sequence[int], positions: Sequence[int], rows: Sequence[int]
    ) -> torch.Tensor:
        device = self._model.device
        wanted = torch.tensor(rows, device=device)
        options: dict[str, Any] = {"logits_to_keep": wanted} if self._keeps_logits else {}
        implementation = self._model.config._attn_implementation
        if implementation != _ATTENTION:
            self._model.set_attn_implementation(_ATTENTION)
        _active.plan = plan
        try:
            logits: torch.Tensor = self._model(
                input_ids=torch.tensor([ids], device=device),
                position_ids=torch.tensor([positions], device=device),
                use_cache=False,
                **options,
            ).logits[0]
        finally:
            _active.plan = None
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
        with torch.inference_mode():
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
        positions = [len(ids) for ids in self._ids]
        for ids, token in zip(self._ids, tokens, strict=True):
            ids.append(token)
        plan = _StepPlan(self._keys, self._values, positions)
        self.logits = self._runner._run(plan, tokens, positions, range(len(tokens)))

    def keep(self, rows: Sequence[int]) -> None:
        for row in sorted(set(range(len(self._ids))) - set(rows)):
            self._store(row)
        self._ids = [self._ids[row] for row in rows]
        if rows:
            index = torch.tensor(rows, device=self._keys.device)
            self._keys, self._values = self._keys[:, index], self._values[:, index]

    def _store(self, row: int) -> None:
        node = self._runner._tree.place(self._ids[row])
        if not node.is_computed:
            node.keys = self._keys[:, row, :, node.start : node.stop].clone()
            node.values = self._values[:, row, :, node.start : node.stop].clone()


@dataclass
class _Block:
    """Tokens `start:stop` of the row. They see `before` (computed), `spans` of the row, and themselves under `mask`."""

    start: int
    stop: int
    before: list[Node]
    spans: list[tuple[int, int]]
    mask: torch.Tensor


class _TreePlan:
    """A batch's new nodes in one row, parents before children, subtree after subtree.

    Args:
        ends: Nodes to run, with all of their parents that are not computed; the logits after each are wanted.
        device, dtype: Of the model.

    Attributes:
        ids, positions: The row.
        end_rows: Where in the row each of `ends` ends.
    """

    def __init__(self, ends: Sequence[Node], device: torch.device, dtype: torch.dtype) -> None:
        self.ids: list[int] = []
        self.positions: list[int] = []
        self._keys: list[torch.Tensor] = []
        self._values: list[torch.Tensor] = []
        self._spans: dict[Node, tuple[int, int]] = {}
        self._blocks: list[_Block] = []
        self._device, self._dtype = device, dtype
        branches: dict[Node, list[Node]] = {}
        tops: dict[Node, list[Node]] = {}
        for end in ends:
            above: Node | None = None
            path = end.path()
            for node in path:
                if node.is_computed:
                    continue
                if node not in branches:
                    branches[node] = []
                    if above is None:
                        tops[node] = [parent for parent in path if parent.is_computed]
                    else:
                        branches[above].append(node)
                above = node
        for top, before in tops.items():
            self._lay_out(top, branches)
            self._cut(top, branches, before, [])
        self.end_rows = [self._spans[end][1] - 1 for end in ends]

    def _lay_out(self, top: Node, branches: dict[Node, list[Node]]) -> None:
        pending = [top]
        while pending:
            node = pending.pop()
            self._spans[node] = (len(self.ids), len(self.ids) + len(node.ids))
            self.ids += node.ids
            self.positions += range(node.start, node.stop)
            pending += reversed(branches[node])

    def _cut(
        self, top: Node, branches: dict[Node, list[Node]], before: list[Node], spans: list[tuple[int, int]]
    ) -> None:
        """One block for a small subtree; for a large one the top alone and blocks for what hangs below it."""
        subtree = [top]
        for node in subtree:
            subtree += branches[node]
        start, stop = self._spans[top][0], max(self._spans[node][1] for node in subtree)
        if len(subtree) == 1 or stop - start <= _BLOCK_TOKENS:
            self._blocks.append(self._block(start, stop, subtree, before, spans))
            return
        own = self._spans[top]
        self._blocks.append(self._block(*own, [top], before, spans))
        for child in branches[top]:
            self._cut(child, branches, before, [*spans, own])

    def _block(
        self, start: int, stop: int, nodes: list[Node], before: list[Node], spans: list[tuple[int, int]]
    ) -> _Block:
        size = stop - start
        seen = sum(len(node.ids) for node in before) + sum(end - begin for begin, end in spans)
        sees = torch.zeros(size, seen + size, dtype=torch.bool)
        sees[:, :seen] = True
        inside = set(nodes)
        for node in nodes:
            begin, end = (place - start for place in self._spans[node])
            parent = node.parent
            while parent in inside:
                assert parent is not None
                first, last = (place - start for place in self._spans[parent])
                sees[begin:end, seen + first : seen + last] = True
                parent = parent.parent
            sees[begin:end, seen + begin : seen + end] = torch.ones(end - begin, end - begin, dtype=torch.bool).tril()
        # As numbers to add, once a batch: given as booleans, every layer would convert them again.
        mask = torch.zeros(sees.shape, dtype=self._dtype).masked_fill_(~sees, -torch.inf)
        return _Block(start, stop, before, spans, mask.to(self._device))

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """Attention of the row: query (1, H, N, D), key and value (1, H', N, D) -> (1, N, H, D')."""
        assert layer == len(self._keys)
        self._keys.append(key[0])
        self._values.append(value[0])
        mixed = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
        for block in self._blocks:
            span = slice(block.start, block.stop)
            keys = [node.keys[layer] for node in block.before if node.keys is not None]
            values = [node.values[layer] for node in block.before if node.values is not None]
            for begin, end in [*block.spans, (block.start, block.stop)]:
                keys.append(key[0, :, begin:end])
                values.append(value[0, :, begin:end])
            mixed[:, span] = scaled_dot_product_attention(
                query[:, :, span],
                torch.cat(keys, dim=1)[None],
                torch.cat(values, dim=1)[None],
                attn_mask=block.mask,
                scale=scale,
                enable_gqa=query.shape[1] != key.shape[1],
            ).transpose(1, 2)
        return mixed

    def store(self) -> None:
        """Give each node its keys and values."""
        for node, (begin, end) in self._spans.items():
            node.keys = torch.stack([key[:, begin:end] for key in self._keys])
            node.values = torch.stack([value[:, begin:end] for value in self._values])


class _StepPlan:
    """One more token for each of B prompts, whose keys and values stand in (layers, B, H', T, D)."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, lengths: Sequence[int]) -> None:
        self._keys, self._values = keys, values
        self._rows = torch.arange(len(lengths), device=keys.device)
        self._lengths = torch.tensor(lengths, device=keys.device)
        self._longest = max(lengths) + 1
        sees = torch.arange(self._longest, device=keys.device)[None] <= self._lengths[:, None]
        mask = torch.zeros(sees.shape, dtype=keys.dtype, device=keys.device).masked_fill_(~sees, -torch.inf)
        self._mask = mask[:, None, None]

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
    ) -> torch.Tensor:
        """As `_TreePlan.attend`, with N = B."""
        self._keys[layer, self._rows, :, self._lengths] = key[0].transpose(0, 1)
        self._values[layer, self._rows, :, self._lengths] = value[0].transpose(0, 1)
        mixed = scaled_dot_product_attention(
            query.transpose(0, 2),
            self._keys[layer, :, :, : self._longest],
            self._values[layer, :, :, : self._longest],
            attn_mask=self._mask,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return mixed.permute(2, 0, 1, 3)


class _Active(threading.local):
    """The plan of the forward pass that runs on this thread."""

    plan: _TreePlan | _StepPlan | None = None


_active = _Active()


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """The attention that transformers calls in each layer."""
    asked = [name for name in _UNSUPPORTED_OPTIONS if options.get(name) is not None]
    if asked or _active.plan is None or attention_mask is not None:
        raise SharingUnsupportedError(f"it asks for {', '.join(asked) or 'a mask of its own'}")
    layer = module.layer_idx
    assert isinstance(layer, int)
    return _active.plan.attend(layer, query, key, value, scaling), None


ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attend)


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
