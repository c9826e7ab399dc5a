"""FXSAVE FXRSTOR XSAVE XSAVEOPT XRSTOR XGETBV XSETBV (SDM volume 1, chapters 10.5 and 13).

State components: x87 (0) and SSE (1), standard format only; XSAVEC and XSAVES are not offered.
XINUSE reads as all ones: no component is ever skipped for being in its initial state, so XSAVEOPT
does what XSAVE does (13.6 allows it).  FXSAVE and FXRSTOR leave MXCSR and XMM alone while
CR4.OSFXSR is clear.  Selectors are stored as zero.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, inline, load, offset, store, u32, unlikely
from workbench.core.layout import (
    CPU,
    CR0_EM,
    CR0_TS,
    CR4_OSFXSR,
    CR4_OSXSAVE,
    GP,
    NM,
    RAX,
    RCX,
    RDX,
    UD,
)
from workbench.core.opcodes import row
from workbench.core.segments import in_64bit
from workbench.core.sse_helpers import MXCSR_MASK, guest_mxcsr, set_guest_mxcsr
from workbench.core.stencil import op
from workbench.core.x87_helpers import (
    CW_BITS,
    CW_ONE,
    register_at,
    scratch,
    set_status_word,
    status_word,
)
from workbench.core.x87_helpers_area import (
    AREA_BYTES,
    aligned,
    area_close,
    area_open_read,
    area_open_write,
)
from workbench.core.x87_helpers_env import fpu_reset

XCR0_X87, XCR0_SSE = 1, 2
XCR0_ALL = XCR0_X87 | XCR0_SSE
# Offsets in the legacy region (SDM volume 1, table 10-2) and the header (13.4.2).
FCW, FSW, FTW, FOP, FIP, FDP, MXCSR, MASK, ST0, XMM0 = 0, 2, 4, 6, 8, 16, 24, 28, 32, 160
FXSAVE_BYTES, XSTATE_BV, XCOMP_BV, XRESERVED, XSAVE_BYTES = 512, 512, 520, 528, 576


@inline
def save_x87(cpu: Any, p: Any, wide: Any) -> None:
    """Component 0 at host address `p`; `wide`: 64-bit pointers (REX.W)."""
    store(p + FCW, cpu.fpu_cw.tr(16))
    store(p + FSW, status_word(cpu).tr(16))
    store(p + FTW, (cpu.fpu_tag ^ 0xFF).tr(16))
    store(p + FOP, cpu.fpu_op.tr(16))
    if wide != 0:
        store(p + FIP, cpu.fpu_ip)
        store(p + FDP, cpu.fpu_dp)
    else:
        store(p + FIP, cpu.fpu_ip & 0xFFFFFFFF)
        store(p + FDP, cpu.fpu_dp & 0xFFFFFFFF)
    for i in range(8):
        reg = register_at(cpu, i)
        store(p + (ST0 + 16 * i), load(reg, "i64"))
        store(p + (ST0 + 16 * i + 8), load(offset(reg, 8), "i16").zx(64))


@inline
def load_x87(cpu: Any, p: Any, wide: Any) -> None:
    """Component 0 from host address `p`."""
    cw = (load(p + FCW, "i16").zx(32) & CW_BITS) | CW_ONE
    cpu.fpu_cw = cw
    set_status_word(cpu, load(p + FSW, "i16").zx(32), cw)
    cpu.fpu_tag = load(p + FTW, "i8").zx(32) ^ 0xFF
    cpu.fpu_op = load(p + FOP, "i16").zx(32) & 0x7FF
    if wide != 0:
        cpu.fpu_ip = load(p + FIP, "i64")
        cpu.fpu_dp = load(p + FDP, "i64")
    else:
        cpu.fpu_ip = load(p + FIP, "i32").zx(64)
        cpu.fpu_dp = load(p + FDP, "i32").zx(64)
    for i in range(8):
        reg = register_at(cpu, i)
        store(reg, load(p + (ST0 + 16 * i), "i64"))
        store(offset(reg, 8), load(p + (ST0 + 16 * i + 8), "i16").zx(64))


@inline
def init_x87(cpu: Any) -> None:
    """Component 0 in its initial configuration: as after FNINIT, and the registers zero."""
    fpu_reset(cpu)
    for i in range(8):
        cpu.fpr[i] = 0


@inline
def save_xmm(cpu: Any, p: Any) -> None:
    """XMM0-XMM7, in 64-bit mode XMM0-XMM15."""
    for i in range(8):
        store(p + (XMM0 + 16 * i), cpu.xmm[i])
    if in_64bit(cpu):
        for j in range(8, 16):
            store(p + (XMM0 + 16 * j), cpu.xmm[j])


@inline
def load_xmm(cpu: Any, p: Any) -> None:
    """XMM0-XMM7, in 64-bit mode XMM0-XMM15."""
    for i in range(8):
        cpu.xmm[i] = load(p + (XMM0 + 16 * i), "i128")
    if in_64bit(cpu):
        for j in range(8, 16):
            cpu.xmm[j] = load(p + (XMM0 + 16 * j), "i128")


@inline
def init_xmm(cpu: Any) -> None:
    """XMM0-XMM7, in 64-bit mode XMM0-XMM15, to zero."""
    for i in range(8):
        cpu.xmm[i] = 0
    if in_64bit(cpu):
        for j in range(8, 16):
            cpu.xmm[j] = 0


@inline
def save_mxcsr(base: Any, p: Any) -> None:
    """MXCSR and the mask of its valid bits."""
    store(p + MXCSR, guest_mxcsr(base))
    store(p + MASK, u32(MXCSR_MASK))


@inline
def _usable(base: Any, cpu: Any, addr: Any, to: int) -> Any:
    """1, or 0 with #NM or, for a misaligned area, #GP(0) noted."""
    bits = CR0_TS | CR0_EM if to == 16 else CR0_TS
    if unlikely((cpu.cr0 & bits) != 0):
        mmu.raise_plain(base, NM)
        return u32(0)
    if unlikely(aligned(addr, to) ^ 1):
        mmu.raise_exception(base, GP, 0)
        return u32(0)
    return u32(1)


@inline
def _xsave_enabled(base: Any, cpu: Any) -> Any:
    """1, or 0 with #UD noted while CR4.OSXSAVE is clear."""
    if unlikely((cpu.cr4 & CR4_OSXSAVE) == 0):
        mmu.raise_plain(base, UD)
        return u32(0)
    return u32(1)


@inline
def requested(cpu: Any) -> Any:
    """The requested-feature bitmap: XCR0 and EDX:EAX."""
    return cpu.xcr0 & ((cpu.gpr[RAX] & 0xFFFFFFFF) | (cpu.gpr[RDX] << 32))


@fn("ptr", "i32", "i64", "i32", ret="i32")
def fx_save(base: Any, at: Any, addr: Any, wide: Any) -> Any:
    """FXSAVE; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if _usable(base, cpu, addr, 16) == 0:
        return u32(0)
    copy = scratch(AREA_BYTES)
    p = area_open_write(base, at, addr, FXSAVE_BYTES, copy)
    if p == 0:
        return u32(0)
    save_x87(cpu, p, wide)
    if (cpu.cr4 & CR4_OSFXSR) != 0:
        save_mxcsr(base, p)
        save_xmm(cpu, p)
    area_close(base, at, addr, FXSAVE_BYTES, copy, p)
    return u32(1)


@fn("ptr", "i32", "i64", "i32", ret="i32")
def fx_restore(base: Any, at: Any, addr: Any, wide: Any) -> Any:
    """FXRSTOR; #GP(0) for reserved bits of MXCSR."""
    cpu = CPU.view(base)
    if _usable(base, cpu, addr, 16) == 0:
        return u32(0)
    p = area_open_read(base, at, addr, FXSAVE_BYTES, scratch(AREA_BYTES))
    if p == 0:
        return u32(0)
    if (cpu.cr4 & CR4_OSFXSR) != 0:
        mxcsr = load(p + MXCSR, "i32")
        if unlikely((mxcsr & ~MXCSR_MASK) != 0):
            mmu.raise_exception(base, GP, 0)
            return u32(0)
        set_guest_mxcsr(base, mxcsr)
        load_xmm(cpu, p)
    load_x87(cpu, p, wide)
    return u32(1)


@fn("ptr", "i32", "i64", "i32", ret="i32")
def x_save(base: Any, at: Any, addr: Any, wide: Any) -> Any:
    """XSAVE and XSAVEOPT; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if _xsave_enabled(base, cpu) == 0:
        return u32(0)
    if _usable(base, cpu, addr, 64) == 0:
        return u32(0)
    copy = scratch(AREA_BYTES)
    p = area_open_write(base, at, addr, XSAVE_BYTES, copy)
    if p == 0:
        return u32(0)
    rfbm = requested(cpu)
    if (rfbm & XCR0_X87) != 0:
        save_x87(cpu, p, wide)
    if (rfbm & XCR0_SSE) != 0:
        save_mxcsr(base, p)
        save_xmm(cpu, p)
    store(p + XSTATE_BV, load(p + XSTATE_BV, "i64") | rfbm)
    area_close(base, at, addr, XSAVE_BYTES, copy, p)
    return u32(1)


@fn("ptr", "i32", "i64", "i32", ret="i32")
def x_restore(base: Any, at: Any, addr: Any, wide: Any) -> Any:
    """XRSTOR, standard format; #GP(0) for a wrong header or reserved bits of MXCSR (13.8.1)."""
    cpu = CPU.view(base)
    if _xsave_enabled(base, cpu) == 0:
        return u32(0)
    if _usable(base, cpu, addr, 64) == 0:
        return u32(0)
    p = area_open_read(base, at, addr, XSAVE_BYTES, scratch(AREA_BYTES))
    if p == 0:
        return u32(0)
    rfbm = requested(cpu)
    present = load(p + XSTATE_BV, "i64")
    mxcsr = load(p + MXCSR, "i32")
    wrong = (present & ~cpu.xcr0) | load(p + XCOMP_BV, "i64") | load(p + XRESERVED, "i64")
    if (rfbm & XCR0_SSE) != 0:
        wrong |= (mxcsr & ~MXCSR_MASK).zx(64)
    if unlikely(wrong != 0):
        mmu.raise_exception(base, GP, 0)
        return u32(0)
    if (rfbm & XCR0_X87) != 0:
        if (present & XCR0_X87) != 0:
            load_x87(cpu, p, wide)
        else:
            init_x87(cpu)
    if (rfbm & XCR0_SSE) != 0:
        set_guest_mxcsr(base, mxcsr)
        if (present & XCR0_SSE) != 0:
            load_xmm(cpu, p)
        else:
            init_xmm(cpu)
    return u32(1)


@op("fxsave", slow_only=True, writes_mem=True)
def fxsave(s: Any, d: Any) -> None:
    """FXSAVE, FXSAVE64."""
    if unlikely(fx_save(s.base, s.mmu, s.addr, int(s.size == 8)) == 0):
        s.fault()


@op("fxrstor", slow_only=True)
def fxrstor(s: Any, n: Any, a: Any) -> None:
    """FXRSTOR, FXRSTOR64."""
    if unlikely(fx_restore(s.base, s.mmu, s.addr, int(s.size == 8)) == 0):
        s.fault()


@op("xsave", slow_only=True, writes_mem=True)
def xsave(s: Any, d: Any) -> None:
    """XSAVE, XSAVE64, XSAVEOPT, XSAVEOPT64."""
    if unlikely(x_save(s.base, s.mmu, s.addr, int(s.size == 8)) == 0):
        s.fault()


@op("xrstor", slow_only=True)
def xrstor(s: Any, n: Any, a: Any) -> None:
    """XRSTOR, XRSTOR64."""
    if unlikely(x_restore(s.base, s.mmu, s.addr, int(s.size == 8)) == 0):
        s.fault()


row("NP 0F AE /0 mem", "fxsave", "Mv")
row("NP 0F AE /1 mem", "fxrstor", "0,Mv")
row("NP 0F AE /4 mem", "xsave", "Mv")
row("NP 0F AE /5 mem", "xrstor", "0,Mv")
row("NP 0F AE /6 mem", "xsave", "Mv")


@fn("ptr", ret="i32")
def xcr_read(base: Any) -> Any:
    """XGETBV: XCR0 to EDX:EAX; any other register is #GP(0)."""
    cpu = CPU.view(base)
    if _xsave_enabled(base, cpu) == 0:
        return u32(0)
    if (cpu.gpr[RCX] & 0xFFFFFFFF) != 0:
        mmu.raise_exception(base, GP, 0)
        return u32(0)
    cpu.gpr[RAX] = cpu.xcr0 & 0xFFFFFFFF
    cpu.gpr[RDX] = cpu.xcr0 >> 32
    return u32(1)


@fn("ptr", ret="i32")
def xcr_write(base: Any) -> Any:
    """XSETBV: #GP(0) outside of CPL 0, for a clear bit 0 or bits that are not offered."""
    cpu = CPU.view(base)
    if _xsave_enabled(base, cpu) == 0:
        return u32(0)
    value = (cpu.gpr[RAX] & 0xFFFFFFFF) | (cpu.gpr[RDX] << 32)
    bad = (cpu.cpl != 0) | ((cpu.gpr[RCX] & 0xFFFFFFFF) != 0)
    if bad | ((value & XCR0_X87) == 0) | ((value & ~XCR0_ALL) != 0):
        mmu.raise_exception(base, GP, 0)
        return u32(0)
    cpu.xcr0 = value
    return u32(1)


@op("xgetbv", faults=True)
def xgetbv(s: Any) -> None:
    """XGETBV."""
    if unlikely(xcr_read(s.base) == 0):
        s.fault()


@op("xsetbv", faults=True)
def xsetbv(s: Any) -> None:
    """XSETBV."""
    if unlikely(xcr_write(s.base) == 0):
        s.fault()


row("NP 0F 01 mod3 /2 rm=0", "xgetbv", size=4)
row("NP 0F 01 mod3 /2 rm=1", "xsetbv", size=4)
