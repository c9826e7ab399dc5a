"""Interrupt lines: a device sets a level, the line knows where it goes.

Restoring a level makes no edge: the chip at the other end restores its own idea of its inputs. A
device that drives a line cannot raise any other; sharing is in `SharedLine`, not in devices.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["IrqLine", "SharedLine"]


class IrqLine:
    """A wire with a level. `sink` is called on each change, never for the same level twice; then
    `watch`, if set.
    """

    __slots__ = ("_sink", "level", "name", "watch")

    def __init__(self, name: str, sink: Callable[[bool], None]) -> None:
        self.name = name
        self.level = False
        self.watch: Callable[[str, bool], None] | None = None
        self._sink = sink

    def set(self, level: bool) -> None:
        """Drive the line; a change goes to the sink at once."""
        if level is not self.level:
            level = bool(level)
            if level is self.level:
                return
            self.level = level
            self._sink(level)
            if self.watch is not None:
                self.watch(self.name, level)

    def pulse(self) -> None:
        """Up and down: one edge for an edge-triggered input."""
        self.set(True)
        self.set(False)

    def restore(self, level: bool) -> None:
        """Set the level of a snapshot: no edge, no call."""
        self.level = bool(level)

    def __repr__(self) -> str:
        return f"IrqLine({self.name!r}, {int(self.level)})"


class _Source(IrqLine):
    """One driver of a shared line."""

    __slots__ = ("_shared",)

    def __init__(self, name: str, shared: SharedLine) -> None:
        super().__init__(name, shared._changed)
        self._shared = shared

    def restore(self, level: bool) -> None:
        super().restore(level)
        shared = self._shared
        shared.out.restore(any(s.level for s in shared.sources))


class SharedLine:
    """Wired OR of several sources onto one line; each source has an `IrqLine` of its own."""

    def __init__(self, name: str, sink: Callable[[bool], None]) -> None:
        self.name = name
        self.out = IrqLine(name, sink)
        self.sources: list[IrqLine] = []

    @property
    def level(self) -> bool:
        """The level of the OR."""
        return self.out.level

    def source(self, name: str) -> IrqLine:
        """A new driver of this line."""
        line = _Source(name, self)
        self.sources.append(line)
        return line

    def _changed(self, level: bool) -> None:
        self.out.set(level or any(s.level for s in self.sources))
