"""82441FX PCI and memory controller, PMC (order number 290549), device 0 of bus 0.

PAM and SMRAM take effect on a board with a BIOS (see `shadow`); else they are stored, and the BIOS
area is ordinary RAM. Deliberately not modelled: the DRAM interface, error reporting and the turbo
register's effect. This bridge has no PCI Express, so there is no ECAM: configuration space is
reached by mechanism 1 alone.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from workbench.core.regs import W1C, Reg, array, on_write
from workbench.core.state import sized
from workbench.hw.pci.config import MSE, PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.hw.shadow import modes_of

if TYPE_CHECKING:
    from workbench.hw.shadow import ShadowRam

__all__ = ["I440fx", "I440fxState"]

PMCCFG = Reg("PMCCFG", 0x50, 2, ref="82441FX 3.2")
DETURBO = Reg("DETURBO", 0x52, 1, ref="82441FX 3.2")
DBC = Reg("DBC", 0x53, 1, 0x80, ref="82441FX 3.2")
AXC = Reg("AXC", 0x54, 1, ref="82441FX 3.2")
DRT = Reg("DRT", 0x55, 2, ref="82441FX 3.2")
DRAMC = Reg("DRAMC", 0x57, 1, 0x01, ref="82441FX 3.2")
DRAMT = Reg("DRAMT", 0x58, 1, 0x10, ref="82441FX 3.2")
PAM = array("PAM", 0x59, 1, 7, 1, ref="82441FX 3.2")
DRB = array("DRB", 0x60, 1, 8, 1, reset=0x01, ref="82441FX 3.2")
FDHC = Reg("FDHC", 0x68, 1, ref="82441FX 3.2")
MTT = Reg("MTT", 0x70, 1, ref="82441FX 3.2")
CLT = Reg("CLT", 0x71, 1, 0x10, ref="82441FX 3.2")
SMRAM = Reg("SMRAM", 0x72, 1, 0x02, ref="82441FX 3.2")
D_LCK, D_OPEN = 1 << 4, 1 << 6
ERRCMD = Reg("ERRCMD", 0x90, 1, ref="82441FX 3.2")
ERRSTS = Reg("ERRSTS", 0x91, 1, access=W1C, ref="82441FX 3.2")
TRC = Reg("TRC", 0x93, 1, ref="82441FX 3.2")


@dataclass(slots=True)
class I440fxState(PciState):
    """Registers of the PMC that software can change."""

    pmccfg: int = 0
    deturbo: int = 0
    dbc: int = 0x80
    axc: int = 0
    drt: int = 0
    dramc: int = 0x01
    dramt: int = 0x10
    pam: list[int] = sized(7)
    drb: list[int] = sized(8, 0x01)
    fdhc: int = 0
    mtt: int = 0
    clt: int = 0x10
    smram: int = 0x02
    errcmd: int = 0
    errsts: int = 0
    trc: int = 0


_map = partial(
    config_map,
    "i440fx",
    vendor=0x8086,
    device=0x1237,
    class_code=0x060000,
    revision=0x02,
    extra=(
        PMCCFG, DETURBO, DBC, AXC, DRT, DRAMC, DRAMT, *PAM, *DRB, FDHC, MTT, CLT, SMRAM,
        ERRCMD, ERRSTS, TRC,
    ),
    ref="82441FX 3.2",
)  # fmt: skip


class I440fx(PciFunction[I440fxState]):
    """Host bridge 8086:1237.

    `subsystem` (vendor, device) is that of the board's maker, by which firmware knows the board;
    `shadow` hears of PAM and SMRAM.
    """

    MAP = _map()
    STATE = I440fxState
    COMMAND_WRITABLE = 1 << 6 | 1 << 8
    COMMAND_FIXED = MSE | 1 << 2  # memory space and bus master are always on

    def __init__(
        self,
        name: str = "i440fx",
        subsystem: tuple[int, int] | None = None,
        shadow: ShadowRam | None = None,
    ) -> None:
        self._shadow = shadow
        regmap = None
        if subsystem is not None:
            regmap = _map(subsystem_vendor=subsystem[0], subsystem=subsystem[1])
        super().__init__(name, regmap=regmap)

    @on_write(*PAM)
    def _write_pam(self, n: int, old: int, new: int) -> None:
        if self._shadow is not None:
            self._shadow.decode(modes_of(self.state.pam))

    @on_write(SMRAM)
    def _write_smram(self, old: int, new: int) -> None:
        if self._shadow is None:
            return
        if old & D_LCK:
            self.state.smram = old
        elif new & D_LCK:
            self.state.smram = new & ~D_OPEN
        self._shadow.open_smm(self.state.smram)
