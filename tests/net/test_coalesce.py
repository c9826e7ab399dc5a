"""TCP segments put together: contents, checksums, and what is left alone."""

from __future__ import annotations

import random
import struct

from tests.net.frames import GATEWAY, GUEST, MAC, checksum, ping, udp
from workbench.hw.virtio.offload import checksum_is_right, upper_layer
from workbench.net.coalesce import coalesce


def segment(seq: int, data: bytes, flags: int = 0x10, *, port: int = 80, ack: int = 7) -> bytes:
    tcp = struct.pack(">HHIIBBHHH", port, 5000, seq & 0xFFFFFFFF, ack, 0x50, flags, 999, 0, 0)
    body = tcp + data
    pseudo = GATEWAY + GUEST + struct.pack(">BBH", 0, 6, len(body))
    body = body[:16] + checksum(pseudo + body) + body[18:]
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(body), seq & 0xFFFF, 0, 64, 6, 0)
    head += GATEWAY + GUEST
    return MAC + MAC + b"\x08\x00" + head[:10] + checksum(head) + head[12:] + body


def is_right(frame: bytes) -> bool:
    """As the controller asks for it: a frame that it cannot read is not vouched for."""
    upper = upper_layer(frame)
    return upper is not None and checksum_is_right(frame, upper)


def test_a_row_becomes_one_frame_with_right_checksums() -> None:
    data = random.Random(1).randbytes(5 * 1440 + 77)
    first = 0xFFFFF000  # the sequence number goes round
    parts = [data[at : at + 1440] for at in range(0, len(data), 1440)]
    frames = [segment(first + 1440 * n, part) for n, part in enumerate(parts)]
    assert all(map(is_right, frames))
    (large,) = coalesce(frames)
    assert large[54:] == data
    assert large[38:42] == first.to_bytes(4, "big")
    assert int.from_bytes(large[16:18], "big") == len(large) - 14
    assert checksum(large[14:34]) == b"\0\0"
    assert is_right(large)
    assert not is_right(large[:-1] + bytes([large[-1] ^ 1]))


def test_rows_end() -> None:
    full, short = bytes(1440), bytes(100)
    cases = {
        "a gap": [segment(0, full), segment(2000, full)],
        "a short one before the end": [segment(0, short), segment(100, full)],
        "PSH": [segment(0, full, 0x18), segment(1440, full)],
        "another stream": [segment(0, full), segment(1440, full, port=81)],
        "another acknowledgement": [segment(0, full), segment(1440, full, ack=8)],
        "FIN": [segment(0, full), segment(1440, full, 0x11)],
        "no data": [segment(0, b""), segment(0, b"")],
        "between them": [segment(0, full), ping(MAC), segment(1440, full)],
        "other protocols": [udp(MAC, 1, 2, full), udp(MAC, 1, 2, full)],
    }
    for what, frames in cases.items():
        assert coalesce(frames) == frames, what
    joined = coalesce([segment(0, full), segment(1440, full, 0x18), segment(2880, full)])
    assert [len(frame) for frame in joined] == [54 + 2880, 54 + 1440]
    assert joined[0][47] == 0x18


def test_any_other_header_ends_a_row() -> None:
    """But for identification and checksums, the urgent pointer without URG, and PSH."""
    full = bytes(1440)
    for at in range(54):
        for bit in range(8):
            second = bytearray(segment(1440, full))
            second[at] ^= 1 << bit
            joined = len(coalesce([segment(0, full), bytes(second), segment(2880, full)]))
            if at in (18, 19, 24, 25, 50, 51, 52, 53):
                assert joined == 1, at
            else:
                assert joined == (2 if (at, bit) == (47, 3) else 3), (at, bit)


def test_no_frame_is_too_long() -> None:
    frames = [segment(1440 * n, bytes(1440)) for n in range(100)]
    large = coalesce(frames)
    assert sum(len(frame) - 54 for frame in large) == 144_000
    assert max(map(len, large)) <= 65535 + 14
    assert len(large) == 3


def test_anything_at_all() -> None:
    rng = random.Random(2)
    base = segment(0, bytes(60))
    for _ in range(3000):
        frame = bytearray(base[: rng.randrange(len(base) + 1)])
        for _ in range(rng.randrange(4)):
            if frame:
                frame[rng.randrange(len(frame))] = rng.randrange(256)
        other = bytes(frame)
        assert sum(map(len, coalesce([other, other]))) <= 2 * len(other)
        is_right(other)
