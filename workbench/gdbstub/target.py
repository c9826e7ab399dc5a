"""What the stub needs of what it debugs, and the target that is a recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from workbench.core.machine import Machine
from workbench.trace.moved import Moved
from workbench.trace.timeline import Timeline

Poll = Callable[[], bool]
WRITE, READ, ACCESS = 2, 3, 4
_KINDS = {WRITE: 1, READ: 2, ACCESS: 3}


class Target(Protocol):
    """A machine under a debugger."""

    @property
    def machine(self) -> Machine:
        """The machine at this moment."""

    @property
    def timeline(self) -> Timeline | None:
        """The recording, when it is one."""

    steps_over_interrupts: bool
    """Is an interrupt handler that comes before the instruction part of a step?"""

    def set_points(self, breakpoints: set[int], watches: list[tuple[int, int, int]]) -> None:
        """Replace all breakpoints, and watches as (type, first address, length)."""

    def set_breakpoint(self, address: int, conditions: Sequence[bytes]) -> None:
        """After `set_points`: a breakpoint counts only if one of these agent expressions holds.

        A target that cannot evaluate them stops at each hit; the stub looks at them once more.
        """

    def resume(self, step: bool, reverse: bool, poll: Poll) -> Moved:
        """Move until something happens; `poll` tells whether the user wants to stop."""

    def before_write(self) -> str:
        """Called before registers or memory are written; a sentence when that is refused."""


class ReplayTarget:
    """A recording under a debugger: forward, back, and diversions."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.steps_over_interrupts = True

    @property
    def machine(self) -> Machine:
        """The replaying machine."""
        return self._timeline.machine

    @property
    def timeline(self) -> Timeline | None:
        """The recording."""
        return self._timeline

    def set_points(self, breakpoints: set[int], watches: list[tuple[int, int, int]]) -> None:
        """Give them to the timeline, which arms them when it runs."""
        self._timeline.breakpoints = set(breakpoints)
        self._timeline.conditions = {}
        self._timeline.watches = engine_watches(watches)

    def set_breakpoint(self, address: int, conditions: Sequence[bytes]) -> None:
        """The engine evaluates them; what it cannot, the stub does."""
        if conditions:
            self._timeline.conditions[address] = tuple(conditions)

    def resume(self, step: bool, reverse: bool, poll: Poll) -> Moved:
        """Move in the recording."""
        timeline = self._timeline
        if not step:
            return timeline.go_back(poll) if reverse else timeline.go(poll)
        if self.steps_over_interrupts:
            return timeline.step_back_masked() if reverse else timeline.step_masked(poll)
        return timeline.step_back() if reverse else timeline.step(1, poll)

    def before_write(self) -> str:
        """Open a diversion."""
        self._timeline.divert()
        return ""


def engine_watches(watches: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """From (type, address, length) to what the engine takes."""
    return [(address, address + max(length, 1), _KINDS[kind]) for kind, address, length in watches]
