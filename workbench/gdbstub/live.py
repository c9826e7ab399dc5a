"""gdb on a machine that is being recorded: forward only, and nothing of the guest can be written.

What a debugger writes would not be in the trace; with `workbench gdb` on the trace it is possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from workbench.core.machine import Machine
from workbench.gdbstub import packets
from workbench.gdbstub.server import Server
from workbench.gdbstub.target import Poll, engine_watches
from workbench.trace.protocol import StopLike
from workbench.trace.session import Recording
from workbench.trace.timeline import Moved, Timeline

_WAIT_SECONDS = 0.2


class LiveTarget:
    """The machine of a recording; `LiveDebugger` moves it."""

    can_reverse = False
    steps_over_interrupts = False

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._machine = cast(Machine, recording.machine)
        self._points: list[int] = []
        self._watches: list[tuple[int, int, int]] = []

    @property
    def machine(self) -> Machine:
        """The machine."""
        return self._machine

    @property
    def timeline(self) -> Timeline | None:
        """It is not there before the recording has ended."""
        return None

    def set_points(self, breakpoints: set[int], watches: list[tuple[int, int, int]]) -> None:
        """Give them to the processor."""
        self._points = sorted(breakpoints)
        self._watches = engine_watches(watches)

    def set_breakpoint(self, address: int, conditions: Sequence[bytes]) -> None:
        """The stub evaluates them."""

    def arm(self) -> None:
        """Make the points effective; those of a debugger that has gone are not."""
        cpu = self._machine.cpu
        cpu.set_breakpoints(self._points)
        cpu.set_watches(self._watches)

    def resume(self, step: bool, reverse: bool, poll: Poll) -> Moved:
        """Not used: the recording runs the machine."""
        raise NotImplementedError

    def before_write(self) -> str:
        """Refuse it."""
        return "a recording cannot be written to; use 'workbench gdb' on the trace"


class LiveDebugger:
    """Holds a recording's guest while gdb wants it to stand still."""

    def __init__(self, server: Server, target: LiveTarget, wait: bool) -> None:
        self._server = server
        self._target = target
        self._standing = wait
        self._was_connected = False
        self._until: int | None = None

    def before_slice(self) -> int | None:
        """Answer the debugger; returns when the guest may run."""
        server, stub = self._server, self._server.stub
        server.wait(0)
        if stub.interrupted and not self._standing:
            self._stand(Moved("interrupted"))
        while True:
            if server.connected and not self._was_connected:
                self._standing = True
            elif self._was_connected and not server.connected:
                self._release()
            self._was_connected = server.connected
            if stub.killed:
                self._target.recording.interrupt()
                return None
            if stub.running is not None:
                self._go(stub.start())
            if not self._standing or self._target.recording.interrupting:
                return self._until
            server.wait(_WAIT_SECONDS)

    def _go(self, move: packets.Resume) -> None:
        cpu, clock = self._target.machine.cpu, self._target.machine.clock
        if not move.step:
            self._target.arm()
        cpu.set("bp_skip", clock.icount)
        self._until = clock.icount + 1 if move.step else None
        self._standing = False

    def _release(self) -> None:
        self._target.set_points(set(), [])
        self._target.arm()
        self._until = None
        self._standing = False

    def _stand(self, found: Moved) -> None:
        self._standing = True
        self._until = None
        self._server.stub.report(found)
        self._server.flush()

    def after_slice(self, stop: StopLike) -> bool:
        """Report a stop that the debugger waits for."""
        machine = self._target.machine
        if stop.kind == "breakpoint" and self._server.connected and not self._server.stub.stops():
            machine.cpu.set("bp_skip", machine.clock.icount)
            self._server.flush()
            return True
        if stop.kind in ("breakpoint", "watch"):
            if self._server.connected:
                self._stand(Moved(stop.kind, machine.cpu.get("watch_last_range")))
            return True
        if self._until is not None and machine.clock.icount >= self._until:
            self._stand(Moved("icount"))
        return False

    def ended(self) -> None:
        """The recording is over."""
        if self._server.connected:
            self._server.stub.report(Moved("end"))
            self._server.flush()
