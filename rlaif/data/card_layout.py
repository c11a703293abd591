"""The frame of a dataset card: its YAML header, and sections one below the other. What they say stands in the modules
of the commands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import yaml

from rlaif.data.markdown import fence, inline, one_line

DEFAULT_CONFIG = {"default": "data/*.parquet"}


def render_layout(
    title: str, tags: Sequence[str], rows: int, sections: Iterable[str], configs: Mapping[str, str] = DEFAULT_CONFIG
) -> str:
    """The text of a `README.md` whose header lets `datasets.load_dataset(FOLDER)` find the files.

    Args:
        title: The data set's name, foreign text.
        tags: For the hub, besides "rlaif".
        rows: Of the first of its configs.
        sections: Markdown in which foreign text is inert already; empty ones are left out.
        configs: Names of the tables in the folder, the default first, and where their files stand.
    """
    header = {
        "pretty_name": one_line(title),
        "tags": ["rlaif", *tags],
        "size_categories": [size_category(rows)],
        "configs": [
            {"config_name": name, "data_files": [{"split": "train", "path": path}]} for name, path in configs.items()
        ],
    }
    parts = [f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---", f"# {inline(title)}", *sections]
    return "\n\n".join(part for part in parts if part) + "\n"


def again_section(command: str, note: str) -> str:
    """How to make the folder again; `note` is what the same command does on it."""
    return f"## How to make it again\n\n{fence(command, 'sh')}\n\n{note} `run.json` holds the full configuration."


def size_category(rows: int) -> str:
    """The hub's own words for sizes.

    >>> size_category(999), size_category(20_000)
    ('n<1K', '10K<n<100K')
    """
    bounds = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    return next((name for bound, name in bounds if rows < bound), "1M<n<10M")
