"""Checksums and segmentation that a network device does for its driver (RFC 1071, 791, 8200, 9293).

A frame that breaks the rules gives no frames; nothing raises, and work is bounded.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from workbench.core.checksum import internet_sum, internet_sums
from workbench.net.coalesce import MOST_IP_BYTES
from workbench.net.port import Large

__all__ = ["GSO_ECN", "GSO_TCPV4", "GSO_TCPV6", "GSO_UDP_L4", "checksum", "complete", "segments"]

GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_ECN = 1, 4, 5, 0x80
ETH_IPV4, ETH_IPV6, ETH_VLAN = 0x0800, 0x86DD, 0x8100
MOST_SEGMENTS: Final = 1024
TCP_FIN, TCP_PSH, TCP_CWR = 0x01, 0x08, 0x80
IP_TCP, IP_UDP = 6, 17


def checksum(data: bytes, start: int = 0) -> int:
    """The Internet checksum: complement of the ones' complement sum of 16-bit words."""
    rest = (internet_sum(data) + start) % 0xFFFF
    return 0xFFFF - rest if rest else 0


@dataclass(frozen=True, slots=True)
class Upper:
    """TCP or UDP of a frame: its bytes `start` to `end`, the offset of its checksum, and the sum of
    its pseudo header.
    """

    protocol: int
    start: int
    end: int
    field: int
    pseudo: int


def upper_layer(frame: bytes) -> Upper | None:
    """TCP or UDP in one piece of IPv4, or behind the header of IPv6; None for all else."""
    kind, at = network_layer(frame)
    least = 20 if kind == ETH_IPV4 else 40
    if kind not in (ETH_IPV4, ETH_IPV6) or at + least > len(frame):
        return None
    if kind == ETH_IPV4:
        if frame[at + 6] & 0x3F or frame[at + 7]:
            return None  # a fragment
        start = at + (frame[at] & 15) * 4
        end = at + int.from_bytes(frame[at + 2 : at + 4], "big")
        protocol, addresses = frame[at + 9], frame[at + 12 : at + 20]
    else:
        start = at + 40
        end = start + int.from_bytes(frame[at + 4 : at + 6], "big")
        protocol, addresses = frame[at + 6], frame[at + 8 : at + 40]
    field = {IP_TCP: 16, IP_UDP: 6}.get(protocol)
    if field is None or not at + least <= start <= end - field - 2 or end > len(frame):
        return None
    pseudo = internet_sum(addresses + struct.pack(">II", end - start, protocol))
    return Upper(protocol, start, end, start + field, pseudo)


def checksum_is_right(frame: bytes, upper: Upper) -> bool:
    """Whether the checksum is there and right."""
    if upper.protocol == IP_UDP and frame[upper.field : upper.field + 2] == b"\0\0":
        return False  # a UDP datagram without one
    total = upper.pseudo + internet_sum(memoryview(frame)[upper.start : upper.end])
    return total % 0xFFFF == 0


def complete(frame: bytes, start: int, offset: int) -> bytes | None:
    """Fill in the checksum that covers `start` to the end; None if it is outside the frame."""
    at = start + offset
    if at + 2 > len(frame):
        return None
    value = checksum(frame[start:])
    if not value and offset == 6:  # UDP: 0 would mean that there is none
        value = 0xFFFF
    return frame[:at] + value.to_bytes(2, "big") + frame[at + 2 :]


def network_layer(frame: bytes) -> tuple[int, int]:
    """(EtherType, offset of what follows it), VLAN tags skipped."""
    at = 12
    for _ in range(3):
        if at + 2 > len(frame):
            break
        kind = int.from_bytes(frame[at : at + 2], "big")
        if kind != ETH_VLAN:
            return kind, at + 2
        at += 4
    return 0, len(frame)


def segments(frame: bytes, gso_type: int, gso_size: int, transport: int) -> Large | list[bytes]:
    """A large frame as those that go over the wire; `transport` is the offset of its header. TCP is
    cut when it is asked for.
    """
    kind, network = network_layer(frame)
    udp = gso_type & ~GSO_ECN == GSO_UDP_L4
    header = 8 if udp else 20
    least = 20 if kind == ETH_IPV4 else 40
    if kind not in (ETH_IPV4, ETH_IPV6) or network + least > transport or not gso_size:
        return []
    if transport + header > len(frame):
        return []
    if not udp:
        header = (frame[transport + 12] >> 4) * 4
    payload = frame[transport + header :]
    if header < 8 or (not udp and header < 20) or not payload:
        return []
    if -(-len(payload) // gso_size) > MOST_SEGMENTS:
        return []
    head = frame[: transport + header]
    starts = range(0, len(payload), gso_size)
    layers = (kind, network, transport)

    def cut() -> list[bytes]:
        parts = [payload[at : at + gso_size] for at in starts]
        sums = internet_sums(parts)
        return [
            _segment(head, part, total, layers, n, at, udp, last=at == starts[-1])
            for n, (at, part, total) in enumerate(zip(starts, parts, sums, strict=True))
        ]

    def whole() -> bytes:
        return _segment(head, payload, internet_sum(payload), layers, 0, 0, udp, last=True)

    if udp or len(frame) - network > MOST_IP_BYTES:
        return cut()
    return Large(len(starts), cut, whole)


def _segment(
    head: bytes,
    payload: bytes,
    payload_sum: int,
    layers: tuple[int, int, int],
    number: int,
    at: int,
    udp: bool,
    *,
    last: bool,
) -> bytes:
    kind, network, transport = layers
    out = bytearray(head)
    length = len(out) - network + len(payload)
    if kind == ETH_IPV4:
        ident = int.from_bytes(out[network + 4 : network + 6], "big") + number & 0xFFFF
        struct.pack_into(">HH", out, network + 2, length & 0xFFFF, ident)
        out[network + 10 : network + 12] = b"\0\0"
        ip_header = bytes(out[network : network + (out[network] & 15) * 4])
        struct.pack_into(">H", out, network + 10, checksum(ip_header))
        addresses = bytes(out[network + 12 : network + 20])
    else:
        struct.pack_into(">H", out, network + 4, length - 40 & 0xFFFF)
        addresses = bytes(out[network + 8 : network + 40])
    size = len(out) - transport + len(payload)
    if udp:
        struct.pack_into(">HH", out, transport + 4, size & 0xFFFF, 0)
        field = transport + 6
    else:
        sequence = int.from_bytes(out[transport + 4 : transport + 8], "big") + at & 0xFFFF_FFFF
        struct.pack_into(">I", out, transport + 4, sequence)
        if not last:
            out[transport + 13] &= ~(TCP_FIN | TCP_PSH)
        if number:
            out[transport + 13] &= ~TCP_CWR
        out[transport + 16 : transport + 18] = b"\0\0"
        field = transport + 16
    pseudo = addresses + struct.pack(">II", size, IP_UDP if udp else IP_TCP)
    total = int.from_bytes(pseudo, "big") + internet_sum(out[transport:]) + payload_sum
    value = (total % 0xFFFF or 0xFFFF) ^ 0xFFFF  # the pseudo header is not all zeroes
    if udp and not value:
        value = 0xFFFF
    struct.pack_into(">H", out, field, value)
    return bytes(out) + payload
