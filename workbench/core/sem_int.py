"""Integer arithmetic and logic (SDM volume 2: ADD, AND, CMP, DEC, INC, NEG, NOT, OR, SUB, XOR)."""

from __future__ import annotations

from typing import Any

from workbench.core.lang import inline, load, offset, store
from workbench.core.layout import (
    CC_ADD,
    CC_DEC,
    CC_EXPL,
    CC_INC,
    CC_LOGIC,
    CC_SUB,
    CF,
    CPU,
)
from workbench.core.opcodes import row
from workbench.core.stencil import op


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
    c = s.flags_carry() & CF
    x = d.rmw()
    b = a.get()
    r = x + b + c.to(x.bits)
    d.put(r)
    s.flags_lazy(CC_EXPL, r, carry_flags(r, (x & b) | ((x | b) & ~r), (x ^ r) & (b ^ r)))


@op("sbb", flags="rw", cc=CC_EXPL, lock=True)
def sbb(s: Any, d: Any, a: Any) -> None:
    c = s.flags_carry() & CF
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


@op("inc", flags="rw", cc=CC_INC, lock=True)
def inc(s: Any, d: Any) -> None:
    x = d.rmw()
    r = x + 1
    if s.want_flags:
        c = s.kept_carry()
        d.put(r)
        s.increment_flags(CC_INC, r, c)
    else:
        d.put(r)


@op("dec", flags="rw", cc=CC_DEC, lock=True)
def dec(s: Any, d: Any) -> None:
    x = d.rmw()
    r = x - 1
    if s.want_flags:
        c = s.kept_carry()
        d.put(r)
        s.increment_flags(CC_DEC, r, c)
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
