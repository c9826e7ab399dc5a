"""82371AB (PIIX4) function 3: power management with ACPI's PM1 and GPE0 blocks (290562-001).

Deliberately not modelled: the SMBus host controller (reads as disabled), device monitors, SMI,
clock throttling and C2/C3 (PCNTRL is stored, PLVL2 and PLVL3 read 0), and all sleep states but soft
off. SCI_EN is set by firmware, see `board`.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from workbench.core.bus import Window
from workbench.core.clock import PS_PER_SECOND, Clock
from workbench.core.irq import IrqLine
from workbench.core.polls import Steady
from workbench.core.regs import (
    RO,
    W1C,
    Field,
    Reg,
    RegBank,
    RegMap,
    array,
    on_command,
    on_read,
    on_write,
)
from workbench.core.state import sized
from workbench.hw.decode import MovableWindow
from workbench.hw.layout import PM_TIMER_HZ
from workbench.hw.pci.config import DEVSEL_MEDIUM, PciState, config_map
from workbench.hw.pci.function import PciFunction

__all__ = ["IO_MAP", "Piix4Pm", "Piix4PmState", "PmIo", "PmIoState"]

PMTMR_BITS: Final = 24
PMIO_BYTES: Final = 64

TMROF_STS, PWRBTN_STS, RSM_STS = 1 << 0, 1 << 8, 1 << 15
PM1_EVENTS: Final = 1 << 0 | 1 << 5 | 1 << 8 | 1 << 10  # bits that PMSTS and PMEN share
SCI_EN, SUS_EN = 1 << 0, 1 << 13
APMC_EN = 1 << 25  # in DEVACTB: writes to APMC make an SMI

PMSTS = Reg(
    "PMSTS", 0x00, 2, access=W1C,
    fields=(
        Field("TMROF_STS", 0),
        Field("BM_STS", 4),
        Field("GBL_STS", 5),
        Field("PWRBTN_STS", 8),
        Field("RTC_STS", 10),
        Field("RSM_STS", 15),
    ),
    ref="82371AB 7.2",
)  # fmt: skip
PMEN = Reg(
    "PMEN", 0x02, 2,
    fields=(
        Field("TMROF_EN", 0),
        Field("GBL_EN", 5),
        Field("PWRBTN_EN", 8),
        Field("RTC_EN", 10),
    ),
    ref="82371AB 7.2",
)  # fmt: skip
PMCNTRL = Reg(
    "PMCNTRL", 0x04, 2,
    fields=(
        Field("SCI_EN", 0),
        Field("BRLD_EN_BM", 1),
        Field("GBL_RLS", 2),
        Field("SUS_TYP", 10, 3, values={0: "soft-off"}),
        Field("SUS_EN", 13),
    ),
    ref="82371AB 7.2",
)  # fmt: skip
PMTMR = Reg("PMTMR", 0x08, 4, access=RO, fields=(Field("TMR_VAL", 0, 24),), ref="82371AB 7.2")
GPSTS = Reg("GPSTS", 0x0C, 2, access=W1C, ref="82371AB 7.2")
GPEN = Reg("GPEN", 0x0E, 2, ref="82371AB 7.2")
PCNTRL = Reg("PCNTRL", 0x10, 4, ref="82371AB 7.2")
PLVL2 = Reg("PLVL2", 0x14, 1, access=RO, ref="82371AB 7.2")
PLVL3 = Reg("PLVL3", 0x15, 1, access=RO, ref="82371AB 7.2")
GLBSTS = Reg("GLBSTS", 0x18, 2, access=W1C, ref="82371AB 7.2")
DEVSTS = Reg("DEVSTS", 0x1C, 4, access=W1C, ref="82371AB 7.2")
GLBEN = Reg("GLBEN", 0x20, 2, ref="82371AB 7.2")
GLBCTL = Reg("GLBCTL", 0x28, 4, ref="82371AB 7.2")
DEVCTL = Reg("DEVCTL", 0x2C, 4, ref="82371AB 7.2")
GPIREG = array("GPIREG", 0x30, 1, 3, 1, access=RO, ref="82371AB 7.2")
GPOREG = array("GPOREG", 0x34, 1, 4, 1, ref="82371AB 7.2")

IO_MAP = RegMap(
    "piix4-pm",
    PMIO_BYTES,
    (
        PMSTS, PMEN, PMCNTRL, PMTMR, GPSTS, GPEN, PCNTRL, PLVL2, PLVL3, GLBSTS, DEVSTS, GLBEN,
        GLBCTL, DEVCTL, *GPIREG, *GPOREG,
    ),
    ref="82371AB 7.2",
)  # fmt: skip

PMBA = Reg(
    "PMBA", 0x40, 4, 1, fields=(Field("RTE", 0, access=RO), Field("BASE", 6, 10)), ref="82371AB 7.1"
)
CNTA = Reg("CNTA", 0x44, 4, ref="82371AB 7.1")
CNTB = Reg("CNTB", 0x48, 4, ref="82371AB 7.1")
GPICTL = Reg("GPICTL", 0x4C, 4, ref="82371AB 7.1")
DEVRES_D = Reg("DEVRESD", 0x50, 4, ref="82371AB 7.1")
DEVACT_A = Reg("DEVACTA", 0x54, 4, ref="82371AB 7.1")
DEVACT_B = Reg("DEVACTB", 0x58, 4, ref="82371AB 7.1")
DEVRES = array("DEVRES", 0x5C, 4, 8, 4, ref="82371AB 7.1")
PMREGMISC = Reg("PMREGMISC", 0x80, 1, fields=(Field("PMIOSE", 0),), ref="82371AB 7.1")
SMBBA = Reg(
    "SMBBA",
    0x90,
    4,
    1,
    fields=(Field("RTE", 0, access=RO), Field("BASE", 4, 12)),
    ref="82371AB 7.1",
)
SMBHSTCFG = Reg("SMBHSTCFG", 0xD2, 1, access=RO, ref="82371AB 7.1")
SMBREV = Reg("SMBREV", 0xD6, 1, access=RO, ref="82371AB 7.1")


@dataclass(slots=True)
class PmIoState:
    """The I/O registers; `tmrof_halves` counts the overflows that software has seen."""

    pmsts: int = 0
    pmen: int = 0
    pmcntrl: int = 0
    gpsts: int = 0
    gpen: int = 0
    pcntrl: int = 0
    glbsts: int = 0
    devsts: int = 0
    glben: int = 0
    glbctl: int = 0
    devctl: int = 0
    gporeg: list[int] = sized(4)
    tmrof_halves: int = 0


@dataclass(slots=True)
class Piix4PmState(PciState):
    """Configuration space and, in `io`, the registers at PM base."""

    pmba: int = 1
    cnta: int = 0
    cntb: int = 0
    gpictl: int = 0
    devresd: int = 0
    devacta: int = 0
    devactb: int = 0
    devres: list[int] = sized(8)
    pmregmisc: int = 0
    smbba: int = 1
    io: PmIoState = field(default_factory=PmIoState)


class PmIo(RegBank[PmIoState]):
    """The registers at PM base."""

    MAP = IO_MAP
    STATE = PmIoState

    def __init__(
        self,
        clock: Clock,
        sci: IrqLine,
        soft_off: Callable[[], None],
        state: PmIoState,
        name: str,
    ) -> None:
        # Wires
        self.clock = clock
        self.sci = sci
        self._soft_off = soft_off
        self._overflow = clock.timer(f"{name}.pmtmr", self._sync_irq)
        # State
        super().__init__(f"{name}.io", state=state)

    # -- PM timer --------------------------------------------------------------------------------

    def ticks(self) -> int:
        """Periods of the 3.579545 MHz clock since the machine started."""
        return self.clock.now_ps * PM_TIMER_HZ // PS_PER_SECOND

    @on_read(PMTMR)
    def _read_pmtmr(self) -> int:
        return self.ticks() & (1 << PMTMR_BITS) - 1

    def steady(self, offset: int, size: int) -> Steady | None:
        """The timer can be told in advance; the rest is not polled."""
        if (offset, size) == (PMTMR.offset, PMTMR.size):
            return Steady(0, PM_TIMER_HZ, (1 << PMTMR_BITS) - 1)
        return None

    def _halves(self) -> int:
        """How often the timer's top bit has changed, which is what sets TMROF_STS."""
        return self.ticks() >> PMTMR_BITS - 1

    # -- events and SCI --------------------------------------------------------------------------

    def status(self) -> int:
        """PMSTS now."""
        overflown = self._halves() > self.state.tmrof_halves
        return self.state.pmsts | (TMROF_STS if overflown else 0)

    def sci_level(self) -> bool:
        """What SCI should be."""
        state = self.state
        events = self.status() & state.pmen & PM1_EVENTS or state.gpsts & state.gpen
        return bool(events and state.pmcntrl & SCI_EN)

    def _sync_irq(self) -> None:
        state = self.state
        self.sci.set(self.sci_level())
        if state.pmen & TMROF_STS and self._halves() == state.tmrof_halves:
            next_ticks = state.tmrof_halves + 1 << PMTMR_BITS - 1
            self._overflow.arm(-(-next_ticks * PS_PER_SECOND // PM_TIMER_HZ))
        else:
            self._overflow.cancel()

    def resync(self) -> None:
        """After reset: level and timer from the state."""
        self._sync_irq()

    def press_power_button(self) -> None:
        """PWRBTN# goes active."""
        self.state.pmsts |= PWRBTN_STS
        self._sync_irq()

    def raise_gpe(self, number: int) -> None:
        """A general purpose event."""
        self.state.gpsts |= 1 << number
        self._sync_irq()

    @on_read(PMSTS)
    def _read_pmsts(self) -> int:
        return self.status()

    @on_command(PMSTS)
    def _write_pmsts(self, value: int) -> None:
        state = self.state
        state.pmsts &= ~value
        if value & TMROF_STS:
            state.tmrof_halves = self._halves()
        self._sync_irq()

    @on_write(PMEN, GPSTS, GPEN)
    def _write_enable(self, old: int, new: int) -> None:
        self._sync_irq()

    @on_write(PMCNTRL)
    def _write_pmcntrl(self, old: int, new: int) -> None:
        state = self.state
        state.pmcntrl &= ~(SUS_EN | 1 << 2)  # SUS_EN and GBL_RLS read as 0
        self._sync_irq()
        if new & SUS_EN:
            if new >> 10 & 7 == 0:
                self._soft_off()
            else:
                state.pmsts |= RSM_STS  # no other state is modelled: awake again at once


class Piix4Pm(PciFunction[Piix4PmState]):
    """Power management function 8086:7113."""

    MAP = config_map(
        "piix4_pm",
        vendor=0x8086,
        device=0x7113,
        class_code=0x068000,
        revision=0x03,
        interrupt_pin=1,
        extra=(
            PMBA, CNTA, CNTB, GPICTL, DEVRES_D, DEVACT_A, DEVACT_B, *DEVRES, PMREGMISC, SMBBA,
            SMBHSTCFG, SMBREV,
        ),
        ref="82371AB 7.1",
    )  # fmt: skip
    STATE = Piix4PmState
    COMMAND_WRITABLE = 1 << 0 | 1 << 3
    STATUS_FIXED = DEVSEL_MEDIUM | 1 << 7  # fast back-to-back

    def __init__(
        self,
        clock: Clock,
        sci: IrqLine,
        soft_off: Callable[[], None],
        name: str = "piix4_pm",
        no_smm: bool = False,
    ) -> None:
        """`no_smm`: SMIs on writes to APMC are on and the machine is in ACPI mode from reset, so
        that a BIOS finds its SMM handler installed and leaves it at that.
        """
        self._no_smm = no_smm
        state = Piix4PmState()
        self.io = PmIo(clock, sci, soft_off, state.io, name)
        super().__init__(name, state=state)
        self._pm_window: MovableWindow | None = None

    def _init_state(self, state: Piix4PmState) -> None:
        super()._init_state(state)
        if self._no_smm:
            state.devactb = APMC_EN
            state.io.pmcntrl = SCI_EN

    def connected(self) -> None:
        assert self.port is not None
        window = Window.of(self.io, self.name, 0, name="pm")
        self._pm_window = MovableWindow(self.port.pio, window)
        self._place()

    def set_state(self, state: Piix4PmState) -> None:
        """Replace the state of both banks."""
        super().set_state(state)
        self.io.set_state(state.io)

    def reset(self) -> None:
        """PM base is not decoded, no events."""
        super().reset()
        self.state.io.tmrof_halves = self.io._halves()
        self._place()
        self.io.resync()

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; SCI gets its level without an edge."""
        super().restore(data)
        self._place()
        self.io.sci.restore(self.io.sci_level())

    def handle_input(self, kind: str, data: bytes) -> None:
        """Host input for target `acpi`: `power` presses the power button."""
        if kind == "power":
            self.io.press_power_button()

    @property
    def base(self) -> int:
        """The first port, 0 while the ports are not decoded."""
        return self.state.pmba & 0xFFC0 if self.state.pmregmisc & 1 else 0

    def _place(self) -> None:
        if self._pm_window is not None:
            self._pm_window.place(self.base or None)

    @on_write(PMBA, PMREGMISC)
    def _write_base(self, old: int, new: int) -> None:
        self._place()
