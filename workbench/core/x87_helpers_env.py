"""The x87 environment and state in memory: FNSTENV FLDENV FNSAVE FRSTOR (SDM volume 1, 8.1.10 f.).

Four layouts: 14 or 28 bytes by operand size, pointers as offsets in protected and 64-bit mode or as
linear addresses in real and virtual-8086 mode.  The eight registers of 10 bytes follow in FNSAVE.
Selectors are stored as zero (see x87_helpers).
"""

from __future__ import annotations

from typing import Any

from workbench.core.lang import fn, inline, load, offset, select, store, u32, u64
from workbench.core.layout import CPU, CR0_PE, VM
from workbench.core.x87_helpers import (
    CW_BITS,
    CW_ONE,
    IMAGE_REG,
    INIT_STATE,
    SW_EXCEPTIONS,
    register_at,
    scratch,
    set_status_word,
    status_word,
    tags_narrow,
    with_summary,
    x87_available,
    x87_ready,
)
from workbench.core.x87_helpers_area import AREA_BYTES, area_close, area_open_read, area_open_write

TAG_VALID, TAG_ZERO, TAG_SPECIAL, TAG_EMPTY = range(4)
INTEGER_BIT = 1 << 63


@inline
def fpu_reset(cpu: Any) -> None:
    """What FNINIT does; the registers keep their contents."""
    cpu.fpu_cw = INIT_STATE["fpu_cw"]
    cpu.fpu_sw = INIT_STATE["fpu_sw"]
    cpu.fpu_top = INIT_STATE["fpu_top"]
    cpu.fpu_tag = INIT_STATE["fpu_tag"]
    cpu.fpu_ip = INIT_STATE["fpu_ip"]
    cpu.fpu_dp = INIT_STATE["fpu_dp"]
    cpu.fpu_op = INIT_STATE["fpu_op"]


@inline
def set_control_word(cpu: Any, cw: Any) -> None:
    """Load the control word (i32); an exception may become pending, or stop being so."""
    clean = (cw & CW_BITS) | CW_ONE
    cpu.fpu_cw = clean
    cpu.fpu_sw = with_summary(cpu.fpu_sw, clean)


@fn("ptr", ret="i32")
def tag_word(base: Any) -> Any:
    """The full tag word, from the contents of the registers (SDM volume 1, 8.1.7)."""
    cpu = CPU.view(base)
    tags = u32(0)
    for i in range(8):
        reg = cpu.fpr.at(i)
        mantissa = load(reg, "i64")
        exponent = load(offset(reg, 8), "i16") & 0x7FFF
        special = (exponent == 0x7FFF) | (exponent == 0) | (mantissa < INTEGER_BIT)
        zero = (exponent == 0) & (mantissa == 0)
        tag = select(zero, u32(TAG_ZERO), select(special, u32(TAG_SPECIAL), u32(TAG_VALID)))
        empty = (cpu.fpu_tag & (1 << i)) != 0
        tags |= select(empty, u32(TAG_EMPTY), tag) << (2 * i)
    return tags


@inline
def linear_pointers(cpu: Any) -> Any:
    """Is the layout that of real-address and virtual-8086 mode?  (i1)"""
    return ((cpu.cr0 & CR0_PE) == 0) | ((cpu.eflags & VM) != 0)


@inline
def env_store(base: Any, cpu: Any, p: Any, wide: int) -> None:
    """Write the environment at host address `p`; `wide`: 28 bytes, else 14."""
    step = 4 if wide else 2
    bits = step * 8
    high = 0xFFFF0000 if wide else 0
    words = (cpu.fpu_cw, status_word(cpu), tag_word(base))
    for i in range(3):
        store(p + i * step, (words[i] | high).to(bits))
    ip = cpu.fpu_ip
    dp = cpu.fpu_dp
    fop = cpu.fpu_op.zx(64)
    if linear_pointers(cpu):
        low = 0xFFFF0000 if wide else 0
        top = 0xFFFF000 if wide else 0xF000
        store(p + 3 * step, ((ip & 0xFFFF) | low).to(bits))
        store(p + 4 * step, (((ip >> 4) & top) | fop).to(bits))
        store(p + 5 * step, ((dp & 0xFFFF) | low).to(bits))
        store(p + 6 * step, ((dp >> 4) & top).to(bits))
    else:
        store(p + 3 * step, ip.to(bits))
        store(p + 4 * step, (fop << 16).to(bits))
        store(p + 5 * step, dp.to(bits))
        store(p + 6 * step, u64(high).to(bits))


@inline
def env_load(cpu: Any, p: Any, wide: int) -> None:
    """Take the environment from host address `p`."""
    step = 4 if wide else 2
    ty = f"i{step * 8}"
    cw = (load(p, "i16").zx(32) & CW_BITS) | CW_ONE
    cpu.fpu_cw = cw
    set_status_word(cpu, load(p + step, "i16").zx(32), cw)
    cpu.fpu_tag = tags_narrow(load(p + 2 * step, "i16").zx(32))
    ip = load(p + 3 * step, ty).zx(64)
    dp = load(p + 5 * step, ty).zx(64)
    second = load(p + 4 * step, ty).zx(64)
    fop = second >> 16
    if linear_pointers(cpu):
        top = 0xFFFF0000 if wide else 0xF0000
        fop = second
        ip = (ip & 0xFFFF) | ((second << 4) & top)
        dp = (dp & 0xFFFF) | ((load(p + 6 * step, ty).zx(64) << 4) & top)
    cpu.fpu_ip = ip
    cpu.fpu_dp = dp
    cpu.fpu_op = fop.tr(32) & 0x7FF


def _env_bytes(wide: int) -> int:
    return 28 if wide else 14


@inline
def _write(base: Any, at: Any, addr: Any, wide: int, whole: int) -> Any:
    """FNSTENV or (whole) FNSAVE."""
    if x87_available(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    size = _env_bytes(wide) + (8 * IMAGE_REG if whole else 0)
    copy = scratch(AREA_BYTES)
    p = area_open_write(base, at, addr, size, copy)
    if p == 0:
        return u32(0)
    env_store(base, cpu, p, wide)
    if whole:
        for i in range(8):
            reg = register_at(cpu, i)
            to = p + (_env_bytes(wide) + i * IMAGE_REG)
            store(to, load(reg, "i64"))
            store(to + 8, load(offset(reg, 8), "i16"))
    area_close(base, at, addr, size, copy, p)
    if whole:
        fpu_reset(cpu)
    else:
        set_control_word(cpu, cpu.fpu_cw | SW_EXCEPTIONS)
    return u32(1)


@inline
def _read(base: Any, at: Any, addr: Any, wide: int, whole: int) -> Any:
    """FLDENV or (whole) FRSTOR."""
    if x87_ready(base) == 0:
        return u32(0)
    cpu = CPU.view(base)
    size = _env_bytes(wide) + (8 * IMAGE_REG if whole else 0)
    p = area_open_read(base, at, addr, size, scratch(AREA_BYTES))
    if p == 0:
        return u32(0)
    env_load(cpu, p, wide)
    if whole:
        for i in range(8):
            reg = register_at(cpu, i)
            source = p + (_env_bytes(wide) + i * IMAGE_REG)
            store(reg, load(source, "i64"))
            store(offset(reg, 8), load(source + 8, "i16").zx(64))
    return u32(1)


@fn("ptr", "i32", "i64", ret="i32")
def x87_stenv14(base: Any, at: Any, addr: Any) -> Any:
    """FNSTENV with a 16-bit operand size."""
    return _write(base, at, addr, 0, 0)


@fn("ptr", "i32", "i64", ret="i32")
def x87_stenv28(base: Any, at: Any, addr: Any) -> Any:
    """FNSTENV with a 32-bit operand size, the widest that there is."""
    return _write(base, at, addr, 1, 0)


@fn("ptr", "i32", "i64", ret="i32")
def x87_save94(base: Any, at: Any, addr: Any) -> Any:
    """FNSAVE with a 16-bit operand size."""
    return _write(base, at, addr, 0, 1)


@fn("ptr", "i32", "i64", ret="i32")
def x87_save108(base: Any, at: Any, addr: Any) -> Any:
    """FNSAVE with a 32-bit operand size."""
    return _write(base, at, addr, 1, 1)


@fn("ptr", "i32", "i64", ret="i32")
def x87_ldenv14(base: Any, at: Any, addr: Any) -> Any:
    """FLDENV with a 16-bit operand size."""
    return _read(base, at, addr, 0, 0)


@fn("ptr", "i32", "i64", ret="i32")
def x87_ldenv28(base: Any, at: Any, addr: Any) -> Any:
    """FLDENV with a 32-bit operand size."""
    return _read(base, at, addr, 1, 0)


@fn("ptr", "i32", "i64", ret="i32")
def x87_rstor94(base: Any, at: Any, addr: Any) -> Any:
    """FRSTOR with a 16-bit operand size."""
    return _read(base, at, addr, 0, 1)


@fn("ptr", "i32", "i64", ret="i32")
def x87_rstor108(base: Any, at: Any, addr: Any) -> Any:
    """FRSTOR with a 32-bit operand size."""
    return _read(base, at, addr, 1, 1)
