"""Single bits and bit scans, flag instructions, decimal adjustment (SDM volume 2)."""

from __future__ import annotations

from typing import Any

from workbench.core.lang import (
    bswap,
    ctlz,
    ctpop,
    cttz,
    inline,
    intrinsic,
    select,
    u8,
    u16,
    u64,
    unlikely,
)
from workbench.core.layout import (
    AF,
    BR,
    CC_LOGIC,
    CF,
    DE,
    DF,
    OF,
    PF,
    RAX,
    SF,
    ZF,
)
from workbench.core.opcodes import row
from workbench.core.segments import in_64bit
from workbench.core.sem_int import part, set_part
from workbench.core.stencil import op

# --------------------------------------------------------------------------- BT and its family

TEST, SET, RESET, CHANGE = range(4)


@inline
def changed(what: int, x: Any, mask: Any) -> Any:
    """`x` with one bit changed."""
    if what == SET:
        r = x | mask
    elif what == RESET:
        r = x & ~mask
    else:
        r = x ^ mask
    return r


@inline
def bit_address(s: Any, index: Any) -> Any:
    """Address of the operand that holds bit `index` (signed) of a bit string."""
    at = s.addr + ((index.sx(64).sar(5 if s.size == 4 else 6 if s.size == 8 else 4)) * s.size)
    return select(in_64bit(s.cpu), at, at & 0xFFFFFFFF)


@inline
def bit_in_memory(s: Any, what: int, at: Any, index: Any) -> Any:
    """The bit, after it was changed in memory."""
    ty = f"i{s.size * 8}"
    mask = index & (s.size * 8 - 1)
    x = s.load(at, ty) if what == TEST else s.load_rmw(at, ty)
    if what != TEST:
        s.store(at, changed(what, x, (x & 0 | 1) << mask))
    return (x >> mask) & 1


@inline
def bit_op(s: Any, what: int, d: Any, a: Any) -> None:
    index = a.get()
    if d.is_mem and s.form[1] == "r":
        c = bit_in_memory(s, what, bit_address(s, index), index)
    else:
        n = index & (s.size * 8 - 1)
        if what == TEST:
            c = (d.get() >> n) & 1
        else:
            x = d.rmw()
            d.put(changed(what, x, (x & 0 | 1) << n))
            c = (x >> n) & 1
    if s.want_flags:
        s.set_carry(c.zx(64))


@op("bt", flags="rw")
def bt(s: Any, d: Any, a: Any) -> None:
    bit_op(s, TEST, d, a)


@op("bts", flags="rw", lock=True)
def bts(s: Any, d: Any, a: Any) -> None:
    bit_op(s, SET, d, a)


@op("btr", flags="rw", lock=True)
def btr(s: Any, d: Any, a: Any) -> None:
    bit_op(s, RESET, d, a)


@op("btc", flags="rw", lock=True)
def btc(s: Any, d: Any, a: Any) -> None:
    bit_op(s, CHANGE, d, a)


for _i, _name in enumerate(("bt", "bts", "btr", "btc")):
    row(f"0F {0xA3 + 8 * _i:02X}", _name, "Ev,Gv")
    row(f"0F BA /{4 + _i}", _name, "Ev,Ib")


# --------------------------------------------------------------------------- scans and counts


@op("bsf", flags="w", cc=CC_LOGIC)
def bsf(s: Any, d: Any, a: Any) -> None:
    """A source of zero leaves the destination as it is."""
    x = a.get()
    if x != 0:
        d.put(cttz(x))
    s.flags_lazy(CC_LOGIC, x)


@op("bsr", flags="w", cc=CC_LOGIC)
def bsr(s: Any, d: Any, a: Any) -> None:
    x = a.get()
    if x != 0:
        d.put(ctlz(x) ^ (x.bits - 1))
    s.flags_lazy(CC_LOGIC, x)


@op("popcnt", flags="w")
def popcnt(s: Any, d: Any, a: Any) -> None:
    x = a.get()
    d.put(ctpop(x))
    s.flags_set((x == 0).zx(64) << 6)


@op("bswap")
def bswap_(s: Any, d: Any) -> None:
    """16 bits are undefined; processors give zero."""
    x = d.get()
    d.put(bswap(x) if s.size > 2 else x & 0)


@op("movbe")
def movbe(s: Any, d: Any, a: Any) -> None:
    d.put(bswap(a.get()))


@op("crc32")
def crc32(s: Any, d: Any, a: Any) -> None:
    """CRC-32C of one source operand; the op's size is that of the source."""
    x = a.get()
    if s.size == 8:
        d.put(intrinsic("llvm.x86.sse42.crc32.64.64", "i64", d.get("i64"), x))
    else:
        bits = s.size * 8
        d.put(intrinsic(f"llvm.x86.sse42.crc32.32.{bits}", "i32", d.get("i32"), x).zx(64))


row("0F BC", "bsf", "Gv,Ev")
row("0F BD", "bsr", "Gv,Ev")
row("F3 0F B8", "popcnt", "Gv,Ev")
row("0F C8 +r", "bswap", "Zv")
for _prefix in ("NP", "66"):
    row(f"{_prefix} 0F 38 F0", "movbe", "Gv,Mv")
    row(f"{_prefix} 0F 38 F1", "movbe", "Mv,Gv")
row("F2 0F 38 F0", "crc32", "G,Eb")
row("F2 0F 38 F1", "crc32", "G,Ev")


# --------------------------------------------------------------------------- flags by name


@op("clc", flags="rw")
def clc(s: Any) -> None:
    if s.want_flags:
        s.set_carry(u64(0))


@op("stc", flags="rw")
def stc(s: Any) -> None:
    if s.want_flags:
        s.set_carry(u64(1))


@op("cmc", flags="rw")
def cmc(s: Any) -> None:
    if s.want_flags:
        s.flags_set(s.flags_get() ^ CF)


@op("cld")
def cld(s: Any) -> None:
    s.cpu.eflags = s.cpu.eflags & ~DF


@op("std")
def std(s: Any) -> None:
    s.cpu.eflags = s.cpu.eflags | DF


@op("lahf", flags="r")
def lahf(s: Any) -> None:
    set_part(s, RAX, ((s.flags_get() & (SF | ZF | AF | PF | CF)) | 2).to(8), 1)


@op("sahf", flags="rw")
def sahf(s: Any) -> None:
    low = part(s, RAX, "i8", 1).zx(64) & (SF | ZF | AF | PF | CF)
    if s.want_flags:
        s.flags_set((s.flags_get() & OF) | low)


@op("salc", flags="r")
def salc(s: Any) -> None:
    set_part(s, RAX, -((s.flags_get() & CF).to(8)))


row("F5", "cmc")
row("F8", "clc")
row("F9", "stc")
row("FC", "cld")
row("FD", "std")
row("9E", "sahf")
row("9F", "lahf")
row("D6", "salc", "", not64=True)


# --------------------------------------------------------------------------- decimal adjustment


@inline
def szp(al: Any) -> Any:
    """SF ZF PF of a byte, as EFLAGS bits."""
    even = (ctpop(al) & 1) == 0
    return (even.zx(64) << 2) | ((al == 0).zx(64) << 6) | (al.slt(0).zx(64) << 7)


@inline
def decimal(s: Any, sign: int) -> None:
    """DAA (`sign` 1) and DAS (-1); OF, undefined, is clear."""
    old = s.flags_get()
    al = part(s, RAX, "i8")
    carry = (old & CF) != 0
    low = ((al & 15) > 9) | ((old & AF) != 0)
    high = (al > 0x99) | carry
    step = select(low, u8(6), u8(0))
    borrow = carry | (al < step) if sign < 0 else carry | (al > u8(0xFF) - step)
    r = al + select(low, u8(6 * sign), u8(0))
    r += select(high, u8(0x60 * sign), u8(0))
    set_part(s, RAX, r)
    c = high | (low & borrow)
    s.flags_set(szp(r) | (low.zx(64) << 4) | c.zx(64))


@op("daa", flags="rw")
def daa(s: Any) -> None:
    decimal(s, 1)


@op("das", flags="rw")
def das(s: Any) -> None:
    decimal(s, -1)


@inline
def ascii_adjust(s: Any, step: int) -> None:
    """AAA (`step` 0x106) and AAS (-0x106); the undefined flags are those of AL, OF clear."""
    old = s.flags_get()
    ax = part(s, RAX, "i16")
    adjust = ((ax & 15) > 9) | ((old & AF) != 0)
    r = (ax + select(adjust, u16(step), u16(0))) & 0xFF0F
    set_part(s, RAX, r)
    s.flags_set(szp(r.tr(8)) | select(adjust, u64(AF | CF), u64(0)))


@op("aaa", flags="rw")
def aaa(s: Any) -> None:
    ascii_adjust(s, 0x106)


@op("aas", flags="rw")
def aas(s: Any) -> None:
    ascii_adjust(s, -0x106)


@op("aam", flags="w", cc=CC_LOGIC, faults=True)
def aam(s: Any, a: Any) -> None:
    base = s.imm.to(8)
    if unlikely(base == 0):
        s.exception(DE)
    al = part(s, RAX, "i8")
    low = al % base
    set_part(s, RAX, low.zx(16) | ((al // base).zx(16) << 8))
    s.flags_lazy(CC_LOGIC, low)


@op("aad", flags="w", cc=CC_LOGIC)
def aad(s: Any, a: Any) -> None:
    al = part(s, RAX, "i8") + part(s, RAX, "i8", 1) * s.imm.to(8)
    set_part(s, RAX, al.zx(16))
    s.flags_lazy(CC_LOGIC, al)


row("27", "daa", "", not64=True)
row("2F", "das", "", not64=True)
row("37", "aaa", "", not64=True)
row("3F", "aas", "", not64=True)
row("D4", "aam", "Ib", not64=True)
row("D5", "aad", "Ib", not64=True)


# --------------------------------------------------------------------------- BOUND


@op("bound", mem=True, faults=True)
def bound(s: Any, a: Any, m: Any) -> None:
    """#BR if a signed index lies outside of the two bounds in memory."""
    index = a.get()
    low = m.get()
    high = s.load((s.addr + s.size) & 0xFFFFFFFF, low.ty)
    if unlikely(index.slt(low) | index.sgt(high)):
        s.exception(BR)


row("62 mem", "bound", "Gv,Mv", not64=True)
