"""Receive engine of the 82540EM: filters, packet buffer, descriptors (317453, 3.2 and 13.5).

A frame that passes the filters waits in the packet buffer (PBA.RXA KB) until the ring has
descriptors. Interrupts follow RDTR, RADV, RSRPD and RCTL.RDMTS. Deliberately not modelled: bad
frames (the wire makes none).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Final

from workbench.core.checksum import internet_sum
from workbench.core.clock import Clock
from workbench.hw.e1000.flowcontrol import Verdict
from workbench.hw.e1000.offload import check_received
from workbench.hw.e1000.state import MAX_WAITING_FRAMES, MIN_FRAME_BYTES

if TYPE_CHECKING:
    from workbench.hw.e1000.mac import Mac

__all__ = ["Receiver"]

EN, UPE, MPE, LPE, BAM, VFE, CFIEN, CFI, BSEX, SECRC = (
    1 << n for n in (1, 3, 4, 5, 15, 18, 19, 20, 25, 26)
)
BUFFER_BYTES = (2048, 1024, 512, 256)
MULTICAST_SHIFT = (4, 3, 2, 0)
CTRL_VME: Final = 1 << 30
AV: Final = 1 << 31
FPD: Final = 1 << 31
RXDMT0, RXO, RXT0, SRPD = 1 << 4, 1 << 6, 1 << 7, 1 << 16
STATUS_DD, STATUS_EOP, STATUS_VP, STATUS_PIF = 1 << 0, 1 << 1, 1 << 3, 1 << 7
MAX_BYTES, MAX_LONG_BYTES = 1522, 16384  # with FCS, with a VLAN tag or not
TICK_PS: Final = 1_024_000  # of RDTR and RADV
BROADCAST: Final = b"\xff" * 6


class Receiver:
    """The engine of one MAC."""

    def __init__(self, mac: Mac, clock: Clock, name: str) -> None:
        self.mac = mac
        self.clock = clock
        self._delay = clock.timer(f"{name}.rdtr", self._delayed)
        self._absolute = clock.timer(f"{name}.radv", self._delayed)

    def stop(self) -> None:
        """Reset: nothing is under way."""
        self._delay.cancel()
        self._absolute.cancel()

    # -- a frame comes ---------------------------------------------------------------------------

    def frame(self, frame: bytes) -> None:
        """A frame from the wire, without FCS."""
        mac, state = self.mac, self.mac.state
        if not state.rctl & EN or len(frame) < 14:
            return
        if len(frame) < MIN_FRAME_BYTES:
            frame += bytes(MIN_FRAME_BYTES - len(frame))
        length = len(frame) + 4
        statistics = mac.statistics
        statistics.seen(length)
        tagged = frame[12] << 8 | frame[13] == state.vet
        verdict = mac.flow_control.heard(frame)
        if verdict is Verdict.DISCARD:
            return
        if verdict is Verdict.FILTER and not self._wanted(frame, tagged):
            return
        if length > (MAX_LONG_BYTES if state.rctl & LPE else MAX_BYTES):
            statistics.oversize()
            return
        waiting = state.rx_fifo
        room = (state.pba & 0xFFFF) << 10
        filled = sum(map(len, waiting))
        if len(waiting) >= MAX_WAITING_FRAMES or filled + length > room:
            statistics.missed()
            mac.flow_control.level(filled, overflow=True)
            mac.raise_causes(RXO)
            return
        statistics.received(frame, length)
        waiting.append(frame)
        if not self._drain():
            statistics.no_buffer()
            mac.flow_control.level(filled + len(frame))

    # -- filters ---------------------------------------------------------------------------------

    def _wanted(self, frame: bytes, tagged: bool) -> bool:
        state = self.mac.state
        rctl = state.rctl
        if rctl & VFE and tagged:
            tag = frame[14] << 8 | frame[15]
            if not state.vfta[(tag & 0xFFF) >> 5] >> (tag & 31) & 1:
                return False
            if rctl & CFIEN and bool(tag & 1 << 12) != bool(rctl & CFI):
                return False
        return self._address_wanted(frame)

    def _address_wanted(self, frame: bytes) -> bool:
        state = self.mac.state
        rctl = state.rctl
        group = frame[0] & 1
        if rctl & (MPE if group else UPE):
            return True
        if rctl & BAM and frame[:6] == BROADCAST:
            return True
        return self._exact(frame) or bool(group and self.hashed(frame))

    def _exact(self, frame: bytes) -> bool:
        state = self.mac.state
        destination = int.from_bytes(frame[:6], "little")
        source = int.from_bytes(frame[6:12], "little")
        for low, high in zip(state.ral, state.rah, strict=True):
            if not high & AV:
                continue
            select = high >> 16 & 3
            if select < 2 and (source if select else destination) == (high & 0xFFFF) << 32 | low:
                return True
        return False

    def hashed(self, frame: bytes) -> bool:
        """Is the address in the multicast table array (13.5.1)?"""
        state = self.mac.state
        value = (frame[5] << 8 | frame[4]) >> MULTICAST_SHIFT[state.rctl >> 12 & 3] & 0xFFF
        return bool(state.mta[value >> 5] >> (value & 31) & 1)

    # -- the ring --------------------------------------------------------------------------------

    def kick(self) -> None:
        """There may be descriptors now."""
        waiting = self.mac.state.rx_fifo
        if waiting:
            self._drain()
            self.mac.flow_control.level(sum(map(len, waiting)))

    def _free(self) -> int:
        state = self.mac.state
        count = state.rdlen >> 4
        if state.rdh >= count or state.rdt >= count or not self.mac.dma.allowed:
            return 0
        return (state.rdt - state.rdh) % count

    def _buffer_bytes(self) -> int:
        rctl = self.mac.state.rctl
        size = BUFFER_BYTES[rctl >> 16 & 3]
        return size * 16 if rctl & BSEX and size < 2048 else size

    def _drain(self) -> bool:
        """Frames from the packet buffer to memory; False if one stays for lack of descriptors."""
        state = self.mac.state
        while state.rx_fifo:
            if not state.rctl & EN:
                return True
            frame = state.rx_fifo[0]
            body, tag = self._strip(frame)
            if not state.rctl & SECRC:
                body += zlib.crc32(body).to_bytes(4, "little")
            size = self._buffer_bytes()
            needed = -(-len(body) // size)
            free = self._free()
            if needed > free:
                return False
            del state.rx_fifo[0]
            self._store(frame, body, tag, size)
            self._interrupts(len(frame) + 4, free, free - needed)
        return True

    def _strip(self, frame: bytes) -> tuple[bytes, int | None]:
        """Take the VLAN tag out if CTRL.VME; None: there is none."""
        state = self.mac.state
        if state.ctrl & CTRL_VME and frame[12] << 8 | frame[13] == state.vet:
            return frame[:12] + frame[16:], frame[14] << 8 | frame[15]
        return frame, None

    def _store(self, frame: bytes, body: bytes, tag: int | None, size: int) -> None:
        """Write one frame into as many buffers as it needs (descriptor format: 3.2.3)."""
        mac, state = self.mac, self.mac.state
        dma = mac.dma
        checks = check_received(frame, state.rxcsum)
        base = state.rdbah << 32 | state.rdbal
        count = state.rdlen >> 4
        start = state.rxcsum & 0xFF
        packet_sum = internet_sum(body[start : len(body) - (0 if state.rctl & SECRC else 4)])
        common = STATUS_DD | (STATUS_VP if tag is not None else 0)
        request = mac.requests.begin(
            "rx",
            queue=0,
            address=(base + state.rdh * 16) & (1 << 64) - 1,
            length=len(frame),
            head=state.rdh,
            segments=-(-len(body) // size),
        )
        for at in range(0, len(body), size):
            part = body[at : at + size]
            gpa = base + state.rdh * 16
            address = int.from_bytes(dma.read(gpa, 8), "little")
            dma.write(address, part)
            status, errors = common, 0
            if at + size >= len(body):
                status |= STATUS_EOP | checks.status
                if frame[0] & 1 and not self._exact(frame):
                    status |= STATUS_PIF
                errors = checks.errors
            dma.write(
                gpa + 8,
                struct.pack(
                    "<HHBBH", len(part), packet_sum ^ 0xFFFF, status, errors, (tag or 0) & 0xFFFF
                ),
            )
            state.rdh = (state.rdh + 1) % count
        mac.requests.end(request)

    # -- interrupts ------------------------------------------------------------------------------

    def _interrupts(self, length: int, before: int, after: int) -> None:
        state = self.mac.state
        causes = 0
        threshold = (state.rdlen >> 4) >> (state.rctl >> 8 & 3) + 1
        if after <= threshold < before:
            causes |= RXDMT0
        if state.rsrpd and length <= state.rsrpd:
            causes |= SRPD
        delay = state.rdtr & 0xFFFF
        if not delay or causes & SRPD:
            self.stop()
            causes |= RXT0
        else:
            now = self.clock.now_ps
            self._delay.arm(now + delay * TICK_PS)
            if state.radv and self._absolute.deadline_ps is None:
                self._absolute.arm(now + state.radv * TICK_PS)
        if causes:
            self.mac.raise_causes(causes)

    def flush(self) -> None:
        """RDTR.FPD: report what is held back, now."""
        if self._delay.deadline_ps is not None:
            self._delayed()

    def _delayed(self) -> None:
        self.stop()
        self.mac.raise_causes(RXT0)
