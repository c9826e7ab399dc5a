"""Names of the guest's functions: a table of symbols, once there is one, and what it said."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from workbench.tui.lines import safe

if TYPE_CHECKING:
    from workbench.trace.reader import Trace
    from workbench.trace.symbols import SymbolTable

_MOST_KEPT: Final = 1 << 16


class Names:
    """What addresses are called; without a table, numbers."""

    def __init__(self, table: SymbolTable | None = None) -> None:
        self.table = table
        self._texts: dict[int, str] = {}

    def learn(self, table: SymbolTable) -> None:
        """From now on these are the names."""
        self.table = table
        self._texts.clear()

    def text(self, pc: int) -> str:
        """`name+0x1c [module]` of an address, or the address."""
        found = self._texts.get(pc)
        if found is None:
            if len(self._texts) > _MOST_KEPT:
                self._texts.clear()
            found = f"{pc:#x}" if self.table is None else safe(self.table.text(pc))
            self._texts[pc] = found
        return found

    def span(self, pc: int) -> tuple[int, int] | None:
        """Start and end of the function, None if it is not known."""
        return None if self.table is None else self.table.span(pc)

    def seen(self) -> list[str]:
        """Functions that have been on the screen."""
        return sorted({text.partition("+")[0] for text in self._texts.values()})


def find(trace: Trace) -> SymbolTable:
    """The table of a recording, looked for in the guest's memory."""
    from workbench.trace import symbols

    # In a process of its own: its replay would fight with ours for the interpreter lock.
    return symbols.of_trace(trace, prepare=partial(symbols.find_apart, trace.path))
