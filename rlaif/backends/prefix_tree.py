"""Prompts as a tree over token ids: what several begin with is one node, with the keys and values the model computed.

The tree holds what later prompts may share: a run's preamble and exemplars, a comparison's prompt and responses, a
rationale just generated. It forgets the leaves that were used longest ago.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(eq=False, slots=True)
class Node:
    """A stretch of tokens after those of its parents.

    Attributes:
        ids: Never empty but at the root.
        start: Position of the first token.
        keys, values: (layers, key-value heads, tokens, head size); None until computed. Computed nodes have computed
            parents.
        used: When a prompt last went through it.
    """

    ids: list[int]
    start: int
    parent: Node | None
    children: dict[int, Node] = field(default_factory=dict)
    keys: torch.Tensor | None = None
    values: torch.Tensor | None = None
    used: int = 0

    @property
    def stop(self) -> int:
        return self.start + len(self.ids)

    @property
    def is_computed(self) -> bool:
        return self.keys is not None

    def path(self) -> list[Node]:
        """From the first node below the root to this one."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None and node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


class PrefixTree:
    """The nodes, and how many tokens of them are computed."""

    def __init__(self) -> None:
        self.root = Node([], 0, None)
        self._now = 0

    def known_tokens(self, ids: Sequence[int]) -> int:
        """How many of the first tokens stand in the tree already, computed or about to be."""
        node, at = self.root, 0
        while at < len(ids) and (child := node.children.get(ids[at])) is not None:
            common = _common_length(child.ids, ids, at)
            at += common
            if common < len(child.ids):
                break
            node = child
        return at

    def place(self, ids: list[int]) -> Node:
        """The node whose end is the end of `ids`; made, and others split, as needed."""
        self._now += 1
        node, at = self.root, 0
        while at < len(ids):
            child = node.children.get(ids[at])
            if child is None:
                child = Node(ids[at:], at, node)
                node.children[ids[at]] = child
            else:
                common = _common_length(child.ids, ids, at)
                if common < len(child.ids):
                    child = self.split(child, common)
            child.used = self._now
            node, at = child, child.stop
        return node

    def split(self, node: Node, length: int) -> Node:
        """Cut a node after its first `length` tokens; returns the upper part."""
        assert node.parent is not None
        assert 0 < length < len(node.ids)
        upper = Node(node.ids[:length], node.start, node.parent, used=node.used)
        node.parent.children[upper.ids[0]] = upper
        upper.children[node.ids[length]] = node
        node.ids, node.start, node.parent = node.ids[length:], node.start + length, upper
        if node.keys is not None and node.values is not None:
            upper.keys, node.keys = node.keys[:, :, :length], node.keys[:, :, length:]
            upper.values, node.values = node.values[:, :, :length], node.values[:, :, length:]
        return upper

    def nodes(self) -> Iterator[Node]:
        """All but the root, parents before children."""
        pending = list(self.root.children.values())
        while pending:
            node = pending.pop()
            yield node
            pending += node.children.values()

    def shrink(self, max_tokens: int) -> None:
        """Forget leaves, those unused for longest first, until at most `max_tokens` are left."""
        total = sum(len(node.ids) for node in self.nodes())
        if total <= max_tokens:
            return
        while total > max_tokens:
            leaves = sorted((node for node in self.nodes() if not node.children), key=lambda node: node.used)
            for leaf in leaves:
                assert leaf.parent is not None
                del leaf.parent.children[leaf.ids[0]]
                total -= len(leaf.ids)
                if total <= max_tokens:
                    return

    def clear(self) -> None:
        """Forget everything."""
        self.root = Node([], 0, None)


def _common_length(head: list[int], ids: Sequence[int], at: int) -> int:
    """How many tokens `head` and `ids[at:]` begin with in common."""
    most = min(len(head), len(ids) - at)
    if head[:most] == ids[at : at + most]:
        return most
    low, high = 0, most - 1  # slices compare at C speed, so halving beats a loop over tokens
    while low < high:
        middle = (low + high + 1) // 2
        if head[low:middle] == ids[at + low : at + middle]:
            low = middle
        else:
            high = middle - 1
    return low
