"""The vector part of x86-64-v2 (MMX, SSE to SSE4.2): the availability checks.

Before the first op of `NEEDS_SSE` (sse_helpers.py) in a block the translator puts "sse_check",
before the first of `NEEDS_MMX` (and the first after an x87 instruction) "mmx_check"; an op may be
in both. The checks have no rows: they are run with the holes of the instruction that they precede.
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import unlikely
from workbench.core.layout import CR0_EM, CR0_TS, CR4_OSFXSR, MF, NM, UD
from workbench.core.stencil import op

FSW_ES = 0x80  # an unmasked x87 exception is pending


@op("sse_check")
def sse_check(s: Any) -> None:
    """#UD by CR0.EM or a clear CR4.OSFXSR, #NM by CR0.TS (SDM volume 3, 2.5)."""
    if unlikely(((s.cpu.cr0 & (CR0_EM | CR0_TS)) | ((s.cpu.cr4 & CR4_OSFXSR) ^ CR4_OSFXSR)) != 0):
        if ((s.cpu.cr0 & CR0_EM) | ((s.cpu.cr4 & CR4_OSFXSR) ^ CR4_OSFXSR)) != 0:
            s.exception(UD)
        s.exception(NM)
    s.next(addr=s.addr, t0=s.t0)


@op("mmx_check")
def mmx_check(s: Any) -> None:
    """#UD by CR0.EM, #NM by CR0.TS, #MF if pending; then TOP = 0 and every tag valid.

    SDM volume 3, 13.2 and table 13-1.
    """
    if unlikely(((s.cpu.cr0 & (CR0_EM | CR0_TS)) | (s.cpu.fpu_sw & FSW_ES).zx(64)) != 0):
        if (s.cpu.cr0 & CR0_EM) != 0:
            s.exception(UD)
        if (s.cpu.cr0 & CR0_TS) != 0:
            s.exception(NM)
        s.exception(MF)
    s.cpu.fpu_top = 0
    s.cpu.fpu_tag = 0
    s.next(addr=s.addr, t0=s.t0)
