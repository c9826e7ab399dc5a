"""Captures: formats, times, damage, and what passes noted."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from tests.net.frames import Host
from tests.net.test_port import FakeBackend
from workbench.errors import FormatError, InputFileError
from workbench.net.pcap import Packet, PcapBackend, PcapTee, read_pcap


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
        (b"", "expected a capture in pcap format"),
        (b"\x0a\x0d\x0d\x0a" * 10, "expected a capture in pcap format"),
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
    inner.receive(b"in" * 30)
    tee.close()
    tee.send(b"late" * 15)
    assert [p.data for p in read_pcap(tmp_path / "out.pcap")] == [b"out" * 20, b"in" * 30]
    assert inner.sent[0] == b"out" * 20
    assert host.frames == [b"in" * 30]
