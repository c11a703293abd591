"""What is to be said where matches do not tell who is how much stronger. Pure."""

from __future__ import annotations

from collections.abc import Sequence

NO_OTHER = "there are fewer than two policies to compare"
NOT_JOINED = "no chain of comparisons leads between some policies (see groups)"

_MOST_NAMED = 6


def unconnected_note(groups: Sequence[Sequence[str]], *, is_joined: bool) -> str:
    """Why strengths needed prior matches.

    Args:
        groups: Names of the items that chains of wins lead between, one that never lost to another first; or that any
            chain of comparisons leads between, where it does not lead between all.
        is_joined: Whether a chain of comparisons leads between all of them.

    >>> unconnected_note([["a"], ["b", "c"]], is_joined=True)[:62]
    "'a' never lost to 'b', 'c': the comparisons alone would make t"
    """
    given = "so each policy was given one match more, half won and half lost, against one of strength 0"
    if len(groups) == 1:
        return f"ties and wins alone do not tell strengths from the share of ties, {given}"
    if not is_joined:
        named = "; ".join(_named(group) for group in groups[:_MOST_NAMED])
        return f"nobody compared these with each other, so how they stand to each other is not known: {named}; {given}"
    best, rest = groups[0], [name for group in groups[1:] for name in group]
    why = "the comparisons alone would make the difference infinite"
    return f"{_named(best)} never lost to {_named(rest)}: {why}, {given}"


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMED]))
    return f"{shown} and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else shown
