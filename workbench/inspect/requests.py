"""The requests of a device up to a moment, out of the trace: the last ones, and those under way."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from workbench.inspect.guest import time_text
from workbench.inspect.page import ROWS, Page, Table, table
from workbench.trace import tables

if TYPE_CHECKING:
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
    last: deque[Last] = deque(maxlen=max(count, 1))
    under_way: dict[tuple[str, int], Last] = {}
    if "requests" not in tables.BY_NAME:
        return []
    for batch in trace.batches("requests", _COLUMNS):
        columns = [batch[name].to_pylist() for name in _COLUMNS]
        for values in zip(*columns, strict=True):
            row = dict(zip(_COLUMNS, values, strict=True))
            if row["icount"] >= icount:
                return list(last)
            key = (row["device"], row["id"])
            if device and row["device"] != device:
                continue
            if row["phase"] == "begin":
                if len(under_way) >= _MOST_OPEN:
                    under_way.pop(next(iter(under_way)))
                under_way[key] = found = Last(f"{key[0]}/{key[1]}", row["icount"], row)
                last.append(found)
            elif key in under_way:
                found = under_way.pop(key)
                found.ended, found.status = row["icount"], row["status"]
    return list(last)


def requests(trace: Trace, icount: int, device: str = "", count: int = ROWS) -> Table:
    """The table of them."""
    rows = []
    ps = trace.header.machine.get("ps_per_insn")
    for found in last_requests(trace, icount, device, count):
        row = found.row
        took = "under way"
        if found.ended >= 0:
            took = f"{found.ended - found.began:,}"
            if isinstance(ps, int):
                took += f" ({time_text((found.ended - found.began) * ps)})"
        rows.append(
            (
                found.name, f"{found.began:,}", row["kind"],
                "" if row["queue"] < 0 else str(row["queue"]),
                f"{row['address']:,}", f"{row['length']:,}",
                "to the device" if row["write"] else "from it", took, found.status,
            )
        )  # fmt: skip
    columns = ("request", "began", "kind", "queue", "address", "bytes", "way", "instructions", "")
    return table("last requests", columns, rows, count)


def page(trace: Trace, icount: int, count: int = ROWS) -> Page:
    """Those of all devices."""
    return Page("requests", "requests", (requests(trace, icount, "", count),))
