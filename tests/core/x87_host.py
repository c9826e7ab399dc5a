"""Two ways to run one x87 instruction: our processor, and the host's."""

from __future__ import annotations

import ctypes
import mmap
import random
from dataclasses import dataclass

from workbench.core.engine import Cpu
from workbench.core.layout import (
    CF,
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR4_OSFXSR,
    CR4_OSXSAVE,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    OF,
    PF,
    ZF,
)

CR0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG


def bits80(sign: int, exponent: int, mantissa: int) -> int:
    """An 80-bit value."""
    return sign << 79 | exponent << 64 | mantissa


SPECIAL = [
    bits80(s, e, m)
    for s in (0, 1)
    for e, m in (
        (0, 0),
        (0x7FFF, 1 << 63),
        (0x7FFF, 3 << 62),
        (0x7FFF, (3 << 62) + 5),
        (0x7FFF, (1 << 63) + 9),
        (0, 1),
        (0, 1 << 62),
        (0, 1 << 63),
        (0x7FFF, 0),
        (0x7FFF, 77),
        (0x3FFF, 1 << 62),
        (1, 1 << 63),
        (0x7FFE, (1 << 64) - 1),
        (0x3FFF, 1 << 63),
        (0x4000, 1 << 63),
        (0x3FFE, 1 << 63),
        (0x403D, (1 << 64) - 1),
        (0x403E, 1 << 63),
        (0x403E, (1 << 64) - 1),
        (0x3F81, 1 << 63),
        (0x3C01, 1 << 63),
        (0x3FFF, (1 << 63) + 1),
        (0x3FFE, (1 << 64) - 1),
        (0x3FBF, 1 << 63),
        (0x401E, 0xFFFFFFFF80000000),
        (0x400E, 0xFFFF800000000000),
        (0x43FE, (1 << 64) - 1),
        (0x407E, (1 << 64) - 1),
        (0x3FFE, 0xB504F333F9DE6484),
    )
]


def random80(rng: random.Random) -> int:
    """A value that an x87 instruction may meet: special, near one, an integer, or anything."""
    kind = rng.randrange(8)
    if kind < 3:
        return rng.choice(SPECIAL)
    mantissa = rng.getrandbits(63) | 1 << 63
    if kind == 3:
        mantissa &= ~((1 << rng.randrange(64)) - 1)
    if kind < 6:
        return bits80(rng.getrandbits(1), 0x3FFF + rng.randrange(-70, 70), mantissa | 1 << 63)
    if kind == 6:
        return bits80(rng.getrandbits(1), rng.randrange(0x8000), mantissa)
    return rng.getrandbits(80)


@dataclass
class State:
    """The x87 as programs see it: registers in stack order; tag: 1 = empty, in physical order."""

    regs: list[int]
    cw: int = 0x37F
    sw: int = 0
    tag: int = 0xFF
    flags: int = 0
    memory: bytes = bytes(16)

    def seen(self) -> dict[str, object]:
        """What a comparison looks at: contents of empty registers count too."""
        return {
            "regs": [f"{r:020x}" for r in self.regs],
            "cw": hex(self.cw),
            "sw": hex(self.sw),
            "tag": bin(self.tag),
            "flags": hex(self.flags),
            "memory": self.memory.hex(),
        }


def random_state(rng: random.Random) -> State:
    """Any state in which no exception is pending."""
    cw = 0x40 | rng.getrandbits(4) << 8 | (0x3F if rng.random() < 0.6 else rng.getrandbits(6))
    sw = rng.getrandbits(16) & 0x7F7F
    sw &= ~(~cw & 0x3F)
    tag = rng.choice((0, 0, 0xFF, rng.getrandbits(8), rng.getrandbits(8)))
    flags = rng.choice((0, CF, ZF, PF, CF | ZF, CF | PF | ZF, OF))
    return State(
        [random80(rng) for _ in range(8)],
        cw,
        sw,
        tag,
        flags,
        random80(rng).to_bytes(10, "little") + bytes(6),
    )


class Host:
    """Runs an instruction with its memory operand at [RDX] on this computer."""

    def __init__(self) -> None:
        self.code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.call = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 3)(address)
        self.room = ctypes.create_string_buffer(2048)
        self.area = (ctypes.addressof(self.room) + 63) & ~63

    def raw(
        self, insn: bytes, area: bytes, memory: bytes, flags: int, rax: int = 0
    ) -> tuple[bytes, bytes, int, int]:
        """FXRSTOR `area`, run, FXSAVE: the area, memory, flags and AX afterwards."""
        # fxrstor64 [rdi]; push rdx; popfq; mov rdx, rsi; insn; pushfq; fxsave64 [rdi]; fninit;
        # mov [rdi+576], rax; pop rax; cld; ret
        code = (
            b"\x48\x0f\xae\x0f\x52\x9d\x48\x89\xf2" + insn + b"\x9c\x48\x0f\xae\x07\xdb\xe3"
            b"\x48\x89\x87\x40\x02\x00\x00\x58\xfc\xc3"
        )
        self.code[: len(code)] = code
        ctypes.memmove(self.area, area + bytes(512), 1024)
        ctypes.memmove(self.area + 1024, memory, len(memory))
        out = self.call(self.area, self.area + 1024, flags | 0x202)
        return (
            ctypes.string_at(self.area, 512),
            ctypes.string_at(self.area + 1024, len(memory)),
            out & 0x8D5,
            int.from_bytes(ctypes.string_at(self.area + 576, 2), "little"),
        )

    def run(self, insn: bytes, state: State) -> State:
        """The state after one instruction."""
        area = bytearray(512)
        area[0:2] = state.cw.to_bytes(2, "little")
        area[2:4] = state.sw.to_bytes(2, "little")
        area[4] = state.tag ^ 0xFF
        area[24:28] = (0x1F80).to_bytes(4, "little")
        for i, r in enumerate(state.regs):
            area[32 + 16 * i : 42 + 16 * i] = r.to_bytes(10, "little")
        out, memory, flags, _ = self.raw(insn, bytes(area), state.memory, state.flags)
        regs = [int.from_bytes(out[32 + 16 * i : 42 + 16 * i], "little") for i in range(8)]
        return State(
            regs,
            int.from_bytes(out[0:2], "little"),
            int.from_bytes(out[2:4], "little"),
            out[4] ^ 0xFF,
            flags,
            memory,
        )

    def control_word(self) -> int:
        """The x87 control word of this thread."""
        code = b"\xd9\x3f\xc3"  # fnstcw [rdi]; ret
        self.code[: len(code)] = code
        self.call(self.area, 0, 0)
        return int.from_bytes(ctypes.string_at(self.area, 2), "little")


class Guest:
    """Runs an instruction with its memory operand at [RDX] on our processor, in 64-bit mode.

    The first 2 MiB are mapped one to one; an exception ends in a HLT that tells its vector.
    """

    CODE, HANDLERS, STACK, OPERAND, TABLES, IDT = 0x1000, 0x5000, 0x8000, 0x10000, 0x2000, 0x9000

    def __init__(self) -> None:
        self.cpu = cpu = Cpu(2 << 20)
        for at, value in (
            (0, self.TABLES + 0x1003),
            (0x1000, self.TABLES + 0x2003),
            (0x2000, 0x83),
        ):
            cpu.write_phys(self.TABLES + at, value.to_bytes(8, "little"))
        cpu.write_phys(self.HANDLERS, b"\xf4" * 32)
        gdt = (
            bytes(8)
            + (0x00AF9B000000FFFF).to_bytes(8, "little")
            + (0x00CF93000000FFFF).to_bytes(8, "little")
        )
        cpu.write_phys(0xF00, gdt)
        for v in range(32):
            gate = (self.HANDLERS + v) | 8 << 16 | 0x8E00 << 32
            cpu.write_phys(self.IDT + v * 16, gate.to_bytes(16, "little"))
        for name in ("es", "ss", "ds", "fs", "gs"):
            cpu.set_segment(name, 0x10, 0, 0xFFFFFFFF, 0xC093)
        cpu.set("gdtr_base", 0xF00)
        cpu.set("gdtr_limit", 23)
        cpu.set("idtr_base", self.IDT)
        cpu.set("idtr_limit", 0x1FF)
        cpu.set("cr3", self.TABLES)
        cpu.set("cr4", CR4_PAE | CR4_OSFXSR | CR4_OSXSAVE)
        cpu.set("efer", EFER_LME | EFER_LMA)
        cpu.set("cr0", CR0)
        cpu.set("xcr0", 3)
        cpu.set_segment("cs", 8, 0, 0xFFFFFFFF, 0xA09B)
        self.code = b""

    def go(self, insn: bytes) -> int | None:
        """Run one instruction; the vector of its exception, None if it had none."""
        return self.go_at(insn, self.OPERAND)

    def go_at(self, insn: bytes, operand: int) -> int | None:
        """The same with another address in RDX."""
        cpu = self.cpu
        if insn != self.code:
            cpu.write_phys(self.CODE, insn + b"\xf4")
            self.code = insn
        cpu.set("rip", self.CODE)
        cpu.set("rsp", self.STACK)
        cpu.set("rdx", operand)
        reason = cpu.run(cpu.icount + 100)
        if reason == "undefined":
            return 6
        assert reason == "hlt", reason
        rip = cpu.get("rip")
        if rip == self.CODE + len(insn) + 1:
            return None
        assert self.HANDLERS < rip <= self.HANDLERS + 32
        return rip - 1 - self.HANDLERS

    def write(self, data: bytes, at: int = OPERAND) -> None:
        self.cpu.write_phys(at, data)

    def read(self, n: int, at: int = OPERAND) -> bytes:
        return self.cpu.read_phys(at, n)

    def put(self, s: State) -> None:
        """Make `s` the x87 state and flags, and its memory the operand."""
        cpu, top = self.cpu, s.sw >> 11 & 7
        cpu.set("fpu_cw", s.cw)
        cpu.set("fpu_sw", s.sw & 0xC7FF)
        cpu.set("fpu_top", top)
        cpu.set("fpu_tag", s.tag)
        for i, r in enumerate(s.regs):
            cpu.set("fpr", r, top + i & 7)
        cpu.set("rflags", s.flags | 2)
        self.write(s.memory)

    def take(self) -> State:
        """The x87 state and flags, with the operand."""
        cpu = self.cpu
        top = cpu.get("fpu_top")
        return State(
            [cpu.get("fpr", top + i & 7) for i in range(8)],
            cpu.get("fpu_cw"),
            cpu.get("fpu_sw") | top << 11,
            cpu.get("fpu_tag"),
            cpu.get("rflags") & 0x8D5,
            self.read(16),
        )

    def run(self, insn: bytes, state: State) -> State:
        """The state after one instruction that raises nothing."""
        self.put(state)
        assert self.go(insn) is None
        return self.take()
