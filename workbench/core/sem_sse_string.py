"""String comparison of SSE4.2 (PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM) and MASKMOVDQU.

The memory operand of PCMPxSTRx need not be aligned (SDM volume 2, 4.1.8).
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import inline, store
from workbench.core.layout import RAX, RCX, RDX
from workbench.core.opcodes import row
from workbench.core.sse_helpers import V, field_of, masked_store, native, source, sse_op

# SETO and LAHF after the instruction: OF in bit 0, SF ZF AF PF CF from bit 8.
FLAGS = "\\0Aseto %al\\0Alahf"
RESULT = {True: ("ecx", "i32"), False: ("xmm0", V)}


def flag_bits(ax: Any) -> Any:
    """EFLAGS bits from what `FLAGS` leaves in EAX; AF and PF are cleared by the instruction."""
    a = ax.zx(64) if ax.bits < 64 else ax
    return ((a & 1) << 11) | ((a >> 8) & 0xC1)


@inline
def put_result(s: Any, v: Any, index: bool) -> None:
    """An index goes to ECX, a mask to XMM0."""
    if index:
        s.cpu.gpr[RCX] = v.zx(64)
    else:
        store(s.cpu.xmm.at(0), v)


def implicit_length(name: str, encoding: str, index: bool) -> None:
    """Strings end at a zero element."""

    @sse_op(name, flags="w")
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        b = source(s, a, 16, False)
        out, kind = RESULT[index]
        r = native(
            f"{name} $$H_IMM, $3, $2{FLAGS}",
            f"={{{out}}},={{eax}},x,x,~{{flags}}",
            f"{{ {kind}, i32 }}",
            (d.get(V), b),
        )
        put_result(s, field_of(r, 0, kind), index)
        s.flags_set(flag_bits(field_of(r, 1, "i32")))

    row(encoding, name, "Vx,Wx,Ib")


def explicit_length(name: str, code: int, index: bool) -> None:
    """Lengths in EAX and EDX, in RAX and RDX with REX.W."""

    @sse_op(name, flags="w")
    def sem(s: Any, d: Any, a: Any, i: Any) -> None:
        b = source(s, a, 16, False)
        ty = f"i{8 * s.size}"
        ax, dx = ("rax", "rdx") if s.size == 8 else ("eax", "edx")
        first = s.cpu.gpr[RAX].to(8 * s.size)
        second = s.cpu.gpr[RDX].to(8 * s.size)
        # With REX.W, which assemblers do not write: spelled out, for XMM0 and XMM1.
        text = f"{name} $$H_IMM, %xmm1, %xmm0"
        if s.size == 8:
            text = f".byte 0x66, 0x48, 0x0F, 0x3A, {code}, 0xC1, H_IMM"
        out, kind = RESULT[index]
        r = native(
            text + FLAGS,
            f"={{{out}}},={{{ax}}},{{xmm0}},{{xmm1}},1,{{{dx}}},~{{flags}}",
            f"{{ {kind}, {ty} }}",
            (d.get(V), b, first, second),
        )
        put_result(s, field_of(r, 0, kind), index)
        s.flags_set(flag_bits(field_of(r, 1, ty)))

    row(f"66 0F 3A {code:02X}", name, "Vy,Wx,Ib")


explicit_length("pcmpestrm", 0x60, False)
explicit_length("pcmpestri", 0x61, True)
implicit_length("pcmpistrm", "66 0F 3A 62", False)
implicit_length("pcmpistri", "66 0F 3A 63", True)


@sse_op("maskmovdqu", mem=True)
def maskmovdqu(s: Any, a: Any, m: Any) -> None:
    masked_store(s, m.get(V), a.get(V), 16)


row("66 0F F7 mod3", "maskmovdqu", "Vx,Ux")
