"""Signals over time for waves: interrupt lines, and what the log shows of status registers.

BSY and DRQ of an IDE channel follow from its requests and from what the guest read of Status; a
request line says whether a device has any request open; ICR of an e1000 and ISR of a virtio device
are shown when the guest reads them, which clears them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from glob import escape
from operator import itemgetter
from typing import Any

from workbench.core.requests import BEGIN, END
from workbench.trace.chosen import Filter, accesses
from workbench.trace.columns import values
from workbench.trace.reader import Trace

__all__ = ["Change", "changes"]

Change = tuple[int, str, int, int]
"""Instruction count, name, bits, new value."""

_BSY, _DRQ = 7, 3
_CAUSES = {"ICR": 32, "isr_status": 8}


def changes(trace: Trace) -> Iterator[Change]:
    """Give all changes in order; the value before the first one is not said."""
    sources = (_lines(trace), _requests(trace), _reads(trace))
    for _, some in heapq.merge(*sources, key=itemgetter(0)):
        yield from some


def _rows(trace: Trace, table: str, *columns: str) -> Iterator[tuple[Any, ...]]:
    for batch in trace.batches(table, ("seq", "icount", *columns)):
        yield from zip(*map(values, batch.columns), strict=True)


def _lines(trace: Trace) -> Iterator[tuple[int, list[Change]]]:
    for seq, icount, name, level in _rows(trace, "irq_lines", "name", "level"):
        yield seq, [(icount, name, 1, int(level))]


def _requests(trace: Trace) -> Iterator[tuple[int, list[Change]]]:
    open_requests: dict[str, int] = {}
    for seq, icount, device, phase in _rows(trace, "requests", "device", "phase"):
        yield seq, list(_request(open_requests, icount, device, phase))


def _reads(trace: Trace) -> Iterator[tuple[int, list[Change]]]:
    """What the guest reads of status registers."""
    nics = {name for part in ("drives", "nics", "devices") for name in _names(trace, part)}
    wanted = Filter(tuple(map(escape, (*_STATUS, *sorted(nics)))), write=False)
    for row, register in accesses(trace, wanted):
        seq, icount, _, kind, device, offset, size, _, value, *_ = row
        if device in _STATUS:
            channel, status = _STATUS[device]
            if (kind, offset, size) == ("pio", status, 1):
                bits = ((f"{channel}.BSY", value >> _BSY), (f"{channel}.DRQ", value >> _DRQ))
                yield seq, [(icount, name, 1, level & 1) for name, level in bits]
        elif kind != "cfg" and register.name in _CAUSES:
            name, bits_of = f"{device}.{register.name}", _CAUSES[register.name]
            yield seq, [(icount, name, bits_of, value), (icount, name, bits_of, 0)]


_STATUS = {
    "ide0": ("ide0", 7),
    "ide1": ("ide1", 7),
    "ide0.control": ("ide0", 0),
    "ide1.control": ("ide1", 0),
}


def _request(
    open_requests: dict[str, int], icount: int, device: str, phase: str
) -> Iterator[Change]:
    if phase not in (BEGIN, END):
        return
    before = open_requests.get(device, 0)
    now = open_requests[device] = max(0, before + (1 if phase == BEGIN else -1))
    if bool(before) != bool(now):
        yield icount, f"{device}.request", 1, int(now > 0)
    if device in ("ide0", "ide1"):
        yield icount, f"{device}.BSY", 1, int(phase == BEGIN)
        if phase == END:
            yield icount, f"{device}.DRQ", 1, 0


def _names(trace: Trace, part: str) -> Iterator[str]:
    found = trace.header.machine.get(part)
    for item in found if isinstance(found, list) else ():
        if isinstance(item, dict) and isinstance(item.get("name"), str):
            yield item["name"]
