"""Gigabit Ethernet controller 82540EM (8086:100E) as a PCI function.

PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual (order number 317453).
BAR 0 has the registers in memory, BAR 2 IOADDR and IODATA, which reach the same registers through
ports. Power management states are stored, nothing sleeps: the wake-up registers are there, but no
frame wakes anything. Deliberately not modelled: flash (BAR 1), VPD.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from workbench.core.clock import Clock
from workbench.core.regs import (
    RO,
    W1C,
    Field,
    Indirect,
    Reg,
    RegBank,
    RegMap,
    on_command,
    on_read,
)
from workbench.core.requests import Requests, RequestState
from workbench.hw.e1000.eeprom import EepromState, contents
from workbench.hw.e1000.mac import MAP as MAC_MAP
from workbench.hw.e1000.mac import Mac
from workbench.hw.e1000.phy import PhyState
from workbench.hw.e1000.state import MacState
from workbench.hw.pci import msi
from workbench.hw.pci.config import Bar, Capability, PciState, config_map
from workbench.hw.pci.function import PciFunction
from workbench.net.port import FRAME, LINK, Large, Receiver

__all__ = ["E1000", "IO_MAP", "E1000State", "Port"]

PMC = Reg("PMC", 0xDE, 2, 0x0022, RO, ref="317453 4.3")
PMCSR = Reg(
    "PMCSR", 0xE0, 2,
    fields=(
        Field("POWER_STATE", 0, 2),
        Field("PME_EN", 8),
        Field("DATA_SELECT", 9, 4),
        Field("PME_STATUS", 15, access=W1C),
    ),
    ref="317453 4.3",
)  # fmt: skip
PM_CAPABILITY_ID: Final = 0x01
MSI = msi.capability(0xF0)  # 317453 4.2: one message, 64 bits of address

IOADDR = Reg("IOADDR", 0x0, 4, ref="317453 13.2.2.1")
IODATA = Reg("IODATA", 0x4, 4, ref="317453 13.2.2.2")
IO_MAP = RegMap(
    "e1000-io",
    64,
    (IOADDR, IODATA),
    ref="317453 13.2.2",
    indirect=(Indirect(IOADDR, IODATA, MAC_MAP, mask=0x1_FFFF),),
)


class Port(Protocol):
    """The socket for the cable (`net.port.NetPort`)."""

    def send(self, frame: bytes) -> None:
        """A frame without FCS goes out."""
        ...

    def send_large(self, large: Large) -> None:
        """Segments of TCP go out."""
        ...

    def connect(self, receiver: Receiver) -> None:
        """Inputs go to `receiver(kind, batch)` from now on."""
        ...


@dataclass(slots=True)
class E1000State(PciState):
    """Configuration space and the parts of the chip."""

    pmcsr: int = 0
    msi_ctrl: int = MSI.regs[0].reset
    msi_addr: int = 0
    msi_upper: int = 0
    msi_data: int = 0
    msi_mask: int = 0
    msi_pending: int = 0
    mac: MacState = field(default_factory=MacState)
    phy: PhyState = field(default_factory=PhyState)
    eeprom: EepromState = field(default_factory=EepromState)
    requests: RequestState = field(default_factory=RequestState)


class IoWindow(RegBank[MacState]):
    """IOADDR and IODATA."""

    MAP = IO_MAP
    STATE = MacState

    def __init__(self, mac: Mac, name: str) -> None:
        self._mac = mac
        super().__init__(f"{name}.io", state=mac.state)

    @on_read(IODATA)
    def _read_data(self) -> int:
        at = self.state.ioaddr & ~3
        return self._mac.read(at, 4) if at < MAC_MAP.length else 0

    @on_command(IODATA)
    def _write_data(self, value: int) -> None:
        at = self.state.ioaddr & ~3
        if at < MAC_MAP.length:
            self._mac.write(at, 4, value)


class E1000(PciFunction[E1000State]):
    """One controller with its cable."""

    MAP = config_map(
        "e1000-config",
        vendor=0x8086,
        device=0x100E,
        class_code=0x020000,
        revision=0x03,
        subsystem_vendor=0x8086,
        subsystem=0x001E,
        interrupt_pin=1,
        min_gnt=0xFF,
        capabilities=(Capability("PM", PM_CAPABILITY_ID, 0xDC, (PMC, PMCSR)), MSI),
        ref="317453 4.1",
    )
    STATE = E1000State
    BARS = (Bar(0, MAC_MAP.length), Bar(2, IO_MAP.length, io=True))
    COMMAND_WRITABLE = PciFunction.COMMAND_WRITABLE | 1 << 4  # MWIE

    def __init__(
        self, clock: Clock, name: str, mac: bytes, port: Port, *, link: bool = True
    ) -> None:
        """`mac` is the Ethernet address in the EEPROM; `link`: the cable is in at the start."""
        if len(mac) != 6 or mac[0] & 1:
            raise ValueError(f"expected an Ethernet address of one station, not {mac.hex(':')!r}")
        state = E1000State()
        state.eeprom.words = contents(mac)
        state.phy.cable = link
        self.cable = port
        self.mac: Mac | None = None
        self.msi = msi.Msi(state, self.send_msi)
        self.requests = Requests(name, state.requests)
        self.request_handles = (self.requests,)
        super().__init__(name, state=state)
        self.mac = Mac(
            clock,
            self.dma,
            self.set_intx,
            port.send,
            port.send_large,
            self.requests,
            state=state.mac,
            phy=state.phy,
            eeprom=state.eeprom,
            name=name,
        )
        self.io = IoWindow(self.mac, name)
        self.mac.power_on()
        port.connect(self.handle_input)

    def connected(self) -> None:
        assert self.mac is not None
        registers = self.add_bar(
            0, self.mac.read, self.mac.write, name=self.name, regmap=self.mac.map
        )
        registers.window.steady = self.mac.steady
        self.add_bar(2, self.io.read, self.io.write, name=f"{self.name}.io", regmap=self.io.map)

    def set_state(self, state: E1000State) -> None:
        """Replace the state of all parts."""
        super().set_state(state)
        self.requests.state = state.requests
        self.msi.state = state
        if self.mac is not None:
            self.mac.set_states(state.mac, state.phy, state.eeprom)
            self.io.set_state(state.mac)

    def _init_state(self, state: E1000State) -> None:
        super()._init_state(state)
        state.requests = self.requests.state  # they are counted on

    def _check_values(self, state: E1000State) -> None:
        super()._check_values(state)
        if self.mac is not None:
            self.mac._check_values(state.mac)
            self.mac.phy._check_values(state.phy)

    def reset(self) -> None:
        """PCI reset. The EEPROM keeps its words, the cable stays where it is."""
        self.requests.abort()
        words, cable = self.state.eeprom.words, self.state.phy.cable
        super().reset()
        assert self.mac is not None
        self.state.eeprom.words = words
        self.state.phy.cable = cable
        self.mac.power_on()

    def bus_master_changed(self, allowed: bool) -> None:
        if allowed and self.mac is not None:
            self.mac.kick()

    def write(self, offset: int, size: int, value: int) -> None:
        """Configuration write; MSI may have been switched on or off."""
        super().write(offset, size, value)
        self.sync_intx()

    def set_intx(self, level: bool) -> None:
        """The interrupt is asserted or not: INTA, or a message when it begins."""
        if level and not self.state.intx:
            self.msi.notify()
        super().set_intx(level)

    def _intx_level(self) -> bool:
        return super()._intx_level() and not self.msi.enabled

    def handle_input(self, kind: str, batch: Sequence[bytes]) -> None:
        """Inputs: "frame", and "link" with one byte, 0 or 1."""
        assert self.mac is not None
        if kind == FRAME:
            self.mac.receive(batch)
        elif kind == LINK:
            for data in batch:
                self.mac.plug(data != b"\0")
