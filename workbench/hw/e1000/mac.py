"""MAC of the 82540EM: control, link, EEPROM and PHY access, interrupts (317453, chapters 3 to 13).

Interrupt causes collect in ICR; the interrupt is asserted while ICR & IMS is not 0, but after one
assertion not again before ITR's interval has passed. Times: negotiation of the link takes LINK_PS;
EEPROM reads and MDIC are done at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Final

from workbench.core.clock import Clock
from workbench.core.polls import Steady
from workbench.core.regs import RegBank, RegMap, on_command, on_read, on_write
from workbench.core.requests import Requests
from workbench.hw.e1000 import registers as r
from workbench.hw.e1000.eeprom import ICW3, ICW3_APME, Eeprom, EepromState
from workbench.hw.e1000.flowcontrol import FlowControl
from workbench.hw.e1000.phy import LOOPBACK, PHY_ADDRESS, Phy, PhyState
from workbench.hw.e1000.receive import Receiver
from workbench.hw.e1000.state import MacState
from workbench.hw.e1000.statistics import HIGH, LOW, Statistics
from workbench.hw.e1000.transmit import Transmitter
from workbench.hw.pci.function import DmaHandle
from workbench.net.port import Large

__all__ = ["LINK_PS", "MAP", "Mac"]

MAP = RegMap("e1000", 0x2_0000, r.REGISTERS, ref="317453 table 13-2")

LINK_PS: Final = 20_000_000_000  # 20 ms
ITR_TICK_PS: Final = 256_000
CTRL_SLU, CTRL_RST, CTRL_PHY_RST = 1 << 6, 1 << 26, 1 << 31
TCTL_SWXOFF: Final = 1 << 22
CTRL_EXT_EE_RST: Final = 1 << 13
EE_REQ, EE_GNT, EE_DO = 1 << 6, 1 << 7, 1 << 3
EERD_START, EERD_DONE = 1 << 0, 1 << 4
MDIC_WRITE, MDIC_READ = 1, 2
MDIC_R, MDIC_I, MDIC_E = 1 << 28, 1 << 29, 1 << 30
LSC, MDAC, PHYINT = 1 << 2, 1 << 9, 1 << 12
CAUSES: Final = sum(fld.mask for fld in r.CAUSES)
RAH_AV: Final = 1 << 31
FPD: Final = 1 << 31
WUC_APME: Final = 1 << 0
MAC_LOOPBACK, PHY_LOOPBACK = 1, 3
STATUS_FIXED: Final = 0x0280  # 1000 Mb/s
FD, LU, TXOFF = 1 << 0, 1 << 1, 1 << 4


class Mac(RegBank[MacState]):
    """The registers in BAR 0 and the two engines."""

    MAP = MAP
    STATE = MacState

    def __init__(
        self,
        clock: Clock,
        dma: DmaHandle,
        interrupt: Callable[[bool], None],
        send: Callable[[bytes], None],
        send_large: Callable[[Large], None],
        requests: Requests,
        *,
        state: MacState,
        phy: PhyState,
        eeprom: EepromState,
        name: str,
    ) -> None:
        """`interrupt(level)` drives INTx, `send(frame)` and `send_large(segments)` the wire."""
        # Wires
        self.clock = clock
        self.dma = dma
        self._interrupt = interrupt
        self._send = send
        self._send_large = send_large
        self.requests = requests
        self.eeprom = Eeprom(eeprom)
        self.phy = Phy(phy, self._negotiate, lambda: self.raise_causes(PHYINT))
        self.statistics = Statistics(state.stats)
        self.transmitter = Transmitter(self, clock, name, self._wire, self._wire_large)
        self.receiver = Receiver(self, clock, name)
        self.flow_control = FlowControl(self, clock, name, self._wire)
        self._throttle = clock.timer(f"{name}.itr", self._sync_interrupt)
        self._link = clock.timer(f"{name}.link", self._negotiated)
        # State
        super().__init__(f"{name}.mac", state=state)

    # -- life ------------------------------------------------------------------------------------

    def set_states(self, mac: MacState, phy: PhyState, eeprom: EepromState) -> None:
        """Replace all state; makes no edges and arms no timers."""
        self.set_state(mac)
        self.statistics.stats = mac.stats
        self.phy.set_state(phy)
        self.eeprom.state = eeprom

    def power_on(self) -> None:
        """After set_states with fresh ones: registers from the EEPROM, the link is negotiated."""
        self._stop()
        self._load()
        self.phy.power_on()

    def _stop(self) -> None:
        self.requests.abort()
        self.transmitter.stop()
        self.receiver.stop()
        self.flow_control.stop()
        self._throttle.cancel()

    def _load(self) -> None:
        """What the chip takes from the EEPROM at reset (317453, 5.3)."""
        state = self.state
        word = self.eeprom.word
        state.ral[0] = word(0) | word(1) << 16
        state.rah[0] = word(2) | RAH_AV
        state.wuc = state.wuc & ~WUC_APME | (WUC_APME if word(ICW3) & ICW3_APME else 0)

    def software_reset(self) -> None:
        """CTRL.RST (13.4.1): all of the MAC; the PHY keeps its link."""
        state = self.state
        fresh = MacState()
        for item in fields(MacState):
            setattr(state, item.name, getattr(fresh, item.name))
        self.statistics.stats = state.stats
        self._stop()
        self._load()
        self._interrupt(False)
        self._update_link()

    # -- interrupts ------------------------------------------------------------------------------

    def raise_causes(self, causes: int) -> None:
        """Set bits of ICR."""
        self.state.icr |= causes & CAUSES
        self._sync_interrupt()

    def _sync_interrupt(self) -> None:
        state = self.state
        if not state.icr & state.ims:
            state.asserted = False
            self._throttle.cancel()
        elif not state.asserted:
            now = self.clock.now_ps
            if now < state.throttle_ps:
                self._throttle.arm(state.throttle_ps)
                return
            state.asserted = True
            state.throttle_ps = now + state.itr * ITR_TICK_PS
        self._interrupt(state.asserted)

    @on_read(r.ICR)
    def _read_icr(self) -> int:
        state = self.state
        value = state.icr
        if value:
            state.icr = 0
            self._sync_interrupt()
        return value

    def steady(self, offset: int, size: int) -> Steady | None:
        """A driver that polls reads an empty ICR a million times a second."""
        is_icr = (offset, size) == (r.ICR.offset, r.ICR.size)
        return Steady(0) if is_icr and not self.state.icr else None

    @on_command(r.ICR)
    def _write_icr(self, value: int) -> None:
        self.state.icr &= ~value
        self._sync_interrupt()

    @on_command(r.ICS)
    def _write_ics(self, value: int) -> None:
        self.raise_causes(value)

    @on_command(r.IMS)
    def _write_ims(self, value: int) -> None:
        self.state.ims |= value & CAUSES
        self._sync_interrupt()

    @on_command(r.IMC)
    def _write_imc(self, value: int) -> None:
        self.state.ims &= ~value
        self._sync_interrupt()

    # -- control and link ------------------------------------------------------------------------

    @on_write(r.CTRL)
    def _write_ctrl(self, old: int, new: int) -> None:
        state = self.state
        state.ctrl = new & ~(CTRL_RST | CTRL_PHY_RST)
        if new & CTRL_PHY_RST:
            self.phy.power_on()
        if new & CTRL_RST:
            self.software_reset()
        else:
            self._update_link()

    @on_write(r.CTRL_EXT)
    def _write_ctrl_ext(self, old: int, new: int) -> None:
        if new & CTRL_EXT_EE_RST:
            self.state.ctrl_ext = new & ~CTRL_EXT_EE_RST
            self._load()

    @on_read(r.STATUS)
    def _read_status(self) -> int:
        state = self.state
        value = STATUS_FIXED | (LU if state.link else 0) | (state.ctrl & FD)
        return value | TXOFF if state.tx_paused else value

    def _negotiate(self) -> None:
        """Auto-negotiation begins: no link until it ends."""
        self.phy.set_link(False)
        self._update_link()
        if self.phy.can_link:
            self._link.arm(self.clock.now_ps + LINK_PS)
        else:
            self._link.cancel()

    def _negotiated(self) -> None:
        if self.phy.can_link:
            self.phy.set_link(True)
        self._update_link()

    def _update_link(self) -> None:
        state = self.state
        link = self.phy.state.link and bool(state.ctrl & CTRL_SLU)
        if link != state.link:
            state.link = link
            self.raise_causes(LSC)

    def plug(self, present: bool) -> None:
        """The cable is put in or pulled out."""
        if self.phy.state.cable != present:
            self.phy.state.cable = present
            self._negotiate()

    # -- EEPROM and PHY --------------------------------------------------------------------------

    @on_read(r.EECD)
    def _read_eecd(self) -> int:
        value = self.state.eecd & ~(EE_DO | EE_GNT)
        if value & EE_REQ:
            value |= EE_GNT
        return value | EE_DO if self.eeprom.do else value

    @on_write(r.EECD)
    def _write_eecd(self, old: int, new: int) -> None:
        self.eeprom.drive(new)

    @on_write(r.EERD)
    def _write_eerd(self, old: int, new: int) -> None:
        if new & EERD_START:
            address = new >> 8 & 0xFF
            self.state.eerd = self.eeprom.word(address) << 16 | address << 8 | EERD_DONE

    @on_write(r.MDIC)
    def _write_mdic(self, old: int, new: int) -> None:
        register, address, operation = new >> 16 & 31, new >> 21 & 31, new >> 26 & 3
        value = new & ~(MDIC_R | MDIC_E)
        if address != PHY_ADDRESS or operation not in (MDIC_WRITE, MDIC_READ):
            value |= MDIC_E
        elif operation == MDIC_READ:
            value = value & ~0xFFFF | self.phy.read(register * 2, 2)
        else:
            self.phy.write(register * 2, 2, new & 0xFFFF)
        self.state.mdic = value | MDIC_R
        if new & MDIC_I:
            self.raise_causes(MDAC)

    # -- engines ---------------------------------------------------------------------------------

    def kick(self) -> None:
        """Bus mastering was allowed, or a register of an engine was written."""
        self.transmitter.kick()
        self.receiver.kick()

    @on_write(r.TCTL)
    def _write_tctl(self, old: int, new: int) -> None:
        if new & TCTL_SWXOFF:
            self.state.tctl = new & ~TCTL_SWXOFF
            self.flow_control.send(self.state.fcttv & 0xFFFF)
        self.transmitter.kick()

    @on_write(r.TDLEN, r.TDH, r.TDT)
    def _write_transmit(self, old: int, new: int) -> None:
        self.transmitter.kick()

    @on_write(r.TIDV)
    def _write_tidv(self, old: int, new: int) -> None:
        self.state.tidv = new & ~FPD
        if new & FPD:
            self.transmitter.flush()

    @on_write(r.RCTL, r.RDLEN, r.RDH, r.RDT)
    def _write_receive(self, old: int, new: int) -> None:
        self.receiver.kick()

    @on_write(r.RDTR)
    def _write_rdtr(self, old: int, new: int) -> None:
        self.state.rdtr = new & ~FPD
        if new & FPD:
            self.receiver.flush()

    @on_read(r.RDFPC)
    def _read_rdfpc(self) -> int:
        return len(self.state.rx_fifo)

    def _wire(self, frame: bytes) -> None:
        """A finished frame: to the cable, or back (RCTL.LBM, the PHY's loopback)."""
        if self._loops:
            self.receiver.frames((frame,))
        elif self.state.link:
            self._send(frame)

    def _wire_large(self, large: Large) -> None:
        """Finished segments."""
        if self._loops:
            for frame in large.cut():
                self.receiver.frames((frame,))
        elif self.state.link:
            self._send_large(large)

    @property
    def _loops(self) -> bool:
        in_mac = self.state.rctl >> 6 & 3 in (MAC_LOOPBACK, PHY_LOOPBACK)
        return in_mac or bool(self.phy.state.pctrl & LOOPBACK)

    def receive(self, frames: Sequence[bytes]) -> None:
        """Frames from the cable."""
        if self.state.link:
            self.receiver.frames(frames)

    # -- statistics ------------------------------------------------------------------------------

    @on_read(*LOW)
    def _read_low(self, index: int) -> int:
        return self.state.stats[index]

    @on_read(*HIGH)
    def _read_high(self, index: int) -> int:
        stats = self.state.stats
        value = stats[index]
        stats[index - 1] = stats[index] = 0
        return value
