"""The call chain of a guest, found in its memory: by Linux's ORC tables, else by frame pointers.

ORC tells for each address of a kernel's code where its caller's stack pointer is. The tables of the
kernel are found by their symbols, those of a module in its `struct module`. Layout:
arch/x86/include/asm/orc_types.h and arch/x86/kernel/unwind_orc.c of Linux 6.1; that of 6.4, where
the types have other numbers, is told apart by the most frequent type. Memory is the guest's: what
makes no sense ends the chain.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from workbench.core.pagewalk import Paging, Registers
from workbench.trace.kallsyms import AddressSpace, MemoryLike, Symbol, kernel_symbols

__all__ = ["DEEPEST", "OrcTable", "Unwinder", "module_tables"]

DEEPEST: Final = 64
KERNEL_START: Final = 0xFFFF_FFFF_8000_0000
_KERNEL_HALF: Final = 1 << 63
_MASK: Final = (1 << 64) - 1
_PAGE: Final = 0x1000
_MOST_ENTRIES: Final = 1 << 22
_MOST_MODULES: Final = 1024
_MOST_KNOWN: Final = 1 << 16
_MOST_TRIES: Final = 12
_MOST_SEARCHES: Final = 512
_MODULE_BYTES: Final = 0x600
_MODULE_ARCH: Final = struct.Struct("<IIQQ")  # num_orcs, padding, orc_unwind_ip, orc_unwind
_MODULE_SPAN: Final = 64 << 20
_FRAME_SPAN: Final = 64 << 10

# enum ORC_REG_*, and those that are plain registers.
_UNDEFINED, _PREV_SP, _BP, _SP, _BP_INDIRECT, _SP_INDIRECT = 0, 1, 4, 5, 8, 9
_PLAIN: Final = {2: "rdx", 3: "rdi", 6: "r10", 7: "r13"}
# ORC_TYPE_*, from ORC_TYPE_CALL.
_CALL, _REGS, _REGS_PARTIAL = 0, 1, 2
# struct pt_regs
_PT_REGS: Final = {"r13": 16, "rbp": 32, "r10": 56, "rdx": 96, "rdi": 112}
_PT_IRET: Final = 128

Entry = tuple[int, int, int, int, int]
"""sp_offset, bp_offset, sp_reg, bp_reg, type (0 is a call)."""


class OrcTable:
    """The ORC entries of a kernel or a module, as arrays."""

    def __init__(self, ips: bytes, entries: bytes, ip_at: int) -> None:
        """Take both tables; `ip_at` is the address of that of places. Raises ValueError."""
        import numpy as np

        count = len(ips) // 4
        if not count or len(entries) < 6 * count:
            raise ValueError("expected an ORC entry for each place")
        offsets = np.frombuffer(ips, "<i4", count).astype(np.int64)
        # Relative to the start of the table, so that 64 bits with a sign will do.
        self._places = offsets + 4 * np.arange(count, dtype=np.int64)
        if (np.diff(self._places) < 0).any():
            raise ValueError("expected places in order")
        self._base = ip_at
        self._entries = entries
        flags = np.frombuffer(entries, "<u2", 3 * count)[2::3]
        call = int(np.bincount(flags >> 8 & 7, minlength=8).argmax())
        self._call, self._type_mask = (call, 7) if call else (0, 3)
        self.start = ip_at + int(self._places[0])
        self.end = ip_at + int(self._places[-1])

    def find(self, pc: int) -> tuple[int, Entry] | None:
        """The entry for an address, and where it begins; None beside the table."""
        if not self.start <= pc < self.end:
            return None
        n = int(self._places.searchsorted(pc - self._base, "right")) - 1
        sp_offset, bp_offset, flags = struct.unpack_from("<hhH", self._entries, 6 * n)
        kind = (flags >> 8 & self._type_mask) - self._call
        place = self._base + int(self._places[n])
        return place, (sp_offset, bp_offset, flags & 15, flags >> 4 & 15, kind)


def read_table(space: AddressSpace, ip_at: int, entries_at: int, count: int) -> OrcTable | None:
    """Read a table from guest memory; None when there is none."""
    if not 0 < count <= _MOST_ENTRIES:
        return None
    ips, entries = space.read(ip_at, 4 * count), space.read(entries_at, 6 * count)
    if ips is None or entries is None:
        return None
    try:
        return OrcTable(ips, entries, ip_at)
    except ValueError:
        return None


def kernel_table(space: AddressSpace, symbols: list[Symbol]) -> OrcTable | None:
    """The kernel's own table, by its symbols."""
    wanted = {"__start_orc_unwind_ip", "__stop_orc_unwind_ip", "__start_orc_unwind"}
    found = {name: address for address, _, name in symbols if name in wanted}
    if len(found) < len(wanted):
        return None
    start = found["__start_orc_unwind_ip"]
    count = (found["__stop_orc_unwind_ip"] - start) // 4
    return read_table(space, start, found["__start_orc_unwind"], count)


def module_tables(space: AddressSpace, modules: int) -> Iterator[OrcTable]:
    """The tables of all modules, from the head of their list."""
    link: int | None = modules
    for _ in range(_MOST_MODULES):
        link = space.pointer(link) if link is not None else None
        if link is None or link == modules:
            return
        table = _module_table(space, link - space.word.list_at)
        if table is not None:
            yield table


def _module_table(space: AddressSpace, at: int) -> OrcTable | None:
    """By the shape of `struct mod_arch_specific`: a count and two pointers to what is a table."""
    raw = space.read(at & _MASK, _MODULE_BYTES)
    if raw is None:
        return None
    for offset in range(0, _MODULE_BYTES - _MODULE_ARCH.size, 8):
        count, zero, ip_at, entries_at = _MODULE_ARCH.unpack_from(raw, offset)
        if zero or not 1 < count <= 1 << 18 or min(ip_at, entries_at) < _KERNEL_HALF:
            continue
        if not abs(ip_at - at) < _MODULE_SPAN or not abs(entries_at - ip_at) < _MODULE_SPAN:
            continue
        table = read_table(space, ip_at, entries_at, count)
        if table is not None and abs(table.start - at) < _MODULE_SPAN:
            return table
    return None


class MachineLike(Protocol):
    """What is unwound."""

    @property
    def memory(self) -> MemoryLike:
        """Its memory."""

    @property
    def cpu(self) -> Registers:
        """Its registers."""


@dataclass(slots=True)
class _Frame:
    """Where the unwinding is; `registers` reads what else is known of this frame."""

    pc: int
    sp: int
    bp: int
    registers: Any
    exact: bool
    """Is `pc` the instruction itself, not the one after a call?"""


class _Stack:
    """Guest-virtual memory for one unwinding: each page is read once."""

    def __init__(self, space: AddressSpace) -> None:
        self._space = space
        self._pages: dict[int, bytes | None] = {}

    def word(self, gva: int, size: int = 8) -> int | None:
        """A word; None when it is not mapped."""
        gva &= _MASK
        page, offset = gva & -_PAGE, gva % _PAGE
        if offset > _PAGE - size:
            data = self._space.read(gva, size)
            return None if data is None else int.from_bytes(data, "little")
        if page not in self._pages:
            self._pages[page] = self._space.read(page, _PAGE)
        found = self._pages[page]
        return None if found is None else int.from_bytes(found[offset : offset + size], "little")


class Unwinder:
    """Call chains of a machine as it runs; it finds the tables when they are first needed."""

    def __init__(self, machine: MachineLike, symbols: list[Symbol] | None = None) -> None:
        """Take a machine; with `symbols` of its kernel they are not looked for."""
        self.machine = machine
        self._tables: list[OrcTable] = []
        self._symbols = symbols
        self._modules: int | None = None
        self._asked = self._tries = 0
        self._known: dict[int, Entry | None] = {}
        self._missing: set[int] = set()

    @property
    def has_orc(self) -> bool:
        """Have ORC tables been found?"""
        return bool(self._tables)

    def chain(self, pc: int | None = None) -> tuple[int, ...]:
        """The instruction that runs now, then return addresses from the innermost to the outermost.

        The chain ends at a user's code, where nothing is known any more, or after `DEEPEST`.
        """
        return tuple(pc for pc, _, _ in self.frames(pc))

    def frames(self, pc: int | None = None) -> tuple[tuple[int, int, int], ...]:
        """As `chain`, with the stack pointer and RBP that each of them has: (PC, RSP, RBP)."""
        cpu = self.machine.cpu
        space = AddressSpace(self.machine.memory, Paging.of(cpu))
        stack, size = _Stack(space), space.word.size
        here = cpu.get("rip") if pc is None else pc
        if not cpu.get("cr0") & 1:
            return ((here, cpu.get("rsp"), cpu.get("rbp")),)
        frame = _Frame(here, cpu.get("rsp"), cpu.get("rbp"), cpu.get, True)
        if size == 8 and here >= KERNEL_START and not self._tables:
            self._look(space)
        found = [(here, frame.sp, frame.bp)]
        while len(found) < DEEPEST:
            before, caller = frame, self._caller(frame, space, stack)
            if caller is None or caller.pc < space.word.start <= before.pc:
                break
            frame = caller
            if frame.exact and frame.sp == before.sp and frame.pc == before.pc:
                break
            found.append((frame.pc, frame.sp, frame.bp))
        return tuple(found)

    def _look(self, space: AddressSpace) -> None:
        """Look for the kernel's tables; ever more rarely, for there may be none (yet)."""
        self._asked += 1
        if self._tries >= _MOST_TRIES or self._asked < (1 << self._tries) - 1:
            return
        self._tries += 1
        symbols = self._symbols
        if symbols is None:
            from workbench.trace.symbols import ram_ranges

            memory = self.machine.memory
            symbols = kernel_symbols(memory, ram_ranges(memory))
        table = kernel_table(space, symbols)
        if table is not None:
            self._tables = [table]
            self._modules = next((a for a, _, name in symbols if name == "modules"), None)
            self._known.clear()

    def _entry(self, pc: int, space: AddressSpace) -> Entry | None:
        if pc in self._known:
            return self._known[pc]
        found = self._lookup(pc)
        page = pc // _PAGE
        unknown = found is None or found[2] == _UNDEFINED
        if unknown and self._modules is not None and page not in self._missing:
            # A module that was loaded since.
            if len(self._missing) < _MOST_SEARCHES:
                self._tables[1:] = module_tables(space, self._modules)
                self._missing.add(page)
            found = self._lookup(pc)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[pc] = found
        return found

    def _lookup(self, pc: int) -> Entry | None:
        """The nearest entry of all tables: between a module's code and its `__init` code, far
        apart, may lie other modules.
        """
        found = [entry for table in self._tables if (entry := table.find(pc)) is not None]
        return max(found, key=lambda entry: entry[0])[1] if found else None

    def _caller(self, frame: _Frame, space: AddressSpace, stack: _Stack) -> _Frame | None:
        if self._tables and frame.pc >= _KERNEL_HALF:
            entry = self._entry(frame.pc if frame.exact else frame.pc - 1, space)
            return None if entry is None else _by_orc(frame, entry, stack)
        return _by_frame_pointer(frame, stack, space.word.size)


def _by_orc(frame: _Frame, entry: Entry, stack: _Stack) -> _Frame | None:
    sp_offset, bp_offset, sp_reg, bp_reg, kind = entry
    sp = _caller_sp(frame, sp_reg, sp_offset, stack)
    if sp is None:
        return None
    registers: Any = None
    bp: int | None = frame.bp
    if kind == _CALL:
        pc, above = stack.word(sp - 8), sp
        if pc is None or sp <= frame.sp:
            return None
    elif kind in (_REGS, _REGS_PARTIAL):
        iret = sp + (_PT_IRET if kind == _REGS else 0)
        pc, cs, after = stack.word(iret), stack.word(iret + 8), stack.word(iret + 24)
        if pc is None or cs is None or after is None or cs & 3:
            return None
        above = after
        if kind == _REGS:
            bp = stack.word(sp + _PT_REGS["rbp"])

            def registers(name: str) -> int | None:
                return stack.word(sp + _PT_REGS[name])
    else:
        return None
    if bp_reg == _PREV_SP:
        bp = stack.word(sp + bp_offset)
    elif bp_reg == _BP:
        bp = stack.word(frame.bp + bp_offset)
    elif bp_reg != _UNDEFINED:
        return None
    if bp is None or pc < _KERNEL_HALF:
        return None
    return _Frame(pc, above, bp, registers, kind != _CALL)


def _caller_sp(frame: _Frame, sp_reg: int, offset: int, stack: _Stack) -> int | None:
    """The stack pointer of the caller. `ORC_REG_UNDEFINED` is the end of a stack."""
    if sp_reg == _SP:
        return frame.sp + offset & _MASK
    if sp_reg == _BP:
        return frame.bp + offset & _MASK
    if sp_reg == _BP_INDIRECT:
        return stack.word(frame.bp + offset)
    if sp_reg == _SP_INDIRECT:
        found = stack.word(frame.sp)
        return None if found is None else found + offset & _MASK
    if sp_reg in _PLAIN and frame.registers is not None:
        value: int | None = frame.registers(_PLAIN[sp_reg])
        return value
    return None


def _by_frame_pointer(frame: _Frame, stack: _Stack, size: int) -> _Frame | None:
    """Each frame must lie above the last, and not far."""
    if not frame.sp <= frame.bp < frame.sp + _FRAME_SPAN or frame.bp % size:
        return None
    bp, pc = stack.word(frame.bp, size), stack.word(frame.bp + size, size)
    if bp is None or not pc:
        return None
    return _Frame(pc, frame.bp + 2 * size, bp, None, False)
