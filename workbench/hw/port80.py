"""Port 0x80, POST code (82371SB 2.5.6: DMA page register without a channel); Linux writes it for
its I/O delays."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.bus import Window
from workbench.core.regs import Reg, RegBank, RegMap

__all__ = ["Port80"]

POST = Reg("POST", 0, 1)


@dataclass(slots=True)
class Port80State:
    """The code written last."""

    post: int = 0


class Port80(RegBank[Port80State]):
    """A byte that can be read back."""

    MAP = RegMap("port80", 1, (POST,))
    STATE = Port80State

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, 0x80),)
