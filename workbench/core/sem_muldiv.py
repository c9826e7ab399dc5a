"""Multiplication and division (SDM volume 2: MUL, IMUL, DIV, IDIV)."""

from __future__ import annotations

from typing import Any

from workbench.core.lang import ctlz, fn, inline, likely, select, u64, unlikely
from workbench.core.layout import CC_EXPL, CF, DE, OF, RAX, RDX
from workbench.core.opcodes import row
from workbench.core.sem_int import part, set_part
from workbench.core.stencil import op

# --------------------------------------------------------------------------- multiplication


@inline
def product_flags(s: Any, low: Any, over: Any) -> None:
    """CF = OF = `over` (i1); SF ZF PF of the low half, AF clear (undefined in the SDM)."""
    s.flags_lazy(CC_EXPL, low, select(over, u64(CF | OF), u64(0)))


@inline
def put_product(s: Any, bits: int, wide: Any) -> None:
    """Write a double-width product to AX or rDX:rAX."""
    if bits == 8:
        set_part(s, RAX, wide)
    else:
        set_part(s, RDX, (wide >> bits).tr(bits))
        set_part(s, RAX, wide.tr(bits))


@op("mul", flags="w", cc=CC_EXPL)
def mul(s: Any, a: Any) -> None:
    bits = s.size * 8
    y = a.get()
    wide = part(s, RAX, y.ty).zx(bits * 2) * y.zx(bits * 2)
    put_product(s, bits, wide)
    product_flags(s, wide.tr(bits), (wide >> bits) != 0)


@op("imul1", flags="w", cc=CC_EXPL)
def imul1(s: Any, a: Any) -> None:
    bits = s.size * 8
    y = a.get()
    wide = part(s, RAX, y.ty).sx(bits * 2) * y.sx(bits * 2)
    put_product(s, bits, wide)
    product_flags(s, wide.tr(bits), wide.tr(bits).sx(bits * 2) != wide)


@inline
def signed_product(s: Any, d: Any, x: Any, y: Any) -> None:
    """IMUL with two and three operands."""
    bits = s.size * 8
    r = x * y
    if s.want_flags:
        wide = x.sx(bits * 2) * y.sx(bits * 2)
        d.put(r)
        product_flags(s, r, r.sx(bits * 2) != wide)
    else:
        d.put(r)


@op("imul2", flags="w", cc=CC_EXPL)
def imul2(s: Any, d: Any, a: Any) -> None:
    y = a.get()
    signed_product(s, d, d.get(), y)


@op("imul3", flags="w", cc=CC_EXPL)
def imul3(s: Any, d: Any, a: Any, b: Any) -> None:
    signed_product(s, d, a.get(), b.get())


row("F6 /4", "mul", "Eb")
row("F7 /4", "mul", "Ev")
row("F6 /5", "imul1", "Eb")
row("F7 /5", "imul1", "Ev")
row("0F AF", "imul2", "Gv,Ev")
row("69", "imul3", "Gv,Ev,Iz")
row("6B", "imul3", "Gv,Ev,Is")


# --------------------------------------------------------------------------- division


@fn("i64", "i64", "i64", ret="i64")
def udiv128(high: Any, low: Any, divisor: Any) -> Any:
    """Quotient of (high:low) / divisor where high < divisor: schoolbook division in base 2**32."""
    shift = ctlz(divisor)
    d = divisor << shift
    d1 = d >> 32
    d0 = d & 0xFFFFFFFF
    top = u64(high)
    if shift != 0:
        top = (high << shift) | (low >> (64 - shift))
    bottom = low << shift
    q = u64(0)
    for digit in (bottom >> 32, bottom & 0xFFFFFFFF):
        guess = top // d1
        rest = top - guess * d1
        while (guess >> 32) != 0 or guess * d0 > ((rest << 32) | digit):
            guess -= 1
            rest += d1
            if (rest >> 32) != 0:
                break
        top = ((top << 32) | digit) - guess * d
        q = (q << 32) | guess
    return q


@inline
def put_division(s: Any, bits: int, q: Any, r: Any) -> None:
    """Write quotient and remainder to AL and AH or rAX and rDX."""
    if bits == 8:
        set_part(s, RAX, q)
        set_part(s, RAX, r, 1)
    else:
        set_part(s, RAX, q)
        set_part(s, RDX, r)


@inline
def dividend(s: Any, bits: int) -> Any:
    """AX or rDX:rAX as one value of twice the width (at most 64 bits)."""
    if bits == 8:
        return part(s, RAX, "i16")
    ty = f"i{bits}"
    return part(s, RAX, ty).zx(bits * 2) | (part(s, RDX, ty).zx(bits * 2) << bits)


@op("div", faults=True)
def div(s: Any, a: Any) -> None:
    """DIV; flags are undefined and stay."""
    bits = s.size * 8
    y = a.get()
    if bits == 64:
        low = part(s, RAX, "i64")
        high = part(s, RDX, "i64")
        if unlikely(high >= y):
            s.exception(DE)
        q = u64(0)
        if high == 0:
            q = low // y
        else:
            q = udiv128(high, low, y)
        put_division(s, bits, q, low - q * y)
    else:
        n = dividend(s, bits)
        if unlikely((n >> bits).tr(bits) >= y):
            s.exception(DE)
        wide = y.zx(bits * 2)
        put_division(s, bits, (n // wide).tr(bits), (n % wide).tr(bits))


@op("idiv", faults=True)
def idiv(s: Any, a: Any) -> None:
    """IDIV; flags are undefined and stay."""
    bits = s.size * 8
    y = a.get()
    if unlikely(y == 0):
        s.exception(DE)
    least = 1 << (bits - 1)
    if bits == 64:
        low = part(s, RAX, "i64")
        high = part(s, RDX, "i64")
        if likely(high == low.sar(63)):
            if unlikely((low == least) & (y == -1)):
                s.exception(DE)
            put_division(s, bits, low.sdiv(y), low.srem(y))
        else:
            minus = high.slt(0)
            n_low = select(minus, -low, low)
            n_high = select(minus, ~high + (low == 0).zx(64), high)
            d = select(y.slt(0), -y, y)
            if unlikely(n_high >= d):
                s.exception(DE)
            q = udiv128(n_high, n_low, d)
            r = n_low - q * d
            negative = minus ^ y.slt(0)
            if unlikely(q > select(negative, u64(least), u64(least - 1))):
                s.exception(DE)
            put_division(s, bits, select(negative, -q, q), select(minus, -r, r))
    else:
        n = dividend(s, bits)
        wide = y.sx(bits * 2)
        if unlikely((n == 1 << (bits * 2 - 1)) & (y == -1)):
            s.exception(DE)
        quotient = n.sdiv(wide)
        if unlikely(quotient.tr(bits).sx(bits * 2) != quotient):
            s.exception(DE)
        put_division(s, bits, quotient.tr(bits), n.srem(wide).tr(bits))


row("F6 /6", "div", "Eb")
row("F7 /6", "div", "Ev")
row("F6 /7", "idiv", "Eb")
row("F7 /7", "idiv", "Ev")
