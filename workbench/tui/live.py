"""A recording that goes on while it is looked at: what the guest prints, where it is, typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.live import LiveTimeline
    from workbench.tui.awaited import Awaited

KEPT_BYTES: Final = 64 << 10


class Live:
    """The recording of a session, and its timeline; made before the guest has run."""

    def __init__(self, timeline: LiveTimeline) -> None:
        self.timeline = timeline
        self.icount = 0
        """How far the guest is; written by the thread that runs it."""
        self.running = False
        """Is it recording in this moment?  Written by that thread too."""
        self.awaited: Awaited | None = None
        """What the recording stops at; taken note of when it looks up, ten times a second."""
        self._listening: Awaited | None = None
        self.console = b""
        """The last of what was printed, which the trace may not have yet."""
        recording = timeline.recording
        recording.recorder.console_sink = self._printed
        recording.interactive = True

    def _printed(self, device: str, data: bytes) -> None:
        self.console = (self.console + data)[-KEPT_BYTES:]

    @property
    def machine(self) -> Machine:
        """The machine that records."""
        return cast("Machine", self.timeline.recording.machine)

    @property
    def over(self) -> bool:
        """Has the guest come to its end, or was the recording ended?"""
        return self.timeline.recording.over is not None

    def type(self, data: bytes) -> None:
        """Type into the guest's console; in the past it waits for the present."""
        self.timeline.type(data)

    def watched(self, poll: Callable[[], bool]) -> Callable[[], bool]:
        """A `poll` that notes how far the guest is, and ends the run at what is awaited."""

        def look() -> bool:
            self.running = self.timeline.is_live
            self.icount = self.timeline.icount
            wanted = self.awaited
            if wanted is not self._listening:
                self._listen(wanted)
            return (wanted is not None and wanted.icount is not None) or poll()

        return look

    def _listen(self, wanted: Awaited | None) -> None:
        if self._listening is not None:
            self._listening.detach()
        self._listening = wanted
        if wanted is not None:
            wanted.attach(self.machine)

    def rest(self) -> None:
        """Nothing runs any more: all up to the present is in the file."""
        self.running = False
        self.awaited = None
        self._listen(None)
        self.flush()

    def go(self, poll: Callable[[], bool]) -> str:
        """Run on and record, through the present if need be; gives why it stopped.

        Once what is awaited has come, the position is before it. `poll` is one that is `watched`.
        """
        timeline = self.timeline
        moved = timeline.go(poll)
        wanted = self._listening
        if wanted is not None and wanted.icount is not None:
            self.awaited = None
            if timeline.end_icount <= wanted.icount:  # in the middle of the instruction
                timeline.step(1, poll)
            self.running = False
            timeline.seek(wanted.icount, poll)
            return f"{wanted.what}: c records on"
        if moved.kind == "interrupted":
            return "paused: c goes on, S and C go back, e types" if timeline.is_live else "stopped"
        if moved.kind == "end":
            return f"the guest has come to its end ({moved.text}); :stop closes the trace"
        return moved.kind

    def flush(self) -> None:
        """Have everything up to the present in the file."""
        self.icount = self.timeline.end_icount
        _ = self.timeline.trace

    def finish(self) -> str:
        """End the recording; gives a sentence."""
        outcome = self.timeline.finish()
        self.icount = outcome.icount
        path = self.timeline.recording.writer.path
        return f"{path}: {outcome.icount:,} instructions, {outcome.events:,} events recorded"
