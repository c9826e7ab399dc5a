"""Packed integers in XMM registers: SSE2, SSSE3, SSE4.1 and SSE4.2 (string comparison is in
sem_sse_string)."""

from __future__ import annotations

from typing import Any

from workbench.core.opcodes import row
from workbench.core.sse_helpers import V, native, source, sse_op

# -- two operands: encoding byte after 66 0F (or 66 0F 38) to mnemonic

BINARY_0F = {
    0x14: "unpcklpd",
    0x15: "unpckhpd",
    0x60: "punpcklbw",
    0x61: "punpcklwd",
    0x62: "punpckldq",
    0x63: "packsswb",
    0x64: "pcmpgtb",
    0x65: "pcmpgtw",
    0x66: "pcmpgtd",
    0x67: "packuswb",
    0x68: "punpckhbw",
    0x69: "punpckhwd",
    0x6A: "punpckhdq",
    0x6B: "packssdw",
    0x6C: "punpcklqdq",
    0x6D: "punpckhqdq",
    0x74: "pcmpeqb",
    0x75: "pcmpeqw",
    0x76: "pcmpeqd",
    0xD1: "psrlw",
    0xD2: "psrld",
    0xD3: "psrlq",
    0xD4: "paddq",
    0xD5: "pmullw",
    0xD8: "psubusb",
    0xD9: "psubusw",
    0xDA: "pminub",
    0xDB: "pand",
    0xDC: "paddusb",
    0xDD: "paddusw",
    0xDE: "pmaxub",
    0xDF: "pandn",
    0xE0: "pavgb",
    0xE1: "psraw",
    0xE2: "psrad",
    0xE3: "pavgw",
    0xE4: "pmulhuw",
    0xE5: "pmulhw",
    0xE8: "psubsb",
    0xE9: "psubsw",
    0xEA: "pminsw",
    0xEB: "por",
    0xEC: "paddsb",
    0xED: "paddsw",
    0xEE: "pmaxsw",
    0xEF: "pxor",
    0xF1: "psllw",
    0xF2: "pslld",
    0xF3: "psllq",
    0xF4: "pmuludq",
    0xF5: "pmaddwd",
    0xF6: "psadbw",
    0xF8: "psubb",
    0xF9: "psubw",
    0xFA: "psubd",
    0xFB: "psubq",
    0xFC: "paddb",
    0xFD: "paddw",
    0xFE: "paddd",
}
BINARY_0F38 = {
    0x00: "pshufb",
    0x01: "phaddw",
    0x02: "phaddd",
    0x03: "phaddsw",
    0x04: "pmaddubsw",
    0x05: "phsubw",
    0x06: "phsubd",
    0x07: "phsubsw",
    0x08: "psignb",
    0x09: "psignw",
    0x0A: "psignd",
    0x0B: "pmulhrsw",
    0x28: "pmuldq",
    0x29: "pcmpeqq",
    0x2B: "packusdw",
    0x37: "pcmpgtq",
    0x38: "pminsb",
    0x39: "pminsd",
    0x3A: "pminuw",
    0x3B: "pminud",
    0x3C: "pmaxsb",
    0x3D: "pmaxsd",
    0x3E: "pmaxuw",
    0x3F: "pmaxud",
    0x40: "pmulld",
}


def binary(name: str, *encodings: str) -> None:
    """destination = destination op source, 128 bits."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        b = source(s, a)
        d.put(native(f"{name} $2, $0", "=x,0,x", V, (d.get(V), b)))

    for encoding in encodings:
        row(encoding, name, "Vx,Wx")


for _code, _name in BINARY_0F.items():
    binary(_name, f"66 0F {_code:02X}")
for _code, _name in BINARY_0F38.items():
    binary(_name, f"66 0F 38 {_code:02X}")
binary("unpcklps", "NP 0F 14")
binary("unpckhps", "NP 0F 15")

# -- one operand

UNARY = {"pabsb": (0x1C, 16), "pabsw": (0x1D, 16), "pabsd": (0x1E, 16), "phminposuw": (0x41, 16)}
EXTENSIONS = (("bw", 8), ("bd", 4), ("bq", 2), ("wd", 8), ("wq", 4), ("dq", 8))
for _base, _kind in ((0x20, "s"), (0x30, "z")):
    for _i, (_shape, _size) in enumerate(EXTENSIONS):
        UNARY[f"pmov{_kind}x{_shape}"] = (_base + _i, _size)


def unary(name: str, encoding: str, size: int) -> None:
    """destination = op source; `size` bytes of the source count."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        d.put(native(f"{name} $1, $0", "=x,x", V, (source(s, a, size),)))

    letter = {16: "x", 8: "q", 4: "d", 2: "w"}[size]
    row(encoding, name, f"V{letter},W{letter}")


for _name, (_code, _size) in UNARY.items():
    unary(_name, f"66 0F 38 {_code:02X}", _size)

# -- with an immediate


def unary_imm(name: str, encoding: str) -> None:
    """A shuffle of one operand."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        d.put(native(f"{name} $$H_IMM, $1, $0", "=x,x", V, (source(s, a),)))

    row(encoding, name, "Vx,Wx,Ib")


def binary_imm(name: str, encoding: str) -> None:
    """A choice from two operands."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        b = source(s, a)
        d.put(native(f"{name} $$H_IMM, $2, $0", "=x,0,x", V, (d.get(V), b)))

    row(encoding, name, "Vx,Wx,Ib")


def shift_imm(name: str, encoding: str) -> None:
    """A shift by an immediate count."""

    @sse_op(f"{name}_i")
    def sem(s: Any, d: Any, i: Any) -> None:
        d.put(native(f"{name} $$H_IMM, $0", "=x,0", V, (d.get(V),)))

    row(f"{encoding} mod3", f"{name}_i", "Ux,Ib")


unary_imm("pshufd", "66 0F 70")
unary_imm("pshufhw", "F3 0F 70")
unary_imm("pshuflw", "F2 0F 70")
binary_imm("shufps", "NP 0F C6")
binary_imm("shufpd", "66 0F C6")
binary_imm("blendps", "66 0F 3A 0C")
binary_imm("blendpd", "66 0F 3A 0D")
binary_imm("pblendw", "66 0F 3A 0E")
binary_imm("palignr", "66 0F 3A 0F")
binary_imm("mpsadbw", "66 0F 3A 42")

SHIFTS = (
    ("psrlw", 0x71, 2),
    ("psraw", 0x71, 4),
    ("psllw", 0x71, 6),
    ("psrld", 0x72, 2),
    ("psrad", 0x72, 4),
    ("pslld", 0x72, 6),
    ("psrlq", 0x73, 2),
    ("psllq", 0x73, 6),
)
for _name, _code, _reg in (*SHIFTS, ("psrldq", 0x73, 3), ("pslldq", 0x73, 7)):
    shift_imm(_name, f"66 0F {_code:02X} /{_reg}")


@sse_op("insertps")
def insertps(s: Any, d: Any, a: Any, i: Any) -> None:
    v = source(s, a, 4)
    if a.is_mem:  # the immediate's choice of a source element does not count: all are the same
        v = native("pshufd $$0, $1, $0", "=x,x", V, (v,))
    d.put(native("insertps $$H_IMM, $2, $0", "=x,0,x", V, (d.get(V), v)))


row("66 0F 3A 21", "insertps", "Vd,Wd,Ib")

# -- blends by the sign bits of XMM0


def blend_by_xmm0(name: str, encoding: str) -> None:
    """The mask is implicit."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        b = source(s, a)
        mask = s.cpu.xmm[0].bitcast(V)
        d.put(native(f"{name} %xmm0, $2, $0", "=x,0,x,{xmm0}", V, (d.get(V), b, mask)))

    row(encoding, name, "Vx,Wx")


blend_by_xmm0("pblendvb", "66 0F 38 10")
blend_by_xmm0("blendvps", "66 0F 38 14")
blend_by_xmm0("blendvpd", "66 0F 38 15")

# -- PTEST


@sse_op("ptest", flags="w")
def ptest(s: Any, d: Any, a: Any) -> None:
    b = source(s, a)
    ax = native("ptest $2, $1\\0Alahf", "={eax},x,x,~{flags}", "i32", (d.get(V), b))
    s.flags_set((ax >> 8).zx(64) & 0x41)


row("66 0F 38 17", "ptest", "Vx,Wx")
