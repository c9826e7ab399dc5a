"""MMX: packed integers in the low 64 bits of the x87 registers, with the additions of SSE to SSSE3.

The host's MMX registers stay untouched (they are its x87 registers): each instruction is done by an
XMM instruction on operands in the low half.  Where the XMM form is no lane-by-lane extension of the
MMX form, a kind (below) says how the operands are placed.  Memory operands need no alignment.  Tag
word and top of stack are the business of "mmx_check" (see sem_sse), which precedes these ops.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import const
from workbench.core.opcodes import row
from workbench.core.sem_sse_int import SHIFTS
from workbench.core.sse_helpers import (
    V,
    high64,
    join64,
    low,
    masked_store,
    mmx_op,
    mmx_put,
    mmx_source,
    native,
)

# Kinds: how two operands d and s of 64 bits become one of the XMM instruction.
#   lane  the low halves, result in the low half
#   high  as lane, result in the high half (unpack high: what XMM's unpack low puts above)
#   join  d below s in both operands, result in the low half (packs and horizontal operations)
LANE, HIGH, JOIN = "lane", "high", "join"
BINARY_0F = {
    0x60: ("punpcklbw", LANE),
    0x61: ("punpcklwd", LANE),
    0x62: ("punpckldq", LANE),
    0x68: ("punpcklbw", HIGH),
    0x69: ("punpcklwd", HIGH),
    0x6A: ("punpckldq", HIGH),
    0x63: ("packsswb", JOIN),
    0x67: ("packuswb", JOIN),
    0x6B: ("packssdw", JOIN),
    0x64: ("pcmpgtb", LANE),
    0x65: ("pcmpgtw", LANE),
    0x66: ("pcmpgtd", LANE),
    0x74: ("pcmpeqb", LANE),
    0x75: ("pcmpeqw", LANE),
    0x76: ("pcmpeqd", LANE),
    0xD1: ("psrlw", LANE),
    0xD2: ("psrld", LANE),
    0xD3: ("psrlq", LANE),
    0xD4: ("paddq", LANE),
    0xD5: ("pmullw", LANE),
    0xD8: ("psubusb", LANE),
    0xD9: ("psubusw", LANE),
    0xDA: ("pminub", LANE),
    0xDB: ("pand", LANE),
    0xDC: ("paddusb", LANE),
    0xDD: ("paddusw", LANE),
    0xDE: ("pmaxub", LANE),
    0xDF: ("pandn", LANE),
    0xE0: ("pavgb", LANE),
    0xE1: ("psraw", LANE),
    0xE2: ("psrad", LANE),
    0xE3: ("pavgw", LANE),
    0xE4: ("pmulhuw", LANE),
    0xE5: ("pmulhw", LANE),
    0xE8: ("psubsb", LANE),
    0xE9: ("psubsw", LANE),
    0xEA: ("pminsw", LANE),
    0xEB: ("por", LANE),
    0xEC: ("paddsb", LANE),
    0xED: ("paddsw", LANE),
    0xEE: ("pmaxsw", LANE),
    0xEF: ("pxor", LANE),
    0xF1: ("psllw", LANE),
    0xF2: ("pslld", LANE),
    0xF3: ("psllq", LANE),
    0xF4: ("pmuludq", LANE),
    0xF5: ("pmaddwd", LANE),
    0xF6: ("psadbw", LANE),
    0xF8: ("psubb", LANE),
    0xF9: ("psubw", LANE),
    0xFA: ("psubd", LANE),
    0xFB: ("psubq", LANE),
    0xFC: ("paddb", LANE),
    0xFD: ("paddw", LANE),
    0xFE: ("paddd", LANE),
}
BINARY_0F38 = {
    0x01: ("phaddw", JOIN),
    0x02: ("phaddd", JOIN),
    0x03: ("phaddsw", JOIN),
    0x04: ("pmaddubsw", LANE),
    0x05: ("phsubw", JOIN),
    0x06: ("phsubd", JOIN),
    0x07: ("phsubsw", JOIN),
    0x08: ("psignb", LANE),
    0x09: ("psignw", LANE),
    0x0A: ("psignd", LANE),
    0x0B: ("pmulhrsw", LANE),
}
UNARY_0F38 = {0x1C: "pabsb", 0x1D: "pabsw", 0x1E: "pabsd"}


def binary(encoding: str, mnemonic: str, kind: str) -> None:
    """destination = destination op source, 64 bits."""
    name = f"mmx_{mnemonic}" if kind != HIGH else f"mmx_{mnemonic.replace('ckl', 'ckh')}"

    @mmx_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        b = mmx_source(a)
        x = mmx_source(d)
        if kind == JOIN:
            x = join64(low(x, 8), low(b, 8))
            b = x
        r = native(f"{mnemonic} $2, $0", "=x,0,x", V, (x, b))
        mmx_put(d, high64(r) if kind == HIGH else low(r, 8))

    row(encoding, name, "Pq,Qq")


for _code, (_name, _kind) in BINARY_0F.items():
    binary(f"NP 0F {_code:02X}", _name, _kind)
for _code, (_name, _kind) in BINARY_0F38.items():
    binary(f"NP 0F 38 {_code:02X}", _name, _kind)


def unary(encoding: str, mnemonic: str) -> None:
    """destination = op source."""

    @mmx_op(f"mmx_{mnemonic}")
    def sem(s: Any, d: Any, a: Any) -> None:
        mmx_put(d, low(native(f"{mnemonic} $1, $0", "=x,x", V, (mmx_source(a),)), 8))

    row(encoding, f"mmx_{mnemonic}", "Pq,Qq")


for _code, _name in UNARY_0F38.items():
    unary(f"NP 0F 38 {_code:02X}", _name)


def shift_imm(encoding: str, mnemonic: str) -> None:
    """A shift by an immediate count."""

    @mmx_op(f"mmx_{mnemonic}_i")
    def sem(s: Any, d: Any, i: Any) -> None:
        mmx_put(d, low(native(f"{mnemonic} $$H_IMM, $0", "=x,0", V, (mmx_source(d),)), 8))

    row(f"{encoding} mod3", f"mmx_{mnemonic}_i", "Nq,Ib")


for _name, _code, _reg in SHIFTS:
    shift_imm(f"NP 0F {_code:02X} /{_reg}", _name)

# -- moves


@mmx_op("mmx_load")
def mmx_load(s: Any, d: Any, a: Any) -> None:
    mmx_put(d, a.get().zx(64))


@mmx_op("mmx_store")
def mmx_store(s: Any, d: Any, a: Any) -> None:
    d.put(a.get())


row("NP 0F 6E", "mmx_load", "Py,Ey")  # MOVD, MOVQ
row("NP 0F 7E", "mmx_store", "Ey,Py")
row("NP 0F 6F", "mmx_load", "Pq,Qq")
row("NP 0F 7F mod3", "mmx_load", "Nq,Pq")
row("NP 0F 7F mem", "mmx_store", "Mq,Pq")
row("NP 0F E7 mem", "mmx_store", "Mq,Pq")  # MOVNTQ

# -- shuffles and single elements


@mmx_op("mmx_pshufb")
def mmx_pshufb(s: Any, d: Any, a: Any) -> None:
    index = widen_mask(a.get("i64"))
    mmx_put(d, low(native("pshufb $2, $0", "=x,0,x", V, (mmx_source(d), index)), 8))


def widen_mask(v: Any) -> Any:
    """Indices modulo 8, with the bit that asks for zero kept."""
    return const(0, V).with_lane(0, v & 0x8787878787878787)


@mmx_op("mmx_pshufw")
def mmx_pshufw(s: Any, d: Any, a: Any, i: Any) -> None:
    mmx_put(d, low(native("pshuflw $$H_IMM, $1, $0", "=x,x", V, (mmx_source(a),)), 8))


@mmx_op("mmx_palignr")
def mmx_palignr(s: Any, d: Any, a: Any, i: Any) -> None:
    b = a.get("i64")
    mmx_put(d, low(native("psrldq $$H_IMM, $0", "=x,0", V, (join64(b, d.get("i64")),)), 8))


@mmx_op("mmx_pinsrw")
def mmx_pinsrw(s: Any, d: Any, a: Any, i: Any) -> None:
    value = a.get("i16").zx(64)
    at = (s.imm & 3) * 16
    mmx_put(d, (d.get("i64") & ~(const(0xFFFF, "i64") << at)) | (value << at))


@mmx_op("mmx_pextrw")
def mmx_pextrw(s: Any, d: Any, a: Any, i: Any) -> None:
    d.put((a.get("i64") >> ((s.imm & 3) * 16)).tr(16).zx(32))


@mmx_op("mmx_pmovmskb")
def mmx_pmovmskb(s: Any, d: Any, a: Any) -> None:
    d.put(native("pmovmskb $1, $0", "=r,x", "i32", (mmx_source(a),)))


row("NP 0F 38 00", "mmx_pshufb", "Pq,Qq")
row("NP 0F 70", "mmx_pshufw", "Pq,Qq,Ib")
row("NP 0F 3A 0F", "mmx_palignr", "Pq,Qq,Ib")
row("NP 0F C4", "mmx_pinsrw", "Pw,Ew,Ib")
row("NP 0F C5 mod3", "mmx_pextrw", "Gd,Nq,Ib")
row("NP 0F D7 mod3", "mmx_pmovmskb", "Gd,Nq")


@mmx_op("maskmovq", mem=True)
def maskmovq(s: Any, a: Any, m: Any) -> None:
    masked_store(s, m.get("i64"), a.get("i64"), 8)


row("NP 0F F7 mod3", "maskmovq", "Pq,Nq")


@mmx_op("emms", ends=True)
def emms(s: Any) -> None:
    """The block ends here: MMX after the x87 instructions that follow needs its check again."""
    s.cpu.fpu_tag = 0xFF
    s.jump_indirect(s.next_pc + 0)


row("NP 0F 77", "emms")
