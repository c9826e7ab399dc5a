"""The first run compiles the engine; here the user sees how far that is."""

from __future__ import annotations

import sys
from pathlib import Path

from workbench.cli import text


def image_path() -> Path:
    """Where the compiled engine of this version is kept."""
    from workbench import cache
    from workbench.core import build

    return cache.folder() / build.image_name()


def prepare() -> None:
    """Compile the engine if it is not in the cache, with a progress bar on a terminal."""
    from workbench.core import build

    if image_path().exists():
        return
    what = "Compiling the engine, once (under a minute)"
    if text.plain(sys.stderr):
        print(f"workbench: {what}", file=sys.stderr, flush=True)
        build.load_image()
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(what), BarColumn(), TextColumn("{task.percentage:3.0f}%"))
    console = text.rich_console(sys.stderr)
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        build.load_image(lambda done, total: bar.update(task, completed=done, total=total))
