"""Frames that tests send, and a host that collects what it receives."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Sequence

MAC = bytes.fromhex("525400123456")
BROADCAST = b"\xff" * 6
SYN, ACK = 0x02, 0x10
GUEST, GATEWAY = bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2])


def checksum(data: bytes) -> bytes:
    total = sum(word for (word,) in struct.iter_unpack(">H", data + b"\0" * (len(data) & 1)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (total ^ 0xFFFF).to_bytes(2, "big")


def arp_request(target: bytes = GATEWAY) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x800, 6, 4, 1) + MAC + GUEST + bytes(6) + target
    return (BROADCAST + MAC + b"\x08\x06" + body).ljust(60, b"\0")


def arp_reply(to: bytes) -> bytes:
    body = struct.pack(">HHBBH", 1, 0x800, 6, 4, 2) + MAC + GUEST + to + GATEWAY
    return (to + MAC + b"\x08\x06" + body).ljust(60, b"\0")


def ipv4(to_mac: bytes, protocol: int, body: bytes, target: bytes = GATEWAY) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0) + GUEST + target
    return to_mac + MAC + b"\x08\x00" + head[:10] + checksum(head) + head[12:] + body


def udp(to_mac: bytes, source: int, port: int, data: bytes) -> bytes:
    return ipv4(to_mac, 17, struct.pack(">HHHH", source, port, 8 + len(data), 0) + data)


def tcp(
    to_mac: bytes, source: int, port: int, sequence: int, acknowledged: int, flags: int,
    data: bytes = b"",
) -> bytes:  # fmt: skip
    head = struct.pack(">HHIIBBHHH", source, port, sequence, acknowledged, 0x50, flags, 64240, 0, 0)
    pseudo = GUEST + GATEWAY + struct.pack(">HH", 6, len(head) + len(data))
    return ipv4(to_mac, 6, head[:16] + checksum(pseudo + head + data) + head[18:] + data)


def ping(to_mac: bytes, data: bytes = b"ping") -> bytes:
    body = struct.pack(">BBHHH", 8, 0, 0, 1, 1) + data
    return ipv4(to_mac, 1, body[:2] + checksum(body) + body[4:])


class Host:
    """The receiving side of a back end."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self._changed = threading.Condition()

    def receive(self, frames: Sequence[bytes]) -> None:
        with self._changed:
            self.frames += frames
            self._changed.notify_all()

    def wait(self, wanted: Callable[[bytes], bool] = lambda f: True, seconds: float = 10) -> bytes:
        """The first frame that is `wanted`; it is taken out."""
        end = time.monotonic() + seconds
        with self._changed:
            while True:
                for frame in self.frames:
                    if wanted(frame):
                        self.frames.remove(frame)
                        return frame
                if not self._changed.wait(end - time.monotonic()):
                    raise TimeoutError(f"expected a frame, not {self.frames!r}")


def is_arp_reply(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\2"
