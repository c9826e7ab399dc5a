"""What a region is made of: decoded instructions and basic blocks."""

from __future__ import annotations

from dataclasses import dataclass

EA_NONE, EA_RIP = (1 << 64) - 1, 64
EA64 = 20  # from here on addresses of 64 bits: none, base, base + index * 1 to 8, index * 1 to 8
BASE = "H_BASE"  # symbol of the guest's address of the page, so that code may be loaded anywhere
BRANCHES = ("jcc", "jmp")
KNOWN_OPS = frozenset(
    """
    mov mov_imm movzx_b movzx_w movsx_b movsx_w movsxd lea add sub cmp and or xor test adc sbb inc
    dec neg not mul imul1 imul2 imul3 shl_1 shr_1 sar_1 shl_imm shr_imm sar_imm shl_cl shr_cl sar_cl
    rol_1 ror_1 rol_imm ror_imm rol_cl ror_cl shld_imm shrd_imm shld_cl shrd_cl bt bts btr btc bsf
    bsr popcnt bswap movbe crc32 cbw cwd nop setcc cmovcc push pop leave xchg xadd cmpxchg clc stc
    cmc jcc jmp
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True, slots=True)
class Insn:
    """One decoded instruction; `holes` has the value of each hole of its stencil.

    Addresses of instructions count from the start of their page.
    """

    pc: int
    next: int
    op: str
    form: str
    size: int
    cond: int
    ea: int
    segment: int
    nop: bool
    target: int
    holes: dict[str, int]

    @property
    def ends(self) -> bool:
        """Is it a jump?"""
        return self.op in BRANCHES

    def supported(self) -> bool:
        """Can it stand in a region?"""
        if self.op not in KNOWN_OPS or set(self.form) - set("rmin"):
            return False
        if self.ea != EA_NONE and self.ea != EA_RIP and self.ea < EA64:
            return False
        stack = self.op in ("push", "pop", "leave")
        strange = self.op in ("bt", "bts", "btr", "btc") and self.form == "mr"
        return not (stack and "m" in self.form) and not strange


@dataclass(slots=True)
class Block:
    """Instructions that are entered at the first only."""

    insns: list[Insn]

    @property
    def pc(self) -> int:
        """Its address."""
        return self.insns[0].pc

    def ways(self) -> list[int]:
        """Where it goes on: the target of its jump first."""
        last = self.insns[-1]
        if last.op == "jmp":
            return [last.target]
        return [last.target, last.next] if last.op == "jcc" else [last.next]


def blocks_of(head: int, region: dict[int, Insn]) -> list[Block]:
    """Cut instructions into basic blocks, that at `head` first."""
    starts = {head}
    for insn in region.values():
        if insn.ends:
            starts.add(insn.target)
            starts.add(insn.next)
    out: list[Block] = []
    for start in sorted(starts, key=lambda pc: (pc != head, pc)):
        insns: list[Insn] = []
        at = start
        while at in region and (not insns or at not in starts):
            insns.append(region[at])
            at = region[at].next
            if insns[-1].ends:
                break
        if insns:
            out.append(Block(insns))
    return out


def circle(blocks: list[Block]) -> list[Block]:
    """The blocks from which the way leads back to the first."""
    back = {blocks[0].pc}
    more = True
    while more:
        found = {b.pc for b in blocks if back & set(b.ways())} | back
        more, back = found != back, found
    return [b for b in blocks if b.pc in back]


def chain_name(pc: int) -> str:
    """The symbol of the way out to an offset from the page, which may be negative."""
    return f"CHAIN_{pc & (1 << 64) - 1:x}"


def chain_target(name: str) -> int:
    """The reverse of `chain_name`."""
    pc = int(name[6:], 16)
    return pc - (1 << 64) if pc >> 63 else pc
