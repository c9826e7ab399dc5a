"""Vector operands, native instructions, MXCSR and SIMD floating-point exceptions.

The guest's vector unit is the vector unit of the host: a stencil loads its operands, executes the
very instruction (inline assembly: LLVM may neither commute its operands nor replace it) and stores
the result. So NaN selection, signed zeros and rounding are those of the hardware.  Only what Intel
leaves to an implementation is computed by us (RCPPS, RSQRTPS: see sse_approx).

While generated code runs, the host's MXCSR holds the guest's rounding mode, DAZ, FTZ and sticky
flags, with every exception masked; `cpu.mxcsr` is then authoritative for the six mask bits alone.
If the guest has unmasked an exception (rare) every floating-point stencil takes its cold path, see
`fp`.

References: SDM volume 1, 10.2.3 (MXCSR), 11.5 (SIMD exceptions); volume 2 for each instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm

from workbench.core import mmu, segments
from workbench.core.lang import (
    Emitter,
    Val,
    const,
    fn,
    inline,
    intrinsic,
    offset,
    select,
    store,
    u32,
    u64,
    undef,
    unlikely,
)
from workbench.core.layout import CPU, CR4_OSXMMEXCPT, GP, RDI, UD, XM
from workbench.core.stencil import op

V = "<2 x i64>"  # the type of an XMM register here
IE, DE, ZE, OE, UE, PE = 1, 2, 4, 8, 0x10, 0x20
MXCSR_FLAGS, MXCSR_MASKS, MXCSR_FTZ = 0x3F, 0x1F80, 0x8000
MXCSR_DEFAULT, MXCSR_MASK = 0x1F80, 0xFFFF
BEFORE = IE | DE | ZE  # found before the computation, SDM volume 1, 11.5.2

# Names of the ops that need the availability checks "sse_check" or "mmx_check" before them.
NEEDS_SSE: set[str] = set()
NEEDS_MMX: set[str] = set()

Semantics = Callable[..., Any]
llvm.initialize_native_asmparser()  # for the inline assembly below, whoever compiles it


def sse_op(name: str, **options: Any) -> Callable[[Semantics], Semantics]:
    """`op` for an instruction that CR0.EM, CR0.TS and CR4.OSFXSR can make unavailable."""
    NEEDS_SSE.add(name)
    return op(name, **options)


def mmx_op(name: str, **options: Any) -> Callable[[Semantics], Semantics]:
    """`op` for an instruction that uses MMX registers."""
    NEEDS_MMX.add(name)
    return op(name, **options)


# -- native instructions


def native(
    text: str, constraints: str, ret: str, args: Sequence[Val], effects: bool = False
) -> Val:
    """Execute one host instruction, in AT&T syntax: operand 0 is the result, the arguments follow.

    `effects` keeps it, and its place among others such, even if nobody looks at the result.
    """
    side = "sideeffect " if effects else ""
    given = ", ".join(f"{a.ty} {a.ref}" for a in args)
    return Emitter.current.val(ret, f'call {ret} asm {side}"{text}", "{constraints}"({given})')


def field_of(v: Val, i: int, ty: str) -> Val:
    """Member `i` of a structure value."""
    return Emitter.current.val(ty, f"extractvalue {v.ty} {v.ref}, {i}")


# -- values


def widen(v: Val) -> Val:
    """An integer in the low lane of an otherwise zero vector register."""
    if v.ty == V:
        return v
    if v.ty == "i64":
        return const(0, V).with_lane(0, v)
    return const(0, "<4 x i32>").with_lane(0, v.zx(32)).bitcast(V)


def low(v: Val, size: int) -> Val:
    """The low `size` bytes of a vector register as an integer."""
    return v.bitcast(f"<{16 // size} x i{size * 8}>").lane(0)


def high64(v: Val) -> Val:
    """The high quadword."""
    return v.lane(1)


def join64(a: Val, b: Val) -> Val:
    """A vector with quadword `a` below and `b` above."""
    return const(0, V).with_lane(0, a).with_lane(1, b)


@inline
def check_aligned(s: Any) -> None:
    """#GP(0) unless the effective address is a multiple of 16 (SDM volume 2, table 2-21)."""
    if unlikely((s.addr & 15) != 0):
        s.exception(GP, 0)


@inline
def source(s: Any, a: Any, size: int = 16, aligned: bool = True) -> Any:
    """An XMM operand, or `size` bytes of memory in the low part of a vector."""
    if not a.is_mem:
        return a.get(V)
    if size == 16:
        if aligned:
            check_aligned(s)
        return a.get(V)
    return widen(a.get(size))


@inline
def masked_store(s: Any, mask: Any, value: Any, size: int) -> None:
    """MASKMOVDQU and MASKMOVQ: to DS:[rDI] the bytes of `value` that the top bits of `mask` choose.

    All of the destination must be writable, whatever the mask: SDM volume 2 allows that.
    """
    width = s.hole("LENGTH")
    at = s.cpu.gpr[RDI]
    narrow = select(width == 4, u64(0xFFFFFFFF), u64(0xFFFF))
    at = select(width == 8, at, at & narrow)
    linear = segments.seg_linear(s.base, s.hole("SEGNO").tr(32), at, u32(size), u32(1))
    if unlikely(linear == segments.BAD):
        s.fault()
    ty = f"<{size} x i8>"
    old = s.load_rmw(linear, ty)
    chosen = mask.bitcast(ty).slt(0)
    s.store(linear, select(chosen, value.bitcast(ty), old))


@inline
def mmx_source(a: Any) -> Any:
    """An MMX register or eight bytes of memory, in the low half of a vector."""
    return widen(a.get("i64"))


@inline
def mmx_put(d: Any, v: Any) -> None:
    """Write an MMX register: bits 64 to 79 of the x87 register become ones (SDM volume 3, 13.2)."""
    store(d.at(), v)
    store(offset(d.at(), 8), const(0xFFFF, "i16"))


# -- MXCSR


def _slot() -> Val:
    e = Emitter.current
    name = e.fresh()
    e.allocas.append(f"  {name} = alloca i32, align 4")
    return Val(name, "ptr")


def host_mxcsr() -> Val:
    """The host's MXCSR (i32)."""
    at = _slot()
    intrinsic("llvm.x86.sse.stmxcsr", "void", at)
    return Emitter.current.val("i32", f"load i32, ptr {at.ref}")


def set_host_mxcsr(value: Val) -> None:
    """Load the host's MXCSR."""
    at = _slot()
    Emitter.current.put(f"store i32 {value.ref}, ptr {at.ref}")
    intrinsic("llvm.x86.sse.ldmxcsr", "void", at)


@inline
def guest_mxcsr(base: Any) -> Any:
    """The guest's MXCSR while generated code runs (i32): for STMXCSR, FXSAVE and XSAVE."""
    return (host_mxcsr() & ~MXCSR_MASKS) | (CPU.view(base).mxcsr & MXCSR_MASKS)


@inline
def set_guest_mxcsr(base: Any, value: Any) -> None:
    """Set the guest's MXCSR while generated code runs; reserved bits were checked by the caller."""
    CPU.view(base).mxcsr = value
    set_host_mxcsr(value | MXCSR_MASKS)


# -- floating point with exceptions


@fn("ptr", ret="i32")
def fp_begin(base: Any) -> Any:
    """Before an instruction that may raise: clear the sticky flags; returns the old MXCSR.

    An unmasked underflow is raised instead of flushing, so FTZ goes away with it.
    """
    old = host_mxcsr()
    new = old & ~MXCSR_FLAGS
    if (CPU.view(base).mxcsr & (UE << 7)) == 0:
        new &= ~MXCSR_FTZ
    set_host_mxcsr(new)
    return old


@inline
def any_tiny(v: Any, element: int, lanes: int) -> Any:
    """Is any of the low `lanes` elements a denormal?  (i1)"""
    bits = element * 8
    fraction = (1 << (23 if element == 4 else 52)) - 1
    vec = v.bitcast(f"<{16 // element} x i{bits}>")
    found = Val("false", "i1")
    for i in range(lanes):
        found = found | (((vec.lane(i) & ((1 << (bits - 1)) - 1)) - 1) < fraction)
    return found


@fn("ptr", "i32", V, "i32", ret="i32")
def fp_end(base: Any, old: Any, result: Any, tiny: Any) -> Any:
    """After it: 1 and the flags merged, or 0 with #XM (#UD without CR4.OSXMMEXCPT) noted.

    `tiny` tells the format of results that can underflow: an unmasked underflow is raised by an
    exact denormal as well (SDM volume 1, 4.9.1.5), which the masked execution does not flag.
    """
    cpu = CPU.view(base)
    raised = host_mxcsr() & MXCSR_FLAGS
    unmasked = ~(cpu.mxcsr >> 7) & MXCSR_FLAGS
    if (unmasked & UE) != 0:
        for number, (element, lanes) in enumerate(TINY):
            if element and tiny == number and any_tiny(result, element, lanes):
                raised |= UE
    bad = raised & unmasked
    if (bad & BEFORE) != 0:
        raised &= BEFORE
    set_host_mxcsr(old | raised)
    if bad == 0:
        return u32(1)
    if (cpu.cr4 & CR4_OSXMMEXCPT) != 0:
        mmu.raise_plain(base, XM)
    else:
        mmu.raise_plain(base, UD)
    return u32(0)


# What a result is, for underflow: (bytes of an element, how many of them are results).
TINY = ((0, 0), (4, 4), (8, 2), (4, 1), (8, 1))
NONE, PS, PD, SS, SD = range(5)


@inline
def fp(s: Any, text: str, constraints: str, ret: str, args: Any, tiny: int = NONE) -> Any:
    """A native floating-point instruction; an unmasked exception leaves, nothing written."""
    r = undef(ret)
    if unlikely((s.cpu.mxcsr & MXCSR_MASKS) != MXCSR_MASKS):
        old = fp_begin(s.base)
        r = native(text, constraints, ret, args, True)
        v = r if ret == V else const(0, V)
        if unlikely(fp_end(s.base, old, v, tiny) == 0):
            s.fault()
    else:
        r = native(text, constraints, ret, args, True)
    return r
