"""Flow control of the 82540EM by PAUSE frames, IEEE 802.3x (317453, 8.7).

A PAUSE frame that is received stops the transmitter for as long as it says (STATUS.TXOFF), one with
time 0 lets it go on. When the packet buffer fills up to FCRTH one is sent with the time in FCTTV,
again when a frame is lost, and one with time 0 when it has emptied to FCRTL. Frames of a network
that does not listen are lost all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Final

from workbench.core.clock import Clock
from workbench.hw.e1000.state import MIN_FRAME_BYTES

if TYPE_CHECKING:
    from workbench.hw.e1000.mac import Mac

__all__ = ["FlowControl", "Verdict"]

RFCE, TFCE = 1 << 27, 1 << 28  # of CTRL
DPF, PMCF = 1 << 22, 1 << 23  # of RCTL
XONE: Final = 1 << 31  # of FCRTL
THRESHOLD: Final = 0xFFF8  # bytes, in FCRTL and FCRTH
PAUSE: Final = b"\0\1"  # opcode
SLOT_PS: Final = 512_000  # 64 byte times, the unit of a pause


class Verdict(Enum):
    """What becomes of a received frame."""

    FILTER = "as any other"
    PASS = "to the host"
    DISCARD = "nothing"


class FlowControl:
    """Both directions for one MAC; `wire` takes frames without FCS."""

    def __init__(self, mac: Mac, clock: Clock, name: str, wire: Callable[[bytes], None]) -> None:
        self.mac = mac
        self.clock = clock
        self._wire = wire
        self._timer = clock.timer(f"{name}.pause", self._resume)

    def stop(self) -> None:
        """Reset: nothing is paused."""
        self._timer.cancel()

    # -- receive ---------------------------------------------------------------------------------

    @property
    def ethertype(self) -> bytes:
        """That of frames that `heard` looks into."""
        return (self.mac.state.fct & 0xFFFF).to_bytes(2, "big")

    def heard(self, frame: bytes) -> Verdict:
        """A frame came: is it a MAC control frame (8.7.1 to 8.7.4)?"""
        state = self.mac.state
        if not state.ctrl & RFCE or frame[12] << 8 | frame[13] != state.fct & 0xFFFF:
            return Verdict.FILTER
        station = frame[:6] == _address(state.ral[0], state.rah[0])
        if not station and frame[:6] != _address(state.fcal, state.fcah):
            return Verdict.FILTER
        if frame[14:16] != PAUSE:
            self.mac.statistics.flow_control()
            return Verdict.PASS if state.rctl & PMCF else Verdict.DISCARD
        self._pause(int.from_bytes(frame[16:18], "big"))
        return Verdict.DISCARD if station and state.rctl & DPF else Verdict.FILTER

    def _pause(self, slots: int) -> None:
        state = self.mac.state
        self.mac.statistics.pause(bool(slots))
        if not slots:
            self._resume()
            return
        state.tx_paused = True
        self._timer.arm(self.clock.now_ps + slots * SLOT_PS)

    def _resume(self) -> None:
        self._timer.cancel()
        if self.mac.state.tx_paused:
            self.mac.state.tx_paused = False
            self.mac.transmitter.kick()

    # -- transmit --------------------------------------------------------------------------------

    def level(self, waiting_bytes: int, *, overflow: bool = False) -> None:
        """The packet buffer holds so much now (8.7.5); `overflow`: a frame was lost."""
        state = self.mac.state
        high = state.fcrth & THRESHOLD
        if not state.ctrl & TFCE or not high:
            return
        if waiting_bytes >= high:
            if not state.xoff_sent or overflow:
                state.xoff_sent = True
                self.send(state.fcttv & 0xFFFF)
        elif state.xoff_sent and waiting_bytes <= state.fcrtl & THRESHOLD:
            state.xoff_sent = False
            if state.fcrtl & XONE:
                self.send(0)

    def send(self, slots: int) -> None:
        """A PAUSE frame goes out."""
        state = self.mac.state
        self.mac.statistics.pause_sent(bool(slots))
        frame = _address(state.fcal, state.fcah) + _address(state.ral[0], state.rah[0])
        frame += (state.fct & 0xFFFF).to_bytes(2, "big") + PAUSE + slots.to_bytes(2, "big")
        self._wire(frame.ljust(MIN_FRAME_BYTES, b"\0"))


def _address(low: int, high: int) -> bytes:
    return low.to_bytes(4, "little") + (high & 0xFFFF).to_bytes(2, "little")
