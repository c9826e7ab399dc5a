"""The guest's call chain as a table at an address that no processor has, for gdb's unwinder.

gdb asks a Python unwinder for each frame, and all that one may do there is to read registers and
memory; so `gdb_commands.py` finds the chain, which the stub works out from the kernel's ORC tables,
in memory. The address is not canonical: nothing of a guest can be there (SDM volume 1, 3.3.7.1).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from workbench.gdbstub.symbols import guest_symbols
from workbench.trace.symbols import SymbolTable
from workbench.trace.unwind import DEEPEST, Unwinder

if TYPE_CHECKING:
    from workbench.gdbstub.target import Target

__all__ = ["FIRST", "LENGTH", "Frames"]

FIRST: Final = 0x5742_0000_0000_0000
_FRAME: Final = struct.Struct("<4Q")  # PC, RSP, RBP, where the function begins
LENGTH: Final = 8 + DEEPEST * _FRAME.size


class Frames:
    """The table for what a target is at: the number of frames, then each, the innermost first."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._unwinder: Unwinder | None = None
        self._names = SymbolTable()
        self._table = b""

    def read(self, address: int, count: int) -> bytes | None:
        """Bytes of the table; None beside it. It is made when its first byte is read."""
        if not FIRST <= address < FIRST + LENGTH:
            return None
        at = address - FIRST
        if at == 0 or not self._table:
            self._table = self._made()
        return self._table[at : at + count]

    def _made(self) -> bytes:
        machine = self._target.machine
        unwinder = self._unwinder
        if unwinder is None or unwinder.machine is not machine or not unwinder.has_orc:
            unwinder = Unwinder(machine)
            unwinder.frames()
            if unwinder.has_orc:
                self._names = SymbolTable(guest_symbols(machine))
                self._unwinder = unwinder
        frames = unwinder.frames() if unwinder.has_orc else ()
        rows = [_FRAME.pack(pc, sp, bp, self._start(pc)) for pc, sp, bp in frames]
        return (struct.pack("<Q", len(rows)) + b"".join(rows)).ljust(LENGTH, b"\0")

    def _start(self, pc: int) -> int:
        found = self._names.find(pc)
        return pc if found is None else pc - found[1]
