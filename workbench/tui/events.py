"""Instruction counts of the rarer events of a trace: interrupts, requests, console output.

They are read in the background, on from where it ended the last time, and looked up by position.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from workbench.trace.columns import coded, integers, values

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

MOST_CONSOLE_BYTES: Final = 16 << 20
MOST_EVENTS: Final = 4_000_000
_NEVER: Final = (1 << 63) - 1


def _counts() -> array[int]:
    return array("q")


@dataclass(slots=True)
class _Requests:
    """Those of a device: where they begin and end, and their numbers."""

    begins: array[int] = field(default_factory=_counts)
    ends: array[int] = field(default_factory=_counts)
    numbers: array[int] = field(default_factory=lambda: array("Q"))


@dataclass(slots=True)
class Events:
    """Ascending instruction counts, by kind of event."""

    interrupts: array[int] = field(default_factory=_counts)
    requests: array[int] = field(default_factory=_counts)
    by_device: dict[str, _Requests] = field(default_factory=dict)
    console: bytearray = field(default_factory=bytearray)
    _console_icounts: array[int] = field(default_factory=_counts)
    _console_ends: array[int] = field(default_factory=_counts)
    _open: dict[tuple[str, int], int] = field(default_factory=dict)
    _pieces: dict[str, int] = field(default_factory=dict)

    def after(self, kind: str, icount: int) -> int | None:
        """Count of the next event of a kind after a position."""
        counts: array[int] = getattr(self, kind)
        place = bisect_right(counts, icount)
        return counts[place] if place < len(counts) else None

    def before(self, kind: str, icount: int) -> int | None:
        """Count of the last event of a kind before a position."""
        counts: array[int] = getattr(self, kind)
        place = bisect_left(counts, icount)
        return counts[place - 1] if place else None

    def console_at(self, icount: int, most: int = MOST_CONSOLE_BYTES) -> bytes:
        """What the guest has printed before a position, the last bytes of it."""
        place = bisect_left(self._console_icounts, icount)
        end = self._console_ends[place - 1] if place else 0
        return bytes(self.console[max(end - most, 0) : end])

    def request_of(self, device: str, icount: int) -> str:
        """The request that a device (or a window of it, `ide0.control`) had in work; or ""."""
        name = device if device in self.by_device else device.partition(".")[0]
        found = self.by_device.get(name)
        if found is None:
            return ""
        place = bisect_right(found.begins, icount) - 1
        inside = place >= 0 and icount <= found.ends[place]
        return f"{name}/{found.numbers[place]}" if inside else ""

    def open_requests(self) -> dict[str, int]:
        """The last request of each device that has not ended where the trace ends."""
        return {
            name: held.numbers[-1]
            for name, held in self.by_device.items()
            if held.ends and held.ends[-1] == _NEVER
        }

    def only_requests(self) -> Events:
        """What `request_of` needs, for another process."""
        return Events(requests=self.requests, by_device=dict(self.by_device))

    # Reading.

    def read(self, trace: Trace) -> None:
        """Read what has been recorded since the last time; of too much, the first part."""
        if len(self.interrupts) < MOST_EVENTS:
            self._read_interrupts(trace)
        if len(self.console) < MOST_CONSOLE_BYTES:
            self._read_console(trace)
        if len(self.requests) < MOST_EVENTS:
            self._read_requests(trace)

    def _batches(self, trace: Trace, name: str, columns: tuple[str, ...]) -> Iterator[Any]:
        first = self._pieces.get(name, 0)
        for number, batch in enumerate(trace.batches(name, columns, first=first), first + 1):
            yield batch
            self._pieces[name] = number

    def _read_interrupts(self, trace: Trace) -> None:
        for batch in self._batches(trace, "interrupts", ("icount", "kind")):
            codes, names = coded(batch["kind"])
            wanted = np.array([name == "interrupt" for name in names] or [False])
            self.interrupts.extend(integers(batch["icount"])[wanted[codes]].tolist())
            if len(self.interrupts) > MOST_EVENTS:
                return

    def _read_console(self, trace: Trace) -> None:
        icounts, ends = self._console_icounts, self._console_ends
        for batch in self._batches(trace, "console", ("icount", "data")):
            rows = zip(integers(batch["icount"]).tolist(), batch["data"].to_pylist(), strict=True)
            for icount, data in rows:
                self.console += data
                if icounts and icounts[-1] == icount:
                    ends[-1] = len(self.console)
                else:
                    ends.append(len(self.console))
                    icounts.append(icount)
            if len(self.console) > MOST_CONSOLE_BYTES:
                return

    def _read_requests(self, trace: Trace) -> None:
        for batch in self._batches(trace, "requests", ("icount", "device", "id", "phase")):
            columns = (values(batch[name]) for name in ("icount", "device", "id", "phase"))
            for icount, device, number, phase in zip(*columns, strict=True):
                held = self.by_device.setdefault(device, _Requests())
                if phase == "begin":
                    self._open[device, number] = len(held.begins)
                    held.ends.append(_NEVER)
                    held.numbers.append(number)
                    held.begins.append(icount)
                    self.requests.append(icount)
                elif (device, number) in self._open:
                    held.ends[self._open.pop((device, number))] = icount
            if len(self.requests) > MOST_EVENTS:
                return
