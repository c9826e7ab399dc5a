"""The layer rule: imports run one way (ARCHITECTURE.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"

# What each layer may import, besides itself. `workbench` itself: version, errors, cache.
LAYERS = {
    "core": set(),
    "block": {"core"},
    "net": {"core"},
    "hw": {"core", "block", "net"},
    "firmware": {"core", "hw"},
    "trace": {"core", "hw", "firmware", "block", "net"},
    "inspect": {"core", "hw", "trace", "block", "net"},
    "report": {"core", "hw", "firmware", "trace"},
    "dump": {"core", "trace"},
    "gdbstub": {"core", "hw", "firmware", "trace", "inspect", "dump"},
    "qtest": {"core", "hw", "firmware", "block", "net"},
    "tui": {"core", "hw", "firmware", "trace", "inspect", "gdbstub", "dump"},
    "cli": {
        "report",
        "core",
        "hw",
        "firmware",
        "trace",
        "inspect",
        "gdbstub",
        "dump",
        "tui",
        "qtest",
        "block",
        "net",
    },
}
# What the package's own modules may import: `workbench.open`, `python -m workbench`.
FACADE = {"__init__.py": {"trace"}, "__main__.py": {"cli"}}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    """Return the layer that a file of the package belongs to, "" for the package's own modules."""
    parts = path.relative_to(PACKAGE).parts
    return parts[0] if len(parts) > 1 else ""


def imported_layers(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and layer of everything of ours that `path` imports, also inside functions."""
    package = ("workbench", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) + 1 - node.level] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "workbench":
                yield node.lineno, parts[1] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    layer = layer_of(path)
    if layer == "":
        allowed = FACADE.get(path.name, set())
    else:
        assert layer in LAYERS, f"{layer} is a new layer: add it to LAYERS"
        allowed = LAYERS[layer] | {layer}
    for line, target in imported_layers(path):
        known = target in LAYERS
        assert not known or target in allowed, f"{path}:{line}: {layer or 'top'} imports {target}"


def test_every_layer_is_a_directory_or_yet_to_come() -> None:
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert found <= set(LAYERS)
