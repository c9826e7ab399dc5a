"""Stops at what devices do: an observer that compares each event with what is watched.

A watch with a `count` passes over the events before the one with that number, counted from where a
move begins, in its direction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, Final, NamedTuple

from workbench.core.machine import Machine, Observer
from workbench.core.requests import END, RequestEvent
from workbench.trace.memorywatch import MemoryWatch

MOST_COUNTED: Final = 1_000_000
_SECTOR_BYTES = 512
_NEVER = 1 << 64


@dataclass(frozen=True, slots=True)
class DeviceWatch:
    """Accesses to stop at: a place in a device, a direction, bits of the value."""

    device: str
    offset: int
    size: int
    reads: bool
    writes: bool
    mask: int
    value: int | None
    text: str
    count: int = 1

    def matches(self, device: str, offset: int, size: int, is_write: bool, value: int) -> bool:
        """Is this access watched? Without a value any bit of the mask will do."""
        if device != self.device or not (self.writes if is_write else self.reads):
            return False
        if offset >= self.offset + self.size or offset + size <= self.offset:
            return False
        shift = 8 * (offset - self.offset)
        seen = (value << shift if shift >= 0 else value >> -shift) & self.mask
        return bool(seen) if self.value is None else seen == self.value & self.mask


@dataclass(frozen=True, slots=True)
class DmaWatch:
    """Transfers to stop at: what a device writes into guest-physical addresses, or reads there."""

    gpa: int
    length: int
    text: str
    reads: bool = False
    writes: bool = True
    count: int = 1


@dataclass(frozen=True, slots=True)
class IrqWatch:
    """Changes of an interrupt line to stop at; `level` None is either."""

    name: str
    level: bool | None
    text: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class RequestWatch:
    """Requests to stop at when they begin (or when the device comes to know what they are).

    device "" is any; the blocks [first, last] must overlap those of the request; `kind` is part of
    its name; `lengths` are bytes, from and to.
    """

    device: str
    text: str
    blocks: tuple[int, int] | None = None
    kind: str = ""
    lengths: tuple[int, int] | None = None
    count: int = 1

    def matches(self, request: RequestEvent) -> bool:
        """Is this request watched?"""
        if self.device not in ("", request.device):
            return False
        if self.kind.lower() not in request.kind.lower():
            return False
        if self.lengths and not self.lengths[0] <= request.length <= self.lengths[1]:
            return False
        if self.blocks is None:
            return True
        last = request.address + max(-(-request.length // _SECTOR_BYTES), 1) - 1
        return request.address <= self.blocks[1] and self.blocks[0] <= last


EventWatch = DeviceWatch | DmaWatch | IrqWatch | RequestWatch


class Transfer(NamedTuple):
    """A transfer by DMA: who made it, where to or from; `is_write`: the device wrote."""

    device: str
    gpa: int
    is_write: bool


class Hit(NamedTuple):
    """An event that is watched: one of a list, or a transfer to or from watched memory."""

    icount: int
    watch: EventWatch | MemoryWatch
    transfer: Transfer | None = None

    @property
    def range(self) -> int:
        """Which watchpoint on memory this is a hit of, -1 for none."""
        return self.watch.number if isinstance(self.watch, MemoryWatch) else -1


@dataclass(slots=True)
class WatchLog(Observer):
    """Notes events that are watched; it is an observer only while there are any."""

    each_access: ClassVar[bool] = True

    machine: Machine
    stopping: bool = True
    last: Hit | None = None
    """Where the move ends, if something is watched there."""
    before: int = _NEVER
    """Events from this instruction count on are not noted: a timer's comes before its instruction,
    and so belongs to the position at which a run ends.
    """
    watches: list[EventWatch] = field(default_factory=list)
    _accesses: list[DeviceWatch] = field(default_factory=list)
    _transfers: list[DmaWatch] = field(default_factory=list)
    _lines: list[IrqWatch] = field(default_factory=list)
    _requests: list[RequestWatch] = field(default_factory=list)
    _memory: list[MemoryWatch] = field(default_factory=list)
    _passed: dict[EventWatch, int] = field(default_factory=dict)
    _recent: dict[EventWatch, deque[int]] = field(default_factory=dict)

    def watch(self, watches: Iterable[EventWatch]) -> None:
        """Replace what is watched."""
        self.watches = every = list(dict.fromkeys(watches))
        self._accesses = [watch for watch in every if isinstance(watch, DeviceWatch)]
        self._transfers = [watch for watch in every if isinstance(watch, DmaWatch)]
        self._lines = [watch for watch in every if isinstance(watch, IrqWatch)]
        self._requests = [watch for watch in every if isinstance(watch, RequestWatch)]
        observers = [observer for observer in self.machine.observers if observer is not self]
        self.machine.observers[:] = [*observers, self] if every or self._memory else observers

    def watch_memory(self, watches: Iterable[MemoryWatch]) -> None:
        """Replace the watchpoints on memory that hear of devices."""
        self._memory = list(watches)
        self.watch(self.watches)

    def look_at(self, machine: Machine) -> None:
        """Go on in another machine; what was passed over counts."""
        watches = self.watches
        self.watch(())
        self.machine = machine
        self.watch(watches)

    def begin(self) -> None:
        """A move begins: nothing was passed over yet."""
        self._passed = {watch: 0 for watch in self.watches if watch.count > 1}
        self._recent = {}

    def last_of_stretch(self) -> Hit | None:
        """Backwards: the hit in a stretch of the run that was only logged, None if there is none.

        Stretches are given from the last one to the first.
        """
        hits = [] if self.last is None else [self.last]
        for watch, icounts in self._recent.items():
            passed = self._passed[watch] = self._passed[watch] + len(icounts)
            if passed == watch.count:
                hits.append(Hit(icounts[0], watch))
        self._recent = {}
        return max(hits, key=lambda hit: hit.icount, default=None)

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
        """Compare an access with the list."""
        for watch in self._accesses:
            if watch.matches(device, offset, size, is_write, value):
                self._hit(icount, watch)

    def on_dma(self, device: str, gpa: int, length: int, is_write: bool, icount: int) -> None:
        """Compare a transfer with the lists."""
        for watch in self._transfers:
            wanted = watch.writes if is_write else watch.reads
            if wanted and gpa < watch.gpa + watch.length and watch.gpa < gpa + length:
                self._hit(icount, watch)
        for memory in self._memory:
            if memory.hears(self.machine, gpa, length, is_write):
                self._hit(icount, memory, Transfer(device, gpa, is_write))

    def on_irq_line(self, name: str, level: bool, icount: int) -> None:
        """Compare a change of a line with the list."""
        for watch in self._lines:
            if watch.name == name and watch.level in (None, level):
                self._hit(icount, watch)

    def on_request(self, request: RequestEvent, icount: int) -> None:
        """Compare a request with the list."""
        if request.phase != END:
            for watch in self._requests:
                if watch.matches(request):
                    self._hit(icount, watch)

    def _hit(
        self, icount: int, watch: EventWatch | MemoryWatch, transfer: Transfer | None = None
    ) -> None:
        # Of memory, what a timer has written is in it at a position: that is past.
        if not isinstance(watch, MemoryWatch) and (
            icount >= self.before or (watch.count > 1 and not self._is_counted(icount, watch))
        ):
            return
        self.last = Hit(icount, watch, transfer)
        if self.stopping:
            self.machine.interrupt()

    def _is_counted(self, icount: int, watch: EventWatch) -> bool:
        """Count a hit; is it the one to stop at?"""
        passed = self._passed.get(watch)
        if passed is None:  # no move has begun
            return False
        if self.stopping:
            self._passed[watch] = passed + 1
            return passed + 1 == watch.count
        if watch not in self._recent:
            self._recent[watch] = deque(maxlen=watch.count - passed)
        self._recent[watch].append(icount)
        return False
