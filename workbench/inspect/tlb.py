"""The data TLBs, which are part of a run's state: whether an access sets an Accessed bit depends on
them. Those for fetches follow from how code was translated; they are not shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from workbench.core import layout as lay
from workbench.core.layout import CPU
from workbench.inspect.page import Page, table

if TYPE_CHECKING:
    from workbench.core.engine import Cpu
    from workbench.core.machine import Machine

__all__ = ["tlb"]

_NAMES: Final = (
    (lay.MMU_KERNEL, "supervisor, user pages reachable"),
    (lay.MMU_KERNEL_SMAP, "supervisor under SMAP"),
    (lay.MMU_USER, "user"),
)
_PAGE: Final = 0x1000
_FOUR_GIB: Final = 1 << 32
_INVALID: Final = 0xFFF & ~lay.MARKS


def tlb(machine: Machine, name: str, rows: int) -> Page:
    """Pages that are next to each other in both spaces are one row."""
    tables = []
    for number, title in _NAMES:
        entries = sorted(_entries(machine.cpu, number))
        columns = ("linear", "to", "physical", "pages", "access")
        note = f"{len(entries)} of {lay.TLB_ENTRIES} entries"
        tables.append(table(title, columns, _ranges(entries), rows, note=note))
    return Page(name, "TLBs for data", tuple(tables))


def _entries(cpu: Cpu, number: int) -> Iterator[tuple[int, int, str]]:
    """(linear address, guest-physical address, rights) of the entries that are valid."""
    first = CPU.offset("tlbs") + number * lay.TLB_BYTES
    words = cpu.state_view[first : first + lay.TLB_BYTES].cast("Q")
    ram = cpu.ram.address
    for at in range(0, len(words), 4):
        read, write, _, addend = words[at : at + 4]
        tag = write if read & _INVALID else read
        if tag & _INVALID:
            continue
        linear = tag & ~0xFFF
        position = (linear + addend - ram) & 0xFFFFFFFFFFFFFFFF
        if position >= cpu.ram_bytes:
            continue
        gpa = position if position < cpu.low_bytes else position - cpu.low_bytes + _FOUR_GIB
        rights = ("" if read & _INVALID else "r") + ("" if write & _INVALID else "w")
        yield linear, gpa, rights


def _ranges(entries: list[tuple[int, int, str]]) -> Iterator[tuple[str, ...]]:
    def key(item: tuple[int, tuple[int, int, str]]) -> tuple[int, int, str]:
        n, (linear, gpa, rights) = item
        return linear - n * _PAGE, gpa - n * _PAGE, rights

    for _, group in groupby(enumerate(entries), key):
        pages = list(map(itemgetter(1), group))
        linear, gpa, rights = pages[0]
        end = pages[-1][0] + _PAGE - 1
        yield f"{linear:#x}", f"{end:#x}", f"{gpa:#x}", str(len(pages)), rights
