"""The port between a controller and a network: recording, replay, limits."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from workbench.core.inputs import Input, Inputs
from workbench.net.port import MAX_FRAME_BYTES, MAX_WAITING, Large, NetPort


class FakeBackend:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.receive: Callable[[Sequence[bytes]], None] | None = None
        self.closed = 0

    def start(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        self.receive = receive

    def send(self, frame: bytes) -> None:
        self.sent.append(frame)

    def send_large(self, large: Large) -> None:
        for frame in large.cut():
            self.send(frame)

    def close(self) -> None:
        self.closed += 1


def deliver(inputs: Inputs) -> None:
    for item in inputs.due(0, 0):
        inputs.dispatch(item)


def test_recording():
    inputs, backend, got = Inputs(), FakeBackend(), []
    port = NetPort("net0", inputs, backend)
    port.connect(lambda kind, batch: got.extend((kind, data) for data in batch))
    port.send(b"out")
    assert backend.sent == [b"out"]
    assert backend.receive is not None
    backend.receive([b"in"])
    assert got == []
    deliver(inputs)
    assert got == [("frame", b"in")]
    port.close()
    port.close()
    assert backend.closed == 1
    port.send(b"nobody")
    assert (port.sent, port.received, port.lost) == (2, 1, 0)


def test_replay_starts_no_network():
    inputs, backend, got = Inputs(), FakeBackend(), []
    inputs.replay([Input(0, 0, "net0", "frame", b"in"), Input(0, 0, "net0", "link", b"\0")])
    port = NetPort("net0", inputs, backend)
    port.connect(lambda kind, batch: got.extend((kind, data) for data in batch))
    assert backend.receive is None
    port.send(b"out")
    assert backend.sent == []
    deliver(inputs)
    assert got == [("frame", b"in"), ("link", b"\0")]


def test_a_flood_is_cut():
    inputs, backend = Inputs(), FakeBackend()
    port = NetPort("net0", inputs, backend)
    assert backend.receive is not None
    for _ in range(MAX_WAITING + 10):
        backend.receive([b"x"])
    backend.receive([bytes(MAX_FRAME_BYTES + 1)])
    assert port.lost == 11
    deliver(inputs)
    backend.receive([b"x"])
    assert port.lost == 11


def test_one_network():
    port = NetPort("net0", Inputs(), FakeBackend())
    with pytest.raises(ValueError, match="one network for 'net0'"):
        port.attach(FakeBackend())
