"""What we need of an ELF64 relocatable object as LLVM writes it (System V ABI, AMD64
supplement).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

SHT_PROGBITS, SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 1, 2, 4, 8
SHF_ALLOC = 2
R_64, R_PC32, R_PLT32, R_32, R_32S, R_16, R_8 = 1, 2, 4, 10, 11, 12, 14


@dataclass(slots=True)
class Section:
    """One section that is loaded: bytes, alignment, relocations (offset, type, symbol index,
    addend).
    """

    name: str
    data: bytes
    align: int
    relocs: list[tuple[int, int, int, int]] = field(default_factory=list)


@dataclass(slots=True)
class Symbol:
    """A symbol: the section that holds it (None: undefined), value in it and size."""

    name: str
    section: int | None
    value: int
    size: int


def parse_object(blob: bytes) -> tuple[dict[int, Section], list[Symbol]]:
    """Loaded sections by index, and all symbols."""
    if blob[:6] != b"\x7fELF\x02\x01":
        raise ValueError("expected a little-endian ELF64 object")
    shoff = struct.unpack_from("<Q", blob, 40)[0]
    shentsize, shnum, shstrndx = struct.unpack_from("<HHH", blob, 58)
    first = struct.unpack_from("<IIQQQQIIQQ", blob, shoff)
    shnum = shnum or first[5]
    if shstrndx == 0xFFFF:
        shstrndx = first[6]
    headers = [struct.unpack_from("<IIQQQQIIQQ", blob, shoff + i * shentsize) for i in range(shnum)]
    names = headers[shstrndx][4]
    sections: dict[int, Section] = {}
    for i, h in enumerate(headers):
        if h[2] & SHF_ALLOC and h[1] in (SHT_PROGBITS, SHT_NOBITS):
            name = blob[names + h[0] : blob.index(b"\0", names + h[0])].decode()
            data = blob[h[4] : h[4] + h[5]] if h[1] == SHT_PROGBITS else bytes(h[5])
            sections[i] = Section(name, data, max(1, h[8]))
    symbols: list[Symbol] = []
    shndx: tuple[int, ...] = ()
    for h in headers:
        if h[1] == 18:  # SHT_SYMTAB_SHNDX: section numbers above 0xFF00
            shndx = struct.unpack_from(f"<{h[5] // 4}I", blob, h[4])
    for h in headers:
        if h[1] == SHT_SYMTAB:
            strings = headers[h[6]][4]
            for i in range(h[5] // 24):
                name_at, _info, _other, index, value, size = struct.unpack_from(
                    "<IBBHQQ", blob, h[4] + i * 24
                )
                if index == 0xFFFF:
                    index = shndx[i]
                start = strings + name_at
                name = blob[start : blob.index(b"\0", start)].decode()
                symbols.append(Symbol(name, index if index in sections else None, value, size))
    for h in headers:
        if h[1] == SHT_RELA and h[7] in sections:
            relocs = sections[h[7]].relocs
            for at, info, addend in struct.iter_unpack("<QQq", blob[h[4] : h[4] + h[5]]):
                relocs.append((at, info & 0xFFFFFFFF, info >> 32, addend))
    return sections, symbols
