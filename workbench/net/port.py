"""The socket that a network controller's cable goes into.

A `NetPort` stands between a controller and a back end. What the controller sends goes to the back
end, and only while recording: in a replay nothing leaves the machine. What the back end receives,
in a thread of its own, becomes an input (kind "frame") for the controller and so part of the trace.
The input kind "link" (one byte, 0 or 1) pulls the cable out or puts it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from workbench.core.inputs import Inputs

__all__ = ["FRAME", "LINK", "MAX_FRAME_BYTES", "Backend", "Large", "NetPort", "Receiver"]

FRAME, LINK = "frame", "link"
MAX_FRAME_BYTES = 65536 + 14 + 4
"""The largest frame taken from a back end: what segmentation offload of a peer can give."""
MAX_WAITING = 2048
"""Frames on their way to the controller; more are lost, as at a switch."""

Receiver = Callable[[str, Sequence[bytes]], None]
"""Takes inputs: their kind, and all of them that came at once."""


@dataclass(frozen=True, slots=True)
class Large:
    """TCP segments that a controller makes of what its driver gave it at once. Most of that is done
    when it is asked for, perhaps in another thread: some networks take the whole as one frame.
    """

    count: int
    cut: Callable[[], list[bytes]]
    """The `count` frames that a wire would carry."""
    whole: Callable[[], bytes]
    """One frame with what is in all of them."""


class Backend(Protocol):
    """A network. All but `start` may be called from the machine's thread at any time."""

    large_frames: bool
    """Whether the guest takes TCP segments put together, up to 64 KiB; set by the port."""

    def start(self, receive: Callable[[Sequence[bytes]], None]) -> None:
        """Begin: `receive` gets frames, without FCS, as they come, from any thread."""
        ...

    def send(self, frame: bytes) -> None:
        """Take a frame, without FCS. Never waits; a network that cannot keep up loses frames."""
        ...

    def send_large(self, large: Large) -> None:
        """Take segments, as they are or in one frame."""
        ...

    def close(self) -> None:
        """Stop and give everything back; a second call does nothing."""
        ...


def _untapped(name: str, frames: Callable[[], Sequence[bytes]]) -> None:
    """Nobody listens."""


class NetPort:
    """One cable. The counters are for people; they are no part of the machine's state."""

    def __init__(self, name: str, inputs: Inputs, backend: Backend | None = None) -> None:
        """`name` is the controller's: the target of its inputs."""
        self.name = name
        self.sent = 0
        self.received = 0
        self.lost = 0
        self._inputs = inputs
        self._posted = 0
        self._receiver: Receiver | None = None
        self._backend: Backend | None = None
        self.tap: Callable[[str, Callable[[], Sequence[bytes]]], None] = _untapped
        """Also hears what the controller sends, in a replay too: name, what gives the frames."""
        inputs.register_batches(name, self._deliver)
        if backend is not None:
            self.attach(backend)

    def connect(self, receiver: Receiver) -> None:
        """The controller gives where inputs go: `receiver(kind, data)`."""
        self._receiver = receiver

    def attach(self, backend: Backend) -> None:
        """Plug the other end in; in a replay the back end is not even started."""
        if self._backend is not None:
            raise ValueError(f"expected one network for {self.name!r}")
        if not self._inputs.replaying:
            self._backend = backend
            backend.start(self._receive)

    def take_large(self, wanted: bool) -> None:
        """The controller says whether its driver takes TCP segments put together; a back end that
        gets many at once then does that.
        """
        if self._backend is not None:
            self._backend.large_frames = wanted

    def send(self, frame: bytes) -> None:
        """A frame from the controller, without FCS."""
        self.sent += 1
        self.tap(self.name, lambda: (frame,))
        if self._backend is not None and not self._inputs.replaying:
            self._backend.send(frame)

    def send_large(self, large: Large) -> None:
        """Segments of TCP from the controller."""
        self.sent += large.count
        self.tap(self.name, large.cut)
        if self._backend is not None and not self._inputs.replaying:
            self._backend.send_large(large)

    def close(self) -> None:
        """Pull the plug."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def _receive(self, frames: Sequence[bytes]) -> None:
        room = MAX_WAITING - (self._posted - self.received)
        taken = [frame for frame in frames if len(frame) <= MAX_FRAME_BYTES][: max(room, 0)]
        self.lost += len(frames) - len(taken)
        self._posted += len(taken)
        self._inputs.post_all(self.name, FRAME, taken)

    def _deliver(self, kind: str, data: Sequence[bytes]) -> None:
        if kind == FRAME:
            self.received += len(data)
        if self._receiver is not None:
            self._receiver(kind, data)
