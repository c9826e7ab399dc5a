"""RCPPS and RSQRTPS: approximations that are the same on every host.

The architecture bounds the relative error by 1.5 * 2**-12 and leaves the bits to the
implementation; makers of processors differ.  Ours: the quotient in double precision, its
significand rounded to 12 fraction bits, halves away from zero.  That is within 2**-13.  Denormal
operands count as zero and tiny results become zero (SDM volume 2, RCPPS and RSQRTPS).  MXCSR
neither matters nor changes.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import const, fn, select, u32, unlikely
from workbench.core.sse_helpers import MXCSR_DEFAULT, host_mxcsr, native, set_host_mxcsr

SIGN, INFINITY, QUIET, DEFAULT_NAN = 0x80000000, 0x7F800000, 0x00400000, 0xFFC00000
FRACTION_BITS = 12
DROPPED = 52 - FRACTION_BITS


@fn("i32", "i32", ret="i32")
def approximate(x: Any, root: Any) -> Any:
    """1/x, or with `root` 1/sqrt(x), for the bits of a single-precision number."""
    sign = x & SIGN
    magnitude = x & ~SIGN
    if unlikely(magnitude > INFINITY):
        return x | QUIET
    if unlikely(magnitude < 0x00800000):
        return sign | INFINITY
    if unlikely((root != 0) & (sign != 0)):
        return u32(DEFAULT_NAN)
    if unlikely(magnitude == INFINITY):
        return sign
    saved = host_mxcsr()
    set_host_mxcsr(u32(MXCSR_DEFAULT))
    # The operand as a double: the exponent's bias grows by 896, the fraction by 29 bits.
    y = ((magnitude.zx(64) << 29) + (896 << 52)).bitcast("double")
    if root != 0:
        y = native("sqrtsd $1, $0", "=x,x", "double", (y,), True)
    one = const(1, "double")
    q = native("divsd $2, $0", "=x,0,x", "double", (one, y), True).bitcast("i64")
    set_host_mxcsr(saved)
    rounded = (q + (1 << (DROPPED - 1))) >> DROPPED << DROPPED
    single = ((rounded - (896 << 52)) >> 29).tr(32)
    return sign | select(rounded < (897 << 52), u32(0), single)
