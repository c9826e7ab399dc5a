"""Segment registers: descriptors, the checks of a load, and what follows from them for translation.

Descriptor formats, checks and cached fields: SDM volume 3, 3.4 and 5.2-5.5.  A null selector in
FS or GS clears the base (CPUID 80000021 EAX bit 6, as our processor model says).  System
structures (descriptor tables, TSS) that lie in device space read as ones and swallow writes; no
hardware puts them there.
"""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import (
    Emitter,
    Val,
    address_of,
    fn,
    inline,
    likely,
    load,
    select,
    store,
    u32,
    u64,
)
from workbench.core.layout import (
    AC,
    ATTR_DB,
    ATTR_L,
    ATTR_P,
    ATTR_S,
    ATTR_UNUSABLE,
    CPU,
    CR0_PE,
    CR4_SMAP,
    CS,
    DS,
    EFER_LMA,
    ES,
    EXIT_EXCEPTION,
    FS,
    GP,
    GS,
    LDTR,
    MMU_KERNEL,
    MMU_KERNEL_SMAP,
    MMU_USER,
    MODE_16,
    MODE_32,
    MODE_64,
    MODE_CPL3,
    MODE_FLAT,
    MODE_PROT,
    MODE_SS32,
    NP,
    SS,
    SSV,
    TLB_BYTES,
    TR,
    VM,
    WATCH_READ,
)

NO_DESCRIPTOR = (1 << 64) - 1
NO_ICOUNT = (1 << 64) - 1
TYPE_CODE, TYPE_CONFORMING, TYPE_RW, TYPE_ACCESSED, TYPE_DOWN = 8, 4, 2, 1, 4


def buffer(size: int) -> Val:
    """Address (i64) of `size` bytes on the host stack of the function being compiled."""
    e = Emitter.current
    spot = e.fresh()
    e.allocas.append(f"  {spot} = alloca [{size} x i8], align 16")
    return address_of(Val(spot, "ptr"))


@inline
def fault(base: Any, vector: Any, error: Any) -> Any:
    """Note an exception with an error code; the value is the 0 that tells of it."""
    mmu.raise_exception(base, vector, error)
    return u32(0)


@inline
def noncanonical(a: Any) -> Any:
    """Is a linear address not sign-extended from bit 47?  (i1)"""
    return a.sar(47) + 1 > 1


@inline
def is_long(cpu: Any) -> Any:
    """EFER.LMA as i1."""
    return (cpu.efer & EFER_LMA) != 0


@inline
def is_virtual(cpu: Any) -> Any:
    """Real-address or virtual-8086 mode: selectors are paragraph numbers.  (i1)"""
    return ((cpu.cr0 & CR0_PE) == 0) | ((cpu.eflags & VM) != 0)


@inline
def kernel_mmu(cpu: Any) -> Any:
    """The TLB for implicit supervisor accesses (SDM volume 3, 4.6.1)."""
    return select((cpu.cr4 & CR4_SMAP) != 0, u32(MMU_KERNEL_SMAP), u32(MMU_KERNEL))


@inline
def mmu_for(cpu: Any, cpl: Any) -> Any:
    """The TLB for stack accesses at privilege `cpl` (i32) by an instruction or a delivery."""
    return select(cpl == 3, u32(MMU_USER), kernel_mmu(cpu))


@inline
def current_mmu(cpu: Any) -> Any:
    """The TLB of the program that runs."""
    return ((cpu.tlb - address_of(cpu.tlbs.at(0))) // TLB_BYTES).tr(32)


@inline
def linear(cpu: Any, a: Any) -> Any:
    """A linear address cut to 32 bits outside of IA-32e mode."""
    return select(is_long(cpu), a, a & 0xFFFFFFFF)


@fn("ptr", "i64", "i32", "i32", ret="i64")
def sys_load(base: Any, addr: Any, size: Any, how: Any) -> Any:
    """Address of `size` (up to 64) bytes, in RAM or the bounce buffer; 0 with a fault noted."""
    cpu = CPU.view(base)
    if likely(((addr & mmu.PAGE) + size.zx(64)) <= 0x1000):
        host = mmu.probe(base, addr, mmu.READ, how)
        mmu.note_watch(cpu, base, addr, size.zx(64), WATCH_READ, u64(NO_ICOUNT))
    else:
        host = mmu.slow_load(base, how, addr, size.zx(64), u64(NO_ICOUNT))
    if likely(host != 0):
        return host
    if cpu.exit_reason == EXIT_EXCEPTION:
        return u64(0)
    for i in range(8):
        store(address_of(cpu.bounce.at(0)) + i * 8, u64(-1))
    return address_of(cpu.bounce.at(0))


@fn("ptr", "i64", "i64", "i32", "i32", ret="i32")
def sys_store(base: Any, addr: Any, source: Any, size: Any, how: Any) -> Any:
    """Write `size` bytes from a host address; 1, or 0 with a fault noted and nothing written."""
    cpu = CPU.view(base)
    if mmu.slow_store(base, how, addr, source, size.zx(64), u64(NO_ICOUNT)) != 0:
        return u32(1)
    return (cpu.exit_reason != EXIT_EXCEPTION).zx(32)


@inline
def sys_put(base: Any, addr: Any, value: Any, how: Any) -> Any:
    """Write one integer; 1, or 0 with a fault noted."""
    spot = buffer(8)
    store(spot, value)
    return sys_store(base, addr, spot, value.bits // 8, how)


@inline
def attr_of(high: Any) -> Any:
    """Access rights in our format from the upper half of a descriptor."""
    return (high >> 8) & 0xF0FF


@inline
def base_of(low: Any, high: Any) -> Any:
    """The 32-bit base of a descriptor (i64)."""
    return ((low >> 16) | ((high & 0xFF) << 16) | (high & 0xFF000000)).zx(64)


@inline
def limit_of(low: Any, high: Any) -> Any:
    """The limit of a descriptor in bytes (i32)."""
    raw = (low & 0xFFFF) | (high & 0xF0000)
    return select((high & 0x800000) != 0, (raw << 12) | 0xFFF, raw)


@inline
def set_segment(cpu: Any, seg: Any, selector: Any, at: Any, limit: Any, attr: Any) -> None:
    """Write a segment register with its cached descriptor."""
    cpu.seg_sel[seg] = selector.to(16)
    cpu.seg_base[seg] = at
    cpu.seg_limit[seg] = limit
    cpu.seg_attr[seg] = attr


@inline
def set_null(cpu: Any, seg: Any, selector: Any, dpl: Any) -> None:
    """Load a null selector: unusable, base 0, with a DPL (which for SS is the CPL)."""
    set_segment(cpu, seg, selector, u64(0), u32(0), (dpl << 5) | ATTR_UNUSABLE)


@fn("ptr", "i32", ret="i64")
def descriptor_address(base: Any, selector: Any) -> Any:
    """Linear address of a selector's descriptor, or NO_DESCRIPTOR outside of its table."""
    cpu = CPU.view(base)
    table = cpu.gdtr_base
    limit = cpu.gdtr_limit
    if (selector & 4) != 0:
        if (cpu.seg_attr[LDTR] & ATTR_UNUSABLE) != 0:
            return u64(NO_DESCRIPTOR)
        table = cpu.seg_base[LDTR]
        limit = cpu.seg_limit[LDTR]
    if (selector | 7) & 0xFFFF > limit:
        return u64(NO_DESCRIPTOR)
    return linear(cpu, table + (selector & 0xFFF8).zx(64))


@fn("ptr", "i32", "i32", "i32", ret="i64")
def read_descriptor(base: Any, selector: Any, vector: Any, ext: Any) -> Any:
    """Host address of a descriptor; 0 with a fault noted (`vector` if outside of the table)."""
    cpu = CPU.view(base)
    at = descriptor_address(base, selector)
    if at == NO_DESCRIPTOR:
        mmu.raise_exception(base, vector, (selector & 0xFFFC) | ext)
        return u64(0)
    return sys_load(base, at, 8, kernel_mmu(cpu))


@fn("ptr", "i32", "i32", ret="i32")
def mark_accessed(base: Any, selector: Any, high: Any) -> Any:
    """Set the accessed bit of a descriptor, `high` its upper half; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if likely((high & 0x100) != 0):
        return u32(1)
    at = descriptor_address(base, selector)
    return sys_put(base, at + 5, (high >> 8).tr(8) | 1, kernel_mmu(cpu))


@fn("ptr", "i32", "i32", "i32", "i32", ret="i64")
def stack_descriptor(base: Any, selector: Any, cpl: Any, vector: Any, ext: Any) -> Any:
    """The descriptor of a stack segment for privilege `cpl`, now accessed; 0 with a fault noted.

    What does not fit raises `vector`, what is not present #SS (SDM volume 3, 5.7).
    """
    error = (selector & 0xFFFC) | ext
    if (selector & 0xFFFC) == 0:
        mmu.raise_exception(base, vector, ext)
        return u64(0)
    d = read_descriptor(base, selector, vector, ext)
    if d == 0:
        return u64(0)
    whole = load(d, "i64")
    high = (whole >> 32).tr(32)
    attr = attr_of(high)
    writable = (attr & (ATTR_S | TYPE_CODE | TYPE_RW)) == (ATTR_S | TYPE_RW)
    if ((selector & 3) != cpl) | (((attr >> 5) & 3) != cpl) | (writable ^ 1):
        mmu.raise_exception(base, vector, error)
        return u64(0)
    if (attr & ATTR_P) == 0:
        mmu.raise_exception(base, SSV, error)
        return u64(0)
    if mark_accessed(base, selector, high) == 0:
        return u64(0)
    return whole


@fn("ptr", "i32", "i32", "i32", ret="i64")
def data_descriptor(base: Any, selector: Any, cpl: Any, vector: Any) -> Any:
    """The descriptor of a segment to read at privilege `cpl`, now accessed; 0 with a fault noted.

    What does not fit raises `vector`, what is not present #NP (SDM volume 3, 5.6).
    """
    error = selector & 0xFFFC
    d = read_descriptor(base, selector, vector, 0)
    if d == 0:
        return u64(0)
    whole = load(d, "i64")
    high = (whole >> 32).tr(32)
    attr = attr_of(high)
    dpl = (attr >> 5) & 3
    code = (attr & TYPE_CODE) != 0
    bad = ((attr & ATTR_S) == 0) | (code & ((attr & TYPE_RW) == 0))
    private = (code & ((attr & TYPE_CONFORMING) != 0)) ^ 1
    if bad | (private & (((selector & 3) > dpl) | (cpl > dpl))):
        mmu.raise_exception(base, vector, error)
        return u64(0)
    if (attr & ATTR_P) == 0:
        mmu.raise_exception(base, NP, error)
        return u64(0)
    if mark_accessed(base, selector, high) == 0:
        return u64(0)
    return whole


@inline
def set_accessed(cpu: Any, seg: Any, selector: Any, whole: Any) -> None:
    """A segment register from a descriptor that is marked accessed."""
    low = whole.tr(32)
    high = (whole >> 32).tr(32)
    attr = attr_of(high) | TYPE_ACCESSED
    set_segment(cpu, seg, selector, base_of(low, high), limit_of(low, high), attr)


@fn("ptr", "i32", "i32", ret="i32")
def load_segment(base: Any, seg: Any, selector: Any) -> Any:
    """MOV to ES, SS, DS, FS or GS; 1, or 0 with a fault noted (SDM volume 2, MOV)."""
    cpu = CPU.view(base)
    if is_virtual(cpu):
        cpu.seg_sel[seg] = selector.tr(16)
        cpu.seg_base[seg] = (selector << 4).zx(64)
        if (cpu.cr0 & CR0_PE) != 0:
            cpu.seg_limit[seg] = 0xFFFF
            cpu.seg_attr[seg] = 0xF3
        return u32(1)
    cpl = cpu.cpl
    if (selector & 0xFFFC) == 0:
        if seg == SS:
            if ((cpu.mode & 3) != MODE_64) | (cpl == 3) | ((selector & 3) != cpl):
                return fault(base, GP, 0)
            set_null(cpu, seg, selector, cpl)
        else:
            set_null(cpu, seg, selector, u32(0))
        return u32(1)
    whole = u64(0)
    if seg == SS:
        whole = stack_descriptor(base, selector, cpl, u32(GP), u32(0))
    else:
        whole = data_descriptor(base, selector, cpl, u32(GP))
    if whole == 0:
        return u32(0)
    set_accessed(cpu, seg, selector, whole)
    return u32(1)


@fn("ptr", "i32", ret="i32")
def load_ldtr(base: Any, selector: Any) -> Any:
    """LLDT; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if (selector & 0xFFFC) == 0:
        set_null(cpu, LDTR, selector, u32(0))
        return u32(1)
    if (selector & 4) != 0:
        return fault(base, GP, selector & 0xFFFC)
    return load_system(base, u32(LDTR), selector, u32(GP))


@fn("ptr", "i32", ret="i32")
def load_tr(base: Any, selector: Any) -> Any:
    """LTR: the TSS becomes busy; 1, or 0 with a fault noted."""
    if (selector & 0xFFFC) == 0:
        return fault(base, GP, 0)
    if (selector & 4) != 0:
        return fault(base, GP, selector & 0xFFFC)
    return load_system(base, u32(TR), selector, u32(GP))


@fn("ptr", "i32", "i32", "i32", ret="i32")
def load_system(base: Any, seg: Any, selector: Any, vector: Any) -> Any:
    """Load LDTR or TR from a GDT descriptor (16 bytes in IA-32e mode)."""
    cpu = CPU.view(base)
    error = selector & 0xFFFC
    wide = is_long(cpu)
    at = descriptor_address(base, selector)
    if at == NO_DESCRIPTOR:
        return fault(base, vector, error)
    if wide and (selector & 0xFFF8) + 15 > cpu.gdtr_limit:
        return fault(base, vector, error)
    d = sys_load(base, at, select(wide, u32(16), u32(8)), kernel_mmu(cpu))
    if d == 0:
        return u32(0)
    low = load(d, "i32")
    high = load(d + 4, "i32")
    upper = u64(0)
    if wide:
        upper = load(d + 8, "i64")
    attr = attr_of(high)
    kind = attr & 0x1F
    if seg == LDTR:
        if kind != 2:
            return fault(base, vector, error)
    elif (kind != 9) & ((kind != 1) | wide):
        return fault(base, vector, error)
    if (attr & ATTR_P) == 0:
        return fault(base, NP, error)
    start = base_of(low, high) | (upper << 32)
    if wide and noncanonical(start):
        return fault(base, vector, error)
    if seg == TR:
        if sys_put(base, at + 5, (high >> 8).tr(8) | 2, kernel_mmu(cpu)) == 0:
            return u32(0)
        attr |= 2
    set_segment(cpu, seg, selector, start, limit_of(low, high), attr)
    return u32(1)


LAR, LSL, VERR, VERW = range(4)
NONE = 1
"""No descriptor that any of them accepts."""
# System descriptor types that LAR and LSL accept, as bit masks (SDM volume 2, LAR and LSL).
LAR_LEGACY, LAR_LONG, LSL_LEGACY, LSL_LONG = 0x1A3E, 0x1A04, 0x0A0E, 0x0A04


@fn("ptr", "i32", "i32", ret="i64")
def examine(base: Any, selector: Any, what: Any) -> Any:
    """The descriptor if LAR, LSL, VERR or VERW accepts it, else 0; NONE with a fault noted."""
    cpu = CPU.view(base)
    at = descriptor_address(base, selector)
    if ((selector & 0xFFFC) == 0) | (at == NO_DESCRIPTOR):
        return u64(0)
    d = sys_load(base, at, 8, kernel_mmu(cpu))
    if d == 0:
        return u64(NONE)
    whole = load(d, "i64")
    attr = attr_of((whole >> 32).tr(32))
    dpl = (attr >> 5) & 3
    conforming = (attr & (ATTR_S | TYPE_CODE | TYPE_CONFORMING)) == (
        ATTR_S | TYPE_CODE | TYPE_CONFORMING
    )
    ok = conforming | ((cpu.cpl <= dpl) & ((selector & 3) <= dpl))
    if (attr & ATTR_S) == 0:
        legacy = select(what == LAR, u32(LAR_LEGACY), select(what == LSL, u32(LSL_LEGACY), u32(0)))
        wide = select(what == LAR, u32(LAR_LONG), select(what == LSL, u32(LSL_LONG), u32(0)))
        ok &= ((select(is_long(cpu), wide, legacy) >> (attr & 15)) & 1) != 0
    elif what == VERR:
        ok &= ((attr & TYPE_CODE) == 0) | ((attr & TYPE_RW) != 0)
    elif what == VERW:
        ok &= (attr & (TYPE_CODE | TYPE_RW)) == TYPE_RW
    return select(ok, whole, u64(0))


@fn("ptr")
def drop_inaccessible(base: Any) -> None:
    """After a return outward: data segments above the new CPL become null (SDM volume 3, 5.8.6)."""
    cpu = CPU.view(base)
    cpl = cpu.cpl
    for seg in (ES, DS, FS, GS):
        attr = cpu.seg_attr[seg]
        code_private = (attr & (TYPE_CODE | TYPE_CONFORMING)) == (TYPE_CODE | TYPE_CONFORMING)
        if ((attr & ATTR_UNUSABLE) == 0) & (((attr >> 5) & 3) < cpl) & (code_private ^ 1):
            cpu.seg_sel[seg] = 0
            cpu.seg_attr[seg] = ATTR_UNUSABLE
            if is_long(cpu) ^ 1:
                cpu.seg_base[seg] = 0
                cpu.seg_limit[seg] = 0


@inline
def is_flat(cpu: Any, seg: int) -> Any:
    """Can data accesses through `seg` skip every check?  (i1)"""
    attr = cpu.seg_attr[seg]
    if seg == CS:
        usable = (attr & TYPE_RW) != 0
    else:
        usable = (attr & (ATTR_UNUSABLE | TYPE_CODE | TYPE_DOWN | TYPE_RW)) == TYPE_RW
    return usable & (cpu.seg_base[seg] == 0) & (cpu.seg_limit[seg] == 0xFFFFFFFF)


@fn("ptr")
def update_mode(base: Any) -> None:
    """Work out cpl, mode, tlb and jc_key after CS, SS, EFLAGS.VM/AC, CR0, CR4 or EFER changed."""
    cpu = CPU.view(base)
    attr = cpu.seg_attr[CS]
    ss_attr = cpu.seg_attr[SS]
    cpl = (ss_attr >> 5) & 3
    mode = u32(MODE_64 | MODE_PROT)
    if ((cpu.efer & EFER_LMA) == 0) | ((attr & ATTR_L) == 0):
        mode = select((attr & ATTR_DB) != 0, u32(MODE_32), u32(MODE_16))
        if (ss_attr & ATTR_DB) != 0:
            mode |= MODE_SS32
        if (cpu.cr0 & CR0_PE) == 0:
            cpl = u32(0)
        elif (cpu.eflags & VM) != 0:
            cpl = u32(3)
        else:
            mode |= MODE_PROT
        if is_flat(cpu, DS) & is_flat(cpu, ES) & is_flat(cpu, SS) & is_flat(cpu, CS):
            mode |= MODE_FLAT
    which = u64(MMU_USER * TLB_BYTES)
    if cpl == 3:
        mode |= MODE_CPL3
    else:
        smap = ((cpu.cr4 & CR4_SMAP) != 0) & ((cpu.eflags & AC) == 0)
        which = select(smap, u64(MMU_KERNEL_SMAP * TLB_BYTES), u64(MMU_KERNEL * TLB_BYTES))
    cpu.cpl = cpl
    cpu.mode = mode
    cpu.tlb = address_of(cpu.tlbs.at(0)) + which
    cpu.jc_key = mode.zx(64) << 48
