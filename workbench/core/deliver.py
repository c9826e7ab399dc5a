"""Delivery of interrupts and exceptions through the IDT (SDM volume 3, chapter 6; volume 2, INT n).

`deliver` does the whole of it, with nested faults; `deliver_once` is one attempt, which INT n
uses because a fault in it is simply an exception of that instruction.  cpu.rip is the address to
return to.

kind: 0 hardware interrupt, 1 exception, 2 INT n, 3 INT3 or INTO, 4 INT1.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.flags import eflags_of
from workbench.core.lang import fn, inline, likely, load, select, store, u32, u64, unlikely
from workbench.core.layout import (
    ATTR_DB,
    ATTR_L,
    ATTR_P,
    CPU,
    CR0_PE,
    CS,
    DB,
    DFV,
    DS,
    ES,
    EXIT_EXCEPTION,
    EXIT_NEXT,
    EXIT_TRIPLE,
    FS,
    GP,
    GS,
    IF,
    MOST_FAULTS,
    NMI,
    NP,
    NT,
    PFV,
    RF,
    RSP,
    SS,
    SSV,
    TF,
    TR,
    TS,
    VM,
    WATCH_WRITE,
)
from workbench.core.segload import (
    TYPE_ACCESSED,
    TYPE_CONFORMING,
    attr_of,
    base_of,
    buffer,
    fault,
    is_long,
    kernel_mmu,
    limit_of,
    linear,
    mark_accessed,
    mmu_for,
    noncanonical,
    read_descriptor,
    set_accessed,
    set_null,
    set_segment,
    stack_descriptor,
    sys_load,
    sys_store,
    update_mode,
)
from workbench.core.segments import BAD, seg_linear, stack_mask

HARDWARE, EXCEPTION, SOFTWARE, BREAKPOINT, ICEBP = range(5)
# Delivered without an error code or RF of their own: traps (SDM volume 3, table 6-1).
BP_VECTOR, OF_VECTOR = 3, 4


@inline
def saved_flags(base: Any, cpu: Any, vector: Any, kind: Any) -> Any:
    """EFLAGS as pushed: RF is set for faults, against hitting a breakpoint again (17.3.1.1)."""
    flags = cpu.eflags | eflags_of(base)
    is_fault = (kind == EXCEPTION) & (vector != DB) & (vector != BP_VECTOR) & (vector != OF_VECTOR)
    return flags | select(is_fault & (vector != DFV) & (vector != NMI), u64(RF), u64(0))


@fn("ptr", "i32", "i32", "i32", "i32", ret="i32")
def deliver_long(base: Any, vector: Any, error: Any, has_error: Any, kind: Any) -> Any:
    """One delivery in IA-32e mode; 1, or 0 with a fault noted and nothing changed but memory."""
    cpu = CPU.view(base)
    ext = ((kind == SOFTWARE) | (kind == BREAKPOINT)).zx(32) ^ 1
    idt_error = (vector << 3) + 2 + ext
    how = kernel_mmu(cpu)
    if unlikely((vector << 4) + 15 > cpu.idtr_limit):
        return fault(base, GP, idt_error)
    gate = sys_load(base, cpu.idtr_base + (vector << 4).zx(64), 16, how)
    if unlikely(gate == 0):
        return u32(0)
    d0 = load(gate, "i64")
    d1 = load(gate + 8, "i64")
    gate_type = (d0 >> 40).tr(32) & 0xFF
    cpl = cpu.cpl
    if unlikely((gate_type & 0x1E) != 0xE):
        return fault(base, GP, idt_error)
    if unlikely((ext == 0) & (((gate_type >> 5) & 3) < cpl)):
        return fault(base, GP, idt_error)
    if unlikely((gate_type & ATTR_P) == 0):
        return fault(base, NP, idt_error)
    selector = (d0 >> 16).tr(32) & 0xFFFF
    target = (d0 & 0xFFFF) | ((d0 >> 32) & 0xFFFF0000) | (d1 << 32)
    if unlikely((selector & 0xFFFC) == 0):
        return fault(base, GP, ext)
    d = read_descriptor(base, selector, GP, ext)
    if unlikely(d == 0):
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    attr = attr_of(high)
    sel_error = (selector & 0xFFFC) | ext
    dpl = (attr >> 5) & 3
    if unlikely(((attr & 0x18) != 0x18) | (dpl > cpl) | ((attr & (ATTR_L | ATTR_DB)) != ATTR_L)):
        return fault(base, GP, sel_error)
    if unlikely((attr & ATTR_P) == 0):
        return fault(base, NP, sel_error)
    new_cpl = select((attr & TYPE_CONFORMING) != 0, cpl, dpl)
    inward = new_cpl < cpl
    ist = (d0 >> 32).tr(32) & 7
    sp = cpu.gpr[RSP]
    if inward | (ist != 0):
        at = select(ist != 0, (ist << 3) + 28, (new_cpl << 3) + 4)
        if unlikely(at + 7 > cpu.seg_limit[TR]):
            return fault(base, TS, (cpu.seg_sel[TR].zx(32) & 0xFFFC) | ext)
        p = sys_load(base, cpu.seg_base[TR] + at.zx(64), 8, how)
        if unlikely(p == 0):
            return u32(0)
        sp = load(p, "i64")
    sp = sp & ~15
    size = 40 + (has_error << 3)
    start = sp - size.zx(64)
    if unlikely(noncanonical(start) | noncanonical(sp - 1)):
        return fault(base, SSV, ext)
    if unlikely(noncanonical(target)):
        return fault(base, GP, ext)
    frame = buffer(48)
    spot = frame
    flags = saved_flags(base, cpu, vector, kind)
    stack = mmu_for(cpu, new_cpl)
    host = u64(0)
    if likely((start & mmu.PAGE) + 48 <= 0x1000):
        host = mmu.probe(base, start, mmu.WRITE, stack)
        if likely(host != 0):
            spot = host
            mmu.wrote_code(base, host, size.zx(64))
            mmu.note_watch(cpu, base, start, size.zx(64), WATCH_WRITE, cpu.end_icount - cpu.budget)
        elif cpu.exit_reason == EXIT_EXCEPTION:
            return u32(0)
    if has_error != 0:
        store(spot, error.zx(64))
        spot = spot + 8
    store(spot, cpu.rip)
    store(spot + 8, cpu.seg_sel[CS].zx(64))
    store(spot + 16, flags)
    store(spot + 24, cpu.gpr[RSP])
    store(spot + 32, cpu.seg_sel[SS].zx(64))
    if unlikely(host == 0):
        if sys_store(base, start, frame, size, stack) == 0:
            return u32(0)
    if unlikely(mark_accessed(base, selector, high) == 0):
        return u32(0)
    cpu.gpr[RSP] = start
    if inward:
        set_null(cpu, SS, new_cpl, new_cpl)
    set_segment(
        cpu,
        CS,
        (selector & 0xFFFC) | new_cpl,
        base_of(low, high),
        limit_of(low, high),
        attr | TYPE_ACCESSED,
    )
    cpu.rip = target
    clear = select((gate_type & 1) == 0, u64(IF | TF | NT | RF | VM), u64(TF | NT | RF | VM))
    cpu.eflags = cpu.eflags & ~clear
    return u32(1)


@fn("ptr", "i32", "i32", "i32", "i32", ret="i32")
def deliver_once(base: Any, vector: Any, error: Any, has_error: Any, kind: Any) -> Any:
    """One attempt in whatever mode; 1 with the mode updated, or 0 with a fault noted."""
    cpu = CPU.view(base)
    done = u32(0)
    if likely(is_long(cpu)):
        done = deliver_long(base, vector, error, has_error, kind)
    elif (cpu.cr0 & CR0_PE) == 0:
        done = deliver_real(base, vector, kind)
    else:
        done = deliver_protected(base, vector, error, has_error, kind)
    if likely(done != 0):
        update_mode(base)
    return done


@inline
def is_contributory(vector: Any) -> Any:
    """#DE #TS #NP #SS #GP (SDM volume 3, table 6-4).  (i1)"""
    return (vector == 0) | ((vector >= TS) & (vector <= GP))


@fn("ptr", "i32", "i32", "i32", "i32", ret="i32")
def deliver(base: Any, vector: Any, error: Any, has_error: Any, kind: Any) -> Any:
    """Deliver an event, or what it faults with; 1, or 0 with EXIT_TRIPLE (SDM volume 3, 6.15).

    Handlers whose first instruction faults go round for ever, and no time passes: that, too, ends
    in EXIT_TRIPLE.
    """
    cpu = CPU.view(base)
    if kind == EXCEPTION:
        icount = cpu.end_icount - cpu.budget
        cpu.fault_row = select(cpu.fault_icount == icount, cpu.fault_row + 1, u64(0))
        cpu.fault_icount = icount
        if unlikely(cpu.fault_row >= MOST_FAULTS):
            cpu.exit_reason = EXIT_TRIPLE
            return u32(0)
    now = vector
    code = error
    coded = has_error
    how = kind
    while True:
        if (how == EXCEPTION) & (now == PFV):
            cpu.cr2 = cpu.fault_addr
        if likely(deliver_once(base, now, code, coded, how) != 0):
            break
        new = cpu.exc_vector
        if new == PFV:
            cpu.cr2 = cpu.fault_addr
        is_exception = how == EXCEPTION
        bad = (new == PFV) | is_contributory(new)
        if is_exception & (now == DFV) & bad:
            cpu.exit_reason = EXIT_TRIPLE
            return u32(0)
        double = is_exception & (
            (is_contributory(now) & is_contributory(new)) | ((now == PFV) & bad)
        )
        now = select(double, u32(DFV), new)
        code = select(double, u32(0), cpu.exc_error)
        coded = select(double, u32(1), cpu.exc_has_error)
        how = u32(EXCEPTION)
    if (kind == HARDWARE) & (vector == NMI):
        cpu.nmi_blocked = 1
    if cpu.entry_stop != 0:
        cpu.entry_stop = 2
    cpu.exit_reason = EXIT_NEXT
    return u32(1)


@fn("ptr", "i32", "i32", ret="i32")
def deliver_real(base: Any, vector: Any, kind: Any) -> Any:
    """One delivery through the vector table of real-address mode (SDM volume 3, 20.1.4)."""
    cpu = CPU.view(base)
    if (vector << 2) + 3 > cpu.idtr_limit:
        return fault(base, GP, 0)
    how = kernel_mmu(cpu)
    gate = sys_load(base, linear(cpu, cpu.idtr_base + (vector << 2).zx(64)), 4, how)
    if gate == 0:
        return u32(0)
    entry = load(gate, "i32")
    frame = buffer(8)
    store(frame, cpu.rip.tr(16))
    store(frame + 2, cpu.seg_sel[CS])
    store(frame + 4, (cpu.eflags | eflags_of(base)).tr(16))
    if push_frame(base, frame, 6) == 0:
        return u32(0)
    cpu.seg_sel[CS] = (entry >> 16).tr(16)
    cpu.seg_base[CS] = ((entry >> 16) << 4).zx(64)
    cpu.rip = (entry & 0xFFFF).zx(64)
    cpu.eflags = cpu.eflags & ~(IF | TF | RF | 0x40000)
    return u32(1)


@fn("ptr", "i64", "i32", ret="i32")
def push_frame(base: Any, frame: Any, size: Any) -> Any:
    """Push bytes on the current legacy stack; 1 with RSP moved, or 0 with a fault noted."""
    cpu = CPU.view(base)
    mask = stack_mask(cpu)
    old = cpu.gpr[RSP]
    sp = (old - size.zx(64)) & mask
    at = seg_linear(base, SS, sp, size, 1)
    if at == BAD:
        return u32(0)
    if sys_store(base, at, frame, size, mmu_for(cpu, cpu.cpl)) == 0:
        return u32(0)
    cpu.gpr[RSP] = select(mask == 0xFFFF, (old & ~mask) | sp, sp)
    return u32(1)


@fn("ptr", "i32", "i32", "i32", "i32", ret="i32")
def deliver_protected(base: Any, vector: Any, error: Any, has_error: Any, kind: Any) -> Any:
    """One delivery through a 16- or 32-bit gate or a task gate, also from virtual-8086 mode."""
    cpu = CPU.view(base)
    ext = ((kind == SOFTWARE) | (kind == BREAKPOINT)).zx(32) ^ 1
    idt_error = (vector << 3) + 2 + ext
    if (vector << 3) + 7 > cpu.idtr_limit:
        return fault(base, GP, idt_error)
    gate = sys_load(base, linear(cpu, cpu.idtr_base + (vector << 3).zx(64)), 8, kernel_mmu(cpu))
    if gate == 0:
        return u32(0)
    low = load(gate, "i32")
    high = load(gate + 4, "i32")
    kind_of_gate = (high >> 8) & 0x1F
    cpl = cpu.cpl
    is_task = kind_of_gate == 5
    wide = (kind_of_gate & 8) != 0
    if (is_task ^ 1) & ((kind_of_gate & 0x16) != 6):
        return fault(base, GP, idt_error)
    if (ext == 0) & (((high >> 13) & 3) < cpl):
        return fault(base, GP, idt_error)
    if (high & 0x8000) == 0:
        return fault(base, NP, idt_error)
    selector = low >> 16
    if is_task:
        return tasks.task_switch(base, selector, tasks.BY_GATE, cpu.rip, has_error, error, ext)
    target = select(wide, (low & 0xFFFF) | (high & 0xFFFF0000), low & 0xFFFF)
    if (selector & 0xFFFC) == 0:
        return fault(base, GP, ext)
    d = read_descriptor(base, selector, GP, ext)
    if d == 0:
        return u32(0)
    cs_low = load(d, "i32")
    cs_high = load(d + 4, "i32")
    attr = attr_of(cs_high)
    dpl = (attr >> 5) & 3
    sel_error = (selector & 0xFFFC) | ext
    virtual = (cpu.eflags & VM) != 0
    conforming = (attr & TYPE_CONFORMING) != 0
    bad = ((attr & 0x18) != 0x18) | (dpl > cpl) | (virtual & (conforming | (dpl != 0)))
    if bad:
        return fault(base, GP, sel_error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, sel_error)
    if target > limit_of(cs_low, cs_high):
        return fault(base, GP, ext)
    new_cpl = select(conforming, cpl, dpl)
    flags = saved_flags(base, cpu, vector, kind)
    width = select(wide, u64(4), u64(2))
    frame = buffer(64)
    p = frame
    if has_error != 0:
        store(p, error)
        p = p + width
    store(p, cpu.rip.tr(32))
    p = p + width
    store(p, cpu.seg_sel[CS].zx(32))
    p = p + width
    store(p, flags.tr(32))
    p = p + width
    old_ss = save_stack(base)
    if new_cpl < cpl:
        store(p, cpu.gpr[RSP].tr(32))
        p = p + width
        store(p, cpu.seg_sel[SS].zx(32))
        p = p + width
        if virtual:
            for seg in (ES, DS, FS, GS):
                store(p, cpu.seg_sel[seg].zx(32))
                p = p + width
        if inner_stack(base, new_cpl, ext) == 0:
            return u32(0)
        cpu.cpl = new_cpl
    if push_frame(base, frame, (p - frame).tr(32)) == 0:
        if (cpu.exc_vector == SSV) & (new_cpl < cpl):
            cpu.exc_error = (cpu.seg_sel[SS].zx(32) & 0xFFFC) | ext
        restore_stack(base, old_ss)
        cpu.cpl = cpl
        return u32(0)
    if mark_accessed(base, selector, cs_high) == 0:
        restore_stack(base, old_ss)
        cpu.cpl = cpl
        return u32(0)
    if virtual:
        for seg in (ES, DS, FS, GS):
            set_null(cpu, seg, u32(0), u32(0))
    set_segment(
        cpu,
        CS,
        (selector & 0xFFFC) | new_cpl,
        base_of(cs_low, cs_high),
        limit_of(cs_low, cs_high),
        attr | TYPE_ACCESSED,
    )
    cpu.rip = target.zx(64)
    clear = select((kind_of_gate & 1) == 0, u64(IF | TF | NT | RF | VM), u64(TF | NT | RF | VM))
    cpu.eflags = cpu.eflags & ~clear
    return u32(1)


def save_stack(base: Any) -> Any:
    """SS and RSP, to be put back if a later step faults."""
    cpu = CPU.view(base)
    return (*tuple(cpu.__getattr__(n)[SS] for n in STACK_FIELDS), cpu.gpr[RSP])


def restore_stack(base: Any, saved: Any) -> None:
    """Undo what happened to SS and RSP since `save_stack`."""
    cpu = CPU.view(base)
    for name, value in zip(STACK_FIELDS, saved, strict=False):
        cpu.__getattr__(name)[SS] = value
    cpu.gpr[RSP] = saved[-1]


STACK_FIELDS = ("seg_sel", "seg_base", "seg_limit", "seg_attr")


@fn("ptr", "i32", "i32", ret="i32")
def inner_stack(base: Any, cpl: Any, ext: Any) -> Any:
    """Load SS:ESP of privilege `cpl` from the legacy TSS; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    wide = (cpu.seg_attr[TR] & 8) != 0
    at = select(wide, (cpl << 3) + 4, (cpl << 2) + 2)
    size = select(wide, u32(6), u32(4))
    if at + size - 1 > cpu.seg_limit[TR]:
        return fault(base, TS, (cpu.seg_sel[TR].zx(32) & 0xFFFC) | ext)
    p = sys_load(base, linear(cpu, cpu.seg_base[TR] + at.zx(64)), size, kernel_mmu(cpu))
    if p == 0:
        return u32(0)
    sp = select(wide, load(p, "i32"), load(p, "i16").zx(32)).zx(64)
    selector = select(wide, load(p + 4, "i16"), load(p + 2, "i16")).zx(32)
    d = stack_descriptor(base, selector, cpl, u32(TS), ext)
    if d == 0:
        return u32(0)
    set_accessed(cpu, SS, selector, d)
    cpu.gpr[RSP] = sp
    return u32(1)


@fn("ptr", "i64")
def db_trap(base: Any, dr6_bits: Any) -> None:
    """Tell in DR6 why the #DB that is delivered next came (SDM volume 3, 17.2.3): what earlier ones
    said of DR0 to DR3 is gone, the rest stays.
    """
    cpu = CPU.view(base)
    cpu.dr[6] = (cpu.dr[6] & ~0xF) | dr6_bits


from workbench.core import tasks  # noqa: E402  (a task switch may deliver, a delivery may switch tasks)
