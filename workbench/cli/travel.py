"""Moves through a trace that a user waits for: with a bar on the terminal, and Ctrl-C."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.cli import text

if TYPE_CHECKING:
    from workbench.trace.timeline import Timeline

_STEPS = 100


def seek(timeline: Timeline, icount: int, what: str = "replaying") -> None:
    """Go to an instruction count; `what` stands beside the bar."""
    with text.progress(what, _STEPS) as advance:
        shown = 0

        def show() -> bool:
            nonlocal shown
            while shown < _STEPS * (timeline.progress or 0.0):
                shown += 1
                advance()
            return False

        timeline.seek(icount, show)
