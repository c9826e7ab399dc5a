"""What a device is asked to do, as events: a request begins, may become known better, and ends.

A device has a handle for each thing that takes requests (an ATA channel, a virtio device, a NIC)
and tells it when it takes one and when it is done with it. Requests are numbered from 1; number
and what is open belong to the device's state, so that a replay from a snapshot counts on. A reset
of the device ends what is open and keeps the count.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

__all__ = [
    "BEGIN",
    "END",
    "OK",
    "RESET",
    "UPDATE",
    "Burst",
    "RequestEvent",
    "RequestState",
    "Requests",
    "Served",
]

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


Served: TypeAlias = tuple[int, int, int, int, int]
"""A request of a burst: address, length and head as in `RequestEvent`; gpa and bytes of its
transfer."""


class Burst(NamedTuple):
    """Requests that a device takes, serves with one transfer into memory each, and ends, all at one
    moment: the frames that a NIC receives. They are numbered from `number` on; `rows` has the
    five numbers of `Served` for each.
    """

    device: str
    number: int
    kind: str
    queue: int
    rows: array[int]

    def served(self) -> Iterator[tuple[RequestEvent, int, int, RequestEvent]]:
        """For each request its begin, gpa and bytes of its transfer, and its end."""
        columns = (self.rows[n::5] for n in range(5))
        each = enumerate(zip(*columns, strict=True), self.number)
        for number, (address, length, head, gpa, size) in each:
            begin = RequestEvent(
                self.device, number, BEGIN, self.kind, self.queue, address, length, False, head, 1
            )
            yield begin, gpa, size, RequestEvent(self.device, number, END, status=OK)


Report = Callable[[RequestEvent], None]
"""Who hears of requests (`Machine.trace_request`)."""
BurstReport = Callable[[Burst], None]
"""Who hears of bursts (`Machine.trace_burst`)."""


def unheard(event: RequestEvent | Burst) -> None:
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
        self.report_burst: BurstReport = self._report_each

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

    def burst(self, kind: str, served: Iterable[Served], *, queue: int = -1) -> None:
        """Requests that were taken and served at once; their transfers are reported here, too."""
        rows = array("Q", chain.from_iterable(served))
        first = self.state.last + 1
        self.state.last += len(rows) // 5
        self.report_burst(Burst(self.device, first, kind, queue, rows))

    def _report_each(self, burst: Burst) -> None:
        for begin, _, _, end in burst.served():
            self.report(begin)
            self.report(end)

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
