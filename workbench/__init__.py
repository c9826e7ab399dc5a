"""Workbench: an x86-64 PC whose every device register access is recorded and replayed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

__version__ = "0.1.0"


def open(path: str | os.PathLike[str]) -> Trace:  # noqa: A001  # as in `workbench.open("x.wbt")`
    """Open a trace; its tables are Arrow tables: `workbench.open("boot.wbt").accesses`."""
    from workbench.trace.reader import open_trace

    return open_trace(path)
