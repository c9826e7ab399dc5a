"""Guest memory as a debugger reads it: through the page tables, and without any trace.

It asks for no rights: who debugs a kernel may look everywhere.
"""

from __future__ import annotations

from collections.abc import Callable

from workbench.core.engine import Cpu
from workbench.core.pagewalk import PAGE, Paging


def physical(cpu: Cpu, linear: int) -> int | None:
    """Guest-physical address of a linear one, or None where nothing is mapped."""
    return Paging.of(cpu).translate(cpu.read_phys, linear)


class Memory:
    """Reads and writes by linear address, or by physical address while `is_physical` is set."""

    def __init__(self, cpu: Cpu | Callable[[], Cpu]) -> None:
        """`cpu` may be asked for at each use: another position may have another one."""
        self._ask = cpu if callable(cpu) else lambda: cpu
        self.is_physical = False

    @property
    def _cpu(self) -> Cpu:
        return self._ask()

    def _pieces(self, address: int, count: int) -> list[tuple[int, int]] | None:
        """(guest-physical address, bytes) of a range up to the first gap; None if all is gap."""
        out = []
        while count > 0:
            step = min(count, PAGE - (address & (PAGE - 1)))
            gpa = address if self.is_physical else physical(self._cpu, address)
            if gpa is None or self._cpu.position(gpa) is None:
                break
            out.append((gpa, step))
            address = address + step & 0xFFFFFFFFFFFFFFFF
            count -= step
        return out or None

    def read(self, address: int, count: int) -> bytes | None:
        """Up to `count` bytes, fewer where memory ends; None if there is not one."""
        pieces = self._pieces(address, count)
        if pieces is None:
            return b"" if count == 0 else None
        return b"".join(self._cpu.read_phys(gpa, n) for gpa, n in pieces)

    def has(self, address: int, count: int) -> bool:
        """Is there memory for all of these bytes?"""
        return sum(n for _, n in self._pieces(address, count) or ()) == count

    def write(self, address: int, data: bytes) -> bool:
        """Write all of `data`, or nothing and False."""
        if not self.has(address, len(data)):
            return False
        at = 0
        for gpa, n in self._pieces(address, len(data)) or ():
            self._cpu.write_phys(gpa, data[at : at + n])
            at += n
        return True
