"""The sockets of a testbed: one for qtest, any number for QMP, in one loop without threads.

As for QEMU an address is `unix:PATH` or `tcp:HOST:PORT`, to which the server connects (QEMU's
client library listens); with `,server=on` it listens itself, and waits for the first client.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from workbench.block.errors import RemoteError
from workbench.errors import UsageError, os_error_text
from workbench.qtest.monitor import Monitor
from workbench.qtest.options import Wanted, properties
from workbench.qtest.protocol import MOST_LINE_BYTES, Protocol
from workbench.qtest.qmp import Qmp

__all__ = ["Server", "open_socket"]

READ_BYTES: Final = 1 << 16
MOST_UNSENT_BYTES: Final = 4 * MOST_LINE_BYTES
ACCEPT_S: Final = 60.0


def open_socket(address: str) -> socket.socket:
    """Connect, or listen and take one client. Raises UsageError and RemoteError."""
    given = properties(address, "place")
    listen = given.get("server", "off") == "on"
    kind, _, place = given.get("place", "").partition(":")
    raw: str | tuple[str, int]
    if kind == "unix" and place:
        family, raw = socket.AF_UNIX, place
    elif kind == "tcp" and place.rpartition(":")[2].isdecimal():
        host, _, port = place.rpartition(":")
        family, raw = socket.AF_INET, (host or "127.0.0.1", int(port))
    else:
        raise UsageError(f"expected unix:PATH or tcp:HOST:PORT, not {address!r}")
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if not listen:
            made.connect(raw)
            return made
        if family == socket.AF_UNIX and not os.access(place, os.F_OK):
            made.bind(raw)
        elif family == socket.AF_UNIX:
            os.unlink(place)  # noqa: PTH108  (left behind by an earlier server)
            made.bind(raw)
        else:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(raw)
        made.listen(1)
        made.settimeout(ACCEPT_S)
        client, _ = made.accept()
    except (OSError, OverflowError) as error:
        made.close()
        text = os_error_text(error) if isinstance(error, OSError) else str(error)
        raise RemoteError(f"{address}: {text}") from None
    made.close()
    if family == socket.AF_UNIX:
        with contextlib.suppress(OSError):
            os.unlink(place)  # noqa: PTH108
    client.setblocking(True)
    return client


class _Connection:
    """One peer: what came is given to `feed`, what it gives is sent."""

    def __init__(self, sock: socket.socket, feed: Callable[[bytes], None]) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.feed = feed
        self.unsent = bytearray()
        self.closed = False

    def send(self, data: bytes) -> None:
        """Send, now or when the peer takes it."""
        if self.closed:
            return
        self.unsent += data
        self.flush()
        if len(self.unsent) > MOST_UNSENT_BYTES:
            self.closed = True

    def flush(self) -> None:
        """Send what the peer takes."""
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.closed = True

    def receive(self) -> None:
        """Take what is there."""
        try:
            data = self.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.feed(data)
        else:
            self.closed = True


class Server:
    """Serves one machine until a client says `quit` or all have gone."""

    def __init__(self, protocol: Protocol, monitor: Monitor, wanted: Wanted) -> None:
        self._protocol = protocol
        self._monitor = monitor
        self._wanted = wanted
        self._line = bytearray()
        self._qtest: _Connection | None = None
        self._qmps: list[tuple[Qmp, _Connection]] = []
        self._connections: list[_Connection] = []
        self._due: dict[str, float] = {}

    def event(self, name: str, data: dict[str, Any] | None = None) -> None:
        """Tell all QMP clients."""
        for qmp, _ in self._qmps:
            qmp.event(name, data)

    def connect(self) -> None:
        """Open the sockets of the command line; raises WorkbenchError."""
        if self._wanted.qtest:
            self._qtest = _Connection(open_socket(self._wanted.qtest), self._feed_qtest)
            self._connections.append(self._qtest)
        for address in self._wanted.qmp:
            qmp = Qmp(self._monitor.execute)
            connection = _Connection(open_socket(address), lambda data: None)
            connection.feed = partial(_feed_qmp, qmp, connection)
            self._qmps.append((qmp, connection))
            self._connections.append(connection)
            _send(connection, [qmp.greeting()])

    def serve(self) -> None:
        """Until the end."""
        testbed = self._monitor.testbed
        wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        testbed.machine.inputs.wake = lambda: os.eventfd_write(wake, 1)
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(wake, selectors.EVENT_READ)
                for connection in self._connections:
                    selector.register(connection.sock, selectors.EVENT_READ, connection)
                while self._connections and not self._monitor.quit:
                    self._once(selector, wake)
            for connection in self._connections:
                connection.sock.setblocking(True)
                connection.flush()
        finally:
            testbed.machine.inputs.wake = None
            for connection in self._connections:
                connection.sock.close()
            os.close(wake)

    def _once(self, selector: selectors.BaseSelector, wake: int) -> None:
        for key, mask in selector.select(self._wait()):
            connection: _Connection | None = key.data
            if connection is None:
                os.eventfd_read(wake)
                self._monitor.testbed.settle()
                continue
            if mask & selectors.EVENT_WRITE:
                connection.flush()
            if mask & selectors.EVENT_READ:
                connection.receive()
        self._tell()
        for connection in list(self._connections):
            if connection.closed:
                selector.unregister(connection.sock)
                connection.sock.close()
                self._connections.remove(connection)
            else:
                write = selectors.EVENT_WRITE if connection.unsent else 0
                selector.modify(connection.sock, selectors.EVENT_READ | write, connection)

    def _wait(self) -> float | None:
        """Announcements whose time has come; the time until the next."""
        now = time.monotonic()
        monitor = self._monitor
        for ident in [i for i in self._due if i not in monitor.announcements]:
            del self._due[ident]
        for ident in list(monitor.announcements):
            if self._due.setdefault(ident, now + monitor.announcements[ident][0]) <= now:
                del self._due[ident]
                monitor.announced(ident)
                if ident in monitor.announcements:
                    self._due[ident] = now + monitor.announcements[ident][0]
        return max(min(self._due.values()) - now, 0) if self._due else None

    def _tell(self) -> None:
        """Send what nobody asked for: interrupts and events."""
        self._monitor.follow(self._wanted.reset_ends, self._wanted.shutdown_ends)
        if self._qtest is not None:
            lines = self._protocol.events()
            if lines:
                self._qtest.send("".join(f"{line}\n" for line in lines).encode())
        for qmp, connection in self._qmps:
            _send(connection, qmp.take())

    def _feed_qtest(self, data: bytes) -> None:
        assert self._qtest is not None
        self._line += data
        *lines, rest = self._line.split(b"\n")
        if len(rest) > MOST_LINE_BYTES:
            self._qtest.closed = True
            return
        self._line = rest
        for line in lines:
            answer = self._protocol.line(line.decode("utf-8", "replace"))
            self._qtest.send("".join(f"{text}\n" for text in answer).encode())
            self._monitor.follow(self._wanted.reset_ends, self._wanted.shutdown_ends)


def _feed_qmp(qmp: Qmp, connection: _Connection, data: bytes) -> None:
    _send(connection, qmp.feed(data))


def _send(connection: _Connection, messages: list[dict[str, Any]]) -> None:
    if messages:
        connection.send("".join(json.dumps(m) + "\r\n" for m in messages).encode())
