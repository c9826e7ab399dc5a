"""Instruction counts of the rarer events of a trace: interrupts, requests, console output.

They are read once, in the background, and looked up by position afterwards.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace import tables
from workbench.trace.columns import coded, integers, values

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

MOST_CONSOLE_BYTES: Final = 16 << 20
MOST_EVENTS: Final = 4_000_000
_NEVER: Final = 1 << 62


class _Requests:
    """Those of a device: where they begin and end, and their numbers."""

    def __init__(self) -> None:
        self.begins, self.ends, self.numbers = array("q"), array("q"), array("Q")


@dataclass(slots=True)
class Events:
    """Ascending instruction counts, by kind of event."""

    interrupts: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    requests: Any = field(default_factory=lambda: np.zeros(0, np.int64))
    by_device: dict[str, _Requests] = field(default_factory=dict)
    console_icounts: list[int] = field(default_factory=list)
    console_ends: list[int] = field(default_factory=list)
    console: bytes = b""

    def after(self, kind: str, icount: int) -> int | None:
        """Count of the next event of a kind after a position."""
        counts = getattr(self, kind)
        place = int(np.searchsorted(counts, icount, "right"))
        return int(counts[place]) if place < len(counts) else None

    def before(self, kind: str, icount: int) -> int | None:
        """Count of the last event of a kind before a position."""
        counts = getattr(self, kind)
        place = int(np.searchsorted(counts, icount))
        return int(counts[place - 1]) if place else None

    def console_at(self, icount: int) -> bytes:
        """What the guest has printed before a position."""
        place = bisect_left(self.console_icounts, icount)
        return self.console[: self.console_ends[place - 1]] if place else b""

    def request_of(self, device: str, icount: int) -> str:
        """The request that a device (or a window of it, `ide0.control`) had in work; or ""."""
        name = device if device in self.by_device else device.partition(".")[0]
        found = self.by_device.get(name)
        if found is None:
            return ""
        place = bisect_right(found.begins, icount) - 1
        inside = place >= 0 and icount <= found.ends[place]
        return f"{name}/{found.numbers[place]}" if inside else ""


def read(trace: Trace) -> Events:
    """Read them; what is beyond `MOST_EVENTS` is left out."""
    found = Events()
    parts = []
    total = 0
    for batch in trace.batches("interrupts", ("icount", "kind")):
        codes, names = coded(batch["kind"])
        wanted = np.array([name == "interrupt" for name in names] or [False])
        parts.append(integers(batch["icount"])[wanted[codes]])
        total += len(parts[-1])
        if total > MOST_EVENTS:
            break
    if parts:
        found.interrupts = np.concatenate(parts)
    _console(trace, found)
    if "requests" in tables.BY_NAME:
        _requests(trace, found)
    return found


def _console(trace: Trace, found: Events) -> None:
    text = bytearray()
    for batch in trace.batches("console", ("icount", "data")):
        for icount, data in zip(
            integers(batch["icount"]).tolist(), batch["data"].to_pylist(), strict=True
        ):
            text += data
            if found.console_icounts and found.console_icounts[-1] == icount:
                found.console_ends[-1] = len(text)
            else:
                found.console_icounts.append(icount)
                found.console_ends.append(len(text))
        if len(text) > MOST_CONSOLE_BYTES:
            break
    found.console = bytes(text)


def _requests(trace: Trace, found: Events) -> None:
    counts = array("q")
    open_at: dict[tuple[str, int], int] = {}
    for batch in trace.batches("requests", ("icount", "device", "id", "phase")):
        columns = (values(batch[name]) for name in ("icount", "device", "id", "phase"))
        for icount, device, number, phase in zip(*columns, strict=True):
            held = found.by_device.get(device)
            if held is None:
                held = found.by_device[device] = _Requests()
            if phase == "begin":
                counts.append(icount)
                open_at[device, number] = len(held.begins)
                held.begins.append(icount)
                held.ends.append(_NEVER)
                held.numbers.append(number)
            elif (device, number) in open_at:
                held.ends[open_at.pop((device, number))] = icount
        if len(counts) > MOST_EVENTS:
            break
    found.requests = np.array(counts, np.int64)
