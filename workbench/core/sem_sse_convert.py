"""Conversions between integers, single and double precision (SSE, SSE2).

Out of range gives the integer indefinite, and rounding follows MXCSR: the host's instruction does
both. The forms with MMX registers use the XMM instruction on an operand whose upper half is zero,
which raises no exception of its own.
"""

from __future__ import annotations

from typing import Any

from workbench.core.opcodes import row
from workbench.core.sse_helpers import (
    NEEDS_MMX,
    NONE,
    PS,
    SS,
    V,
    check_aligned,
    fp,
    low,
    mmx_put,
    mmx_source,
    source,
    sse_op,
    widen,
)


def packed(name: str, encoding: str, size: int, tiny: int = NONE) -> None:
    """XMM to XMM, the whole destination written."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        d.put(fp(s, f"{name} $1, $0", "=x,x", V, (source(s, a, size),), tiny))

    row(encoding, name, "Vx,Wx" if size == 16 else "Vq,Wq")


packed("cvtdq2ps", "NP 0F 5B", 16)
packed("cvtps2dq", "66 0F 5B", 16)
packed("cvttps2dq", "F3 0F 5B", 16)
packed("cvttpd2dq", "66 0F E6", 16)
packed("cvtpd2dq", "F2 0F E6", 16)
packed("cvtdq2pd", "F3 0F E6", 8)
packed("cvtps2pd", "NP 0F 5A", 8)
packed("cvtpd2ps", "66 0F 5A", 16, PS)


def scalar(name: str, encoding: str, size: int, letter: str, tiny: int = NONE) -> None:
    """Between the two formats; the rest of the destination stays."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        b = source(s, a, size)
        d.put(fp(s, f"{name} $2, $0", "=x,0,x", V, (d.get(V), b), tiny))

    row(encoding, name, f"V{letter},W{letter}")


scalar("cvtss2sd", "F3 0F 5A", 4, "d")
scalar("cvtsd2ss", "F2 0F 5A", 8, "q", SS)


def from_general(name: str, encoding: str) -> None:
    """A signed integer of 32 or 64 bits to a scalar."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        n = a.get()
        suffix = "q" if s.size == 8 else "l"
        d.put(fp(s, f"{name}{suffix} $2, $0", "=x,0,r", V, (d.get(V), n)))

    row(encoding, name, "Vy,Ey")


from_general("cvtsi2ss", "F3 0F 2A")
from_general("cvtsi2sd", "F2 0F 2A")


def to_general(name: str, encoding: str, size: int) -> None:
    """A scalar to a signed integer of 32 or 64 bits."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        v = source(s, a, size)
        d.put(fp(s, f"{name} $1, $0", "=r,x", f"i{s.size * 8}", (v,)))

    row(encoding, name, "Gy,Wd" if size == 4 else "Gy,Wq")


to_general("cvttss2si", "F3 0F 2C", 4)
to_general("cvtss2si", "F3 0F 2D", 4)
to_general("cvttsd2si", "F2 0F 2C", 8)
to_general("cvtsd2si", "F2 0F 2D", 8)

# -- with MMX registers


@sse_op("cvtpi2ps")
def cvtpi2ps(s: Any, d: Any, a: Any) -> None:
    r = fp(s, "cvtdq2ps $1, $0", "=x,x", V, (mmx_source(a),))
    d.put(d.get(V).with_lane(0, low(r, 8)))


@sse_op("cvtpi2pd")
def cvtpi2pd(s: Any, d: Any, a: Any) -> None:
    d.put(fp(s, "cvtdq2pd $1, $0", "=x,x", V, (mmx_source(a),)))


@sse_op("cvtpi2pd_m")
def cvtpi2pd_m(s: Any, d: Any, a: Any) -> None:
    d.put(fp(s, "cvtdq2pd $1, $0", "=x,x", V, (widen(a.get("i64")),)))


row("NP 0F 2A", "cvtpi2ps", "Vq,Qq")
row("66 0F 2A mod3", "cvtpi2pd", "Vq,Nq")
row("66 0F 2A mem", "cvtpi2pd_m", "Vq,Mq")  # no MMX register: the x87 state stays


def to_mmx(name: str, xmm_name: str, encoding: str, size: int) -> None:
    """Two integers of 32 bits into an MMX register."""

    @sse_op(name)
    def sem(s: Any, d: Any, a: Any) -> None:
        if size == 16:
            if a.is_mem:
                check_aligned(s)
            v = a.get(V)
        else:
            v = widen(a.get("i64"))
        mmx_put(d, low(fp(s, f"{xmm_name} $1, $0", "=x,x", V, (v,)), 8))

    NEEDS_MMX.add(name)
    row(encoding, name, "Pq,Wx" if size == 16 else "Pq,Wq")


NEEDS_MMX.update(("cvtpi2ps", "cvtpi2pd"))
to_mmx("cvttps2pi", "cvttps2dq", "NP 0F 2C", 8)
to_mmx("cvtps2pi", "cvtps2dq", "NP 0F 2D", 8)
to_mmx("cvttpd2pi", "cvttpd2dq", "66 0F 2C", 16)
to_mmx("cvtpd2pi", "cvtpd2dq", "66 0F 2D", 16)
