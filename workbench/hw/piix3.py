"""82371SB (PIIX3) function 0: PCI-to-ISA bridge and router of the PCI interrupts (290550-002).

The reset control register at port 0xCF9 is reached through the host bridge (see `pci_root`), the
edge/level control registers lie with the 8259s. Deliberately not modelled: X-bus chip selects,
motherboard DMA steering, SMI generation and the programmable chip select; their registers are
stored.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from workbench.core.irq import IrqLine
from workbench.core.regs import Field, Reg, array, on_write
from workbench.core.state import sized
from workbench.hw.pci.config import PciState, config_map
from workbench.hw.pci.function import PciFunction

__all__ = ["PIRQRC", "ROUTABLE", "Piix3", "Piix3State"]

ROUTABLE: Final = (3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15)
NOT_ROUTED: Final = 0x80

IORT = Reg("IORT", 0x4C, 1, 0x4D, ref="82371SB 2.2")
XBCS = Reg("XBCS", 0x4E, 2, 0x0003, ref="82371SB 2.2")
PIRQRC = array(
    "PIRQRC", 0x60, 1, 4, 1, reset=NOT_ROUTED,
    fields=(Field("IRQ", 0, 4), Field("OFF", 7)),
    ref="82371SB 2.2",
)  # fmt: skip
TOM = Reg("TOM", 0x69, 1, 0x02, ref="82371SB 2.2")
MSTAT = Reg("MSTAT", 0x6A, 2, ref="82371SB 2.2")
MBIRQ = array("MBIRQ", 0x70, 1, 2, 1, reset=NOT_ROUTED, ref="82371SB 2.2")
MBDMA = array("MBDMA", 0x76, 1, 2, 1, reset=0x0C, ref="82371SB 2.2")
PCSC = Reg("PCSC", 0x78, 2, 0x0002, ref="82371SB 2.2")
APICBASE = Reg("APICBASE", 0x80, 1, ref="82371SB 2.2")
DLC = Reg(
    "DLC", 0x82, 1,
    fields=(
        Field("DTE", 0),
        Field("PRE", 1),
        Field("UPE", 2),
        Field("SERRE", 3),
    ),
    ref="82371SB 2.2",
)  # fmt: skip
SMICNTL = Reg("SMICNTL", 0xA0, 1, 0x08, ref="82371SB 2.2")
SMIEN = Reg("SMIEN", 0xA2, 2, ref="82371SB 2.2")
SEE = Reg("SEE", 0xA4, 4, ref="82371SB 2.2")
FTMR = Reg("FTMR", 0xA8, 1, 0x0F, ref="82371SB 2.2")
SMIREQ = Reg("SMIREQ", 0xAA, 2, ref="82371SB 2.2")
CTLTMR = Reg("CTLTMR", 0xAC, 1, ref="82371SB 2.2")
CTHTMR = Reg("CTHTMR", 0xAE, 1, ref="82371SB 2.2")


@dataclass(slots=True)
class Piix3State(PciState):
    """Registers, and the levels at the inputs of the router."""

    iort: int = 0x4D
    xbcs: int = 0x0003
    pirqrc: list[int] = sized(4, NOT_ROUTED)
    tom: int = 0x02
    mstat: int = 0
    mbirq: list[int] = sized(2, NOT_ROUTED)
    mbdma: list[int] = sized(2, 0x0C)
    pcsc: int = 0x0002
    apicbase: int = 0
    dlc: int = 0
    smicntl: int = 0x08
    smien: int = 0
    see: int = 0
    ftmr: int = 0x0F
    smireq: int = 0
    ctltmr: int = 0
    cthtmr: int = 0
    pirq: list[int] = sized(4)


class Piix3(PciFunction[Piix3State]):
    """ISA bridge 8086:7000. `irq(name, n)` makes a driver of ISA interrupt n."""

    MAP = config_map(
        "piix3",
        vendor=0x8086,
        device=0x7000,
        class_code=0x060100,
        header_type=0x80,  # IDE, USB or power management are further functions
        extra=(
            IORT, XBCS, *PIRQRC, TOM, MSTAT, *MBIRQ, *MBDMA, PCSC, APICBASE, DLC, SMICNTL, SMIEN,
            SEE, FTMR, SMIREQ, CTLTMR, CTHTMR,
        ),
        ref="82371SB 2.2",
    )  # fmt: skip
    STATE = Piix3State
    COMMAND_WRITABLE = 1 << 3
    COMMAND_FIXED = 0x7  # I/O, memory and bus master are always on

    def __init__(self, irq: Callable[[str, int], IrqLine], name: str = "piix3") -> None:
        # Wires
        self._lines = [
            {n: irq(f"{name}.PIRQ{'ABCD'[pirq]}", n) for n in ROUTABLE} for pirq in range(4)
        ]
        super().__init__(name)

    def reset(self) -> None:
        """Nothing is routed; the levels at the inputs stay, they belong to others."""
        levels = self.state.pirq
        super().reset()
        self.state.pirq = levels
        self._sync_irq()

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; outputs get their levels without edges."""
        super().restore(data)
        for pirq in range(4):
            chosen = self._route(pirq)
            for line in self._lines[pirq].values():
                line.restore(line is chosen and bool(self.state.pirq[pirq]))

    def set_pirq(self, pirq: int, level: bool) -> None:
        """Input PIRQ[A:D]."""
        self.state.pirq[pirq] = int(level)
        line = self._route(pirq)
        if line is not None:
            line.set(level)

    def _route(self, pirq: int) -> IrqLine | None:
        register = self.state.pirqrc[pirq]
        return None if register & NOT_ROUTED else self._lines[pirq].get(register & 0xF)

    def _sync_irq(self) -> None:
        for pirq in range(4):
            chosen = self._route(pirq)
            for line in self._lines[pirq].values():
                line.set(line is chosen and bool(self.state.pirq[pirq]))

    @on_write(*PIRQRC)
    def _write_pirqrc(self, pirq: int, old: int, new: int) -> None:
        self._sync_irq()
