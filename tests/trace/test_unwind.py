"""Call chains over a made-up memory, with made-up ORC tables."""

from __future__ import annotations

import random
import struct

import pytest

from tests.trace.test_symbols import Memory
from workbench.core.layout import CR0_PE, CR0_PG, CR4_PAE, EFER_LMA
from workbench.core.pagewalk import Paging
from workbench.trace.kallsyms import AddressSpace, Symbol
from workbench.trace.unwind import DEEPEST, OrcTable, Unwinder, module_tables

BASE = 0xFFFF_FFFF_9A00_0000
PUT = 0x200000  # where BASE lies
STACK = 0x80000
IPS, ENTRIES = 0x10000, 0x11000
MODULES, MODULE, MODULE_IPS, MODULE_ENTRIES = 0x100, 0x20000, 0x21000, 0x22000
MODULE_CODE = 0x40000
SP, BP, SP_INDIRECT, R10, PREV_SP = 5, 4, 9, 6, 1
CALL, REGS, PARTIAL = 0, 1, 2
SYMBOLS: list[Symbol] = [
    (BASE + IPS, "D", "__start_orc_unwind_ip"),
    (BASE + ENTRIES, "D", "__start_orc_unwind"),
    (BASE + MODULES, "d", "modules"),
]

Row = tuple[int, int, int, int, int, int]
"""Address, sp_offset, bp_offset, sp_reg, bp_reg, type."""


class Cpu:
    def __init__(self, **registers: int) -> None:
        self.registers = registers | {
            "cr0": CR0_PE | CR0_PG, "cr3": 0x1000, "cr4": CR4_PAE, "efer": EFER_LMA,
        }  # fmt: skip

    def get(self, name: str) -> int:
        return self.registers.get(name, 0)


class Guest:
    """2 MiB at BASE, with tables of a kernel."""

    def __init__(self, rows: list[Row], call: int = CALL) -> None:
        self.data = bytearray(0x400000)
        for table, shift, entry in ((0x1000, 39, 0x2003), (0x2000, 30, 0x3003), (0x3000, 21, 0)):
            at = table + (BASE >> shift & 511) * 8
            struct.pack_into("<Q", self.data, at, entry or PUT | 0x83)
        self.tables(rows, IPS, ENTRIES, call)
        self.put(MODULES, BASE + MODULES)
        self.symbols = [*SYMBOLS, (BASE + IPS + 4 * len(rows), "D", "__stop_orc_unwind_ip")]
        self.cpu = Cpu()

    @property
    def memory(self) -> Memory:
        return Memory(bytes(self.data))

    def tables(self, rows: list[Row], ips: int, entries: int, call: int = CALL) -> None:
        for n, (address, sp_offset, bp_offset, sp_reg, bp_reg, kind) in enumerate(rows):
            struct.pack_into("<i", self.data, PUT + ips + 4 * n, address - ips - 4 * n)
            flags = sp_reg | bp_reg << 4 | (kind + call) << 8
            struct.pack_into("<hhH", self.data, PUT + entries + 6 * n, sp_offset, bp_offset, flags)

    def put(self, at: int, *words: int) -> None:
        struct.pack_into(f"<{len(words)}Q", self.data, PUT + at, *words)

    def chain(self, pc: int, **registers: int) -> list[int]:
        self.cpu = Cpu(**registers)
        found = Unwinder(self, self.symbols).chain(BASE + pc)
        return [address - BASE for address in found]


ROWS: list[Row] = [
    (0x1000, 8, 0, SP, 0, CALL),  # a leaf
    (0x1100, 24, -16, SP, PREV_SP, CALL),  # has pushed rbp
    (0x1200, 16, -16, BP, PREV_SP, CALL),  # has a frame pointer
    (0x1300, 0, 0, SP, 0, REGS),  # an interrupt's entry
    (0x1400, 0, 0, SP, 0, PARTIAL),
    (0x1500, 8, 0, SP_INDIRECT, 0, CALL),
    (0x1600, 0, 0, R10, 0, CALL),
    (0x1700, 0, 0, 0, 0, CALL),  # the end of a stack
    (0x1800, 0, 0, 0, 0, CALL),
]


@pytest.mark.parametrize("call", [0, 2])
def test_calls(call: int) -> None:
    guest = Guest(ROWS, call)
    guest.put(STACK, BASE + 0x1110)
    guest.put(STACK + 8, 0, BASE + STACK + 0x40, BASE + 0x1210)  # a local, rbp
    guest.put(STACK + 0x40, 0, BASE + 0x1708)
    found = guest.chain(0x1004, rsp=BASE + STACK, rbp=7)
    assert found == [0x1004, 0x1110, 0x1210, 0x1708]


def test_the_address_before_a_return_address_counts() -> None:
    """A call of what does not return may be a function's last instruction."""
    guest = Guest(ROWS)
    guest.put(STACK, BASE + 0x1100, BASE + 0x1704)
    assert guest.chain(0x1004, rsp=BASE + STACK) == [0x1004, 0x1100, 0x1704]


@pytest.mark.parametrize(("pc", "iret"), [(0x1300, 128), (0x1400, 0)])
def test_an_interrupt(pc: int, iret: int) -> None:
    guest = Guest(ROWS)
    guest.put(STACK, BASE + pc + 8)
    frame = STACK + 8
    guest.put(frame + iret, BASE + 0x1000, 0x10, 2, BASE + STACK + 0x400, 0x18)
    guest.put(STACK + 0x400, BASE + 0x1704)
    # 0x1000 was interrupted at its first byte: the byte before it is of another function.
    assert guest.chain(0x1004, rsp=BASE + STACK) == [0x1004, pc + 8, 0x1000, 0x1704]
    guest.put(frame + iret + 8, 0x33)  # user code
    assert guest.chain(0x1004, rsp=BASE + STACK) == [0x1004, pc + 8]


def test_other_stacks() -> None:
    guest = Guest(ROWS)
    guest.put(STACK, BASE + STACK + 0x100)
    guest.put(STACK + 0x100, BASE + 0x1704)
    assert guest.chain(0x1504, rsp=BASE + STACK) == [0x1504, 0x1704]
    guest.put(STACK + 0x1F8, BASE + 0x1704)
    assert guest.chain(0x1604, rsp=BASE + STACK, r10=BASE + STACK + 0x200) == [0x1604, 0x1704]


def with_module() -> Guest:
    guest = Guest(ROWS)
    guest.put(MODULES, BASE + MODULE + 8)
    guest.put(MODULE + 8, BASE + MODULES)
    guest.put(MODULE + 0x148, 2, BASE + MODULE_IPS, BASE + MODULE_ENTRIES)
    rows: list[Row] = [(MODULE_CODE, 8, 0, SP, 0, CALL), (MODULE_CODE + 0x100, 0, 0, 0, 0, CALL)]
    guest.tables(rows, MODULE_IPS, MODULE_ENTRIES)
    return guest


def test_a_module() -> None:
    guest = with_module()
    guest.put(STACK, BASE + MODULE_CODE + 8, BASE + 0x1704)
    found = guest.chain(0x1004, rsp=BASE + STACK)
    assert found == [0x1004, MODULE_CODE + 8, 0x1704]
    space = AddressSpace(guest.memory, Paging.of(guest.cpu))
    (table,) = module_tables(space, BASE + MODULES)
    assert (table.start, table.end) == (BASE + MODULE_CODE, BASE + MODULE_CODE + 0x100)


def test_a_module_between_the_parts_of_another() -> None:
    """One module's code and its `__init` code enclose the other's code."""
    guest = with_module()
    other, ips, entries = 0x30000, 0x31000, 0x32000
    guest.put(MODULES, BASE + other + 8)
    guest.put(other + 8, BASE + MODULE + 8)
    guest.put(other + 0x148, 3, BASE + ips, BASE + entries)
    end = (0, 0, 0, 0, CALL)
    leaf = (8, 0, SP, 0, CALL)
    around: list[Row] = [(0x3F000, *leaf), (0x3F800, *end), (0x4F000, *end)]
    guest.tables(around, ips, entries)
    guest.put(STACK, BASE + MODULE_CODE + 8, BASE + 0x3F008, BASE + 0x1704)
    found = guest.chain(0x1004, rsp=BASE + STACK)
    assert found == [0x1004, MODULE_CODE + 8, 0x3F008, 0x1704]


def test_frame_pointers() -> None:
    guest = Guest(ROWS)
    guest.symbols = []
    guest.put(STACK + 0x10, BASE + STACK + 0x40, BASE + 0x2000)
    guest.put(STACK + 0x40, 0, BASE + 0x3000)
    found = guest.chain(0x1004, rsp=BASE + STACK, rbp=BASE + STACK + 0x10)
    assert found == [0x1004, 0x2000, 0x3000]
    # One that does not rise, and one that is not mapped.
    guest.put(STACK + 0x10, BASE + STACK + 0x10)
    assert guest.chain(0x1004, rsp=BASE + STACK, rbp=BASE + STACK + 0x10) == [0x1004, 0x2000]
    assert guest.chain(0x1004, rsp=1 << 40, rbp=(1 << 40) + 8) == [0x1004]


def test_a_stack_that_does_not_end() -> None:
    guest = Guest(ROWS)
    guest.put(STACK, *[BASE + 0x1004] * 1000)
    assert len(guest.chain(0x1004, rsp=BASE + STACK)) == DEEPEST
    # An interrupt's frame that leads to itself.
    guest.put(STACK + 128, BASE + 0x1304, 0x10, 2, BASE + STACK)
    assert guest.chain(0x1304, rsp=BASE + STACK) == [0x1304]


def test_hostile_memory() -> None:
    rng = random.Random(1)
    for _ in range(300):
        guest = with_module()
        for _ in range(40):
            at = rng.choice([IPS, ENTRIES, MODULE, MODULE_IPS, MODULES, STACK]) + rng.randrange(64)
            guest.put(at, rng.choice([rng.getrandbits(64), BASE + rng.randrange(0x50000)]))
        pc = rng.choice([0x1004, 0x1204, 0x1304, 0x1604, MODULE_CODE + 4])
        sp = rng.choice([BASE + STACK, (1 << 64) - 4, 0, BASE + 0x1FFFFC])
        registers = {name: rng.getrandbits(64) for name in ("rbp", "r10", "rdi")}
        assert len(guest.chain(pc, rsp=sp, **registers)) <= DEEPEST


def test_tables_that_are_none() -> None:
    with pytest.raises(ValueError, match="for each place"):
        OrcTable(bytes(8), bytes(6), BASE)
    with pytest.raises(ValueError, match="in order"):
        OrcTable(struct.pack("<ii", 100, 0), bytes(12), BASE)
