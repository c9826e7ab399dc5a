"""Copies of RAM pages, kept outside of Python's heap: one for all states that share the page.

A page is named by the number of its slot. The number is an object that gives the slot back when
nobody holds it any more; so what is shared is counted by Python itself. Memory that was never used
costs the host several times the copying: it can be asked for ahead, in another thread.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from workbench.core.engine import PAGE, Cpu

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]
    Rows = NDArray[np.uint64]

GROUP = 64
"""Pages of RAM that a state names by one object, where they are those of another state."""
ZERO = -1
"""The number of the page that is all zero: it has no slot."""
_WORDS = PAGE // 8
_SEGMENT_PAGES = 1 << 11
_BATCH = 128  # pages that are looked at or restored at a time: they stay in the processor's cache
_Group = tuple[int, ...]
_NOTHING: _Group = (ZERO,) * GROUP
_FLAGS = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
_MADV_POPULATE_WRITE = 23
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@dataclass(frozen=True, slots=True)
class Ram:
    """RAM at one moment: slot numbers of `store`, by groups of GROUP pages."""

    store: PageStore
    groups: tuple[_Group, ...]


class PageStore:
    """Slots for pages of one machine."""

    def __init__(self) -> None:
        free: list[int] = []
        self._free = free
        self._segments: list[Rows] = []
        self._ordered = 0
        self._coming: SimpleQueue[mmap.mmap | None] = SimpleQueue()
        # No reference to the store: it would be a cycle through every page.
        members = {"__slots__": (), "__del__": lambda slot: free.append(int(slot))}
        self._slot: type[int] = type("Slot", (int,), members)

    def prepare(self, pages: int) -> None:
        """Have slots for so many pages at hand soon: a thread asks the host for the memory."""
        wanted = pages - len(self._free) - self._ordered * _SEGMENT_PAGES
        if wanted <= 0:
            return
        count = -(-wanted // _SEGMENT_PAGES)
        self._ordered += count
        Thread(target=_supply, args=(self._coming, count), daemon=True).start()

    @property
    def used_bytes(self) -> int:
        """What the pages take that somebody holds."""
        return (len(self._segments) * _SEGMENT_PAGES - len(self._free)) * PAGE

    @property
    def put_aside_bytes(self) -> int:
        """What is at hand, or ordered, for pages to come."""
        return (len(self._free) + self._ordered * _SEGMENT_PAGES) * PAGE

    def put(self, rows: Rows, which: Numbers) -> list[int]:
        """Keep the pages `rows[which]`; their numbers, in this order."""
        import numpy as np

        empty = _empty(rows, which)
        source = which if not empty.any() else which[~empty]
        count = len(source)
        while len(self._free) < count:
            self._grow()
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        taken.sort()
        slots = np.array(taken, np.int64)
        for first, last in _runs(slots):
            segment, at = divmod(taken[first], _SEGMENT_PAGES)
            # Other modes than "clip" copy by way of a buffer.
            out = self._segments[segment][at : at + last - first]
            np.take(rows, source[first:last], axis=0, out=out, mode="clip")
        names = map(self._slot, taken)
        if count == len(which):
            return list(names)
        return [ZERO if nothing else next(names) for nothing in empty.tolist()]

    def get(self, numbers: Iterable[int]) -> Rows:
        """The pages with these numbers."""
        import numpy as np

        slots = np.fromiter(numbers, np.int64)
        rows = np.empty((len(slots), _WORDS), np.uint64)
        segments = slots // _SEGMENT_PAGES  # that of ZERO is -1
        for number in np.unique(segments).tolist():
            which = np.flatnonzero(segments == number)
            if number < 0:
                rows[which] = 0
            else:
                rows[which] = self._segments[number][slots[which] % _SEGMENT_PAGES]
        return rows

    def _grow(self) -> None:
        import numpy as np

        memory = None
        if self._ordered:
            self._ordered -= 1
            memory = self._coming.get()
        if memory is None:
            memory = mmap.mmap(-1, _SEGMENT_PAGES * PAGE, flags=_FLAGS)
        first = len(self._segments) * _SEGMENT_PAGES
        self._segments.append(np.frombuffer(memory, np.uint64).reshape(-1, _WORDS))
        self._free.extend(range(first + _SEGMENT_PAGES - 1, first - 1, -1))


def _supply(coming: SimpleQueue[mmap.mmap | None], count: int) -> None:
    """Put so many segments into the queue, each backed by the host; None for one that failed."""
    for _ in range(count):
        memory = None
        with contextlib.suppress(OSError):
            memory = mmap.mmap(-1, _SEGMENT_PAGES * PAGE, flags=_FLAGS)
            # A call into C: others run meanwhile. Before Linux 5.14 it does nothing.
            address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
            _madvise(address, _SEGMENT_PAGES * PAGE, _MADV_POPULATE_WRITE)
        coming.put(memory)


def _empty(rows: Rows, which: Numbers) -> NDArray[np.bool_]:
    """Which of the pages `rows[which]` are all zero."""
    import numpy as np

    middle, last = _WORDS // 2 + 5, _WORDS - 1
    empty: NDArray[np.bool_] = (rows[which, 0] | rows[which, middle] | rows[which, last]) == 0
    maybe = np.flatnonzero(empty)
    for at in range(0, len(maybe), _BATCH):
        batch = maybe[at : at + _BATCH]
        empty[batch] = ~rows[which[batch]].any(axis=1)
    return empty


def _runs(slots: Numbers) -> list[tuple[int, int]]:
    """The places (first, behind the last) of neighbours in one segment, in ascending numbers."""
    import numpy as np

    if not len(slots):
        return []
    breaks = (slots[1:] != slots[:-1] + 1) | (slots[1:] % _SEGMENT_PAGES == 0)
    places = [0, *(np.flatnonzero(breaks) + 1).tolist(), len(slots)]
    return list(pairwise(places))


def save_ram(cpu: Cpu, store: PageStore) -> Ram:
    """RAM as it is now; it shares what has not been written since the last save or restore."""
    import numpy as np

    groups = list(_kept(cpu))
    dirty = cpu.dirty_pages()
    pages = store.put(_rows(cpu), dirty)
    numbers, starts = np.unique(dirty // GROUP, return_index=True)
    offsets = (dirty % GROUP).tolist()
    bounds = [*starts.tolist(), len(offsets)]
    for n, number in enumerate(numbers.tolist()):
        group = list(groups[number])
        for place in range(bounds[n], bounds[n + 1]):
            group[offsets[place]] = pages[place]
        groups[number] = tuple(group)
    saved = Ram(store, tuple(groups))
    cpu.kept_ram = saved
    cpu.forget_dirty()
    return saved


def restore_ram(cpu: Cpu, wanted: Ram) -> None:
    """Make RAM what it was; translations of pages that change are dropped."""
    rebase(cpu, wanted)
    changed = cpu.dirty_pages()
    groups = wanted.groups
    names = [groups[n // GROUP][n % GROUP] for n in changed.tolist()]
    for at in range(0, len(names), _BATCH):
        cpu.put_pages(changed[at : at + _BATCH], wanted.store.get(names[at : at + _BATCH]))
    cpu.forget_dirty()


def rebase(cpu: Cpu, other: Ram) -> None:
    """Let later saves share with `other`: what differs from it counts as written."""
    for number, (old, new) in enumerate(zip(_kept(cpu), other.groups, strict=True)):
        if old is not new:
            first = number * GROUP
            pairs = zip(old, new, strict=True)
            cpu.note_dirty([first + n for n, (a, b) in enumerate(pairs) if a is not b])
    cpu.kept_ram = other


def _kept(cpu: Cpu) -> Sequence[_Group]:
    """The pages from which what counts as written differs: at first, all are empty."""
    kept: Ram | None = cpu.kept_ram
    return kept.groups if kept else [_NOTHING] * -(-cpu.ram_bytes // (PAGE * GROUP))


def _rows(cpu: Cpu) -> Rows:
    import numpy as np

    return np.frombuffer(cpu.ram.map, np.uint64).reshape(-1, _WORDS)
