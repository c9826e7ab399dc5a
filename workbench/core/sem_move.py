"""Moves, exchanges, widening and doing nothing (SDM volume 2: MOV, LEA, XCHG, CMPXCHG, NOP...)."""

from __future__ import annotations

from typing import Any

from workbench.core import segments
from workbench.core.lang import inline, select, u32, u64, unlikely
from workbench.core.layout import CC_ADD, CC_SUB, GP, RAX, RBX, RCX, RDX, ZF
from workbench.core.opcodes import row
from workbench.core.sem_int import part, set_part
from workbench.core.stencil import op

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
    new = part(s, RBX, ty).zx(half * 2) | (part(s, RCX, ty).zx(half * 2) << half)
    equal = want == x
    d.put(select(equal, new, x))
    if s.want_flags:
        s.flags_set((s.flags_get() & ~ZF) | (equal.zx(64) << 6))
    if equal ^ 1:
        set_part(s, RAX, x.tr(half))
        set_part(s, RDX, (x >> half).tr(half))


@op("xlat", mem=True)
def xlat(s: Any) -> None:
    from_ = string_linear(s, (s.cpu.gpr[RBX] + part(s, RAX, "i8").zx(64)))
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
