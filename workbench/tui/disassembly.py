"""Disassembly by capstone, with symbols and resolved effective addresses."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from workbench.tui.moment import Moment

_LONGEST: Final = 15
_ENDS: Final = frozenset({"ret", "retf", "retfq", "iret", "iretd", "iretq", "sysret", "sysretq",
                          "sysexit", "syscall", "sysenter", "hlt"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; of a byte that begins none the mnemonic is `(bad)`."""

    address: int
    size: int
    code: bytes
    mnemonic: str
    operands: str
    bits: int

    @property
    def target(self) -> int | None:
        """Where a direct branch goes."""
        if self.mnemonic.startswith(("j", "call", "loop")) and self.operands[:1].isdecimal():
            return int(self.operands, 0) & 0xFFFF_FFFF_FFFF_FFFF
        return None

    @property
    def memory(self) -> tuple[str, str, int, int, str] | None:
        """Base, index, scale, displacement and segment of a memory operand, None without one."""
        return _memory(self.code, self.address, self.bits) if "[" in self.operands else None

    @property
    def is_static(self) -> bool:
        """Has it a memory operand that is the same whatever the registers are?"""
        return "[rip " in self.operands or " [0x" in self.operands

    @property
    def is_branch(self) -> bool:
        """May it go on elsewhere than behind itself?"""
        m = self.mnemonic
        return m.startswith(("j", "call", "loop", "int", "lcall", "ljmp")) or m in _ENDS

    @property
    def is_call(self) -> bool:
        """Does it come back?"""
        return self.mnemonic.startswith(("call", "lcall"))


def _engine(bits: int, detail: bool = False) -> Any:
    """Each thread has its own: the screen is drawn while a move looks for the end of a block."""
    return _made(bits, detail, threading.get_ident())


@lru_cache(maxsize=24)
def _made(bits: int, detail: bool, thread: int) -> Any:
    import capstone

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    engine = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
    engine.detail = detail
    return engine


def disassemble(code: bytes, address: int, bits: int, most: int) -> list[Instruction]:
    """Decode up to `most` instructions; a byte that begins none is one `(bad)`."""
    out: list[Instruction] = []
    at = 0
    while at < len(code) and len(out) < most:
        # Without operands apart, which take ten times as long: few are asked for.
        for where, size, name, operands in _engine(bits).disasm_lite(
            code[at:], address + at, most - len(out)
        ):
            out.append(Instruction(where, size, code[at : at + size], name, operands, bits))
            at += size
        if len(out) < most and at < len(code):
            if len(code) - at < _LONGEST and out:
                break
            byte = code[at : at + 1]
            out.append(Instruction(address + at, 1, byte, "(bad)", f"{byte[0]:#04x}", bits))
            at += 1
    return out


@lru_cache(maxsize=256)
def _memory(code: bytes, address: int, bits: int) -> tuple[str, str, int, int, str] | None:
    from capstone import x86

    memory = None
    for found in _engine(bits, detail=True).disasm(code, address, 1):
        for operand in found.operands:
            if operand.type == x86.X86_OP_MEM:  # the last one, of a string instruction the source
                held = operand.mem
                names = (found.reg_name(r) or "" for r in (held.base, held.index, held.segment))
                base, index, segment = names
                memory = base, index, held.scale, held.disp, segment
    return memory


def effective(instruction: Instruction, moment: Moment) -> int | None:
    """The linear address of the memory operand, as registers are now."""
    if instruction.memory is None:
        return None
    base, index, scale, displacement, segment = instruction.memory
    address = displacement
    for name, factor in ((base, 1), (index, scale)):
        if name in ("rip", "eip"):
            address += instruction.address + instruction.size
        elif name:
            value = register(moment, name)
            if value is None:
                return None
            address += value * factor
    if segment in ("fs", "gs"):
        address += moment.registers[f"{segment}_base"]
    bits = 64 if moment.bits == 64 else 32
    return address & ((1 << bits) - 1)


def register(moment: Moment, name: str) -> int | None:
    """A register by any of its names: rax, eax, ax, al, r8d ..."""
    registers = moment.registers
    if name in registers:
        return registers[name]
    if name[:1] == "r" and name[1:].rstrip("dwb").isdecimal():
        mask = {"d": 0xFFFF_FFFF, "w": 0xFFFF, "b": 0xFF}[name[-1]]
        return registers[name.rstrip("dwb")] & mask
    for prefix, mask in (("r", 0xFFFF_FFFF), ("", 0)):
        if prefix and name[:1] == "e" and prefix + name[1:] in registers:
            return registers[prefix + name[1:]] & mask
    if "r" + name in registers:
        return registers["r" + name] & 0xFFFF
    if name[-1:] in ("l", "h"):
        whole = registers.get(f"r{name[:-1]}x", registers.get(f"r{name[:-1]}"))
        if whole is not None:
            return whole >> 8 & 0xFF if name[-1] == "h" else whole & 0xFF
    return None
