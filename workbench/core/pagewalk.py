"""Where a linear address lies, read from the guest's page tables without leaving a trace.

The processor's own walk (`mmu.py`) sets Accessed bits, checks rights and fills the TLB; this one
does nothing of it, for whoever looks at a guest from outside. Intel SDM volume 3, 4.3 to 4.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from workbench.core.layout import CR0_PG, CR4_PAE, CR4_PSE, EFER_LMA

PAGE = 0x1000
PRESENT, LARGE = 1 << 0, 1 << 7
FRAME = 0x000F_FFFF_FFFF_F000
PAE_ROOT = 0xFFFF_FFE0
_LOW_MEMORY = 0xC000_0000
"""Where a 32-bit Linux maps memory."""

Read = Callable[[int, int], bytes]
"""Bytes of guest-physical memory; what is not RAM reads as 0xFF."""


class Registers(Protocol):
    """The processor's registers, by name."""

    def get(self, name: str) -> int:
        """Read one."""


@dataclass(frozen=True, slots=True)
class Paging:
    """The registers that say how linear addresses are translated."""

    cr0: int
    cr3: int
    cr4: int
    efer: int

    @classmethod
    def of(cls, cpu: Registers, cr3: int | None = None) -> Paging:
        """As a processor has it now, or with other page tables."""
        where = cpu.get("cr3") if cr3 is None else cr3
        return cls(cpu.get("cr0"), where, cpu.get("cr4"), cpu.get("efer"))

    @property
    def is_long(self) -> bool:
        """Are addresses 64 bits wide?"""
        return bool(self.efer & EFER_LMA)

    def translate(self, read: Read, linear: int) -> int | None:
        """Guest-physical address of a linear one, None where nothing is mapped."""
        return self.page(read, linear)[0]

    def page(self, read: Read, linear: int) -> tuple[int | None, int]:
        """The same, and the size of the page around it, or of the hole: 2**n bytes."""
        if self.is_long:
            if linear >> 47 not in (0, 0x1FFFF):
                return None, 1 << 47
            return _walk(read, self.cr3 & FRAME, linear, (39, 30, 21, 12))
        linear &= 0xFFFF_FFFF
        if not self.cr0 & CR0_PG:
            return linear, 1 << 32
        if self.cr4 & CR4_PAE:
            entry = _entry(read, (self.cr3 & PAE_ROOT) + (linear >> 30) * 8, 8)
            return _walk(read, entry & FRAME, linear, (21, 12)) if entry else (None, 1 << 30)
        return _walk_32(read, self.cr3, linear, bool(self.cr4 & CR4_PSE))

    def spans(self, read: Read, first: int, end: int) -> Iterator[tuple[int, int]]:
        """(gpa, bytes) of what is mapped from `first` to before `end`, page by page."""
        at = first
        while at < end:
            gpa, size = self.page(read, at)
            length = min(end, (at | size - 1) + 1) - at
            if gpa is not None:
                yield gpa, length
            at += length

    def linear_of(self, read: Read, gpa: int, most_tables: int = 4096) -> int | None:
        """A linear address at which a guest-physical one is mapped; None if none is found.

        Of several it is one in the kernel's half, in a large page if there is one: Linux maps all
        memory there. At most so many tables are looked through.
        """
        if not self.cr0 & CR0_PG:
            return gpa
        if not self.is_long:
            found = (gpa + _LOW_MEMORY & 0xFFFF_FFFF, gpa)
            return next((at for at in found if self.translate(read, at) == gpa), None)
        tables = [(self.cr3 & FRAME, 39, 0)]
        for _ in range(most_tables):
            if not tables:
                break
            table, shift, base = tables.pop(0)
            raw = read(table, PAGE)
            for n in (*range(256, 512), *range(256)):
                entry = int.from_bytes(raw[8 * n : 8 * n + 8], "little")
                if not entry & PRESENT or entry == (1 << 64) - 1:
                    continue
                at = base | n << shift
                if shift != 12 and not (entry & LARGE and shift < 39):
                    tables.append((entry & FRAME, shift - 9, at))
                elif entry & FRAME & -(1 << shift) == gpa & -(1 << shift):
                    whole: int = at | gpa & (1 << shift) - 1
                    return whole | 0xFFFF << 48 if whole >> 47 else whole
        return None


def _entry(read: Read, gpa: int, size: int) -> int:
    """An entry that is present, else 0; all ones is what is read beside RAM."""
    raw = read(gpa, size)
    entry = int.from_bytes(raw, "little")
    return entry if entry & PRESENT and raw != b"\xff" * size else 0


def _walk(read: Read, table: int, linear: int, shifts: tuple[int, ...]) -> tuple[int | None, int]:
    for shift in shifts:
        entry = _entry(read, table + (linear >> shift & 511) * 8, 8)
        if not entry:
            return None, 1 << shift
        if shift == 12 or (entry & LARGE and shift < 39):
            low = (1 << shift) - 1
            return entry & FRAME & ~low | linear & low, 1 << shift
        table = entry & FRAME
    raise AssertionError("the last table holds pages")


def _walk_32(read: Read, cr3: int, linear: int, large_pages: bool) -> tuple[int | None, int]:
    """Two levels of 4-byte entries; a large page may lie above 4 GiB (PSE-36)."""
    entry = _entry(read, (cr3 & 0xFFFF_F000) + (linear >> 22) * 4, 4)
    if entry & LARGE and large_pages:
        return (entry >> 13 & 0xFF) << 32 | entry & 0xFFC0_0000 | linear & 0x3F_FFFF, 1 << 22
    if not entry:
        return None, 1 << 22
    entry = _entry(read, (entry & 0xFFFF_F000) + (linear >> 12 & 1023) * 4, 4)
    return (entry & 0xFFFF_F000 | linear & 0xFFF if entry else None), 1 << 12
