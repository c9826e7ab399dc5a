"""Far transfers of control: returns, jumps, calls, SYSCALL and its kin (SDM volume 2; volume 3, 5.8).

Each helper executes the whole instruction: 1 with rip, CS, SS, RSP and flags changed and the mode updated,
or 0 with a fault noted and nothing changed.
"""
from __future__ import annotations

from typing import Any

from workbench.core.flags import eflags_of, set_eflags_arith
from workbench.core.lang import Fn, fn, inline, load, select, u32, u64, unlikely
from workbench.core.layout import (
    AC, ARITH, ATTR_DB, ATTR_L, ATTR_P, ATTR_S, CPU, CS, DF, EFER_SCE, GP, ID, IF, IOPL, NP, NT, RCX,
    RF, RSP, SS, SSV, TF, VIF, VIP, VM,
)
from workbench.core.mmu import raise_plain
from workbench.core.segload import (
    BAD, TYPE_ACCESSED, TYPE_CODE, TYPE_CONFORMING, TYPE_RW, attr_of, base_of, current_mmu,
    drop_inaccessible, fault, is_long, is_virtual, limit_of, mark_accessed, noncanonical,
    read_descriptor, set_null, set_segment, sys_load, update_mode,
)
from workbench.core.segments import in_64bit, seg_linear, stack_mask

R11 = 11


@fn("ptr", "i64", "i32", ret="i64")
def stack_read(base: Any, depth: Any, size: Any) -> Any:
    """Host address of `size` bytes, `depth` above the top of the stack; 0 with a fault noted."""
    cpu = CPU.view(base)
    sp = (cpu.gpr[RSP] + depth) & stack_mask(cpu)
    at = seg_linear(base, SS, sp, size, 0)
    if at == BAD:
        return u64(0)
    return sys_load(base, at, size, current_mmu(cpu))


@inline
def set_flags(cpu: Any, value: Any) -> None:
    """Write all of EFLAGS (i64)."""
    cpu.eflags = (value & ~ARITH) | 2
    set_eflags_arith(cpu, value)


@inline
def set_stack_pointer(cpu: Any, sp: Any) -> None:
    """Write RSP as wide as the stack segment just loaded says (the mode is already updated)."""
    mask = stack_mask(cpu)
    old = cpu.gpr[RSP]
    cpu.gpr[RSP] = select(mask == 0xFFFF, (old & ~mask) | (sp & mask), sp & mask)


@inline
def flags_after_iret(cpu: Any, base: Any, popped: Any, size: int) -> Any:
    """EFLAGS after IRET: what the privilege and operand size let through."""
    mask = u64(ARITH | TF | DF | NT | (RF | AC | ID if size > 2 else 0))
    cpl = cpu.cpl.zx(64)
    mask |= select(cpl <= ((cpu.eflags >> 12) & 3), u64(IF), u64(0))
    if size > 2:
        mask |= select(cpl == 0, u64(IOPL | VIF | VIP), u64(0))
    else:
        mask |= select(cpl == 0, u64(IOPL), u64(0))
    old = cpu.eflags | eflags_of(base)
    return (popped & mask) | (old & ~mask)


@inline
def word(p: Any, index: int, size: int) -> Any:
    """Word `index` of a frame at host address `p`, as i64."""
    return load(p + index * size, f"i{size * 8}").zx(64)


@inline
def return_far(base: Any, size: int, iret: bool, extra: Any) -> Any:
    """RETF or IRET in protected and IA-32e mode; `extra` bytes of parameters are dropped."""
    cpu = CPU.view(base)
    cpl = cpu.cpl
    in64 = in_64bit(cpu)
    count = 3 if iret else 2
    p = stack_read(base, u64(0), u32(count * size))
    if unlikely(p == 0):
        return u32(0)
    ip = word(p, 0, size)
    selector = word(p, 1, size).tr(32) & 0xFFFF
    flags = u64(0)
    if iret:
        flags = word(p, 2, size)
    error = selector & 0xFFFC
    if unlikely(error == 0):
        return fault(base, GP, 0)
    d = read_descriptor(base, selector, GP, 0)
    if unlikely(d == 0):
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    rpl = selector & 3
    dpl = (attr >> 5) & 3
    conforming = (attr & TYPE_CONFORMING) != 0
    to64 = is_long(cpu) & ((attr & ATTR_L) != 0)
    bad = ((attr & (ATTR_S | TYPE_CODE)) != (ATTR_S | TYPE_CODE)) | (rpl < cpl)
    bad |= select(conforming, dpl > rpl, dpl != rpl)
    bad |= to64 & ((attr & ATTR_DB) != 0)
    if unlikely(bad):
        return fault(base, GP, error)
    if unlikely((attr & ATTR_P) == 0):
        return fault(base, NP, error)
    limit = limit_of(low, high)
    if unlikely(select(to64, noncanonical(ip), ip > limit.zx(64))):
        return fault(base, GP, 0)
    if unlikely(mark_accessed(base, selector, high) == 0):
        return u32(0)
    outward = rpl > cpl
    if (in64 & iret) | outward:
        q = stack_read(base, extra + count * size, u32(2 * size))
        if unlikely(q == 0):
            return u32(0)
        sp = word(q, 0, size)
        ss = word(q, 1, size).tr(32) & 0xFFFF
        ss_error = ss & 0xFFFC
        if ss_error == 0:
            if unlikely((to64 ^ 1) | (rpl == 3) | ((ss & 3) != rpl)):
                return fault(base, GP, 0)
            set_null(cpu, SS, ss, rpl)
        else:
            e = read_descriptor(base, ss, GP, 0)
            if unlikely(e == 0):
                return u32(0)
            ss_low = load(e, "i32")
            ss_high = load(e + 4, "i32")
            ss_attr = attr_of(ss_high)
            ss_bad = ((ss & 3) != rpl) | (((ss_attr >> 5) & 3) != rpl)
            ss_bad |= (ss_attr & (ATTR_S | TYPE_CODE | TYPE_RW)) != (ATTR_S | TYPE_RW)
            if unlikely(ss_bad):
                return fault(base, GP, ss_error)
            if unlikely((ss_attr & ATTR_P) == 0):
                return fault(base, SSV, ss_error)
            if unlikely(mark_accessed(base, ss, ss_high) == 0):
                return u32(0)
            set_segment(cpu, SS, ss, base_of(ss_low, ss_high), limit_of(ss_low, ss_high),
                        ss_attr | TYPE_ACCESSED)
        if iret:
            set_flags(cpu, flags_after_iret(cpu, base, flags, size))
        set_segment(cpu, CS, selector, base_of(low, high), limit, attr | TYPE_ACCESSED)
        cpu.rip = ip
        update_mode(base)
        set_stack_pointer(cpu, sp + (0 if iret else extra))
        if outward:
            drop_inaccessible(base)
        return u32(1)
    if iret:
        set_flags(cpu, flags_after_iret(cpu, base, flags, size))
    set_stack_pointer(cpu, cpu.gpr[RSP] + extra + count * size)
    set_segment(cpu, CS, selector, base_of(low, high), limit, attr | TYPE_ACCESSED)
    cpu.rip = ip
    update_mode(base)
    return u32(1)


def _iret(size: int) -> Fn:
    @fn("ptr", ret="i32", name=f"iret_protected{size}")
    def iret_protected(base: Any) -> Any:
        return return_far(base, size, True, u64(0))

    return iret_protected


def _retf(size: int) -> Fn:
    @fn("ptr", "i64", ret="i32", name=f"retf_protected{size}")
    def retf_protected(base: Any, extra: Any) -> Any:
        return return_far(base, size, False, extra)

    return retf_protected


IRET_PROTECTED = {size: _iret(size) for size in (2, 4, 8)}
RETF_PROTECTED = {size: _retf(size) for size in (2, 4, 8)}


@inline
def flat_code(dpl: int, is64: bool) -> int:
    """Access rights of the code segments of SYSCALL and SYSENTER."""
    return 0x809B | (ATTR_L if is64 else ATTR_DB) | dpl << 5


@inline
def set_flat(cpu: Any, seg: int, selector: Any, attr: Any) -> None:
    """Load CS or SS with a fixed flat descriptor."""
    set_segment(cpu, seg, selector, u64(0), u32(0xFFFFFFFF), attr)


@fn("ptr", "i64", ret="i32")
def syscall(base: Any, next_pc: Any) -> Any:
    """SYSCALL, with the legacy-mode form of AMD processors (AMD64 manual volume 3)."""
    cpu = CPU.view(base)
    if unlikely((cpu.efer & EFER_SCE) == 0):
        raise_plain(base, 6)
        return u32(0)
    star = cpu.star
    selector = (star >> 32).tr(32) & 0xFFFC
    flags = cpu.eflags | eflags_of(base)
    if is_long(cpu):
        target = select(in_64bit(cpu), cpu.lstar, cpu.cstar)
        cpu.gpr[RCX] = next_pc
        cpu.gpr[R11] = flags & ~RF
        set_flags(cpu, flags & ~cpu.sfmask & ~RF)
        set_flat(cpu, CS, selector, u32(0x80 | 0x1B | ATTR_L | 0x8000))
        cpu.rip = target
    else:
        cpu.gpr[RCX] = next_pc & 0xFFFFFFFF
        set_flags(cpu, flags & ~(VM | IF | RF))
        set_flat(cpu, CS, selector, u32(0x80 | 0x1B | ATTR_DB | 0x8000))
        cpu.rip = star & 0xFFFFFFFF
    set_flat(cpu, SS, selector + 8, u32(0xC093))
    update_mode(base)
    return u32(1)


@inline
def sysret_to(base: Any, to64: bool) -> Any:
    """SYSRET; a non-canonical RCX faults at the target, with privilege 3 (AMD64 manual volume 3)."""
    cpu = CPU.view(base)
    if unlikely((cpu.efer & EFER_SCE) == 0):
        raise_plain(base, 6)
        return u32(0)
    if unlikely((cpu.cpl != 0) | is_virtual(cpu)):
        return fault(base, GP, 0)
    selector = (cpu.star >> 48).tr(32)
    if to64:
        cpu.rip = cpu.gpr[RCX]
        set_flat(cpu, CS, (selector + 16) | 3, u32(0xFB | ATTR_L | 0x8000))
    else:
        cpu.rip = cpu.gpr[RCX] & 0xFFFFFFFF
        set_flat(cpu, CS, selector | 3, u32(0xFB | ATTR_DB | 0x8000))
    if is_long(cpu):
        set_flags(cpu, cpu.gpr[R11] & 0x3C7FD7)
    else:
        cpu.eflags = cpu.eflags | IF
    set_flat(cpu, SS, (selector + 8) | 3, u32(0xC0F3))
    update_mode(base)
    return u32(1)


@fn("ptr", ret="i32")
def sysret32(base: Any) -> Any:
    """SYSRET to compatibility or legacy mode."""
    return sysret_to(base, False)


@fn("ptr", ret="i32")
def sysret64(base: Any) -> Any:
    """SYSRET to 64-bit mode."""
    return sysret_to(base, True)
