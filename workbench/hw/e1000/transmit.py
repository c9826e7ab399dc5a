"""Transmit engine of the 82540EM: descriptors to frames (317453, 3.3 and 3.5).

A write to TDT wakes the engine START_PS later; it takes what the ring holds, at most BATCH frames
at a time; the wire is busy for as long as these frames take at 1000 Mb/s. Indices or a length that
are out of range stop it until software writes something else.

Deliberately not modelled: descriptor thresholds of TXDCTL (write-back is at once), TXDMAC, TSPMT,
collisions, and an MSS below 64, which counts as 64.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from workbench.core.clock import Clock
from workbench.core.requests import OK
from workbench.hw.e1000.offload import Context, insert_checksum
from workbench.hw.e1000.segments import Segments, insert_checksums, on_wire
from workbench.hw.e1000.state import MIN_FRAME_BYTES
from workbench.net.port import Large

if TYPE_CHECKING:
    from workbench.hw.e1000.mac import Mac

__all__ = ["MAX_PACKET_BYTES", "Transmitter"]

START_PS: Final = 1_000_000
BIT_PS: Final = 1000  # 1000 Mb/s
FCS_BYTES: Final = 4
OVERHEAD_BYTES: Final = 8 + 12  # preamble, gap between frames
MAX_PACKET_BYTES: Final = 16288  # 317453, 3.3.3: of one packet that is not segmented
BATCH: Final = 64
FETCH: Final = 32
IDLE_DESCRIPTORS: Final = 512  # descriptors without frames that one go looks at
LEAST_MSS: Final = 64
MOST_GATHERED: Final = 1 << 16  # bytes of a packet before its first segments leave
MAX_HEADER_BYTES: Final = 255

EOP, IFCS, TSE, IC, RS, DEXT, VLE, IDE = (1 << n for n in (24, 25, 26, 26, 27, 29, 30, 31))
DTYP_DATA: Final = 1
DD: Final = 1
TUCMD_TCP, TUCMD_IP = 1 << 24, 1 << 25
TXDW, TXQE, TXD_LOW = 1 << 0, 1 << 1, 1 << 15
TCTL_EN, CTRL_VME = 1 << 1, 1 << 30
TICK_PS: Final = 1_024_000  # of TIDV and TADV


class Transmitter:
    """The engine of one MAC; `wire` takes finished frames without FCS, `wire_large` segments."""

    def __init__(
        self,
        mac: Mac,
        clock: Clock,
        name: str,
        wire: Callable[[bytes], None],
        wire_large: Callable[[Large], None],
    ) -> None:
        self.mac = mac
        self.clock = clock
        self._wire = wire
        self._wire_large = wire_large
        self._timer = clock.timer(f"{name}.tx", self._run, work=True)
        self._delay = clock.timer(f"{name}.tidv", self._delayed)
        self._absolute = clock.timer(f"{name}.tadv", self._delayed)

    def stop(self) -> None:
        """Reset: nothing is under way."""
        for timer in (self._timer, self._delay, self._absolute):
            timer.cancel()

    def kick(self) -> None:
        """There may be something to do."""
        if self._timer.deadline_ps is None and self._ready():
            now = self.clock.now_ps
            self._timer.arm(max(now + START_PS, self.mac.state.tx_free_ps))

    def flush(self) -> None:
        """TIDV.FPD: report what is held back, now."""
        if self._delay.deadline_ps is not None:
            self._delayed()

    def _ready(self) -> bool:
        state = self.mac.state
        count = state.tdlen >> 4
        return (
            bool(state.tctl & TCTL_EN)
            and not state.tx_paused
            and self.mac.dma.allowed
            and state.tdh < count
            and state.tdt < count
            and (state.tdh != state.tdt or self._segment_waits())
        )

    def _delayed(self) -> None:
        self._delay.cancel()
        self._absolute.cancel()
        self.mac.raise_causes(TXDW)

    def _report(self, command: int) -> None:
        """A descriptor with RS was written back."""
        state = self.mac.state
        ticks = state.tidv & 0xFFFF
        if not command & IDE or not ticks:
            self.mac.raise_causes(TXDW)
            return
        now = self.clock.now_ps
        self._delay.arm(now + ticks * TICK_PS)
        if state.tadv and self._absolute.deadline_ps is None:
            self._absolute.arm(now + state.tadv * TICK_PS)

    # -- the ring --------------------------------------------------------------------------------

    def _run(self) -> None:
        mac, state = self.mac, self.mac.state
        frames = looked_at = 0
        while frames < BATCH and looked_at < IDLE_DESCRIPTORS and self._ready():
            if self._segments_go():
                frames += self._send_segments(BATCH - frames)
                continue
            count = state.tdlen >> 4
            upto = state.tdt if state.tdt > state.tdh else count
            n = min(upto - state.tdh, FETCH)
            base = state.tdbah << 32 | state.tdbal
            first = base + state.tdh * 16
            block = mac.dma.read(first, n * 16)
            for k in range(n):
                frames += self._descriptor(first + 16 * k, block[16 * k : 16 * k + 16])
                looked_at += 1
                before = state.tdt - state.tdh
                state.tdh = (state.tdh + 1) % count
                self._low_water(count, before)
                if self._segments_go() or frames >= BATCH:
                    break
        if self._ready():
            self._timer.arm(max(self.clock.now_ps + START_PS, state.tx_free_ps))
        elif state.tdh == state.tdt and looked_at:
            mac.raise_causes(TXQE)

    def _low_water(self, count: int, before: int) -> None:
        state = self.mac.state
        threshold = (state.txdctl >> 25) * 8
        if threshold and before % count == threshold + 1:
            self.mac.raise_causes(TXD_LOW)

    def _descriptor(self, gpa: int, raw: bytes) -> int:
        """One descriptor; gives the number of frames that left."""
        address, low, high = struct.unpack("<QII", raw)
        sent = 0
        if not low & DEXT:
            self._gather(address, low & 0xFFFF, low, high, legacy=True)
            if low & EOP:
                sent = self._end()
        elif low >> 20 & 15 == DTYP_DATA:
            self._gather(address, low & 0xF_FFFF, low, high, legacy=False)
            if low & EOP:
                sent = self._end()
        else:
            self._set_context(address, low, high)
        if low & RS:
            self.mac.dma.write(gpa + 12, bytes(((high | DD) & 0xFF,)))
            self._report(low)
        return sent

    def _set_context(self, address: int, low: int, high: int) -> None:
        context = Context(
            ipcss=address & 0xFF,
            ipcso=address >> 8 & 0xFF,
            ipcse=address >> 16 & 0xFFFF,
            tucss=address >> 32 & 0xFF,
            tucso=address >> 40 & 0xFF,
            tucse=address >> 48 & 0xFFFF,
            mss=high >> 16 & 0xFFFF,
            hdrlen=high >> 8 & 0xFF,
            paylen=low & 0xF_FFFF,
            tcp=bool(low & TUCMD_TCP),
            ip=bool(low & TUCMD_IP),
        )
        if low & TSE:
            self.mac.state.tx_tso = context
        else:
            self.mac.state.tx_context = context

    # -- a packet --------------------------------------------------------------------------------

    def _gather(self, address: int, length: int, low: int, high: int, *, legacy: bool) -> None:
        """Data of one descriptor. The first one of a packet says what is done with it."""
        state = self.mac.state
        if not state.tx_open:
            self._begin()
            state.tx_open = True
            state.tx_ended = False
            state.tx_vlan = -1
            state.tx_options = 0 if legacy else high >> 8 & 3
            tso = state.tx_tso
            state.tx_segmented = (
                not legacy and bool(low & TSE) and 14 <= tso.hdrlen <= MAX_HEADER_BYTES
            )
            if not legacy and low & TSE:
                self.mac.statistics.segmented(failed=not state.tx_segmented)
            state.tx_segment = state.tx_sent_bytes = 0
        state.tx_descriptors += 1
        if low & VLE and low & EOP and state.ctrl & CTRL_VME:
            state.tx_vlan = high >> 16
        if not state.tx_segmented:
            length = min(length, MAX_PACKET_BYTES + 1 - len(state.tx_buffer))
        if length > 0:
            state.tx_buffer += self.mac.dma.read(address, length)
        if legacy and low & IC and low & EOP:
            start, at = high >> 8 & 0xFF, low >> 16 & 0xFF
            insert_checksum(state.tx_buffer, start, at, 0)

    def _end(self) -> int:
        """EOP: gives 1 if a frame left at once; segments leave one at a time."""
        state = self.mac.state
        state.tx_ended = True
        self._update()
        if state.tx_segmented:
            if not self._segment_waits():
                self._close()
            return 0
        frame = state.tx_buffer
        sent = 0
        if len(frame) <= MAX_PACKET_BYTES and len(frame) >= 14:
            insert_checksums(frame, state.tx_context, state.tx_options)
            self._occupy(frame, (len(frame),))
            self._wire(on_wire(frame, self._tag()))
            sent = 1
        self._close()
        return sent

    def _begin(self) -> None:
        """A packet begins, with the descriptor at TDH."""
        state = self.mac.state
        state.tx_head, state.tx_descriptors, state.tx_frames = state.tdh, 0, 0
        state.tx_request = self.mac.requests.begin(
            "tx", queue=0, address=self._gpa(state.tdh), write=True, head=state.tdh
        )

    def _update(self) -> None:
        """Its last descriptor: now its length is known."""
        state = self.mac.state
        tso = state.tx_tso
        detail = f"TSO MSS={tso.mss} HDRLEN={tso.hdrlen}" if state.tx_segmented else ""
        self.mac.requests.update(
            state.tx_request,
            "tx",
            queue=0,
            address=self._gpa(state.tx_head),
            length=len(state.tx_buffer) + state.tx_sent_bytes,
            write=True,
            head=state.tx_head,
            segments=state.tx_descriptors,
            detail=detail,
        )

    def _gpa(self, index: int) -> int:
        """Where a descriptor is."""
        state = self.mac.state
        return ((state.tdbah << 32 | state.tdbal) + 16 * index) & (1 << 64) - 1

    def _close(self) -> None:
        state = self.mac.state
        frames = state.tx_frames
        detail = f"{frames} frames" if frames > 1 else ""
        self.mac.requests.end(state.tx_request, OK if frames else "dropped", detail)
        state.tx_request = 0
        state.tx_open = state.tx_ended = state.tx_segmented = False
        state.tx_buffer = bytearray()

    # -- segments --------------------------------------------------------------------------------

    def _segment_waits(self) -> bool:
        state = self.mac.state
        if not state.tx_open or not state.tx_segmented:
            return False
        tso = state.tx_tso
        payload = len(state.tx_buffer) - tso.hdrlen
        if state.tx_ended:
            return payload > 0
        # one byte more than a segment: the last one is known only by EOP
        return payload > max(tso.mss, LEAST_MSS)

    def _segments_go(self) -> bool:
        """Are there segments, and is nothing gathered that could go with them?"""
        state = self.mac.state
        if not self._segment_waits():
            return False
        return state.tx_ended or state.tdh == state.tdt or len(state.tx_buffer) >= MOST_GATHERED

    def _send_segments(self, most: int) -> int:
        """Segments of what has been gathered, at most so many of those that can go; how many."""
        state = self.mac.state
        tso, buffer = state.tx_tso, state.tx_buffer
        mss = min(max(tso.mss, LEAST_MSS), MAX_PACKET_BYTES - tso.hdrlen)
        header, waiting = bytes(buffer[: tso.hdrlen]), len(buffer) - tso.hdrlen
        # the last one is known only by EOP
        count = min(-(-waiting // mss) if state.tx_ended else (waiting - 1) // mss, most)
        data = bytes(memoryview(buffer)[tso.hdrlen : tso.hdrlen + count * mss])
        ends = state.tx_ended and len(data) == waiting
        del buffer[tso.hdrlen : tso.hdrlen + len(data)]
        burst = Segments(
            header, data, mss, tso, state.tx_options, self._tag(), state.tx_segment,
            state.tx_sent_bytes, ends,
        )  # fmt: skip
        sizes = burst.sizes()
        self._occupy((header + data[:6])[:6], sizes)
        if burst.fit_in_one:
            self._wire_large(Large(len(sizes), burst.cut, burst.whole))
        else:
            for frame in burst.cut():
                self._wire(frame)
        state.tx_segment += len(sizes)
        state.tx_sent_bytes += len(data)
        if ends:
            self._close()
        return len(sizes)

    # -- the wire --------------------------------------------------------------------------------

    def _tag(self) -> bytes:
        state = self.mac.state
        if state.tx_vlan < 0:
            return b""
        return struct.pack(">HH", state.vet & 0xFFFF, state.tx_vlan & 0xFFFF)

    def _occupy(self, frame: bytes | bytearray, sizes: Sequence[int]) -> None:
        """Frames of these sizes, before they have tags and padding, begin like `frame`: count them,
        and the time that they take.
        """
        state = self.mac.state
        tag_bytes = len(self._tag())
        lengths = [max(size + tag_bytes, MIN_FRAME_BYTES) + FCS_BYTES for size in sizes]
        octets = sum(lengths) + len(lengths) * OVERHEAD_BYTES
        state.tx_free_ps = max(self.clock.now_ps, state.tx_free_ps) + octets * 8 * BIT_PS
        state.tx_frames += len(lengths)
        self.mac.statistics.sent(bytes(frame[:6]), lengths)
