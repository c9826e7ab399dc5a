"""What a device is asked to do, as events: a request begins, may become known better, and ends.

A device has a handle for each thing that takes requests (an ATA channel, a virtio device, a NIC)
and tells it when it takes one and when it is done with it. Requests are numbered from 1; number
and what is open belong to the device's state, so that a replay from a snapshot counts on. A reset
of the device ends what is open and keeps the count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

__all__ = ["BEGIN", "END", "OK", "RESET", "UPDATE", "RequestEvent", "RequestState", "Requests"]

BEGIN: Final = "begin"
UPDATE: Final = "update"
END: Final = "end"
OK: Final = "ok"
RESET: Final = "reset"
MOST_OPEN: Final = 1 << 17


class RequestEvent(NamedTuple):
    """A request begins, is known better, or ends; the columns of the trace's table.

    `address` is an LBA or sector (of a NIC: where its first descriptor is), `length` bytes,
    `write` from the guest to the device, `head` the index of the first descriptor. An end says
    how (`status`, `detail`), and nothing of the rest.
    """

    device: str
    number: int
    phase: str
    kind: str = ""
    queue: int = -1
    address: int = 0
    length: int = 0
    write: bool = False
    head: int = -1
    segments: int = 0
    status: str = ""
    detail: str = ""


Report = Callable[[RequestEvent], None]
"""Who hears of requests (`Machine.trace_request`)."""


def unheard(event: RequestEvent) -> None:
    """Nobody listens: the device is in no machine."""


@dataclass(slots=True)
class RequestState:
    """The number of the last request, and those that have not ended, ascending."""

    last: int = 0
    open: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Bounds for what a snapshot says; raises ValueError."""
        if not 0 <= self.last < 1 << 63 or len(self.open) > MOST_OPEN:
            raise ValueError(f"expected a count of requests, not {self.last!r:.80}")
        previous = 0
        for number in self.open:
            if not previous < number <= self.last:
                raise ValueError(f"expected ascending numbers of requests, not {number!r:.80}")
            previous = number


class Requests:
    """A device's handle. `state` is the device's and is put here whenever the device gets one."""

    def __init__(self, device: str, state: RequestState | None = None) -> None:
        """`device` is the name that the events carry."""
        self.device = device
        self.state = RequestState() if state is None else state
        self.report: Report = unheard

    def begin(
        self,
        kind: str,
        *,
        queue: int = -1,
        address: int = 0,
        length: int = 0,
        write: bool = False,
        head: int = -1,
        segments: int = 0,
        detail: str = "",
    ) -> int:
        """A request is taken; gives its number. What is told of it: see `RequestEvent`."""
        state = self.state
        state.last += 1
        state.open.append(state.last)
        self.report(
            RequestEvent(
                self.device, state.last, BEGIN, kind, queue, address, length, write, head, segments,
                "", detail,
            )
        )  # fmt: skip
        return state.last

    def update(
        self,
        number: int,
        kind: str,
        *,
        queue: int = -1,
        address: int = 0,
        length: int = 0,
        write: bool = False,
        head: int = -1,
        segments: int = 0,
        detail: str = "",
    ) -> None:
        """What only now is known of an open request; replaces all that `begin` said."""
        if number in self.state.open:
            self.report(
                RequestEvent(
                    self.device, number, UPDATE, kind, queue, address, length, write, head,
                    segments, "", detail,
                )
            )  # fmt: skip

    def end(self, number: int, status: str = OK, detail: str = "") -> None:
        """An open request is done; nothing for one that is not open."""
        if number in self.state.open:
            self.state.open.remove(number)
            self.report(
                RequestEvent(self.device, number, END, "", -1, 0, 0, False, -1, 0, status, detail)
            )

    def abort(self, status: str = RESET) -> None:
        """End all that is open, in order."""
        for number in tuple(self.state.open):
            self.end(number, status)
