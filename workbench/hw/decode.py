"""A window that software moves: base address registers, PM base, the local APIC page."""

from __future__ import annotations

from workbench.core.bus import Bus, Window

__all__ = ["MovableWindow"]


class MovableWindow:
    """A window of a bus with a programmable base.

    What software may do wrong is no error here: a base where the bus ends, or where another window
    is, leaves the window unmapped until it is moved again; `conflict` then names the other one.
    """

    def __init__(self, bus: Bus, window: Window) -> None:
        self.bus = bus
        self.window = window
        self.conflict: Window | None = None
        self._mapped = False

    @property
    def base(self) -> int | None:
        """Where it answers, None where nowhere."""
        return self.window.base if self._mapped else None

    def place(self, base: int | None) -> None:
        """Answer at `base` from now on; None: nowhere."""
        window = self.window
        if self._mapped:
            if base == window.base:
                return
            self.bus.unmap(window)
            self._mapped = False
        self.conflict = None
        if base is None or base < 0 or base + window.size > self.bus.size:
            return
        self.conflict = self.bus.overlapping(base, window.size)
        if self.conflict is None:
            window.base = base
            self.bus.map(window)
            self._mapped = True
