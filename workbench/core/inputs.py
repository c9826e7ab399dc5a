"""The one seam between the guest and the world outside.

While recording, `post` (from any thread) adds an input, and the run loop delivers it at an
instruction boundary, stamped with the instruction count and guest time.  In replay the inputs of
the trace take their place and `post` does nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

FETCH = "fetch"


class ReplayMissing(Exception):
    """A replay asked for data that its recording never asked for."""


Handler = Callable[[str, bytes], None]
BatchHandler = Callable[[str, Sequence[bytes]], None]


@dataclass(frozen=True, slots=True)
class Input:
    """Something from outside: when it arrived, for whom, what."""

    icount: int
    time_ps: int
    target: str
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """Inputs of one kind that one target gets at one moment, in order: the frames of a network come
    by the dozen. Each is an input of its own in the trace.
    """

    icount: int
    time_ps: int
    target: str
    kind: str
    data: list[bytes]

    def __iter__(self) -> Iterator[Input]:
        for data in self.data:
            yield Input(self.icount, self.time_ps, self.target, self.kind, data)


class Inputs:
    """Queue and dispatch of inputs.

    What is delivered at one moment is cut into batches by target and kind alone, so a replay makes
    the same batches of the inputs in the trace.
    """

    def __init__(self) -> None:
        self._handlers: dict[str, BatchHandler] = {}
        self._posted: deque[tuple[str, str, Sequence[bytes]]] = deque()
        self.scheduled: list[tuple[int, str, str, bytes]] = []
        """What `schedule` has added, in order of time."""
        self._replay: list[Any] | None = None
        self._next = 0
        self._fetches: dict[str, list[bytes]] = {}
        self._fetched: dict[str, int] = {}
        self.on_fetch: Callable[[str, bytes], None] | None = None  # set by the machine
        self.wake: Callable[[], None] | None = None  # called by post, from the posting thread

    def register(self, target: str, handler: Handler) -> None:
        """`handler(kind, data)` receives the inputs for `target`, one by one."""

        def each(kind: str, batch: Sequence[bytes]) -> None:
            for data in batch:
                handler(kind, data)

        self.register_batches(target, each)

    def register_batches(self, target: str, handler: BatchHandler) -> None:
        """`handler(kind, data)` receives them as they come, all of a batch at once."""
        if target in self._handlers:
            raise ValueError(f"expected one receiver of inputs for {target!r}")
        self._handlers[target] = handler

    def post(self, target: str, kind: str, data: bytes) -> None:
        """Add an input from the host; ignored in replay.  Safe from any thread."""
        self.post_all(target, kind, (data,))

    def post_all(self, target: str, kind: str, data: Sequence[bytes]) -> None:
        """Add several, in order."""
        if self._replay is None and data:
            self._posted.append((target, kind, data))
            if self.wake is not None:
                self.wake()

    def schedule(self, time_ps: int, target: str, kind: str, data: bytes) -> None:
        """Add an input that comes at a guest time; ignored in replay, where it is in the trace."""
        self.scheduled.append((time_ps, target, kind, data))
        self.scheduled.sort(key=lambda entry: entry[0])

    @property
    def scheduled_ps(self) -> int | None:
        """Guest time of the next input that `schedule` has added."""
        if self._replay is not None or not self.scheduled:
            return None
        return self.scheduled[0][0]

    def replay(self, inputs: Iterable[Any]) -> None:
        """Deliver these inputs, in order, at their own times, and nothing else."""
        self._replay, self._next = [], 0
        self._fetches, self._fetched = {}, {}
        self.extend(inputs)

    def extend(self, inputs: Iterable[Any]) -> None:
        """The recording that is replayed has got more inputs."""
        assert self._replay is not None
        for i in inputs:
            if i.kind == FETCH:
                self._fetches.setdefault(i.target, []).append(bytes(i.data))
            else:
                self._replay.append(i)

    def fetch(self, target: str, supply: Callable[[], bytes]) -> bytes:
        """Data that a device needs at once from outside, such as sectors of an image.

        Recording, `supply` gives it and observers hear of it as an input of kind "fetch"; in replay
        it comes from the trace, in the order in which `target` asked, and `supply` is not called.
        Raises ReplayMissing if the trace has no more.
        """
        n = self._fetched.get(target, 0)
        if self._replay is None:
            data = supply()
            self._fetched[target] = n + 1
            self._note(target, data)
            return data
        queue = self._fetches.get(target, ())
        if n >= len(queue):
            raise ReplayMissing(
                f"the trace has no more data for {target}: the replay differs from the recording"
            )
        data = queue[n]
        self._fetched[target] = n + 1
        self._note(target, data)
        return data

    def _note(self, target: str, data: bytes) -> None:
        if self.on_fetch is not None:
            self.on_fetch(target, data)

    @property
    def replaying(self) -> bool:
        """Do the inputs come from a trace?"""
        return self._replay is not None

    def mark(self) -> tuple[int, dict[str, int]]:
        """How far a replay has come, for `rewind`; or a recording, for that of its replay."""
        return self._next, dict(self._fetched)

    def rewind(self, mark: tuple[int, dict[str, int]]) -> None:
        """Go back to a mark of the same replay."""
        self._next, self._fetched = mark[0], dict(mark[1])

    def next_stamp(self) -> tuple[int, int] | None:
        """(icount, time_ps) of the next input of a replay."""
        if self._replay is None or self._next >= len(self._replay):
            return None
        i = self._replay[self._next]
        return i.icount, i.time_ps

    @property
    def waiting(self) -> bool:
        """Is there an input of the host that is not delivered yet?"""
        return bool(self._posted)

    def any_due(self, icount: int, time_ps: int) -> bool:
        """Whether `due` has something to give."""
        if self._replay is not None:
            stamp = self.next_stamp()
            return stamp is not None and stamp <= (icount, time_ps)
        return bool(self._posted or (self.scheduled and self.scheduled[0][0] <= time_ps))

    def due(self, icount: int, time_ps: int) -> list[Batch]:
        """Take the inputs that are due at this moment."""
        found: list[Batch] = []
        if self._replay is not None:
            inputs = self._replay
            while self._next < len(inputs):
                i = inputs[self._next]
                if (i.icount, i.time_ps) > (icount, time_ps):
                    break
                _add(found, i.icount, i.time_ps, i.target, i.kind, (i.data,))
                self._next += 1
            return found
        while self.scheduled and self.scheduled[0][0] <= time_ps:
            _, target, kind, data = self.scheduled.pop(0)
            _add(found, icount, time_ps, target, kind, (data,))
        for _ in range(len(self._posted)):
            _add(found, icount, time_ps, *self._posted.popleft())
        self._next += sum(len(batch.data) for batch in found)
        return found

    def dispatch(self, batch: Batch) -> None:
        """Give inputs to their receiver; those without a receiver are dropped."""
        handler = self._handlers.get(batch.target)
        if handler is not None:
            handler(batch.kind, batch.data)


def _add(
    found: list[Batch], icount: int, time_ps: int, target: str, kind: str, data: Sequence[bytes]
) -> None:
    """To the last batch, if that is for the same target and of the same kind and moment."""
    if found:
        last = found[-1]
        if (last.kind, last.target, last.icount, last.time_ps) == (kind, target, icount, time_ps):
            last.data.extend(data)
            return
    found.append(Batch(icount, time_ps, target, kind, list(data)))
