"""The symbols of a Linux guest as an ELF file for gdb: names and addresses, nothing else.

They come from kallsyms in guest memory, modules included, at the addresses at which the kernel ran.
ELF: "Tool Interface Standard Executable and Linking Format", version 1.2, and the x86-64 psABI.
A 32-bit kernel gets a 32-bit file, from which gdb takes the architecture.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from workbench.core.machine import Machine
from workbench.trace import symbols as linux
from workbench.trace.kallsyms import WORDS, Symbol

_CODE = frozenset("tTwW")
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8
_ALLOC, _EXEC = 2, 4
_EXECUTABLE = 2
_OBJECT, _FUNC, _GLOBAL = 1, 2, 1
_MOST_SECTIONS = 1024
_NAMES = b"\0.text\0.symtab\0.strtab\0"


@dataclass(frozen=True, slots=True)
class _Class:
    """A class of ELF files: its structures, EI_CLASS, e_machine."""

    header: struct.Struct
    section: struct.Struct
    ident: bytes
    machine: int

    def symbol(self, name: int, info: int, section: int, address: int) -> bytes:
        """An entry of the table of symbols."""
        if self is _ELF64:
            return struct.pack("<IBBHQQ", name, info, 0, section, address, 0)
        return struct.pack("<IIIBBH", name, address, 0, info, 0, section)


_ELF64 = _Class(struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQIIQQ"), b"\2", 62)
_ELF32 = _Class(struct.Struct("<16sHHIIIIIHHHHHH"), struct.Struct("<10I"), b"\1", 3)


def guest_symbols(machine: Machine) -> list[Symbol]:
    """Symbols of kernel and modules, as the machine's memory has them now; may be none."""
    kernel, modules = linux.guest_symbols(machine)
    return [*kernel, *(symbol for module in modules for symbol in module.symbols)]


def elf(symbols: Iterable[Symbol], gap_bytes: int = 1 << 63) -> bytes:
    """Make an ELF file with these symbols; those below the kernel's half (per-CPU) are left out.

    One section covers them all, or one those with no larger gap between them: of two sections of
    different files that overlap, gdb takes the wrong one.
    """
    every = sorted(symbols)
    for word in WORDS:
        found = [symbol for symbol in every if symbol[0] >= word.start]
        if found:
            break
    kind = _ELF64 if word.size == 8 else _ELF32
    spans = _spans([address for address, _, _ in found], gap_bytes)[:_MOST_SECTIONS]
    strings, table = bytearray(b"\0"), bytearray(len(kind.symbol(0, 0, 0, 0)))
    size, section = len(table), 1
    for address, letter, name in found:
        while section < len(spans) and address >= spans[section][0]:
            section += 1
        info = _GLOBAL << 4 | (_FUNC if letter in _CODE else _OBJECT)
        table += kind.symbol(len(strings), info, section, address)
        strings += name.encode() + b"\0"
    table_at = kind.header.size
    strings_at = table_at + len(table)
    names_at = strings_at + len(strings)
    pack = kind.section.pack
    flags, names = _ALLOC | _EXEC, len(spans) + 2
    headers = (
        pack(*[0] * 10),
        *(pack(1, _NOBITS, flags, low, table_at, end - low, 0, 0, 16, 0) for low, end in spans),
        pack(7, _SYMTAB, 0, 0, table_at, len(table), names, 1, word.size, size),
        pack(15, _STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        pack(15, _STRTAB, 0, 0, names_at, len(_NAMES), 0, 0, 1, 0),
    )
    header = kind.header.pack(
        b"\x7fELF" + kind.ident + b"\1\1" + bytes(9), _EXECUTABLE, kind.machine, 1, 0, 0,
        names_at + len(_NAMES), 0, kind.header.size, 0, 0, kind.section.size, len(headers),
        len(headers) - 1,
    )  # fmt: skip
    return header + bytes(table) + bytes(strings) + _NAMES + b"".join(headers)


def _spans(addresses: list[int], gap_bytes: int) -> list[tuple[int, int]]:
    """(first, behind the last) address of runs without a larger gap."""
    spans: list[tuple[int, int]] = []
    for address in addresses:
        if spans and address - spans[-1][1] <= gap_bytes:
            spans[-1] = spans[-1][0], address + 1
        else:
            spans.append((address, address + 1))
    return spans or [(0, 1)]
