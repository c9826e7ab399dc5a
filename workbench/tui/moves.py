"""Moves that need the machine: blocks, functions, breakpoints, and who wrote a place in memory.

They run in the worker's thread on a `Timeline`. Straight code between branches is run as a whole;
backwards, the way here is run again and what was passed is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from workbench.gdbstub.memory import Memory
from workbench.tui.disassembly import Instruction, disassemble
from workbench.tui.moment import code_bits

if TYPE_CHECKING:
    from workbench.trace.timeline import Timeline

Poll = Callable[[], bool]
FunctionOf = Callable[[int], str]
_WINDOWS: Final = (64, 512, 4096, 32768)
_MOST_STEPS: Final = 2_000_000


def _pc(timeline: Timeline) -> int:
    return int(timeline.machine.cpu.get("rip"))


def _next(timeline: Timeline, known: dict[int, Instruction]) -> Instruction | None:
    pc = _pc(timeline)
    found = known.get(pc)
    if found is None:
        code = Memory(timeline.machine.cpu).read(pc, 16) or b""
        decoded = disassemble(code, pc, code_bits(timeline.machine), 1)
        if not decoded:
            return None
        found = known[pc] = decoded[0]
    return found


def _steps(timeline: Timeline, poll: Poll, most: int = _MOST_STEPS) -> Any:
    """Step, and give what was run and where that led: (instruction, pc after it)."""
    known: dict[int, Instruction] = {}
    for _ in range(most):
        if poll():
            return
        before = _next(timeline, known)
        icount = timeline.icount
        moved = timeline.step()
        if moved.kind != "icount" or timeline.icount == icount:
            return
        yield before, _pc(timeline)


def block(timeline: Timeline, poll: Poll) -> None:
    """Go behind the next branch; an interrupt ends a block too."""
    for ran, after in _steps(timeline, poll):
        if ran is None or ran.is_branch or not ran.address <= after <= ran.address + ran.size:
            return


def function(timeline: Timeline, poll: Poll, name: FunctionOf) -> None:
    """Run until another function is entered or returned to."""
    start = name(_pc(timeline))
    for _, after in _steps(timeline, poll):
        if name(after) != start:
            return


def over(timeline: Timeline, poll: Poll) -> None:
    """Run one instruction; a call with all that it calls."""
    pc, sp = _pc(timeline), timeline.machine.cpu.get("rsp")
    ran = _next(timeline, {})
    if ran is None or not ran.is_call:
        timeline.step()
        return
    target = pc + ran.size
    mine, timeline.breakpoints = timeline.breakpoints, {target}
    try:
        while timeline.go(poll).kind == "breakpoint":
            if timeline.machine.cpu.get("rsp") >= sp:
                return
    finally:
        timeline.breakpoints = mine


def _trail(timeline: Timeline, first: int, last: int, poll: Poll) -> list[int]:
    """The PCs of `first` to `last`, both included; ends at `last`."""
    timeline.seek(first, poll)
    pcs = [_pc(timeline)]
    while timeline.icount < last and not poll():
        icount = timeline.icount
        timeline.step()
        if timeline.icount == icount:
            break
        pcs.append(_pc(timeline))
    return pcs


def _back(timeline: Timeline, poll: Poll, here: Callable[[list[int], int], bool]) -> None:
    """Go back to the last place of the way here that `here` takes."""
    end = last = timeline.icount
    for length in _WINDOWS:
        first = max(last - length, 0)
        pcs = _trail(timeline, first, last, poll)
        if poll():
            timeline.seek(end)
            return
        for place in range(len(pcs) - (2 if last == end else 1), 0, -1):
            if here(pcs, place):
                timeline.seek(first + place)
                return
        if first == 0:
            break
        last = first + 1
    timeline.seek(first)


def block_back(timeline: Timeline, poll: Poll) -> None:
    """Go back to where the last branch led to."""
    memory = Memory(timeline.machine.cpu)
    bits = code_bits(timeline.machine)

    def after_branch(pcs: list[int], place: int) -> bool:
        before = pcs[place - 1]
        code = memory.read(before, 16) or b""
        found = disassemble(code, before, bits, 1)
        if not found or found[0].is_branch:
            return True
        return not before <= pcs[place] <= before + found[0].size

    _back(timeline, poll, after_branch)


def function_back(timeline: Timeline, poll: Poll, name: FunctionOf) -> None:
    """Go back to where this function was entered or returned to."""
    present = name(_pc(timeline))
    before = timeline.icount

    def boundary(pcs: list[int], place: int) -> bool:
        return name(pcs[place - 1]) != name(pcs[place])

    _back(timeline, poll, boundary)
    if timeline.icount == before and present:
        timeline.step_back()
