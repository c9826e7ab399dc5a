"""The compiled run loop, and the special stencils: addresses, block entry and exits, conditions.

`run` goes on until something needs Python: a device access, HLT, the end of the budget, an
interrupt
that can be taken, an instruction with a Python handler, a triple fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.core import dma, mmu, segments
from workbench.core.conditions import condition_at, holds, peek_host
from workbench.core.deliver import db_trap, deliver
from workbench.core.lang import (
    Emitter,
    Module,
    Val,
    call,
    fn,
    inline,
    intrinsic,
    load,
    offset,
    pointer,
    select,
    store,
    u32,
    u64,
    unlikely,
)
from workbench.core.layout import (
    CPU,
    DB,
    DR6_BS,
    EXIT_BREAKPOINT,
    EXIT_BUDGET,
    EXIT_EXCEPTION,
    EXIT_HLT,
    EXIT_IRQ,
    EXIT_MMIO,
    EXIT_NEXT,
    EXIT_SLOW,
    EXIT_WATCH,
    IF,
    INTR_PENDING,
    MARKS,
    NMI_PENDING,
    RF,
    TF,
    TRAP_LATER,
    TRAP_MADE,
    TRAP_USUAL,
    WATCHED,
)
from workbench.core.stencil import S, emit_raw, hole
from workbench.core.translate import find_code, linear_pc, locate, translate

PAGE = mmu.PAGE
USUAL, SLOW, CUT = range(3)


@fn("ptr", "i64", "i64", "i64", "i64", "i64", ret="i32")
def tlb_miss(base: Any, tlb: Any, addr: Any, access: Any, pc: Any, budget: Any) -> Any:
    """A hot stencil missed: 1 if the TLB now has the page, else 0 with the reason to leave noted.

    Two accesses of one instruction may need the same entry of the TLB and push each other out for
    ever:
    the third miss of an instruction makes it a slow one.
    """
    cpu = CPU.view(base)
    if (cpu.miss_pc == pc) & (cpu.miss_budget == budget):
        cpu.miss_count = cpu.miss_count + 1
        if cpu.miss_count >= 3:
            cpu.exit_reason = EXIT_SLOW
            return u32(0)
    else:
        cpu.miss_pc = pc
        cpu.miss_budget = budget
        cpu.miss_count = 1
    size = u64(1) << (access & 7)
    write = (access >> 3) & 1
    if (addr & PAGE) + size > 0x1000:
        cpu.exit_reason = EXIT_SLOW
        return u32(0)
    entry = mmu.tlb_entry(cpu, mmu.mmu_of(cpu, tlb), addr)
    tag = load(entry + (write << 3), "i64")
    if (tag & ~MARKS) == (addr & ~PAGE):
        if (tag & WATCHED) == 0:
            if mmu.release(cpu, entry, addr + load(entry + 24, "i64")):
                return u32(1)
        cpu.exit_reason = EXIT_SLOW
        return u32(0)
    host = mmu.tlb_fill(base, addr, write.tr(32), mmu.mmu_of(cpu, tlb))
    if host == 0:
        if cpu.exit_reason == EXIT_MMIO:
            cpu.exit_reason = EXIT_SLOW
        return u32(0)
    if write != 0:
        if load(cpu.page_code + ((host - cpu.ram) >> 12) * 8, "i64") != 0:
            cpu.exit_reason = EXIT_SLOW
            return u32(0)
    return u32(1)


@inline
def _enter(base: Any, code: Any) -> None:
    cpu = CPU.view(base)
    budget = cpu.budget
    tlb = cpu.tlb
    enter_code(base, code, budget, tlb)


def enter_code(base: Val, code: Val, budget: Val, tlb: Val) -> None:
    """Call generated code; it comes back by a plain return, with everything stored."""
    e = Emitter.current
    p = pointer(code)
    e.put(
        f"call preserve_nonecc void {p.ref}(ptr {base.ref}, i64 {budget.ref}, i64 {tlb.ref}, "
        "i64 undef, i64 undef, i64 undef, i64 undef, i64 undef)"
    )


def set_mxcsr(at: Val) -> None:
    """Load the host's MXCSR from memory."""
    intrinsic("llvm.x86.sse.ldmxcsr", "void", pointer(at))


def get_mxcsr(at: Val) -> None:
    """Store the host's MXCSR to memory."""
    intrinsic("llvm.x86.sse.stmxcsr", "void", pointer(at))


@fn("ptr", ret="i32")
def run(base: Any) -> Any:
    """Run until Python is needed; the exit reason."""
    cpu = CPU.view(base)
    cpu.chain_site = 0
    saved = cpu.mxcsr
    cpu.mxcsr = saved | 0x1F80
    set_mxcsr(cpu_field(base, "mxcsr"))
    cpu.mxcsr = saved
    reason = run_inner(base)
    cpu.chain_site = 0
    get_mxcsr(cpu_field(base, "bounce"))
    cpu.mxcsr = (load(cpu_field(base, "bounce"), "i32") & 0xE07F) | (cpu.mxcsr & 0x1F80)
    store(cpu_field(base, "bounce"), u32(0x1F80))
    set_mxcsr(cpu_field(base, "bounce"))
    return reason


def cpu_field(base: Val, name: str) -> Val:
    """Address of a field."""
    return offset(base, CPU.offset(name))


@fn("ptr", "i64", ret="i64")
def code_breakpoint(base: Any, linear: Any) -> Any:
    """DR6 bits of the guest's code breakpoints at this address; none while EFLAGS.RF is set
    (SDM volume 3, 17.2.4 and 17.3.1.1).
    """
    cpu = CPU.view(base)
    bits = u64(0)
    if (cpu.eflags & RF) == 0:
        dr7 = cpu.dr[7]
        for i in range(4):
            on = (dr7 & (3 << (2 * i))) != 0
            code = (dr7 & (3 << (16 + 4 * i))) == 0
            if on & code & (cpu.dr[i] == linear):
                bits |= 1 << i
    return bits


@fn("ptr", ret="i32")
def run_inner(base: Any) -> Any:
    """The loop of `run`.  `kind` says which block is entered next: usual, slow, or one cut
    short.
    """
    cpu = CPU.view(base)
    kind = u32(USUAL)
    while True:
        now = cpu.end_icount - cpu.budget
        if unlikely(cpu.watch_pending != 0):
            if (cpu.acc_icount != now) | (cpu.acc_count == 0):
                return u32(EXIT_WATCH)
        if unlikely(cpu.entry_stop == 2):
            return u32(EXIT_BREAKPOINT)
        # not before the next instruction: behind STI, or when its device access was made already
        held = (cpu.shadow_icount == now) | ((cpu.acc_icount == now) & (cpu.acc_count != 0))
        if unlikely(cpu.irq_pending != 0):
            intr = ((cpu.irq_pending & INTR_PENDING) != 0) & ((cpu.eflags & IF) != 0)
            nmi = ((cpu.irq_pending & NMI_PENDING) != 0) & (cpu.nmi_blocked == 0)
            if (intr | nmi) and not held:
                return u32(EXIT_IRQ)
        if unlikely(cpu.budget.sle(0)):
            return u32(EXIT_BUDGET)
        trap = (cpu.eflags & TF) != 0
        single = trap | ((cpu.irq_pending != 0) & held)
        single |= (cpu.watching != 0) & ((kind == SLOW) | (cpu.dr_hits != 0))
        resuming = cpu.eflags & RF
        if unlikely(cpu.dr_code != 0):
            single |= 1
            bits = code_breakpoint(base, linear_pc(cpu))
            later = (cpu.trap_dropped == TRAP_LATER) & (cpu.shadow_icount == now)
            if (bits != 0) & ~later:
                db_trap(base, bits)
                if deliver(base, u32(DB), u32(0), u32(0), u32(1)) == 0:
                    return cpu.exit_reason
                kind = u32(USUAL)
                continue
        if unlikely(cpu.bp_count != 0):
            if cpu.bp_skip != now:
                point = condition_at(base, linear_pc(cpu))
                if point == 1:
                    if cpu.bp_log == 0:
                        return u32(EXIT_BREAKPOINT)
                    cpu.bp_hits = cpu.bp_hits + 1
                    cpu.bp_last = now
                if point != 0:
                    cpu.bp_skip = now
            single |= cpu.bp_skip == now
        rest = u64(0)
        code = u64(0)
        if unlikely(single | (kind != USUAL)):
            cpu.chain_site = 0
            if single:
                rest = cpu.budget - 1
                cpu.trap_dropped = TRAP_USUAL
            if kind == SLOW:
                cpu.n_slow = cpu.n_slow + 1
                cpu.slow_icount = now
                code = find_code(base, u32(1))
            else:
                code = temporary(base, select(single, u64(1), cpu.budget))
        else:
            code = find_code(base, u32(0))
        kind = u32(USUAL)
        if code != 0:
            cpu.n_next = cpu.n_next + 1
            cpu.budget = cpu.budget - rest
            cpu.end_icount = cpu.end_icount - rest
            _enter(base, code)
            cpu.budget = cpu.budget + rest
            cpu.end_icount = cpu.end_icount + rest
        reason = cpu.exit_reason
        if unlikely((reason == EXIT_HLT) & trap):
            reason = u32(EXIT_NEXT)  # the trap wakes it at once
        if reason == EXIT_NEXT or reason == EXIT_BUDGET:
            if reason == EXIT_BUDGET:
                cpu.chain_site = 0
                kind = u32(CUT)
            if unlikely(single | (cpu.trap_dropped == TRAP_MADE)):
                kind = u32(USUAL)
                bits = cpu.dr_hits
                if cpu.trap_dropped == TRAP_LATER:
                    bits = u64(0)
                else:
                    cpu.dr_hits = 0
                if cpu.end_icount - cpu.budget != now:
                    if resuming != 0:
                        cpu.eflags = cpu.eflags & ~RF
                    stepped = trap & (cpu.trap_dropped == TRAP_USUAL)
                    if stepped | (cpu.trap_dropped == TRAP_MADE):
                        bits |= DR6_BS
                        cpu.trap_dropped = TRAP_USUAL
                if bits != 0:
                    cpu.chain_site = 0
                    db_trap(base, bits)
                    if deliver(base, u32(DB), u32(0), u32(0), u32(1)) == 0:
                        return cpu.exit_reason
            continue
        cpu.chain_site = 0
        if reason == EXIT_SLOW:
            kind = u32(SLOW)
            continue
        if reason == EXIT_EXCEPTION:
            if deliver(base, cpu.exc_vector, cpu.exc_error, cpu.exc_has_error, u32(1)) == 0:
                return cpu.exit_reason
            continue
        return reason


@fn("ptr", "i64", ret="i64")
def temporary(base: Any, limit: Any) -> Any:
    """A block of at most `limit` instructions in the scratch buffer; it is found by nobody else."""
    cpu = CPU.view(base)
    linear, host = locate(base, cpu)
    if host == 0:
        return u64(0)
    bound = cpu.max_insns.zx(64)
    most = select(limit < bound, limit, bound).tr(32)
    return translate(base, cpu.rip, linear, host, 0, u32(0), most)


# --------------------------------------------------------------------------- special stencils


def _stencil() -> S:
    return S(8, "", slow=False, flags=True)


@inline
def _ea(s: Any, asize: int, form: int) -> None:
    at = hole("DISP")
    if form != 0 and form < 6:
        at = load(_gpr(s, "BASE"), "i64") + at
    if form >= 2:
        scale = (form - 2) % 4
        index = load(_gpr(s, "INDEX"), "i64")
        at = at + (index << scale if scale else index)
    if asize < 8:
        at = at & ((1 << (asize * 8)) - 1)
    s.next(addr=at, t0=s.t0)


def _gpr(s: S, name: str) -> Val:
    return offset(s.base, hole(name))


@inline
def _seg64(s: Any) -> None:
    s.next(addr=s.addr + load(_gpr(s, "SEG"), "i64"), t0=s.t0)


@inline
def _seg_legacy(s: Any) -> None:
    access = hole("ACC").tr(32)
    t0 = s.t0
    linear = segments.seg_linear(s.base, hole("SEGNO").tr(32), s.addr, access & 0xFF, access >> 8)
    if unlikely(linear == segments.BAD):
        s.fault()
    s.next(addr=linear, t0=t0)


@inline
def _absolute(s: Any) -> None:
    s.next(addr=hole("TARGET") + 0, t0=s.t0)


@inline
def _prologue(s: Any) -> None:
    left = s.budget - hole("N")
    if left.slt(0):
        s.tail("OUT", budget=left)
    s.tail("CONT", budget=left)


@inline
def _out(s: Any) -> None:
    s.cpu.rip = hole("PC")
    s.cpu.budget = s.budget + hole("N")
    s.cpu.exit_reason = EXIT_BUDGET
    _ret()


@inline
def _drop(s: Any) -> None:
    s.to_dispatcher(hole("PC"))


@inline
def _chain(s: Any) -> None:
    s.cpu.chain_site = hole("SITE")
    s.to_dispatcher(hole("TARGET"))


@inline
def _fault(s: Any) -> None:
    s.cpu.rip = hole("PC")
    s.cpu.budget = s.budget + hole("LEFT")
    _ret()


def _ret() -> None:
    Emitter.current.put("ret void")
    Emitter.current.closed = True


@inline
def _goto(s: Any) -> None:
    s.jump_indirect(hole("TARGET") + 0)


@inline
def _miss(s: Any, from_addr: int) -> None:
    s.tail(
        "miss_common",
        addr=s.addr,
        t0=s.t0,
        m=s.addr if from_addr else Val("%m", "i64"),
        x1=hole("PC"),
        x2=hole("SITE"),
    )


@inline
def _miss_common(s: Any) -> None:
    """x1: pc; x2: address of the stencil (32 bits), instructions left (16 bits), access (8
    bits).
    """
    packed = Val("%x2", "i64")
    addr = s.addr
    t0 = s.t0
    if tlb_miss(s.base, s.tlb, Val("%m", "i64"), packed >> 48, Val("%x1", "i64"), s.budget) != 0:
        s.tail_to(packed & 0xFFFFFFFF, addr, t0)
    s.cpu.rip = Val("%x1", "i64")
    s.cpu.budget = s.budget + ((packed >> 32) & 0xFFFF)
    _ret()


def emit_specials(module: Module) -> dict[int, str]:
    """Write the special stencils; their symbols by index in `eatab` (see translate.py)."""
    from workbench.core import translate as t

    out: dict[int, str] = {}

    def add(index: int, symbol: str, sem: Callable[..., Any], *args: Any, stack: int = 0) -> None:
        s = S(8, "", slow=False, flags=True, stack_kind=stack)

        def body() -> None:
            call(sem, [s, *args])

        emit_raw(module, symbol, body)
        out[index] = symbol

    for n, asize in enumerate((2, 4, 8)):
        for form in range(10):
            add(n * 10 + form, f"x_ea{asize}_{form}", _ea, asize, form)
    add(t.X_SEG64, "x_seg64", _seg64)
    add(t.X_SEGLEGACY, "x_seglegacy", _seg_legacy)
    add(t.X_ABS, "x_abs", _absolute)
    add(t.X_PROLOGUE, "x_prologue", _prologue)
    add(t.X_MISS, "x_miss", _miss, 0)
    add(t.X_MISSADDR, "x_missaddr", _miss, 1)
    add(t.X_FAULT, "x_fault", _fault)
    add(t.X_OUT, "x_out", _out)
    add(t.X_DROP, "x_drop", _drop)
    add(t.X_CHAIN, "x_chain", _chain)
    add(t.X_GOTO0, "x_goto0", _goto)
    add(t.X_GOTO2, "x_goto2", _goto, stack=2)
    return out


def emit_miss_common(module: Module) -> None:
    """The shared part of all miss stubs; it lives with the helpers."""
    s = _stencil()
    emit_raw(module, "miss_common", lambda: call(_miss_common, [s]))


HELPERS = (
    run,
    run_inner,
    tlb_miss,
    temporary,
    find_code,
    translate,
    condition_at,
    holds,
    peek_host,
    dma.scatter,
)
__all__ = ["HELPERS", "emit_miss_common", "emit_specials"]
