"""Workbench: an x86-64 PC whose every device register access is recorded and replayed."""

from __future__ import annotations

TYPE_CHECKING = False  # importing `typing` takes as long as all else that a start needs first
if TYPE_CHECKING:
    import os

    from workbench.trace.reader import Trace

__version__ = "0.1.0"


def open(path: str | os.PathLike[str]) -> Trace:  # noqa: A001  # as in `workbench.open("x.wbt")`
    """Open a trace; its tables are Arrow tables: `workbench.open("boot.wbt").accesses`."""
    from workbench.trace.reader import open_trace

    return open_trace(path)
