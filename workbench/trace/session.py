"""A recording from start to end: machine, recorder, limits, and every way in which it can stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from workbench.trace import guest as guests
from workbench.trace.guest import Builder, Guest
from workbench.trace.header import End, Header, host_facts
from workbench.trace.pace import Pace
from workbench.trace.protocol import MachineLike, StopLike
from workbench.trace.provenance import DiskHasher
from workbench.trace.recorder import Recorder
from workbench.trace.writer import TraceWriter

_IDLE_SECONDS = 1.0
_INTERACTIVE_SLICE = 1_000_000
_CHECKPOINT_SECONDS = 0.5
_HASHING_SECONDS = 2.0

FULL = "full"
CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Limits:
    """When a recording ends by itself; None means never."""

    icount: int | None = None
    wall_s: float | None = None
    digest_every: int | None = None
    """Instructions between full digests, which cost a pass over the guest's memory."""


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


class Debugger(Protocol):
    """Who may hold the guest while it is recorded; called in the thread that runs it."""

    def before_slice(self) -> int | None:
        """Called before the guest runs; may wait. Gives the instruction count to stop at."""

    def after_slice(self, stop: StopLike) -> bool:
        """Called when the guest does not run; True for a stop that was the debugger's own."""


class Recording:
    """One recording. Build it, then `run` it; `interrupt` may come from a signal handler."""

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
        self.debugger: Debugger | None = None
        self._interrupted = False
        self._started = 0.0
        self._ahead = _Ahead(0.0)
        self.stopped = threading.Event()
        """Set when the guest does not run any more; the trace may still have to be closed."""
        self._attention = threading.Event()
        self.machine.inputs.wake = self._attention.set

    def interrupt(self) -> None:
        """Ask the run to end at the next instruction boundary that it looks up from."""
        self._interrupted = True
        self._attention.set()

    @property
    def interrupting(self) -> bool:
        """Was `interrupt` called?"""
        return self._interrupted

    def run(self) -> Outcome:
        """Run the guest to its end and close the trace.

        Raises `TraceWriteError` when the trace cannot be written; it keeps what was written. Any
        other exception leaves a cut trace, which is valid too.
        """
        started = self._started = time.monotonic()
        try:
            stop, code, reason = self._loop(started)
            self.stopped.set()
            digest = self._digest(FULL)
            clock = self.machine.clock
            end = End(
                clock.icount, clock.now_ps, 0, stop, code, reason,
                time.monotonic() - started, digest.hex(),
                self.disks.finish(_HASHING_SECONDS) if self.disks else (),
            )  # fmt: skip
            self.recorder.finish(end)
        except BaseException:
            self.recorder.abandon()
            raise
        return Outcome(
            stop, code, reason, end.icount, end.time_ps, end.wall_s, self.writer.events, end.digest
        )

    def _loop(self, started: float) -> tuple[str, int, str]:
        clock = self.machine.clock
        limit = self.limits.icount
        pace = Pace(_INTERACTIVE_SLICE) if self.interactive else Pace()
        next_digest = self.limits.digest_every
        checked_s, checked_icount = started, 0
        if self.interactive:
            self._ahead = _Ahead(started)
            self.recorder.halt_hook = self._halted
        while True:
            if self._interrupted:
                return "interrupted", 0, "the recording was ended by the user"
            self.recorder.check()
            now = time.monotonic()
            if self.limits.wall_s is not None and now - started >= self.limits.wall_s:
                reason = f"the time limit of {self.limits.wall_s:g} s was reached"
                return "limit", 0, reason + self._where()
            if limit is not None and clock.icount >= limit:
                reason = f"the limit of {limit:,} instructions was reached"
                return "limit", 0, reason + self._where()
            if now - checked_s >= _CHECKPOINT_SECONDS and clock.icount > checked_icount:
                self.recorder.on_digest(CLOCK, b"", clock.icount, clock.now_ps)
                checked_s, checked_icount = now, clock.icount
            until = None if self.debugger is None else self.debugger.before_slice()
            stop = self.machine.run(pace.start(clock.icount, limit, next_digest, until))
            pace.end(clock.icount)
            if self.debugger is not None and self.debugger.after_slice(stop):
                continue
            if stop.kind == "icount":
                if next_digest is not None and clock.icount >= next_digest:
                    self._digest(FULL)
                    next_digest += self.limits.digest_every or 0
            elif not self._goes_on(stop):
                return stop.kind, stop.code, stop.reason

    def _where(self) -> str:
        """Say where the guest is: who set a limit wants to know what it was doing."""
        return f" with the guest at PC {self.machine.cpu.get('rip'):#x}"

    def _goes_on(self, stop: StopLike) -> bool:
        """Whether to run again after a stop; waits when only an input can wake the guest."""
        if stop.kind == "interrupted":
            return True
        if stop.kind == "halted" and self.interactive:
            self._rest(_IDLE_SECONDS)
            return True
        return False

    def _halted(self) -> None:
        """Let real time catch up with an idle guest, which skips from one deadline to the next.

        This only delays the run; inputs still get their stamps when they are delivered.
        """
        if not self._interrupted:
            seconds = self._ahead.seconds(self.machine.clock.now_ps)
            if self.limits.wall_s is not None:
                seconds = min(seconds, self._started + self.limits.wall_s - time.monotonic())
            self._rest(seconds)

    def _rest(self, seconds: float) -> None:
        """Wait, at most until there is an input or an interruption."""
        if seconds > 0:
            self._attention.wait(seconds)
        if not self._interrupted:
            self._attention.clear()

    def _digest(self, scope: str) -> bytes:
        digest = self.machine.digest()
        clock = self.machine.clock
        self.recorder.on_digest(scope, digest, clock.icount, clock.now_ps)
        return digest


class _Ahead:
    """How far guest time is ahead of real time since it last was behind."""

    def __init__(self, now_s: float) -> None:
        self._offset_s = now_s

    def seconds(self, guest_ps: int) -> float:
        """Give the seconds to wait until real time has caught up; negative when it is behind."""
        behind = time.monotonic() - (self._offset_s + guest_ps / 1e12)
        if behind > 0:
            self._offset_s += behind
        return -behind
