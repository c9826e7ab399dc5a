"""Guest time: a function of the retired-instruction count, in picoseconds.

`now_ps = icount * ps_per_insn + bias_ps`. The machine sets `icount` before any device code runs;
`bias_ps` grows when a halted guest skips to the next deadline and by a fixed cost at each device
access. Wall time does not exist here.

Timers belong to the clock: it saves and restores their deadlines, so restoring a device arms
nothing. Deadlines at the same time fire in order of creation, which the construction of the
machine fixes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core.state import StateError, decode, encode

__all__ = ["PS_PER_NS", "PS_PER_SECOND", "Clock", "Timer"]

PS_PER_SECOND = 1_000_000_000_000
PS_PER_NS = 1000


@dataclass(slots=True)
class _ClockState:
    icount: int
    bias_ps: int
    ps_per_insn: int
    timers: dict[str, int | None] = field(default_factory=dict)


class Timer:
    """One deadline. `fired_ps` is the deadline that fired last: a periodic timer re-arms from it,
    not from now.
    """

    __slots__ = ("_callback", "_clock", "_deadline_ps", "fired_ps", "name", "work")

    def __init__(
        self, clock: Clock, name: str, callback: Callable[[], None], work: bool = False
    ) -> None:
        self.name = name
        self.work = work
        self.fired_ps = 0
        self._clock = clock
        self._callback = callback
        self._deadline_ps: int | None = None

    @property
    def deadline_ps(self) -> int | None:
        """Guest time at which it fires, None while not armed."""
        return self._deadline_ps

    def arm(self, at_ps: int) -> None:
        """Fire at `at_ps`, or as soon as the clock looks if that is past; replaces an earlier
        deadline.
        """
        clock, old, first = self._clock, self._deadline_ps, self._clock.next_ps
        self._deadline_ps = clock._armed[self] = at_ps
        if first is None or at_ps <= first:
            clock.next_ps = at_ps
        elif old == first:
            clock._look()

    def fire(self) -> None:
        """Fire now, as if the clock had come to the deadline; it has to be armed."""
        assert self._deadline_ps is not None, f"{self.name} is not armed"
        self.fired_ps = self._deadline_ps
        self.cancel()
        self._callback()

    def cancel(self) -> None:
        """Do not fire."""
        if self._deadline_ps is not None:
            clock, old, self._deadline_ps = self._clock, self._deadline_ps, None
            del clock._armed[self]
            if old == clock.next_ps:
                clock._look()

    def __repr__(self) -> str:
        return f"Timer({self.name!r}, {self._deadline_ps})"


class Clock:
    """The only clock of a machine."""

    def __init__(self, ps_per_insn: int = 1000) -> None:
        if ps_per_insn < 1:
            raise ValueError(f"expected ps_per_insn >= 1, not {ps_per_insn!r}")
        self.icount = 0
        self.bias_ps = 0
        self.ps_per_insn = ps_per_insn
        self._timers: dict[str, Timer] = {}
        self._order: list[Timer] = []
        self._armed: dict[Timer, int] = {}
        self.next_ps: int | None = None
        """Guest time of the earliest armed timer."""

    @property
    def now_ps(self) -> int:
        """Guest time in picoseconds."""
        return self.icount * self.ps_per_insn + self.bias_ps

    @property
    def now_ns(self) -> int:
        """Guest time in whole nanoseconds."""
        return (self.icount * self.ps_per_insn + self.bias_ps) // PS_PER_NS

    def timer(self, name: str, callback: Callable[[], None], *, work: bool = False) -> Timer:
        """A new timer; `name` is unique in the clock and part of saved state. `work` says that it
        ends a device's work on a request, which a driver waits for, and does not measure time.
        """
        if name in self._timers:
            raise ValueError(f"expected a new timer name, not {name!r}")
        timer = Timer(self, name, callback, work)
        self._timers[name] = timer
        self._order.append(timer)
        return timer

    @property
    def timers(self) -> tuple[Timer, ...]:
        """All timers, in order of creation."""
        return tuple(self._order)

    def _look(self) -> None:
        """The earliest timer has changed."""
        self.next_ps = min(self._armed.values(), default=None)

    def icount_at(self, ps: int) -> int:
        """Smallest instruction count, not below `icount`, at which it is `ps` or later."""
        return max(self.icount, -((self.bias_ps - ps) // self.ps_per_insn))

    def run_due(self) -> None:
        """Fire every timer whose deadline is not after now, in order of (deadline, creation);
        callbacks may re-arm.
        """
        while True:
            due = self.next_ps
            if due is None or due > self.now_ps:
                return
            for timer in self._order:
                if timer._deadline_ps == due:
                    timer.fire()
                    break

    def skip_to(self, ps: int) -> None:
        """Make `now_ps == ps` by growing the bias; a time that is past changes nothing."""
        now = self.icount * self.ps_per_insn + self.bias_ps
        if ps > now:
            self.bias_ps += ps - now

    def save(self) -> dict[str, Any]:
        """Count, bias and the deadline of each timer."""
        timers = {t.name: t._deadline_ps for t in self._order}
        return encode(_ClockState(self.icount, self.bias_ps, self.ps_per_insn, timers), "clock")

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; the timers must be the same ones. Fires nothing."""
        state = decode(_ClockState, data, "clock")
        if state.timers.keys() != self._timers.keys():
            odd = sorted(state.timers.keys() ^ self._timers.keys())
            raise StateError(
                f"clock: expected the timers of this machine, difference: {', '.join(odd):.200}"
            )
        if state.ps_per_insn != self.ps_per_insn:
            raise StateError(
                f"clock: expected ps_per_insn {self.ps_per_insn}, not {state.ps_per_insn}"
            )
        self.icount = state.icount
        self.bias_ps = state.bias_ps
        for name, timer in self._timers.items():
            timer._deadline_ps = state.timers[name]
        self._armed = {t: t._deadline_ps for t in self._order if t._deadline_ps is not None}
        self._look()
