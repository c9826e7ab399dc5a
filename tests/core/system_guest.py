"""A bare processor in 16-, 32- or 64-bit mode with descriptor tables, for the system tests."""

from __future__ import annotations

import struct
from typing import Any

from tests.core.system_code import assemble
from workbench.core import layout as lay
from workbench.core.engine import Cpu, TripleFault
from workbench.core.system import System

GDT, IDT, TSS, LOG, CODE, DATA = 0x1000, 0x2000, 0x3000, 0x4000, 0x10000, 0x8000
KERNEL_STACK, USER_STACK, IST_STACK = 0x7000, 0x6000, 0x5000
TABLES = 0x80000
# Selectors.
K64, KDATA, K32, KDATA16, U32, UDATA, U64, TSS_SEL, LDT_SEL, K16 = (
    0x08,
    0x10,
    0x18,
    0x20,
    0x2B,
    0x33,
    0x3B,
    0x40,
    0x50,
    0x60,
)


def descriptor(base: int, limit: int, access: int, flags: int) -> int:
    """A segment descriptor; `limit` as stored, `flags` G DB L AVL."""
    return (
        limit & 0xFFFF
        | (base & 0xFFFFFF) << 16
        | access << 40
        | (limit >> 16 & 15) << 48
        | flags << 52
        | (base >> 24) << 56
    )


def gate(selector: int, target: int, kind: int, dpl: int = 0, present: bool = True) -> int:
    """A 32-bit or 16-bit gate descriptor."""
    return (
        target & 0xFFFF
        | selector << 16
        | (kind | dpl << 5 | (0x80 if present else 0)) << 40
        | (target >> 16 & 0xFFFF) << 48
    )


class Guest:
    """A Cpu with 1 MiB, a GDT, an IDT whose handlers log, and helpers to look at what happened."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.cpu = Cpu(1 << 20)
        self.system = System()
        self.cpu.handlers = self.system.handlers()
        self.put64(
            GDT,
            [
                0,
                descriptor(0, 0xFFFFF, 0x9B, 0xA),
                descriptor(0, 0xFFFFF, 0x93, 0xC),
                descriptor(0, 0xFFFFF, 0x9B, 0xC),
                descriptor(0, 0xFFFF, 0x93, 0),
                descriptor(0, 0xFFFFF, 0xFB, 0xC),
                descriptor(0, 0xFFFFF, 0xF3, 0xC),
                descriptor(0, 0xFFFFF, 0xFB, 0xA),
                descriptor(TSS, 0x67, 0x89, 0),
                0,
                descriptor(0x900, 0x3F, 0x82, 0),
                0,
                descriptor(0, 0xFFFF, 0x9B, 0),
            ],
        )
        self.cpu.set("gdtr_base", GDT)
        self.cpu.set("gdtr_limit", 0xFF)
        self.cpu.set("idtr_base", IDT)
        self.cpu.set("idtr_limit", 0xFFF if mode != 16 else 0x3FF)
        if mode == 16:
            self.cpu.set("idtr_base", 0)
        self.flat(mode)
        if mode == 64:
            self.long_mode()
        self.cpu.set("rsp", KERNEL_STACK)
        self.cpu.write_phys(TSS, bytes(0x68))
        if mode == 64:
            self.put64(TSS + 4, [KERNEL_STACK, 0, 0, 0, IST_STACK])
        else:
            self.put32(TSS + 4, [KERNEL_STACK, KDATA])

    def flat(self, mode: int) -> None:
        """Segments for ring 0."""
        cpu = self.cpu
        if mode == 16:
            for name in ("cs", "ds", "es", "ss", "fs", "gs"):
                cpu.set_segment(name, 0, 0, 0xFFFF, 0x9B if name == "cs" else 0x93)
            return
        cpu.set("cr0", 0x11)
        if mode == 64:
            cpu.set_segment("cs", K64, 0, 0xFFFFFFFF, 0xA09B)
        else:
            cpu.set_segment("cs", K32, 0, 0xFFFFFFFF, 0xC09B)
        for name in ("ds", "es", "ss", "fs", "gs"):
            cpu.set_segment(name, KDATA, 0, 0xFFFFFFFF, 0xC093)
        cpu.set_segment("tr", TSS_SEL, TSS, 0x67, 0x8B)

    def long_mode(self) -> None:
        """Identity paging of the first gigabyte by 2 MiB pages for everybody, and LMA."""
        self.put64(TABLES, [TABLES + 0x1000 | 7])
        self.put64(TABLES + 0x1000, [TABLES + 0x2000 | 7])
        self.put64(TABLES + 0x2000, [n << 21 | 0x87 for n in range(512)])
        cpu = self.cpu
        cpu.set("cr3", TABLES)
        cpu.set("cr4", lay.CR4_PAE)
        cpu.set("efer", lay.EFER_LMA | lay.EFER_LME | lay.EFER_SCE)
        cpu.set("cr0", 0x80010011)

    def put64(self, at: int, words: list[int]) -> None:
        self.cpu.write_phys(at, struct.pack(f"<{len(words)}Q", *words))

    def put32(self, at: int, words: list[int]) -> None:
        self.cpu.write_phys(at, struct.pack(f"<{len(words)}I", *words))

    def read64(self, at: int, n: int = 1) -> tuple[int, ...]:
        return struct.unpack(f"<{n}Q", self.cpu.read_phys(at, 8 * n))

    def read32(self, at: int, n: int = 1) -> tuple[int, ...]:
        return struct.unpack(f"<{n}I", self.cpu.read_phys(at, 4 * n))

    def read16(self, at: int, n: int = 1) -> tuple[int, ...]:
        return struct.unpack(f"<{n}H", self.cpu.read_phys(at, 2 * n))

    def vector(self, n: int, text: str | bytes, at: int, **options: Any) -> None:
        """A handler for vector `n` at address `at`."""
        bits = options.pop("bits", self.mode)
        self.cpu.write_phys(at, text if isinstance(text, bytes) else assemble(text, bits, at))
        selector = options.pop("selector", {64: K64, 32: K32, 16: 0}[self.mode])
        dpl, kind = options.pop("dpl", 0), options.pop("kind", 14)
        present = options.pop("present", True)
        if self.mode == 64:
            low = gate(selector, at & 0xFFFFFFFF, kind, dpl, present) | options.pop("ist", 0) << 32
            self.put64(IDT + 16 * n, [low, at >> 32])
        elif self.mode == 32:
            self.put64(IDT + 8 * n, [gate(selector, at, kind, dpl, present)])
        else:
            self.cpu.write_phys(4 * n, struct.pack("<HH", at, selector))
        assert not options

    def run(
        self, text: str | bytes, at: int = CODE, limit: int = 10_000, bits: int | None = None
    ) -> str:
        """Assemble, place and run code; Python handlers are called; the reason of the stop."""
        code = text if isinstance(text, bytes) else assemble(text, bits or self.mode, at)
        self.cpu.write_phys(at, code)
        self.cpu.set("rip", at)
        return self.go(limit)

    def go(self, limit: int = 10_000) -> str:
        """Run on from where it is."""
        stop = self.cpu.icount + limit
        while True:
            reason = self.cpu.run(stop)
            if reason == "system":
                try:
                    self.cpu.system()
                except TripleFault:
                    return "triple-fault"
            elif reason != "undefined":
                return reason
            elif not self.cpu.deliver(lay.UD, None, 1):
                return "triple-fault"

    def __getitem__(self, name: str) -> int:
        return self.cpu.get(name)

    def user(self, cs: int = U64) -> None:
        """Put the processor in ring 3."""
        self.cpu.set_segment("cs", cs, 0, 0xFFFFFFFF, 0xA0FB if cs == U64 else 0xC0FB)
        for name in ("ss", "ds", "es"):
            self.cpu.set_segment(name, UDATA, 0, 0xFFFFFFFF, 0xC0F3)
        self.cpu.set("rsp", USER_STACK)
