"""Structures in guest memory: what the bytes from an address on mean, as rows of named fields.

Rings and tables of devices (virtio 1.2, 2.7 and 2.8; Intel 82371, PRD; 8254x manual, 3.2.3 and
3.3.3), tables of the processor (Intel SDM volume 3, 3.4.5, 4.5, 6.14.1), and the registers that
Linux keeps on a stack (`struct pt_regs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

Fields = list[tuple[str, str]]
"""Names and values, in order."""


@dataclass(frozen=True, slots=True)
class Field:
    """A little-endian number; `names` are those of its bits, lowest first ("" for none).

    base: 16, or 10 for counts and lengths; 0 for an address that code or data is at.
    """

    name: str
    offset: int
    size: int
    base: int = 16
    names: tuple[str, ...] = ()

    def text(self, data: bytes) -> str:
        """The value in words."""
        value = self.value(data)
        if self.names:
            held = [n for bit, n in enumerate(self.names) if value >> bit & 1 and n]
            return f"{value:#x} {'|'.join(held)}" if held else f"{value:#x}"
        return f"{value:,}" if self.base == 10 else f"{value:#x}"

    def value(self, data: bytes) -> int:
        """The number."""
        return int.from_bytes(data[self.offset : self.offset + self.size], "little")


@dataclass(frozen=True, slots=True)
class Structure:
    """One kind of element. Those of an array follow each other."""

    name: str
    help: str
    size: int
    fields: tuple[Field, ...]
    more: Callable[[bytes], Fields] | None = None
    """What does not lie in a row of bits is told by this instead of `fields`."""
    lines: bool = False
    """Is one element as long as a screen: a field in each line?"""
    pointer: str = "addr"
    """The field that says where something is; in guest-physical memory if `physical`."""
    physical: bool = True

    def decode(self, data: bytes) -> Fields:
        """Names and values of all fields of `size` bytes."""
        if self.more is not None:
            return self.more(data)
        return [(field.name, field.text(data)) for field in self.fields]


_DESC_FLAGS: Final = ("NEXT", "WRITE", "INDIRECT", "", "", "", "", "AVAIL", *("",) * 7, "USED")
_RX_STATUS: Final = ("DD", "EOP", "IXSM", "VP", "", "TCPCS", "IPCS", "PIF")
_RX_ERRORS: Final = ("CE", "SE", "SEQ", "", "CXE", "TCPE", "IPE", "RXE")
_TX_COMMAND: Final = ("EOP", "IFCS", "IC", "RS", "RPS", "DEXT", "VLE", "IDE")
_TX_STATUS: Final = ("DD", "EC", "LC", "TU")
_PTE: Final = ("P", "RW", "US", "PWT", "PCD", "A", "D", "PS", "G")
_PT_REGS: Final = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx",
                   "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss")  # fmt: skip
_SYSTEM: Final = {2: "LDT", 9: "TSS", 11: "TSS, busy", 12: "call gate", 14: "interrupt gate",
                  15: "trap gate", 1: "16-bit TSS", 3: "16-bit TSS, busy", 5: "task gate",
                  6: "16-bit interrupt gate", 7: "16-bit trap gate"}  # fmt: skip


def _kind(access: int) -> str:
    """Type of a descriptor, from its fifth byte."""
    if not access & 0x10:
        return _SYSTEM.get(access & 15, f"reserved {access & 15}")
    if access & 8:
        text = "code"
        flags = (("conforming", 4), ("readable", 2))
    else:
        text = "data"
        flags = (("expand-down", 4), ("writable", 2))
    held = [name for name, bit in flags if access & bit] + (["accessed"] if access & 1 else [])
    return f"{text} {'|'.join(held)}".rstrip()


def _segment(data: bytes) -> Fields:
    """A segment descriptor (3.4.5); the upper half of a 64-bit system descriptor is another row."""
    value = int.from_bytes(data, "little")
    if not value:
        return [("", "null")]
    access = value >> 40 & 0xFF
    base = value >> 16 & 0xFF_FFFF | value >> 32 & 0xFF00_0000
    limit = value & 0xFFFF | value >> 32 & 0xF_0000
    if value >> 55 & 1:
        limit = limit << 12 | 0xFFF
    size = "64" if value >> 53 & 1 else "32" if value >> 54 & 1 else "16"
    present = "" if access & 0x80 else ", not present"
    return [("type", _kind(access) + present), ("base", f"{base:#x}"), ("limit", f"{limit:#x}"),
            ("dpl", str(access >> 5 & 3)), ("bits", size)]  # fmt: skip


def _gate(data: bytes, wide: bool) -> Fields:
    """A gate of the IDT (6.11, 6.14.1)."""
    value = int.from_bytes(data, "little")
    if not value:
        return [("", "null")]
    offset = value & 0xFFFF | value >> 32 & 0xFFFF_0000
    if wide:
        offset |= value >> 64 << 32 & 0xFFFF_FFFF_0000_0000
    access = value >> 40 & 0xFF
    present = "" if access & 0x80 else ", not present"
    found = [("handler", f"{offset:#x}"), ("cs", f"{value >> 16 & 0xFFFF:#x}"),
             ("type", _kind(access) + present), ("dpl", str(access >> 5 & 3))]  # fmt: skip
    return [*found, ("ist", str(value >> 32 & 7))] if wide else found


def _page_entry(data: bytes) -> Fields:
    """An entry of a page table of 8 bytes, of any level (4.5)."""
    value = int.from_bytes(data, "little")
    if not value & 1:
        return [("", "not present" if value else "empty")]
    held = [name for bit, name in enumerate(_PTE) if value >> bit & 1]
    if value >> 63:
        held.append("XD")
    return [("frame", f"{value & 0xF_FFFF_FFFF_F000:#x}"), ("", "|".join(held))]


def _prd(data: bytes) -> Fields:
    """An entry of a table of physical regions: a count of 0 is 64 KiB."""
    length = int.from_bytes(data[4:6], "little") & ~1 or 1 << 16
    last = [("", "EOT")] if data[7] & 0x80 else []
    base = int.from_bytes(data[:4], "little") & ~1
    return [("base", f"{base:#x}"), ("count", f"{length:,}"), *last]


def _numbers(*fields: tuple[str, int, int, int]) -> tuple[Field, ...]:
    return tuple(Field(*field) for field in fields)


STRUCTURES: Final[Mapping[str, Structure]] = {
    s.name: s
    for s in (
        Structure("virtq_desc", "descriptor of a virtqueue", 16, (
            Field("addr", 0, 8), Field("len", 8, 4, 10), Field("flags", 12, 2, 16, _DESC_FLAGS),
            Field("next", 14, 2, 10))),
        Structure("virtq_avail", "available ring: flags, index, then heads of chains", 2,
            _numbers(("", 0, 2, 10))),
        Structure("virtq_used", "element of a used ring (4 bytes behind its start)", 8,
            _numbers(("id", 0, 4, 10), ("len", 4, 4, 10))),
        Structure("pvirtq_desc", "descriptor of a packed virtqueue", 16, (
            Field("addr", 0, 8), Field("len", 8, 4, 10), Field("id", 12, 2, 10),
            Field("flags", 14, 2, 16, _DESC_FLAGS))),
        Structure("virtio_blk_req", "head of a virtio-blk request", 16,
            _numbers(("type", 0, 4, 10), ("sector", 8, 8, 10))),
        Structure("prd", "region of an IDE bus-master transfer", 8, (), _prd, pointer="base"),
        Structure("e1000_rx", "receive descriptor", 16, (
            Field("addr", 0, 8), Field("len", 8, 2, 10), Field("status", 12, 1, 16, _RX_STATUS),
            Field("errors", 13, 1, 16, _RX_ERRORS), Field("special", 14, 2))),
        Structure("e1000_tx", "transmit descriptor, legacy", 16, (
            Field("addr", 0, 8), Field("len", 8, 2, 10), Field("cmd", 11, 1, 16, _TX_COMMAND),
            Field("status", 12, 1, 16, _TX_STATUS), Field("special", 14, 2))),
        Structure("gdt", "segment descriptor", 8, (), _segment),
        Structure("idt", "gate of the IDT, 64-bit", 16, (), lambda data: _gate(data, True),
            pointer="handler", physical=False),
        Structure("idt32", "gate of the IDT, 32-bit", 8, (), lambda data: _gate(data, False),
            pointer="handler", physical=False),
        Structure("pte", "entry of a page table, any level", 8, (), _page_entry, pointer="frame"),
        Structure("pt_regs", "registers that Linux keeps on a stack", 8 * len(_PT_REGS),
            tuple(Field(name, 8 * n, 8, 0) for n, name in enumerate(_PT_REGS)), lines=True),
    )
}  # fmt: skip
