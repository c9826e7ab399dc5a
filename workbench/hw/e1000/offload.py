"""Checksums of the 82540EM, on bytes (317453, 3.2.9, 3.3.5 to 3.5).

All functions take any values: an offset outside the frame means that nothing is done.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from workbench.core.checksum import internet_sum

__all__ = [
    "Context",
    "RxChecks",
    "check_received",
    "insert_checksum",
]

ETHERTYPE_IPV4, ETHERTYPE_IPV6, ETHERTYPE_VLAN = 0x0800, 0x86DD, 0x8100
TCP, UDP = 6, 17
PLAIN_IPV4 = b"\x08\0\x45"  # EtherType, and version and length of a header without options
STATUS_IXSM, STATUS_TCPCS, STATUS_IPCS = 1 << 2, 1 << 5, 1 << 6
ERROR_TCPE, ERROR_IPE = 1 << 5, 1 << 6
IPOFLD, TUOFLD, IPV6OFL = 1 << 8, 1 << 9, 1 << 10


@dataclass(slots=True)
class Context:
    """Checksum and segmentation offsets of a context descriptor (317453, 3.3.6)."""

    ipcss: int = 0
    ipcso: int = 0
    ipcse: int = 0
    tucss: int = 0
    tucso: int = 0
    tucse: int = 0
    mss: int = 0
    hdrlen: int = 0
    paylen: int = 0
    tcp: bool = False
    ip: bool = False

    def __post_init__(self) -> None:
        bytes_fit = (self.ipcss | self.ipcso | self.tucss | self.tucso | self.hdrlen) >> 8 == 0
        words_fit = (self.ipcse | self.tucse | self.mss) >> 16 == 0
        if not bytes_fit or not words_fit or self.paylen >> 20:
            raise ValueError("expected offsets as a descriptor holds them")


def insert_checksum(
    frame: bytearray,
    start: int,
    at: int,
    end: int,
    *,
    udp: bool = False,
    tail: tuple[int, int] | None = None,
) -> None:
    """Put the checksum of bytes `start` to `end` (inclusive; 0: to the last) at `at`.

    `tail`: from where on the bytes' sum is known, and that (`internet_sums`).
    """
    stop = end + 1 if end else len(frame)
    stop = min(stop, len(frame))
    if start >= stop or at + 2 > len(frame):
        return
    total = 0
    if tail is not None and stop == len(frame):
        known, rest = tail
        if start < known and at + 2 <= known and not known - start & 1:
            total = (internet_sum(frame[start:known]) + rest) % 0xFFFF
    value = (total or internet_sum(memoryview(frame)[start:stop])) ^ 0xFFFF
    if udp and not value:
        value = 0xFFFF
    frame[at : at + 2] = value.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class RxChecks:
    """Bits for status and errors of a receive descriptor."""

    status: int = STATUS_IXSM
    errors: int = 0


_IGNORED = RxChecks()


@functools.cache
def _checks(status: int, errors: int) -> RxChecks:
    return RxChecks(status, errors)


def check_received(frame: bytes, rxcsum: int, total: int) -> RxChecks:
    """Check IPv4, TCP and UDP checksums of a frame without FCS, as RXCSUM wants it; `total` is the
    sum of the whole frame (`internet_sums`).
    """
    if len(frame) < 34:
        return _IGNORED
    if frame[12:15] == PLAIN_IPV4 and frame[23] == TCP:
        length = frame[16] << 8 | frame[17]
        if length + 14 == len(frame) >= 54 and not (frame[20] << 8 | frame[21]) & 0x3FFF:
            return _check_plain(frame, rxcsum, total, length)
    at = 12
    ethertype = frame[12] << 8 | frame[13]
    if ethertype == ETHERTYPE_VLAN:
        at = 16
        ethertype = frame[16] << 8 | frame[17]
    ip = at + 2
    if ethertype == ETHERTYPE_IPV4:
        return _check_ipv4(frame, ip, rxcsum, total)
    if ethertype == ETHERTYPE_IPV6 and rxcsum & TUOFLD and rxcsum & IPV6OFL:
        return _check_ipv6(frame, ip, total)
    return _IGNORED


def _check_plain(frame: bytes, rxcsum: int, total: int, length: int) -> RxChecks:
    """TCP behind an IPv4 header without options, with nothing after it: nearly all that comes. What
    `total` has before the addresses is replaced by the rest of the pseudo header.
    """
    status = errors = 0
    if rxcsum & IPOFLD:
        status = STATUS_IPCS
        if int.from_bytes(frame[14:34], "big") % 0xFFFF:
            errors = ERROR_IPE
    if rxcsum & TUOFLD:
        status |= STATUS_TCPCS
        if (total - int.from_bytes(frame[:26], "big") + TCP + length - 20) % 0xFFFF:
            errors |= ERROR_TCPE
    return _checks(status, errors) if status else _IGNORED


def _check_ipv4(frame: bytes, ip: int, rxcsum: int, total: int) -> RxChecks:
    header = (frame[ip] & 15) * 4
    length = frame[ip + 2] << 8 | frame[ip + 3]
    if frame[ip] >> 4 != 4 or header < 20 or length < header or ip + length > len(frame):
        return _IGNORED
    status = errors = 0
    if rxcsum & IPOFLD:
        status |= STATUS_IPCS
        if internet_sum(frame[ip : ip + header]) != 0xFFFF:
            errors |= ERROR_IPE
    fragment = (frame[ip + 6] << 8 | frame[ip + 7]) & 0x3FFF
    if rxcsum & TUOFLD and not fragment:
        protocol = frame[ip + 9]
        pseudo = frame[ip + 12 : ip + 20] + struct.pack(">BBH", 0, protocol, length - header)
        wrong = _transport_wrong(frame, ip + header, ip + length, pseudo, protocol, total)
        if wrong is not None:
            status |= STATUS_TCPCS
            errors |= ERROR_TCPE if wrong else 0
    return _checks(status, errors) if status else _IGNORED


def _check_ipv6(frame: bytes, ip: int, total: int) -> RxChecks:
    if len(frame) < ip + 40:
        return _IGNORED
    length, protocol = frame[ip + 4] << 8 | frame[ip + 5], frame[ip + 6]
    if frame[ip] >> 4 != 6 or ip + 40 + length > len(frame):
        return _IGNORED
    pseudo = frame[ip + 8 : ip + 40] + struct.pack(">II", length, protocol)
    start = ip + 40
    wrong = _transport_wrong(frame, start, start + length, pseudo, protocol, total)
    if wrong is None:
        return _IGNORED
    return _checks(STATUS_TCPCS, ERROR_TCPE if wrong else 0)


def _transport_wrong(
    frame: bytes, start: int, end: int, pseudo: bytes, protocol: int, total: int
) -> bool | None:
    """Is the checksum of TCP or UDP from `start` to `end` wrong? None if there is none.

    What is before it has an even length and is taken from the sum of the frame: it is shorter. The
    pseudo header is not all zeroes, so that the sum cannot be 0 for that reason.
    """
    if protocol == UDP:
        if end - start < 8 or frame[start + 6 : start + 8] == b"\0\0":
            return None  # the sender has made none
    elif protocol != TCP or end - start < 20:
        return None
    if end == len(frame):
        body = total - internet_sum(frame[:start])
    else:
        body = internet_sum(frame[start:end])
    return (body + internet_sum(pseudo)) % 0xFFFF != 0
