"""Signals over time for waves: interrupt lines, and what the log shows of status registers.

BSY and DRQ of an IDE channel follow from its requests and from what the guest read of Status; a
request line says whether a device has any request open; ICR of an e1000 and ISR of a virtio device
are shown when the guest reads them, which clears them.
"""

from __future__ import annotations

from collections.abc import Iterator

from workbench.core.requests import BEGIN, END
from workbench.trace import tables
from workbench.trace.decode import Decoder
from workbench.trace.reader import Trace

__all__ = ["Change", "changes"]

Change = tuple[int, str, int, int]
"""Instruction count, name, bits, new value."""

_BSY, _DRQ = 7, 3
_CAUSES = {"ICR": 32, "isr_status": 8}


def changes(trace: Trace) -> Iterator[Change]:
    """Give all changes in order; the value before the first one is not said."""
    nics = {name for part in ("drives", "nics", "devices") for name in _names(trace, part)}
    decode = Decoder(trace.header.machine).decode
    open_requests: dict[str, int] = {}
    for group in trace.event_groups():
        for event in group:
            match event:
                case (tables.IRQ_LINE, icount, name, level):
                    yield icount, name, 1, int(level)
                case (tables.REQUEST, icount, device, _, phase, *_):
                    yield from _request(open_requests, icount, device, phase)
                case (tables.ACCESS, icount, _, "pio", device, offset, 1, False, value, *_) if (
                    device in _STATUS and offset == _STATUS[device][1]
                ):
                    channel = _STATUS[device][0]
                    yield icount, f"{channel}.BSY", 1, value >> _BSY & 1
                    yield icount, f"{channel}.DRQ", 1, value >> _DRQ & 1
                case (tables.ACCESS, icount, _, kind, device, offset, size, write, value, *_) if (
                    device in nics and kind != "cfg"
                ):
                    name = decode(kind, device, offset, size, value, write).name
                    if name in _CAUSES and not write:
                        yield icount, f"{device}.{name}", _CAUSES[name], value
                        yield icount, f"{device}.{name}", _CAUSES[name], 0


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
