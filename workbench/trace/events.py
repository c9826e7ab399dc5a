"""From the machine's callbacks to event tuples: the one place that knows the layout of both."""

from __future__ import annotations

from collections.abc import Callable

from workbench.core.machine import Observer
from workbench.core.polls import Polls
from workbench.core.requests import RequestEvent
from workbench.core.spans import Spans, pairs
from workbench.trace.protocol import InputLike
from workbench.trace.tables import (
    ACCESS,
    CONSOLE,
    DIGEST,
    DMA,
    EXIT,
    INPUT,
    INTERRUPT,
    IRQ_LINE,
    REQUEST,
    TABLES,
    Event,
    of_polls,
)

_MASK64 = (1 << 64) - 1
_PC_AT = {
    spec.number: names.index("pc") for spec in TABLES if "pc" in (names := spec.column_names())
}


class EventObserver(Observer):
    """An observer of a machine that gives each event, as a tuple, to `self._append`.

    The tuple's columns are those of the table in `tables.TABLES`, without `seq`.
    """

    console_sink: Callable[[str, bytes], None] | None = None
    """Also gets what the guest prints, with the name of the device."""

    def __init__(self) -> None:
        self._append: Callable[[Event], None] = discard

    def on_access(
        self,
        kind: str,
        device: str,
        offset: int,
        size: int,
        is_write: bool,
        value: int,
        addr: int,
        icount: int,
        pc: int,
        count: int = 1,
    ) -> None:
        """One access to a device register."""
        self._append((ACCESS, icount, pc, kind, device, offset, size, is_write, value, addr, count))

    def on_polls(self, polls: Polls) -> None:
        """Many accesses to one register."""
        for event in of_polls(polls):
            self._append(event)

    def on_exit(self, kind: str, icount: int, pc: int, detail: int) -> None:
        """Another exit from guest code."""
        self._append((EXIT, icount, pc, kind, detail & _MASK64))

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        """A delivered interrupt."""
        self._append((INTERRUPT, icount, pc, "interrupt", vector, 0, 0))

    def on_exception(
        self, vector: int, error_code: int, icount: int, pc: int, cr2: int = 0
    ) -> None:
        """A delivered exception."""
        self._append((INTERRUPT, icount, pc, "exception", vector, error_code, cr2))

    def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
        """A transfer between a device and memory."""
        self._append((DMA, icount, device, gpa, length, is_write))

    def on_dma_spans(self, device: str, spans: Spans, is_write: bool, icount: int) -> None:
        """Transfers of one moment."""
        append = self._append
        for gpa, length in pairs(spans):
            append((DMA, icount, device, gpa, length, is_write))

    def on_request(self, request: RequestEvent, icount: int) -> None:
        """An event of a request to a device."""
        self._append((REQUEST, icount) + request)  # noqa: RUF005 -- three times as quick

    def on_irq_line(self, name: str, level: bool, icount: int) -> None:
        """A new level of an interrupt line."""
        self._append((IRQ_LINE, icount, name, level))

    def on_console(self, device: str, data: bytes, icount: int) -> None:
        """Output for people."""
        self._append((CONSOLE, icount, device, data))
        if self.console_sink is not None:
            self.console_sink(device, data)

    def on_input(self, inp: InputLike) -> None:
        """An input, at the moment of its delivery."""
        self._append((INPUT, inp.icount, inp.time_ps, inp.target, inp.kind, bytes(inp.data)))

    def on_digest(self, scope: str, digest: bytes, icount: int, time_ps: int) -> None:
        """A digest of the state that a replay has to reach too (called by the session)."""
        self._append((DIGEST, icount, time_ps, scope, digest))


def discard(event: Event) -> None:
    """Take an event and do nothing with it."""


def icount_of(event: Event) -> int:
    """Instruction count of an event."""
    icount: int = event[1]
    return icount


def pc_of(event: Event) -> int | None:
    """PC of an event, None for those that no instruction makes."""
    place = _PC_AT.get(event[0])
    return None if place is None else event[place]


def as_dict(event: Event) -> dict[str, object]:
    """Give the columns of an event by name, bytes as hex digits: for JSON and for messages."""
    spec = TABLES[event[0]]
    values = zip(spec.column_names()[1:], event[1:], strict=True)
    return {
        "table": spec.name,
        **{name: v.hex() if isinstance(v, bytes) else v for name, v in values},
    }
