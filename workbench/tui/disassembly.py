"""Disassembly by capstone, with symbols and resolved effective addresses."""

from __future__ import annotations

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
    """One instruction; `target` is where a direct branch goes."""

    address: int
    size: int
    code: bytes
    mnemonic: str
    operands: str
    target: int | None
    memory: tuple[str, str, int, int, str] | None
    """Base, index, scale, displacement and segment of a memory operand, None without one."""

    @property
    def is_branch(self) -> bool:
        """May it go on elsewhere than behind itself?"""
        m = self.mnemonic
        return m.startswith(("j", "call", "loop", "int", "lcall", "ljmp")) or m in _ENDS

    @property
    def is_call(self) -> bool:
        """Does it come back?"""
        return self.mnemonic.startswith(("call", "lcall"))


@lru_cache(maxsize=3)
def _engine(bits: int) -> Any:
    import capstone

    modes = {16: capstone.CS_MODE_16, 32: capstone.CS_MODE_32, 64: capstone.CS_MODE_64}
    engine = capstone.Cs(capstone.CS_ARCH_X86, modes[bits])
    engine.detail = True
    return engine


def disassemble(code: bytes, address: int, bits: int, most: int) -> list[Instruction]:
    """Decode up to `most` instructions; a byte that begins none is one `(bad)`."""
    out: list[Instruction] = []
    at = 0
    while at < len(code) and len(out) < most:
        for found in _engine(bits).disasm(code[at:], address + at, most - len(out)):
            out.append(_made(found))
            at += found.size
        if len(out) < most and at < len(code):
            if len(code) - at < _LONGEST and out:
                break
            byte = code[at : at + 1]
            out.append(Instruction(address + at, 1, byte, "(bad)", f"{byte[0]:#04x}", None, None))
            at += 1
    return out


def _made(found: Any) -> Instruction:
    from capstone import x86

    target = memory = None
    for operand in found.operands:
        if operand.type == x86.X86_OP_IMM and found.mnemonic.startswith(("j", "call", "loop")):
            target = operand.imm & 0xFFFF_FFFF_FFFF_FFFF
        elif operand.type == x86.X86_OP_MEM:
            held = operand.mem
            names = (found.reg_name(r) or "" for r in (held.base, held.index, held.segment))
            base, index, segment = names
            memory = base, index, held.scale, held.disp, segment
    return Instruction(
        found.address, found.size, bytes(found.bytes), found.mnemonic, found.op_str, target, memory
    )


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
