"""Guest-physical memory as devices, loaders and debuggers see it."""

from __future__ import annotations

from collections.abc import Iterable

from workbench.core.engine import PAGE, Cpu

VGA_HOLE = (0xA0000, 0x20000)


class PhysMemory:
    """RAM and ROM by guest-physical address; writes keep translated code coherent."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self.size = cpu.ram_bytes
        first, n = VGA_HOLE
        if self.size >= first + n:
            cpu.set_page_kind(first, n, 0)

    def read(self, gpa: int, n: int) -> bytes:
        """`n` bytes; what is not RAM reads as 0xFF."""
        return self._cpu.read_phys(gpa, n)

    def write(self, gpa: int, data: bytes) -> None:
        """Write RAM; what is not RAM swallows it."""
        self._cpu.write_phys(gpa, data)

    def scatter(self, pieces: Iterable[tuple[int, int, int]], data: bytes | memoryview) -> None:
        """Write `data[at : at + length]` at `gpa` for each (gpa, at, length)."""
        self._cpu.scatter(pieces, data)

    def add_rom(self, gpa: int, data: bytes) -> None:
        """Make pages of RAM read-only for the guest, with this content (padded to whole pages)."""
        pages = (len(data) + PAGE - 1) // PAGE
        self._cpu.set_page_kind(gpa, pages * PAGE, 1)
        self._cpu.write_phys(gpa, data)
        self._cpu.set_page_kind(gpa, pages * PAGE, 2)
