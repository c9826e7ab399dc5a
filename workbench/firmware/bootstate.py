"""What a loader leaves behind: bytes in memory and the processor's registers, as plain data.

Loaders compute a `BootState` from the image and the memory map, without a machine; `apply` puts it
into one. Attributes of segments have the layout of the VMCS access rights (Intel SDM vol. 3,
24.4.1): type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

from workbench.firmware.errors import LoaderError

if TYPE_CHECKING:
    from workbench.core.machine import Machine

PAGE_BYTES = 0x1000
FOUR_GIB = 1 << 32
MIB = 1 << 20
LEAST_RAM_BYTES = 2 * MIB

CODE64 = 0xA09B
CODE32 = 0xC09B
DATA32 = 0xC093
TSS32_BUSY = 0x008B
LDT = 0x0082

CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_NE = 1 << 5
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_FIXED = 1 << 1


class E820(IntEnum):
    """Types of memory map entries (ACPI 6.4, 15.1)."""

    USABLE = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4


@dataclass(frozen=True, slots=True)
class Region:
    """One entry of the memory map: `size` bytes from guest physical address `base`."""

    base: int
    size: int
    type: int = E820.USABLE

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + self.size


@dataclass(frozen=True, slots=True)
class Segment:
    """The visible selector and the hidden part of one segment register."""

    selector: int
    base: int
    limit: int
    attr: int


@dataclass(slots=True)
class BootState:
    """Memory contents and registers at the first instruction of the guest's own code."""

    memory: list[tuple[int, bytes]] = field(default_factory=list)
    registers: dict[str, int] = field(default_factory=dict)
    segments: dict[str, Segment] = field(default_factory=dict)


class Allocator:
    """Gives out parts of the usable memory below 4 GiB; nothing is given out twice."""

    def __init__(self, regions: list[Region]) -> None:
        self._free = sorted(
            (region.base, min(region.end, FOUR_GIB))
            for region in regions
            if region.type == E820.USABLE and region.base < FOUR_GIB
        )

    def is_free(self, base: int, size: int) -> bool:
        """Tell whether `size` bytes from `base` are usable and not given out."""
        return any(low <= base and base + size <= high for low, high in self._free)

    def reserve(self, base: int, size: int) -> None:
        """Take `size` bytes from `base`, all or those that are free."""
        end = base + size
        kept = []
        for low, high in self._free:
            kept += [(a, b) for a, b in ((low, min(high, base)), (max(low, end), high)) if a < b]
        self._free = kept

    def lowest(self, size: int, align: int = PAGE_BYTES, minimum: int = PAGE_BYTES) -> int | None:
        """Take `size` bytes as low as possible, not below `minimum`; None if there is no room."""
        for low, high in self._free:
            base = -(-max(low, minimum) // align) * align
            if base + size <= high:
                self.reserve(base, size)
                return base
        return None

    def highest(self, size: int, align: int = PAGE_BYTES, end: int = FOUR_GIB) -> int | None:
        """Take `size` bytes as high as possible, ending at or below `end`."""
        for low, high in reversed(self._free):
            base = (min(high, end) - size) // align * align
            if base >= low:
                self.reserve(base, size)
                return base
        return None


def descriptor(segment: Segment) -> int:
    """Return the 8-byte descriptor of a flat code or data segment (SDM vol. 3, 3.4.5)."""
    limit = segment.limit >> 12 if segment.attr & 1 << 15 else segment.limit
    return (
        limit & 0xFFFF
        | (segment.base & 0xFFFFFF) << 16
        | (segment.attr & 0xFF) << 40
        | (limit >> 16 & 0xF) << 48
        | (segment.attr >> 12 & 0xF) << 52
        | (segment.base >> 24 & 0xFF) << 56
    )


def flat_segments(state: BootState, code: Segment, data: Segment, gdt_gpa: int) -> None:
    """Load flat code and data segments, and a descriptor table at `gdt_gpa` that has them."""
    entries = [0] * (max(code.selector, data.selector) // 8 + 1)
    entries[code.selector // 8] = descriptor(code)
    entries[data.selector // 8] = descriptor(data)
    table = struct.pack(f"<{len(entries)}Q", *entries)
    state.memory.append((gdt_gpa, table))
    state.registers |= {
        "gdtr_base": gdt_gpa,
        "gdtr_limit": len(table) - 1,
        "idtr_base": 0,
        "idtr_limit": 0,
    }
    state.segments |= dict.fromkeys(("ds", "es", "fs", "gs", "ss"), data)
    state.segments |= {
        "cs": code,
        "tr": Segment(0, 0, 0xFFFF, TSS32_BUSY),
        "ldtr": Segment(0, 0, 0xFFFF, LDT),
    }


def memory_map(machine: "Machine") -> list[Region]:
    """Return the board's memory map."""
    from workbench.hw.board import e820

    if machine.config.ram_bytes < LEAST_RAM_BYTES:
        raise LoaderError(
            f"the guest has {machine.config.ram_bytes >> 10} KiB of memory; at least "
            f"{LEAST_RAM_BYTES >> 10} KiB are needed: give it more with -m"
        )
    return [Region(base, size, kind) for base, size, kind in e820(machine.config)]


def place_acpi_tables(machine: "Machine", state: BootState, allocator: Allocator) -> int:
    """Add the board's ACPI tables to `state` and return the address of the RSDP."""
    from workbench.hw.acpi import build_tables

    rsdp_gpa, tables = build_tables(machine.config)
    for gpa, data in tables:
        state.memory.append((gpa, data))
        allocator.reserve(gpa, len(data))
    return rsdp_gpa


def bios_data_area(regions: list[Region]) -> list[tuple[int, bytes]]:
    """Return the words of the BIOS data area that kernels look at without a BIOS.

    0x400 has the port of COM1, 0x40E the segment of the EBDA, 0x413 the base memory in KiB.
    """
    base_end = max((r.end for r in regions if r.type == E820.USABLE and r.end <= MIB), default=0)
    return [
        (0x400, struct.pack("<H", 0x3F8)),
        (0x40E, struct.pack("<H", base_end >> 4)),
        (0x413, struct.pack("<H", base_end >> 10)),
    ]


def apply(machine: "Machine", state: BootState) -> None:
    """Put `state` into the machine, whose processor is fresh from reset."""
    for gpa, data in state.memory:
        if gpa + len(data) > FOUR_GIB:
            raise LoaderError(f"the image has a part at {gpa:#x}, above 4 GiB")
        machine.memory.write(gpa, data)
    for name, segment in state.segments.items():
        machine.cpu.set_segment(name, segment.selector, segment.base, segment.limit, segment.attr)
    for name, value in state.registers.items():
        machine.cpu.set(name, value)
