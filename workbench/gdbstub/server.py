"""The stub on a socket: TCP on the loopback unless told otherwise, or a Unix socket.

One debugger at a time; another one that connects meanwhile is told so and sent away. The server
works in the thread that runs the machine: while the guest runs, `poll` looks for Ctrl-C.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from pathlib import Path
from types import TracebackType

from workbench.errors import InputFileError, UsageError, os_error_text
from workbench.gdbstub.framing import frame
from workbench.gdbstub.stub import Stub

_READ_BYTES = 1 << 16
_LOOK_UP_SECONDS = 0.2
_SEND_SECONDS = 10.0
_REFUSAL = b"+" + frame(b"E.another debugger is connected to this machine")
_MOST_REFUSED = 8
_MOST_PATH_BYTES = 107  # sockaddr_un


def listen(where: str) -> socket.socket:
    """Open the socket of `--gdb`: `:PORT`, `HOST:PORT`, `PORT` or `unix:PATH`.

    Raises `UsageError` for an address that is none, `InputFileError` when it is not to be had.
    """
    kind, _, path = where.partition(":")
    if kind == "unix" and path:
        if len(os.fsencode(path)) > _MOST_PATH_BYTES:
            raise UsageError(
                f"expected a path of at most {_MOST_PATH_BYTES} bytes, not {path!r:.200}"
            )
        try:
            _make_way(path)
            server = socket.socket(socket.AF_UNIX)
            server.bind(path)
        except OSError as error:
            raise InputFileError(f"the socket {path}: {os_error_text(error)}") from None
    else:
        host, _, port = where.rpartition(":")
        host = host.removeprefix("tcp:").strip("[]") or "127.0.0.1"
        if not port.isdecimal() or int(port) > 0xFFFF:
            raise UsageError(f"expected :PORT, HOST:PORT or unix:PATH for gdb, not {where!r:.200}")
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            server = socket.socket(family)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, int(port)))
        except OSError as error:
            raise InputFileError(f"gdb's port {host}:{port}: {os_error_text(error)}") from None
    server.listen(1)
    return server


def leave(listener: socket.socket) -> None:
    """Close what `listen` opened; a second call does nothing."""
    if listener.family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            Path(listener.getsockname()).unlink()
    listener.close()


def _make_way(path: str) -> None:
    """Remove a socket that nobody listens at any more; raises OSError where somebody does."""
    with contextlib.suppress(FileNotFoundError):
        if not Path(path).is_socket():
            return
        with socket.socket(socket.AF_UNIX) as caller:
            try:
                caller.connect(path)
            except ConnectionRefusedError:
                Path(path).unlink()
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


class Server:
    """Serves a stub on a listening socket."""

    def __init__(self, stub: Stub, listener: socket.socket) -> None:
        self.stub = stub
        self._listener = listener
        self._peer: socket.socket | None = None
        self._refused: list[socket.socket] = []

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._drop()
        for other in self._refused:
            other.close()
        leave(self._listener)

    @property
    def address(self) -> str:
        """What gdb's `target remote` takes."""
        name = self._listener.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    @property
    def connected(self) -> bool:
        """Is a debugger there?"""
        return self._peer is not None

    def serve(self) -> None:
        """Serve one debugger after the other until one says `kill`."""
        while not self.stub.killed:
            self.work(_LOOK_UP_SECONDS)

    def work(self, timeout_s: float | None = None) -> None:
        """Wait for something from outside, do it, and run the guest if that is what it was."""
        self.wait(timeout_s)
        if self.stub.running is not None and self._peer is not None:
            self.stub.run(self.poll)
            self.flush()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait for something from outside and answer it; the guest does not move."""
        if self._peer is None:
            self._accept(timeout_s)
        else:
            self._take(timeout_s)

    def poll(self) -> bool:
        """Look whether the debugger has something to say while the guest runs."""
        if self._peer is not None:
            self._take(0)
            self.flush()
        return self._peer is None or self.stub.interrupted or self.stub.killed

    def _accept(self, timeout_s: float | None) -> None:
        ready, _, _ = select.select([self._listener], [], [], timeout_s)
        if not ready:
            return
        try:
            self._peer, _ = self._listener.accept()
        except OSError:  # it has gone already
            return
        self._peer.settimeout(_SEND_SECONDS)
        if self._peer.family != socket.AF_UNIX:
            self._peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stub.connected()

    def _take(self, timeout_s: float | None) -> None:
        assert self._peer is not None
        ready, _, _ = select.select([self._peer, self._listener], [], [], timeout_s)
        if self._peer in ready:
            self._hear()
        if self._listener in ready and self._peer is not None:
            if self._has_gone(self._peer):
                self._drop()  # what it has said last is in vain; the other one is taken next
            else:
                self._refuse()

    def _hear(self) -> None:
        assert self._peer is not None
        try:
            data = self._peer.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._drop()
            return
        self.stub.receive(data)
        self.flush()
        if self.stub.detached or self.stub.killed:
            self._drop()

    @staticmethod
    def _has_gone(peer: socket.socket) -> bool:
        """Will nothing more come, but for what is here already?"""
        looking = select.poll()
        looking.register(peer, select.POLLRDHUP)
        return bool(looking.poll(0))

    def _refuse(self) -> None:
        """Tell another debugger that it has to wait; it hangs up when it has read that."""
        with contextlib.suppress(OSError):
            other, _ = self._listener.accept()
            self._refused.append(other)
            other.setblocking(False)
            other.send(_REFUSAL)
            other.shutdown(socket.SHUT_WR)
        while len(self._refused) > _MOST_REFUSED:
            self._refused.pop(0).close()

    def flush(self) -> None:
        """Send what the stub has to say."""
        data = self.stub.framing.take()
        if data and self._peer is not None:
            try:
                self._peer.sendall(data)
            except OSError:
                self._drop()

    def _drop(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None
            self.stub.running = None
