"""How the screen is divided among panes: trees of rows and columns, and their file.

A tree is the name of a pane, or a list `["rows", weight, part, weight, part, ...]` ("columns" for
side by side). The file is JSON in the user's configuration; what is not valid in it is refused as a
whole, with a sentence.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from workbench.errors import FormatError, InputFileError, os_error_text

Tree = Any
"""A pane's name or a list; `check` says whether it is one."""
MOST_BYTES: Final = 1 << 16
_MOST_DEPTH: Final = 6
_WAYS: Final = ("rows", "columns")
_LEAST_WIDTH: Final = 28
_LEAST_HEIGHT: Final = 3

LAYOUTS: Final[Mapping[str, tuple[str, Tree]]] = {
    "1": (
        "overview",
        ["rows", 4, "time", 11, "log", 8, ["columns", 10, "code", 8, "registers"]],
    ),
    "2": (
        "code",
        ["columns", 10, ["rows", 12, "code", 6, "log"],
         8, ["rows", 9, "registers", 6, "stack", 6, "memory"]],
    ),
    "3": ("device", ["rows", 4, "time",
               20, ["columns", 9, ["rows", 13, "log", 7, "memory"], 11, "inspector"]]),
    "4": ("memory", ["rows", 12, "memory", 9, ["columns", 10, "code", 8, "stack"]]),
    "5": ("console", ["rows", 13, "console", 9, "log"]),
    "6": (
        "everything",
        ["rows", 5, "time",
         40, ["columns", 14, ["rows", 14, "log", 10, "code"],
              10, ["rows", 10, "registers", 7, "stack", 7, "memory"],
              12, ["rows", 14, "inspector", 8, "console"]]],
    ),
    "7": ("compare", ["rows", 4, "time", 12, "compare", 8, "states"]),
    "8": ("inspector", "inspector"),
    "9": ("log", ["rows", 4, "time", 20, "log"]),
}  # fmt: skip
"""Layouts by key: name and tree."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A place on the screen."""

    x: int
    y: int
    width: int
    height: int

    def has(self, x: int, y: int) -> bool:
        """Is a cell in it?"""
        return self.x <= x < self.x + self.width and self.y <= y < self.y + self.height


def panes(tree: Tree) -> list[str]:
    """Names of the panes of a tree, in order."""
    if isinstance(tree, str):
        return [tree]
    return [name for part in tree[2::2] for name in panes(part)]


def arrange(tree: Tree, area: Rect) -> dict[str, Rect]:
    """Where each pane is. What has no room is left out, from the end."""
    if isinstance(tree, str):
        return {tree: area}
    found: dict[str, Rect] = {}
    rows = tree[0] == "rows"
    weights, parts = list(tree[1::2]), list(tree[2::2])
    whole = area.height if rows else area.width
    least = _LEAST_HEIGHT if rows else _LEAST_WIDTH
    while len(parts) > 1 and whole < least * len(parts):
        weights.pop()
        parts.pop()
    for part, (at, size) in zip(parts, _shares(weights, whole, least), strict=True):
        inner = (
            Rect(area.x, area.y + at, area.width, size)
            if rows
            else Rect(area.x + at, area.y, size, area.height)
        )
        found |= arrange(part, inner)
    return found


def _shares(weights: list[float], whole: int, least: int) -> Iterator[tuple[int, int]]:
    total, at = sum(weights), 0
    for number, weight in enumerate(weights):
        left = len(weights) - number - 1
        size = max(round(whole * weight / total), least)
        size = whole - at if not left else min(size, whole - at - least * left)
        yield at, max(size, 0)
        at += max(size, 0)


def resize(tree: Tree, name: str, factor: float, way: str) -> Tree:
    """A tree in which a pane has more or less room, in the nearest division of that way."""
    if isinstance(tree, str):
        return tree
    out = list(tree)
    for place in range(2, len(tree), 2):
        if name in panes(tree[place]):
            inner = resize(tree[place], name, factor, way)
            if inner != tree[place]:
                out[place] = inner
            elif tree[0] == way:
                out[place - 1] = min(max(tree[place - 1] * factor, 1), 1000)
    return out


def replace(tree: Tree, old: str, new: str) -> Tree:
    """A tree with another pane in a place; if that is in the tree, the two change places."""
    if isinstance(tree, str):
        return new if tree == old else old if tree == new else tree
    out = list(tree)
    for place in range(2, len(tree), 2):
        out[place] = replace(tree[place], old, new)
    return out


def only(tree: Tree, known: Container[str]) -> Tree | None:
    """A tree with only the panes that there are; None if there is none of them."""
    if isinstance(tree, str):
        return tree if tree in known else None
    kept = [
        (weight, part)
        for weight, whole in zip(tree[1::2], tree[2::2], strict=True)
        if (part := only(whole, known)) is not None
    ]
    if len(kept) < 2:
        return kept[0][1] if kept else None
    return [tree[0], *(item for pair in kept for item in pair)]


def check(tree: Any, known: frozenset[str], depth: int = 0) -> Tree:
    """Give a tree that came from a file; raises ValueError."""
    if isinstance(tree, str):
        if tree not in known:
            raise ValueError(f"expected one of {', '.join(sorted(known))}, not {tree!r}")
        return tree
    if not isinstance(tree, list) or len(tree) < 3 or len(tree) % 2 == 0 or depth > _MOST_DEPTH:
        raise ValueError("expected [rows or columns, weight, part, ...]")
    if tree[0] not in _WAYS:
        raise ValueError(f"expected rows or columns, not {tree[0]!r}")
    for weight in tree[1::2]:
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise ValueError(f"expected a weight, not {weight!r}")
        if not 0 < weight <= 1000:
            raise ValueError(f"expected a weight from 0 to 1000, not {weight!r}")
    for part in tree[2::2]:
        check(part, known, depth + 1)
    names = panes(tree)
    if len(set(names)) != len(names):
        raise ValueError("expected each pane once")
    return tree


@dataclass(frozen=True, slots=True)
class Settings:
    """What is kept between sessions."""

    layouts: dict[str, Tree]
    layout: str = "1"
    theme: str = "auto"


def settings_path() -> Path:
    """Where the settings are."""
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "workbench" / "tui.json"


def load(path: Path, known: frozenset[str]) -> Settings:
    """Read the settings; those of a new user if there is no file.

    Raises `InputFileError` and `FormatError`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        return Settings({})
    except OSError as error:
        raise InputFileError(f"{path}: {os_error_text(error)}") from None
    try:
        if len(data) > MOST_BYTES:
            raise ValueError(f"expected at most {MOST_BYTES:,} bytes")
        found = json.loads(data)
        if not isinstance(found, dict) or found.get("version") != 1:
            raise ValueError("expected settings of version 1")
        layouts, layout, theme = (found.get(name) for name in ("layouts", "layout", "theme"))
        if not isinstance(layouts, dict) or not set(layouts) <= set(LAYOUTS):
            raise ValueError("expected layouts 1 to 9")
        if layout not in LAYOUTS:
            raise ValueError(f"expected a layout from 1 to 9, not {layout!r}")
        if theme not in ("auto", "dark", "light", "mono"):
            raise ValueError(f"expected a theme auto, dark, light or mono, not {theme!r}")
        return Settings({k: check(v, known) for k, v in layouts.items()}, str(layout), str(theme))
    except (ValueError, RecursionError) as error:
        raise FormatError(str(error), path=str(path)) from None


def save(path: Path, settings: Settings) -> None:
    """Write the settings, as a whole; raises `InputFileError`."""
    content = {
        "version": 1,
        "layout": settings.layout,
        "theme": settings.theme,
        "layouts": settings.layouts,
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1)
        Path(name).replace(path)
    except OSError as error:
        raise InputFileError(f"{path}: {os_error_text(error)}") from None
