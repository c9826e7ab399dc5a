"""A Linux TAP interface (Documentation/networking/tuntap.rst). Making one needs CAP_NET_ADMIN; one
that the administrator has made for the user does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct

from workbench.errors import WorkbenchError, os_error_text
from workbench.net.port import MAX_FRAME_BYTES
from workbench.net.thread import HostThread

__all__ = ["TapBackend"]

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
IFNAMSIZ = 16


class TapBackend(HostThread):
    """The other end of interface `interface`; an empty name lets the kernel choose one."""

    def __init__(self, interface: str = "") -> None:
        if len(interface.encode()) >= IFNAMSIZ:
            raise WorkbenchError(f"expected the name of an interface, not {interface!r}")
        super().__init__(f"tap-{interface}")
        request = struct.pack("16sH22x", interface.encode(), IFF_TAP | IFF_NO_PI)
        try:
            self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise WorkbenchError(f"Cannot open /dev/net/tun: {os_error_text(error)}.") from error
        try:
            answer = fcntl.ioctl(self._fd, TUNSETIFF, request)
        except OSError as error:
            os.close(self._fd)
            raise WorkbenchError(
                f"Cannot use the TAP interface {interface!r}: {os_error_text(error)}."
            ) from error
        self.interface = answer[:IFNAMSIZ].split(b"\0")[0].decode()

    def interest(self, poll: select.poll) -> int | None:
        poll.register(self._fd, select.POLLIN)
        return None

    def work(self, events: dict[int, int]) -> None:
        while self.outgoing:
            try:
                os.write(self._fd, self.outgoing.popleft())
            except OSError:
                self.lost += 1  # the interface is down, or its queue is full
        if events.get(self._fd, 0) & ~select.POLLIN:
            raise WorkbenchError(f"the TAP interface {self.interface!r} is gone")
        if events.get(self._fd, 0):
            frames: list[bytes] = []
            with contextlib.suppress(BlockingIOError):
                for _ in range(256):
                    frames.append(os.read(self._fd, MAX_FRAME_BYTES))
            self._receive(frames)

    def shut(self) -> None:
        os.close(self._fd)
