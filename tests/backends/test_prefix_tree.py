"""Prompts as a tree: what is shared is one node."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from rlaif.backends.prefix_tree import Node, PrefixTree

PROMPTS = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12)


def text_of(node: Node) -> list[int]:
    return [token for part in node.path() for token in part.ids]


def compute(tree: PrefixTree) -> None:
    """Give each new node keys that hold its positions, so that a wrong cut shows."""
    for node in tree.nodes():
        if not node.is_computed:
            positions = torch.arange(node.start, node.stop, dtype=torch.float32)
            node.keys = node.values = positions.expand(2, 1, -1)[..., None]


def test_two_prompts_share_one_node() -> None:
    tree = PrefixTree()
    first = tree.place([1, 2, 3, 4])
    second = tree.place([1, 2, 5])
    assert (first.ids, first.start, second.ids, second.start) == ([3, 4], 2, [5], 2)
    assert first.parent is second.parent
    assert tree.known_tokens([1, 2, 3, 9]) == 3


def test_a_prompt_that_begins_another_ends_inside_it() -> None:
    tree = PrefixTree()
    longer = tree.place([1, 2, 3])
    shorter = tree.place([1, 2])
    assert longer.parent is shorter
    assert tree.place([1, 2]) is shorter


@given(PROMPTS)
def test_every_prompt_keeps_its_tokens_and_its_keys_in_place(prompts: list[list[int]]) -> None:
    tree = PrefixTree()
    leaves = []
    for prompt in prompts:
        leaves.append(tree.place(prompt))
        compute(tree)
    for prompt, leaf in zip(prompts, leaves, strict=True):
        assert text_of(leaf) == prompt
        assert tree.place(prompt) is leaf
        assert tree.known_tokens([*prompt, 9]) == len(prompt)
        keys = [node.keys[0, 0, :, 0].tolist() for node in leaf.path() if node.keys is not None]
        assert [position for part in keys for position in part] == list(range(len(prompt)))
    stored = {tuple(prompt[:end]) for prompt in prompts for end in range(1, len(prompt) + 1)}
    assert sum(len(node.ids) for node in tree.nodes()) == len(stored)


@given(PROMPTS, st.integers(0, 40))
def test_shrinking_keeps_within_the_limit_and_keeps_parents(prompts: list[list[int]], limit: int) -> None:
    tree = PrefixTree()
    for prompt in prompts:
        tree.place(prompt)
    tree.shrink(limit)
    nodes = list(tree.nodes())
    assert sum(len(node.ids) for node in nodes) <= limit
    assert all(node.parent is tree.root or node.parent in nodes for node in nodes)


def test_shrinking_forgets_what_was_unused_for_longest() -> None:
    tree = PrefixTree()
    for tail in (7, 8, 9):
        tree.place([1, 2, 3, tail, tail])
    tree.place([1, 2, 3, 7, 7])
    tree.shrink(7)
    assert [tree.known_tokens([1, 2, 3, tail, tail]) for tail in (7, 8, 9)] == [5, 3, 5]
