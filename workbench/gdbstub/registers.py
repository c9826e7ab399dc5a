"""The registers that gdb sees: their target description (`target.xml`) and their values.

There are three layouts, one for each architecture that gdb tells apart: in `i386:x86-64` all of the
processor is seen, in `i386` and `i8086` the registers of 32-bit code. gdb takes a description when
it connects, and once more when it is told to; it numbers registers in their order.

gdb knows no segments: its program counter is the linear address of the next instruction, so that
breakpoints and disassembly are right in 16-bit code, too; `ip` is the offset in the code segment.

The features `org.gnu.gdb.i386.core`, `.sse` and `.segments` are those of "Debugging with GDB",
appendix G.5.7 (i386 Features); `org.workbench.x86.system` is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core import layout as lay
from workbench.core.engine import Cpu

__all__ = [
    "ARCHITECTURES",
    "AUTO",
    "LAYOUTS",
    "REGISTERS",
    "X86_64",
    "Layout",
    "Register",
    "of_mode",
    "plain_names",
    "set_linear_pc",
]

Get = Callable[[Cpu], int]
Set = Callable[[Cpu, int], None]
X86_64, I386, I8086, AUTO = "i386:x86-64", "i386", "i8086", "auto"
ARCHITECTURES: Final = (AUTO, X86_64, I386, I8086)
_MASK64: Final = (1 << 64) - 1
_CORE, _SSE = "org.gnu.gdb.i386.core", "org.gnu.gdb.i386.sse"


@dataclass(frozen=True, slots=True)
class Register:
    """One register; `set` is None where a write is refused."""

    name: str
    bits: int
    type: str
    get: Get
    set: Set | None = None
    group: str = ""

    @property
    def bytes(self) -> int:
        """Size in memory."""
        return self.bits // 8


Features = tuple[tuple[str, tuple[Register, ...]], ...]


class Layout:
    """The registers of one architecture, in gdb's order."""

    def __init__(self, architecture: str, features: Features, pc: str) -> None:
        self.architecture = architecture
        self.features = features
        self.registers = tuple(r for _, registers in features for r in registers)
        self.pc = next(n for n, r in enumerate(self.registers) if r.name == pc)
        self.bytes = sum(register.bytes for register in self.registers)
        """Length of `g`."""
        self.xml = _xml(architecture, features)

    def read(self, cpu: Cpu, number: int) -> bytes:
        """The bytes of a register as gdb wants them."""
        register = self.registers[number]
        mask = (1 << register.bits) - 1
        return (register.get(cpu) & mask).to_bytes(register.bytes, "little")

    def read_all(self, cpu: Cpu) -> bytes:
        """The answer to `g`."""
        return b"".join(self.read(cpu, n) for n in range(len(self.registers)))

    def write(self, cpu: Cpu, number: int, data: bytes) -> bool:
        """Write a register; False where that is refused or the size is wrong."""
        register = self.registers[number]
        if len(data) != register.bytes:
            return False
        if data == self.read(cpu, number):
            return True
        if register.set is None:
            return False
        register.set(cpu, int.from_bytes(data, "little"))
        return True


def plain_names(layout: Layout) -> tuple[str, ...]:
    """The processor's 64-bit fields by gdb's number, "" for a register that is more than one."""
    if layout.architecture != X86_64:
        return ()
    return tuple(r.name if r.name in lay.GPRS else "" for r in layout.registers)


def of_mode(cpu: Cpu) -> str:
    """The architecture of the code that the processor runs now (SDM volume 3, 2.2)."""
    attr = cpu.get("seg_attr", lay.CS)
    if cpu.get("efer") & lay.EFER_LMA and attr & lay.ATTR_L:
        return X86_64
    protected = cpu.get("cr0") & lay.CR0_PE and not cpu.get("rflags") & lay.VM
    return I386 if protected and attr & lay.ATTR_DB else I8086


# Values.


def _field(name: str, index: int = 0) -> tuple[Get, Set]:
    return (
        lambda cpu: cpu.get(name, index),
        lambda cpu, value: cpu.set(name, value, index),
    )


def _low(name: str) -> tuple[Get, Set]:
    """The low half of a register; a write leaves the other one."""

    def put(cpu: Cpu, value: int) -> None:
        cpu.set(name, cpu.get(name) & ~0xFFFFFFFF | value)

    return lambda cpu: cpu.get(name), put


def set_linear_pc(cpu: Cpu, address: int) -> None:
    """Go on at a linear address: in code with a base, at its offset."""
    mask = _MASK64 if of_mode(cpu) == X86_64 else 0xFFFFFFFF
    cpu.set("rip", cpu.get("rip") + address - cpu.linear_pc & mask)


def _st(n: int) -> tuple[Get, Set]:
    def place(cpu: Cpu) -> int:
        return (cpu.get("fpu_top") + n) & 7

    return (
        lambda cpu: cpu.get("fpr", place(cpu)) & ((1 << 80) - 1),
        lambda cpu, value: cpu.set("fpr", value, place(cpu)),
    )


def _ftag(cpu: Cpu) -> int:
    """The full tag word (SDM volume 1, 8.1.7) out of the empty bits and the values."""
    empty, word = cpu.get("fpu_tag"), 0
    for n in range(8):
        value = cpu.get("fpr", n)
        exponent, fraction = value >> 64 & 0x7FFF, value & ((1 << 64) - 1)
        if empty >> n & 1:
            tag = 3
        elif exponent == 0 and fraction == 0:
            tag = 1
        elif exponent in (0, 0x7FFF) or not fraction >> 63:
            tag = 2
        else:
            tag = 0
        word |= tag << (2 * n)
    return word


def _set_ftag(cpu: Cpu, value: int) -> None:
    cpu.set("fpu_tag", sum(1 << n for n in range(8) if value >> 2 * n & 3 == 3))


def _fstat(cpu: Cpu) -> int:
    return cpu.fpu_status


def _set_fstat(cpu: Cpu, value: int) -> None:
    cpu.set("fpu_sw", value & 0xFFFF & ~0x3800)
    cpu.set("fpu_top", value >> 11 & 7)


def _zero(cpu: Cpu) -> int:
    return 0


# Registers.

_FLAGS = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9),
    ("DF", 10), ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19),
    ("VIP", 20), ("ID", 21),
)  # fmt: skip
_GENERAL_64 = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{n}" for n in range(8, 16)),
)  # fmt: skip
_GENERAL_32 = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
_SEGMENTS = (("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5))


def _general(name: str) -> Register:
    pointer = name[1:] in ("bp", "sp")
    if name[0] == "e":
        return Register(name, 32, "data_ptr" if pointer else "int32", *_low("r" + name[1:]))
    return Register(name, 64, "data_ptr" if pointer else "int64", *_field(name))


def _core(general: tuple[str, ...], pc: str, bits: int) -> tuple[Register, ...]:
    return (
        *(_general(name) for name in general),
        Register(pc, bits, "code_ptr", lambda cpu: cpu.linear_pc, set_linear_pc),
        Register("eflags", 32, "i386_eflags", *_field("rflags")),
        *(Register(n, 32, "int32", _field("seg_sel", at)[0]) for n, at in _SEGMENTS),
        *(Register(f"st{n}", 80, "i387_ext", *_st(n)) for n in range(8)),
        Register("fctrl", 32, "int", *_field("fpu_cw"), group="float"),
        Register("fstat", 32, "int", _fstat, _set_fstat, group="float"),
        Register("ftag", 32, "int", _ftag, _set_ftag, group="float"),
        Register("fiseg", 32, "int", _zero, group="float"),
        Register("fioff", 32, "int", lambda cpu: cpu.get("fpu_ip") & 0xFFFFFFFF, group="float"),
        Register("foseg", 32, "int", _zero, group="float"),
        Register("fooff", 32, "int", lambda cpu: cpu.get("fpu_dp") & 0xFFFFFFFF, group="float"),
        Register("fop", 32, "int", *_field("fpu_op"), group="float"),
    )


def _sse(count: int) -> tuple[Register, ...]:
    return (
        *(Register(f"xmm{n}", 128, "vec128", *_field("xmm", n)) for n in range(count)),
        Register("mxcsr", 32, "int", *_field("mxcsr"), group="vector"),
    )


def _bases(names: tuple[str, ...], bits: int, group: str = "") -> tuple[Register, ...]:
    return tuple(
        Register(f"{n}_base", bits, "int", *_field("seg_base", lay.SEGMENTS.index(n)), group=group)
        for n in names
    )


def _system(bits: int) -> tuple[Register, ...]:
    return (
        Register("k_gs_base", 64, "int", *_field("kernel_gs_base"), group="system"),
        *(
            Register(n, bits, "int", *_field(n), group="system")
            for n in ("cr0", "cr2", "cr3", "cr4")
        ),
        Register("cr8", 64, "int", _field("cr8")[0], group="system"),
        Register("efer", 64, "int", *_field("efer"), group="system"),
        *_bases(("cs", "ss", "ds", "es"), bits, "system"),
        Register("ip", bits, "int", _field("rip")[0], group="system"),
    )


def _legacy(architecture: str) -> Layout:
    features = (
        (_CORE, _core(_GENERAL_32, "eip", 32)),
        (_SSE, _sse(8)),
        ("org.workbench.x86.system", (*_bases(("fs", "gs"), 32, "system"), *_system(32))),
    )
    return Layout(architecture, features, "eip")


def _xml(architecture: str, features: Features) -> str:
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        f'<target version="1.0"><architecture>{architecture}</architecture>',
    ]
    for name, registers in features:
        lines.append(f'<feature name="{name}">')
        if name == _CORE:
            flags = "".join(f'<field name="{f}" start="{at}" end="{at}"/>' for f, at in _FLAGS)
            lines.append(f'<flags id="i386_eflags" size="4">{flags}</flags>')
        if name == _SSE:
            lines += _VECTORS
        for r in registers:
            group = f' group="{r.group}"' if r.group else ""
            lines.append(f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"{group}/>')
        lines.append("</feature>")
    lines.append("</target>")
    return "\n".join(lines)


_VECTORS = (
    '<vector id="v4f" type="ieee_single" count="4"/>',
    '<vector id="v2d" type="ieee_double" count="2"/>',
    '<vector id="v16i8" type="int8" count="16"/>',
    '<vector id="v8i16" type="int16" count="8"/>',
    '<vector id="v4i32" type="int32" count="4"/>',
    '<vector id="v2i64" type="int64" count="2"/>',
    '<union id="vec128"><field name="v4_float" type="v4f"/><field name="v2_double" type="v2d"/>'
    '<field name="v16_int8" type="v16i8"/><field name="v8_int16" type="v8i16"/>'
    '<field name="v4_int32" type="v4i32"/><field name="v2_int64" type="v2i64"/>'
    '<field name="uint128" type="uint128"/></union>',
)
LAYOUTS: Final = {
    X86_64: Layout(
        X86_64,
        (
            (_CORE, _core(_GENERAL_64, "rip", 64)),
            (_SSE, _sse(16)),
            ("org.gnu.gdb.i386.segments", _bases(("fs", "gs"), 64)),
            ("org.workbench.x86.system", _system(64)),
        ),
        "rip",
    ),
    I386: _legacy(I386),
    I8086: _legacy(I8086),
}
REGISTERS: Final = LAYOUTS[X86_64].registers
"""All of the processor that gdb can see."""
