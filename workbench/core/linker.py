"""Link the helpers and cut the stencils out of LLVM's object files."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from workbench.core import elf
from workbench.core.stencil import HOLES
from workbench.core.translate import FIXED_INDEX, MISS_INDEX

KINDS = {
    elf.R_PC32: 0,
    elf.R_PLT32: 0,
    elf.R_32: 1,
    elf.R_32S: 1,
    elf.R_64: 2,
    elf.R_8: 3,
    elf.R_16: 4,
}
HOLE_INDEX = {name: i for i, name in enumerate(HOLES)}
HOLE_INDEX.update({f"H_{name}": i for i, name in enumerate(HOLES)})
HOLE_INDEX.update({f"H_IMM{n}": HOLE_INDEX["IMM"] for n in (1, 4)})
HOLE_INDEX.update({f"MISS{k}": MISS_INDEX + k for k in range(32)})


@dataclass
class Linked:
    """The parts of an `Image` that come from objects (see build.Image)."""

    blob: bytes = b""
    fixups: list[tuple[int, int, int, int]] = field(default_factory=list)
    symbols: list[tuple[str, str | int]] = field(default_factory=list)
    functions: dict[str, int] = field(default_factory=dict)
    stencil_code: bytes = b""
    stencils: bytes = b""
    relocs: bytes = b""
    names: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    faults: dict[str, bool] = field(default_factory=dict)
    stores: dict[str, bool] = field(default_factory=dict)  # at the address in `addr`
    specials: dict[int, str] = field(default_factory=dict)


class _Blob:
    """Bytes that will be placed below 2 GiB, with what must be fixed up there."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.symbols: list[tuple[str, str | int]] = []
        self.index: dict[tuple[str, str | int], int] = {}
        self.fixups: list[tuple[int, int, int, int]] = []

    def add(self, section: elf.Section) -> int:
        self.data += bytes(-len(self.data) % max(section.align, 16))
        at = len(self.data)
        self.data += section.data
        return at

    def symbol(self, kind: str, value: str | int) -> int:
        key = (kind, value)
        if key not in self.index:
            self.index[key] = len(self.symbols)
            self.symbols.append(key)
        return self.index[key]


def link(
    helpers: bytes, objects: list[bytes], order: list[str], specials: dict[int, str]
) -> Linked:
    """Link `helpers` into a blob; cut the stencils named in `order` and `specials` out of
    `objects`.
    """
    blob = _Blob()
    out = Linked(specials=specials)
    sections, symbols = elf.parse_object(helpers)
    sections = {i: s for i, s in sections.items() if s.name != ".eh_frame"}
    placed = {i: blob.add(s) for i, s in sections.items()}
    for s in symbols:
        if s.section in placed and s.name:
            out.functions[s.name] = placed[s.section] + s.value
    for i, section in sections.items():
        for at, kind, n, addend in section.relocs:
            blob.fixups.append(
                (placed[i] + at, KINDS[kind], _target(blob, symbols[n], placed, out), addend)
            )
    found: dict[str, tuple[bytes, list[tuple[int, int, int, int]]]] = {}
    for data in objects:
        sections, symbols = elf.parse_object(data)
        places = {
            i: blob.add(s)
            for i, s in sections.items()
            if s.data and not s.name.startswith((".text", ".eh_frame"))
        }
        for i in places:
            for at, kind, n, addend in sections[i].relocs:
                blob.fixups.append(
                    (places[i] + at, KINDS[kind], _target(blob, symbols[n], places, out), addend)
                )
        by_section = {s.section: s for s in symbols if s.section is not None and s.size}
        for i, section in sections.items():
            if not section.name.startswith(".text.") or i not in by_section:
                continue
            sym = by_section[i]
            code = section.data[: sym.size]
            relocs = []
            for at, kind, n, addend in section.relocs:
                target = symbols[n]
                if target.name in HOLE_INDEX and target.section is None:
                    value = HOLE_INDEX[target.name]
                elif (
                    target.section == i
                ):  # a jump table or a branch inside: keep it relative to SELF
                    value = HOLE_INDEX["SELF"]
                    addend += target.value
                else:
                    value = FIXED_INDEX + _target(blob, target, places, out)
                relocs.append((at, KINDS[kind], value, addend))
            found[sym.name] = (code, relocs)
    code_all = bytearray()
    reloc_all = bytearray()
    records = bytearray()
    names = [*order, *specials.values()]
    for number, name in enumerate(names):
        code, relocs = found[name]
        if code[-5:-4] == b"\xe9" and any(r[0] == len(code) - 4 and r[2] == 0 for r in relocs):
            relocs = [r for r in relocs if r[0] != len(code) - 4]
            code = code[:-5]
            falls = True
        else:
            falls = False
        values = {r[2] for r in relocs}
        faults = (
            not falls
            or any(MISS_INDEX <= v < MISS_INDEX + 32 or v == HOLE_INDEX["FAULT"] for v in values)
            or _has_ret(code)
        )
        records += struct.pack(
            "<5i44x", len(code_all), len(code), len(reloc_all) // 16, len(relocs), int(faults)
        )
        out.numbers[name] = number
        out.faults[name] = faults
        out.stores[name] = any(MISS_INDEX + 24 <= v < MISS_INDEX + 32 for v in values)
        for at, kind, value, addend in relocs:
            reloc_all += struct.pack("<4i", at, kind, value, addend)
        code_all += code + bytes(-len(code) % 8)
    out.blob = bytes(blob.data)
    out.fixups = blob.fixups
    out.symbols = blob.symbols
    out.stencil_code = bytes(code_all) + bytes(64)
    out.stencils = bytes(records)
    out.relocs = bytes(reloc_all)
    out.names = names
    return out


def _has_ret(code: bytes) -> bool:
    """May the code return to the run loop?  (A false alarm only costs a flag store.)"""
    return b"\xc3" in code


def _target(blob: _Blob, symbol: elf.Symbol, placed: dict[int, int], out: Linked) -> int:
    if symbol.section is not None and symbol.section in placed:
        return blob.symbol("blob", placed[symbol.section] + symbol.value)
    if symbol.name in out.functions:
        return blob.symbol("blob", out.functions[symbol.name])
    if not symbol.name or symbol.section is not None:
        raise ValueError(f"a relocation points at something that is not linked: {symbol}")
    return blob.symbol("extern", symbol.name)
