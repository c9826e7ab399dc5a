"""Time travel while a machine is recorded: its past is replayed, its present is the machine itself.

    recording = Recording("boot.wbt", config, guest, limits=Limits(icount=10**9))
    recording.recorder.console_sink = show           # (device, bytes), what the guest prints
    recording.interactive = True                     # somebody types: guest time is real time
    timeline = LiveTimeline(recording)               # before the guest has run
    timeline.go(poll)                                # records on; poll is asked ten times a second
    timeline.type(b"ls\n")                           # from any thread, recorded as an input
    timeline.step_back(); timeline.go_back(poll); timeline.seek(1_000_000, poll)   # the past
    timeline.go(poll)                                # through the present and on, recording
    timeline.seek_present()                          # or there at once
    outcome = timeline.finish()                      # closes the trace; one may go on looking at it

All moves are those of a `Timeline`. `go` returns when `poll` says True ("interrupted": a pause), at
a breakpoint, a watched event, or when the guest's run is over ("end"): the trace is still open then
and the past still there, until `finish`. `is_live` says where one is, `end_icount` is the present
and grows, `trace` is the recording up to it: the same object, refreshed when it is asked for.
`machine` is another one in the past, so it is to be asked for at each use. While `go` runs, `poll`
may look at the machine and at `progress` (None while recording); all else waits for its end.
`recording.interrupt()`, from a signal handler or a thread, ends `go` and the recording.

The recording machine stands still while one is in the past, and nothing of what is done there can
reach it: a second machine, made when it is first wanted, replays. What is typed meanwhile waits for
the present. States are saved while recording, and shared with the replay, so going back starts
at the nearest. Writing to registers or memory (`divert`) makes a throw-away run, at the present
too: what a debugger writes is never part of the recording.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from workbench.core.machine import Machine
from workbench.trace import guest as guests
from workbench.trace.checkpoints import DEFAULT_BUDGET_BYTES, Checkpoints
from workbench.trace.guest import Builder
from workbench.trace.moved import Moved
from workbench.trace.protocol import Poll
from workbench.trace.reader import Trace, open_trace
from workbench.trace.replayer import inputs_of
from workbench.trace.session import USER_STOPS
from workbench.trace.timeline import NEVER, Timeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.trace.session import Outcome, Recording

CONSOLE = "com1"


class LiveTimeline(Timeline):
    """A position in a recording that goes on."""

    def __init__(
        self,
        recording: Recording,
        *,
        build: Builder | None = None,
        budget_bytes: int = DEFAULT_BUDGET_BYTES,
    ) -> None:
        """`build` makes the machine that replays: without images and networks."""
        if recording.machine.clock.icount:
            raise ValueError("expected a recording that has not begun")
        self.recording = recording
        self._build = build or guests.build_machine
        self._live = cast(Machine, recording.machine)
        self._replica: Machine | None = None
        self._so_far: Trace | None = None
        self._read_until = -1, -1
        self._input_pieces = 0
        self._is_live = True
        self._bound = NEVER
        self._arming: tuple[bool, bool, int, bool] = False, True, NEVER, False
        self._begin(self._live, Checkpoints(self._live, budget_bytes))

    # Where we are.

    @property
    def is_live(self) -> bool:
        """Is this the present?"""
        return self._is_live

    @property
    def present(self) -> str:
        """Live, or in the past."""
        if self.diverted is not None:
            return "off the recording"
        if not self._is_live:
            return "in the past of a recording"
        return "live" if self.recording.over is None else "the recording is over"

    @property
    def end_icount(self) -> int:
        """The present."""
        return self._live.clock.icount

    @property
    def trace(self) -> Trace:
        """The recording up to the present; one object, which grows."""
        present = self.end_icount, self._live.clock.now_ps
        if self._so_far is None or self._read_until != present:
            self._read(present[0])
            self._read_until = present
        assert self._so_far is not None
        return self._so_far

    def _read(self, icount: int) -> None:
        if not self.recording.finished:
            self.recording.recorder.flush(icount)
            self.recording.recorder.check()
        if self._so_far is None:
            self._so_far = open_trace(self.recording.writer.path)
        else:
            self._so_far.refresh()

    def type(self, data: bytes, device: str = CONSOLE) -> None:
        """Type into a console of the guest; may come from any thread."""
        self.recording.machine.inputs.post(device, "rx", data)

    # Between the present and the past.

    def _leave_present(self) -> None:
        """Give the floor to the replay. Where it stands may never have been: it had to run up to an
        earlier present without what was to come. So what follows begins with a kept state.
        """
        if not self._is_live:
            return
        trace = self.trace
        replica = self._replica or self._new_replica()
        replica.inputs.extend([item for _, item in inputs_of(trace, self._input_pieces)])
        self._input_pieces = len(trace.pieces("inputs"))
        self._is_live = False
        self._become(replica)
        self._ended = "left"

    def _new_replica(self) -> Machine:
        recording = self.recording
        replica = cast(Machine, self._build(recording.config, recording.guest))
        replica.pages = self._live.pages
        replica.inputs.replay(())
        self._replica = replica
        return replica

    def _become(self, machine: Machine) -> None:
        self._machine = self.kept.machine = machine
        self._log.look_at(machine)

    def seek_present(self) -> None:
        """Go to the recording machine; a diversion is dropped."""
        self._is_live = True
        self.diverted = self._origin = None
        self._become(self._live)

    # Moves.

    def _arm(
        self, stopping: bool, points: bool = True, before: int = NEVER, entries: bool = False
    ) -> None:
        self._arming = stopping, points, before, entries
        super()._arm(stopping, points, before, entries)

    def _run_to(self, icount: int, poll: Poll | None = None) -> Moved:
        """Run forward: a diversion, or the replay up to the present, and recording from there."""
        if not self._is_live:
            present = self.end_icount
            if self.diverted is not None or icount < present:
                return self._replay_to(icount, poll)
            found = self._replay_to(present - 1, poll)
            if found.kind == "icount":
                found = self._replay_to(present, poll, keep=False)
            if self.icount < present:
                return found
            arming = self._arming
            self.seek_present()
            self._arm(*arming)
            self._machine.cpu.set("bp_skip", NEVER)
            if found.kind in ("watch", "interrupted"):
                return found
        return self._record_to(icount, poll)

    def _record_to(self, icount: int, poll: Poll | None) -> Moved:
        recording, machine, log = self.recording, self._live, self._log
        self.progress = None
        while recording.over is None:
            if self.icount >= icount:
                return Moved("icount")
            if poll is not None and poll():
                return Moved("interrupted")
            started = time.thread_time()
            stop = recording.advance(None if icount == NEVER else icount, poll)
            self.kept.ran(time.thread_time() - started)
            if stop.kind in ("breakpoint", "watch"):
                return Moved(stop.kind, machine.cpu.get("watch_last_range"))
            if stop.kind == "interrupted" and log.stopping and log.last is not None:
                return self._stopped_by(log.last)
            if stop.kind == "icount" and not machine.halted:
                # A halted guest, or one at a breakpoint, may be there again at this very count.
                self.kept.keep()
        return Moved("end", text=self._end_text())

    def _asked(self, poll: Poll) -> bool:
        """The recorder's user, who ends it, is asked too."""
        return super()._asked(poll) or self.recording.interrupting

    def seek(self, icount: int, poll: Poll | None = None, again: bool = False) -> Moved:
        """Go to an instruction count; the last one is the present."""
        if icount >= self.end_icount:
            self.seek_present()
            return Moved("icount")
        self._leave_present()
        return super().seek(icount, poll, again)

    def _hold(self) -> Callable[[], None]:
        return self.seek_present if self._is_live else super()._hold()

    # The end.

    def _is_at_end(self) -> bool:
        over = self.recording.over
        if not self._is_live:
            return super()._is_at_end()
        return over is not None and over.kind not in USER_STOPS

    def _end_text(self) -> str:
        over = self.recording.over
        return "" if over is None else f"{over.kind} {over.reason}".strip()

    def finish(self) -> Outcome:
        """End the recording in the present and close the trace; a second call does nothing.

        Raises `TraceWriteError` when that fails; the trace is then a cut one.
        """
        self.seek_present()
        if not self.recording.finished:
            self._disarm()
            self._read_until = -1, -1
        return self.recording.finish()

    def _disarm(self) -> None:
        """The guest may take its last steps without us."""
        self.set_device_watches(())
        cpu = self._live.cpu
        cpu.set_breakpoints([])
        cpu.set_watches([])

    # Writing.

    def divert(self) -> None:
        """From here on it is another run; at the present that is one of the replaying machine."""
        if not self._is_live:
            super().divert()
            return
        present = self._live.save()
        self._leave_present()
        self._restore(present)
        self.diverted = present.icount

    def drop_diversion(self) -> None:
        """Go back to where the diversion began."""
        if self.diverted == self.end_icount:
            self.seek_present()
        else:
            super().drop_diversion()
