"""Hardware task switches, with 16- and 32-bit task state segments (SDM volume 3, chapter 7).

Not modelled: the debug trap flag (T) of a TSS.
"""

from __future__ import annotations

from typing import Any

from workbench.core import deliver as delivery
from workbench.core import mmu
from workbench.core.flags import eflags_of, set_eflags_arith
from workbench.core.lang import fn, inline, load, select, store, u32, u64
from workbench.core.layout import (
    ARITH,
    ATTR_P,
    CPU,
    CR0_PG,
    CR0_TS,
    CS,
    DS,
    ES,
    FS,
    GP,
    GS,
    LDTR,
    NP,
    NT,
    SS,
    TR,
    TS,
    VM,
)
from workbench.core.segload import (
    NO_DESCRIPTOR,
    TYPE_ACCESSED,
    TYPE_CONFORMING,
    attr_of,
    base_of,
    buffer,
    data_descriptor,
    descriptor_address,
    fault,
    kernel_mmu,
    limit_of,
    linear,
    mark_accessed,
    read_descriptor,
    set_accessed,
    set_null,
    set_segment,
    stack_descriptor,
    sys_load,
    sys_put,
    sys_store,
    update_mode,
)

BY_JMP, BY_CALL, BY_IRET, BY_GATE = range(4)
ORDER = (ES, CS, SS, DS, FS, GS)
LOAD_ORDER = (SS, DS, ES, FS, GS)
# Offsets of the dynamic part: 32-bit EIP at 20h ... GS at 5Ch; 16-bit IP at 0Eh ... DS at 28h.
EIP32, REGS32, SEGS32, LDT32, CR3_32 = 0x20, 0x28, 0x48, 0x60, 0x1C
IP16, REGS16, SEGS16, LDT16 = 0x0E, 0x12, 0x22, 0x2A
BUSY = 2


@fn("ptr", "i64", "i32", ret="i32")
def save_task(base: Any, rip: Any, flags: Any) -> Any:
    """Write the state of the running task to its TSS; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    how = kernel_mmu(cpu)
    tss = cpu.seg_base[TR]
    frame = buffer(64)
    if (cpu.seg_attr[TR] & 8) != 0:
        store(frame, rip.tr(32))
        store(frame + 4, flags)
        for i in range(8):
            store(frame + 8 + i * 4, cpu.gpr[i].tr(32))
        for i, seg in enumerate(ORDER):
            store(frame + 40 + i * 4, cpu.seg_sel[seg].zx(32))
        return sys_store(base, linear(cpu, tss + EIP32), frame, 64, how)
    store(frame, rip.tr(16))
    store(frame + 2, flags.tr(16))
    for i in range(8):
        store(frame + 4 + i * 2, cpu.gpr[i].tr(16))
    for i, seg in enumerate(ORDER[:4]):
        store(frame + 20 + i * 2, cpu.seg_sel[seg])
    return sys_store(base, linear(cpu, tss + IP16), frame, 28, how)


@fn("ptr", "i32", "i32", ret="i32")
def set_busy(base: Any, selector: Any, busy: Any) -> Any:
    """Set or clear the busy bit of a TSS descriptor; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    at = descriptor_address(base, selector)
    if at == NO_DESCRIPTOR:
        return u32(1)
    p = sys_load(base, at + 5, 1, kernel_mmu(cpu))
    if p == 0:
        return u32(0)
    value = (load(p, "i8") & ~BUSY) | select(busy != 0, u32(BUSY), u32(0)).tr(8)
    return sys_put(base, at + 5, value, kernel_mmu(cpu))


@fn("ptr", "i32", ret="i32")
def load_task_code(base: Any, selector: Any) -> Any:
    """CS of a new task; its RPL is the privilege of the task; 1, or 0 with #TS or #NP noted."""
    cpu = CPU.view(base)
    error = selector & 0xFFFC
    if error == 0:
        return fault(base, TS, 0)
    d = read_descriptor(base, selector, TS, 0)
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    dpl = (attr >> 5) & 3
    rpl = selector & 3
    bad = (attr & 0x18) != 0x18
    bad |= select((attr & TYPE_CONFORMING) != 0, dpl > rpl, dpl != rpl)
    if bad:
        return fault(base, TS, error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, error)
    if mark_accessed(base, selector, high) == 0:
        return u32(0)
    set_segment(cpu, CS, selector, base_of(low, high), limit_of(low, high), attr | TYPE_ACCESSED)
    return u32(1)


@fn("ptr", "i32", "i32", "i32", ret="i32")
def load_task_data(base: Any, seg: Any, selector: Any, cpl: Any) -> Any:
    """SS, DS, ES, FS or GS of a new task; 1, or 0 with #TS, #NP or #SS noted."""
    cpu = CPU.view(base)
    whole = u64(0)
    if seg == SS:
        whole = stack_descriptor(base, selector, cpl, u32(TS), u32(0))
    elif (selector & 0xFFFC) == 0:
        set_null(cpu, seg, selector, u32(0))
        return u32(1)
    else:
        whole = data_descriptor(base, selector, cpl, u32(TS))
    if whole == 0:
        return u32(0)
    set_accessed(cpu, seg, selector, whole)
    return u32(1)


@fn("ptr", "i32", ret="i32")
def load_task_ldt(base: Any, selector: Any) -> Any:
    """LDTR of a new task; 1, or 0 with #TS noted."""
    cpu = CPU.view(base)
    error = selector & 0xFFFC
    set_null(cpu, LDTR, selector, u32(0))
    if error == 0:
        return u32(1)
    if (selector & 4) != 0:
        return fault(base, TS, error)
    d = read_descriptor(base, selector, TS, 0)
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    if (attr & 0x9F) != 0x82:
        return fault(base, TS, error)
    set_segment(cpu, LDTR, selector, base_of(low, high), limit_of(low, high), attr)
    return u32(1)


@inline
def set_virtual(cpu: Any, seg: int, selector: Any) -> None:
    """A segment register of virtual-8086 mode."""
    set_segment(cpu, seg, selector, (selector << 4).zx(64), u32(0xFFFF), u32(0xF3))


@fn("ptr", "i64", "i32", ret="i32")
def load_task_segments(base: Any, selectors: Any, ldt: Any) -> Any:
    """Segment registers of a new task, from an array of i32; 1, or 0 with a fault of it noted."""
    cpu = CPU.view(base)
    for i, seg in enumerate(ORDER):
        set_null(cpu, seg, load(selectors + i * 4, "i32"), u32(0))
    if load_task_ldt(base, ldt) == 0:
        return u32(0)
    if (cpu.eflags & VM) != 0:
        for k, each in enumerate(ORDER):
            set_virtual(cpu, each, load(selectors + k * 4, "i32") & 0xFFFF)
        return u32(1)
    cs = load(selectors + 4, "i32")
    cpl = cs & 3
    if load_task_code(base, cs) == 0:
        return u32(0)
    cpu.cpl = cpl
    for one in LOAD_ORDER:
        if load_task_data(base, one, load(selectors + ORDER.index(one) * 4, "i32"), cpl) == 0:
            return u32(0)
    return u32(1)


@fn("ptr", "i32", "i32", "i64", "i32", "i32", "i32", ret="i32")
def task_switch(
    base: Any, selector: Any, source: Any, rip: Any, has_error: Any, error: Any, ext: Any
) -> Any:
    """Switch to the task of a TSS selector; `rip` is saved for the old one.

    0 with a fault of the old task noted; 1 when the switch is made, and a fault in loading the
    new task's segments has then been delivered in it.
    """
    cpu = CPU.view(base)
    how = kernel_mmu(cpu)
    back = source == BY_IRET
    vector = select(back, u32(TS), u32(GP))
    sel_error = (selector & 0xFFFC) | ext
    if ((selector & 4) != 0) | ((selector & 0xFFFC) == 0):
        return fault(base, vector, sel_error)
    d = read_descriptor(base, selector, vector, ext)
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    wide = (attr & 8) != 0
    if (attr & 0x17) != select(back, u32(3), u32(1)):
        return fault(base, vector, sel_error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, sel_error)
    if limit_of(low, high) < select(wide, u32(103), u32(43)):
        return fault(base, TS, sel_error)
    start = base_of(low, high)
    # read the new task first: what faults here belongs to the old one
    regs = buffer(32)
    segs = buffer(24)
    new_rip = u32(0)
    new_flags = u32(0)
    new_ldt = u32(0)
    new_cr3 = u32(0)
    if wide:
        p = sys_load(base, linear(cpu, start + EIP32), 64, how)
        if p == 0:
            return u32(0)
        new_rip = load(p, "i32")
        new_flags = load(p + 4, "i32")
        for i in range(8):
            store(regs + i * 4, load(p + 8 + i * 4, "i32"))
        for i in range(6):
            store(segs + i * 4, load(p + 40 + i * 4, "i32") & 0xFFFF)
        p = sys_load(base, linear(cpu, start + LDT32), 4, how)
        if p == 0:
            return u32(0)
        new_ldt = load(p, "i32") & 0xFFFF
        p = sys_load(base, linear(cpu, start + CR3_32), 4, how)
        if p == 0:
            return u32(0)
        new_cr3 = load(p, "i32")
    else:
        p = sys_load(base, linear(cpu, start + IP16), 30, how)
        if p == 0:
            return u32(0)
        new_rip = load(p, "i16").zx(32)
        new_flags = load(p + 2, "i16").zx(32)
        for i in range(8):
            store(regs + i * 4, load(p + 4 + i * 2, "i16").zx(32) | 0xFFFF0000)
        for i in range(4):
            store(segs + i * 4, load(p + 20 + i * 2, "i16").zx(32))
        for i in range(2):
            store(segs + 16 + i * 4, u32(0))
        new_ldt = load(p + 28, "i16").zx(32)
    flags = (cpu.eflags | eflags_of(base)).tr(32)
    if back:
        flags &= ~NT
    if save_task(base, rip, flags) == 0:
        return u32(0)
    old = cpu.seg_sel[TR]
    nested = (source == BY_CALL) | (source == BY_GATE)
    if nested ^ 1:
        if set_busy(base, old.zx(32), 0) == 0:
            return u32(0)
    else:
        if sys_put(base, linear(cpu, start), old, how) == 0:
            return u32(0)
        new_flags |= NT
    if back ^ 1:
        if set_busy(base, selector, 1) == 0:
            return u32(0)
    # the new task
    set_segment(cpu, TR, selector, start, limit_of(low, high), attr | BUSY)
    cpu.cr0 = cpu.cr0 | CR0_TS
    if wide & ((cpu.cr0 & CR0_PG) != 0):
        cpu.cr3 = new_cr3.zx(64)
        mmu.tlb_flush(base)
    cpu.rip = new_rip.zx(64)
    cpu.eflags = (new_flags.zx(64) & 0x3E7FD7 & ~ARITH) | 2
    set_eflags_arith(cpu, new_flags.zx(64))
    for i in range(8):
        cpu.gpr[i] = load(regs + i * 4, "i32").zx(64)
    ok = load_task_segments(base, segs, new_ldt) + 0
    if ok != 0:
        update_mode(base)
        if has_error != 0:
            frame = buffer(8)
            store(frame, error)
            ok = delivery.push_frame(base, frame, select(wide, u32(4), u32(2)))
    if (ok != 0) and cpu.rip > cpu.seg_limit[CS].zx(64):
        ok = fault(base, GP, 0)
    if ok == 0:
        update_mode(base)
        delivery.deliver(base, cpu.exc_vector, cpu.exc_error, cpu.exc_has_error, delivery.EXCEPTION)
    return u32(1)
