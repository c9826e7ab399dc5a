"""Where the code of a function can be left, found by reading it, not by running it.

With symbols all code between two of them is read; without them, what can be reached from an
instruction by direct jumps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from workbench.tui.disassembly import Instruction, disassemble

Read = Callable[[int, int], bytes]
Inside = Callable[[int], bool]
MOST_BYTES: Final = 64 << 10
_PIECE: Final = 64
_LONGEST_CALL: Final = 7
_LOADS: Final = ("mov", "xchg", "pop")
_STAYS: Final = ("int3", "int1", "hlt")


@dataclass(slots=True)
class WaysOut:
    """How code can be left; all are linear addresses."""

    always: set[int] = field(default_factory=set)
    """Instructions that go elsewhere whenever they run: calls, returns, jumps out, and jumps of
    which only a run tells where they lead.
    """
    targets: set[int] = field(default_factory=set)
    """Where conditional jumps lead outside."""
    calls: dict[int, int] = field(default_factory=dict)
    """Calls, and where they come back."""
    other_stack: bool = False
    """Does the code load the stack pointer?"""

    @property
    def points(self) -> set[int]:
        """One of these runs before anything outside does, or is the first that runs outside."""
        return self.always | self.targets


def of_function(read: Read, start: int, end: int, bits: int, inside: Inside) -> WaysOut | None:
    """The ways out of the code from `start` to `end`; None when that is too much to read."""
    if not 0 < end - start <= MOST_BYTES:
        return None
    code = read(start, end - start)
    return _ways_out(disassemble(code, start, bits, len(code)), inside)


def reached(read: Read, pc: int, bits: int) -> WaysOut | None:
    """The ways out of what can be reached from `pc`; None when that is too much."""
    found: dict[int, Instruction] = {}
    todo = [pc]
    while todo:
        at = todo.pop()
        while at not in found:
            if 16 * len(found) > MOST_BYTES:
                return None
            run = disassemble(read(at, _PIECE), at, bits, 1)
            if not run:
                break
            found[at] = run[0]
            target = run[0].target
            if _is_jump(run[0]) and target is not None:
                todo.append(target)
            if run[0].is_branch and not _is_conditional(run[0]):
                break
            at += run[0].size
    return _ways_out(found.values(), found.__contains__)


def calls_before(read: Read, address: int, bits: int) -> set[int]:
    """Where a call may begin that comes back to an address."""
    out = set()
    for size in range(2, _LONGEST_CALL + 1):
        code = read(address - size, size)
        found = disassemble(code, address - size, bits, 1)
        if found and found[0].is_call and found[0].size == size:
            out.add(address - size)
    return out


def _ways_out(code: Iterable[Instruction], inside: Inside) -> WaysOut:
    out = WaysOut()
    for one in code:
        if one.mnemonic in _LOADS and one.operands.startswith("rsp,"):
            out.other_stack = True
        if not one.is_branch or one.mnemonic in _STAYS:
            continue
        if one.target is not None and inside(one.target):
            continue
        if one.is_call:
            out.calls[one.address] = one.address + one.size
        if one.target is not None and _is_conditional(one):
            out.targets.add(one.target)
        else:
            out.always.add(one.address)
    return out


def _is_jump(one: Instruction) -> bool:
    return one.mnemonic.startswith(("j", "loop"))


def _is_conditional(one: Instruction) -> bool:
    return _is_jump(one) and not one.mnemonic.startswith("jmp")
