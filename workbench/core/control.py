"""Control registers, EFER and MSRs whose change alters translation (SDM volume 3, 2.5 and 4.1)."""

from __future__ import annotations

from typing import Any

from workbench.core import mmu
from workbench.core.lang import fn, inline, load, select, u32, u64, unlikely
from workbench.core.layout import (
    ATTR_L,
    CPU,
    CR0_CD,
    CR0_ET,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_DE,
    CR4_FSGSBASE,
    CR4_MCE,
    CR4_OSFXSR,
    CR4_OSXMMEXCPT,
    CR4_OSXSAVE,
    CR4_PAE,
    CR4_PCE,
    CR4_PGE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    CR4_TSD,
    CS,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    EFER_SCE,
    GP,
    TR,
)
from workbench.core.segload import fault, is_long, noncanonical, update_mode

CR0_BITS = 0xE005003F
CR4_BITS = (
    CR4_TSD
    | CR4_DE
    | CR4_PSE
    | CR4_PAE
    | CR4_MCE
    | CR4_PGE
    | CR4_PCE
    | CR4_OSFXSR
    | CR4_OSXMMEXCPT
    | CR4_FSGSBASE
    | CR4_OSXSAVE
    | CR4_SMEP
    | CR4_SMAP
)
EFER_AUTOIBRS = 1 << 21
EFER_BITS = EFER_SCE | EFER_LME | EFER_NXE | EFER_AUTOIBRS
# A change of these bits changes what translations mean.
CR0_FLUSH = CR0_PG | CR0_WP | CR0_PE
CR4_FLUSH = CR4_PGE | CR4_PAE | CR4_PSE | CR4_SMEP | CR4_SMAP
PHYS_BITS = (1 << mmu.MAXPHYADDR) - 1

MSR_TSC, MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x10, 0x174, 0x175, 0x176
MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_SFMASK = (
    0xC0000000 + n for n in (0x80, 0x81, 0x82, 0x83, 0x84)
)
MSR_FS_BASE, MSR_GS_BASE, MSR_KERNEL_GS_BASE, MSR_TSC_AUX = (
    0xC0000000 + n for n in (0x100, 0x101, 0x102, 0x103)
)


@fn("ptr", "i64", "i64", "i64", ret="i32")
def check_pdptes(base: Any, cr0: Any, cr3: Any, cr4: Any) -> Any:
    """With PAE paging: are the PDPTEs free of reserved bits?  1, or 0 with #GP noted (4.4.1)."""
    cpu = CPU.view(base)
    if ((cr0 & CR0_PG) == 0) | ((cr4 & CR4_PAE) == 0) | is_long(cpu):
        return u32(1)
    at = cr3 & 0xFFFFFFE0
    for i in range(4):
        host = mmu.phys_host(base, at + i * 8)
        if host != 0:
            pdpte = load(host, "i64")
            if ((pdpte & 1) != 0) & ((pdpte & ~(PHYS_BITS & ~0x1E6)) != 0):
                return fault(base, GP, 0)
    return u32(1)


@fn("ptr", "i64", ret="i32")
def set_cr0(base: Any, value: Any) -> Any:
    """MOV to CR0; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    old = cpu.cr0
    bad = (value > 0xFFFFFFFF) | (((value & CR0_PG) != 0) & ((value & CR0_PE) == 0))
    bad |= ((value & CR0_NW) != 0) & ((value & CR0_CD) == 0)
    if unlikely(bad):
        return fault(base, GP, 0)
    new = (value & CR0_BITS) | CR0_ET
    efer = cpu.efer
    if ((old ^ new) & CR0_PG) != 0:
        attr = cpu.seg_attr[CS]
        if (new & CR0_PG) != 0:
            if (efer & EFER_LME) != 0:
                tr = cpu.seg_attr[TR]
                if ((cpu.cr4 & CR4_PAE) == 0) | ((attr & ATTR_L) != 0) | ((tr & 0x1D) == 1):
                    return fault(base, GP, 0)
                efer |= EFER_LMA
        else:
            if ((efer & EFER_LMA) != 0) & ((attr & ATTR_L) != 0):
                return fault(base, GP, 0)
            efer &= ~EFER_LMA
    if ((efer & EFER_LMA) == 0) and check_pdptes(base, new, cpu.cr3, cpu.cr4) == 0:
        return u32(0)
    cpu.cr0 = new
    cpu.efer = efer
    if ((old ^ new) & CR0_FLUSH) != 0:
        mmu.tlb_flush_all(base)
    update_mode(base)
    return u32(1)


@fn("ptr", "i64", ret="i32")
def set_cr3(base: Any, value: Any) -> Any:
    """MOV to CR3; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    if is_long(cpu):
        if unlikely((value & ~PHYS_BITS) != 0):
            return fault(base, GP, 0)
    elif check_pdptes(base, cpu.cr0, value, cpu.cr4) == 0:
        return u32(0)
    cpu.cr3 = value
    mmu.tlb_flush(base)
    return u32(1)


@fn("ptr", "i64", ret="i32")
def set_cr4(base: Any, value: Any) -> Any:
    """MOV to CR4; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    old = cpu.cr4
    if unlikely((value & ~CR4_BITS) != 0):
        return fault(base, GP, 0)
    if is_long(cpu) & ((value & CR4_PAE) == 0):
        return fault(base, GP, 0)
    if check_pdptes(base, cpu.cr0, cpu.cr3, value) == 0:
        return u32(0)
    cpu.cr4 = value
    if ((old ^ value) & CR4_FLUSH) != 0:
        mmu.tlb_flush_all(base)
    update_mode(base)
    return u32(1)


@fn("ptr", "i64", ret="i32")
def set_efer(base: Any, value: Any) -> Any:
    """WRMSR of EFER; LMA is read-only and ignored; 1, or 0 with a fault noted."""
    cpu = CPU.view(base)
    old = cpu.efer
    if unlikely((value & ~(EFER_BITS | EFER_LMA)) != 0):
        return fault(base, GP, 0)
    new = (value & EFER_BITS) | (old & EFER_LMA)
    if ((old ^ new) & EFER_LME) != 0 and (cpu.cr0 & CR0_PG) != 0:
        return fault(base, GP, 0)
    cpu.efer = new
    if ((old ^ new) & EFER_NXE) != 0:
        mmu.tlb_flush_all(base)
    update_mode(base)
    return u32(1)


@inline
def tsc_now(cpu: Any, icount: Any) -> Any:
    """The time-stamp counter when `icount` instructions are retired."""
    now_ps = icount * cpu.ps_per_insn + cpu.bias_ps
    return now_ps // cpu.tsc_period_ps + cpu.tsc_offset


# MSRs that live in fields of the processor state: number, field, must be canonical.
FIELD_MSRS = (
    (MSR_KERNEL_GS_BASE, "kernel_gs_base", True),
    (MSR_STAR, "star", False),
    (MSR_LSTAR, "lstar", True),
    (MSR_CSTAR, "cstar", True),
    (MSR_SFMASK, "sfmask", False),
    (MSR_TSC_AUX, "tsc_aux", False),
    (MSR_SYSENTER_CS, "sysenter_cs", False),
    (MSR_SYSENTER_ESP, "sysenter_esp", True),
    (MSR_SYSENTER_EIP, "sysenter_eip", True),
)
NOT_MINE, DONE, FAULTED = 0, 1, 2


@fn("ptr", "i32", "i64", ret="i32")
def rdmsr(base: Any, index: Any, icount: Any) -> Any:
    """The common MSRs: DONE with EDX:EAX set, or NOT_MINE."""
    cpu = CPU.view(base)
    value = u64(0)
    if index == MSR_FS_BASE:
        value = cpu.seg_base[4]
    elif index == MSR_GS_BASE:
        value = cpu.seg_base[5]
    elif index == MSR_EFER:
        value = cpu.efer
    elif index == MSR_TSC:
        value = tsc_now(cpu, icount)
    else:
        found = u32(0)
        for number, field, _ in FIELD_MSRS:
            if index == number:
                value = getattr(cpu, field)
                found = u32(1)
        if found == 0:
            return u32(NOT_MINE)
    cpu.gpr[0] = value & 0xFFFFFFFF
    cpu.gpr[2] = value >> 32
    return u32(DONE)


@fn("ptr", "i32", "i64", ret="i32")
def wrmsr(base: Any, index: Any, value: Any) -> Any:
    """The common MSRs: DONE, FAULTED with #GP noted, or NOT_MINE."""
    cpu = CPU.view(base)
    if index == MSR_EFER:
        return select(set_efer(base, value) != 0, u32(DONE), u32(FAULTED))
    if (index == MSR_FS_BASE) | (index == MSR_GS_BASE):
        if noncanonical(value):
            fault(base, GP, 0)
            return u32(FAULTED)
        cpu.seg_base[index - (MSR_FS_BASE - 4)] = value
        return u32(DONE)
    for number, field, canonical in FIELD_MSRS:
        if index == number:
            if canonical:
                if noncanonical(value):
                    fault(base, GP, 0)
                    return u32(FAULTED)
            setattr(cpu, field, value)
            return u32(DONE)
    return u32(NOT_MINE)
