"""Configuration space of a PCI function, header type 0 (PCI Local Bus Specification 3.0, chapter
6).

`config_map` makes the register map of one function: the common header, its capabilities and its own
registers. What all functions treat alike are the same `Reg` objects in every map, so that
`PciFunction` can handle them.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from workbench.core.regs import RO, W1C, Field, Reg, RegMap, array
from workbench.core.state import sized

__all__ = [
    "BAR",
    "BAR_COUNT",
    "COMMAND",
    "CONFIG_BYTES",
    "INTERRUPT_LINE",
    "ROM",
    "STATUS",
    "Bar",
    "Capability",
    "PciState",
    "config_map",
]

CONFIG_BYTES: Final = 256
BAR_COUNT: Final = 6

COMMAND = Reg(
    "COMMAND", 0x04, 2,
    fields=(
        Field("IOSE", 0),
        Field("MSE", 1),
        Field("BME", 2),
        Field("SCE", 3),
        Field("MWIE", 4),
        Field("VGASE", 5),
        Field("PERE", 6),
        Field("SERRE", 8),
        Field("FBBE", 9),
        Field("INTD", 10),
    ),
    ref="PCI 3.0 6.2.2",
)  # fmt: skip
STATUS = Reg(
    "STATUS", 0x06, 2,
    fields=(
        Field("INTS", 3, access=RO),
        Field("CAPL", 4, access=RO),
        Field("66M", 5, access=RO),
        Field("FBC", 7, access=RO),
        Field("MDPE", 8, access=W1C),
        Field("DEVT", 9, 2, RO, {1: "medium"}),
        Field("STA", 11, access=W1C),
        Field("RTA", 12, access=W1C),
        Field("RMA", 13, access=W1C),
        Field("SSE", 14, access=W1C),
        Field("DPE", 15, access=W1C),
    ),
    ref="PCI 3.0 6.2.3",
)  # fmt: skip
CACHE_LINE_SIZE = Reg("CACHE_LINE_SIZE", 0x0C, 1, ref="PCI 3.0 6.2.4")
LATENCY_TIMER = Reg("LATENCY_TIMER", 0x0D, 1, ref="PCI 3.0 6.2.4")
BIST = Reg("BIST", 0x0F, 1, access=RO, ref="PCI 3.0 6.2.4")
BAR = array("BAR", 0x10, 4, BAR_COUNT, 4, ref="PCI 3.0 6.2.5.1")
ROM = Reg("ROM", 0x30, 4, fields=(Field("EN", 0), Field("BASE", 11, 21)), ref="PCI 3.0 6.2.5.2")
INTERRUPT_LINE = Reg("INTERRUPT_LINE", 0x3C, 1, ref="PCI 3.0 6.2.4")

IOSE, MSE, BME, INTD = 1 << 0, 1 << 1, 1 << 2, 1 << 10
STATUS_INTS, STATUS_CAPL, STATUS_RMA = 1 << 3, 1 << 4, 1 << 13
DEVSEL_MEDIUM: Final = 1 << 9


@dataclass(slots=True)
class PciState:
    """What every function has; a device adds its own fields in a subclass."""

    command: int = 0
    status: int = 0
    cache_line_size: int = 0
    latency_timer: int = 0
    bar: list[int] = sized(BAR_COUNT)
    rom: int = 0
    interrupt_line: int = 0
    intx: int = 0  # level that the device asks for, before INTD


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register of a function; a 64-bit one takes the next index too."""

    index: int
    size: int
    io: bool = False
    prefetchable: bool = False
    wide: bool = False

    def __post_init__(self) -> None:
        least = 4 if self.io else 16
        if self.size < least or self.size & self.size - 1:
            raise ValueError(f"expected a power of two from {least} on, not {self.size!r}")
        if not 0 <= self.index < BAR_COUNT - self.wide or (self.wide and self.io):
            raise ValueError(f"expected a base address register 0 to 5, not {self!r}")

    @property
    def type_bits(self) -> int:
        """The read-only low bits (6.2.5.1)."""
        if self.io:
            return 1
        return (8 if self.prefetchable else 0) | (4 if self.wide else 0)


@dataclass(frozen=True, slots=True)
class Capability:
    """One entry of the capabilities list (6.7); `regs` have offsets in the whole space."""

    name: str
    id: int
    offset: int
    regs: tuple[Reg, ...] = field(default=())


def config_map(
    name: str,
    *,
    vendor: int,
    device: int,
    class_code: int,
    revision: int = 0,
    header_type: int = 0,
    subsystem_vendor: int = 0,
    subsystem: int = 0,
    interrupt_pin: int = 0,
    min_gnt: int = 0,
    max_lat: int = 0,
    capabilities: Sequence[Capability] = (),
    extra: Sequence[Reg] = (),
    ref: str = "",
) -> RegMap:
    """Register map of one function.

    `class_code` is base class, sub-class and interface in 24 bits; `interrupt_pin` 1 is INTA.
    The list of capabilities is linked in the order given.
    """
    regs = [
        Reg("VENDOR_ID", 0x00, 2, vendor, RO, ref="PCI 3.0 6.2.1"),
        Reg("DEVICE_ID", 0x02, 2, device, RO, ref="PCI 3.0 6.2.1"),
        COMMAND,
        STATUS,
        Reg("REVISION_ID", 0x08, 1, revision, RO, ref="PCI 3.0 6.2.1"),
        Reg("INTERFACE", 0x09, 1, class_code & 0xFF, RO, ref="PCI 3.0 6.2.1"),
        Reg("CLASS", 0x0A, 2, class_code >> 8, RO, ref="PCI 3.0 6.2.1"),
        CACHE_LINE_SIZE,
        LATENCY_TIMER,
        Reg("HEADER_TYPE", 0x0E, 1, header_type, RO, ref="PCI 3.0 6.2.1"),
        BIST,
        *BAR,
        Reg("CARDBUS_CIS", 0x28, 4, 0, RO, ref="PCI 3.0 6.2.4"),
        Reg("SUBSYSTEM_VENDOR_ID", 0x2C, 2, subsystem_vendor, RO, ref="PCI 3.0 6.2.4"),
        Reg("SUBSYSTEM_ID", 0x2E, 2, subsystem, RO, ref="PCI 3.0 6.2.4"),
        ROM,
        Reg(
            "CAP_PTR", 0x34, 1, capabilities[0].offset if capabilities else 0, RO, ref="PCI 3.0 6.7"
        ),
        INTERRUPT_LINE,
        Reg("INTERRUPT_PIN", 0x3D, 1, interrupt_pin, RO, ref="PCI 3.0 6.2.4"),
        Reg("MIN_GNT", 0x3E, 1, min_gnt, RO, ref="PCI 3.0 6.2.4"),
        Reg("MAX_LAT", 0x3F, 1, max_lat, RO, ref="PCI 3.0 6.2.4"),
    ]
    for i, cap in enumerate(capabilities):
        after = capabilities[i + 1].offset if i + 1 < len(capabilities) else 0
        regs.append(Reg(f"{cap.name}_CAP_ID", cap.offset, 1, cap.id, RO, ref="PCI 3.0 6.7"))
        regs.append(Reg(f"{cap.name}_NEXT", cap.offset + 1, 1, after, RO, ref="PCI 3.0 6.7"))
        regs.extend(cap.regs)
    return RegMap(name, CONFIG_BYTES, (*regs, *extra), ref or "PCI 3.0 6.1")
