"""Guest memory as a debugger reads it: through the page tables, and without any trace.

The processor's own walk sets Accessed bits; this one reads the tables and nothing more. It asks for
no rights: who debugs a kernel may look everywhere. Paging: SDM volume 3, chapter 4.
"""

from __future__ import annotations

from workbench.core import layout as lay
from workbench.core.engine import Cpu

PAGE = 0x1000
_P, _PS = 1, 0x80
_ADDRESS = ((1 << 52) - 1) & ~0xFFF


def physical(cpu: Cpu, linear: int) -> int | None:
    """Guest-physical address of a linear one, or None where nothing is mapped."""
    if not cpu.get("cr0") & lay.CR0_PG:
        return linear & 0xFFFFFFFF
    table = cpu.get("cr3")
    if cpu.get("efer") & lay.EFER_LMA:
        if (linear >> 47) not in (0, 0x1FFFF):
            return None
        return _walk(cpu, table & _ADDRESS, linear, (39, 30, 21, 12))
    if cpu.get("cr4") & lay.CR4_PAE:
        entry = _entry(cpu, (table & 0xFFFFFFE0) + ((linear >> 30 & 3) << 3), 8)
        return _walk(cpu, entry & _ADDRESS, linear, (21, 12)) if entry & _P else None
    return _walk_32(cpu, table, linear & 0xFFFFFFFF)


def _entry(cpu: Cpu, gpa: int, size: int) -> int:
    return (
        int.from_bytes(cpu.read_phys(gpa, size), "little") if cpu.position(gpa) is not None else 0
    )


def _walk(cpu: Cpu, table: int, linear: int, shifts: tuple[int, ...]) -> int | None:
    for shift in shifts:
        entry = _entry(cpu, table + ((linear >> shift & 511) << 3), 8)
        if not entry & _P:
            return None
        if shift == 12 or (entry & _PS and shift < 39):
            low = (1 << shift) - 1
            return entry & _ADDRESS & ~low | linear & low
        table = entry & _ADDRESS
    return None


def _walk_32(cpu: Cpu, table: int, linear: int) -> int | None:
    entry = _entry(cpu, (table & 0xFFFFF000) + ((linear >> 22) << 2), 4)
    if not entry & _P:
        return None
    if entry & _PS and cpu.get("cr4") & lay.CR4_PSE:
        return entry & 0xFFC00000 | (entry & 0x1FE000) << 19 | linear & 0x3FFFFF
    entry = _entry(cpu, (entry & 0xFFFFF000) + ((linear >> 12 & 1023) << 2), 4)
    return entry & 0xFFFFF000 | linear & 0xFFF if entry & _P else None


class Memory:
    """Reads and writes by linear address, or by physical address while `is_physical` is set."""

    def __init__(self, cpu: Cpu) -> None:
        self._cpu = cpu
        self.is_physical = False

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

    def write(self, address: int, data: bytes) -> bool:
        """Write all of `data`, or nothing and False."""
        pieces = self._pieces(address, len(data)) or []
        if sum(n for _, n in pieces) != len(data):
            return False
        at = 0
        for gpa, n in pieces:
            self._cpu.write_phys(gpa, data[at : at + n])
            at += n
        return True
