"""Steps that run an interrupt handler as a whole, as a debugger's user expects them.

Forward, the step itself tells whether an interrupt was taken; backwards, the log tells it.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING

from workbench.core.machine import Observer
from workbench.core.pagewalk import Paging

if TYPE_CHECKING:
    from workbench.trace.protocol import Poll
    from workbench.trace.timeline import Moved, Timeline


class _Taken(Observer):
    """Hears whether an interrupt is taken, and at which PC."""

    pc: int | None = None

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        """Note the first."""
        if self.pc is None:
            self.pc = pc


class OverHandlers:
    """Steps of one timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._counts: list[int] = []
        self._pcs: list[int] = []
        self._pieces = 0

    def step(self, poll: Poll | None = None) -> Moved:
        """Run one instruction of the present context, and a handler before it as a whole.

        A breakpoint or watchpoint in a handler ends it too.
        """
        timeline = self._timeline
        context, here = self._context(), timeline.machine.cpu.linear_pc
        while True:
            taken, observers = _Taken(), timeline.machine.observers
            observers.append(taken)
            try:
                moved = timeline.step(1, poll)
            finally:
                observers.remove(taken)
            masked = timeline.diverted is None and taken.pc == context[0]
            if not masked or moved.kind != "icount" or self._context()[0] == context[0]:
                return moved
            mine, conditions = timeline.breakpoints, timeline.conditions
            timeline.breakpoints = mine | {here}
            timeline.conditions = {at: c for at, c in conditions.items() if at != here}
            try:
                while True:
                    moved = timeline.go(poll)
                    if self._context() == context:
                        break
                    if moved.kind != "breakpoint" or timeline.machine.cpu.linear_pc in mine:
                        return moved
            finally:
                timeline.breakpoints, timeline.conditions = mine, conditions

    def step_back(self) -> Moved:
        """Undo `step`: a handler that returned to this instruction is passed over."""
        timeline, context = self._timeline, self._context()
        icount = timeline.icount
        moved = timeline.step_back()
        if timeline.diverted is not None or moved.kind != "icount" or not self._at_iret():
            return moved
        counts, pcs = self.interrupts()
        for n in range(bisect.bisect_left(counts, icount) - 1, -1, -1):
            if pcs[n] == context[0]:
                timeline.seek(counts[n])
                if self._context() == context:
                    return self.step_back()
                break
        timeline.seek(icount - 1)
        return moved

    def _context(self) -> tuple[int, int]:
        cpu = self._timeline.machine.cpu
        return cpu.get("rip"), cpu.get("rsp")

    def _at_iret(self) -> bool:
        """Is the next instruction IRET?  Looking sets no Accessed bit."""
        machine = self._timeline.machine
        cpu = machine.cpu
        gpa = Paging.of(cpu).translate(machine.memory.read, cpu.linear_pc)
        code = b"" if gpa is None else machine.memory.read(gpa, 2)
        return code[:1] == b"\xcf" or code == b"\x48\xcf"

    def interrupts(self) -> tuple[list[int], list[int]]:
        """Counts and PCs at which the recording was interrupted, in order."""
        names = ("icount", "pc", "kind")
        trace = self._timeline.trace
        for batch in trace.batches("interrupts", names, first=self._pieces):
            rows = zip(*(batch[name].to_pylist() for name in names), strict=True)
            found = [(icount, pc) for icount, pc, kind in rows if kind == "interrupt"]
            self._counts += [icount for icount, _ in found]
            self._pcs += [pc for _, pc in found]
            self._pieces += 1
        return self._counts, self._pcs
