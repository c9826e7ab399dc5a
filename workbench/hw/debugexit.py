"""Debug exit port (0xF4): a test guest ends the run with a code. No datasheet; the convention of
PC emulators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from workbench.core.bus import Window
from workbench.core.regs import WO, Reg, RegBank, RegMap, on_command

__all__ = ["DebugExit"]

EXIT = Reg("EXIT", 0, 4, access=WO)


@dataclass(slots=True)
class DebugExitState:
    """Nothing is kept."""


class DebugExit(RegBank[DebugExitState]):
    """Writing v ends the run with the code `(v << 1) | 1`, which is never the 0 of a normal
    shutdown.
    """

    MAP = RegMap("debugexit", 4, (EXIT,))
    STATE = DebugExitState

    def __init__(
        self, shutdown: Callable[[int, str], None], port: int = 0xF4, name: str = "debugexit"
    ) -> None:
        self._shutdown = shutdown
        self._port = port
        super().__init__(name)

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, self._port),)

    @on_command(EXIT)
    def _exit(self, value: int) -> None:
        self._shutdown(value << 1 & 0xFF | 1, f"debug exit with {value:#x}")
