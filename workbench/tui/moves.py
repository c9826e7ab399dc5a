"""Moves that need the machine: blocks, functions, calls as a whole, and their callers.

They run in the worker's thread on a `Timeline`, and give a sentence where there is something to
say. Where the code can leave a function is read from it (`flow.py`); the machine runs there at its
full speed, with breakpoints that count only on the stack where the move began: not in interrupt
handlers, other threads or deeper calls of the same function. The user's breakpoints end a move too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from workbench.gdbstub.memory import Memory
from workbench.trace.timeline import NEVER, Timeline
from workbench.tui import flow
from workbench.tui.disassembly import Instruction, disassemble
from workbench.tui.moment import code_bits

if TYPE_CHECKING:
    from workbench.trace.moved import Moved

Poll = Callable[[], bool]
Frames = tuple[tuple[int, int, int], ...]
Spans = Callable[[int], "tuple[int, int] | None"]
"""Start and end of the function that an address is in, if one is known."""
_WINDOWS: Final = (64, 512, 4096, 32768)
_MOST_STEPS: Final = 2_000_000
_MOST_POINTS: Final = 400
_KERNEL: Final = 1 << 63
_KERNEL_STACK: Final = 16 << 10
_USER_STACK: Final = 1 << 20
_UNKNOWN: Final = "nobody called this, as far as the stack tells"
_SEARCHED: Final = 256
"""Words of the stack that are looked at for a return address."""
_MOST_TRIED: Final = 8
_POPPED: Final = 256
"""Bytes of arguments that a return may take off the stack."""


def _pc(timeline: Timeline) -> int:
    return timeline.machine.cpu.linear_pc


def _sp(timeline: Timeline) -> int:
    return timeline.machine.cpu.get("rsp")


def _read(timeline: Timeline) -> flow.Read:
    memory = Memory(lambda: timeline.machine.cpu)
    return lambda address, count: memory.read(address, count) or b""


def _here(timeline: Timeline) -> Instruction | None:
    """The next instruction."""
    pc = _pc(timeline)
    code = _read(timeline)(pc, 16)
    return next(iter(disassemble(code, pc, code_bits(timeline.machine), 1)), None)


def _is_return(instruction: Instruction | None) -> bool:
    return instruction is not None and instruction.mnemonic.startswith("ret")


# Running at full speed.


@contextmanager
def _points(timeline: Timeline, points: set[int], stack: range) -> Iterator[None]:
    """Breakpoints of a move, beside the user's: they count with the stack pointer in a range."""
    mine = timeline.breakpoints, timeline.conditions, timeline.condition_registers
    # reg 0 - start < length, unsigned, in the language of gdb's agent expressions
    length = min(stack.stop - stack.start, (1 << 64) - 1)
    code = struct.pack(">BHBQBBQBB", 0x26, 0, 0x25, stack.start, 3, 0x25, length, 0x15, 0x27)
    timeline.breakpoints = mine[0] | points
    timeline.conditions = {**mine[1], **dict.fromkeys(points - mine[0], (code,))}
    timeline.condition_registers = ("rsp",)
    try:
        yield
    finally:
        timeline.breakpoints, timeline.conditions, timeline.condition_registers = mine


def _run(
    timeline: Timeline,
    poll: Poll,
    points: set[int],
    stack: range,
    *,
    back: bool = False,
    until: int = NEVER,
) -> Moved:
    """Run to one of `points` on a stack, to a count, or to where the user wants to stop."""
    user = timeline.breakpoints
    with _points(timeline, points, stack):
        while True:
            moved = timeline.go_back(poll) if back else timeline.go(poll, until)
            # In code that is not 64-bit the condition counts as one that holds.
            if moved.kind != "breakpoint" or _pc(timeline) in user or _sp(timeline) in stack:
                return moved


def _stack(timeline: Timeline, ways: flow.WaysOut | None) -> range:
    """Where the stack pointer may be while code runs that does not go to another stack."""
    sp = _sp(timeline)
    if ways is None or ways.other_stack:
        return range(1 << 64)
    if sp < _KERNEL:
        return range(max(sp - _USER_STACK, 0), sp + _USER_STACK)
    first = sp & -_KERNEL_STACK
    return range(first, first + _KERNEL_STACK)


def sentence(moved: Moved) -> str:
    """Why a move ended, in words."""
    match moved.kind:
        case "breakpoint":
            return "breakpoint"
        case "watch" | "access":
            return f"watched: {moved.text or 'memory'}"
        case "begin":
            return "the start of the recording; no breakpoint was met on the way back"
        case "end":
            return f"the end of the recording ({moved.text})"
        case "interrupted":
            return "stopped"
        case _:
            return moved.text


def _said(timeline: Timeline, moved: Moved, wanted: set[int]) -> str | None:
    """A sentence when a move ended elsewhere than at what it was for."""
    if moved.kind == "breakpoint" and _pc(timeline) in wanted:
        return None
    if moved.kind == "begin":
        return "the start of the recording"
    return sentence(moved) or None


# Blocks.


def _steps(timeline: Timeline, poll: Poll) -> Any:
    """Step, and give what was run and where that led: (instruction, pc after it)."""
    for _ in range(_MOST_STEPS):
        if poll():
            return
        before = _here(timeline)
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
    read, bits = _read(timeline), code_bits(timeline.machine)

    def after_branch(pcs: list[int], place: int) -> bool:
        before = pcs[place - 1]
        found = disassemble(read(before, 16), before, bits, 1)
        if not found or found[0].is_branch:
            return True
        return not before <= pcs[place] <= before + found[0].size

    _back(timeline, poll, after_branch)


# Functions.


def function(timeline: Timeline, poll: Poll, spans: Spans) -> str | None:
    """Run until another function is entered or returned to; interrupt handlers do not count.

    Without symbols, to behind the next call or return.
    """
    span = spans(_pc(timeline))

    def outside() -> bool:
        return span is None or not span[0] <= _pc(timeline) < span[1]

    ways = _ways_out(timeline, span)
    stack = _stack(timeline, ways)
    while not poll():
        if ways is None or len(ways.points) > _MOST_POINTS:
            timeline.step_masked(poll)
            if outside():
                return None
            continue
        if _pc(timeline) not in ways.always:
            moved = _run(timeline, poll, ways.points, stack)
            if _pc(timeline) not in ways.always or _pc(timeline) in timeline.breakpoints:
                return _said(timeline, moved, ways.targets)
        moved = timeline.step_masked(poll)
        if moved.kind != "icount" or outside():
            return None if moved.kind == "icount" else _said(timeline, moved, set())
    return "stopped"


def _ways_out(timeline: Timeline, span: tuple[int, int] | None) -> flow.WaysOut | None:
    read, bits = _read(timeline), code_bits(timeline.machine)
    if span is None:
        return flow.reached(read, _pc(timeline), bits)
    start, end = span
    return flow.of_function(read, start, end, bits, lambda address: start <= address < end)


def function_back(timeline: Timeline, poll: Poll, spans: Spans) -> str | None:
    """Go back to the last place where a function was entered or returned to."""
    if not _undone(timeline):
        return "the start of the recording"
    span = spans(_pc(timeline))
    ways = None if span is None else _ways_out(timeline, span)
    if span is None or ways is None or len(ways.always) > _MOST_POINTS:
        _back(timeline, poll, lambda pcs, n: spans(pcs[n - 1]) != spans(pcs[n]))
        return None
    start, end = span
    stack = _stack(timeline, ways)
    here = timeline.icount
    while not _came_from_outside(timeline, start, end):
        moved = _run(timeline, poll, {start, *ways.always}, stack, back=True)
        at = _pc(timeline)
        if moved.kind != "breakpoint" or at in timeline.breakpoints:
            return _said(timeline, moved, set())
        if at in ways.always:
            break
    else:
        return None
    # It left the function there: forward to where it came back, which is not behind `here`.
    left, come_back = timeline.icount, ways.calls.get(at)
    if come_back is not None:
        timeline.step_masked(poll)
        _run(timeline, poll, {come_back}, stack, until=here)
    else:
        while timeline.icount < min(here, left + _WINDOWS[-1]) and not poll():
            timeline.step_masked(poll)
            if start <= _pc(timeline) < end:
                break
    return None


def _came_from_outside(timeline: Timeline, start: int, end: int) -> bool:
    """Did another function run before this instruction?  The position stays."""
    here = timeline.icount
    outside = not _undone(timeline) or not start <= _pc(timeline) < end
    timeline.seek(here)
    return outside


def _undone(timeline: Timeline) -> bool:
    """Go back over one instruction and the handlers behind it."""
    return timeline.step_back_masked().kind != "begin"


# Calls.


def over(timeline: Timeline, poll: Poll) -> str | None:
    """Run one instruction; a call with all that it calls, an interrupt handler as a whole."""
    ran, sp = _here(timeline), _sp(timeline)
    if ran is None or not ran.is_call:
        timeline.step_masked(poll)
        return None
    target = {ran.address + ran.size}
    return _said(timeline, _run(timeline, poll, target, range(sp, sp + _POPPED)), target)


def over_back(timeline: Timeline, poll: Poll) -> str | None:
    """Undo `over`: from behind a call to before it."""
    pc, sp, here = _pc(timeline), _sp(timeline), timeline.icount
    if not _undone(timeline):
        return "the start of the recording"
    if not _is_return(_here(timeline)):
        return None
    points = flow.calls_before(_read(timeline), pc, code_bits(timeline.machine))
    before = timeline.icount
    if points:
        moved = _run(timeline, poll, points, range(max(sp - _POPPED, 0), sp + 1), back=True)
        if moved.kind == "begin":  # not a call that is in the recording
            timeline.seek(before)
        elif moved.kind == "interrupted":
            timeline.seek(here)
            return "stopped"
        else:
            return _said(timeline, moved, points)
    return None


def _caller(timeline: Timeline, frames: Frames, spans: Spans) -> tuple[int, int] | None:
    """Where this function returns to, and the stack pointer then.

    Where the call chain is not known: the first word of the stack behind a call of this function.
    """
    if len(frames) > 1:
        return frames[1][:2]
    span, sp = spans(_pc(timeline)), _sp(timeline)
    read, bits = _read(timeline), code_bits(timeline.machine)
    word = bits // 8
    stack = b"" if span is None else read(sp, _SEARCHED * word)
    for at in range(0, len(stack) - word + 1, word):
        back = int.from_bytes(stack[at : at + word], "little")
        for call in flow.calls_before(read, back, bits):
            found = disassemble(read(call, back - call), call, bits, 1)
            if span is not None and found[0].target == span[0]:
                return back, sp + at + word
    return None


def finish(timeline: Timeline, poll: Poll, frames: Frames, spans: Spans) -> str | None:
    """Run until this function has returned to its caller."""
    caller = _caller(timeline, frames, spans)
    if caller is None:
        return _UNKNOWN
    back, sp = caller
    moved = _run(timeline, poll, {back}, range(sp, sp + _POPPED))
    return _said(timeline, moved, {back})


def finish_back(timeline: Timeline, poll: Poll, frames: Frames, spans: Spans) -> str | None:
    """Go back to the call of this function; of a handler, to what it interrupted."""
    caller = _caller(timeline, frames, spans)
    if caller is None:
        return _UNKNOWN
    back, sp = caller
    read, bits = _read(timeline), code_bits(timeline.machine)
    word, here = bits // 8, timeline.icount
    called = int.from_bytes(read(sp - word, word), "little") == back
    points = flow.calls_before(read, back, bits) if called else set()
    if not points:
        for count in _interrupted(timeline, back):
            timeline.seek(count, poll)
            if _pc(timeline) == back and _sp(timeline) == sp:
                return None
        timeline.seek(here, poll)
        points = {back}
    moved = _run(timeline, poll, points, range(max(sp - _POPPED, 0), sp + 1), back=True)
    return _said(timeline, moved, points)


def _interrupted(timeline: Timeline, pc: int) -> list[int]:
    """Counts of the last few interrupts before this position that were taken at a PC."""
    rows = zip(*timeline.interrupts(), strict=True)
    return [n for n, at in rows if at == pc and n <= timeline.icount][: -_MOST_TRIED - 1 : -1]
