"""gdb on a machine that is being recorded: the recording goes on when gdb says so, or is not there.

All moves are those of a `LiveTimeline`: back into what was recorded so far, and forward through the
present, recording on. A debugger that goes away leaves the guest running in the present.
"""

from __future__ import annotations

from workbench.gdbstub.server import Server
from workbench.trace.live import LiveTimeline
from workbench.trace.moved import Moved

_WAIT_SECONDS = 0.2


class LiveDebugger:
    """Drives a recording as a debugger wants it; to be `recording.driver`."""

    def __init__(self, server: Server, timeline: LiveTimeline, wait: bool) -> None:
        """wait: the guest stands still until a debugger has come and gone."""
        self._server = server
        self._timeline = timeline
        self._waits = wait

    def run(self) -> None:
        """Returns when the recording is over, and nobody looks at its past any more."""
        server, recording = self._server, self._timeline.recording
        was_connected = False
        while not recording.interrupting and not server.stub.killed:
            if server.connected:
                was_connected, self._waits = True, False
                server.work(_WAIT_SECONDS)
            elif was_connected:
                was_connected = False
                self._release()
            elif recording.over is not None:
                break
            elif self._waits:
                server.wait(_WAIT_SECONDS)
            else:
                self._timeline.go(self._look_up)
        self._release()
        if server.connected:
            server.stub.report(Moved("closed"))
            server.flush()

    def _look_up(self) -> bool:
        """Has a debugger come?  The guest runs meanwhile."""
        self._server.wait(0)
        return self._server.connected or self._timeline.recording.interrupting

    def _release(self) -> None:
        """Be in the present, and look for nothing."""
        self._server.stub.points.clear()
        self._timeline.set_device_watches(())
        self._timeline.seek_present()
