"""What a recording is to stop at: the next access, one that a filter matches, request, interrupt.

Each is an observer of the recording machine that is there only while it is waited for. It hears
the event when it happens and ends the run behind that instruction; the event's own count is kept,
so that one can go before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.core.machine import Observer
from workbench.core.requests import BEGIN, END, RequestEvent
from workbench.tui.log import Block
from workbench.tui.matches import Context, Matches

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.decode import Decoder, Register
    from workbench.tui.language import Node


class Awaited(Observer):
    """The next event of a kind; `what` says it in words."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.icount: int | None = None
        """Instruction count of the event, once it has come."""
        self._machine: Machine | None = None

    def attach(self, machine: Machine) -> None:
        """Begin to listen; in the thread that runs the machine."""
        self._machine = machine
        machine.observers.append(self)

    def detach(self) -> None:
        """Listen no more."""
        if self._machine is not None:
            self._machine.observers.remove(self)
            self._machine = None

    def _came(self, icount: int) -> None:
        if self.icount is None and self._machine is not None:
            self.icount = icount
            self._machine.interrupt()


class NextRequest(Awaited):
    """A device is given something to do."""

    def on_request(self, request: RequestEvent, icount: int) -> None:
        """Does one begin?"""
        if request.phase == BEGIN:
            self._came(icount)


class NextInterrupt(Awaited):
    """The processor takes an interrupt."""

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        """It does."""
        self._came(icount)


class NextAccess(Awaited):
    """A device register is accessed; `fits` may choose."""

    each_access = True

    def __init__(self, what: str, fits: Filter | None = None) -> None:
        super().__init__(what)
        self._fits = fits

    def on_access(
        self, kind: str, device: str, offset: int, size: int, is_write: bool, value: int,
        addr: int, icount: int, pc: int, count: int = 1,
    ) -> None:  # fmt: skip
        """Is it one of those?"""
        access = (icount, pc, kind, device, offset, size, is_write, value, addr, count)
        if self._fits is None or self._fits(access):
            self._came(icount)

    def on_request(self, request: RequestEvent, icount: int) -> None:
        """A filter may ask for the request that an access belongs to."""
        if self._fits is not None:
            self._fits.on_request(request)


class Filter:
    """The log's filter for one access after the other, as they happen.

    `decoder` knows what registers mean at the end of the log, which has `rows` rows; `open` the
    requests that are in work there.
    """

    def __init__(
        self,
        node: Node,
        decoder: Decoder,
        rows: int,
        function: Callable[[int], str],
        open_requests: dict[str, int],
    ) -> None:
        self._node = node
        self._decoder = decoder
        self._row = rows
        self._requests = open_requests
        self._block: Block | None = None
        self._context = Context(function, lambda device, _: self._request(device))

    # One row, as `Matches` looks at a log.

    rows = blocks = 1

    def block(self, number: int, keep: bool = True) -> Block:
        """The access as a block of one row."""
        assert self._block is not None
        return self._block

    def decode(self, block: Block, places: object) -> list[Register | None]:
        """What it means."""
        assert block.registers is not None
        return block.registers

    def __call__(self, access: tuple[Any, ...]) -> bool:
        """Does the filter match?"""
        icount, pc, kind, device, offset, size, is_write, value, addr, count = access
        register = self._decoder.decode(kind, device, offset, size, value, is_write)
        words = {"pc": pc, "offset": offset, "size": size, "value": value, "addr": addr,
                 "count": count}  # fmt: skip
        numbers = {name: np.array([n], np.uint64) for name, n in words.items()}
        for name, n in (("icount", icount), ("write", is_write), ("kind", 0), ("device", 0)):
            numbers[name] = np.array([n], np.int64)
        self._block = Block(self._row, numbers, [kind], [device], True, [register])
        self._row += 1
        matches = Matches(self, self._node, self._context)  # type: ignore[arg-type]
        return bool(len(matches.rows(0)))

    def on_request(self, request: RequestEvent) -> None:
        """A request begins or ends."""
        if request.phase == BEGIN:
            self._requests[request.device] = request.number
        elif request.phase == END and self._requests.get(request.device) == request.number:
            del self._requests[request.device]

    def _request(self, device: str) -> str:
        name = device if device in self._requests else device.partition(".")[0]
        number = self._requests.get(name)
        return "" if number is None else f"{name}/{number}"
