"""Segmentation of data accesses in legacy modes: type and limit checks, base (SDM volume 3, 5.3 and
5.4).
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, inline, select, u32, u64, unlikely
from workbench.core.layout import (
    ATTR_DB,
    ATTR_UNUSABLE,
    CPU,
    FS,
    GP,
    MODE_PROT,
    SS,
    SSV,
)

BAD = 1 << 63
"""No canonical address: nothing that could be meant."""


@inline
def in_64bit(cpu: Any) -> Any:
    """Is the processor executing 64-bit code?  (i1)"""
    return (cpu.mode & 3) == 2


@fn("ptr", "i32", "i64", "i32", "i32", ret="i64")
def seg_linear(base: Any, seg: Any, at: Any, size: Any, write: Any) -> Any:
    """Linear address of `size` bytes at offset `at` of a segment, or BAD with #GP(0) or #SS(0)
    noted.

    In 64-bit mode only the bases of FS and GS count, and only canonicality is checked, later, by
    paging.
    """
    cpu = CPU.view(base)
    if in_64bit(cpu):
        at = select(seg >= FS, at + cpu.seg_base[seg], at)
        if unlikely(at == BAD):
            mmu.raise_exception(base, select(seg == SS, u32(SSV), u32(GP)), 0)
        return at
    attr = cpu.seg_attr[seg]
    off = at & 0xFFFFFFFF
    last = off + size.zx(64) - 1
    limit = cpu.seg_limit[seg].zx(64)
    bad = (attr & ATTR_UNUSABLE) != 0
    code = (attr & 8) != 0
    if code:
        # without protection CS can be written, whatever type protected mode left in it
        if (cpu.mode & MODE_PROT) != 0:
            bad |= (write != 0) | ((attr & 2) == 0)
        bad |= last > limit
    else:
        bad |= (write != 0) & ((attr & 2) == 0)
        if (attr & 4) != 0:
            top = select((attr & ATTR_DB) != 0, u64(0xFFFFFFFF), u64(0xFFFF))
            bad |= (off <= limit) | (last > top)
        else:
            bad |= last > limit
    if unlikely(bad):
        mmu.raise_exception(base, select(seg == SS, u32(SSV), u32(GP)), 0)
        return u64(BAD)
    return (off + cpu.seg_base[seg]) & 0xFFFFFFFF


@inline
def stack_mask(cpu: Any) -> Any:
    """Which bits of RSP the stack uses: 64-bit mode all, else 32 or 16 by SS.B (SDM volume
    3, 5.4).
    """
    wide = select((cpu.seg_attr[SS] & ATTR_DB) != 0, u64(0xFFFFFFFF), u64(0xFFFF))
    return select(in_64bit(cpu), u64(-1), wide)
