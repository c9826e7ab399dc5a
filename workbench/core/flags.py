"""Arithmetic flags: kept lazily as (cc_op, cc_dst, cc_src), worked out when something looks.

See `layout` for the kinds.  A condition is evaluated by a stencil made for the kind that the
translator knows, or by the helper `eflags_of` when it does not.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import Val, ctpop, fn, inline
from workbench.core.layout import (
    AF,
    CC_ADD,
    CC_DEC,
    CC_EFLAGS,
    CC_EXPL,
    CC_INC,
    CC_LOGIC,
    CC_SUB,
    CF,
    CPU,
    OF,
    PF,
    SF,
    ZF,
)

LOG2 = {1: 0, 2: 1, 4: 2, 8: 3}


def cc_code(kind: int, size: int) -> int:
    """The value of cc_op for a kind and an operand size in bytes."""
    return kind * 4 + LOG2[size]


def parity(result: Val) -> Val:
    """PF as i1: even number of ones in the low byte (SDM volume 1, 3.4.3.1)."""
    return (ctpop(result.tr(8)) & 1) == 0


@inline
def pack(cf: Any, pf: Any, af: Any, zf: Any, sf: Any, of: Any) -> Any:
    """Six i1 as EFLAGS bits (i64)."""
    return (
        cf.zx(64)
        | (pf.zx(64) << 2)
        | (af.zx(64) << 4)
        | (zf.zx(64) << 6)
        | (sf.zx(64) << 7)
        | (of.zx(64) << 11)
    )


def sign(v: Val) -> Val:
    """The top bit as i1."""
    return v.slt(0)


@inline
def flags_from(kind: int, size: int, dst: Any, src: Any) -> Any:
    """The six flags as EFLAGS bits, from full-width cc_dst and cc_src, for a known kind and
    size.
    """
    bits = size * 8
    r = dst.tr(bits)
    if kind == CC_ADD:
        b = src.tr(bits)
        a = r - b
        return pack(
            r < b, parity(r), ((r ^ a ^ b) & 0x10) != 0, r == 0, sign(r), sign((r ^ a) & (r ^ b))
        )
    if kind == CC_SUB:
        b = src.tr(bits)
        a = r + b
        return pack(
            a < b, parity(r), ((r ^ a ^ b) & 0x10) != 0, r == 0, sign(r), sign((a ^ b) & (a ^ r))
        )
    szp = (parity(r).zx(64) << 2) | ((r == 0).zx(64) << 6) | (sign(r).zx(64) << 7)
    if kind == CC_LOGIC:
        return szp
    if kind == CC_EXPL:
        return szp | (src & (CF | AF | OF))
    low = r & 15
    if kind == CC_INC:
        return szp | (src & 1) | ((low == 0).zx(64) << 4) | ((r == (1 << (bits - 1))).zx(64) << 11)
    assert kind == CC_DEC
    return (
        szp | (src & 1) | ((low == 15).zx(64) << 4) | ((r == ((1 << (bits - 1)) - 1)).zx(64) << 11)
    )


@fn("ptr", ret="i64")
def eflags_of(base: Any) -> Any:
    """The six arithmetic flags of the current lazy state."""
    cpu = CPU.view(base)
    op = cpu.cc_op
    dst = cpu.cc_dst
    src = cpu.cc_src
    for kind in (CC_SUB, CC_LOGIC, CC_ADD, CC_EXPL, CC_INC, CC_DEC):
        for size in (8, 4, 1, 2):
            if op == cc_code(kind, size):
                return flags_from(kind, size, dst, src)
    return src & (CF | PF | AF | ZF | SF | OF)


@inline
def set_eflags_arith(cpu: Any, bits: Any) -> None:
    """Make the six flags explicit (`bits`: i64, others ignored)."""
    cpu.cc_src = bits & (CF | PF | AF | ZF | SF | OF)
    cpu.cc_op = CC_EFLAGS * 4


@fn("ptr", "i64")
def set_carry(base: Any, c: Any) -> None:
    """CF = `c` (0 or 1); the other arithmetic flags stay."""
    cpu = CPU.view(base)
    kind = cpu.cc_op >> 2
    if (kind == CC_ADD) | (kind == CC_SUB):
        cpu.cc_src = (eflags_of(base) & ~CF) | c
        cpu.cc_op = CC_EFLAGS * 4
    elif kind == CC_LOGIC:
        cpu.cc_src = c
        cpu.cc_op = cpu.cc_op + 4  # CC_EXPL
    else:
        cpu.cc_src = (cpu.cc_src & ~CF) | c


@fn("ptr", "i64")
def set_carry_overflow(base: Any, bits: Any) -> None:
    """CF and OF from `bits`; the other arithmetic flags stay."""
    set_eflags_arith(CPU.view(base), (eflags_of(base) & ~(CF | OF)) | bits)


@inline
def condition_of_bits(cc: int, f: Any) -> Any:
    """Condition code `cc` (the low four bits of Jcc) from explicit EFLAGS bits, as i1."""
    which = cc >> 1
    if which == 0:
        r = (f & OF) != 0
    elif which == 1:
        r = (f & CF) != 0
    elif which == 2:
        r = (f & ZF) != 0
    elif which == 3:
        r = (f & (CF | ZF)) != 0
    elif which == 4:
        r = (f & SF) != 0
    elif which == 5:
        r = (f & PF) != 0
    elif which == 6:
        r = ((f >> 7) & 1) != ((f >> 11) & 1)
    else:
        r = (((f >> 7) & 1) != ((f >> 11) & 1)) | ((f & ZF) != 0)
    return r ^ 1 if cc & 1 else r


@inline
def condition_after(cc: int, kind: int, size: int, dst: Any, src: Any) -> Any:
    """Condition `cc` as i1 after an operation of a known kind, straight from its operands."""
    bits = size * 8
    r = dst.tr(bits)
    which = cc >> 1
    if kind == CC_SUB:
        b = src.tr(bits)
        a = r + b
        if which == 1:
            c = a < b
        elif which == 2:
            c = r == 0
        elif which == 3:
            c = a <= b
        elif which == 4:
            c = sign(r)
        elif which == 5:
            c = parity(r)
        elif which == 6:
            c = a.slt(b)
        elif which == 7:
            c = a.sle(b)
        else:
            c = sign((a ^ b) & (a ^ r))
        return c ^ 1 if cc & 1 else c
    if kind == CC_LOGIC:
        if which in (0, 1):
            c = dst.tr(1) & 0
        elif which in (2, 3):
            c = r == 0
        elif which in (4, 6):
            c = sign(r)
        elif which == 5:
            c = parity(r)
        else:
            c = r.sle(0)
        return c ^ 1 if cc & 1 else c
    if which == 2:
        c = r == 0
        return c ^ 1 if cc & 1 else c
    if which == 4:
        c = sign(r)
        return c ^ 1 if cc & 1 else c
    return condition_of_bits(cc, flags_from(kind, size, dst, src))
