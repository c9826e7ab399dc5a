"""Port 0x61, NMI status and control (82371SB 2.5.4): speaker gate, OUT2 and the refresh toggle."""

from __future__ import annotations

from dataclasses import dataclass

from workbench.core.bus import Window
from workbench.core.regs import RO, Field, Reg, RegBank, RegMap, on_read, on_write
from workbench.hw.i8254 import I8254

__all__ = ["Port61"]

NMISC = Reg(
    "NMISC",
    0,
    1,
    fields=(
        Field("GATE2", 0),
        Field("SPKR", 1),
        Field("SERR_DIS", 2),
        Field("IOCHK_DIS", 3),
        Field("REFRESH", 4, access=RO),
        Field("OUT2", 5, access=RO),
        Field("IOCHK", 6, access=RO),
        Field("SERR", 7, access=RO),
    ),
    ref="82371SB 2.5.4",
)
REFRESH_TICKS = 18
"""Counter 1 of the timer asks for a refresh every 18 ticks (15.1 us); the bit toggles each time."""


@dataclass(slots=True)
class Port61State:
    """The writable bits."""

    nmisc: int = 0


class Port61(RegBank[Port61State]):
    """Gates counter 2 of the timer and shows its output."""

    MAP = RegMap("port61", 1, (NMISC,), "82371SB 2.5.4")
    STATE = Port61State

    def __init__(self, pit: I8254, name: str = "port61") -> None:
        self._pit = pit
        super().__init__(name)

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, 0x61),)

    @on_read(NMISC)
    def _status(self) -> int:
        pit = self._pit
        refresh = pit.tick() // REFRESH_TICKS & 1
        return self.state.nmisc | refresh << 4 | pit.out(2) << 5

    @on_write(NMISC)
    def _control(self, old: int, new: int) -> None:
        if (old ^ new) & 1:
            self._pit.set_gate(2, bool(new & 1))
