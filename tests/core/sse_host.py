"""Two ways to run one vector instruction: our processor, and the host CPU directly.

Both start from a `Vectors` state and give the state afterwards.  The instruction's memory operand,
if it has one, is at [RDI], which is also where MASKMOVDQU stores.
"""

from __future__ import annotations

import ctypes
import mmap
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from workbench.core.engine import Cpu
from workbench.core.layout import ARITH, MF, NM, UD, XM

CODE, IDT, GDT, HANDLERS, STACK, MEMORY, TABLES = (
    0x1000,
    0x3000,
    0x4000,
    0x5000,
    0x8040,
    0x9000,
    0x20000,
)
RAM_BYTES = 1 << 18
REGISTERS = ("rax", "rcx", "rdx", "rbx")


@dataclass
class Vectors:
    """What a vector instruction can see and change."""

    xmm: list[int] = field(default_factory=lambda: [0] * 4)
    mm: list[int] = field(default_factory=lambda: [0] * 4)
    gpr: list[int] = field(default_factory=lambda: [0] * 4)  # RAX RCX RDX RBX
    flags: int = 0
    mxcsr: int = 0x1F80
    memory: bytes = bytes(32)
    fault: tuple[int, int] | None = None  # vector, error code

    def seen(self) -> dict[str, str]:
        """For the message of a failing comparison."""
        return {
            "xmm": " ".join(f"{x:032x}" for x in self.xmm),
            "mm": " ".join(f"{x:016x}" for x in self.mm),
            "gpr": " ".join(f"{x:x}" for x in self.gpr),
            "flags": f"{self.flags:x}",
            "mxcsr": f"{self.mxcsr:04x}",
            "memory": self.memory.hex(),
            "fault": str(self.fault),
        }


class Host:
    """Runs an instruction on this computer, every SIMD exception masked."""

    LAYOUT = struct.Struct("<64s 4Q 4Q Q I 4x Q 32s")
    MEMORY_AT = 64 + 64 + 24

    def __init__(self) -> None:
        self.code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
        self.room = ctypes.create_string_buffer(1024)
        self.area = ((ctypes.addressof(self.room) + 63) & ~63) + 8  # memory at a multiple of 16
        self.insn = b""

    def prepare(self, insn: bytes) -> None:
        """Assemble the frame around `insn`; RSI holds the state's address."""
        h = bytes.fromhex
        # movups xmm, [rsi + n]; movq mm, [rsi + n]; mov rax/rcx/rdx/rbx, [rsi + n]
        load = b"".join(h(f"0f10{0x46 + 8 * i:02x}{16 * i:02x}") for i in range(4))
        load += b"".join(h(f"0f6f{0x46 + 8 * i:02x}{64 + 8 * i:02x}") for i in range(4))
        load += b"".join(h(f"488b{0x46 + 8 * i:02x}{96 + 8 * i:02x}") for i in range(4))
        # push [rsi + 128]; popfq; ldmxcsr [rsi + 136]; lea rdi, [rsi + 152]
        load += h("ffb680000000 9d 0fae9688000000 488dbe98000000")
        # pushfq; pop [rsi + 128]; stmxcsr [rsi + 136]; and all registers back
        store = h("9c 8f8680000000 0fae9e88000000")
        store += b"".join(h(f"4889{0x46 + 8 * i:02x}{96 + 8 * i:02x}") for i in range(4))
        store += b"".join(h(f"0f11{0x46 + 8 * i:02x}{16 * i:02x}") for i in range(4))
        store += b"".join(h(f"0f7f{0x46 + 8 * i:02x}{64 + 8 * i:02x}") for i in range(4))
        # push rbx; push 0x1F80; mov rsi, rdi; ... ldmxcsr [rsp]; pop rax; pop rbx; emms; cld; ret
        frame = h("53 68801f0000 4889fe") + load + insn + store + h("0fae1424 58 5b 0f77 fc c3")
        self.code[: len(frame)] = frame
        self.insn = insn

    def run(self, insn: bytes, v: Vectors) -> Vectors:
        """The state after one instruction."""
        if insn != self.insn:
            self.prepare(insn)
        xmm = b"".join(x.to_bytes(16, "little") for x in v.xmm)
        state = self.LAYOUT.pack(xmm, *v.mm, *v.gpr, v.flags | 0x202, v.mxcsr, 0, v.memory)
        ctypes.memmove(self.area, state, len(state))
        self.call(self.area)
        out = self.LAYOUT.unpack(ctypes.string_at(self.area, len(state)))
        return Vectors(
            [int.from_bytes(out[0][16 * i : 16 * i + 16], "little") for i in range(4)],
            list(out[1:5]),
            list(out[5:9]),
            out[9] & ARITH,
            out[10],
            out[12],
        )


class Ours:
    """Our processor in 64-bit mode, identity-mapped; the handler of every exception halts."""

    def __init__(self) -> None:
        self.cpu = cpu = Cpu(RAM_BYTES)
        for at, value in ((0, TABLES + 0x1003), (0x1000, TABLES + 0x2003), (0x2000, 0x83)):
            cpu.write_phys(TABLES + at, struct.pack("<Q", value))
        cpu.write_phys(GDT, struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
        for vector in range(32):
            handler = HANDLERS + vector * 16
            cpu.write_phys(handler, b"\xf4")
            cpu.write_phys(IDT + vector * 16, struct.pack("<HHHHII", handler, 8, 0x8E00, 0, 0, 0))
        cpu.set("gdtr_base", GDT)
        cpu.set("gdtr_limit", 23)
        cpu.set("idtr_base", IDT)
        cpu.set("idtr_limit", 511)
        cpu.set("cr3", TABLES)
        cpu.set("cr4", 0x620)
        cpu.set("efer", 0x500)
        cpu.set("cr0", 0x80010033)
        cpu.set_segment("cs", 8, 0, 0xFFFFFFFF, 0xA09B)
        for name in ("ds", "es", "ss", "fs", "gs"):
            cpu.set_segment(name, 16, 0, 0xFFFFFFFF, 0xC093)
        self.insn = b""

    def put(self, v: Vectors) -> None:
        """Load the processor with a state."""
        cpu = self.cpu
        for i in range(4):
            cpu.set("xmm", v.xmm[i], i)
            cpu.set("fpr", v.mm[i] | 0x1234 << 64, i)
            cpu.set(REGISTERS[i], v.gpr[i])
        cpu.set("cc_op", 0)
        cpu.set("cc_src", v.flags)
        cpu.set("mxcsr", v.mxcsr)
        cpu.ram.put(MEMORY, v.memory)

    def run(self, insn: bytes, v: Vectors, shift: int = 0, count: int = 1) -> Vectors:
        """The state after `count` instructions, RDI being `shift` bytes after `MEMORY`."""
        cpu = self.cpu
        if insn != self.insn:
            cpu.write_phys(CODE, insn + b"\xf4")
            self.insn = insn
        self.put(v)
        cpu.set("rdi", MEMORY + shift)
        cpu.set("rsp", STACK)
        cpu.set("rip", CODE)
        cpu.set("fpu_tag", 0x55)
        cpu.set("fpu_top", 3)
        reason = cpu.run(cpu.icount + count + 1)
        fault = None
        at = cpu.get("rip")
        if HANDLERS <= at < HANDLERS + 512:
            vector = (at - HANDLERS) // 16
            frame = cpu.read_phys(cpu.get("rsp"), 8)
            fault = (vector, 0 if vector in (UD, NM, MF, XM) else frame[0])
            assert fault[1] or vector in (UD, NM, MF, XM, 13), (vector, frame)
        else:
            assert reason == "hlt", reason
            assert at in (CODE + len(insn), CODE + len(insn) + 1), hex(at)
        return Vectors(
            [cpu.get("xmm", i) for i in range(4)],
            [cpu.get("fpr", i) & (1 << 64) - 1 for i in range(4)],
            [cpu.get(r) for r in REGISTERS],
            cpu.get("rflags") & ARITH,
            cpu.get("mxcsr"),
            cpu.read_phys(MEMORY, 32),
            fault,
        )


FLOATS = [
    0,
    1,
    0x7FFFFF,
    0x800000,
    0x800001,
    0x3F800000,
    0x3F800001,
    0x3F7FFFFF,
    0x40000000,
    0x3F000000,
    0x3FC00000,
    0x40200000,
    0x7F7FFFFF,
    0x7F800000,
    0x7F800001,
    0x7FC00000,
    0x7FC12345,
    0x7FA55555,
    0x4B000000,
    0x4B000001,
    0x4F000000,
    0x4EFFFFFF,
    0x5F000000,
    0x5EFFFFFF,
    0x4F800000,
    0x33800000,
    0x00400000,
    0x20000000,
    0x1FFFFFFF,
]
DOUBLES = [
    0,
    1,
    0xFFFFFFFFFFFFF,
    1 << 52,
    (1 << 52) + 1,
    0x3FF << 52,
    (0x3FF << 52) + 1,
    (0x3FF << 52) - 1,
    0x400 << 52,
    0x3FE << 52,
    0x3FF8 << 48,
    0x4004 << 48,
    (0x7FF << 52) - 1,
    0x7FF << 52,
    (0x7FF << 52) + 1,
    0x7FF8 << 48,
    0x7FF8000012345678,
    0x7FF4 << 48,
    0x433 << 52,
    0x41DFFFFFFFC00000,
    0x41E << 52,
    0x41DFFFFFFFE00000,
    0x43E << 52,
    0x43DFFFFFFFFFFFFF,
    0x369 << 52,
    0x380 << 52,
    0x37FFFFFFFFFFFFFF,
    0x47EFFFFFE0000000,
    0x47EFFFFFF0000000,
    0x1FF << 52,
    0x3CA << 52,
    8 << 48,
]
SMALL = (0, 1, 2, 5, 8, 15, 16, 31, 32, 64, 65, 97)


def lanes(bits: int, make: Callable[[], int]) -> int:
    """Sixteen bytes of elements of `bits` bits."""
    return sum(make() << at for at in range(0, 128, bits))


def random128(rng: random.Random) -> int:
    """Sixteen bytes that some vector instruction finds interesting."""
    coin = rng.getrandbits
    match rng.randrange(9):
        case 0 | 1:
            return lanes(32, lambda: rng.choice(FLOATS) | coin(1) << 31)
        case 2 | 3:
            return lanes(64, lambda: rng.choice(DOUBLES) | coin(1) << 63)
        case 4:  # near one
            return lanes(32, lambda: coin(1) << 31 | rng.randrange(87, 167) << 23 | coin(23))
        case 5:
            return lanes(64, lambda: coin(1) << 63 | rng.randrange(953, 1093) << 52 | coin(52))
        case 6:  # counts, lengths, letters
            return lanes(rng.choice((8, 64)), lambda: rng.choice(SMALL))
        case 7:
            return lanes(8, lambda: rng.choice((0, 0x41, 0x42, 0x7F, 0x80, 0xFF)))
    return coin(128)


def random64(rng: random.Random) -> int:
    """A general register: anything, a length, a limit of some conversion, a negative number."""
    return rng.choice(
        (
            rng.getrandbits(64),
            rng.randrange(20),
            1 << 63,
            1 << 31,
            0x7FFFFFC0,
            (1 << 64) - rng.randrange(1, 20),
        )
    )


def random_vectors(rng: random.Random) -> Vectors:
    """A state; every exception masked."""
    mxcsr = 0x1F80 | rng.getrandbits(2) << 13 | rng.choice((0, 0, 0x8000, 0x40, 0x8040))
    mxcsr |= rng.choice((0, 0, rng.getrandbits(6)))
    memory = b"".join(random128(rng).to_bytes(16, "little") for _ in range(2))
    return Vectors(
        [random128(rng) for _ in range(4)],
        [random128(rng) & (1 << 64) - 1 for _ in range(4)],
        [random64(rng) for _ in range(4)],
        rng.getrandbits(12) & ARITH,
        mxcsr,
        memory,
    )


__all__ = ["Host", "Ours", "Vectors", "random_vectors", "replace"]
