"""Breakpoints and watchpoints of one debugger, with conditions and commands that are run here."""

from __future__ import annotations

from collections.abc import Callable

from workbench.core.layout import MAX_BREAKPOINTS, MAX_WATCHES
from workbench.gdbstub.agent import AgentError, Context, run
from workbench.gdbstub.packets import Breakpoint
from workbench.gdbstub.target import Target

__all__ = ["HARDWARE", "SOFTWARE", "Points"]

SOFTWARE, HARDWARE = 0, 1
_MOST_ON_ONE_PLACE = 64
_MOST_CODE_BYTES = 32 << 20


def _code_bytes(point: Breakpoint | None) -> int:
    """What its conditions and commands take."""
    return 0 if point is None else sum(map(len, (*point.conditions, *point.commands)))


class Points:
    """What is set; `apply` gives it to the target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._breakpoints: dict[tuple[int, int], Breakpoint] = {}
        self._watches: dict[tuple[int, int, int], None] = {}
        self._variables: dict[int, int] = {}
        self._changed = False
        self._code_bytes = 0

    def clear(self) -> None:
        """Forget everything."""
        self._breakpoints.clear()
        self._watches.clear()
        self._variables.clear()
        self._changed, self._code_bytes = True, 0
        self.apply()

    def change(self, packet: Breakpoint) -> bool:
        """Insert or remove one; False if there are too many."""
        if packet.type <= HARDWARE:
            place = (packet.type, packet.address)
            if not packet.insert:
                self._replace(place, None)
            elif self._has_room(packet):
                self._replace(place, packet)
            else:
                return False
        else:
            watch = (packet.type, packet.address, packet.kind)
            if not packet.insert:
                self._watches.pop(watch, None)
            elif watch not in self._watches and len(self._watches) >= MAX_WATCHES:
                return False
            else:
                self._watches[watch] = None
        self._changed = True
        return True

    def _replace(self, place: tuple[int, int], point: Breakpoint | None) -> None:
        self._code_bytes -= _code_bytes(self._breakpoints.pop(place, None))
        if point is not None:
            self._breakpoints[place] = point
            self._code_bytes += _code_bytes(point)

    def _has_room(self, packet: Breakpoint) -> bool:
        known = (packet.type, packet.address) in self._breakpoints
        if len(packet.conditions) + len(packet.commands) > _MOST_ON_ONE_PLACE:
            return False
        if self._code_bytes + _code_bytes(packet) > _MOST_CODE_BYTES:
            return False
        return known or len(self._breakpoints) < MAX_BREAKPOINTS

    def apply(self) -> None:
        """Give the target what has changed: before it moves, not for each of many packets."""
        if not self._changed:
            return
        self._changed = False
        places = {address for _, address in self._breakpoints}
        self._target.set_points(places, list(self._watches))
        for address in places:
            self._target.set_breakpoint(address, self._conditions(address))

    def _at(self, address: int) -> list[Breakpoint]:
        both = (self._breakpoints.get((kind, address)) for kind in (SOFTWARE, HARDWARE))
        return [point for point in both if point is not None]

    def _conditions(self, address: int) -> tuple[bytes, ...]:
        """One of these has to hold for a stop; none stands for a breakpoint without condition."""
        points = self._at(address)
        if any(not point.conditions for point in points):
            return ()
        return tuple(code for point in points for code in point.conditions)

    def kind(self, address: int) -> int:
        """Of which kind the breakpoint at an address is."""
        return SOFTWARE if (SOFTWARE, address) in self._breakpoints else HARDWARE

    def watch(self, number: int) -> tuple[int, int] | None:
        """(type, address) of a watchpoint by its place in the list that the target has."""
        watches = list(self._watches)
        return watches[number][:2] if 0 <= number < len(watches) else None

    def stops(self, address: int, context: Context, complain: Callable[[str], None]) -> bool:
        """Is a hit at this address a stop?  Commands are run here, and are no stop.

        A condition that cannot be evaluated counts as one that holds, as in gdb's own server.
        """
        points = self._at(address)
        if not points:
            return True
        context.variables = self._variables
        stop = False
        for point in points:
            try:
                if point.conditions and not any(run(code, context) for code in point.conditions):
                    continue
                for code in point.commands:
                    run(code, context)
                stop = stop or not point.commands
            except AgentError as error:
                complain(f"the condition or command at {address:#x} failed: {error}")
                stop = True
        return stop
