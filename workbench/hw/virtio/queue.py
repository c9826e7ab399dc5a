"""What all virtqueues have in common (Virtual I/O Device 1.2, 2.6): state, buffers, bookkeeping.

A queue knows guest memory and its own state; it knows neither transport nor device. The device
takes buffers with `pop`, gives them back with `push`, and asks `wants_interrupt` once after a
batch. What a driver does against the rules raises `VirtqueueError`, which `VirtioDevice` turns
into DEVICE_NEEDS_RESET; nothing else lets it out.

All work is bounded: a chain has at most as many descriptors as its table, every address is checked
to be in RAM before anything is read, and at most `MOST_CHAIN_BYTES` of a chain are read at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from itertools import accumulate
from operator import add
from typing import Final, Protocol

from workbench.core.spans import Spans, spans_of
from workbench.hw.virtio.spec import F_EVENT_IDX, F_INDIRECT_DESC

__all__ = [
    "MOST_CHAIN_BYTES",
    "Chain",
    "Mark",
    "Memory",
    "QueueState",
    "Span",
    "Virtqueue",
    "VirtqueueError",
]

MOST_CHAIN_BYTES: Final = 64 << 20
DESC_BYTES: Final = 16
DESC_F_NEXT, DESC_F_WRITE, DESC_F_INDIRECT = 1, 2, 4


class VirtqueueError(Exception):
    """The driver broke a rule of the ring; says which."""


class Memory(Protocol):
    """Guest memory as the device reaches it (`DmaHandle` is one)."""

    @property
    def allowed(self) -> bool:
        """Whether the device may access memory now."""

    def contains(self, gpa: int, length_bytes: int) -> bool:
        """Whether all of this is RAM."""

    def read(self, gpa: int, length_bytes: int) -> bytes:
        """Bytes of guest memory."""

    def write(self, gpa: int, data: bytes) -> object:
        """Write guest memory."""

    def scatter(self, spans: Spans, data: bytes | memoryview) -> object:
        """Write data into spans, one after the other."""


@dataclass(slots=True)
class QueueState:
    """One queue: what the driver has configured, and where the device is."""

    size: int = 0
    ready: bool = False
    desc: int = 0
    driver: int = 0
    device: int = 0
    next_avail: int = 0
    next_used: int = 0
    avail_wrap: bool = True
    used_wrap: bool = True
    signalled: int = 0  # next_used when the driver was last asked whether it wants an interrupt
    signalled_wrap: bool = True
    quiet: bool = False  # the driver was told not to notify

    def __post_init__(self) -> None:
        for name in ("size", "next_avail", "next_used", "signalled"):
            if not 0 <= getattr(self, name) <= 0xFFFF:
                raise ValueError(f"expected 16 bits in {name}, not {getattr(self, name)!r}")
        for name in ("desc", "driver", "device"):
            if not 0 <= getattr(self, name) < 1 << 64:
                raise ValueError(f"expected 64 bits in {name}, not {getattr(self, name)!r}")


Mark = tuple[int, bool]
Span = tuple[int, int]


@dataclass(slots=True)
class Chain:
    """One buffer: spans (gpa, bytes) that the device reads, then spans that it writes."""

    memory: Memory
    id: int
    slots: int = 1
    readable: list[Span] = field(default_factory=list)
    writable: list[Span] = field(default_factory=list)
    readable_bytes: int = 0
    writable_bytes: int = 0

    def add(self, gpa: int, length_bytes: int, flags: int) -> None:
        """Take one descriptor; raises VirtqueueError."""
        if flags & DESC_F_WRITE:
            self.writable.append((gpa, length_bytes))
            self.writable_bytes += length_bytes
        elif self.writable:
            raise VirtqueueError("a readable descriptor follows a writable one")
        else:
            self.readable.append((gpa, length_bytes))
            self.readable_bytes += length_bytes
        if length_bytes and not self.memory.contains(gpa, length_bytes):
            raise VirtqueueError(f"a buffer is outside RAM: {length_bytes:#x} bytes at {gpa:#x}")

    def add_all(self, gpas: list[int], lengths: list[int], readable: int) -> bool:
        """Take all descriptors of a chain, the first few of them readable, that lie in one range of
        RAM; False, and nothing is taken, if that cannot be told at once.
        """
        low, high = min(gpas), max(map(add, gpas, lengths))
        out_bytes, in_bytes = sum(lengths[:readable]), sum(lengths[readable:])
        if out_bytes + in_bytes > MOST_CHAIN_BYTES or not self.memory.contains(low, high - low):
            return False
        spans = list(zip(gpas, lengths, strict=True))
        self.readable, self.writable = spans[:readable], spans[readable:]
        self.readable_bytes, self.writable_bytes = out_bytes, in_bytes
        return True

    def read(self, offset: int = 0, length_bytes: int | None = None) -> bytes:
        """Bytes of the readable part; fewer if it ends before. Raises VirtqueueError."""
        end = self.readable_bytes if length_bytes is None else offset + length_bytes
        if min(end, self.readable_bytes) - offset > MOST_CHAIN_BYTES:
            raise VirtqueueError(f"expected at most {MOST_CHAIN_BYTES} bytes, not {end - offset}")
        return b"".join(self.memory.read(*span) for span in _cut(self.readable, offset, end))

    def write(self, data: bytes | memoryview, offset: int = 0) -> int:
        """Write into the writable part; gives how many bytes there was room for."""
        spans = _cut(self.writable, offset, offset + len(data))
        if len(spans) == 1:  # a frame, a status
            ((gpa, length_bytes),) = spans
            self.memory.write(gpa, bytes(data[:length_bytes]))
            return length_bytes
        self.memory.scatter(spans_of(spans), data)
        return sum(length_bytes for _, length_bytes in spans)


def _cut(spans: list[Span], start: int, end: int) -> list[Span]:
    """The parts of `spans` that hold bytes `start` to `end`; a request has hundreds of them."""
    if len(spans) == 1 and start == 0 < end:
        gpa, length_bytes = spans[0]
        return [(gpa, min(end, length_bytes))] if length_bytes else []
    ends = list(accumulate([length_bytes for _, length_bytes in spans]))
    first, last = bisect_right(ends, start), bisect_left(ends, end)
    part = [span for span in spans[first : last + 1] if span[1]]
    if not part or start >= end:
        return []
    if last < len(ends):
        gpa, length_bytes = part[-1]
        part[-1] = gpa, length_bytes - (ends[last] - end)
    gpa, length_bytes = part[0]
    skipped = start - (ends[first] - spans[first][1])
    part[0] = gpa + skipped, length_bytes - skipped
    return part


class Virtqueue(ABC):
    """A queue of either layout, on a state and a memory."""

    def __init__(self, index: int, most: int, state: QueueState, memory: Memory, features: int):
        """`most` is the size that the device offers."""
        self.index = index
        self.most = most
        self.state = state
        self.memory = memory
        self.event_idx = bool(features & F_EVENT_IDX)
        self.indirect = bool(features & F_INDIRECT_DESC)
        self._checked = False
        self.gathering = False
        """Work on many buffers is under way: see `gather`."""

    @property
    def ready(self) -> bool:
        """Whether the driver has switched it on."""
        return self.state.ready

    def pop(self) -> Chain | None:
        """The next buffer, None if the driver has made none available; raises VirtqueueError."""
        state = self.state
        if not state.ready:
            return None
        self.ensure()
        chain = self._pop()
        if chain is None and (self.event_idx or state.quiet):
            state.quiet = False
            self._ask(True)
        return chain

    def quiet(self) -> None:
        """Tell the driver not to notify; ends when `pop` finds nothing."""
        if self.state.ready and not self.state.quiet:
            self.ensure()
            self.state.quiet = True
            self._ask(False)

    def push(self, chain_id: int, slots: int, written_bytes: int) -> None:
        """Return the buffer whose `Chain` has this id and number of slots."""
        self.ensure()
        self._push(chain_id, slots, written_bytes)

    def gather(self) -> None:
        """Until `flush`, rings are read for several buffers at once, as the guest does not run
        meanwhile, and what is pushed is written at once.
        """
        self.gathering = True

    def flush(self) -> None:
        """Write what was pushed since `gather`."""
        if self.gathering:
            self.gathering = False
            self._flush()

    def wants_interrupt(self) -> bool:
        """Does the driver want to hear of what was pushed since the last call?"""
        if not self.state.ready:
            return False
        self.ensure()
        return self._wants_interrupt()

    def ensure(self) -> None:
        """Check the configuration, once; raises VirtqueueError."""
        if not self._checked:
            self.check()
            self._checked = True

    def mark(self) -> Mark:
        """Where the next `pop` looks, for `rewind`."""
        return self.state.next_avail, self.state.avail_wrap

    def rewind(self, mark: Mark) -> None:
        """Give back what was taken since `mark`, unused."""
        self.state.next_avail, self.state.avail_wrap = mark
        self._look_again()

    def check(self) -> None:
        """Is this configuration usable? Raises VirtqueueError."""
        state = self.state
        if not 1 <= state.size <= self.most:
            raise VirtqueueError(f"a queue of {state.size} entries, {self.most} are offered")
        for gpa, length_bytes, align in self.areas():
            if gpa % align:
                raise VirtqueueError(f"a ring at {gpa:#x}, which is no multiple of {align}")
            if not self.memory.contains(gpa, length_bytes):
                raise VirtqueueError(f"a ring outside RAM: {length_bytes:#x} bytes at {gpa:#x}")

    @abstractmethod
    def areas(self) -> list[tuple[int, int, int]]:
        """(gpa, bytes, alignment) of the three parts of the ring."""

    @abstractmethod
    def _pop(self) -> Chain | None: ...

    @abstractmethod
    def _push(self, chain_id: int, slots: int, written_bytes: int) -> None: ...

    @abstractmethod
    def _flush(self) -> None:
        """Write what was put off."""

    @abstractmethod
    def _look_again(self) -> None:
        """Forget what was read ahead."""

    @abstractmethod
    def _wants_interrupt(self) -> bool: ...

    @abstractmethod
    def _ask(self, wanted: bool) -> None:
        """Write into guest memory whether (and from where on) notifications are wanted."""

    # -- descriptors -----------------------------------------------------------------------------

    def _indirect_table(self, gpa: int, length_bytes: int) -> memoryview:
        """The bytes of an indirect table (2.7.5.3, 2.8.7)."""
        if not self.indirect:
            raise VirtqueueError("an indirect descriptor without the feature")
        if not length_bytes or length_bytes % DESC_BYTES or length_bytes > 1024 * DESC_BYTES:
            raise VirtqueueError(f"an indirect table of {length_bytes} bytes")
        if not self.memory.contains(gpa, length_bytes):
            raise VirtqueueError(f"an indirect table outside RAM, at {gpa:#x}")
        return memoryview(self.memory.read(gpa, length_bytes))
