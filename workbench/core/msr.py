"""Model-specific registers that no device and no field of the CPU structure holds.

Numbers and layouts: SDM volume 4, AMD64 manual volume 2 appendix A.  The table says what each is at
reset and which bits may be written.  Registers that are not in it give #GP(0).
"""

from __future__ import annotations

from dataclasses import dataclass

PHYS_MASK = (1 << 40) - 1
ALL = (1 << 64) - 1
MTRR_COUNT = 8
MTRR_TYPES = (0, 1, 4, 5, 6)
PAT_TYPES = (0, 1, 4, 5, 6, 7)
PAT_RESET = 0x0007040600070406


@dataclass(frozen=True)
class Msr:
    """One MSR: its reset value, bits that a write may set, and bits that a write changes."""

    name: str
    reset: int = 0
    allowed: int = ALL
    changes: int = ALL


def _table() -> dict[int, Msr]:
    t = {
        0x17: Msr("IA32_PLATFORM_ID", allowed=0),
        0x8B: Msr("PATCH_LEVEL", 0x0A101000, changes=0),
        0xFE: Msr("IA32_MTRRCAP", 0x500 | MTRR_COUNT, allowed=0),
        0x179: Msr("IA32_MCG_CAP", 0, allowed=0),
        0x17A: Msr("IA32_MCG_STATUS", 0, 7),
        0x17B: Msr("IA32_MCG_CTL"),
        0x1A0: Msr("IA32_MISC_ENABLE", 1),
        0x1D9: Msr("IA32_DEBUGCTL", 0, 0x7F),
        0x1DB: Msr("LastBranchFromIP", allowed=0),
        0x1DC: Msr("LastBranchToIP", allowed=0),
        0x1DD: Msr("LastIntFromIP", allowed=0),
        0x1DE: Msr("LastIntToIP", allowed=0),
        0x277: Msr("IA32_PAT", PAT_RESET),
        0x2FF: Msr("IA32_MTRR_DEF_TYPE", 0x806, 0xCFF),
        0xC0010010: Msr("SYSCFG", 0x160000),
        0xC0010015: Msr("HWCR", 0x01000010),
        0xC0010016: Msr("IORR_BASE0"),
        0xC0010017: Msr("IORR_MASK0"),
        0xC0010018: Msr("IORR_BASE1"),
        0xC0010019: Msr("IORR_MASK1"),
        0xC001001A: Msr("TOP_MEM", 0xC0000000),
        0xC001001D: Msr("TOP_MEM2"),
        0xC001001F: Msr("NB_CFG"),
        0xC0010055: Msr("IntPendingMessage"),
        0xC0010058: Msr("MmioCfgBaseAddr"),
        0xC0010111: Msr("SMM_BASE", 0x30000),
        0xC0010112: Msr("SMM_ADDR"),
        0xC0010113: Msr("SMM_MASK"),
        0xC0010114: Msr("VM_CR", 0x10),
        0xC0010117: Msr("VM_HSAVE_PA"),
        0xC0010140: Msr("OSVW_ID_LENGTH"),
        0xC0010141: Msr("OSVW_STATUS"),
        0xC0011004: Msr("CPUID_Features"),
        0xC0011005: Msr("ExtFeatures"),
        0xC0011020: Msr("LS_CFG"),
        0xC0011021: Msr("IC_CFG"),
        0xC0011022: Msr("DC_CFG"),
        0xC0011023: Msr("BU_CFG"),
        0xC0011028: Msr("FP_CFG"),
        0xC0011029: Msr("DE_CFG", 2),
        0xC001102A: Msr("BU_CFG2"),
        0xC001102C: Msr("EX_CFG"),
        0xC001102D: Msr("LS_CFG2"),
    }
    for n in range(MTRR_COUNT):
        t[0x200 + 2 * n] = Msr(f"IA32_MTRR_PHYSBASE{n}", 0, (PHYS_MASK & ~0xFFF) | 0xFF)
        t[0x201 + 2 * n] = Msr(f"IA32_MTRR_PHYSMASK{n}", 0, (PHYS_MASK & ~0xFFF) | 0x800)
    fixed = (0x250, 0x258, 0x259, *range(0x268, 0x270))
    for number in fixed:
        t[number] = Msr(f"IA32_MTRR_FIX_{number:x}", 0x0606060606060606)
    return t


TABLE = _table()
_TYPED_PAT = {0x277}
_TYPED_MTRR = {0x250, 0x258, 0x259, *range(0x268, 0x270)}


def acceptable(number: int, value: int) -> bool:
    """May `value` be written to a register of the table?"""
    m = TABLE[number]
    if value & ~m.allowed:
        return False
    if number in _TYPED_PAT:
        return all(b in PAT_TYPES for b in value.to_bytes(8, "little"))
    if number in _TYPED_MTRR:
        return all(b in MTRR_TYPES for b in value.to_bytes(8, "little"))
    if number == 0x2FF or (0x200 <= number < 0x200 + 2 * MTRR_COUNT and not number & 1):
        return (value & 0xFF) in MTRR_TYPES
    return True


class MsrFile:
    """The registers of the table, for one processor; only those written are kept."""

    def __init__(self) -> None:
        self.values: dict[int, int] = {}

    def read(self, number: int) -> int | None:
        """The value; None: there is no such register."""
        return self.value(number) if number in TABLE else None

    def value(self, number: int) -> int:
        """The value of a register of the table; KeyError for another one."""
        return self.values.get(number, TABLE[number].reset)

    def write(self, number: int, value: int) -> bool:
        """Write; False means #GP(0)."""
        m = TABLE.get(number)
        if m is None or not acceptable(number, value):
            return False
        if m.changes:
            old = self.values.get(number, m.reset)
            self.values[number] = (old & ~m.changes) | (value & m.changes)
        return True

    def reset(self) -> None:
        """Values after RESET."""
        self.values.clear()

    def save(self) -> dict[str, int]:
        """State for a snapshot, by number in hexadecimal."""
        return {f"{n:x}": v for n, v in sorted(self.values.items())}

    def restore(self, state: dict[str, int]) -> None:
        """The reverse of `save`; ValueError for a number that is not in the table."""
        values = {int(n, 16): v for n, v in state.items()}
        for n in values:
            if n not in TABLE:
                raise ValueError(f"expected a known MSR, not {n:#x}")
        self.values = values
