"""Debug console (port 0xE9; a BIOS's at 0x402): a written byte is output, a read gives 0xE9. No
datasheet; the convention of PC emulators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.core.bus import Window
from workbench.core.regs import Reg, RegBank, RegMap, on_command, on_read

__all__ = ["DebugCon"]

CONSOLE = Reg("CONSOLE", 0, 1)


@dataclass(slots=True)
class DebugConState:
    """Nothing is kept."""


class DebugCon(RegBank[DebugConState]):
    """`output` gets each byte."""

    MAP = RegMap("debugcon", 1, (CONSOLE,))
    STATE = DebugConState

    def __init__(
        self, output: Callable[[bytes], None], port: int = 0xE9, name: str = "debugcon"
    ) -> None:
        self._output = output
        self._port = port
        super().__init__(name)

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, self._port),)

    @on_read(CONSOLE)
    def _present(self) -> int:
        return 0xE9

    @on_command(CONSOLE)
    def _put(self, value: int) -> None:
        self._output(bytes((value,)))
