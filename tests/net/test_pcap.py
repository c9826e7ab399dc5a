"""Captures: formats, times, damage, and what passes noted."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.net.frames import Host
from tests.net.test_port import FakeBackend
from workbench.errors import FormatError, InputFileError
from workbench.net.pcap import Packet, PcapBackend, PcapTee, read_pcap
from workbench.net.port import Large


def capture(
    order: str = "<", nano: bool = False, link: int = 1, times: tuple[int, ...] = (0,)
) -> bytes:
    data = struct.pack(
        order + "IHHiIII", 0xA1B23C4D if nano else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link
    )
    for n, at in enumerate(times):
        frame = bytes([n & 0xFF]) * 60
        data += struct.pack(order + "4I", 1000 + at // 1000, at % 1000, 60, 60) + frame
    return data


def block(order: str, kind: int, body: bytes) -> bytes:
    """Of a pcapng file."""
    body += bytes(-len(body) % 4)
    length = len(body) + 12
    return struct.pack(order + "2I", kind, length) + body + struct.pack(order + "I", length)


@pytest.mark.parametrize("order", "<>")
def test_pcapng(tmp_path: Path, order: str) -> None:
    """Two interfaces in units of 1 us and 2^-10 s, one of another kind, blocks of no interest, a
    frame cut by the capture, one without a time.
    """

    def frame(interface: int, units: int, data: bytes, wire: int | None = None) -> bytes:
        head = (interface, units >> 32, units & 0xFFFF_FFFF, len(data), wire or len(data))
        return block(order, 6, struct.pack(order + "5I", *head) + data)

    path = tmp_path / "x.pcapng"
    path.write_bytes(
        block(order, 0x0A0D0D0A, struct.pack(order + "I2Hq", 0x1A2B3C4D, 1, 0, -1))
        + block(order, 1, struct.pack(order + "2HI", 1, 0, 0))
        + block(order, 1, struct.pack(order + "2HI2HB3x", 1, 0, 0, 9, 1, 0x8A))
        + block(order, 1, struct.pack(order + "2HI", 113, 0, 0))
        + block(order, 5, bytes(12))
        + frame(0, 5_000_001, b"a" * 60)
        + frame(1, 6 << 10, b"b" * 61)
        + frame(2, 0, b"c" * 60)
        + frame(7, 0, b"d" * 60)
        + frame(0, 0, b"e" * 60, 1500)
        + block(order, 3, struct.pack(order + "I", 62) + b"f" * 62)
    )  # fmt: skip
    assert list(read_pcap(path)) == [
        Packet(5_000_001_000, b"a" * 60),
        Packet(6_000_000_000, b"b" * 61),
        Packet(0, b"f" * 62),
    ]


@pytest.mark.skipif(shutil.which("editcap") is None, reason="needs editcap (package tshark)")
def test_what_wireshark_writes(tmp_path: Path) -> None:
    old, new = tmp_path / "x.pcap", tmp_path / "x.pcapng"
    old.write_bytes(capture("<", True, times=(0, 5, 123_456)))
    subprocess.run(["editcap", "-F", "pcapng", old, new], check=True)
    assert new.read_bytes()[:4] == b"\n\r\r\n"
    assert list(read_pcap(new)) == list(read_pcap(old))


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("nano", [False, True])
def test_formats(tmp_path: Path, order: str, nano: bool) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(capture(order, nano, times=(0, 5)))
    unit = 1 if nano else 1000
    first, second = read_pcap(path)
    assert first == Packet(10**12, bytes(60))
    assert second == Packet(10**12 + 5 * unit, b"\1" * 60)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a capture in pcap or pcapng format"),
        (b"\x0a\x0d\x0d\x0a" * 10, "expected a byte-order magic"),
        (block("<", 0x0A0D0D0A, struct.pack("<I", 0x1A2B3C4D))[:-1], "a block is cut short"),
        (
            struct.pack("<3I", 0x0A0D0D0A, 1 << 30, 0x1A2B3C4D),
            "expected a whole block, not 1073741824",
        ),
        (capture(link=113), "expected link type 1"),
        (capture()[:-1], "a frame is cut short"),
        (capture()[:30], "a record is cut short"),
        (capture() + struct.pack("<4I", 0, 0, 1 << 31, 1 << 31), "a frame of 2147483648 bytes"),
    ],
)
def test_damage(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message):
        list(read_pcap(path))


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="Cannot read"):
        PcapBackend(tmp_path / "none")


def test_played_at_recorded_times(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(capture(times=(0, 300_000)))  # 300 s apart
    fast, host = PcapBackend(path, speed=1000), Host()
    begin = time.monotonic()
    fast.start(host.receive)
    assert host.wait() == bytes(60)
    assert host.wait() == b"\1" * 60
    assert time.monotonic() - begin >= 0.3
    fast.send(b"nobody listens")
    fast.close()
    slow = PcapBackend(path)
    slow.start(host.receive)
    assert host.wait() == bytes(60)
    slow.close()
    assert host.frames == []


def test_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    path.write_bytes(capture(times=tuple(range(0, 10**6, 1000))))
    backend, host = PcapBackend(path, 0), Host()
    backend.start(host.receive)
    assert [host.wait()[0] for _ in range(1000)] == [n & 0xFF for n in range(1000)]
    backend.close()


def test_what_passes_is_noted(tmp_path: Path) -> None:
    inner, host = FakeBackend(), Host()
    tee = PcapTee(inner, tmp_path / "out.pcap")
    tee.start(host.receive)
    tee.send(b"out" * 20)
    assert inner.receive is not None
    inner.receive([b"in" * 30])
    tee.close()
    tee.send(b"late" * 15)
    assert [p.data for p in read_pcap(tmp_path / "out.pcap")] == [b"out" * 20, b"in" * 30]
    assert inner.sent[0] == b"out" * 20
    assert host.frames == [b"in" * 30]


def test_a_capture_has_segments_where_the_network_takes_them_whole(tmp_path: Path) -> None:
    class Whole(FakeBackend):
        def send_large(self, large: Large) -> None:
            self.sent.append(large.whole())

    inner = Whole()
    tee = PcapTee(inner, tmp_path / "out.pcap")
    cut = [b"one" * 20, b"two" * 20]
    tee.send_large(Large(2, lambda: cut, lambda: b"all" * 40))
    tee.close()
    assert [p.data for p in read_pcap(tmp_path / "out.pcap")] == cut
    assert inner.sent == [b"all" * 40]
