"""The layers of the package: who may import whom, and what must not be loaded just to say hello."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "rlaif"

LAYERS = {
    "errors": 1,
    "records": 2, "tokens": 2, "options": 2, "config": 2, "extras": 2, "randomness": 2, "assets": 2, "visibility": 2,
    "calibration": 2, "training_records": 2, "rollout_records": 2, "policy_records": 2,
    "models": 3,
    "judge": 4, "backends": 4, "data": 4, "auditing": 4, "train": 4,
    "policies": 5,
    "engine": 6,
    "serving": 7, "rewards": 7,
    "online": 8,
    "cli": 9,
    "__main__": 10,
}  # fmt: skip
"""The layer of each folder and each module at the top."""

HEAVY = ("torch", "transformers", "vllm", "datasets", "pandas", "openai")
"""What `import rlaif` and `--help` must not load."""


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of ours, those inside functions and for type checkers too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: None if is_package and node.level == 1 else -node.level + is_package]
                base = ".".join([*parents, *([node.module] if node.module else [])])
            yield node.lineno, base
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "_data" not in path.parts)


def imports_of_ours() -> Mapping[str, set[tuple[int, str]]]:
    """Module -> (line, module of ours that it imports)."""
    modules = {module_name(path) for path in sources()}
    found: dict[str, set[tuple[int, str]]] = {}
    for path in sources():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        name = module_name(path)
        pairs = imported(tree, name, is_package=path.name == "__init__.py")
        found[name] = {(line, other) for line, other in pairs if other in modules and other != "rlaif"}
    return found


def unit(module: str) -> str:
    """The folder, or the module at the top, that a module belongs to: "judge" for rlaif.judge.scoring."""
    return module.split(".")[1]


def violations(imports: Mapping[str, set[tuple[int, str]]]) -> list[str]:
    found = []
    for module, others in imports.items():
        if module == "rlaif":
            continue
        for line, other in sorted(others):
            mine, theirs = unit(module), unit(other)
            is_lower = LAYERS[theirs] < LAYERS[mine]
            # The single modules of layer 2 may use each other; folders of one layer are strangers.
            is_neighbour = LAYERS[theirs] == LAYERS[mine] == 2
            if not (mine == theirs or is_lower or is_neighbour):
                found.append(f"{module}:{line} imports {other}")
    return found


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """A circle of modules, or an empty list."""
    done: set[str] = set()
    path: list[str] = []

    def visit(node: str) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        path.append(node)
        for other in sorted(graph.get(node, ())):
            if circle := visit(other):
                return circle
        path.pop()
        done.add(node)
        return []

    return next((circle for node in sorted(graph) if (circle := visit(node))), [])


def test_every_module_has_a_layer() -> None:
    assert sorted({unit(module) for module in imports_of_ours() if module != "rlaif"} - LAYERS.keys()) == []


def test_a_folder_imports_only_lower_layers() -> None:
    assert violations(imports_of_ours()) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: {other for _, other in others} - {module} for module, others in imports_of_ours().items()}
    assert cycle(graph) == []


def test_the_checks_see_what_they_are_there_for() -> None:
    tree = ast.parse(
        "def late():\n    from rlaif.cli import main\n    from ..engine import runner\n    from . import x"
    )
    found = {other for _, other in imported(tree, "rlaif.judge.scoring", is_package=False)}
    assert {"rlaif.cli", "rlaif.cli.main", "rlaif.engine.runner", "rlaif.judge.x"} <= found
    assert violations({"rlaif.judge.scoring": {(1, "rlaif.backends.base"), (2, "rlaif.records")}}) == [
        "rlaif.judge.scoring:1 imports rlaif.backends.base"
    ]
    assert violations({"rlaif.data.files": {(1, "rlaif.engine.rows")}}) != []
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


@pytest.mark.parametrize(
    "statement",
    [
        "import rlaif",
        "from rlaif.cli.main import main; assert main(['--help']) == 0",
        "from rlaif.cli.main import main; assert main(['label', '--help']) == 0",
        "from rlaif.cli.main import main; assert main(['show', 'prompt', '--help']) == 0",
        "from rlaif.cli.main import main; assert main(['train', '--help']) == 0",
        "from rlaif.cli.main import main; assert main(['train', 'dpo', '--help']) == 0",
        "from rlaif.cli.main import main; assert main(['--version']) == 0",
    ],
)
def test_nothing_heavy_is_loaded_to_say_hello(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "[]\n")
