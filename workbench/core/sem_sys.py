"""System instructions: privilege, control registers, descriptor tables, MSRs (SDM volume 2).

What changes the mode, the privilege or the translation of addresses ends its block and goes on
through the run loop.  Far transfers are in sem_sysfar.py.
"""

from __future__ import annotations

from typing import Any

from workbench.core import control, mmu, segload
from workbench.core.lang import Emitter, address_of, inline, select, store, u64, unlikely
from workbench.core.layout import (
    AC,
    CF,
    CR0_TS,
    CR4_FSGSBASE,
    CR4_SMAP,
    CR4_TSD,
    DS,
    ES,
    EXIT_HLT,
    FS,
    GP,
    GS,
    LDTR,
    MMU_KERNEL,
    MMU_KERNEL_SMAP,
    RAX,
    RCX,
    RDX,
    SS,
    TLB_BYTES,
    TR,
    TRAP_LATER,
    UD,
)
from workbench.core.opcodes import row
from workbench.core.segments import in_64bit
from workbench.core.stencil import op

SREGS = {"es": ES, "ss": SS, "ds": DS, "fs": FS, "gs": GS}


@inline
def need_cpl0(s: Any) -> None:
    """#GP(0) unless the privilege level is 0."""
    if unlikely(s.cpu.cpl != 0):
        s.exception(GP, 0)


@inline
def need_protected(s: Any) -> None:
    """#UD in real-address and virtual-8086 mode."""
    if unlikely(segload.is_virtual(s.cpu)):
        s.exception(UD)


@inline
def finish(s: Any, done: Any) -> None:
    """After a helper that executed a transfer: go on where it says, or fault."""
    if unlikely(done == 0):
        s.fault()
    s.to_dispatcher(s.cpu.rip)


# --------------------------------------------------------------------------- control registers


@op("mov_to_cr", ends=True)
def mov_to_cr(s: Any, number: Any, value: Any) -> None:
    need_cpl0(s)
    n = number.get("i32")
    v = select(in_64bit(s.cpu), value.get("i64"), value.get("i64") & 0xFFFFFFFF)
    if n == 3:
        if control.set_cr3(s.base, v) == 0:
            s.fault()
    elif n == 0:
        if control.set_cr0(s.base, v) == 0:
            s.fault()
    elif n == 4:
        if control.set_cr4(s.base, v) == 0:
            s.fault()
    elif n == 2:
        s.cpu.cr2 = v
    elif n == 8:
        s.system("mov_to_cr8", v)
    else:
        s.exception(UD)
    s.to_dispatcher(s.next_pc)


row("0F 22 mod3", "mov_to_cr", "C,Rq")


@op("mov_from_cr")
def mov_from_cr(s: Any, value: Any, number: Any) -> None:
    need_cpl0(s)
    n = number.get("i32")
    r = u64(0)
    if n == 0:
        r = s.cpu.cr0
    elif n == 2:
        r = s.cpu.cr2
    elif n == 3:
        r = s.cpu.cr3
    elif n == 4:
        r = s.cpu.cr4
    elif n == 8:
        s.system("mov_from_cr8", s.hole("OP0"))
    else:
        s.exception(UD)
    value.put(r)


row("0F 20 mod3", "mov_from_cr", "Rq,C")


@op("clts", ends=True)
def clts(s: Any) -> None:
    need_cpl0(s)
    s.cpu.cr0 = s.cpu.cr0 & ~CR0_TS
    s.to_dispatcher(s.next_pc)


row("0F 06", "clts")


@op("lmsw", ends=True)
def lmsw(s: Any, src: Any) -> None:
    """PE can be set but not cleared."""
    need_cpl0(s)
    v = src.get("i16").zx(64) & 15
    old = s.cpu.cr0
    if control.set_cr0(s.base, (old & ~0xE) | v) == 0:
        s.fault()
    s.to_dispatcher(s.next_pc)


row("0F 01 /6", "lmsw", "Ew")


@op("smsw")
def smsw(s: Any, dst: Any) -> None:
    v = s.cpu.cr0
    if dst.is_mem or s.size == 2:
        dst.put(v.tr(16))
    else:
        dst.put(v.tr(s.size * 8))


row("0F 01 /4", "smsw", "Ev")


# --------------------------------------------------------------------------- debug registers


@op("mov_to_dr", ends=True)
def mov_to_dr(s: Any, number: Any, value: Any) -> None:
    need_cpl0(s)
    s.system("mov_to_dr", number.get("i64"), value.get("i64"))


row("0F 23 mod3", "mov_to_dr", "D,Rq")


@op("mov_from_dr")
def mov_from_dr(s: Any, value: Any, number: Any) -> None:
    need_cpl0(s)
    s.system("mov_from_dr", number.get("i64"), s.hole("OP0"))


row("0F 21 mod3", "mov_from_dr", "Rq,D")


# --------------------------------------------------------------------------- caches, TLB, halt


@op("invlpg", ends=True)
def invlpg(s: Any, place: Any) -> None:
    need_cpl0(s)
    mmu.tlb_flush_page(s.base, s.addr)
    s.to_dispatcher(s.next_pc)


row("0F 01 /7 mem", "invlpg", "M")


@op("privileged_nop")
def privileged_nop(s: Any) -> None:
    need_cpl0(s)


row("0F 08", "privileged_nop")
row("0F 09", "privileged_nop")


@op("hlt", ends=True)
def hlt(s: Any) -> None:
    need_cpl0(s)
    s.cpu.rip = s.next_pc
    s.cpu.exit_reason = EXIT_HLT
    s.cpu.budget = s.budget
    Emitter.current.put("ret void")
    close()


def close() -> None:
    """Nothing follows in this stencil."""
    Emitter.current.closed = True


row("F4", "hlt")


# --------------------------------------------------------------------------- time, randomness


@inline
def put_pair(s: Any, value: Any) -> None:
    """EDX:EAX from 64 bits."""
    s.cpu.gpr[RAX] = value & 0xFFFFFFFF
    s.cpu.gpr[RDX] = value >> 32


@inline
def check_tsd(s: Any) -> None:
    if unlikely(((s.cpu.cr4 & CR4_TSD) != 0) & (s.cpu.cpl != 0)):
        s.exception(GP, 0)


@op("rdtsc")
def rdtsc(s: Any) -> None:
    check_tsd(s)
    put_pair(s, control.tsc_now(s.cpu, s.icount))


row("0F 31", "rdtsc")


@op("rdtscp")
def rdtscp(s: Any) -> None:
    check_tsd(s)
    put_pair(s, control.tsc_now(s.cpu, s.icount))
    s.cpu.gpr[RCX] = s.cpu.tsc_aux & 0xFFFFFFFF


row("0F 01 /7 mod3 rm=1", "rdtscp")


@op("rdpmc")
def rdpmc(s: Any) -> None:
    """There are no counters: #GP(0) whatever ECX holds."""
    s.exception(GP, 0)


row("0F 33", "rdpmc")


@op("rdrand", flags="w")
def rdrand(s: Any, dst: Any) -> None:
    """SplitMix64 from the seed of the machine; always succeeds."""
    state = s.cpu.rand_state + 0x9E3779B97F4A7C15
    s.cpu.rand_state = state
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    z = z ^ (z >> 31)
    dst.put(z.tr(s.size * 8))
    s.flags_set(u64(CF))


for _prefix in ("NP", "66"):
    row(f"{_prefix} 0F C7 /6 mod3", "rdrand", "Rv")


# --------------------------------------------------------------------------- MSRs and CPUID


@op("rdmsr", ends=True)
def rdmsr(s: Any) -> None:
    need_cpl0(s)
    if control.rdmsr(s.base, s.cpu.gpr[RCX].tr(32), s.icount) == control.NOT_MINE:
        s.system("rdmsr")
    s.to_dispatcher(s.next_pc)


row("0F 32", "rdmsr")


@op("wrmsr", ends=True)
def wrmsr(s: Any) -> None:
    need_cpl0(s)
    value = (s.cpu.gpr[RAX] & 0xFFFFFFFF) | (s.cpu.gpr[RDX] << 32)
    done = control.wrmsr(s.base, s.cpu.gpr[RCX].tr(32), value)
    if done == control.NOT_MINE:
        s.system("wrmsr")
    if done == control.FAULTED:
        s.fault()
    s.to_dispatcher(s.next_pc)


row("0F 30", "wrmsr")


@op("cpuid", ends=True)
def cpuid(s: Any) -> None:
    s.system("cpuid")


row("0F A2", "cpuid")


@op("fs_gs_base")
def fs_gs_base(s: Any, extra: int, reg: Any) -> None:
    """RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: `extra` is 0 to 3."""
    if unlikely((s.cpu.cr4 & CR4_FSGSBASE) == 0):
        s.exception(UD)
    seg = FS if extra & 1 == 0 else GS
    if extra < 2:
        reg.put(s.cpu.seg_base[seg].tr(s.size * 8))
    else:
        value = reg.get().zx(64)
        if s.size == 8:
            if unlikely(segload.noncanonical(value)):
                s.exception(GP, 0)
        s.cpu.seg_base[seg] = value


for _n in range(4):
    row(f"F3 0F AE /{_n} mod3", "fs_gs_base", "Ry", only64=True, extra=_n)


@op("swapgs")
def swapgs(s: Any) -> None:
    need_cpl0(s)
    old = s.cpu.seg_base[GS]
    s.cpu.seg_base[GS] = s.cpu.kernel_gs_base
    s.cpu.kernel_gs_base = old


row("0F 01 /7 mod3 rm=0", "swapgs", only64=True)


@op("set_ac")
def set_ac(s: Any, extra: int) -> None:
    """STAC (`extra` 1) and CLAC: user pages become reachable or, with CR4.SMAP, not, by another
    TLB.
    """
    if unlikely(s.cpu.cpl != 0):
        s.exception(UD)
    which = u64(MMU_KERNEL * TLB_BYTES)
    if not extra:
        smap = (s.cpu.cr4 & CR4_SMAP) != 0
        which = select(smap, u64(MMU_KERNEL_SMAP * TLB_BYTES), which)
    s.cpu.eflags = s.cpu.eflags | AC if extra else s.cpu.eflags & ~AC
    tlb = address_of(s.cpu.tlbs.at(0)) + which
    s.cpu.tlb = tlb
    s.tail("CONT", tlb=tlb)


row("NP 0F 01 /1 mod3 rm=3", "set_ac", extra=1)
row("NP 0F 01 /1 mod3 rm=2", "set_ac", extra=0)


# --------------------------------------------------------------------------- descriptor tables


@op("load_table", slow_only=True, ends=True)
def load_table(s: Any, extra: int, place: Any) -> None:
    """LGDT (`extra` 0) and LIDT (1); a 16-bit operand size gives a 24-bit base."""
    need_cpl0(s)
    limit = s.load(s.addr, "i16").zx(32)
    if in_64bit(s.cpu):
        at = s.load(s.addr + 2, "i64")
        if unlikely(segload.noncanonical(at)):
            s.exception(GP, 0)
        set_table(s, extra, at, limit)
    else:
        at32 = s.load(s.addr + 2, "i32").zx(64)
        set_table(s, extra, at32 & 0xFFFFFF if s.size == 2 else at32, limit)
    s.to_dispatcher(s.next_pc)


@inline
def set_table(s: Any, which: int, at: Any, limit: Any) -> None:
    if which == 0:
        s.cpu.gdtr_base = at
        s.cpu.gdtr_limit = limit
    else:
        s.cpu.idtr_base = at
        s.cpu.idtr_limit = limit


@op("store_table", slow_only=True, writes_mem=True, ends=True)
def store_table(s: Any, extra: int, place: Any) -> None:
    """SGDT (`extra` 0) and SIDT (1)."""
    at = s.cpu.gdtr_base if extra == 0 else s.cpu.idtr_base
    limit = s.cpu.gdtr_limit if extra == 0 else s.cpu.idtr_limit
    frame = segload.buffer(16)
    store(frame, limit.tr(16))
    store(frame + 2, at)
    size = select(in_64bit(s.cpu), u64(10), u64(6))
    if mmu.slow_store(s.base, s.mmu, s.addr, frame, size, s.icount) == 0:
        s.fault()
    s.to_dispatcher(s.next_pc)


row("0F 01 /2 mem", "load_table", "M", extra=0)
row("0F 01 /3 mem", "load_table", "M", extra=1)
row("0F 01 /0 mem", "store_table", "M", extra=0)
row("0F 01 /1 mem", "store_table", "M", extra=1)


@op("load_system_segment", slow_only=True, writes_beside=True, ends=True)
def load_system_segment(s: Any, extra: int, src: Any) -> None:
    """LLDT (`extra` 0) and LTR (1)."""
    need_protected(s)
    need_cpl0(s)
    selector = src.get("i16").zx(32)
    if extra == 0:
        if segload.load_ldtr(s.base, selector) == 0:
            s.fault()
    elif segload.load_tr(s.base, selector) == 0:
        s.fault()
    s.to_dispatcher(s.next_pc)


row("0F 00 /2", "load_system_segment", "Ew", extra=0)
row("0F 00 /3", "load_system_segment", "Ew", extra=1)


@op("store_system_segment")
def store_system_segment(s: Any, extra: int, dst: Any) -> None:
    """SLDT (`extra` 6) and STR (7)."""
    need_protected(s)
    put_selector(s, dst, s.cpu.seg_sel[extra])


@inline
def put_selector(s: Any, dst: Any, selector: Any) -> None:
    """Memory takes 16 bits, a register its operand size, zero-extended."""
    if dst.is_mem or s.size == 2:
        dst.put(selector)
    else:
        dst.put(selector.zx(s.size * 8))


row("0F 00 /0", "store_system_segment", "Ev", extra=LDTR)
row("0F 00 /1", "store_system_segment", "Ev", extra=TR)


# --------------------------------------------------------------------------- segment registers


@op("mov_from_sreg")
def mov_from_sreg(s: Any, extra: int, dst: Any) -> None:
    put_selector(s, dst, s.cpu.seg_sel[extra])


for _n in range(6):
    row(f"8C /{_n}", "mov_from_sreg", "Ev", extra=_n)


@inline
def after_load(s: Any, seg: int) -> None:
    """The end of a segment load; SS holds interrupts and debug exceptions off for one more
    instruction (SDM volume 3, 6.8.3).
    """
    if seg == SS:
        s.cpu.shadow_icount = s.icount + 1
        s.cpu.trap_dropped = TRAP_LATER
    segload.update_mode(s.base)
    s.to_dispatcher(s.next_pc)


@op("mov_to_sreg", slow_only=True, writes_beside=True, ends=True)
def mov_to_sreg(s: Any, extra: int, src: Any) -> None:
    if segload.load_segment(s.base, extra, src.get("i16").zx(32)) == 0:
        s.fault()
    after_load(s, extra)


@op("push_sreg", mem=True, stack=True)
def push_sreg(s: Any, extra: int) -> None:
    s.push(s.cpu.seg_sel[extra].zx(s.size * 8))


@op("pop_sreg", slow_only=True, writes_mem=True, mem=True, stack=True, ends=True)
def pop_sreg(s: Any, extra: int) -> None:
    selector = s.peek("i16")
    old = s.cpu.gpr[4]
    s.drop(s.size)
    if segload.load_segment(s.base, extra, selector.zx(32)) == 0:
        s.cpu.gpr[4] = old
        s.fault()
    after_load(s, extra)


for _n in SREGS.values():
    row(f"8E /{_n}", "mov_to_sreg", "Ew", extra=_n)
for _code, _n in (("06", ES), ("0E", 1), ("16", SS), ("1E", DS)):
    row(_code, "push_sreg", extra=_n, not64=True)
for _code, _n in (("07", ES), ("17", SS), ("1F", DS)):
    row(_code, "pop_sreg", extra=_n, not64=True)
row("0F A0", "push_sreg", extra=FS, d64=True)
row("0F A8", "push_sreg", extra=GS, d64=True)
row("0F A1", "pop_sreg", extra=FS, d64=True)
row("0F A9", "pop_sreg", extra=GS, d64=True)


@op("load_far_pointer", slow_only=True, writes_beside=True, ends=True)
def load_far_pointer(s: Any, extra: int, dst: Any, place: Any) -> None:
    """LES, LSS, LDS, LFS, LGS."""
    at = s.load(s.addr, f"i{s.size * 8}")
    selector = s.load(s.addr + s.size, "i16")
    if segload.load_segment(s.base, extra, selector.zx(32)) == 0:
        s.fault()
    dst.put(at)
    after_load(s, extra)


row("C4 mem", "load_far_pointer", "Gv,Mp", extra=ES, not64=True)
row("C5 mem", "load_far_pointer", "Gv,Mp", extra=DS, not64=True)
row("0F B2 mem", "load_far_pointer", "Gv,Mp", extra=SS)
row("0F B4 mem", "load_far_pointer", "Gv,Mp", extra=FS)
row("0F B5 mem", "load_far_pointer", "Gv,Mp", extra=GS)
