"""Which frames went over a guest's cables, and which request each of them belongs to.

Received frames are inputs and so in the trace. What the guest sent is not: a replay makes it again
(docs/decisions/0022), and an observer of the replay notes each frame with the request under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from workbench.core.requests import BEGIN, RequestEvent
from workbench.errors import FormatError
from workbench.trace.events import EventObserver
from workbench.trace.guest import Builder
from workbench.trace.reader import Trace
from workbench.trace.replayer import Replay
from workbench.trace.requests import name_of

__all__ = ["MOST_SENT_BYTES", "Frame", "received_frames", "sent_frames"]

MOST_SENT_BYTES: Final = 1 << 30
LEAST_BYTES: Final = 60  # what a NIC pads a frame to
MOST_WAITING: Final = 4096


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: when, at which controller, in which direction, by which request if known."""

    icount: int
    time_ps: int
    interface: str
    data: bytes
    sent: bool = False
    request: str = ""
    queue: int = -1
    head: int = -1


def received_frames(trace: Trace) -> Iterator[Frame]:
    """Give the frames among the inputs of a trace, in order.

    A frame is that of the next `rx` request of its controller with its length: frames before it
    were filtered out.
    """
    described = _descriptors(trace)
    for batch in trace.batches("inputs"):
        for row in batch.to_pylist():
            if row["kind"] == "frame":
                frame = Frame(row["icount"], row["time_ps"], row["target"], row["data"])
                yield replace(frame, **described.get(row["seq"], {}))


def _descriptors(trace: Trace) -> dict[int, dict[str, Any]]:
    """Request, queue and first descriptor of received frames, by the `seq` of the input."""
    events: list[tuple[int, str, Any]] = []
    for batch in trace.batches("inputs"):
        for row in batch.to_pylist():
            if row["kind"] == "frame":
                events.append((row["seq"], row["target"], len(row["data"])))
    if not events:
        return {}
    for batch in trace.batches("requests"):
        for row in batch.to_pylist():
            if row["phase"] == BEGIN and row["kind"] == "rx":
                events.append((row["seq"], row["device"], row))
    events.sort(key=lambda event: event[0])
    found: dict[int, dict[str, Any]] = {}
    waiting: dict[str, deque[tuple[int, int]]] = {}
    for seq, device, what in events:
        line = waiting.setdefault(device, deque(maxlen=MOST_WAITING))
        if isinstance(what, int):
            line.append((seq, what))
            continue
        fits = [n for n, (_, size) in enumerate(line) if _fits(size, what)]
        if fits:
            for _ in range(fits[0]):
                line.popleft()
            frame, _ = line.popleft()
            found[frame] = {
                "request": name_of(device, what["id"]),
                "queue": what["queue"],
                "head": what["head"],
            }
    return found


def _fits(size: int, row: dict[str, Any]) -> bool:
    """Whether a frame of so many bytes is what a request took (a part, of several buffers)."""
    length, detail = row["length"], row["detail"]
    if detail.startswith("buffer "):
        return bool(detail.startswith("buffer 1 ") and length <= size)
    return length in (size, max(size, LEAST_BYTES))


class _Tap(EventObserver):
    """Notes what leaves a machine."""

    hears_frames = True

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.frames: list[Frame] = []
        self._clock = clock
        self._bytes = 0
        self._current: dict[str, dict[str, Any]] = {}

    def on_request(self, request: RequestEvent, icount: int) -> None:
        if request.kind == "tx":
            self._current[request.device] = {
                "request": name_of(request.device, request.number),
                "queue": request.queue,
                "head": request.head,
            }

    def on_frame(self, device: str, frame: bytes, icount: int) -> None:
        self._bytes += len(frame)
        if self._bytes > MOST_SENT_BYTES:
            raise FormatError(f"the guest sent more than {MOST_SENT_BYTES:,} bytes")
        known = self._current.get(device, {})
        self.frames.append(Frame(icount, self._clock.now_ps, device, frame, sent=True, **known))


def sent_frames(trace: Trace, build: Builder | None = None) -> list[Frame]:
    """Replay a trace, and give the frames that its guest sent; none for a trace without NICs."""
    if not trace.header.machine.get("nics"):
        return []
    replay = Replay(trace, verify=False, build=build)
    tap = _Tap(replay.machine.clock)
    replay.machine.observers.append(tap)
    replay.run()
    return tap.frames
