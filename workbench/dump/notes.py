"""The notes of a core file: registers as Linux keeps them, the processor as QEMU does.

NT_PRSTATUS and NT_FPREGSET are `struct elf_prstatus` (include/uapi/linux/elfcore.h of Linux, with
`struct user_regs_struct` of arch/x86) and an FXSAVE area (SDM volume 1, 10.5.1), for 32-bit
processors NT_PRXFPREG. The note `QEMU` (type 0) has what a kernel's own dump does not have: tables
and control registers; crash and makedumpfile find out with it where KASLR has put a kernel.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from workbench.core import layout as lay

if TYPE_CHECKING:
    from workbench.core.engine import Cpu

__all__ = ["notes"]

_NT_PRSTATUS, _NT_FPREGSET, _NT_PRXFPREG = 1, 2, 0x46E6_2B7F
_FXSAVE_BYTES: Final = 512
_MXCSR_MASK: Final = 0xFFFF
_REGS_64: Final = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
    "rsi", "rdi", "", "rip", "cs", "rflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs",
    "gs",
)  # fmt: skip
_REGS_32: Final = (
    "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rax", "ds", "es", "fs", "gs", "", "rip", "cs",
    "rflags", "rsp", "ss",
)  # fmt: skip
_QEMU_GENERAL: Final = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp", *(f"r{n}" for n in range(8, 16)),
)  # fmt: skip
_QEMU_SEGMENTS: Final = ("cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr")
_QEMU_STATE: Final = struct.Struct("<2I18Q" + "4IQ" * 10 + "6Q")
_QEMU_VERSION: Final = 1


def notes(cpu: Cpu, wide: bool, vmcoreinfo: bytes | None) -> bytes:
    """All of them; `wide` says whether it is a 64-bit processor at this moment."""
    fx = _note(b"CORE", _NT_FPREGSET, _fxsave(cpu, 16))
    if not wide:
        fx = _note(b"LINUX", _NT_PRXFPREG, _fxsave(cpu, 8))
    found = _note(b"CORE", _NT_PRSTATUS, _prstatus(cpu, wide)) + fx
    found += _note(b"QEMU", 0, _qemu(cpu))
    return found + (_note(b"VMCOREINFO", 0, vmcoreinfo) if vmcoreinfo else b"")


def _note(name: bytes, kind: int, data: bytes) -> bytes:
    whole = name + b"\0"
    header = struct.pack("<3I", len(whole), len(data), kind)
    return header + _padded(whole) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _value(cpu: Cpu, name: str) -> int:
    if name == "rip":
        return cpu.linear_pc  # what gdb takes for it: it knows no segments
    if name in lay.SEGMENTS:
        return cpu.get("seg_sel", lay.SEGMENTS.index(name))
    if name.endswith("_base"):
        return cpu.get("seg_base", lay.SEGMENTS.index(name.removesuffix("_base")))
    return cpu.get(name) if name else (1 << 64) - 1  # orig_rax: in no system call


def _prstatus(cpu: Cpu, wide: bool) -> bytes:
    """Signal 0, process 1, no times, then the general registers."""
    names, word = (_REGS_64, "Q") if wide else (_REGS_32, "I")
    mask = (1 << (64 if wide else 32)) - 1
    values = [_value(cpu, name) & mask for name in names]
    head = struct.pack(f"<3IHxx2{word}4I8{word}", 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, *[0] * 8)
    tail = struct.pack("<Ixxxx" if wide else "<I", 1)  # pr_fpvalid
    return head + struct.pack(f"<{len(values)}{word}", *values) + tail


def _fxsave(cpu: Cpu, registers: int) -> bytes:
    top = cpu.get("fpu_top") & 7
    valid = ~cpu.get("fpu_tag") & 0xFF
    head = struct.pack(
        "<2H2BH2Q2I",
        cpu.get("fpu_cw") & 0xFFFF, cpu.fpu_status & 0xFFFF, valid, 0, cpu.get("fpu_op") & 0xFFFF,
        cpu.get("fpu_ip"), cpu.get("fpu_dp"), cpu.get("mxcsr"), _MXCSR_MASK,
    )  # fmt: skip
    stack = (cpu.get("fpr", top + n & 7) & (1 << 80) - 1 for n in range(8))
    vectors = (cpu.get("xmm", n) for n in range(registers))
    data = head + b"".join(value.to_bytes(16, "little") for value in (*stack, *vectors))
    return data.ljust(_FXSAVE_BYTES, b"\0")


def _qemu(cpu: Cpu) -> bytes:
    """Version, size, general registers, segments, tables, CR0 to CR4, KERNEL_GS_BASE."""
    fields: list[int] = [_QEMU_VERSION, _QEMU_STATE.size]
    fields += [cpu.get(name) for name in (*_QEMU_GENERAL, "rip", "rflags")]
    for name in _QEMU_SEGMENTS:
        selector, base, limit, attr = cpu.get_segment(name)
        # The attributes where they are in a descriptor's second word (SDM volume 3, 3.4.5).
        fields += [selector, limit & 0xFFFF_FFFF, (attr & 0xFFFF) << 8, 0, base]
    for table in ("gdtr", "idtr"):
        fields += [0, cpu.get(f"{table}_limit"), 0, 0, cpu.get(f"{table}_base")]
    fields += [cpu.get("cr0"), 0, cpu.get("cr2"), cpu.get("cr3"), cpu.get("cr4")]
    return _QEMU_STATE.pack(*fields, cpu.get("kernel_gs_base"))
