"""The processor: registers, flags and control registers by bit, segments (SDM volume 3, 2, 3)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from workbench.core import layout as lay
from workbench.core.regs import Field
from workbench.inspect.banks import bits
from workbench.inspect.page import Page, Table, pairs, table

if TYPE_CHECKING:
    from workbench.core.engine import Cpu
    from workbench.core.machine import Machine

__all__ = ["cpu", "mode_text"]


def _fields(*names: tuple[str, int]) -> tuple[Field, ...]:
    return tuple(Field(name, lsb) for name, lsb in names)


_RFLAGS: Final = (
    *_fields(("CF", 0), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9)),
    *_fields(("DF", 10), ("OF", 11)),
    Field("IOPL", 12, 2),
    *_fields(("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21)),
)
_CR0: Final = _fields(
    ("PE", 0), ("MP", 1), ("EM", 2), ("TS", 3), ("ET", 4), ("NE", 5), ("WP", 16), ("AM", 18),
    ("NW", 29), ("CD", 30), ("PG", 31),
)  # fmt: skip
_CR4: Final = _fields(
    ("VME", 0), ("PVI", 1), ("TSD", 2), ("DE", 3), ("PSE", 4), ("PAE", 5), ("MCE", 6), ("PGE", 7),
    ("PCE", 8), ("OSFXSR", 9), ("OSXMMEXCPT", 10), ("UMIP", 11), ("LA57", 12), ("FSGSBASE", 16),
    ("PCIDE", 17), ("OSXSAVE", 18), ("SMEP", 20), ("SMAP", 21), ("PKE", 22),
)  # fmt: skip
_EFER: Final = _fields(("SCE", 0), ("LME", 8), ("LMA", 10), ("NXE", 11))
_DR7: Final = _fields(
    *((f"{kind}{n}", 2 * n + at) for n in range(4) for at, kind in enumerate("LG")),
    ("LE", 8), ("GE", 9), ("GD", 13),
)  # fmt: skip
_MXCSR: Final = _fields(
    *((name, n) for n, name in enumerate(("IE", "DE", "ZE", "OE", "UE", "PE", "DAZ"))),
    *((name, n) for n, name in enumerate(("IM", "DM", "ZM", "OM", "UM", "PM"), start=7)),
    ("FZ", 15),
)  # fmt: skip
_MSRS: Final = (
    ("kernel_gs_base", "KERNEL_GS_BASE"), ("star", "STAR"), ("lstar", "LSTAR"),
    ("cstar", "CSTAR"), ("sfmask", "FMASK"), ("sysenter_cs", "SYSENTER_CS"),
    ("sysenter_esp", "SYSENTER_ESP"), ("sysenter_eip", "SYSENTER_EIP"), ("tsc_aux", "TSC_AUX"),
)  # fmt: skip


def mode_text(cpu: Cpu) -> str:
    """The mode and the privilege in words."""
    if not cpu.get("cr0") & lay.CR0_PE:
        return "real mode"
    if cpu.get("rflags") & lay.VM:
        return "virtual-8086 mode"
    attr = cpu.get("seg_attr", lay.CS)
    if cpu.get("efer") & lay.EFER_LMA:
        mode = "64-bit mode" if attr & lay.ATTR_L else "compatibility mode"
    else:
        mode = "protected mode"
    if not (cpu.get("efer") & lay.EFER_LMA and attr & lay.ATTR_L):
        mode += ", 32-bit code" if attr & lay.ATTR_DB else ", 16-bit code"
    return f"{mode}, CPL {cpu.get('cpl')}"


def cpu(machine: Machine, name: str, rows: int) -> Page:
    """The one processor."""
    found = machine.cpu
    names = (*lay.GPRS, "rip")
    tables = (
        pairs("state", [("mode", mode_text(found)), ("halted", "yes" if machine.halted else "no")]),
        table("registers", ("", "value"), ((n, f"{found.get(n):016x}") for n in names)),
        table("flags and control", ("", "value", "fields"), _control(found)),
        table("segments", ("", "selector", "base", "limit", "attributes"), _segments(found)),
        table("MSRs", ("", "value"), ((text, f"{found.get(n):#x}") for n, text in _MSRS)),
        _float(found),
    )
    return Page(name, "processor", tables)


def _control(cpu: Cpu) -> Iterator[tuple[str, str, str]]:
    yield "RFLAGS", f"{cpu.get('rflags'):#x}", bits(_RFLAGS, cpu.get("rflags") & ~2)
    yield "CR0", f"{cpu.get('cr0'):#x}", bits(_CR0, cpu.get("cr0"))
    yield "CR2", f"{cpu.get('cr2'):#x}", ""
    yield "CR3", f"{cpu.get('cr3'):#x}", f"PCID {cpu.get('cr3') & 0xFFF:#x}"
    yield "CR4", f"{cpu.get('cr4'):#x}", bits(_CR4, cpu.get("cr4"))
    yield "EFER", f"{cpu.get('efer'):#x}", bits(_EFER, cpu.get("efer"))
    yield "XCR0", f"{cpu.get('xcr0'):#x}", ""
    for n in (0, 1, 2, 3, 6):
        yield f"DR{n}", f"{cpu.get('dr', n):#x}", ""
    yield "DR7", f"{cpu.get('dr', 7):#x}", bits(_DR7, cpu.get("dr", 7) & ~0xFFFF_0400)
    yield "GDTR", f"{cpu.get('gdtr_base'):#x}", f"limit {cpu.get('gdtr_limit'):#x}"
    yield "IDTR", f"{cpu.get('idtr_base'):#x}", f"limit {cpu.get('idtr_limit'):#x}"


def _segments(cpu: Cpu) -> Iterator[tuple[str, ...]]:
    for name in lay.SEGMENTS:
        selector, base, limit, attr = cpu.get_segment(name)
        yield name.upper(), f"{selector:#06x}", f"{base:#x}", f"{limit:#x}", _attributes(attr)


def _attributes(attr: int) -> str:
    if attr & lay.ATTR_UNUSABLE:
        return "unusable"
    kind = attr & 0xF
    if not attr & lay.ATTR_S:
        words = [f"system, type {kind}"]
    elif kind & 8:
        words = ["code", "readable" if kind & 2 else "execute only"]
        words += ["64-bit"] if attr & lay.ATTR_L else ["32-bit" if attr & lay.ATTR_DB else "16-bit"]
    else:
        words = ["data", "writable" if kind & 2 else "read only"]
    words.append(f"DPL {attr >> 5 & 3}")
    return ", ".join(words if attr & lay.ATTR_P else [*words, "not present"])


def _float(cpu: Cpu) -> Table:
    mxcsr = cpu.get("mxcsr")
    rows = [
        ("MXCSR", f"{mxcsr:#06x}", bits(_MXCSR, mxcsr & ~0x6000)),
        ("FCW", f"{cpu.get('fpu_cw'):#06x}", ""),
        ("FSW", f"{cpu.get('fpu_sw'):#06x}", f"TOP {cpu.get('fpu_top')}"),
        *((f"XMM{n}", f"{cpu.get('xmm', n):032x}", "") for n in range(16)),
    ]
    return table("SSE and x87", ("", "value", "fields"), rows)
