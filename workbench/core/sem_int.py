"""Integer arithmetic, logic and moves (SDM volume 2: AAA to XOR)."""

from __future__ import annotations

from typing import Any

from workbench.core import segments
from workbench.core.lang import (
    ctlz,
    fn,
    inline,
    likely,
    load,
    offset,
    select,
    store,
    u32,
    u64,
    unlikely,
)
from workbench.core.layout import (
    CC_ADD,
    CC_DEC,
    CC_EXPL,
    CC_INC,
    CC_LOGIC,
    CC_SUB,
    CF,
    CPU,
    DE,
    GP,
    OF,
    RAX,
    RDX,
    ZF,
)
from workbench.core.opcodes import row
from workbench.core.stencil import op

EXPL_FIRST = CC_EXPL * 4  # from this cc_op on, and for CC_EFLAGS, bit 0 of cc_src is CF


@inline
def part(s: Any, reg: int, ty: str, byte: int = 0) -> Any:
    """The low part of a register that the opcode implies (`byte` 1 for AH)."""
    return load(offset(s.base, CPU.offset("gpr", reg) + byte), ty)


@inline
def set_part(s: Any, reg: int, value: Any, byte: int = 0) -> None:
    """Write the low part of an implied register; 32 bits clear the upper half."""
    at = offset(s.base, CPU.offset("gpr", reg) + byte)
    store(at, value.zx(64) if value.ty == "i32" else value)


# --------------------------------------------------------------------------- two-operand arithmetic


@inline
def flag_source(s: Any, b: Any) -> Any:
    """cc_src for the second operand `b`: an immediate as it is, nobody looks at its top."""
    return s.imm if s.form[1] == "i" else b


@op("add", flags="w", cc=CC_ADD, lock=True)
def add(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    b = a.get()
    r = x + b
    d.put(r)
    s.flags_lazy(CC_ADD, r, flag_source(s, b))


@op("sub", flags="w", cc=CC_SUB, lock=True)
def sub(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    b = a.get()
    r = x - b
    d.put(r)
    s.flags_lazy(CC_SUB, r, flag_source(s, b))


@op("cmp", flags="w", cc=CC_SUB)
def cmp(s: Any, d: Any, a: Any) -> None:
    x = d.get()
    b = a.get()
    s.flags_lazy(CC_SUB, x - b, flag_source(s, b))


@op("and", flags="w", cc=CC_LOGIC, lock=True)
def and_(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    r = x & a.get()
    d.put(r)
    s.flags_lazy(CC_LOGIC, r)


@op("or", flags="w", cc=CC_LOGIC, lock=True)
def or_(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    r = x | a.get()
    d.put(r)
    s.flags_lazy(CC_LOGIC, r)


@op("xor", flags="w", cc=CC_LOGIC, lock=True)
def xor(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    r = x ^ a.get()
    d.put(r)
    s.flags_lazy(CC_LOGIC, r)


@op("test", flags="w", cc=CC_LOGIC)
def test(s: Any, d: Any, a: Any) -> None:
    x = d.get()
    s.flags_lazy(CC_LOGIC, x & a.get())


@inline
def carry_flags(r: Any, carries: Any, overflow: Any) -> Any:
    """cc_src of CC_EXPL from the carry out of every bit, and a value whose top bit is OF."""
    top = r.bits - 1
    return (
        ((carries >> top) & 1).zx(64)
        | (((carries >> 3) & 1).zx(64) << 4)
        | (((overflow >> top) & 1).zx(64) << 11)
    )


@op("adc", flags="rw", cc=CC_EXPL, lock=True)
def adc(s: Any, d: Any, a: Any) -> None:
    c = s.flags_get() & CF
    x = d.rmw()
    b = a.get()
    r = x + b + c.to(x.bits)
    d.put(r)
    s.flags_lazy(CC_EXPL, r, carry_flags(r, (x & b) | ((x | b) & ~r), (x ^ r) & (b ^ r)))


@op("sbb", flags="rw", cc=CC_EXPL, lock=True)
def sbb(s: Any, d: Any, a: Any) -> None:
    c = s.flags_get() & CF
    x = d.rmw()
    b = a.get()
    r = x - b - c.to(x.bits)
    d.put(r)
    s.flags_lazy(CC_EXPL, r, carry_flags(r, (~x & b) | ((~x | b) & r), (x ^ b) & (x ^ r)))


for _i, _name in enumerate(("add", "or", "adc", "sbb", "and", "sub", "xor", "cmp")):
    row(f"{8 * _i:02X}", _name, "Eb,Gb")
    row(f"{8 * _i + 1:02X}", _name, "Ev,Gv")
    row(f"{8 * _i + 2:02X}", _name, "Gb,Eb")
    row(f"{8 * _i + 3:02X}", _name, "Gv,Ev")
    row(f"{8 * _i + 4:02X}", _name, "Ab,Ib")
    row(f"{8 * _i + 5:02X}", _name, "Av,Iz")
    row(f"80 /{_i}", _name, "Eb,Ib")
    row(f"81 /{_i}", _name, "Ev,Iz")
    row(f"82 /{_i}", _name, "Eb,Ib", not64=True)
    row(f"83 /{_i}", _name, "Ev,Is")
row("84", "test", "Eb,Gb")
row("85", "test", "Ev,Gv")
row("A8", "test", "Ab,Ib")
row("A9", "test", "Av,Iz")
for _i in (0, 1):
    row(f"F6 /{_i}", "test", "Eb,Ib")
    row(f"F7 /{_i}", "test", "Ev,Iz")


# --------------------------------------------------------------------------- one-operand arithmetic


@inline
def keep_carry(s: Any) -> Any:
    """A cc_src whose bit 0 is the present CF, for INC and DEC (its other bits mean nothing)."""
    kind = s.cpu.cc_op
    if (kind >= EXPL_FIRST) | (kind < 4):
        return s.cpu.cc_src
    return s.flags_get() & CF


@op("inc", flags="rw", cc=CC_INC, lock=True)
def inc(s: Any, d: Any) -> None:
    x = d.rmw()
    r = x + 1
    if s.want_flags:
        c = keep_carry(s)
        d.put(r)
        s.flags_lazy(CC_INC, r, c)
    else:
        d.put(r)


@op("dec", flags="rw", cc=CC_DEC, lock=True)
def dec(s: Any, d: Any) -> None:
    x = d.rmw()
    r = x - 1
    if s.want_flags:
        c = keep_carry(s)
        d.put(r)
        s.flags_lazy(CC_DEC, r, c)
    else:
        d.put(r)


@op("neg", flags="w", cc=CC_SUB, lock=True)
def neg(s: Any, d: Any) -> None:
    x = d.rmw()
    r = -x
    d.put(r)
    s.flags_lazy(CC_SUB, r, x)


@op("not", lock=True)
def not_(s: Any, d: Any) -> None:
    d.put(~d.rmw())


row("40 +r", "inc", "Zv", not64=True)
row("48 +r", "dec", "Zv", not64=True)
row("FE /0", "inc", "Eb")
row("FF /0", "inc", "Ev")
row("FE /1", "dec", "Eb")
row("FF /1", "dec", "Ev")
row("F6 /2", "not", "Eb")
row("F7 /2", "not", "Ev")
row("F6 /3", "neg", "Eb")
row("F7 /3", "neg", "Ev")


# --------------------------------------------------------------------------- moves


@op("mov")
def mov(s: Any, d: Any, a: Any) -> None:
    d.put(a.get())


@op("mov_imm")
def mov_imm(s: Any, d: Any, a: Any) -> None:
    """MOV r, imm of full width: 64 bits come in the wide hole TARGET, fewer in IMM."""
    if s.size == 8:
        d.put(s.hole("TARGET"))
    else:
        d.put(a.zero_extended() if s.size == 4 else a.get())


@op("movzx_b")
def movzx_b(s: Any, d: Any, a: Any) -> None:
    d.put(a.get(1).zx(s.size * 8))


@op("movzx_w")
def movzx_w(s: Any, d: Any, a: Any) -> None:
    d.put(a.get(2).zx(s.size * 8))


@op("movsx_b")
def movsx_b(s: Any, d: Any, a: Any) -> None:
    d.put(a.get(1).sx(s.size * 8))


@op("movsx_w")
def movsx_w(s: Any, d: Any, a: Any) -> None:
    d.put(a.get(2).sx(s.size * 8))


@op("movsxd")
def movsxd(s: Any, d: Any, a: Any) -> None:
    if s.size == 2:
        d.put(a.get(2))
    else:
        d.put(a.get(4).sx(s.size * 8))


@op("lea")
def lea(s: Any, d: Any, a: Any) -> None:
    """`addr` holds the effective address without its segment, cut to the address size."""
    d.put(s.addr.to(s.size * 8))


@op("xchg", lock=True)
def xchg(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    b = a.get()
    d.put(b)
    a.put(x)


@op("xadd", flags="w", cc=CC_ADD, lock=True)
def xadd(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    b = a.get()
    r = x + b
    if d.is_mem:
        d.put(r)
        a.put(x)
    else:
        a.put(x)
        d.put(r)
    s.flags_lazy(CC_ADD, r, b)


@op("cmpxchg", flags="w", cc=CC_SUB, lock=True)
def cmpxchg(s: Any, d: Any, a: Any) -> None:
    x = d.rmw()
    acc = part(s, RAX, x.ty)
    equal = acc == x
    b = a.get()
    if d.is_mem:
        d.put(select(equal, b, x))  # memory is written in any case
        if equal ^ 1:
            set_part(s, RAX, x)
    elif equal:  # of the registers just one, also of its upper half
        d.put(b)
    else:
        set_part(s, RAX, x)
    s.flags_lazy(CC_SUB, acc - x, x)


@op("cmpxchg8b", flags="rw", lock=True, faults=True)
def cmpxchg8b(s: Any, d: Any) -> None:
    """CMPXCHG8B (size 4) and CMPXCHG16B (size 8: #GP when not aligned)."""
    half = s.size * 8
    if s.size == 8 and unlikely((s.addr & 15) != 0):
        s.exception(GP, 0)
    x = d.rmw(f"i{half * 2}")
    ty = f"i{half}"
    want = part(s, RAX, ty).zx(half * 2) | (part(s, RDX, ty).zx(half * 2) << half)
    new = part(s, 3, ty).zx(half * 2) | (part(s, 1, ty).zx(half * 2) << half)
    equal = want == x
    d.put(select(equal, new, x))
    if s.want_flags:
        s.flags_set((s.flags_get() & ~ZF) | (equal.zx(64) << 6))
    if equal ^ 1:
        set_part(s, RAX, x.tr(half))
        set_part(s, RDX, (x >> half).tr(half))


@op("xlat", mem=True)
def xlat(s: Any) -> None:
    from_ = string_linear(s, (s.cpu.gpr[3] + part(s, RAX, "i8").zx(64)))
    set_part(s, RAX, s.load(from_, "i8"))


@inline
def string_linear(s: Any, at: Any) -> Any:
    """Linear address of a byte at `at`, cut to the address size, in the data segment."""
    bytes_ = s.hole("LENGTH")
    cut = at & select(bytes_ == 8, u64(-1), select(bytes_ == 4, u64(0xFFFFFFFF), u64(0xFFFF)))
    linear = segments.seg_linear(s.base, s.hole("SEGNO").tr(32), cut, u32(1), u32(0))
    if unlikely(linear == segments.BAD):
        s.fault()
    return linear


row("88", "mov", "Eb,Gb")
row("89", "mov", "Ev,Gv")
row("8A", "mov", "Gb,Eb")
row("8B", "mov", "Gv,Ev")
row("A0", "mov", "Ab,Ob")
row("A1", "mov", "Av,Ov")
row("A2", "mov", "Ob,Ab")
row("A3", "mov", "Ov,Av")
row("B0 +r", "mov", "Zb,Ib")
row("B8 +r", "mov_imm", "Zv,Iv")
row("C6 /0", "mov", "Eb,Ib")
row("C7 /0", "mov", "Ev,Iz")
row("0F B6", "movzx_b", "Gv,Eb")
row("0F B7", "movzx_w", "Gv,Ew")
row("0F BE", "movsx_b", "Gv,Eb")
row("0F BF", "movsx_w", "Gv,Ew")
row("63", "movsxd", "Gv,Ed", only64=True)
row("8D", "lea", "Gv,M")
row("86", "xchg", "Eb,Gb")
row("87", "xchg", "Ev,Gv")
row("90 +r", "xchg", "Zv,Av")
row("0F C0", "xadd", "Eb,Gb")
row("0F C1", "xadd", "Ev,Gv")
row("0F B0", "cmpxchg", "Eb,Gb")
row("0F B1", "cmpxchg", "Ev,Gv")
row("0F C7 /1", "cmpxchg8b", "My")
row("D7", "xlat", "", size=1)


# --------------------------------------------------------------------------- widths


@op("cbw")
def cbw(s: Any) -> None:
    """CBW, CWDE, CDQE."""
    set_part(s, RAX, part(s, RAX, f"i{s.size * 4}").sx(s.size * 8))


@op("cwd")
def cwd(s: Any) -> None:
    """CWD, CDQ, CQO."""
    set_part(s, RDX, part(s, RAX, f"i{s.size * 8}").sar(s.size * 8 - 1))


row("98", "cbw")
row("99", "cwd")


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


# --------------------------------------------------------------------------- nothing


@op("nop")
def nop(s: Any, *ignored: Any) -> None:
    """NOP, PAUSE, hints, fences: one processor sees its own accesses in order anyway."""


for _code in (0x18, 0x19, 0x1A, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F):
    row(f"0F {_code:02X}", "nop", "Ev", size=4)  # ENDBR32 and ENDBR64 are forms of 0F 1E
row("0F 0D", "nop", "Ev", size=4)
for _i in (5, 6, 7):
    row(f"NP 0F AE /{_i} mod3", "nop")


@op("clflush", mem=True)
def clflush(s: Any, a: Any) -> None:
    """CLFLUSH faults as a load of a byte does."""
    a.get()


row("NP 0F AE /7 mem", "clflush", "Mb")
