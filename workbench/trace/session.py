"""A recording from start to end: machine, recorder, limits, and every way in which it can stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from workbench.trace import guest as guests
from workbench.trace.guest import Builder, Guest
from workbench.trace.header import End, Header, host_facts
from workbench.trace.pace import Pace
from workbench.trace.protocol import MachineLike, Poll, StopLike
from workbench.trace.provenance import DiskHasher
from workbench.trace.recorder import Recorder
from workbench.trace.tables import CLOCK, FULL
from workbench.trace.writer import TraceWriter

_IDLE_SECONDS = 1.0
_INTERACTIVE_SLICE = 1_000_000
_CHECKPOINT_SECONDS = 0.5
_HASHING_SECONDS = 2.0

_LOOK_UP_SECONDS = 0.1
_LEAD_SECONDS = 0.001
"""What guest time may be ahead of real time: waiting takes longer than a device's short work."""
_NEVER = 1 << 62
_GOES_ON = frozenset({"icount", "idle", "interrupted", "breakpoint", "watch"})

USER_STOPS = frozenset({"limit", "interrupted"})
"""Stops that are not the guest's doing."""
_MOST_STOPS = 16


@dataclass(frozen=True, slots=True)
class Limits:
    """When a recording ends by itself; None means never."""

    icount: int | None = None
    wall_s: float | None = None
    digest_every: int | None = None
    """Instructions between full digests, which cost a pass over the guest's memory."""


@dataclass(frozen=True, slots=True)
class Over:
    """Why the guest does not run any more: the kind of the machine's stop, `limit` or
    `interrupted`.
    """

    kind: str
    code: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended; `stop` is the kind of the machine's stop, `limit` or `interrupted`."""

    stop: str
    code: int
    reason: str
    icount: int
    time_ps: int
    wall_s: float
    events: int
    digest: str


_BY_USER = Over("interrupted", 0, "the recording was ended by the user")


class Recording:
    """One recording. Build it, then `run` it, or `advance` and `finish` it; `interrupt` may come
    from a signal handler.
    """

    def __init__(
        self,
        path: str,
        config: Mapping[str, Any],
        guest: Guest,
        *,
        options: Mapping[str, Any] | None = None,
        embed: bool = True,
        limits: Limits | None = None,
        build: Builder | None = None,
        disks: DiskHasher | None = None,
    ) -> None:
        self.disks = disks
        self.config, self.guest = config, guest
        self.machine: MachineLike = (build or guests.build_machine)(config, guest)
        self.limits = limits or Limits()
        header = Header(
            machine=dict(config),
            images=guest.images(embed),
            cmdline=guest.cmdline,
            options=dict(options or {}),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            host=host_facts(),
        )
        self.writer = TraceWriter(path, header)
        self.recorder = Recorder(self.writer, header, guest.contents())
        self.machine.observers.append(self.recorder)
        self.interactive = False
        """Someone types: a halted guest waits for them, and guest time does not run ahead."""
        self.driver: Callable[[], None] | None = None
        """Who calls `advance` instead of `run`; the recording ends when it returns."""
        self.over: Over | None = None
        """How the guest's run ended; None while it can go on."""
        self._outcome: Outcome | None = None
        self._interrupted = False
        self._settled = True
        """Does the guest stand where a replay to its instruction count stands?  Not while it is
        halted, nor at a breakpoint, which may come after an interrupt at the same count.
        """
        self._poll: Poll | None = None
        self._started: float | None = None
        self._alarm: threading.Timer | None = None  # ends a slice at the limit of real time
        self._ahead: _Ahead | None = None
        self._pace = Pace()
        self._next_digest = self.limits.digest_every
        self._checked_s, self._checked_icount = 0.0, 0
        self.stopped = threading.Event()
        """Set when the guest does not run any more; the trace may still have to be closed."""
        self._attention = threading.Event()
        self.machine.inputs.wake = self._attention.set

    def interrupt(self) -> None:
        """Ask the run to end at the next instruction boundary that it looks up from."""
        self._interrupted = True
        self._attention.set()
        self.machine.interrupt()  # a slice can take long: its device may wait for a slow disk

    @property
    def interrupting(self) -> bool:
        """Was `interrupt` called?"""
        return self._interrupted

    @property
    def finished(self) -> bool:
        """Is the trace closed?"""
        return self._outcome is not None

    def run(self) -> Outcome:
        """Run the guest to its end and close the trace.

        Raises `TraceWriteError` when the trace cannot be written; it keeps what was written. Any
        other exception leaves a cut trace, which is valid too.
        """
        try:
            self._start()
            if self.driver is not None:
                self.driver()
            else:
                while self.over is None:
                    self.advance()
        except BaseException:
            self.recorder.abandon()
            raise
        return self.finish()

    def finish(self) -> Outcome:
        """Close the trace where the guest stands; a second call does nothing. Raises like `run`."""
        if self._outcome is not None:
            return self._outcome
        started = self._start()
        if self._alarm is not None:
            self._alarm.cancel()
        try:
            self._settle()
            self.over = self.over or _BY_USER
            self.stopped.set()
            digest = self._digest(FULL)
            clock = self.machine.clock
            end = End(
                clock.icount, clock.now_ps, 0, self.over.kind, self.over.code, self.over.reason,
                time.monotonic() - started, digest.hex(),
                self.disks.finish(_HASHING_SECONDS) if self.disks else (),
            )  # fmt: skip
            self.recorder.finish(end)
        except BaseException:
            self.recorder.abandon()
            raise
        self._outcome = Outcome(
            end.stop, end.code, end.reason, end.icount, end.time_ps, end.wall_s,
            self.writer.events, end.digest,
        )  # fmt: skip
        return self._outcome

    def _settle(self) -> None:
        """Bring the guest to where a replay can find it; nobody watches it any more."""
        if self.over is not None and self.over.kind not in USER_STOPS:
            return
        self._interrupted = True  # it rests no more
        clock = self.machine.clock
        until = clock.icount + 1
        for _ in range(_MOST_STOPS):
            if self._settled or clock.icount >= until:
                break
            stop = self.machine.run(until)
            self._ran(stop)
            if stop.kind == "idle":  # a replay finds it by its time
                break

    def _start(self) -> float:
        """Note when it began, at the first call."""
        if self._started is None:
            self._started = self._checked_s = time.monotonic()
            if self.limits.wall_s is not None:
                self._alarm = threading.Timer(self.limits.wall_s, self.machine.interrupt)
                self._alarm.daemon = True
                self._alarm.start()
        return self._started

    def advance(self, until: int | None = None, poll: Poll | None = None) -> StopLike:
        """Run the guest for about a tenth of a second, at the latest to an instruction count.

        `poll` is also asked while the guest is idle; the stop is then "interrupted". When the
        recording has come to its end, `over` is set: nothing runs any more.
        """
        started, clock = self._start(), self.machine.clock
        self.recorder.check()
        limit = self.limits.icount
        now = time.monotonic()
        self.over = self.over or self._ending(now - started)
        if self.over is not None:
            return Over("interrupted")
        is_due = now - self._checked_s >= _CHECKPOINT_SECONDS
        if is_due and self._settled and clock.icount > self._checked_icount:
            self.recorder.on_digest(CLOCK, b"", clock.icount, clock.now_ps)
            self._checked_s, self._checked_icount = now, clock.icount
        self._go_interactive(now)
        self._poll = poll
        stop = self.machine.run(self._pace.start(clock.icount, limit, self._next_digest, until))
        self._pace.end(clock.icount)
        self._ran(stop)
        if stop.kind == "icount" and clock.icount >= (self._next_digest or _NEVER):
            self._digest(FULL)
            assert self._next_digest is not None
            self._next_digest += self.limits.digest_every or 0
        elif stop.kind == "halted" and self.over is None:
            self._rest(_IDLE_SECONDS)
        self._poll = None
        return stop

    def _ran(self, stop: StopLike) -> None:
        """What a stop of the machine means for the recording."""
        self._settled = stop.kind in ("icount", "halted")
        if stop.kind == "halted" and self.interactive:
            return
        if stop.kind not in _GOES_ON:
            self.over = Over(stop.kind, stop.code, stop.reason)

    def _ending(self, elapsed_s: float) -> Over | None:
        """Whether a limit is reached, or the user wants no more."""
        if self._interrupted:
            return _BY_USER
        limits = self.limits
        where = f" with the guest at PC {self.machine.cpu.get('rip'):#x}"
        if limits.wall_s is not None and elapsed_s >= limits.wall_s:
            return Over("limit", 0, f"the time limit of {limits.wall_s:g} s was reached{where}")
        if limits.icount is not None and self.machine.clock.icount >= limits.icount:
            reason = f"the limit of {limits.icount:,} instructions was reached{where}"
            return Over("limit", 0, reason)
        return None

    def _go_interactive(self, now: float) -> None:
        """Let guest time run no faster than real time from here on, if somebody is there."""
        if self.interactive and self._ahead is None:
            self._pace = Pace(_INTERACTIVE_SLICE)
            self._ahead = _Ahead(now - self.machine.clock.now_ps / 1e12)
            self.machine.rest = self._wait

    def _wait(self, deadline_ps: int) -> int:
        """Let real time come to where an idle guest goes next, or an input come before that, which
        the guest then gets at the time that it is. Were it to go there first, it would find its
        timers run out before a network could have answered.

        What comes of real time here is in the stamp of an input only: without one, the guest goes
        to its deadline as it would have anyway.
        """
        if self._interrupted:
            return deadline_ps
        assert self._ahead is not None
        now_ps = self.machine.clock.now_ps
        self._ahead.keep_up(now_ps)
        seconds = self._ahead.seconds(deadline_ps) - _LEAD_SECONDS
        if seconds <= 0:
            return deadline_ps
        if self.limits.wall_s is not None:
            seconds = min(seconds, self._start() + self.limits.wall_s - time.monotonic())
        if self._rest(seconds):
            self.machine.interrupt()
            return now_ps
        if self.machine.inputs.waiting:
            return min(deadline_ps, max(now_ps + 1, self._ahead.guest_ps()))
        return deadline_ps

    def _rest(self, seconds: float) -> bool:
        """Wait, at most until there is an input or an interruption; True if `poll` wants a stop."""
        end, poll = time.monotonic() + seconds, self._poll
        wanted = False
        while (left := end - time.monotonic()) > 0 and not wanted:
            wanted = poll is not None and poll()
            if self._attention.wait(min(left, _LOOK_UP_SECONDS) if poll is not None else left):
                break
        if not self._interrupted:
            self._attention.clear()
        return wanted

    def _digest(self, scope: str) -> bytes:
        digest = self.machine.digest()
        clock = self.machine.clock
        self.recorder.on_digest(scope, digest, clock.icount, clock.now_ps)
        return digest


class _Ahead:
    """How guest time goes with real time, since it last was behind."""

    def __init__(self, now_s: float) -> None:
        self._offset_s = now_s

    def keep_up(self, guest_ps: int) -> None:
        """The guest is at `guest_ps`: a guest that is late does not make up for it."""
        self._offset_s = max(self._offset_s, time.monotonic() - guest_ps / 1e12)

    def seconds(self, guest_ps: int) -> float:
        """Give the seconds until real time is there; negative when that is past."""
        return self._offset_s + guest_ps / 1e12 - time.monotonic()

    def guest_ps(self) -> int:
        """The guest time that it is now."""
        return int((time.monotonic() - self._offset_s) * 1e12)
