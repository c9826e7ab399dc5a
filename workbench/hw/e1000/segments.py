"""Segmentation of the 82540EM, on bytes (317453, 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workbench.core.checksum import internet_sum, internet_sums
from workbench.hw.e1000.offload import Context, insert_checksum
from workbench.hw.e1000.state import MIN_FRAME_BYTES
from workbench.net.coalesce import MOST_IP_BYTES

__all__ = ["Segments", "insert_checksums", "on_wire"]

FIN_PSH: Final = 0x09
IXSM, TXSM = 1, 2


@dataclass(frozen=True, slots=True)
class Segments:
    """Segments of one packet that leave together: copied headers, `data`, and how they are cut."""

    header: bytes
    data: bytes
    mss: int
    context: Context
    options: int
    """What of POPTS is set."""
    tag: bytes
    """Of a VLAN, or nothing."""
    first: int
    """Number of the first of them in the packet."""
    sent_bytes: int
    """Data of the packet before them."""
    ends: bool
    """Is the last of them the packet's last?"""

    @property
    def fit_in_one(self) -> bool:
        """Can they be one frame of TCP?"""
        return (
            self.context.tcp
            and bool(self.options & TXSM)
            and len(self.header) + len(self.data) - self.context.ipcss <= MOST_IP_BYTES
        )

    def sizes(self) -> list[int]:
        """Bytes of each, without tag, padding and FCS."""
        full, rest = divmod(len(self.data), self.mss)
        sizes = [len(self.header) + self.mss] * full
        return [*sizes, len(self.header) + rest] if rest else sizes

    def cut(self) -> list[bytes]:
        """The frames."""
        data, mss = self.data, self.mss
        parts = [data[at : at + mss] for at in range(0, len(data), mss)]
        last = len(parts) - 1 if self.ends else -1
        return [
            self._frame(part, total, n, last=n == last)
            for n, (part, total) in enumerate(zip(parts, internet_sums(parts), strict=True))
        ]

    def whole(self) -> bytes:
        """All in one frame."""
        return self._frame(self.data, internet_sum(self.data) % 0xFFFF, 0, last=self.ends)

    def _frame(self, part: bytes, total: int, number: int, *, last: bool) -> bytes:
        frame = bytearray(self.header)
        frame += part
        sent_bytes = self.sent_bytes + number * self.mss
        segment_headers(frame, self.context, self.first + number, sent_bytes, last=last)
        insert_checksums(frame, self.context, self.options, (len(self.header), total))
        return on_wire(frame, self.tag)


def on_wire(frame: bytearray, tag: bytes) -> bytes:
    """A finished frame as it leaves (TCTL.PSP: the wire carries no short ones)."""
    frame[12:12] = tag
    return bytes(frame.ljust(MIN_FRAME_BYTES, b"\0"))


def insert_checksums(
    frame: bytearray, context: Context, options: int, tail: tuple[int, int] | None = None
) -> None:
    """Those that POPTS asks for; `tail` as for `insert_checksum`."""
    tu, ip = context.tucss, context.ipcss
    if options & TXSM:
        insert_checksum(frame, tu, context.tucso, context.tucse, udp=not context.tcp, tail=tail)
    if options & IXSM:
        insert_checksum(frame, ip, context.ipcso, context.ipcse)


def segment_headers(
    frame: bytearray, context: Context, index: int, sent_bytes: int, *, last: bool
) -> None:
    """Make the copied headers those of segment `index` (317453, 3.5.6): lengths, identification,
    sequence number, flags, and the length in the partial checksum of the pseudo header.
    """
    length = len(frame)
    ip, tu = context.ipcss, context.tucss
    if context.ip:
        if ip + 6 <= length:
            _put(frame, ip + 2, length - ip)
            _put(frame, ip + 4, int.from_bytes(frame[ip + 4 : ip + 6], "big") + index)
    elif ip + 6 <= length:
        _put(frame, ip + 4, length - ip - 40)
    if context.tcp:
        if tu + 14 <= length:
            sequence = int.from_bytes(frame[tu + 4 : tu + 8], "big") + sent_bytes
            frame[tu + 4 : tu + 8] = (sequence & 0xFFFF_FFFF).to_bytes(4, "big")
            if not last:
                frame[tu + 13] &= ~FIN_PSH
    elif tu + 6 <= length:
        _put(frame, tu + 4, length - tu)
    at = context.tucso
    if at + 2 <= length and tu < length:
        partial = int.from_bytes(frame[at : at + 2], "big") + length - tu
        _put(frame, at, partial % 0xFFFF or (0xFFFF if partial else 0))


def _put(frame: bytearray, at: int, value: int) -> None:
    frame[at : at + 2] = (value & 0xFFFF).to_bytes(2, "big")
