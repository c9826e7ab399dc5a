"""The event of a trace that is next to a position: its tables say where, no replay is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from workbench.trace import tables
from workbench.trace.reader import Trace

Row = Mapping[str, Any]
Where = Callable[[Row], bool]
"""Is this row (by column) wanted?"""


def find_event(
    trace: Trace, table: str, icount: int, *, back: bool = False, where: Where | None = None
) -> dict[str, Any] | None:
    """The first row behind an instruction count for which `where` holds, or the last one before it.

    KeyError for a table that is none.
    """
    names = tuple(column.name for column in tables.BY_NAME[table].columns)
    last: dict[str, Any] | None = None
    for batch in trace.batches(table, names):
        counts = batch["icount"]
        if not len(counts):
            continue
        first, final = counts[0].as_py(), counts[-1].as_py()
        if back and first >= icount:
            break
        if not back and final <= icount:
            continue
        columns = [batch[name].to_pylist() for name in names]
        rows = list(zip(*columns, strict=True))
        for values in reversed(rows) if back else rows:
            row = dict(zip(names, values, strict=True))
            beside = row["icount"] < icount if back else row["icount"] > icount
            if beside and (where is None or where(row)):
                if not back:
                    return row
                last = row
                break
    return last
