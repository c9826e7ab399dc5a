"""Far transfers of control: returns, jumps, calls, SYSCALL and kin (SDM volume 2; volume 3, 5.8).

Each helper executes the whole instruction: 1 with rip, CS, SS, RSP and flags changed and the mode
updated, or 0 with a fault noted and nothing changed.
"""

from __future__ import annotations

from typing import Any

from workbench.core import tasks
from workbench.core.deliver import inner_stack, push_frame, restore_stack, save_stack
from workbench.core.flags import eflags_of, set_eflags_arith
from workbench.core.lang import Fn, fn, inline, load, select, store, u32, u64, unlikely
from workbench.core.layout import (
    AC,
    ARITH,
    ATTR_DB,
    ATTR_L,
    ATTR_P,
    ATTR_S,
    CPU,
    CS,
    DF,
    DS,
    EFER_SCE,
    ES,
    FS,
    GP,
    GS,
    ID,
    IF,
    IOPL,
    LDTR,
    NP,
    NT,
    RCX,
    RDX,
    RF,
    RSP,
    SS,
    SSV,
    TF,
    TR,
    TRAP_LOST,
    TRAP_MADE,
    TS,
    VIF,
    VIP,
    VM,
)
from workbench.core.mmu import raise_plain
from workbench.core.segload import (
    TYPE_ACCESSED,
    TYPE_CODE,
    TYPE_CONFORMING,
    TYPE_RW,
    attr_of,
    base_of,
    buffer,
    current_mmu,
    descriptor_address,
    drop_inaccessible,
    fault,
    is_long,
    is_virtual,
    kernel_mmu,
    limit_of,
    mark_accessed,
    noncanonical,
    read_descriptor,
    set_null,
    set_segment,
    sys_load,
    update_mode,
)
from workbench.core.segments import BAD, in_64bit, seg_linear, stack_mask

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
    """EFLAGS after IRET: what the privilege and operand size let through.

    RF is dropped at once, not an instruction later, unless there are code breakpoints.
    """
    mask = u64(ARITH | TF | DF | NT | (AC | ID if size > 2 else 0))
    cpl = cpu.cpl.zx(64)
    mask |= select(cpl <= ((cpu.eflags >> 12) & 3), u64(IF), u64(0))
    if size > 2:
        mask |= select(cpl == 0, u64(IOPL | VIF | VIP), u64(0))
    else:
        mask |= select(cpl == 0, u64(IOPL), u64(0))
    old = cpu.eflags | eflags_of(base)
    resume = select(cpu.dr_code != 0, popped & RF, u64(0))
    return (popped & mask) | (old & ~mask & ~RF) | resume


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
        if size == 4:
            if unlikely(((flags & VM) != 0) & (cpl == 0) & (is_long(cpu) ^ 1)):
                return return_virtual(base)
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
    outward = rpl > cpl
    if (in64 & iret) | outward:
        q = stack_read(base, extra + count * size, u32(2 * size))
        if unlikely(q == 0):
            return u32(0)
        sp = word(q, 0, size)
        ss = word(q, 1, size).tr(32) & 0xFFFF
        ss_error = ss & 0xFFFC
        if ss_error == 0:
            if unlikely((to64 ^ 1) | (rpl == 3)):
                return fault(base, GP, 0)
            if unlikely(mark_accessed(base, selector, high) == 0):
                return u32(0)
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
            if unlikely(
                (mark_accessed(base, selector, high) & mark_accessed(base, ss, ss_high)) == 0
            ):
                return u32(0)
            set_segment(
                cpu,
                SS,
                ss,
                base_of(ss_low, ss_high),
                limit_of(ss_low, ss_high),
                ss_attr | TYPE_ACCESSED,
            )
        if iret:
            set_flags(cpu, flags_after_iret(cpu, base, flags, size))
        set_segment(cpu, CS, selector, base_of(low, high), limit, attr | TYPE_ACCESSED)
        cpu.rip = ip
        update_mode(base)
        set_stack_pointer(cpu, sp + (0 if iret else extra))
        if outward:
            drop_inaccessible(base)
        return u32(1)
    if unlikely(mark_accessed(base, selector, high) == 0):
        return u32(0)
    if iret:
        set_flags(cpu, flags_after_iret(cpu, base, flags, size))
    set_stack_pointer(cpu, cpu.gpr[RSP] + extra + count * size)
    set_segment(cpu, CS, selector, base_of(low, high), limit, attr | TYPE_ACCESSED)
    cpu.rip = ip
    update_mode(base)
    return u32(1)


@inline
def return_real(base: Any, size: int, iret: bool, extra: Any) -> Any:
    """RETF or IRET in real-address and virtual-8086 mode."""
    cpu = CPU.view(base)
    count = 3 if iret else 2
    if iret:
        if ((cpu.eflags & VM) != 0) & ((cpu.eflags & IOPL) != IOPL):
            return fault(base, GP, 0)
    p = stack_read(base, u64(0), u32(count * size))
    if p == 0:
        return u32(0)
    ip = word(p, 0, size)
    selector = word(p, 1, size).tr(32) & 0xFFFF
    flags = u64(0)
    if iret:
        flags = word(p, 2, size)
    if ip > cpu.seg_limit[CS].zx(64):
        return fault(base, GP, 0)
    if iret:
        old = cpu.eflags & (VM | VIF | VIP)
        set_flags(cpu, (flags_after_iret(cpu, base, flags, size) & ~(VM | VIF | VIP)) | old)
    set_stack_pointer(cpu, cpu.gpr[RSP] + extra + count * size)
    cpu.seg_sel[CS] = selector.tr(16)
    cpu.seg_base[CS] = (selector << 4).zx(64)
    cpu.rip = ip
    update_mode(base)
    return u32(1)


@fn("ptr", ret="i32")
def return_virtual(base: Any) -> Any:
    """IRETD from privilege 0 to virtual-8086 mode (SDM volume 3, 20.2.2)."""
    cpu = CPU.view(base)
    p = stack_read(base, u64(0), u32(36))
    if p == 0:
        return u32(0)
    ip = word(p, 0, 4)
    set_flags(cpu, word(p, 2, 4) & 0x3E7FD7)
    sp = word(p, 3, 4)
    for index, seg in ((1, CS), (4, SS), (5, ES), (6, DS), (7, FS), (8, GS)):
        selector = word(p, index, 4).tr(32) & 0xFFFF
        set_segment(cpu, seg, selector, (selector << 4).zx(64), u32(0xFFFF), u32(0xF3))
    cpu.gpr[RSP] = sp
    cpu.rip = ip & 0xFFFF
    update_mode(base)
    return u32(1)


@fn("ptr", "i64", ret="i32")
def return_from_task(base: Any, next_pc: Any) -> Any:
    """IRET with EFLAGS.NT: back to the task that the TSS names."""
    cpu = CPU.view(base)
    if is_long(cpu):
        return fault(base, GP, 0)
    p = sys_load(base, cpu.seg_base[TR] & 0xFFFFFFFF, 2, kernel_mmu(cpu))
    if p == 0:
        return u32(0)
    return tasks.task_switch(base, load(p, "i16").zx(32), tasks.BY_IRET, next_pc, 0, 0, 0)


def _iret(size: int) -> Fn:
    @fn("ptr", "i64", ret="i32", name=f"iret{size * 8}")
    def iret(base: Any, next_pc: Any) -> Any:
        cpu = CPU.view(base)
        cpu.nmi_blocked = 0
        if unlikely(is_virtual(cpu)):
            return return_real(base, min(size, 4), True, u64(0))
        if unlikely((cpu.eflags & NT) != 0):
            return return_from_task(base, next_pc)
        return return_far(base, size, True, u64(0))

    return iret


def _retf(size: int) -> Fn:
    @fn("ptr", "i64", ret="i32", name=f"retf{size * 8}")
    def retf(base: Any, extra: Any) -> Any:
        if unlikely(is_virtual(CPU.view(base))):
            return return_real(base, min(size, 4), False, extra)
        return return_far(base, size, False, extra)

    return retf


IRET = {size: _iret(size) for size in (2, 4, 8)}
RETF = {size: _retf(size) for size in (2, 4, 8)}


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
        if unlikely((flags & cpu.sfmask & TF) != 0):
            cpu.trap_dropped = TRAP_LOST  # TF counts as it is behind SYSCALL
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
    """SYSRET; a non-canonical RCX faults at its target, in ring 3 (AMD64 manual volume 3)."""
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
        if unlikely((cpu.gpr[R11] & TF) != 0):
            cpu.trap_dropped = TRAP_MADE  # as if SYSCALL had just ended
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


@fn("ptr", ret="i32")
def sysenter(base: Any) -> Any:
    """SYSENTER; AMD processors have it in legacy mode only."""
    cpu = CPU.view(base)
    selector = cpu.sysenter_cs.tr(32) & 0xFFFC
    if is_long(cpu):
        raise_plain(base, 6)
        return u32(0)
    if ((cpu.cr0 & 1) == 0) | (selector == 0):
        return fault(base, GP, 0)
    cpu.eflags = cpu.eflags & ~(VM | IF | RF)
    set_flat(cpu, CS, selector, u32(0xC09B))
    set_flat(cpu, SS, selector + 8, u32(0xC093))
    cpu.rip = cpu.sysenter_eip & 0xFFFFFFFF
    cpu.gpr[RSP] = cpu.sysenter_esp & 0xFFFFFFFF
    update_mode(base)
    return u32(1)


@fn("ptr", ret="i32")
def sysexit(base: Any) -> Any:
    """SYSEXIT, in legacy mode."""
    cpu = CPU.view(base)
    selector = cpu.sysenter_cs.tr(32) & 0xFFFC
    if is_long(cpu):
        raise_plain(base, 6)
        return u32(0)
    if ((cpu.cr0 & 1) == 0) | (selector == 0) | (cpu.cpl != 0):
        return fault(base, GP, 0)
    set_flat(cpu, CS, (selector + 16) | 3, u32(0xC0FB))
    set_flat(cpu, SS, (selector + 24) | 3, u32(0xC0F3))
    cpu.rip = cpu.gpr[RDX] & 0xFFFFFFFF
    cpu.gpr[RSP] = cpu.gpr[RCX] & 0xFFFFFFFF
    update_mode(base)
    return u32(1)


# --------------------------------------------------------------------------- far JMP and CALL


@inline
def push_words(base: Any, size: int, values: Any) -> Any:
    """Push words in order; 1, or 0 with a fault noted and RSP unchanged."""
    frame = buffer(64)
    n = len(values)
    for i, v in enumerate(values):
        store(frame + (n - 1 - i) * size, v.tr(size * 8))
    return push_frame(base, frame, n * size)


@inline
def transfer_real(
    base: Any, size: int, call: bool, selector: Any, target: Any, next_pc: Any
) -> Any:
    """Far JMP or CALL in real-address and virtual-8086 mode."""
    cpu = CPU.view(base)
    if target > cpu.seg_limit[CS].zx(64):
        return fault(base, GP, 0)
    if call:
        if push_words(base, size, (cpu.seg_sel[CS].zx(64), next_pc)) == 0:
            return u32(0)
    cpu.seg_sel[CS] = selector.tr(16)
    cpu.seg_base[CS] = (selector << 4).zx(64)
    cpu.rip = target
    update_mode(base)
    return u32(1)


@inline
def enter_code(base: Any, selector: Any, low: Any, high: Any, target: Any) -> Any:
    """Load CS with a checked descriptor at the current privilege, and go on at `target`."""
    cpu = CPU.view(base)
    set_segment(
        cpu,
        CS,
        (selector & 0xFFFC) | cpu.cpl,
        base_of(low, high),
        limit_of(low, high),
        attr_of(high) | TYPE_ACCESSED,
    )
    cpu.rip = target
    update_mode(base)


@inline
def bad_target(cpu: Any, attr: Any, low: Any, high: Any, target: Any) -> Any:
    """Is an instruction pointer outside of its code segment?  (i1)"""
    to64 = is_long(cpu) & ((attr & ATTR_L) != 0)
    return select(to64, noncanonical(target), target > limit_of(low, high).zx(64))


@inline
def transfer_code(
    base: Any, size: int, call: bool, selector: Any, low: Any, high: Any, target: Any, next_pc: Any
) -> Any:
    """Far JMP or CALL straight to a code segment."""
    cpu = CPU.view(base)
    attr = attr_of(high)
    cpl = cpu.cpl
    dpl = (attr >> 5) & 3
    error = selector & 0xFFFC
    conforming = (attr & TYPE_CONFORMING) != 0
    bad = ((attr & TYPE_CODE) == 0) | (
        is_long(cpu) & ((attr & (ATTR_L | ATTR_DB)) == (ATTR_L | ATTR_DB))
    )
    bad |= select(conforming, dpl > cpl, ((selector & 3) > cpl) | (dpl != cpl))
    if bad:
        return fault(base, GP, error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, error)
    if bad_target(cpu, attr, low, high, target):
        return fault(base, GP, 0)
    old_sp = cpu.gpr[RSP]
    if call:
        if push_words(base, size, (cpu.seg_sel[CS].zx(64), next_pc)) == 0:
            return u32(0)
    if mark_accessed(base, selector, high) == 0:
        cpu.gpr[RSP] = old_sp
        return u32(0)
    enter_code(base, selector, low, high, target)
    return u32(1)


@fn("ptr", "i32", "i32", "i32", "i64", "i32", ret="i32")
def transfer_system(base: Any, selector: Any, low: Any, high: Any, next_pc: Any, call: Any) -> Any:
    """Far JMP or CALL to a gate or a TSS."""
    cpu = CPU.view(base)
    attr = attr_of(high)
    kind = attr & 15
    error = selector & 0xFFFC
    dpl = (attr >> 5) & 3
    wide = is_long(cpu)
    is_gate = (kind == 12) | ((kind == 4) & (wide ^ 1))
    is_task = ((kind == 5) | (kind == 1) | (kind == 9)) & (wide ^ 1)
    if ((is_gate | is_task) ^ 1) | (dpl < cpu.cpl) | ((selector & 3) > dpl):
        return fault(base, GP, error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, error)
    if is_task:
        tss = select(kind == 5, low >> 16, selector)
        return tasks.task_switch(
            base, tss, select(call != 0, u32(tasks.BY_CALL), u32(tasks.BY_JMP)), next_pc, 0, 0, 0
        )
    target = (low & 0xFFFF).zx(64)
    if kind == 12:
        target |= (high & 0xFFFF0000).zx(64)
    if wide:
        at = descriptor_address(base, selector)
        if (selector & 0xFFF8) + 15 > select(
            (selector & 4) != 0, cpu.seg_limit[LDTR], cpu.gdtr_limit
        ):
            return fault(base, GP, error)
        p = sys_load(base, at + 8, 8, kernel_mmu(cpu))
        if p == 0:
            return u32(0)
        upper = load(p, "i64")
        if (upper & 0x1F0000000000) != 0:
            return fault(base, GP, error)
        target |= upper << 32
    return through_gate(
        base,
        low >> 16,
        target,
        select(wide, u32(8), select(kind == 12, u32(4), u32(2))),
        high & 31,
        next_pc,
        call,
    )


@fn("ptr", "i32", "i64", "i32", "i32", "i64", "i32", ret="i32")
def through_gate(
    base: Any, selector: Any, target: Any, size: Any, params: Any, next_pc: Any, call: Any
) -> Any:
    """The second half of a transfer through a call gate: to its code segment, maybe inward."""
    cpu = CPU.view(base)
    cpl = cpu.cpl
    error = selector & 0xFFFC
    if error == 0:
        return fault(base, GP, 0)
    d = read_descriptor(base, selector, GP, 0)
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    dpl = (attr >> 5) & 3
    conforming = (attr & TYPE_CONFORMING) != 0
    bad = ((attr & (ATTR_S | TYPE_CODE)) != (ATTR_S | TYPE_CODE)) | (dpl > cpl)
    bad |= (size == 8) & ((attr & (ATTR_L | ATTR_DB)) != ATTR_L)
    bad |= (call == 0) & (conforming ^ 1) & (dpl != cpl)
    if bad:
        return fault(base, GP, error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, error)
    if bad_target(cpu, attr, low, high, target):
        return fault(base, GP, 0)
    if mark_accessed(base, selector, high) == 0:
        return u32(0)
    if call != 0:
        width = size.zx(64)
        frame = buffer(192)
        p = frame
        cs = cpu.seg_sel[CS].zx(64)
        inward = (conforming ^ 1) & (dpl < cpl)
        store(p, next_pc)
        p = p + width
        store(p, cs)
        p = p + width
        if inward ^ 1:
            if push_frame(base, frame, (p - frame).tr(32)) == 0:
                return u32(0)
        else:
            old_sp = cpu.gpr[RSP]
            old_ss = cpu.seg_sel[SS].zx(64)
            count = u32(0)
            while count < params:
                if size != 8:
                    q = stack_read(base, count.zx(64) * width, size)
                    if q == 0:
                        return u32(0)
                    store(p, select(size == 4, load(q, "i32"), load(q, "i16").zx(32)))
                    p = p + width
                count += 1
            store(p, old_sp)
            p = p + width
            store(p, old_ss)
            p = p + width
            saved = save_stack(base)
            if size == 8:
                at = (dpl << 3) + 4
                if at + 7 > cpu.seg_limit[TR]:
                    return fault(base, TS, cpu.seg_sel[TR].zx(32) & 0xFFFC)
                t = sys_load(base, cpu.seg_base[TR] + at.zx(64), 8, kernel_mmu(cpu))
                if t == 0:
                    return u32(0)
                cpu.gpr[RSP] = load(t, "i64")
                set_null(cpu, SS, dpl, dpl)
            elif inner_stack(base, dpl, 0) == 0:
                return u32(0)
            cpu.cpl = dpl
            if push_frame(base, frame, (p - frame).tr(32)) == 0:
                if cpu.exc_vector == SSV:
                    cpu.exc_error = cpu.seg_sel[SS].zx(32) & 0xFFFC
                restore_stack(base, saved)
                cpu.cpl = cpl
                return u32(0)
    enter_code(base, selector, low, high, target)
    return u32(1)


@inline
def transfer(base: Any, size: int, call: bool, selector: Any, target: Any, next_pc: Any) -> Any:
    """Far JMP or CALL to selector:target."""
    cpu = CPU.view(base)
    if is_virtual(cpu):
        return transfer_real(base, min(size, 4), call, selector, target, next_pc)
    if (selector & 0xFFFC) == 0:
        return fault(base, GP, 0)
    d = read_descriptor(base, selector, GP, 0)
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    if (high & 0x1000) != 0:
        return transfer_code(base, size, call, selector, low, high, target, next_pc)
    return transfer_system(base, selector, low, high, next_pc, int(call))


def _transfer(size: int, is_call: bool) -> Fn:
    @fn("ptr", "i32", "i64", "i64", ret="i32", name=f"far_{'call' if is_call else 'jmp'}{size * 8}")
    def far_transfer(base: Any, selector: Any, target: Any, next_pc: Any) -> Any:
        return transfer(base, size, is_call, selector, target, next_pc)

    return far_transfer


FAR = {(size, is_call): _transfer(size, is_call) for size in (2, 4, 8) for is_call in (False, True)}
