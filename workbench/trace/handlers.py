"""Steps that run an interrupt handler as a whole, as a debugger's user expects them.

Forward, the step itself tells whether an interrupt was taken; backwards, the log tells it.
"""

from __future__ import annotations

import bisect
import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from workbench.core.layout import CR0_PE, EFER_LMA
from workbench.core.machine import Observer
from workbench.core.pagewalk import Paging
from workbench.trace.kallsyms import AddressSpace
from workbench.trace.moved import Moved

if TYPE_CHECKING:
    from workbench.core.machine import Machine
    from workbench.trace.protocol import Poll
    from workbench.trace.timeline import Timeline

__all__ = ["OverHandlers", "entries"]

_MOST_STEPS: Final = 10_000
_LONGEST: Final = 15  # bytes of an instruction
_VECTORS: Final = 256


class _Taken(Observer):
    """Hears whether an interrupt is taken, and at which PC."""

    pc: int | None = None

    def on_interrupt(self, vector: int, icount: int, pc: int) -> None:
        """Note the first."""
        if self.pc is None:
            self.pc = pc


Position = tuple[int, int, int]
"""Instruction count, RIP and RSP: an instruction that faults has the count of the first one of its
handler.
"""


class OverHandlers:
    """Steps of one timeline."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._counts: list[int] = []
        self._pcs: list[int] = []
        self._pieces = 0
        self._trail: deque[tuple[Position, Position]] = deque(maxlen=_MOST_STEPS)
        """Steps forward that were made one after the other: the way back is the same."""

    def step(self, poll: Poll | None = None) -> Moved:
        """Run one instruction of the present context, and a handler before it as a whole.

        A breakpoint or watchpoint in a handler ends it too. An instruction that faults ends at the
        first one of its handler, as on a processor that is single-stepped.
        """
        timeline, before = self._timeline, self._position()
        moved = self._step(poll)
        if timeline.diverted is None and moved.kind == "icount":
            if not self._trail or self._trail[-1][1] != before:
                self._trail.clear()
            self._trail.append((before, self._position()))
        return moved

    def _step(self, poll: Poll | None) -> Moved:
        timeline = self._timeline
        context, here = self._context(), timeline.machine.cpu.linear_pc
        while True:
            taken, observers = _Taken(), timeline.machine.observers
            observers.append(taken)
            try:
                moved = timeline.step(1, poll, entries=True)
            finally:
                observers.remove(taken)
            if moved.kind != "breakpoint":
                return moved
            if timeline.diverted is not None or taken.pc != context[0]:
                return Moved("icount")
            mine, conditions = timeline.breakpoints, timeline.conditions
            timeline.breakpoints = mine | {here}
            timeline.conditions = {at: c for at, c in conditions.items() if at != here}
            skip = False
            try:
                while True:
                    moved = timeline.go(poll, skip=skip)
                    if self._context() == context:
                        break
                    if moved.kind != "breakpoint" or timeline.machine.cpu.linear_pc in mine:
                        return moved
                    skip = True
            finally:
                timeline.breakpoints, timeline.conditions = mine, conditions

    def step_back(self) -> Moved:
        """Undo `step`: a handler that returned to this instruction is passed over, unless steps
        have led through it.
        """
        timeline, here = self._timeline, self._position()
        if timeline.diverted is not None:
            return timeline.step_back()
        if self._trail and self._trail[-1][1] == here:
            self._return_to(self._trail.pop()[0])
            return Moved("icount")
        self._trail.clear()
        if timeline.machine.cpu.linear_pc in entries(timeline.machine):
            timeline.seek(here[0], again=True)
            if self._position() != here:  # what has faulted, or was interrupted
                return Moved("icount")
        moved = timeline.step_back()
        if moved.kind != "icount":
            return moved
        if self._at_iret() and self._before_handler(here):
            return self.step_back()
        self._to_entry(here)
        return moved

    def _return_to(self, there: Position) -> None:
        timeline = self._timeline
        timeline.seek(there[0], again=True)
        if self._position() != there:
            timeline.step(entries=True)

    def _before_handler(self, here: Position) -> bool:
        """Is this the end of a handler that returned to `here`?  Go to before it then."""
        timeline = self._timeline
        counts, pcs = self.interrupts()
        for n in range(bisect.bisect_left(counts, here[0]) - 1, -1, -1):
            if pcs[n] == here[1]:
                timeline.seek(counts[n])
                if self._context() == here[1:]:
                    return True
                break
        timeline.seek(here[0] - 1)
        return False

    def _to_entry(self, after: Position) -> None:
        """Did this instruction fault, so that the one before `after` is its handler's first?"""
        timeline = self._timeline
        count, pc, _ = self._position()
        if 0 <= after[1] - pc <= _LONGEST:
            return
        if timeline.step(entries=True).kind != "breakpoint":
            timeline.seek(count)

    def _position(self) -> Position:
        return (self._timeline.icount, *self._context())

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


def entries(machine: Machine) -> frozenset[int]:
    """Where the handlers of exceptions and interrupts begin: linear addresses, of code without a
    base (SDM volume 3, 6.10 and 6.14; in real mode 20.1.4).
    """
    cpu = machine.cpu
    form = "<HHHH" if cpu.get("cr0") & CR0_PE else "<HH"
    if cpu.get("efer") & EFER_LMA:
        form = "<HHHHII"
    gate = struct.Struct(form)
    size = min(cpu.get("idtr_limit") + 1, _VECTORS * gate.size) // gate.size * gate.size
    table = AddressSpace(machine.memory, Paging.of(cpu)).read(cpu.get("idtr_base"), size)
    if table is None:
        return frozenset()
    found = gate.iter_unpack(table)
    if gate.size == 4:
        return frozenset(offset + (segment << 4) for offset, segment in found)
    return frozenset(row[0] | row[3] << 16 | (row[4] << 32 if len(row) > 4 else 0) for row in found)
