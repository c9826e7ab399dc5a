"""Moves of SSE to SSE4.1: whole registers, halves, scalars, lanes, non-temporal, and MXCSR
itself."""

from __future__ import annotations

from typing import Any

from workbench.core.lang import shuffle, unlikely
from workbench.core.layout import GP
from workbench.core.opcodes import row
from workbench.core.sse_helpers import (
    MXCSR_MASK,
    NEEDS_MMX,
    V,
    check_aligned,
    guest_mxcsr,
    high64,
    mmx_put,
    native,
    set_guest_mxcsr,
    source,
    sse_op,
    widen,
)
from workbench.core.stencil import op

# -- sixteen bytes


@sse_op("movups")
def movups(s: Any, d: Any, a: Any) -> None:
    d.put(a.get(V))


@sse_op("movaps")
def movaps(s: Any, d: Any, a: Any) -> None:
    if d.is_mem or a.is_mem:
        check_aligned(s)
    d.put(a.get(V))


for _prefix in ("NP", "66"):
    row(f"{_prefix} 0F 10", "movups", "Vx,Wx")
    row(f"{_prefix} 0F 11", "movups", "Wx,Vx")
    row(f"{_prefix} 0F 28", "movaps", "Vx,Wx")
    row(f"{_prefix} 0F 29", "movaps", "Wx,Vx")
    row(f"{_prefix} 0F 2B mem", "movaps", "Mx,Vx")  # MOVNTPS, MOVNTPD
row("66 0F 6F", "movaps", "Vx,Wx")  # MOVDQA
row("66 0F 7F", "movaps", "Wx,Vx")
row("F3 0F 6F", "movups", "Vx,Wx")  # MOVDQU
row("F3 0F 7F", "movups", "Wx,Vx")
row("66 0F E7 mem", "movaps", "Mx,Vx")  # MOVNTDQ
row("66 0F 38 2A mem", "movaps", "Vx,Mx")  # MOVNTDQA
row("F2 0F F0 mem", "movups", "Vx,Mx")  # LDDQU

# -- scalars: a load clears the rest of the register, a move between registers keeps it


@sse_op("movs_load")
def movs_load(s: Any, d: Any, a: Any) -> None:
    d.put(widen(a.get()))


@sse_op("movs_store")
def movs_store(s: Any, d: Any, a: Any) -> None:
    d.put(a.get())


@sse_op("movss")
def movss(s: Any, d: Any, a: Any) -> None:
    d.put(native("movss $2, $0", "=x,0,x", V, (d.get(V), a.get(V))))


@sse_op("movsd")
def movsd(s: Any, d: Any, a: Any) -> None:
    d.put(shuffle(a.get(V), d.get(V), (0, 3)))


for _prefix, _name, _size in (("F3", "movss", "d"), ("F2", "movsd", "q")):
    row(f"{_prefix} 0F 10 mod3", _name, "Vx,Ux")
    row(f"{_prefix} 0F 11 mod3", _name, "Ux,Vx")
    row(f"{_prefix} 0F 10 mem", "movs_load", f"V{_size},M{_size}")
    row(f"{_prefix} 0F 11 mem", "movs_store", f"M{_size},V{_size}")


@sse_op("movq_reg")
def movq_reg(s: Any, d: Any, a: Any) -> None:
    d.put(widen(a.get("i64")))


row("F3 0F 7E mod3", "movq_reg", "Vq,Uq")
row("F3 0F 7E mem", "movs_load", "Vq,Mq")
row("66 0F D6 mod3", "movq_reg", "Uq,Vq")
row("66 0F D6 mem", "movs_store", "Mq,Vq")
row("66 0F 6E", "movs_load", "Vy,Ey")  # MOVD, MOVQ from a general register
row("66 0F 7E", "movs_store", "Ey,Vy")

# -- halves


@sse_op("movlps_load")
def movlps_load(s: Any, d: Any, a: Any) -> None:
    q = a.get("i64")
    d.put(d.get(V).with_lane(0, q))


@sse_op("movhps_load")
def movhps_load(s: Any, d: Any, a: Any) -> None:
    q = a.get("i64")
    d.put(d.get(V).with_lane(1, q))


@sse_op("movhps_store")
def movhps_store(s: Any, d: Any, a: Any) -> None:
    d.put(high64(a.get(V)))


@sse_op("movhlps")
def movhlps(s: Any, d: Any, a: Any) -> None:
    d.put(shuffle(a.get(V), d.get(V), (1, 3)))


@sse_op("movlhps")
def movlhps(s: Any, d: Any, a: Any) -> None:
    d.put(shuffle(d.get(V), a.get(V), (0, 2)))


for _prefix in ("NP", "66"):
    row(f"{_prefix} 0F 12 mem", "movlps_load", "Vq,Mq")
    row(f"{_prefix} 0F 13 mem", "movs_store", "Mq,Vq")
    row(f"{_prefix} 0F 16 mem", "movhps_load", "Vq,Mq")
    row(f"{_prefix} 0F 17 mem", "movhps_store", "Mq,Vq")
row("NP 0F 12 mod3", "movhlps", "Vx,Ux")
row("NP 0F 16 mod3", "movlhps", "Vx,Ux")


@sse_op("movddup")
def movddup(s: Any, d: Any, a: Any) -> None:
    v = source(s, a, 8)
    d.put(shuffle(v, v, (0, 0)))


@sse_op("movsldup")
def movsldup(s: Any, d: Any, a: Any) -> None:
    v = source(s, a).bitcast("<4 x i32>")
    d.put(shuffle(v, v, (0, 0, 2, 2)))


@sse_op("movshdup")
def movshdup(s: Any, d: Any, a: Any) -> None:
    v = source(s, a).bitcast("<4 x i32>")
    d.put(shuffle(v, v, (1, 1, 3, 3)))


row("F2 0F 12", "movddup", "Vx,Wq")
row("F3 0F 12", "movsldup", "Vx,Wx")
row("F3 0F 16", "movshdup", "Vx,Wx")

# -- between MMX and XMM registers


@sse_op("movq2dq")
def movq2dq(s: Any, d: Any, a: Any) -> None:
    d.put(widen(a.get("i64")))


@sse_op("movdq2q")
def movdq2q(s: Any, d: Any, a: Any) -> None:
    mmx_put(d, a.get("i64"))


NEEDS_MMX.update(("movq2dq", "movdq2q"))
row("F3 0F D6 mod3", "movq2dq", "Vx,Nq")
row("F2 0F D6 mod3", "movdq2q", "Pq,Uq")

# -- masks and lanes


def mask_op(name: str) -> None:
    """Sign bits of the elements to a general register."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        d.put(native(f"{name} $1, $0", "=r,x", "i32", (a.get(V),)))


for _name, _encoding in (
    ("movmskps", "NP 0F 50"),
    ("movmskpd", "66 0F 50"),
    ("pmovmskb", "66 0F D7"),
):
    mask_op(_name)
    row(f"{_encoding} mod3", _name, "Gd,Ux")


def extract_op(name: str, mnemonic: str, size: int, memory: bool) -> None:
    """One element to a general register (zero-extended) or to memory."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        v = native(f"{mnemonic} $$H_IMM, $1, $0", "=r,x", "i32", (a.get(V),))
        d.put(v.to(size * 8) if memory else v)


for _name, _code, _bytes, _letter in (
    ("pextrb", 0x14, 1, "b"),
    ("pextrw", 0x15, 2, "w"),
    ("extractps", 0x17, 4, "d"),
):
    extract_op(_name, _name, _bytes, False)
    extract_op(f"{_name}_m", _name, _bytes, True)
    row(f"66 0F 3A {_code:02X} mod3", _name, "Rd,Vx,Ib")
    row(f"66 0F 3A {_code:02X} mem", f"{_name}_m", f"M{_letter},Vx,Ib")
row("66 0F C5 mod3", "pextrw", "Gd,Ux,Ib")


@sse_op("pextrd")
def pextrd(s: Any, d: Any, a: Any, i: Any) -> None:
    name = "pextrq" if s.size == 8 else "pextrd"
    d.put(native(f"{name} $$H_IMM, $1, $0", "=r,x", f"i{s.size * 8}", (a.get(V),)))


row("66 0F 3A 16", "pextrd", "Ey,Vy,Ib")  # PEXTRQ with REX.W


def insert_op(name: str, size: int) -> None:
    """One element from a general register or from memory."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        value = a.get(size).to(32)
        d.put(native(f"{name} $$H_IMM, $2, $0", "=x,0,r", V, (d.get(V), value)))


insert_op("pinsrb", 1)
insert_op("pinsrw", 2)
row("66 0F 3A 20 mod3", "pinsrb", "Vb,Rd,Ib")  # R: any of the sixteen, never AH to BH
row("66 0F 3A 20 mem", "pinsrb", "Vb,Mb,Ib")
row("66 0F C4", "pinsrw", "Vw,Ew,Ib")


@sse_op("pinsrd")
def pinsrd(s: Any, d: Any, a: Any, i: Any) -> None:
    name = "pinsrq" if s.size == 8 else "pinsrd"
    value = a.get()
    d.put(native(f"{name} $$H_IMM, $2, $0", "=x,0,r", V, (d.get(V), value)))


row("66 0F 3A 22", "pinsrd", "Vy,Ey,Ib")  # PINSRQ with REX.W

# -- stores of another kind


@op("movnti")
def movnti(s: Any, d: Any, a: Any) -> None:
    d.put(a.get())


row("NP 0F C3 mem", "movnti", "My,Gy")

# -- MXCSR


@sse_op("ldmxcsr")
def ldmxcsr(s: Any, a: Any) -> None:
    value = a.get()
    if unlikely((value & ~MXCSR_MASK) != 0):
        s.exception(GP, 0)
    set_guest_mxcsr(s.base, value)


@sse_op("stmxcsr")
def stmxcsr(s: Any, d: Any) -> None:
    d.put(guest_mxcsr(s.base))


row("NP 0F AE /2 mem", "ldmxcsr", "Md")
row("NP 0F AE /3 mem", "stmxcsr", "Md")
