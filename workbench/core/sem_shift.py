"""Shifts and rotates (SDM volume 2: SAL/SAR/SHL/SHR, RCL/RCR/ROL/ROR, SHLD, SHRD).

The count is masked to 5 bits (6 for 64-bit operands); a masked count of zero leaves the flags.
Where the SDM leaves OF undefined (counts other than one) it is what the last step by one bit gives;
AF is clear after a shift.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import fshl, fshr, inline, u64
from workbench.core.layout import CC_EXPL, CF, RCX
from workbench.core.opcodes import row
from workbench.core.stencil import op

SHL, SHR, SAR = range(3)
ROL, ROR, RCL, RCR = range(4)


@inline
def shift_once(kind: int, x: Any, n: Any) -> Any:
    """`x` shifted by `n`, which is less than the width of `x`."""
    if kind == SHL:
        r = x << n
    elif kind == SHR:
        r = x >> n
    else:
        r = x.sar(n)
    return r


@inline
def shift_flags(s: Any, kind: int, r: Any, wide: Any, n: Any, bits: int) -> None:
    """CC_EXPL after a shift by `n` (not zero) of `wide` that gave `r`; the last bit out is CF."""
    before = shift_once(kind, wide, n - 1)
    top = bits - 1
    if kind == SHL:
        out = (before >> top) & 1
        over = out ^ (r >> top).to(before.bits)
        s.flags_lazy(CC_EXPL, r, out.zx(64) | (over.zx(64) << 11))
    elif kind == SHR:
        over = (before >> top) & 1
        s.flags_lazy(CC_EXPL, r, (before & 1).zx(64) | (over.zx(64) << 11))
    else:
        s.flags_lazy(CC_EXPL, r, (before & 1).zx(64))


@inline
def widened(kind: int, x: Any) -> Any:
    """`x` in at least 32 bits, so that any masked count is less than the width."""
    if x.bits >= 32:
        return x
    if kind == SAR:
        return x.sx(32)
    return x.zx(32)


@inline
def shift_by_one(s: Any, kind: int, d: Any) -> None:
    x = d.rmw()
    wide = widened(kind, x)
    r = shift_once(kind, wide, 1).to(x.bits)
    d.put(r)
    shift_flags(s, kind, r, wide, wide & 0 | 1, x.bits)


@inline
def shift_by_imm(s: Any, kind: int, d: Any) -> None:
    x = d.rmw()
    wide = widened(kind, x)
    n = s.imm.to(wide.bits) & (wide.bits - 1)
    r = shift_once(kind, wide, n).to(x.bits)
    d.put(r)
    if s.want_flags:
        if n == 0:
            s.next()
        shift_flags(s, kind, r, wide, n, x.bits)


@inline
def shift_by_cl(s: Any, kind: int, d: Any) -> None:
    x = d.rmw()
    wide = widened(kind, x)
    n = s.cpu.gpr[RCX].to(wide.bits) & (wide.bits - 1)
    r = shift_once(kind, wide, n).to(x.bits)
    d.put(r)
    if n != 0:
        shift_flags(s, kind, r, wide, n, x.bits)


@op("shl_1", flags="w", cc=CC_EXPL)
def shl_1(s: Any, d: Any) -> None:
    shift_by_one(s, SHL, d)


@op("shr_1", flags="w", cc=CC_EXPL)
def shr_1(s: Any, d: Any) -> None:
    shift_by_one(s, SHR, d)


@op("sar_1", flags="w", cc=CC_EXPL)
def sar_1(s: Any, d: Any) -> None:
    shift_by_one(s, SAR, d)


@op("shl_imm", flags="rw")
def shl_imm(s: Any, d: Any, a: Any) -> None:
    shift_by_imm(s, SHL, d)


@op("shr_imm", flags="rw")
def shr_imm(s: Any, d: Any, a: Any) -> None:
    shift_by_imm(s, SHR, d)


@op("sar_imm", flags="rw")
def sar_imm(s: Any, d: Any, a: Any) -> None:
    shift_by_imm(s, SAR, d)


@op("shl_cl", flags="p")
def shl_cl(s: Any, d: Any) -> None:
    shift_by_cl(s, SHL, d)


@op("shr_cl", flags="p")
def shr_cl(s: Any, d: Any) -> None:
    shift_by_cl(s, SHR, d)


@op("sar_cl", flags="p")
def sar_cl(s: Any, d: Any) -> None:
    shift_by_cl(s, SAR, d)


# --------------------------------------------------------------------------- rotates


@inline
def rotated(s: Any, kind: int, x: Any, count: Any) -> tuple[Any, Any, Any]:
    """Result, CF and OF (in bit 0) of a rotate by `count` (i64, masked, maybe zero)."""
    bits = x.bits
    top = bits - 1
    if kind == ROL:
        r = fshl(x, x, count.to(bits))
        return r, r, (r >> top) ^ r
    if kind == ROR:
        r = fshr(x, x, count.to(bits))
        return r, r >> top, (r >> top) ^ (r >> (top - 1))
    # through the carry: the operand has one more bit
    width = bits + 1
    wide = 64 if bits < 64 else 128
    old = (s.flags_get() & CF).to(wide)
    n = count
    if bits < 32:
        n = count % width
    n = n.to(wide)
    v = x.zx(wide) | (old << bits)
    if kind == RCL:
        turned = (v << n) | (v >> (width - n))
    else:
        turned = (v >> n) | (v << (width - n))
    r = turned.to(bits)
    return r, (turned >> bits).to(bits), (x ^ r) >> top


@inline
def rotate_by(s: Any, kind: int, d: Any, count: Any) -> None:
    """Rotate by a run-time count (i64, masked)."""
    x = d.rmw()
    if s.want_flags:
        r, carry, over = rotated(s, kind, x, count)
        d.put(r)
        if count != 0:
            s.set_carry_overflow(carry, over)
    else:
        r, carry, over = rotated(s, kind, x, count)
        d.put(r)


@inline
def imm_count(s: Any) -> Any:
    return s.imm & (63 if s.size == 8 else 31)


@inline
def cl_count(s: Any) -> Any:
    return s.cpu.gpr[RCX] & (63 if s.size == 8 else 31)


@op("rol_1", flags="rw")
def rol_1(s: Any, d: Any) -> None:
    rotate_by(s, ROL, d, u64(1))


@op("ror_1", flags="rw")
def ror_1(s: Any, d: Any) -> None:
    rotate_by(s, ROR, d, u64(1))


@op("rcl_1", flags="rw")
def rcl_1(s: Any, d: Any) -> None:
    rotate_by(s, RCL, d, u64(1))


@op("rcr_1", flags="rw")
def rcr_1(s: Any, d: Any) -> None:
    rotate_by(s, RCR, d, u64(1))


@op("rol_imm", flags="rw")
def rol_imm(s: Any, d: Any, a: Any) -> None:
    rotate_by(s, ROL, d, imm_count(s))


@op("ror_imm", flags="rw")
def ror_imm(s: Any, d: Any, a: Any) -> None:
    rotate_by(s, ROR, d, imm_count(s))


@op("rcl_imm", flags="rw")
def rcl_imm(s: Any, d: Any, a: Any) -> None:
    rotate_by(s, RCL, d, imm_count(s))


@op("rcr_imm", flags="rw")
def rcr_imm(s: Any, d: Any, a: Any) -> None:
    rotate_by(s, RCR, d, imm_count(s))


@op("rol_cl", flags="rw")
def rol_cl(s: Any, d: Any) -> None:
    rotate_by(s, ROL, d, cl_count(s))


@op("ror_cl", flags="rw")
def ror_cl(s: Any, d: Any) -> None:
    rotate_by(s, ROR, d, cl_count(s))


@op("rcl_cl", flags="rw")
def rcl_cl(s: Any, d: Any) -> None:
    rotate_by(s, RCL, d, cl_count(s))


@op("rcr_cl", flags="rw")
def rcr_cl(s: Any, d: Any) -> None:
    rotate_by(s, RCR, d, cl_count(s))


for _i, _name in enumerate(("rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar")):
    row(f"C0 /{_i}", f"{_name}_imm", "Eb,Ib")
    row(f"C1 /{_i}", f"{_name}_imm", "Ev,Ib")
    row(f"D0 /{_i}", f"{_name}_1", "Eb")
    row(f"D1 /{_i}", f"{_name}_1", "Ev")
    row(f"D2 /{_i}", f"{_name}_cl", "Eb")
    row(f"D3 /{_i}", f"{_name}_cl", "Ev")


# --------------------------------------------------------------------------- double shifts


@inline
def double_shift(s: Any, left: bool, d: Any, a: Any, count: Any) -> None:
    """SHLD and SHRD; 16-bit counts above 16 go on into the destination, as processors do."""
    x = d.rmw()
    y = a.get()
    bits = x.bits
    top = bits - 1
    if bits == 16:
        three = (x.zx(64) << 32) | (y.zx(64) << 16) | x.zx(64)
        less = count - 1
        if left:
            before = ((three << (less & 31)) >> 32).to(16)
            r = ((three << count) >> 32).to(16)
        else:
            before = (three >> (less & 31)).to(16)
            r = (three >> count).to(16)
    else:
        n = count.to(bits)
        if left:
            before = fshl(x, y, n - 1)
            r = fshl(x, y, n)
        else:
            before = fshr(y, x, n - 1)
            r = fshr(y, x, n)
    d.put(r)
    if s.want_flags:
        if count == 0:
            s.next()
        over = ((before ^ r) >> top) & 1
        out = (before >> top) & 1 if left else before & 1
        s.flags_lazy(CC_EXPL, r, out.zx(64) | (over.zx(64) << 11))


@op("shld_imm", flags="rw")
def shld_imm(s: Any, d: Any, a: Any, n: Any) -> None:
    double_shift(s, True, d, a, imm_count(s))


@op("shrd_imm", flags="rw")
def shrd_imm(s: Any, d: Any, a: Any, n: Any) -> None:
    double_shift(s, False, d, a, imm_count(s))


@op("shld_cl", flags="rw")
def shld_cl(s: Any, d: Any, a: Any) -> None:
    double_shift(s, True, d, a, cl_count(s))


@op("shrd_cl", flags="rw")
def shrd_cl(s: Any, d: Any, a: Any) -> None:
    double_shift(s, False, d, a, cl_count(s))


row("0F A4", "shld_imm", "Ev,Gv,Ib")
row("0F A5", "shld_cl", "Ev,Gv")
row("0F AC", "shrd_imm", "Ev,Gv,Ib")
row("0F AD", "shrd_cl", "Ev,Gv")
