"""A recording that goes on while it is looked at: what the guest prints, where it is, typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from workbench.trace.live import LiveTimeline

KEPT_BYTES: Final = 64 << 10


class Live:
    """The recording of a session, and its timeline; made before the guest has run."""

    def __init__(self, timeline: LiveTimeline) -> None:
        self.timeline = timeline
        self.icount = 0
        """How far the guest is; written by the thread that runs it."""
        self.running = False
        """Is it recording in this moment?  Written by that thread too."""
        self.console = b""
        """The last of what was printed, which the trace may not have yet."""
        recording = timeline.recording
        recording.recorder.console_sink = self._printed
        recording.interactive = True

    def _printed(self, device: str, data: bytes) -> None:
        self.console = (self.console + data)[-KEPT_BYTES:]

    @property
    def over(self) -> bool:
        """Has the guest come to its end, or was the recording ended?"""
        return self.timeline.recording.over is not None

    def type(self, data: bytes) -> None:
        """Type into the guest's console; in the past it waits for the present."""
        self.timeline.type(data)

    def go(self, poll: Callable[[], bool]) -> str:
        """Run on and record, through the present if need be; gives why it stopped."""
        timeline = self.timeline

        def look() -> bool:
            self.running = timeline.is_live
            self.icount = timeline.icount
            return poll()

        try:
            moved = timeline.go(look)
        finally:
            self.running = False
        self.flush()
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
