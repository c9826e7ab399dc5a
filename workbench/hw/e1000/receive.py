"""Receive engine of the 82540EM: filters, packet buffer, descriptors (317453, 3.2 and 13.5).

A frame that passes the filters waits in the packet buffer (PBA.RXA KB) until the ring has
descriptors. Interrupts follow RDTR, RADV, RSRPD and RCTL.RDMTS. Deliberately not modelled: bad
frames (the wire makes none).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from operator import or_
from typing import TYPE_CHECKING, Final, TypeAlias
from zlib import crc32

from workbench.core.checksum import internet_sum, internet_sums
from workbench.core.clock import Clock
from workbench.core.requests import Served
from workbench.core.spans import spans_of
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
IN_EACH: Final = ~((0xFF & ~(STATUS_DD | STATUS_VP)) << 32 | 0xFF << 40)
"""Of the second half of a frame's last descriptor, what each of its descriptors has."""
HEADER_BYTES: Final = 14
FCS_BYTES: Final = 4
ALL_ONES: Final = (1 << 64) - 1
MAX_BYTES, MAX_LONG_BYTES = 1522, 16384  # with FCS, with a VLAN tag or not
TICK_PS: Final = 1_024_000  # of RDTR and RADV
BROADCAST: Final = b"\xff" * 6

_Taken: TypeAlias = tuple[bytes, bytes, int | None]
"""A frame, the same without its VLAN tag if that is taken out, and that tag."""


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

    # -- frames come -----------------------------------------------------------------------------

    def frames(self, frames: Sequence[bytes]) -> None:
        """Frames from the wire, without FCS, that come at once."""
        state = self.mac.state
        if not state.rctl & EN:
            return
        passed = self._passed(frames)
        while passed:
            stored = 0 if state.rx_fifo else self._store(passed)
            if stored:
                self.mac.statistics.received(passed[:stored])
                del passed[:stored]
            else:
                self._keep(passed.pop(0))

    def _passed(self, frames: Sequence[bytes]) -> list[bytes]:
        """Count frames, and give those that are to be stored; what is said of one is said of all
        with its header, unless that depends on more.
        """
        mac, state = self.mac, self.mac.state
        longest = MAX_LONG_BYTES if state.rctl & LPE else MAX_BYTES
        looked_into = {mac.flow_control.ethertype, state.vet.to_bytes(4, "big")[2:]}
        known: dict[bytes, bool] = {}
        passed: list[bytes] = []
        octets = count = 0
        for frame in frames:
            if len(frame) < MIN_FRAME_BYTES:
                if len(frame) < HEADER_BYTES:
                    continue
                frame = frame.ljust(MIN_FRAME_BYTES, b"\0")
            count += 1
            octets += len(frame) + FCS_BYTES
            header = frame[:HEADER_BYTES]
            wanted = known.get(header)
            if wanted is None:
                wanted = self._wanted(frame)
                if header[12:] not in looked_into:
                    known[header] = wanted
            if not wanted:
                continue
            if len(frame) + FCS_BYTES > longest:
                mac.statistics.oversize()
            else:
                passed.append(frame)
        mac.statistics.seen(count, octets)
        return passed

    def _keep(self, frame: bytes) -> None:
        """A frame for which there is no descriptor: into the packet buffer, if it has room."""
        mac, state = self.mac, self.mac.state
        waiting = state.rx_fifo
        filled = sum(map(len, waiting))
        room = (state.pba & 0xFFFF) << 10
        if len(waiting) >= MAX_WAITING_FRAMES or filled + len(frame) + FCS_BYTES > room:
            mac.statistics.missed()
            mac.flow_control.level(filled, overflow=True)
            mac.raise_causes(RXO)
            return
        mac.statistics.received((frame,))
        waiting.append(frame)
        mac.statistics.no_buffer()
        mac.flow_control.level(filled + len(frame))

    # -- filters ---------------------------------------------------------------------------------

    def _wanted(self, frame: bytes) -> bool:
        state = self.mac.state
        rctl = state.rctl
        verdict = self.mac.flow_control.heard(frame)
        if verdict is not Verdict.FILTER:
            return verdict is Verdict.PASS
        if rctl & VFE and frame[12] << 8 | frame[13] == state.vet:
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
        state = self.mac.state
        if state.rx_fifo:
            if state.rctl & EN:
                del state.rx_fifo[: self._store(state.rx_fifo)]
            self.mac.flow_control.level(sum(map(len, state.rx_fifo)))

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

    def _store(self, frames: Sequence[bytes]) -> int:
        """Frames to memory, in order, as far as there are descriptors: gives how many."""
        free = left = self._free()
        size = self._buffer_bytes()
        fcs = 0 if self.mac.state.rctl & SECRC else FCS_BYTES
        taken: list[_Taken] = []
        short: list[_Taken] = []  # those of one buffer, which go together
        for frame in frames:
            body, tag = self._strip(frame)
            needed = -(-(len(body) + fcs) // size)
            if needed > left:
                break
            left -= needed
            taken.append((frame, body, tag))
            if needed == 1:
                short.append(taken[-1])
            else:
                self._put(short)
                short.clear()
                self._put_long(taken[-1], size)
        if taken:
            self._put(short)
            self._interrupts(min(len(frame) for frame, _, _ in taken) + FCS_BYTES, free, left)
        return len(taken)

    def _strip(self, frame: bytes) -> tuple[bytes, int | None]:
        """Take the VLAN tag out if CTRL.VME; None: there is none."""
        state = self.mac.state
        if state.ctrl & CTRL_VME and frame[12] << 8 | frame[13] == state.vet:
            return frame[:12] + frame[16:], frame[14] << 8 | frame[15]
        return frame, None

    def _put(self, taken: Sequence[_Taken]) -> None:
        """Frames of one buffer each, as a burst: the descriptors are read and written at once."""
        if not taken:
            return
        mac, state = self.mac, self.mac.state
        base, count, head = state.rdbah << 32 | state.rdbal, state.rdlen >> 4, state.rdh
        pieces = [body for _, body, _ in taken]
        lengths = [len(body) for body in pieces]
        if not state.rctl & SECRC:
            ends = [crc32(body).to_bytes(FCS_BYTES, "little") for body in pieces]
            pieces = [piece for both in zip(pieces, ends, strict=True) for piece in both]
            lengths = [length + FCS_BYTES for length in lengths]
        gpas = self._fetch(len(taken))
        mac.dma.burst(spans_of(zip(gpas, lengths, strict=True)), b"".join(pieces))
        heads = [n % count for n in range(head, head + len(taken))]
        served: Iterator[Served] = zip(
            [base + 16 * n & ALL_ONES for n in heads],
            [len(frame) for frame, _, _ in taken],
            heads,
            gpas,
            lengths,
            strict=True,
        )
        mac.requests.burst("rx", served, queue=0)
        self._write_back(gpas, list(map(or_, lengths, self._results(taken))))

    def _put_long(self, taken: _Taken, size: int) -> None:
        """One frame into as many buffers as it needs."""
        mac, state = self.mac, self.mac.state
        frame, body, _ = taken
        (result,) = self._results((taken,))
        if not state.rctl & SECRC:
            body += crc32(body).to_bytes(FCS_BYTES, "little")
        parts = [min(size, len(body) - at) for at in range(0, len(body), size)]
        addresses = self._fetch(len(parts))
        request = mac.requests.begin(
            "rx",
            queue=0,
            address=(state.rdbah << 32 | state.rdbal) + state.rdh * 16 & ALL_ONES,
            length=len(frame),
            head=state.rdh,
            segments=len(parts),
        )
        mac.dma.scatter(spans_of(zip(addresses, parts, strict=True)), body)
        ends = [length | result & IN_EACH for length in parts[:-1]]
        self._write_back(addresses, [*ends, parts[-1] | result])
        mac.requests.end(request)

    def _results(self, taken: Sequence[_Taken]) -> list[int]:
        """The second half of the last descriptor of each frame, without the length (3.2.3)."""
        rxcsum = self.mac.state.rxcsum
        start = rxcsum & 0xFF
        frames = [frame for frame, _, _ in taken]
        found: list[int] = []
        for (frame, body, tag), total in zip(taken, internet_sums(frames), strict=True):
            checks = check_received(frame, rxcsum, total)
            status = STATUS_DD | STATUS_EOP | checks.status
            if tag is not None:
                status |= STATUS_VP
            if frame[0] & 1 and not self._exact(frame):
                status |= STATUS_PIF
            if start or not total or body is not frame:
                total = internet_sum(body[start:])
            half = (total ^ 0xFFFF) << 16 | status << 32 | checks.errors << 40
            found.append(half if tag is None else half | tag << 48)
        return found

    def _fetch(self, count: int) -> array[int]:
        """Addresses in the descriptors from RDH on (3.2.3)."""
        read = b"".join(self.mac.dma.read(gpa, 16 * n) for gpa, n in self._pieces(count))
        return array("Q", read)[::2]

    def _write_back(self, addresses: Sequence[int], ends: Sequence[int]) -> None:
        """Descriptors from RDH on are done with (3.2.3); RDH goes on."""
        state = self.mac.state
        data = memoryview(spans_of(zip(addresses, ends, strict=True))).cast("B")
        for gpa, n in self._pieces(len(ends)):
            self.mac.dma.write(gpa, bytes(data[: 16 * n]))
            data = data[16 * n :]
        state.rdh = (state.rdh + len(ends)) % (state.rdlen >> 4)

    def _pieces(self, count: int) -> list[tuple[int, int]]:
        """Where descriptors from RDH on are and how many there: in two pieces over the end."""
        state = self.mac.state
        base = state.rdbah << 32 | state.rdbal
        first = min(count, (state.rdlen >> 4) - state.rdh)
        pieces = [(base + 16 * state.rdh, first)]
        return pieces if first == count else [*pieces, (base, count - first)]

    # -- interrupts ------------------------------------------------------------------------------

    def _interrupts(self, shortest: int, before: int, after: int) -> None:
        """Frames were stored, of so many bytes or more, with so many free descriptors before and
        after.
        """
        state = self.mac.state
        causes = 0
        threshold = (state.rdlen >> 4) >> (state.rctl >> 8 & 3) + 1
        if after <= threshold < before:
            causes |= RXDMT0
        if state.rsrpd and shortest <= state.rsrpd:
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
