"""Chains of descriptors followed into the requests that they carry.

Virtual I/O Device 1.2: 2.7.5 and 2.8.6 (descriptors), 5.1.6 (network), 5.2.6 (block). A walk takes
at most as many steps as its table has entries, and shows what stopped it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from workbench.hw.virtio.spec import BLOCK, F_VERSION_1, NET
from workbench.inspect.guest import Ram

__all__ = ["Chain", "Desc", "follow_packed", "follow_split", "request_text"]

NEXT, WRITE, INDIRECT = 1, 2, 4
DESC: Final = struct.Struct("<QIHH")  # addr, len, flags, next; packed: addr, len, id, flags
MOST_STEPS: Final = 1024
_BLK_TYPES: Final = {
    0: "VIRTIO_BLK_T_IN", 1: "VIRTIO_BLK_T_OUT", 4: "VIRTIO_BLK_T_FLUSH", 8: "VIRTIO_BLK_T_GET_ID",
    10: "VIRTIO_BLK_T_GET_LIFETIME", 11: "VIRTIO_BLK_T_DISCARD", 13: "VIRTIO_BLK_T_WRITE_ZEROES",
    14: "VIRTIO_BLK_T_SECURE_ERASE",
}  # fmt: skip
_BLK_STATUS: Final = {0: "OK", 1: "IOERR", 2: "UNSUPP"}
_CTRL: Final = ("RX", "MAC", "VLAN", "ANNOUNCE", "MQ", "GUEST_OFFLOADS")
_GSO: Final = {0: "", 1: "TCPV4", 3: "UDP", 4: "TCPV6", 5: "UDP_L4"}
_ETHER: Final = {0x0800: "IPv4", 0x0806: "ARP", 0x86DD: "IPv6", 0x8100: "802.1Q"}


@dataclass(frozen=True, slots=True)
class Desc:
    """One descriptor of a chain, which lies `at` an address; `place` names it."""

    at: int
    place: str
    gpa: int
    length: int
    flags: int
    in_ram: bool


@dataclass(slots=True)
class Chain:
    """A chain as far as it could be followed; `fault` says what was wrong."""

    head: int
    id: int
    descs: list[Desc] = field(default_factory=list)
    fault: str = ""

    def length(self, writable: bool) -> int:
        """Length of one of its two parts."""
        return sum(d.length for d in self.descs if bool(d.flags & WRITE) == writable)

    def read(self, ram: Ram, offset: int, length: int, writable: bool = False) -> bytes | None:
        """Bytes of one of its two parts; None where they are not all there."""
        out = b""
        for desc in self.descs:
            if bool(desc.flags & WRITE) != writable:
                continue
            if offset >= desc.length:
                offset -= desc.length
                continue
            piece = ram.read(desc.gpa + offset, min(desc.length - offset, length - len(out)))
            if piece is None:
                return None
            out, offset = out + piece, 0
            if len(out) >= length:
                return out
        return None


def _add(chain: Chain, ram: Ram, at: int, place: str, gpa: int, length: int, flags: int) -> None:
    chain.descs.append(Desc(at, place, gpa, length, flags, ram.contains(gpa, length)))


def _indirect(chain: Chain, ram: Ram, gpa: int, length: int, packed: bool) -> None:
    """An indirect table (2.7.5.3, 2.8.7)."""
    count = min(length // DESC.size, MOST_STEPS)
    if not count or length % DESC.size:
        chain.fault = f"an indirect table of {length} bytes"
        return
    at, seen = 0, 0
    while True:
        raw = ram.read(gpa + DESC.size * at, DESC.size)
        if raw is None:
            chain.fault = f"the indirect table at {gpa:#x} is outside RAM"
            return
        address, size, third, fourth = DESC.unpack(raw)
        flags, after = (fourth, at + 1) if packed else (third, fourth)
        _add(chain, ram, gpa + DESC.size * at, f"[{at}]", address, size, flags)
        seen += 1
        if flags & INDIRECT:
            chain.fault = "an indirect descriptor in an indirect table"
            return
        if (packed and after >= count) or (not packed and not flags & NEXT):
            return
        if after >= count:
            chain.fault = f"descriptor {after} in an indirect table of {count}"
            return
        if seen >= count:
            chain.fault = "a loop in an indirect table"
            return
        at = after


def follow_split(ram: Ram, desc: int, size: int, head: int) -> Chain:
    """Follow a chain of a split queue from its head."""
    chain = Chain(head, head)
    at = head
    for _ in range(min(size, MOST_STEPS)):
        if at >= size:
            chain.fault = f"descriptor {at} in a queue of {size}"
            return chain
        raw = ram.read(desc + DESC.size * at, DESC.size)
        if raw is None:
            chain.fault = f"descriptor {at} is outside RAM"
            return chain
        gpa, length, flags, after = DESC.unpack(raw)
        if flags & INDIRECT:
            _indirect(chain, ram, gpa, length, packed=False)
            return chain
        _add(chain, ram, desc + DESC.size * at, str(at), gpa, length, flags)
        if not flags & NEXT:
            return chain
        at = after
    chain.fault = "a loop of descriptors"
    return chain


def follow_packed(ram: Ram, desc: int, size: int, head: int) -> Chain:
    """Follow a chain of a packed queue from its first slot; its id is that of the last."""
    chain = Chain(head, 0)
    for n in range(min(size, MOST_STEPS)):
        at = (head + n) % size
        raw = ram.read(desc + DESC.size * at, DESC.size)
        if raw is None:
            chain.fault = f"slot {at} is outside RAM"
            return chain
        gpa, length, chain.id, flags = DESC.unpack(raw)
        if flags & INDIRECT:
            _indirect(chain, ram, gpa, length, packed=True)
            return chain
        _add(chain, ram, desc + DESC.size * at, str(at), gpa, length, flags)
        if not flags & NEXT:
            return chain
    chain.fault = "a chain longer than its ring"
    return chain


def request_text(chain: Chain, ram: Ram, kind: int, queue: str, features: int) -> str:
    """What a chain asks for."""
    parts = [
        f"{count:,} bytes {way}"
        for count, way in ((chain.length(False), "to the device"), (chain.length(True), "from it"))
        if count
    ]
    words = list(_words(chain, ram, kind, queue, features))
    return "; ".join([*words, ", ".join(parts), *([chain.fault] if chain.fault else [])])


def _words(chain: Chain, ram: Ram, kind: int, queue: str, features: int) -> Iterator[str]:
    if kind == BLOCK:
        raw = chain.read(ram, 0, 16)
        if raw is not None:
            type_, _, sector = struct.unpack("<IIQ", raw)
            yield f"{_BLK_TYPES.get(type_, f'type {type_}')} sector {sector:,}"
    elif kind == NET and queue == "controlq":
        raw = chain.read(ram, 0, 2)
        if raw is not None:
            name = _CTRL[raw[0]] if raw[0] < len(_CTRL) else str(raw[0])
            yield f"VIRTIO_NET_CTRL_{name} command {raw[1]}"
    elif kind == NET and queue.startswith("transmitq"):
        size = 12 if features & (F_VERSION_1 | 1 << 15) else 10
        raw = chain.read(ram, 0, size + 14)
        if raw is not None:
            yield _frame(raw[size:]) + (f" GSO {_GSO.get(raw[1] & 0x7F, raw[1])}" if raw[1] else "")


def _frame(raw: bytes) -> str:
    kind = raw[12] << 8 | raw[13]
    return f"{raw[6:12].hex(':')} to {raw[:6].hex(':')} {_ETHER.get(kind, f'{kind:#06x}')}"
