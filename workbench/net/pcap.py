"""Capture files: play one in, or note in one what passes.

Read: pcapng (`pcapng.py`), and the classic format in both byte orders, with micro- and nanoseconds,
link type Ethernet (described by the pcap-savefile(5) manual page). Frames come at the recorded
distances in host time from the start of the run; as inputs they are stamped with guest time like
all others.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workbench.errors import FormatError, InputFileError, os_error_text
from workbench.net.pcapng import SECTION, blocks_to_frames
from workbench.net.port import MAX_FRAME_BYTES, Backend, Large

__all__ = ["Packet", "PcapBackend", "PcapTee", "read_pcap"]

MAGIC_US, MAGIC_NS = 0xA1B2C3D4, 0xA1B23C4D
LINKTYPE_ETHERNET = 1
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Packet:
    """One captured frame: time since the epoch in ns, and its bytes."""

    time_ns: int
    data: bytes


def read_pcap(path: Path) -> Iterator[Packet]:
    """The frames of a capture; frames that the capture has cut short are left out."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputFileError(f"Cannot read {path}: {os_error_text(error)}.") from error
    with file:
        yield from _packets(file, str(path))


def _packets(file: BinaryIO, path: str) -> Iterator[Packet]:
    head = file.read(24)
    if head[:4] == SECTION:
        file.seek(0)
        for time_ns, length, data in blocks_to_frames(file, path):
            if len(data) > MAX_FRAME_BYTES:
                raise FormatError(f"a frame of {len(data)} bytes", path=path)
            if data and len(data) == length:
                yield Packet(time_ns, data)
        return
    order, unit = "", 0
    for mark in "<>":
        if len(head) == 24:
            magic = struct.unpack_from(mark + "I", head)[0]
            if magic in (MAGIC_US, MAGIC_NS):
                order, unit = mark, 1000 if magic == MAGIC_US else 1
    if not order:
        raise FormatError("expected a capture in pcap or pcapng format", path=path)
    link = struct.unpack_from(order + "I", head, 20)[0] & 0xFFFF
    if link != LINKTYPE_ETHERNET:
        raise FormatError(f"expected link type 1 (Ethernet), not {link}", path=path)
    at = 24
    while record := file.read(16):
        if len(record) < 16:
            raise FormatError("a record is cut short", path=path, offset=at)
        seconds, fraction, kept, length = struct.unpack(order + "4I", record)
        if kept > MAX_FRAME_BYTES:
            raise FormatError(f"a frame of {kept} bytes", path=path, offset=at)
        data = file.read(kept)
        if len(data) < kept:
            raise FormatError("a frame is cut short", path=path, offset=at)
        if kept == length and kept:
            yield Packet(seconds * NS_PER_S + fraction * unit, data)
        at += 16 + kept


class PcapBackend:
    """Plays a capture in once; what the machine sends goes nowhere. `speed` 0: all at once."""

    large_frames = False

    def __init__(self, path: Path, speed: float = 1.0) -> None:
        self.packets = list(read_pcap(path))
        self.speed = speed
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        """Begin with the first frame."""
        self._thread = threading.Thread(target=self._play, args=(receive,), daemon=True)
        self._thread.start()

    def send(self, frame: bytes) -> None:
        """Nobody listens."""

    def send_large(self, large: Large) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Stop playing."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _play(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        begin = time.monotonic()
        for packet in self.packets:
            if self.speed > 0:
                due = (packet.time_ns - self.packets[0].time_ns) / NS_PER_S / self.speed
                if self._stop.wait(max(begin + due - time.monotonic(), 0)):
                    return
            elif self._stop.is_set():
                return
            receive([packet.data])


class PcapTee:
    """Another back end, with a capture of all that passes, in both directions."""

    def __init__(self, inner: Backend, path: Path) -> None:
        self.inner = inner
        self._lock = threading.Lock()
        try:
            self._file = path.open("wb")
        except OSError as error:
            raise InputFileError(f"Cannot write {path}: {os_error_text(error)}.") from error
        self._file.write(struct.pack("<IHHiIII", MAGIC_NS, 2, 4, 0, 0, 65535, LINKTYPE_ETHERNET))

    @property
    def large_frames(self) -> bool:
        """As the network's."""
        return self.inner.large_frames

    @large_frames.setter
    def large_frames(self, wanted: bool) -> None:
        self.inner.large_frames = wanted

    def start(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        """Begin; received frames are noted before they go on."""

        def noted(frames: Sequence[bytes]) -> None:
            for frame in frames:
                self._note(frame)
            receive(frames)

        self.inner.start(noted)

    def send(self, frame: bytes) -> None:
        """Note a frame and pass it on."""
        self._note(frame)
        self.inner.send(frame)

    def send_large(self, large: Large) -> None:
        """Note segments and pass them on."""
        for frame in large.cut():
            self._note(frame)
        self.inner.send_large(large)

    def close(self) -> None:
        """Close the network, then the file."""
        self.inner.close()
        with self._lock:
            self._file.close()

    def _note(self, frame: bytes) -> None:
        now = time.time_ns()
        record = struct.pack("<4I", now // NS_PER_S, now % NS_PER_S, len(frame), len(frame))
        with self._lock:
            if not self._file.closed:
                self._file.write(record + frame)
