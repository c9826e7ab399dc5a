"""Guest-physical memory as devices, loaders and debuggers see it."""

from __future__ import annotations

from collections.abc import Callable

from workbench.core.engine import HOLE, RAM, READ_ONLY, Cpu
from workbench.core.spans import Spans

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
        """Write RAM; what is not RAM, or is read-only, swallows it."""
        self._cpu.write_phys(gpa, data)

    def scatter(self, spans: Spans, data: bytes | memoryview) -> None:
        """Write data into spans, one after the other."""
        self._cpu.scatter(spans, data)

    def map_rom(self, data: bytes) -> None:
        """Show `data`, whole pages, at the end of the first 4 GiB."""
        self._cpu.map_rom(data)

    def replace_rom(self, gpa: int, data: bytes) -> None:
        """Other contents of the ROM."""
        at = self._cpu.position(gpa)
        assert at is not None
        self._cpu.overwrite(at, data)

    def show_rom(self, gpa: int, n: int, shown: bool) -> None:
        """Whether pages of the ROM are read there, or left to devices."""
        self._cpu.show_rom(gpa, n, shown)

    def replace(self, gpa: int, data: bytes) -> bytes:
        """Put `data` into RAM, read-only or not; what was there before."""
        old = self._cpu.read_phys(gpa, len(data))
        self._cpu.overwrite(gpa, data)
        return old

    def set_writable(self, gpa: int, n: int, writable: bool) -> None:
        """Whether pages of RAM can be written."""
        self._cpu.set_page_kind(gpa, n, RAM if writable else READ_ONLY)

    def set_ram(self, gpa: int, n: int, is_ram: bool) -> None:
        """Whether pages are RAM or left to devices."""
        self._cpu.set_page_kind(gpa, n, RAM if is_ram else HOLE)

    @property
    def on_read_only_write(self) -> Callable[[int, bytes], None] | None:
        """Gets what others than the processor write to read-only pages, a page at a time."""
        return self._cpu.read_only_write

    @on_read_only_write.setter
    def on_read_only_write(self, hook: Callable[[int, bytes], None]) -> None:
        self._cpu.read_only_write = hook
