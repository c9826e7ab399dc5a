"""All that is mapped in an address space, read from the guest's page tables without side effects.

The tables are the guest's: they may point at each other in any way, so that the walk is bounded.
Intel SDM volume 3, 4.3 to 4.6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from workbench.core.layout import CR0_PG, CR4_PAE, CR4_PSE
from workbench.core.pagewalk import FRAME, LARGE, PAE_ROOT, PRESENT, Paging, Read

__all__ = ["Piece", "Range", "pieces", "ranges"]

MOST_TABLES: Final = 1 << 13
_WRITE, _USER = 1 << 1, 1 << 2
_RIGHTS: Final = _WRITE | _USER
_HIGH_HALF: Final = 0xFFFF_0000_0000_0000


@dataclass(frozen=True, slots=True)
class Range:
    """Linear addresses from `start` up to (not with) `end` that have the same rights."""

    start: int
    end: int
    user: bool
    write: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """Linear addresses from `start` that lie in one piece of guest-physical memory at `gpa`."""

    start: int
    gpa: int
    length: int


def pieces(paging: Paging, read: Read) -> Iterator[Piece]:
    """What is mapped and where, by linear address; neighbours in both are one.

    A page table that is in several places counts at the first one only: Linux repeats some tens of
    thousands of times (the stacks of IRET, the shadow of KASAN), and a hostile guest for ever.
    """
    start = gpa = length = 0
    for first, at, size, _ in _Walk(read, once=True).pages(paging):
        if length and first == start + length and at == gpa + length:
            length += size
            continue
        if length:
            yield Piece(start, gpa, length)
        start, gpa, length = first, at, size
    if length:
        yield Piece(start, gpa, length)


def ranges(paging: Paging, read: Read) -> Iterator[Range]:
    """What is mapped, by address; neighbours with the same rights are one. Nothing without paging.

    The walk ends after `MOST_TABLES` tables.
    """
    start = end = rights = 0
    for first, _, size, found in _Walk(read).pages(paging):
        if first == end and found == rights and end:
            end += size
            continue
        if end:
            yield Range(start, end, bool(rights & _USER), bool(rights & _WRITE))
        start, end, rights = first, first + size, found
    if end:
        yield Range(start, end, bool(rights & _USER), bool(rights & _WRITE))


class _Walk:
    """Gives (linear address, guest-physical one, bytes, rights) of each page."""

    def __init__(self, read: Read, once: bool = False) -> None:
        self._read = read
        self._left = MOST_TABLES
        self._seen: set[int] | None = set() if once else None

    def pages(self, paging: Paging) -> Iterator[tuple[int, int, int, int]]:
        if not paging.cr0 & CR0_PG:
            return iter(())
        if paging.is_long:
            return self._table(paging.cr3 & FRAME, 0, (39, 30, 21, 12), _RIGHTS)
        if paging.cr4 & CR4_PAE:
            return self._pointers(paging.cr3 & PAE_ROOT)
        large = bool(paging.cr4 & CR4_PSE)
        return self._table(paging.cr3 & 0xFFFF_F000, 0, (22, 12), _RIGHTS, 4, large)

    def _entries(self, gpa: int, count: int, size: int) -> tuple[int, ...]:
        if not self._left:
            return ()
        if self._seen is not None:
            if gpa in self._seen:
                return ()
            self._seen.add(gpa)
        self._left -= 1
        raw = self._read(gpa, count * size)
        if raw == b"\xff" * len(raw):  # beside RAM
            return ()
        return struct.unpack(f"<{count}{'IQ'[size == 8]}", raw)

    def _pointers(self, gpa: int) -> Iterator[tuple[int, int, int, int]]:
        """The four entries at the top of PAE paging, which have no rights."""
        for n, entry in enumerate(self._entries(gpa, 4, 8)):
            if entry & PRESENT:
                yield from self._table(entry & FRAME, n << 30, (21, 12), _RIGHTS)

    def _table(
        self, gpa: int, base: int, shifts: tuple[int, ...], above: int, size: int = 8,
        large: bool = True,
    ) -> Iterator[tuple[int, int, int, int]]:  # fmt: skip
        shift, rest = shifts[0], shifts[1:]
        for n, entry in enumerate(self._entries(gpa, 4096 // size, size)):
            if not entry & PRESENT:
                continue
            rights = entry & above
            linear = base + (n << shift)
            if shift == 39 and n & 256:
                linear |= _HIGH_HALF
            if not rest or (entry & LARGE and large and shift < 39):
                gpa_of = entry & FRAME & -(1 << shift)
                if shift == 22:  # PSE-36
                    gpa_of = (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000
                yield linear, gpa_of, 1 << shift, rights
            else:
                yield from self._table(entry & FRAME, linear, rest, rights, size, large)
