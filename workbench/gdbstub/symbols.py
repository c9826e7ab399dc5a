"""The symbols of a Linux guest as an ELF file for gdb: names and addresses, nothing else.

They come from kallsyms in guest memory, modules included, at the addresses at which the kernel ran.
ELF: "Tool Interface Standard Executable and Linking Format", version 1.2, and the x86-64 psABI.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from workbench.core.machine import Machine
from workbench.trace import symbols as linux
from workbench.trace.kallsyms import WORDS, Symbol

_CODE = frozenset("tTwW")
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _STRTAB, _NOBITS = 2, 3, 8
_ALLOC, _EXEC = 2, 4
_EXECUTABLE, _X86_64 = 2, 62
_OBJECT, _FUNC, _GLOBAL = 1, 2, 1
_NAMES = b"\0.text\0.symtab\0.strtab\0"


def guest_symbols(machine: Machine) -> list[Symbol]:
    """Symbols of kernel and modules, as the machine's memory has them now; may be none."""
    kernel, modules = linux.guest_symbols(machine)
    return [*kernel, *(symbol for module in modules for symbol in module.symbols)]


def elf(symbols: Iterable[Symbol]) -> bytes:
    """Make an ELF file with these symbols; those below the kernel's half (per-CPU) are left out.

    One section covers them all: of two that overlap, gdb takes the wrong one.
    """
    every = list(symbols)
    for word in WORDS:
        found = [symbol for symbol in every if symbol[0] >= word.start]
        if found:
            break
    low = min((address for address, _, _ in found), default=0)
    high = max((address for address, _, _ in found), default=0)
    strings = bytearray(b"\0")
    table = bytearray(_SYMBOL.size)
    for address, letter, name in found:
        kind = _FUNC if letter in _CODE else _OBJECT
        table += _SYMBOL.pack(len(strings), _GLOBAL << 4 | kind, 0, 1, address, 0)
        strings += name.encode() + b"\0"
    table_at = _HEADER.size
    strings_at = table_at + len(table)
    names_at = strings_at + len(strings)
    flags = _ALLOC | _EXEC
    headers = (
        _SECTION.pack(*[0] * 10),
        _SECTION.pack(1, _NOBITS, flags, low, table_at, high - low + 1, 0, 0, 16, 0),
        _SECTION.pack(7, _SYMTAB, 0, 0, table_at, len(table), 3, 1, 8, _SYMBOL.size),
        _SECTION.pack(15, _STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        _SECTION.pack(15, _STRTAB, 0, 0, names_at, len(_NAMES), 0, 0, 1, 0),
    )
    header = _HEADER.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9), _EXECUTABLE, _X86_64, 1, 0, 0,
        names_at + len(_NAMES), 0, _HEADER.size, 0, 0, _SECTION.size, len(headers),
        len(headers) - 1,
    )  # fmt: skip
    return header + bytes(table) + bytes(strings) + _NAMES + b"".join(headers)
