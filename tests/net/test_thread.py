"""The thread of the back ends: no wake-up is lost."""

from __future__ import annotations

import os
import queue
import select

import pytest

from workbench.net import thread
from workbench.net.thread import HostThread


class Collector(HostThread):
    """Waits for frames only, and for ever."""

    def __init__(self) -> None:
        super().__init__("collector")
        self.got: queue.Queue[bytes] = queue.Queue()

    def interest(self, poll: select.poll) -> int | None:
        return None

    def work(self, events: dict[int, int]) -> None:
        while self.outgoing:
            self.got.put(self.outgoing.popleft())


def test_a_frame_that_comes_while_the_thread_wakes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Collector()
    real, more = os.eventfd_read, [b"second"]

    def read(fd: int) -> int:
        if more:
            backend.send(more.pop())
        return real(fd)

    monkeypatch.setattr(thread.os, "eventfd_read", read)
    backend.start(lambda frame: None)
    try:
        for frame in (b"first", b"second"):
            if frame == b"first":
                backend.send(frame)
            assert backend.got.get(timeout=10) == frame
        backend.send(b"third")
        assert backend.got.get(timeout=10) == b"third"
    finally:
        backend.close()
