"""The phases of a run, told by what the guest has printed: nothing else is known of any guest.

`early` lasts until the first console output (boot loader, decompression, the kernel before it has a
console), `kernel` until the kernel starts the first process, `user` until it says that it shuts
down, then `shutdown`. The lines are those of Linux (init/main.c, kernel/reboot.c); a guest that
prints neither stays in `kernel`, and one whose console is `quiet` in what it last showed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from workbench.trace.reader import Trace

NAMES: Final = ("early", "kernel", "user", "shutdown")
_LINES: Final = (
    (2, re.compile(rb"\bRun /\S+ as init process")),
    (3, re.compile(rb"\breboot: |^The system is going down")),
)
_MAX_LINE_BYTES: Final = 1024
_MAX_CONSOLES: Final = 64


class Phase(NamedTuple):
    """A phase, and the instruction count at which it begins."""

    name: str
    icount: int


def phases(trace: Trace) -> list[Phase]:
    """Give the phases that a run went through, in order; at least the first."""
    found = [Phase(NAMES[0], 0)]
    at = 0
    for icount, line in _lines(trace):
        place = max(at, 1)
        for number, pattern in _LINES:
            if number > at and pattern.search(line):
                place = number
        if place > at:
            at = place
            found.append(Phase(NAMES[at], icount))
        if at == len(NAMES) - 1:
            break
    return found


def _lines(trace: Trace) -> Iterator[tuple[int, bytes]]:
    """Give each line of all consoles with the instruction count of its end."""
    started: dict[str, bytes] = {}
    for batch in trace.batches("console", ("icount", "device", "data")):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for icount, device, data in rows:
            if len(started) > _MAX_CONSOLES:
                started.clear()
            parts = (started.get(device, b"") + data).split(b"\n")
            started[device] = parts.pop()[-_MAX_LINE_BYTES:]
            yield from ((icount, part[-_MAX_LINE_BYTES:]) for part in parts or (b"",))
