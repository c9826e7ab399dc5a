"""Port 0x92, system control port A: A20 and fast reset (IBM PS/2 TR, system control port A)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workbench.core.bus import Window
from workbench.core.irq import IrqLine
from workbench.core.regs import Field, Reg, RegBank, RegMap, on_write

__all__ = ["Port92"]

SCPA = Reg(
    "SCPA", 0, 1, fields=(Field("FAST_INIT", 0), Field("A20", 1)), ref="system control port A"
)


@dataclass(slots=True)
class Port92State:
    """A20 is open from the start, as a BIOS leaves it."""

    scpa: int = 2


class Port92(RegBank[Port92State]):
    """Bit 0 going up resets the CPU, bit 1 drives `a20`."""

    MAP = RegMap("port92", 1, (SCPA,))
    STATE = Port92State

    def __init__(
        self, reset_cpu: Callable[[str], None], a20: IrqLine | None = None, name: str = "port92"
    ) -> None:
        self._reset_cpu = reset_cpu
        self._a20 = a20
        super().__init__(name)
        self._restore_a20()

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, 0x92),)

    @on_write(SCPA)
    def _control(self, old: int, new: int) -> None:
        if self._a20 is not None:
            self._a20.set(bool(new & 2))
        if new & ~old & 1:
            self._reset_cpu("port 0x92")

    def _restore_a20(self) -> None:
        if self._a20 is not None:
            self._a20.restore(bool(self.state.scpa & 2))

    def reset(self) -> None:
        super().reset()
        if self._a20 is not None:
            self._a20.set(True)

    def restore(self, data: dict[str, Any]) -> None:
        super().restore(data)
        self._restore_a20()
