"""A guest's memory as an ELF core file, as QEMU's `dump-guest-memory` writes it.

Each range of physical memory is a PT_LOAD whose `p_paddr` says where it is. With paging there is
one for each piece of linear addresses instead, `p_vaddr`, and several may share bytes of the file.
`p_align` is 0 as in kdump's files: by that crash tells them from those of netdump.
ELF: "Tool Interface Standard Executable and Linking Format", version 1.2; more than 65,534 program
headers as in the System V ABI, "ELF header", PN_XNUM.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["Segment", "headers"]

PAGE: Final = 0x1000
_PT_LOAD, _PT_NOTE = 1, 4
_ET_CORE, _EM_386, _EM_X86_64 = 4, 3, 62
_RWX: Final = 7
_PN_XNUM: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class _Class:
    """Structures of a class of ELF files; `program` takes the fields of a 64-bit header."""

    ident: int
    header: struct.Struct
    program: struct.Struct
    section: struct.Struct


_ELF64 = _Class(
    2, struct.Struct("<16sHHIQQQI6H"), struct.Struct("<IIQQQQQQ"), struct.Struct("<IIQQQQIIQQ")
)
_ELF32 = _Class(1, struct.Struct("<16sHHIIIII6H"), struct.Struct("<8I"), struct.Struct("<10I"))


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD: `at` counts from the start of the memory in the file."""

    linear: int
    gpa: int
    at: int
    length: int


def headers(segments: Iterable[Segment], notes: bytes, *, wide: bool, long: bool) -> bytes:
    """All that is before the memory, a whole number of pages.

    wide: addresses may have more than 32 bits; long: the processor is in 64-bit mode.
    """
    found, kind = list(segments), _ELF64 if wide else _ELF32
    count = len(found) + 1
    many = count >= _PN_XNUM
    sections = kind.section.size * many
    notes_at = kind.header.size + sections + count * kind.program.size
    memory_at = notes_at + len(notes) + PAGE - 1 & -PAGE
    header = kind.header.pack(
        b"\x7fELF" + bytes((kind.ident, 1, 1)) + bytes(9), _ET_CORE,
        _EM_X86_64 if long else _EM_386, 1, 0, kind.header.size + sections,
        kind.header.size * many, 0, kind.header.size, kind.program.size, min(count, _PN_XNUM),
        kind.section.size, int(many), 0,
    )  # fmt: skip
    if many:  # the number is in the section header at 0
        header += kind.section.pack(0, 0, 0, 0, 0, 0, 0, count, 0, 0)
    programs = [_program(kind, _PT_NOTE, 0, notes_at, 0, 0, len(notes), 4)]
    programs += [
        _program(kind, _PT_LOAD, _RWX, memory_at + s.at, s.linear, s.gpa, s.length, 0)
        for s in found
    ]
    return (header + b"".join(programs) + notes).ljust(memory_at, b"\0")


def _program(
    kind: _Class, what: int, flags: int, at: int, linear: int, gpa: int, length: int, align: int
) -> bytes:
    if kind is _ELF64:
        return kind.program.pack(what, flags, at, linear, gpa, length, length, align)
    return kind.program.pack(what, at, linear, gpa, length, length, flags, align)
