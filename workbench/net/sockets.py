"""Sockets in QEMU's framing: to another workbench or a QEMU (`-netdev stream`, `dgram`, `socket`).

Stream: each frame follows its length, a big-endian 32-bit number. Datagram: one frame each.
Deliberately not modelled: virtio-net headers in front of frames.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import stat
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import UsageError, WorkbenchError, os_error_text
from workbench.net.port import MAX_FRAME_BYTES
from workbench.net.thread import HostThread

__all__ = ["Address", "DgramBackend", "SocketBackend", "StreamBackend"]

RETRY_S = 0.5
MAX_UNSENT_BYTES = 4 << 20
READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Address:
    """`HOST:PORT` (IPv4) or `unix:PATH`."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """From text; an empty host is the loopback interface."""
        if text.startswith("unix:") and len(text) > 5:
            return cls(path=text[5:])
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or not 0 <= int(port) < 65536:
            raise UsageError(f"expected HOST:PORT or unix:PATH, not {text!r}")
        return cls(host or "127.0.0.1", int(port))

    def new_socket(self, kind: int) -> socket.socket:
        """A new socket of the family that the address needs."""
        family = socket.AF_UNIX if self.path else socket.AF_INET
        made = socket.socket(family, kind)
        made.setblocking(False)
        return made

    @property
    def multicast(self) -> bool:
        """Is it an IPv4 multicast group?"""
        try:
            return not self.path and ipaddress.IPv4Address(self.host).is_multicast
        except ValueError:
            return False

    @property
    def raw(self) -> str | tuple[str, int]:
        """As `bind` and `connect` want it."""
        return self.path or (self.host, self.port)

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host}:{self.port}"

    def resolve(self) -> None:
        """Raise WorkbenchError for the name of a host that there is not."""
        if not self.path:
            try:
                socket.gethostbyname(self.host)
            except (OSError, UnicodeError) as error:
                why = os_error_text(error) if isinstance(error, OSError) else "no such name"
                raise WorkbenchError(f"Cannot find {self}: {why}.") from error

    def bind(self, made: socket.socket) -> None:
        """Bind; a socket file that somebody has left behind, and nobody listens on, is replaced."""
        if self.path:
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(Path(self.path).lstat().st_mode) and not self._answers(made.type):
                    Path(self.path).unlink()
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(self.raw)
        except OSError as error:
            made.close()
            raise WorkbenchError(f"Cannot bind {self}: {os_error_text(error)}.") from error

    def _answers(self, kind: int) -> bool:
        """Has somebody this socket file open?"""
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            return probe.connect_ex(self.path) != errno.ECONNREFUSED


class StreamBackend(HostThread):
    """One peer over TCP or a Unix socket; a lost connection is made again."""

    def __init__(self, address: Address, *, listen: bool) -> None:
        super().__init__(f"stream-{address}")
        self.address = address
        self._listener: socket.socket | None = None
        self._peer: socket.socket | None = None
        self._connecting = False
        self._retry_at = 0.0
        self._in = bytearray()
        self._out = bytearray()
        if listen:
            self._listener = address.new_socket(socket.SOCK_STREAM)
            address.bind(self._listener)
            self._listener.listen(1)
            if not address.path:
                self.address = Address(*self._listener.getsockname())
        else:
            address.resolve()

    @property
    def connected(self) -> bool:
        """Is there a peer?"""
        return self._peer is not None and not self._connecting

    def interest(self, poll: select.poll) -> int | None:
        if self._peer is not None:
            wants = select.POLLIN
            if self._out or self._connecting:
                wants |= select.POLLOUT
            poll.register(self._peer, wants)
            return None
        if self._listener is not None:
            poll.register(self._listener, select.POLLIN)
            return None
        wait = self._retry_at - time.monotonic()
        if wait > 0:
            return int(wait * 1000) + 1
        self._connect()
        return 0 if self._peer is None else self.interest(poll)

    def work(self, events: dict[int, int]) -> None:
        if self._listener is not None and self._listener.fileno() in events:
            with contextlib.suppress(OSError):
                self._take(self._listener.accept()[0])
        self._pack()
        if self._peer is None:
            return
        flags = events.get(self._peer.fileno(), 0)
        try:
            if self._connecting and flags:
                if self._peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    self._drop()
                    return
                self._connecting = False
            if flags & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._read():
                self._drop()
                return
            if self._out and not self._connecting:
                with contextlib.suppress(BlockingIOError):
                    del self._out[: self._peer.send(self._out)]
        except OSError:
            self._drop()

    def shut(self) -> None:
        self._drop()
        if self._listener is not None:
            self._listener.close()
            if self.address.path:
                with contextlib.suppress(OSError):
                    Path(self.address.path).unlink()

    def _connect(self) -> None:
        peer = self.address.new_socket(socket.SOCK_STREAM)
        try:
            peer.connect(self.address.raw)
        except BlockingIOError:
            self._connecting = True
        except OSError:
            peer.close()
            self._retry_at = time.monotonic() + RETRY_S
            return
        self._take(peer)

    def _take(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        if not self.address.path:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._in.clear()
        self._out.clear()
        self._peer = peer

    def _drop(self) -> None:
        if self._peer is not None:
            self._peer.close()
        self._peer, self._connecting = None, False
        self._retry_at = time.monotonic() + RETRY_S

    def _pack(self) -> None:
        """Frames without a peer, or that the peer does not take, are lost."""
        while self.outgoing:
            frame = self.outgoing.popleft()
            if not self.connected or len(self._out) > MAX_UNSENT_BYTES:
                self.lost += 1
            else:
                self._out += struct.pack(">I", len(frame)) + frame

    def _read(self) -> bool:
        """Frames from the peer; False when it has gone or lies."""
        assert self._peer is not None
        try:
            data = self._peer.recv(READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        buffer = self._in
        buffer += data
        frames: list[bytes] = []
        at = 0
        lies = False
        while len(buffer) - at >= 4:
            (length,) = struct.unpack_from(">I", buffer, at)
            if lies := length > MAX_FRAME_BYTES:
                break
            if len(buffer) - at - 4 < length:
                break
            if length:
                frames.append(bytes(buffer[at + 4 : at + 4 + length]))
            at += 4 + length
        del buffer[:at]
        self._receive(frames)
        return not lies


class SocketBackend(StreamBackend):
    """One peer over a connected socket that was inherited; when it goes, there is no other."""

    def __init__(self, fd: int) -> None:
        """`fd` is the descriptor, which is taken over. Raises UsageError."""
        try:
            peer = socket.socket(fileno=fd)
        except OSError as error:
            raise UsageError(
                f"expected the descriptor of a socket, not {fd}: {os_error_text(error)}"
            ) from None
        super().__init__(Address(path=f"fd {fd}"), listen=False)
        peer.setblocking(False)
        self._peer = peer

    def interest(self, poll: select.poll) -> int | None:
        return None if self._peer is None else super().interest(poll)


class DgramBackend(HostThread):
    """One frame a datagram, from `local` to `remote`; a multicast `remote` is a shared wire."""

    def __init__(self, local: Address | None, remote: Address) -> None:
        super().__init__(f"dgram-{remote}")
        self.remote = remote
        remote.resolve()
        self._socket = remote.new_socket(socket.SOCK_DGRAM)
        if remote.multicast:
            self._join(local)
        elif local is not None:
            local.bind(self._socket)
        self.local = local if local is not None and local.path else self._bound()

    def _join(self, local: Address | None) -> None:
        made = self._socket
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        interface = socket.inet_aton(local.host if local is not None else "127.0.0.1")
        try:
            made.bind((self.remote.host, self.remote.port))
            member = socket.inet_aton(self.remote.host) + interface
            made.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, interface)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        except OSError as error:
            made.close()
            raise WorkbenchError(f"Cannot join {self.remote}: {os_error_text(error)}.") from error

    def _bound(self) -> Address | None:
        name = self._socket.getsockname()
        return Address(*name) if isinstance(name, tuple) else None

    def interest(self, poll: select.poll) -> int | None:
        poll.register(self._socket, select.POLLIN)
        return None

    def work(self, events: dict[int, int]) -> None:
        while self.outgoing:
            frame = self.outgoing.popleft()
            try:
                self._socket.sendto(frame, self.remote.raw)
            except OSError:
                self.lost += 1  # nobody there, or too long for a datagram
        if events:
            frames: list[bytes] = []
            with contextlib.suppress(OSError):
                for _ in range(256):
                    frames.append(self._socket.recv(MAX_FRAME_BYTES))
            self._receive(frames)

    def shut(self) -> None:
        self._socket.close()
        if self.local is not None and self.local.path:
            with contextlib.suppress(OSError):
                os.unlink(self.local.path)  # noqa: PTH108
