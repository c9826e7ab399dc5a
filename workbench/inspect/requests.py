"""The requests of a device up to a moment, out of the trace: the last ones, and those under way."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.inspect.page import ROWS, Page, Table, table
from workbench.inspect.subject import Request, Row
from workbench.trace.columns import Ints, coded, integers

if TYPE_CHECKING:
    import pyarrow as pa

    from workbench.trace.reader import Trace

__all__ = ["Last", "last_requests", "requests"]

_COLUMNS: Final = (
    "icount", "device", "id", "phase", "kind", "queue", "address", "length", "write", "status",
)  # fmt: skip
_MOST_OPEN: Final = 4096


@dataclass(slots=True)
class Last:
    """One request; `ended` is -1 while it is under way."""

    name: str
    began: int
    row: dict[str, Any]
    ended: int = -1
    status: str = ""


def last_requests(trace: Trace, icount: int, device: str = "", count: int = ROWS) -> list[Last]:
    """The last `count` requests that had begun at a moment, the newest last."""
    count = max(count, 1)
    last: deque[Last] = deque(maxlen=count)
    under_way: dict[tuple[str, int], Last] = {}
    for row in _rows(trace, icount, device, count):
        key = (row["device"], row["id"])
        if row["phase"] == "begin":
            if len(under_way) >= _MOST_OPEN:
                under_way.pop(next(iter(under_way)))
            under_way[key] = found = Last(f"{key[0]}/{key[1]}", row["icount"], row)
            last.append(found)
        elif key in under_way:
            found = under_way.pop(key)
            found.ended, found.status = row["icount"], row["status"]
    return list(last)


def _rows(trace: Trace, icount: int, device: str, count: int) -> Iterator[dict[str, Any]]:
    """Rows before a moment from the `count`-th last beginning on, or from the first one.

    A long table is read from the moment backwards, only as far as that needs.
    """

    def first(number: int) -> int:
        counts = integers(trace.piece("requests", number, ("icount",))["icount"])
        return int(counts[0]) if len(counts) else 0

    def of_device(piece: pa.Table) -> Ints:
        wanted = integers(piece["icount"]) < icount
        if device:
            codes, names = coded(piece["device"])
            wanted &= np.array([name == device for name in names] or [False])[codes]
        return np.flatnonzero(wanted)

    pieces = range(len(trace.pieces("requests")))
    end = bisect_left(pieces, icount, key=first)
    taken: list[list[dict[str, Any]]] = []
    for number in range(end - 1, -1, -1):
        piece = trace.piece("requests", number, _COLUMNS)
        piece = piece.take(of_device(piece))
        codes, names = coded(piece["phase"])
        begins = np.flatnonzero(np.array([name == "begin" for name in names] or [False])[codes])
        enough = len(begins) >= count
        taken.append(piece.slice(begins[-count] if enough else 0).to_pylist())
        count -= len(begins)
        if enough:
            break
    for rows in reversed(taken):
        yield from rows


def requests(trace: Trace, icount: int, device: str = "", count: int = ROWS) -> Table:
    """The table of them."""
    rows = []
    last = last_requests(trace, icount, device, count)
    queues = any(found.row["queue"] >= 0 for found in last)
    for found in last:
        row = found.row
        took = "under way"
        if found.ended >= 0:
            took = f"{found.ended - found.began:,} {found.status}"
        cells = (
            found.name, f"{found.began:,}", row["kind"],
            *(["" if row["queue"] < 0 else str(row["queue"])] if queues else []),
            f"{row['address']:,}", f"{row['length']:,} {'out' if row['write'] else 'in'}", took,
        )  # fmt: skip
        rows.append(Row(cells, Request(found.name, found.began)))
    columns = ("request", "began", "kind", *["queue"] * queues, "address", "bytes", "took")
    note = "took: instructions" if rows else ""
    return table("last requests", columns, rows, count, note=note)


def page(trace: Trace, icount: int, count: int = ROWS) -> Page:
    """Those of all devices."""
    return Page("requests", "requests", (requests(trace, icount, "", count),))
