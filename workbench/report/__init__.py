"""A run as one HTML file for a browser: pictures by Bokeh, whose script is in the file too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable


def write_report(
    trace: Trace, path: str | os.PathLike[str], symbols: SymbolTable | None = None
) -> int:
    """Write the report of a trace and give its size in bytes.

    Raises `InputFileError` when Bokeh is not installed or the file cannot be written.
    """
    from workbench.report.page import library, render
    from workbench.report.summary import summarize
    from workbench.trace.export import written

    library()
    page = render(summarize(trace, symbols)).encode()
    with written(path) as file:
        file.write(page)
    return len(page)
