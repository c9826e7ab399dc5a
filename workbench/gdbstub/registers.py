"""The registers that gdb sees: their target description (`target.xml`) and their values.

The features `org.gnu.gdb.i386.core`, `.sse` and `.segments` are those of "Debugging with GDB",
appendix G.5.7 (i386 Features); `org.workbench.x86.system` is ours. gdb numbers registers in the
order of the description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.core import layout as lay
from workbench.core.engine import Cpu

Get = Callable[[Cpu], int]
Set = Callable[[Cpu, int], None]


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


def _field(name: str, index: int = 0) -> tuple[Get, Set]:
    return (
        lambda cpu: cpu.get(name, index),
        lambda cpu, value: cpu.set(name, value, index),
    )


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


def _fstat(cpu: Cpu) -> int:
    return cpu.get("fpu_sw") & ~0x3800 | (cpu.get("fpu_top") & 7) << 11


def _zero(cpu: Cpu) -> int:
    return 0


def _base(segment: int) -> tuple[Get, Set]:
    return _field("seg_base", segment)


_FLAGS = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9),
    ("DF", 10), ("OF", 11), ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19),
    ("VIP", 20), ("ID", 21),
)  # fmt: skip
_GENERAL = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rbp",
    "rsp",
    *(f"r{n}" for n in range(8, 16)),
)
_SEGMENTS = (("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5))


def _general(name: str) -> Register:
    kind = "data_ptr" if name in ("rbp", "rsp") else "int64"
    return Register(name, 64, kind, *_field(name))


def _core() -> tuple[Register, ...]:
    return (
        *(_general(name) for name in _GENERAL),
        Register("rip", 64, "code_ptr", *_field("rip")),
        Register("eflags", 32, "i386_eflags", *_field("rflags")),
        *(Register(n, 32, "int32", _field("seg_sel", at)[0]) for n, at in _SEGMENTS),
        *(Register(f"st{n}", 80, "i387_ext", *_st(n)) for n in range(8)),
        Register("fctrl", 32, "int", _field("fpu_cw")[0], group="float"),
        Register("fstat", 32, "int", _fstat, group="float"),
        Register("ftag", 32, "int", _ftag, group="float"),
        Register("fiseg", 32, "int", _zero, group="float"),
        Register("fioff", 32, "int", lambda cpu: cpu.get("fpu_ip") & 0xFFFFFFFF, group="float"),
        Register("foseg", 32, "int", _zero, group="float"),
        Register("fooff", 32, "int", lambda cpu: cpu.get("fpu_dp") & 0xFFFFFFFF, group="float"),
        Register("fop", 32, "int", _field("fpu_op")[0], group="float"),
    )


def _sse() -> tuple[Register, ...]:
    return (
        *(Register(f"xmm{n}", 128, "vec128", *_field("xmm", n)) for n in range(16)),
        Register("mxcsr", 32, "int", *_field("mxcsr"), group="vector"),
    )


def _system() -> tuple[Register, ...]:
    return (
        Register("k_gs_base", 64, "int", *_field("kernel_gs_base"), group="system"),
        *(Register(n, 64, "int", *_field(n), group="system") for n in ("cr0", "cr2", "cr3", "cr4")),
        Register("cr8", 64, "int", _field("cr8")[0], group="system"),
        Register("efer", 64, "int", *_field("efer"), group="system"),
    )


_SEGMENT_BASES = (
    Register("fs_base", 64, "int", *_base(lay.FS)),
    Register("gs_base", 64, "int", *_base(lay.GS)),
)
FEATURES: tuple[tuple[str, tuple[Register, ...]], ...] = (
    ("org.gnu.gdb.i386.core", _core()),
    ("org.gnu.gdb.i386.sse", _sse()),
    ("org.gnu.gdb.i386.segments", _SEGMENT_BASES),
    ("org.workbench.x86.system", _system()),
)
REGISTERS: tuple[Register, ...] = tuple(r for _, registers in FEATURES for r in registers)
BY_NAME = {register.name: n for n, register in enumerate(REGISTERS)}
PC = BY_NAME["rip"]
G_BYTES = sum(register.bytes for register in REGISTERS)


def read(cpu: Cpu, number: int) -> bytes:
    """The bytes of a register as gdb wants them."""
    register = REGISTERS[number]
    mask = (1 << register.bits) - 1
    return (register.get(cpu) & mask).to_bytes(register.bytes, "little")


def read_all(cpu: Cpu) -> bytes:
    """The answer to `g`."""
    return b"".join(read(cpu, n) for n in range(len(REGISTERS)))


def write(cpu: Cpu, number: int, data: bytes) -> bool:
    """Write a register; False where that is refused or the size is wrong."""
    register = REGISTERS[number]
    if len(data) != register.bytes:
        return False
    value = int.from_bytes(data, "little")
    if register.set is None:
        return value == int.from_bytes(read(cpu, number), "little")
    register.set(cpu, value)
    return True


def target_xml() -> str:
    """The target description."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        '<target version="1.0"><architecture>i386:x86-64</architecture>',
    ]
    for name, registers in FEATURES:
        lines.append(f'<feature name="{name}">')
        if name.endswith("core"):
            flags = "".join(f'<field name="{f}" start="{at}" end="{at}"/>' for f, at in _FLAGS)
            lines.append(f'<flags id="i386_eflags" size="4">{flags}</flags>')
        if name.endswith("sse"):
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
