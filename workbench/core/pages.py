"""Copies of RAM pages, kept outside of Python's heap: one for all states that share the page.

A page is named by the number of its slot. The number is an object that gives the slot back when
nobody holds it any more; so what is shared is counted by Python itself. Slots lie in large pages of
the host where it has them: filling small ones for the first time costs ten times the copying.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
_SEGMENT_PAGES = 1 << 13
_Group = tuple[int, ...]


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
        # No reference to the store: it would be a cycle through every page.
        members = {"__slots__": (), "__del__": lambda slot: free.append(int(slot))}
        self._slot: type[int] = type("Slot", (int,), members)

    @property
    def used_bytes(self) -> int:
        """What the pages take that somebody holds."""
        return (len(self._segments) * _SEGMENT_PAGES - len(self._free)) * PAGE

    def put(self, rows: Rows) -> list[int]:
        """Keep pages; their numbers."""
        import numpy as np

        zero = (rows[:, 0] | rows[:, -1]) == 0
        zero[zero] = ~rows[zero].any(axis=1)
        count = len(rows) - int(zero.sum())
        while len(self._free) < count:
            self._grow()
        taken = self._free[len(self._free) - count :]
        del self._free[len(self._free) - count :]
        slots = np.array(taken, np.int64)
        kept = rows if count == len(rows) else rows[~zero]
        for number, which in self._by_segment(slots):
            self._segments[number][slots[which] % _SEGMENT_PAGES] = kept[which]
        named = map(self._slot, taken)
        return [ZERO if empty else next(named) for empty in zero.tolist()]

    def get(self, numbers: Iterable[int]) -> Rows:
        """The pages with these numbers."""
        import numpy as np

        slots = np.fromiter(numbers, np.int64)
        rows = np.zeros((len(slots), _WORDS), np.uint64)
        for number, which in self._by_segment(slots):
            if number >= 0:
                rows[which] = self._segments[number][slots[which] % _SEGMENT_PAGES]
        return rows

    def _by_segment(self, slots: Numbers) -> Iterable[tuple[int, Any]]:
        import numpy as np

        numbers = slots // _SEGMENT_PAGES
        for number in np.unique(numbers).tolist():
            yield number, np.flatnonzero(numbers == number)

    def _grow(self) -> None:
        import numpy as np

        memory = mmap.mmap(-1, _SEGMENT_PAGES * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
        first = len(self._segments) * _SEGMENT_PAGES
        self._segments.append(np.frombuffer(memory, np.uint64).reshape(-1, _WORDS))
        self._free.extend(range(first + _SEGMENT_PAGES - 1, first - 1, -1))


def save_ram(cpu: Cpu, store: PageStore) -> Ram:
    """RAM as it is now; it shares what has not been written since the last save or restore."""
    import numpy as np

    kept: Ram | None = cpu.kept_ram
    empty = (ZERO,) * GROUP
    groups = list(kept.groups) if kept else [empty] * -(-cpu.ram_bytes // (PAGE * GROUP))
    dirty = cpu.dirty_pages()
    pages = iter(store.put(_rows(cpu)[dirty]))
    numbers, starts = np.unique(dirty // GROUP, return_index=True)
    offsets = (dirty % GROUP).tolist()
    bounds = [*starts.tolist(), len(offsets)]
    for n, number in enumerate(numbers.tolist()):
        group = list(groups[number])
        for offset in offsets[bounds[n] : bounds[n + 1]]:
            group[offset] = next(pages)
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
    rows = wanted.store.get(groups[n // GROUP][n % GROUP] for n in changed.tolist())
    cpu.put_pages(changed, rows)
    cpu.forget_dirty()


def rebase(cpu: Cpu, other: Ram) -> None:
    """Let later saves share with `other`: what differs from it counts as written."""
    kept: Ram | None = cpu.kept_ram
    cpu.kept_ram = other
    if kept is None or kept.store is not other.store:
        cpu.note_dirty(range(cpu.ram_bytes // PAGE))
        return
    for number, (old, new) in enumerate(zip(kept.groups, other.groups, strict=True)):
        if old is not new:
            first = number * GROUP
            pairs = zip(old, new, strict=True)
            cpu.note_dirty([first + n for n, (a, b) in enumerate(pairs) if a is not b])


def _rows(cpu: Cpu) -> Rows:
    import numpy as np

    return np.frombuffer(cpu.ram.map, np.uint64).reshape(-1, _WORDS)
