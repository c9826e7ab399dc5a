"""Two ways to run one x87 instruction: our helpers on a `CPU` structure, and the host CPU directly."""
from __future__ import annotations

import ctypes
import mmap
import random
from dataclasses import dataclass, field

import llvmlite.binding as llvm

from workbench.core import x87_helpers as x
from workbench.core import x87_helpers_env as env
from workbench.core.lang import Fn, Module
from workbench.core.layout import CF, CPU, MMU_KERNEL, OF, PF, ZF

RAM_BYTES = 64 << 10
TEN = (1 << 80) - 1


def bits80(sign: int, exponent: int, mantissa: int) -> int:
    """An 80-bit value."""
    return sign << 79 | exponent << 64 | mantissa


SPECIAL = [
    bits80(s, e, m)
    for s in (0, 1)
    for e, m in (
        (0, 0), (0x7FFF, 1 << 63), (0x7FFF, 3 << 62), (0x7FFF, (3 << 62) + 5), (0x7FFF, (1 << 63) + 9),
        (0, 1), (0, 1 << 62), (0, 1 << 63), (0x7FFF, 0), (0x7FFF, 77), (0x3FFF, 1 << 62), (1, 1 << 63),
        (0x7FFE, (1 << 64) - 1), (0x3FFF, 1 << 63), (0x4000, 1 << 63), (0x3FFE, 1 << 63),
        (0x403D, (1 << 64) - 1), (0x403E, 1 << 63), (0x403E, (1 << 64) - 1), (0x3F81, 1 << 63), (0x3C01, 1 << 63),
        (0x3FFF, (1 << 63) + 1), (0x3FFE, (1 << 64) - 1), (0x3FBF, 1 << 63), (0x401E, 0xFFFFFFFF80000000),
        (0x400E, 0xFFFF800000000000), (0x43FE, (1 << 64) - 1), (0x407E, (1 << 64) - 1), (0x3FFE, 0xB504F333F9DE6484),
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
    """The x87 as programs see it: registers in stack order, one tag bit each (1 = empty) in physical order."""

    regs: list[int]
    cw: int = 0x37F
    sw: int = 0
    tag: int = 0xFF
    flags: int = 0
    memory: bytes = bytes(16)
    key: tuple[object, ...] = field(init=False, default=())

    def seen(self) -> dict[str, object]:
        """What a comparison looks at: contents of empty registers count too."""
        return {"regs": [f"{r:020x}" for r in self.regs], "cw": hex(self.cw), "sw": hex(self.sw),
                "tag": bin(self.tag), "flags": hex(self.flags), "memory": self.memory.hex()}


def random_state(rng: random.Random) -> State:
    """Any state in which no exception is pending."""
    cw = 0x40 | rng.getrandbits(4) << 8 | (0x3F if rng.random() < 0.6 else rng.getrandbits(6))
    sw = rng.getrandbits(16) & 0x7F7F
    sw &= ~(~cw & 0x3F)
    tag = rng.choice((0, 0, 0xFF, rng.getrandbits(8), rng.getrandbits(8)))
    flags = rng.choice((0, CF, ZF, PF, CF | ZF, CF | PF | ZF, OF))
    return State([random80(rng) for _ in range(8)], cw, sw, tag, flags, random80(rng).to_bytes(10, "little") + bytes(6))


class Host:
    """Runs an instruction with its memory operand at [RDX] on this computer."""

    def __init__(self) -> None:
        self.code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.code))
        self.call = ctypes.CFUNCTYPE(ctypes.c_uint64, *[ctypes.c_uint64] * 3)(address)
        self.room = ctypes.create_string_buffer(2048)
        self.area = (ctypes.addressof(self.room) + 63) & ~63

    def raw(self, insn: bytes, area: bytes, memory: bytes, flags: int, rax: int = 0) -> tuple[bytes, bytes, int, int]:
        """FXRSTOR `area`, run, FXSAVE: the area, memory, flags and AX afterwards."""
        # fxrstor64 [rdi]; push rdx; popfq; mov rdx, rsi; insn; pushfq; fxsave64 [rdi]; fninit;
        # mov [rdi+576], rax; pop rax; cld; ret
        code = (b"\x48\x0f\xae\x0f\x52\x9d\x48\x89\xf2" + insn + b"\x9c\x48\x0f\xae\x07\xdb\xe3"
                b"\x48\x89\x87\x40\x02\x00\x00\x58\xfc\xc3")
        self.code[:len(code)] = code
        ctypes.memmove(self.area, area + bytes(512), 1024)
        ctypes.memmove(self.area + 1024, memory, len(memory))
        out = self.call(self.area, self.area + 1024, flags | 0x202)
        return (ctypes.string_at(self.area, 512), ctypes.string_at(self.area + 1024, len(memory)),
                out & 0x8D5, int.from_bytes(ctypes.string_at(self.area + 576, 2), "little"))

    def run(self, insn: bytes, state: State) -> State:
        """The state after one instruction."""
        area = bytearray(512)
        area[0:2] = state.cw.to_bytes(2, "little")
        area[2:4] = state.sw.to_bytes(2, "little")
        area[4] = state.tag ^ 0xFF
        area[24:28] = (0x1F80).to_bytes(4, "little")
        for i, r in enumerate(state.regs):
            area[32 + 16 * i:42 + 16 * i] = r.to_bytes(10, "little")
        out, memory, flags, _ = self.raw(insn, bytes(area), state.memory, state.flags)
        regs = [int.from_bytes(out[32 + 16 * i:42 + 16 * i], "little") for i in range(8)]
        return State(regs, int.from_bytes(out[0:2], "little"), int.from_bytes(out[2:4], "little"),
                     out[4] ^ 0xFF, flags, memory)


class Ours:
    """Our helpers, compiled, on a processor with 64 KiB of RAM, paging off and CR0.NE set."""

    def __init__(self, *helpers: Fn) -> None:
        module = Module()
        for f in helpers:
            module.compile(f)
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        parsed = llvm.parse_assembly(module.text())
        target = llvm.Target.from_default_triple().create_target_machine(opt=2, reloc="pic")
        self.engine = llvm.create_mcjit_compiler(parsed, target)
        self.engine.finalize_object()
        kinds = {"ptr": ctypes.c_void_p, "i32": ctypes.c_uint32, "i64": ctypes.c_uint64, "void": None}
        self.fns = {
            f.name: ctypes.CFUNCTYPE(kinds[f.ret], *(kinds[p] for p in f.params))(
                self.engine.get_function_address(f.name)) for f in helpers}
        self.keep = [ctypes.create_string_buffer(n) for n in (CPU.size + 64, RAM_BYTES + 4096, 16, 128, 128)]
        self.base = (ctypes.addressof(self.keep[0]) + 63) & ~63
        self.ram = (ctypes.addressof(self.keep[1]) + 4095) & ~4095
        ctypes.memset(ctypes.addressof(self.keep[2]), 1, 16)
        ctypes.memset(self.base + CPU.offset("tlbs"), 0xFF, CPU.size - CPU.offset("tlbs"))
        self.set("ram", self.ram)
        self.set("ram_low", RAM_BYTES)
        self.set("page_attr", ctypes.addressof(self.keep[2]))
        self.set("page_code", ctypes.addressof(self.keep[3]))
        self.set("page_head", ctypes.addressof(self.keep[4]))
        self.set("cr0", 0x31)
        self.set("mode", 2)

    def size(self, name: str) -> int:
        return int(CPU.fields[name][1][1:]) // 8

    def set(self, name: str, value: int, index: int = 0) -> None:
        """Write a field of the structure."""
        n = self.size(name)
        ctypes.memmove(self.base + CPU.offset(name, index), value.to_bytes(n, "little"), n)

    def get(self, name: str, index: int = 0) -> int:
        """Read a field of the structure."""
        return int.from_bytes(ctypes.string_at(self.base + CPU.offset(name, index), self.size(name)), "little")

    def write(self, gpa: int, data: bytes) -> None:
        ctypes.memmove(self.ram + gpa, data, len(data))

    def read(self, gpa: int, n: int) -> bytes:
        return ctypes.string_at(self.ram + gpa, n)

    def call(self, f: Fn, *args: int) -> int:
        """Call a helper with the CPU structure first."""
        self.set("exit_reason", 0)
        return int(self.fns[f.name](self.base, *args) or 0)

    def put(self, s: State) -> None:
        """Make `s` the x87 state, and its memory the operand at 0x1000."""
        top = s.sw >> 11 & 7
        self.set("fpu_cw", s.cw)
        self.set("fpu_sw", s.sw & 0xC7FF)
        self.set("fpu_top", top)
        self.set("fpu_tag", s.tag)
        for i, r in enumerate(s.regs):
            self.set("fpr", r, top + i & 7)
        self.set("cc_op", 0)
        self.set("cc_src", s.flags)
        self.write(0x1000, s.memory)

    def take(self) -> State:
        """The x87 state, with the operand."""
        top = self.get("fpu_top")
        return State([self.get("fpr", top + i & 7) for i in range(8)], self.get("fpu_cw"),
                     self.get("fpu_sw") | top << 11, self.get("fpu_tag"), self.get("cc_src"), self.read(0x1000, 16))

    def run(self, insn: bytes, kind: str, size: int, state: State) -> State:
        """The state after one instruction, its operand at 0x1000 if it has one."""
        self.put(state)
        opcode, modrm = insn[0] & 7, insn[1]
        if modrm >= 0xC0:
            f = {"x87_register": x.x87_register, "x87_move_if": x.x87_move_if, "x87_compare": x.x87_compare}[kind]
            done = self.call(f, opcode * 64 + (modrm & 0x38), modrm & 7, 0x1234)
        else:
            f = {"x87_load": x.x87_from_memory, "x87_store": x.x87_to_memory}[kind]
            code = (opcode * 8 + (modrm >> 3 & 7)) * 16 + size
            done = self.call(f, MMU_KERNEL, 0x1000, code, 7, 0x1234)
        assert done == 1
        return self.take()


EXECUTED = (x.x87_register, x.x87_move_if, x.x87_compare, x.x87_from_memory, x.x87_to_memory, x.x87_ready, x.x87_wait,
            x.x87_available)
STATE = (env.tag_word, env.x87_stenv14, env.x87_stenv28, env.x87_save94, env.x87_save108, env.x87_ldenv14,
         env.x87_ldenv28, env.x87_rstor94, env.x87_rstor108)
