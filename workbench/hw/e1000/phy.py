"""PHY inside the 82540EM: 10/100/1000BASE-T, reached through MDIC (317453, 13.4.7).

It always agrees with the other end on 1000 Mb/s full duplex with pauses. Deliberately not modelled:
cable diagnosis, the pages of registers 29 and 30 (stored only), speeds below 1000 Mb/s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final

from workbench.core.regs import RC, RO, Field, Reg, RegBank, RegMap, on_read, on_write

__all__ = ["LOOPBACK", "MAP", "PHY_ADDRESS", "Phy", "PhyState"]

PHY_ADDRESS: Final = 1
_REF = "317453 13.4.7.1"
LOOPBACK, AN_ENABLE, POWER_DOWN, ISOLATE, AN_RESTART, RESET = (
    1 << 14, 1 << 12, 1 << 11, 1 << 10, 1 << 9, 1 << 15,
)  # fmt: skip
STATUS_FIXED = 0x7949
LINK, AN_COMPLETE = 1 << 2, 1 << 5
SPEC_LINK, SPEC_RESOLVED, SPEC_1000_FULL = 1 << 10, 1 << 11, 0b10 << 14 | 1 << 13
PARTNER = 0x45E1
PARTNER_1000 = 0x3C00

PCTRL = Reg(
    "PCTRL", 0x00, 2, 0x1140,
    fields=(
        Field("SPEED_MSB", 6),
        Field("COLLISION_TEST", 7),
        Field("DUPLEX", 8),
        Field("RESTART_AN", 9),
        Field("ISOLATE", 10),
        Field("POWER_DOWN", 11),
        Field("AN_ENABLE", 12),
        Field("SPEED_LSB", 13),
        Field("LOOPBACK", 14),
        Field("RESET", 15),
    ),
    ref=_REF,
)  # fmt: skip
PSTATUS = Reg(
    "PSTATUS", 0x02, 2, STATUS_FIXED, RO,
    (
        Field("EXTENDED_CAPABILITY", 0),
        Field("JABBER", 1),
        Field("LINK", 2),
        Field("AN_ABILITY", 3),
        Field("REMOTE_FAULT", 4),
        Field("AN_COMPLETE", 5),
        Field("PREAMBLE_SUPPRESSION", 6),
        Field("EXTENDED_STATUS", 8),
        Field("ABILITIES", 9, 7),
    ),
    _REF,
)  # fmt: skip
PHYID1 = Reg("PHYID1", 0x04, 2, 0x0141, RO, ref=_REF)
PHYID2 = Reg("PHYID2", 0x06, 2, 0x0C20, RO, ref=_REF)
ANA = Reg("ANA", 0x08, 2, 0x0DE1, ref=_REF)
LPA = Reg("LPA", 0x0A, 2, 0, RO, ref=_REF)
ANE = Reg("ANE", 0x0C, 2, 0x0004, RO, ref=_REF)
NPT = Reg("NPT", 0x0E, 2, 0x2001, ref=_REF)
LPN = Reg("LPN", 0x10, 2, 0, RO, ref=_REF)
GCON = Reg("GCON", 0x12, 2, 0x0E00, ref=_REF)
GSTATUS = Reg("GSTATUS", 0x14, 2, 0, RO, ref=_REF)
ESTATUS = Reg("ESTATUS", 0x1E, 2, 0x3000, RO, ref=_REF)
PSCON = Reg("PSCON", 0x20, 2, 0x0360, ref=_REF)
PSSTAT = Reg(
    "PSSTAT", 0x22, 2, 0, RO,
    (
        Field("JABBER", 0),
        Field("POLARITY", 1),
        Field("DOWNSHIFT", 5),
        Field("MDIX", 6),
        Field("CABLE_LENGTH", 7, 3),
        Field("LINK", 10),
        Field("RESOLVED", 11),
        Field("DUPLEX", 13),
        Field("SPEED", 14, 2, values={0: "10", 1: "100", 2: "1000"}),
    ),
    _REF,
)  # fmt: skip
PINTE = Reg("PINTE", 0x24, 2, ref=_REF)
PINTS = Reg("PINTS", 0x26, 2, 0, RC, (Field("LINK_CHANGED", 10), Field("AN_COMPLETED", 11)), _REF)
EPSCON1 = Reg("EPSCON1", 0x28, 2, 0x0D60, ref=_REF)
PREC = Reg("PREC", 0x2A, 2, 0, RO, ref=_REF)
EPSCON2 = Reg("EPSCON2", 0x34, 2, 0x000C, ref=_REF)
R30PS = Reg("R30PS", 0x3A, 2, ref=_REF)
R30AW = Reg("R30AW", 0x3C, 2, ref=_REF)

MAP = RegMap(
    "e1000-phy",
    64,
    (
        PCTRL, PSTATUS, PHYID1, PHYID2, ANA, LPA, ANE, NPT, LPN, GCON, GSTATUS, ESTATUS, PSCON,
        PSSTAT, PINTE, PINTS, EPSCON1, PREC, EPSCON2, R30PS, R30AW,
    ),
    ref="317453 13.4.7.1; offsets are twice the register's number",
)  # fmt: skip


@dataclass(slots=True)
class PhyState:
    """Registers; `link`: agreed with the other end; `cable`: plugged in."""

    pctrl: int = 0x1140
    ana: int = 0x0DE1
    npt: int = 0x2001
    gcon: int = 0x0E00
    pscon: int = 0x0360
    pinte: int = 0
    pints: int = 0
    epscon1: int = 0x0D60
    epscon2: int = 0x000C
    r30ps: int = 0
    r30aw: int = 0
    link: bool = False
    cable: bool = True


class Phy(RegBank[PhyState]):
    """The registers. `negotiate` is called to begin negotiation anew, `interrupt` for PHYINT."""

    MAP = MAP
    STATE = PhyState

    def __init__(
        self, state: PhyState, negotiate: Callable[[], None], interrupt: Callable[[], None]
    ) -> None:
        self._negotiate = negotiate
        self._interrupt = interrupt
        super().__init__("phy", state=state)

    @property
    def can_link(self) -> bool:
        """Is there anything to negotiate with?"""
        return self.state.cable and not self.state.pctrl & (POWER_DOWN | ISOLATE)

    def power_on(self) -> None:
        """Reset of the PHY; the cable stays."""
        fresh = PhyState(cable=self.state.cable, link=self.state.link)
        for item in fields(PhyState):
            setattr(self.state, item.name, getattr(fresh, item.name))
        self._negotiate()

    def set_link(self, link: bool) -> None:
        """Negotiation has ended, or the link is lost."""
        state = self.state
        if state.link == link:
            return
        state.link = link
        state.pints |= 1 << 10 | (1 << 11 if link else 0)
        if state.pints & state.pinte:
            self._interrupt()

    @on_write(PCTRL)
    def _write_pctrl(self, old: int, new: int) -> None:
        self.state.pctrl = new & ~(RESET | AN_RESTART)
        if new & RESET:
            self.power_on()
        elif new & AN_RESTART or (old ^ new) & (POWER_DOWN | ISOLATE | AN_ENABLE):
            self._negotiate()

    @on_read(PSTATUS)
    def _read_pstatus(self) -> int:
        return STATUS_FIXED | (LINK | AN_COMPLETE if self.state.link else 0)

    @on_read(PSSTAT)
    def _read_psstat(self) -> int:
        up = SPEC_LINK | SPEC_RESOLVED | SPEC_1000_FULL
        return up if self.state.link else 0

    @on_read(LPA)
    def _read_lpa(self) -> int:
        return PARTNER if self.state.link else 0

    @on_read(ANE)
    def _read_ane(self) -> int:
        return 0x0007 if self.state.link else 0x0004

    @on_read(GSTATUS)
    def _read_gstatus(self) -> int:
        return PARTNER_1000 if self.state.link else 0
