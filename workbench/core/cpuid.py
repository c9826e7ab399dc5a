"""CPUID: the processor model, as a table (AMD64 manual volume 3, appendix E; SDM volume 2, CPUID).

The vendor is AMD and the family 1Ah, so that an operating system uses none of the mitigations
that are for older processors: no page-table isolation, and (with AutoIBRS, SSB_NO, BTC_NO and
SRSO_NO) neither retpolines nor return thunks.  The level is x86-64-v2.  Virtualisation, PCID,
MONITOR, performance counters and everything wider than SSE are not offered.

Linux reads the timing leaf 40000010h only under the signatures of VMware and KVM; it is here for
guests of our own.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from workbench.core.layout import CR4_OSXSAVE

VENDOR = "AuthenticAMD"
BRAND = "Workbench CPU"
HYPERVISOR = "WorkbenchHV "
FAMILY, MODEL, STEPPING = 0x1A, 0x10, 0
PHYSICAL_BITS, LINEAR_BITS = 40, 48
X87_SSE_BYTES = 576
CLFLUSH_BYTES = 64

# Feature bits by leaf and register: (name, bit).
LEAF_1_ECX = (
    ("sse3", 0),
    ("ssse3", 9),
    ("cx16", 13),
    ("sse4_1", 19),
    ("sse4_2", 20),
    ("x2apic", 21),
    ("movbe", 22),
    ("popcnt", 23),
    ("tsc_deadline", 24),
    ("xsave", 26),
    ("rdrand", 30),
    ("hypervisor", 31),
)
OSXSAVE = 27
LEAF_1_EDX = (
    ("fpu", 0),
    ("de", 2),
    ("pse", 3),
    ("tsc", 4),
    ("msr", 5),
    ("pae", 6),
    ("mce", 7),
    ("cx8", 8),
    ("apic", 9),
    ("sep", 11),
    ("mtrr", 12),
    ("pge", 13),
    ("mca", 14),
    ("cmov", 15),
    ("pat", 16),
    ("pse36", 17),
    ("clflush", 19),
    ("mmx", 23),
    ("fxsr", 24),
    ("sse", 25),
    ("sse2", 26),
)
LEAF_7_EBX = (("fsgsbase", 0), ("smep", 7), ("smap", 20))
EXT_1_ECX = (("lahf_lm", 0),)
EXT_1_EDX = (
    ("fpu", 0),
    ("de", 2),
    ("pse", 3),
    ("tsc", 4),
    ("msr", 5),
    ("pae", 6),
    ("mce", 7),
    ("cx8", 8),
    ("apic", 9),
    ("syscall", 11),
    ("mtrr", 12),
    ("pge", 13),
    ("mca", 14),
    ("cmov", 15),
    ("pat", 16),
    ("pse36", 17),
    ("nx", 20),
    ("mmx", 23),
    ("fxsr", 24),
    ("pdpe1gb", 26),
    ("rdtscp", 27),
    ("lm", 29),
)
EXT_7_EDX = (("invariant_tsc", 8),)
EXT_8_EBX = (("ssb_no", 26), ("btc_no", 29))
EXT_21_EAX = (
    ("no_nested_data_bp", 0),
    ("lfence_serializing", 2),
    ("null_sel_clears_base", 6),
    ("auto_ibrs", 8),
    ("smm_ctl_absent", 9),
    ("srso_no", 29),
)

# Caches: (type, level, ways, sets) as leaf 8000001Dh tells them; 32 KiB, 32 KiB, 512 KiB, 8 MiB.
CACHES = ((1, 1, 8, 64), (2, 1, 8, 64), (3, 2, 8, 1024), (3, 3, 16, 8192))

Regs = tuple[int, int, int, int]  # EAX, EBX, ECX, EDX


def bits(table: tuple[tuple[str, int], ...], without: frozenset[str] = frozenset()) -> int:
    """The mask of a feature table, less the features named."""
    return sum(1 << bit for name, bit in table if name not in without)


def _words(text: str, n: int) -> tuple[int, ...]:
    return struct.unpack(f"<{n}I", text.encode().ljust(4 * n, b"\0"))


@dataclass(frozen=True)
class CpuModel:
    """What a machine can choose: frequency of the time-stamp counter, features to leave out."""

    tsc_khz: int = 1_000_000
    apic_khz: int = 1_000_000
    without: frozenset[str] = frozenset()

    def leaves(self) -> dict[int, Regs]:
        """Every leaf; those with sub-leaves (7, 0Dh) are answered by `cpuid`."""
        signature = (
            (FAMILY - 0xF) << 20 | (MODEL >> 4) << 16 | 0xF << 8 | (MODEL & 0xF) << 4 | STEPPING
        )
        b, d, c = _words(VENDOR, 3)
        w = self.without
        brand = _words(BRAND, 12)
        h = _words(HYPERVISOR, 3)
        return {
            0: (0xD, b, c, d),
            1: (
                signature,
                1 << 16 | (CLFLUSH_BYTES // 8) << 8,
                bits(LEAF_1_ECX, w),
                bits(LEAF_1_EDX, w),
            ),
            7: (0, bits(LEAF_7_EBX, w), 0, 0),
            0x40000000: (0x40000010, h[0], h[1], h[2]),
            0x40000010: (self.tsc_khz, self.apic_khz, 0, 0),
            0x80000000: (0x80000021, b, c, d),
            0x80000001: (signature, 0, bits(EXT_1_ECX, w), bits(EXT_1_EDX, w)),
            0x80000002: (brand[0], brand[1], brand[2], brand[3]),
            0x80000003: (brand[4], brand[5], brand[6], brand[7]),
            0x80000004: (brand[8], brand[9], brand[10], brand[11]),
            0x80000005: (0xFF30FF30, 0xFF30FF30, 0x20080140, 0x20080140),
            0x80000006: (0x48004400, 0x68006400, 0x02006140, 0x00408140),
            0x80000007: (0, 0, 0, bits(EXT_7_EDX, w)),
            0x80000008: (LINEAR_BITS << 8 | PHYSICAL_BITS, bits(EXT_8_EBX, w), 0, 0),
            0x80000021: (bits(EXT_21_EAX, w), 0, 0, 0),
        }


class Cpuid:
    """Answers CPUID for one model."""

    def __init__(self, model: CpuModel) -> None:
        self.model = model
        self._leaves = model.leaves()

    def read(self, leaf: int, subleaf: int, cr4: int, xcr0: int, apic_id: int = 0) -> Regs:
        """EAX EBX ECX EDX; an unknown leaf reads as zeros, as AMD processors do."""
        if leaf == 0xD:
            return self._xsave(subleaf, xcr0)
        if leaf == 0x8000001D and subleaf < len(CACHES):
            kind, level, ways, sets = CACHES[subleaf]
            return (kind | level << 5 | 1 << 8, (ways - 1) << 22 | (CLFLUSH_BYTES - 1), sets - 1, 0)
        if leaf == 7 and subleaf:
            return (0, 0, 0, 0)
        a, b, c, d = self._leaves.get(leaf, (0, 0, 0, 0))
        if leaf == 1:
            b |= apic_id << 24
            if cr4 & CR4_OSXSAVE:
                c |= 1 << OSXSAVE
        return (a, b, c, d)

    def _xsave(self, subleaf: int, xcr0: int) -> Regs:
        """State components: x87 and SSE, both in the legacy area; XSAVEOPT."""
        if "xsave" in self.model.without:
            return (0, 0, 0, 0)
        match subleaf:
            case 0:
                return (3, X87_SSE_BYTES, X87_SSE_BYTES, 0)
            case 1:
                return (1, 0, 0, 0)
            case _:
                return (0, 0, 0, 0)
