"""The first instruction after which two runs are not the same any more.

The access log says which *event* differs first; what went wrong is often earlier: a register that
got another value, a byte of memory. Both traces are replayed side by side and their whole states
compared (processor, devices, clock, memory), in ever shorter stretches. What differs already at the
start (a patched byte of the kernel, the date, a seed) is left out of every comparison, so that the
search finds the instruction that first makes something of it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Final

from workbench.core.layout import CS
from workbench.core.machine import Machine
from workbench.core.pagewalk import Paging
from workbench.errors import UsageError, WorkbenchError
from workbench.trace.compare import first_difference
from workbench.trace.protocol import Poll
from workbench.trace.reader import Trace
from workbench.trace.timeline import Timeline

PAGE: Final = 0x1000
_CHUNK: Final = 1 << 16
_BUDGET_BYTES: Final = 512 << 20
_CODE_BYTES: Final = 15
_MOST_SHOWN: Final = 40
_LOOK_S: Final = 0.05
_FIRST_SHARE: Final = 0.7
"""Of the whole search, what goes to the first place; it leaves checkpoints for the rest."""

Progress = Callable[[float], None]
"""Called with the share of the search that is done."""

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class StoppedError(WorkbenchError):
    """The user wants no result any more."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs: a register, a device's state, a page of memory (physical)."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True)
class Step:
    """The instruction that begins at `icount` in both runs; before it they were the same."""

    icount: int
    pc_a: int
    pc_b: int
    code_a: bytes
    code_b: bytes
    bits: int
    changes: list[Change] = field(default_factory=list)


class _Pair:
    """Two machines at the same instruction count."""

    def __init__(self, first: Trace, second: Trace, poll: Poll | None) -> None:
        self.poll = poll
        self.a = Timeline(first, budget_bytes=_BUDGET_BYTES)
        self.b = Timeline(second, budget_bytes=_BUDGET_BYTES)
        if self.a.machine.ram_bytes != self.b.machine.ram_bytes:
            raise UsageError("expected two runs of guests with the same memory")
        self._skip: set[str] = set()
        self._skip = {change.name for change in self.changes()}

    def seek(self, icount: int, progress: Progress | None = None) -> None:
        """Move both, each in a thread: guest code runs without the interpreter's lock."""
        stop = Event()

        def other() -> bool:
            return stop.is_set()

        def own() -> bool:
            if progress is not None:
                progress(min(self.a.progress or 0.0, self.b.progress or 0.0))
            return self.poll is not None and self.poll()

        with ThreadPoolExecutor(1) as pool:
            moved = pool.submit(self.b.seek, icount, other)
            try:
                self.a.seek(icount, own)
                while not moved.done():
                    if own():
                        raise StoppedError("stopped")
                    wait([moved], _LOOK_S)
                moved.result()
            finally:
                stop.set()
        if self.poll is not None and self.poll():
            raise StoppedError("stopped")

    def same(self) -> bool:
        return next(self.changes(), None) is None

    def changes(self) -> Iterator[Change]:
        """What differs now, and did not at the start."""
        one, other = self.a.machine, self.b.machine
        left, right = _parts(one), _parts(other)
        for name in sorted(left.keys() | right.keys()):
            a, b = left.get(name), right.get(name)
            if a != b and name not in self._skip:
                yield Change(name, _text(a), _text(b))
        for page in _pages(one, other):
            name = f"memory {page:#x}"
            if name not in self._skip:
                yield _memory_change(name, page, one, other)


def find(
    first: Trace, second: Trace, progress: Progress | None = None, poll: Poll | None = None
) -> Step | None:
    """The first instruction after which the runs differ: the one that makes the first event that
    differs, or one before it.

    None when there is no such event and both end in the same state. Raises `UsageError` for
    machines that cannot be compared, and `StoppedError` when `poll` gives True.
    """
    pair = _Pair(first, second, poll)
    low, high = 0, min(first.icount, second.icount)
    event = first_difference(first, second)
    if event is not None:
        high = min([high, *(e[1] + 1 for e in (event.a, event.b) if e is not None)])
    tell = progress or (lambda share: None)
    pair.seek(high, lambda share: tell(_FIRST_SHARE * share))
    if pair.same():
        return None
    whole = max(high, 2).bit_length()
    while high - low > 1:
        tell(1 - (1 - _FIRST_SHARE) * (high - low).bit_length() / whole)
        middle = (low + high) // 2
        pair.seek(middle)
        if pair.same():
            low = middle
        else:
            high = middle
    pair.seek(low)
    places = [_place(timeline.machine) for timeline in (pair.a, pair.b)]
    bits = pair.a.machine.cpu.get("mode") & 3
    pair.seek(high)
    changes = [change for change, _ in zip(pair.changes(), range(_MOST_SHOWN), strict=False)]
    (pc_a, code_a), (pc_b, code_b) = places
    return Step(low, pc_a, pc_b, code_a, code_b, (16, 32, 64)[min(bits, 2)], changes)


def _parts(machine: Machine) -> dict[str, Any]:
    """All state but memory, by name."""
    parts: dict[str, Any] = {}
    for name, values in machine.cpu_state().items():
        for n, value in enumerate(values):
            parts[f"{name}[{n}]" if len(values) > 1 else name] = value
    clock = machine.clock.save()
    parts |= {"clock": clock, "pending": machine.pending_state()}
    parts |= {"msrs": machine.system.msrs.save()}
    parts |= {name: device.save() for name, device in machine.devices.items()}
    return parts


def _pages(one: Machine, other: Machine) -> Iterator[int]:
    """Positions in memory of the pages that differ."""
    a, b, end = one.cpu.ram.address, other.cpu.ram.address, one.cpu.ram_bytes
    for at in range(0, end, _CHUNK):
        n = min(_CHUNK, end - at)
        if _memcmp(a + at, b + at, n):
            for page in range(at, at + n, PAGE):
                if _memcmp(a + page, b + page, min(PAGE, end - page)):
                    yield page


def _memory_change(name: str, page: int, one: Machine, other: Machine) -> Change:
    a, b = (bytes(m.cpu.ram.view[page : page + PAGE]) for m in (one, other))
    first = next(n for n, (x, y) in enumerate(zip(a, b, strict=True)) if x != y)
    first &= ~7
    shown = [f"{page + first:#x}: {data[first : first + 8].hex(' ')}" for data in (a, b)]
    return Change(name, *shown)


def _place(machine: Machine) -> tuple[int, bytes]:
    """RIP and the bytes there."""
    cpu = machine.cpu
    paging, pc = Paging.of(cpu), cpu.get("rip")
    linear = pc if paging.is_long else pc + cpu.get("seg_base", CS) & 0xFFFF_FFFF
    gpa = paging.translate(machine.memory.read, linear)
    if gpa is None:
        return pc, b""
    return pc, machine.memory.read(gpa, min(_CODE_BYTES, PAGE - gpa % PAGE))


def _text(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:#x}"
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
