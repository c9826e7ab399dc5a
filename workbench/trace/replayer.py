"""Replays a trace: the same machine, the same inputs; every derived event is compared with the log.

The verifier holds the recording's events in order and compares each event of the replay with the
next of them, as it happens. The first that differs is kept and stops the run. A cut trace is
replayed up to its last event; what the replay does after it has nothing to be compared with.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from workbench.trace import guest as guests
from workbench.trace import tables
from workbench.trace.container import FORMAT_VERSION
from workbench.trace.events import EventObserver, icount_of, pc_of
from workbench.trace.guest import Builder, Guest
from workbench.trace.pace import Pace
from workbench.trace.protocol import MachineLike, StopLike
from workbench.trace.reader import Trace
from workbench.trace.session import USER_STOPS


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first event in which a replay differs from its recording; None stands for no event."""

    index: int
    icount: int
    pc: int | None
    recorded: tables.Event | None
    replayed: tables.Event | None

    @property
    def event(self) -> tables.Event:
        """The event to name it by: what the replay did, or what it left out."""
        found = self.replayed if self.replayed is not None else self.recorded
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class ReplayInput:
    """An input as it stands in the log."""

    icount: int
    time_ps: int
    target: str
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How a replay went."""

    identical: bool
    verified: bool
    events: int
    icount: int
    time_ps: int
    wall_s: float
    digest: str
    stop: str
    reason: str
    cut: bool
    divergence: Divergence | None = None
    message: str = ""


class _Diverged(Exception):  # it ends a run, it is no error of ours
    """Leaves the machine's run loop."""


def _unrecorded(*args: object) -> None:
    """An event that the version of the trace does not know."""


class Verifier(EventObserver):
    """Compares each event with the next one of the recording, at once."""

    def __init__(
        self,
        groups: Iterator[list[tables.Event]],
        cut: bool,
        version: int = FORMAT_VERSION,
    ) -> None:
        super().__init__()
        if tables.TABLES[tables.REQUEST].since > version:
            self.on_request = _unrecorded  # type: ignore[method-assign, assignment]
            self.on_irq_line = self._wired_line  # type: ignore[method-assign]
        self.index = 0
        self.divergence: Divergence | None = None
        self._groups = groups
        self._cut = cut
        self._expected: Iterator[tables.Event] = iter(())
        self._append = self._compare

    def _wired_line(self, name: str, level: bool, icount: int) -> None:
        """Version 1 has no messages."""
        if tables.MSI not in name:
            super().on_irq_line(name, level, icount)

    def _next(self) -> tables.Event | None:
        for event in self._expected:
            return event
        for group in self._groups:
            self._expected = iter(group)
            for event in self._expected:
                return event
        return None

    def _compare(self, event: tables.Event) -> None:
        expected = next(self._expected, None)
        if expected == event:
            self.index += 1
            return
        self._slow(event, expected)

    def _slow(self, event: tables.Event, expected: tables.Event | None) -> None:
        if self.divergence is not None:
            raise _Diverged
        if expected is None:
            expected = self._next()
            if expected == event:
                self.index += 1
                return
        if expected is None and self._cut:
            return
        self._diverge(event, expected)

    def _diverge(self, event: tables.Event | None, expected: tables.Event | None) -> NoReturn:
        found = event if event is not None else expected
        assert found is not None
        icount = min(icount_of(e) for e in (event, expected) if e is not None)
        self.divergence = Divergence(self.index, icount, pc_of(found), expected, event)
        raise _Diverged

    def finish_replay(self) -> None:
        """Note a divergence when the recording has events that the replay did not make."""
        if self.divergence is None:
            expected = next(self._expected, None) or self._next()
            if expected is not None:
                self._diverge(None, expected)


_AFTER_INPUT_PS = 2 * 10**12  # longer than any work of a device


class Replay:
    """One replay of a trace. `machine` is there before `run`, for who wants to look inside."""

    def __init__(self, trace: Trace, *, verify: bool = True, build: Builder | None = None) -> None:
        self.trace = trace
        self.verify = verify
        guest = Guest.from_trace(trace)
        config: Mapping[str, Any] = trace.header.machine
        self.machine: MachineLike = (build or guests.build_machine)(config, guest)
        self._pace = Pace()
        self._interrupted = threading.Event()
        self.stopped = threading.Event()
        """Set when the guest does not run any more."""
        self.verifier: Verifier | None = None
        if verify:
            self.verifier = Verifier(
                trace.event_groups(), cut=not trace.closed, version=trace.version
            )
        self.observer = EventObserver() if self.verifier is None else self.verifier
        """What watches the machine; set its `console_sink` to see what the guest prints."""
        self.machine.observers.append(self.observer)

    def events_before(self, index: int) -> Iterator[tables.Event]:
        """Give the events of the recording before one of them."""
        flat = itertools.chain.from_iterable(self.trace.event_groups())
        return itertools.islice(flat, index)

    def interrupt(self) -> None:
        """Ask the replay to stop; may come from a signal handler."""
        self._interrupted.set()

    def run(self) -> ReplayResult:
        """Replay to the end of the trace, or to the first difference."""
        started = time.monotonic()
        stop: StopLike = _Stop("diverged")
        message = digest = ""
        with contextlib.suppress(_Diverged):
            stop = self._advance()
            self.stopped.set()
            if stop.kind != "interrupted":
                message = self._wrong_stop(stop)
                digest = "" if message else self._last_digest()
        divergence = self.verifier.divergence if self.verifier is not None else None
        clock = self.machine.clock
        return ReplayResult(
            identical=divergence is None and not message and stop.kind != "interrupted",
            verified=self.verify,
            events=self.verifier.index if self.verifier is not None else 0,
            icount=clock.icount,
            time_ps=clock.now_ps,
            wall_s=time.monotonic() - started,
            digest=digest,
            stop=stop.kind,
            reason=stop.reason,
            cut=not self.trace.closed,
            divergence=divergence,
            message="" if divergence is not None else message,
        )

    def _advance(self) -> StopLike:
        """Run to each digest of the log but the last, compare it, and go on to the end.

        The machine is given only the inputs that stand in the log before the digest: one that
        arrived at the same instruction count after it must not be delivered yet.
        """
        machine = self.machine
        clock = machine.clock
        end = self.trace.end
        inputs = deque(inputs_of(self.trace))
        points = list(self._digest_points()) if self.verifier is not None else []
        for seq, icount, scope in points if end is None else points[:-1]:
            stop = self._run_to(icount, take_before(inputs, seq))
            if stop.kind not in ("icount", "halted"):
                return stop
            digest = machine.digest() if scope == tables.FULL else b""
            assert self.verifier is not None
            self.verifier.on_digest(scope, digest, clock.icount, clock.now_ps)
        return self._run_to_end(take_before(inputs, None))

    def _run_to_end(self, rest: list[ReplayInput]) -> StopLike:
        """Run to where the recording ended, with the inputs that were not given yet."""
        end = self.trace.end
        last_ps = max((item.time_ps for item in rest), default=0)
        if end is None:
            # The last event may belong to the instruction that begins at this count, and come
            # after the last input while the guest is halted: a device is done with its work.
            return self._run_to(self.trace.icount + 1, rest, last_ps + _AFTER_INPUT_PS)
        if end.stop in USER_STOPS:
            return self._run_to(end.icount, rest, end.time_ps)
        return self._run_to(end.icount + 1, rest)

    def _digest_points(self) -> Iterator[tuple[int, int, str]]:
        for batch in self.trace.batches("digests", ("seq", "icount", "scope")):
            columns = [batch[name].to_pylist() for name in ("seq", "icount", "scope")]
            yield from zip(*columns, strict=True)

    def _give(self, inputs: list[ReplayInput]) -> None:
        self.machine.inputs.replay(inputs)

    def _run_to(
        self, icount: int, inputs: list[ReplayInput], until_ps: int | None = None
    ) -> StopLike:
        """Give the inputs and run; `until_ps` is for a guest that is halted at the end."""
        clock = self.machine.clock
        self._give(inputs)
        stop: StopLike = _Stop("icount")
        pending = bool(inputs)
        while pending or clock.icount < icount or stop.kind == "idle":
            pending = False
            if self._interrupted.is_set():
                return _Stop("interrupted")
            stop = self.machine.run(self._pace.start(clock.icount, icount), until_ps)
            self._pace.end(clock.icount)
            if stop.kind == "idle" and until_ps is not None:
                if clock.icount >= self.trace.icount and clock.now_ps >= until_ps:
                    return _Stop("icount")
            elif stop.kind not in ("icount", "idle", "interrupted"):
                return stop
        return stop

    def _wrong_stop(self, stop: StopLike) -> str:
        """Say what is wrong with where the replay stopped; empty when nothing is."""
        end = self.trace.end
        if end is None:
            return ""
        icount = self.machine.clock.icount
        by_user = end.stop in USER_STOPS
        # A guest that has halted may be waiting for the user, who then ends the run.
        same = (
            stop.kind in ("icount", "halted")
            if by_user
            else (stop.kind, stop.code) == (end.stop, end.code)
        )
        if same and icount == end.icount:
            return ""
        return (
            f"the recording stopped at instruction {end.icount:,} ({end.stop}), the replay at"
            f" {icount:,} ({'running' if stop.kind == 'icount' else stop.kind})"
        )

    def _last_digest(self) -> str:
        """Compare the state at the end, and check that no event of the recording is left over."""
        if self.verifier is None:
            return ""
        digest = b""
        if self.trace.closed:
            digest = self.machine.digest()
            clock = self.machine.clock
            self.verifier.on_digest(tables.FULL, digest, clock.icount, clock.now_ps)
        self.verifier.finish_replay()
        return digest.hex()


@dataclass(frozen=True, slots=True)
class _Stop:
    kind: str
    code: int = 0
    reason: str = ""


def inputs_of(trace: Trace, first: int = 0) -> Iterator[tuple[int, ReplayInput]]:
    """Give the inputs of a trace in order, each with its `seq`; from a piece of the table on."""
    spec = tables.BY_NAME["inputs"]
    for batch in trace.batches("inputs", first=first):
        rows = tables.event_rows(spec, batch)
        for seq, (_, *columns) in zip(batch["seq"].to_pylist(), rows, strict=True):
            yield seq, ReplayInput(*columns)


def take_before(inputs: deque[tuple[int, ReplayInput]], seq: int | None) -> list[ReplayInput]:
    """Take the inputs that stand in the log before an event, or all that are left."""
    found = []
    while inputs and (seq is None or inputs[0][0] < seq):
        found.append(inputs.popleft()[1])
    return found
