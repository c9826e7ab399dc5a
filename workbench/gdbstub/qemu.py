"""`info mem` and `info registers` as QEMU's monitor prints them: pwndbg and gef read that text.

The forms are those of QEMU's "System Emulation", "Monitor": a range, its size and its rights; the
general registers by name, then segments, tables, control and debug registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from workbench.core import layout as lay
from workbench.core.mappings import ranges
from workbench.core.pagewalk import Paging

if TYPE_CHECKING:
    from workbench.core.engine import Cpu
    from workbench.core.machine import Machine

__all__ = ["mappings", "processor"]

MOST_RANGES: Final = 20_000
_MASK: Final = (1 << 64) - 1
_FLAGS: Final = (("D", 10), ("O", 11), ("S", 7), ("Z", 6), ("A", 4), ("P", 2), ("C", 0))


def mappings(cpu: Cpu) -> str:
    """What is mapped now: `START-END SIZE RIGHTS` in hexadecimal, rights as in `urw`."""
    paging = Paging.of(cpu)
    if not paging.cr0 & lay.CR0_PG:
        return "PG disabled"
    digits = 16 if paging.is_long else 8
    lines = [
        f"{r.start:0{digits}x}-{r.end & _MASK:0{digits}x} {r.end - r.start:0{digits}x} "
        f"{'u' if r.user else '-'}r{'w' if r.write else '-'}"
        for r in islice(ranges(paging, cpu.read_phys), MOST_RANGES)
    ]
    return "\n".join(lines) or "nothing is mapped"


def processor(machine: Machine) -> str:
    """The processor's registers."""
    return "\n".join(_lines(machine.cpu, machine.halted))


def _lines(cpu: Cpu, halted: bool) -> Iterator[str]:
    wide = bool(cpu.get("efer") & lay.EFER_LMA)
    digits = 16 if wide else 8
    mask = (1 << 4 * digits) - 1

    def value(name: str, index: int = 0) -> str:
        return f"{cpu.get(name, index) & mask:0{digits}x}"

    names = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp"]
    names += [f"r{n}" for n in range(8, 16)] if wide else []
    for first in range(0, len(names), 4):
        row = names[first : first + 4]
        yield " ".join(f"{_shown(name, wide)}={value(name)}" for name in row)
    rflags = cpu.get("rflags")
    letters = "".join(letter if rflags >> at & 1 else "-" for letter, at in _FLAGS)
    pc, flags = ("RIP", "RFL") if wide else ("EIP", "EFL")
    yield (
        f"{pc}={value('rip')} {flags}={rflags:08x} [{letters}] CPL={cpu.get('cpl')} II=0 A20=1"
        f" SMM=0 HLT={int(halted)}"
    )
    for name in lay.SEGMENTS:
        selector, base, limit, attr = cpu.get_segment(name)
        text = f"{name.upper():<3}={selector:04x} {base & mask:0{digits}x} {limit:08x}"
        # The attributes where they are in a descriptor's second word (SDM volume 3, 3.4.5).
        yield f"{text} {(attr & 0xFFFF) << 8:08x} DPL={attr >> 5 & 3}"
    for table in ("gdt", "idt"):
        base, limit = cpu.get(f"{table}r_base") & mask, cpu.get(f"{table}r_limit")
        yield f"{table.upper()}=     {base:0{digits}x} {limit:08x}"
    yield (
        f"CR0={cpu.get('cr0'):08x} CR2={value('cr2')} CR3={value('cr3')} CR4={cpu.get('cr4'):08x}"
    )
    yield " ".join(f"DR{n}={value('dr', n)}" for n in range(4))
    yield f"DR6={value('dr', 6)} DR7={value('dr', 7)}"
    yield f"EFER={cpu.get('efer'):016x}"


def _shown(name: str, wide: bool) -> str:
    return f"{name.upper():<3}" if wide else "E" + name[1:].upper()
