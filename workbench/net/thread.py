"""What the back ends share: one thread that waits in poll(2) and does all input and output."""

from __future__ import annotations

import ctypes
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Sequence

from workbench.net.port import Large

__all__ = ["HostThread", "failure_of"]

MAX_OUTGOING = 4096

_eventfd_write = ctypes.PyDLL(None).eventfd_write
"""That of C, which keeps the interpreter lock, unlike that of `os`: the machine's thread goes on
with what it does, and the other gets the lock when the guest runs again.
"""
_eventfd_write.argtypes = (ctypes.c_int, ctypes.c_uint64)


class HostThread:
    """A back end with a thread. A subclass says what it waits for and what to do then."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lost = 0
        self.large_frames = False
        self.failure: Exception | None = None
        self.outgoing: deque[bytes] = deque()
        self._receive: Callable[[Sequence[bytes]], None] = lambda frames: None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._awake = False
        self._closing = False
        self._closed = False
        self._thread = threading.Thread(target=self._main, name=f"net-{name}", daemon=True)

    def start(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        """Begin to receive; a second call replaces the receiver."""
        self._receive = receive
        if self._thread.ident is None:
            self._thread.start()

    def send(self, frame: bytes) -> None:
        """Leave a frame for the thread."""
        if len(self.outgoing) >= MAX_OUTGOING or self._closing:
            self.lost += 1
            return
        self.outgoing.append(frame)
        self._kick()

    def send_large(self, large: Large) -> None:
        """Leave segments for the thread, which takes them one by one."""
        for frame in large.cut():
            self.send(frame)

    def close(self) -> None:
        """End the thread, then what it used."""
        if self._closed:
            return
        self._closing = self._closed = True
        self._kick()
        if self._thread.is_alive():
            self._thread.join()
        self.shut()
        os.close(self._wake)

    def _kick(self) -> None:
        if not self._awake:
            self._awake = True
            _eventfd_write(self._wake, 1)

    def _main(self) -> None:
        try:
            while not self._closing:
                poll = select.poll()
                poll.register(self._wake, select.POLLIN)
                timeout_ms = self.interest(poll)
                events = dict(poll.poll(timeout_ms))
                if events.pop(self._wake, 0):
                    # In this order: a frame that comes in between is seen by `work` below. The
                    # other way round its wake-up is swallowed, and with it all later ones.
                    os.eventfd_read(self._wake)
                    self._awake = False
                self.work(events)
        except Exception as error:
            self.failure = error  # the network is dead, the machine goes on

    # -- for subclasses --------------------------------------------------------------------------

    def interest(self, poll: select.poll) -> int | None:
        """Register what to wait for; gives the longest time to wait in ms, None for ever."""
        raise NotImplementedError

    def work(self, events: dict[int, int]) -> None:
        """`events`: file descriptor -> poll events. Also called when `outgoing` has frames."""
        raise NotImplementedError

    def shut(self) -> None:
        """Close what is open; the thread has ended (or never begun)."""


def failure_of(backend: object) -> str:
    """Why a network is dead, "" while it lives."""
    while hasattr(backend, "inner"):
        backend = backend.inner  # a capture around it
    failure = getattr(backend, "failure", None)
    return "" if failure is None else str(failure) or type(failure).__name__
