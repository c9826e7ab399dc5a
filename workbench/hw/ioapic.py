"""I/O APIC with 24 pins (Intel 82093AA data sheet, order number 290566).

The EOI register at offset 0x40 and version 0x20 are those of the ICH family's I/O APIC (82801BA
data sheet, 8.5). Levels at the pins mean "asserted": INTPOL is stored and has no effect.
Deliberately not modelled: the arbitration register (reads 0), delivery mode ExtINT (the 8259
reaches the processor through LINT0), SMI and INIT messages, and interrupts that are sent by a
memory write of PCI devices to the I/O APIC's pin assertion register.
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core.regs import (
    RO,
    WO,
    Field,
    Indirect,
    Reg,
    RegBank,
    RegMap,
    array,
    on_command,
    on_read,
    on_write,
)
from workbench.core.state import sized

__all__ = ["INDEXED", "MAP", "PINS", "Ioapic", "IoapicState"]

PINS: Final = 24
INTMASK: Final = 1 << 16
TRIGGER_LEVEL: Final = 1 << 15
REMOTE_IRR: Final = 1 << 14

IOREGSEL = Reg("IOREGSEL", 0x00, 4, fields=(Field("INDEX", 0, 8),), ref="82093AA 3.1.1")
IOWIN = Reg("IOWIN", 0x10, 4, ref="82093AA 3.1.2")
EOIR = Reg("EOIR", 0x40, 4, access=WO, fields=(Field("VECTOR", 0, 8),), ref="82801BA 8.5.5")

IOAPICID = Reg("IOAPICID", 0x00, 4, fields=(Field("ID", 24, 4),), ref="82093AA 3.2.1")
IOAPICVER = Reg(
    "IOAPICVER", 0x04, 4, (PINS - 1) << 16 | 0x20, RO,
    (Field("VERSION", 0, 8), Field("MAX_REDIR", 16, 8)),
    "82093AA 3.2.2",
)  # fmt: skip
IOAPICARB = Reg("IOAPICARB", 0x08, 4, access=RO, ref="82093AA 3.2.3")
IOREDTBL = array(
    "IOREDTBL", 0x40, 8, PINS, 8, reset=INTMASK,
    fields=(
        Field("INTVEC", 0, 8),
        Field("DELMOD", 8, 3, values={
            0: "Fixed", 1: "LowestPriority", 2: "SMI", 4: "NMI", 5: "INIT", 7: "ExtINT",
        }),
        Field("DESTMOD", 11, values={1: "logical"}),
        Field("DELIVS", 12, access=RO),
        Field("INTPOL", 13, values={1: "low"}),
        Field("RIRR", 14, access=RO),
        Field("TRIGGER", 15, values={1: "level"}),
        Field("MASK", 16),
        Field("DEST", 56, 8),
    ),
    ref="82093AA 3.2.4",
)  # fmt: skip

INDEXED = RegMap(
    "ioapic-indexed", 0x400, (IOAPICID, IOAPICVER, IOAPICARB, *IOREDTBL), ref="82093AA 3.2"
)
MAP = RegMap(
    "ioapic",
    0x1000,
    (IOREGSEL, IOWIN, EOIR),
    ref="82093AA 3.1",
    indirect=(Indirect(IOREGSEL, IOWIN, INDEXED, mask=0xFF, scale=4),),
)


@dataclass(slots=True)
class IoapicState:
    """Registers and the levels at the pins (bit n is pin n)."""

    ioregsel: int = 0
    ioapicid: int = 0
    ioredtbl: list[int] = sized(PINS, INTMASK)
    asserted: int = 0


class _Indexed(RegBank[IoapicState]):
    """The registers behind IOREGSEL; they share the state of the chip."""

    MAP = INDEXED
    STATE = IoapicState

    def __init__(self, state: IoapicState, changed: Callable[[int], None]) -> None:
        self._changed = changed
        super().__init__("ioapic-indexed", state=state)

    @on_write(*IOREDTBL)
    def _write_entry(self, pin: int, old: int, new: int) -> None:
        if not new & TRIGGER_LEVEL:
            self.state.ioredtbl[pin] = new & ~REMOTE_IRR
        self._changed(pin)


class Ioapic(RegBank[IoapicState]):
    """The chip: pins in, messages to the local APIC out."""

    MAP = MAP
    STATE = IoapicState

    def __init__(
        self, deliver: Callable[[int, bool, int, int, bool], bool], *, name: str = "ioapic"
    ) -> None:
        """`deliver(destination, logical, mode, vector, level)` tells whether somebody took it."""
        # Wires
        self._deliver = deliver
        # State
        state = IoapicState()
        self._indexed = _Indexed(state, self._service_level)
        super().__init__(name, state=state)

    def set_state(self, state: IoapicState) -> None:
        """Replace the state of both banks."""
        super().set_state(state)
        self._indexed.set_state(state)

    def reset(self) -> None:
        """All pins masked; the levels at the pins stay, they belong to others."""
        self.set_state(IoapicState(asserted=self.state.asserted))

    def set_pin(self, pin: int, asserted: bool) -> None:
        """A change of level at a pin; an edge at a masked pin is lost (82093AA 3.2.4, MASK)."""
        state = self.state
        bit = 1 << pin
        rising = asserted and not state.asserted & bit
        state.asserted = state.asserted | bit if asserted else state.asserted & ~bit
        if not rising:
            return
        entry = state.ioredtbl[pin]
        if entry & INTMASK:
            return
        if entry & TRIGGER_LEVEL:
            self._service_level(pin)
        else:
            self._send(entry)

    def eoi(self, vector: int) -> None:
        """EOI message for a vector: pins that are still asserted interrupt again."""
        table = self.state.ioredtbl
        for pin in range(PINS):
            if table[pin] & (REMOTE_IRR | 0xFF) == REMOTE_IRR | vector:
                table[pin] &= ~REMOTE_IRR
                self._service_level(pin)

    def _service_level(self, pin: int) -> None:
        state = self.state
        entry = state.ioredtbl[pin]
        if entry & (INTMASK | TRIGGER_LEVEL | REMOTE_IRR) != TRIGGER_LEVEL:
            return
        if state.asserted >> pin & 1:
            # Set first: the processor's side may answer with an EOI at once.
            state.ioredtbl[pin] = entry | REMOTE_IRR
            if not self._send(entry):
                state.ioredtbl[pin] &= ~REMOTE_IRR

    def _send(self, entry: int) -> bool:
        return self._deliver(
            entry >> 56,
            bool(entry & 0x800),
            entry >> 8 & 7,
            entry & 0xFF,
            bool(entry & TRIGGER_LEVEL),
        )

    @on_read(IOWIN)
    def _read_window(self) -> int:
        return self._indexed.read((self.state.ioregsel & 0xFF) << 2, 4)

    @on_command(IOWIN)
    def _write_window(self, value: int) -> None:
        self._indexed.write((self.state.ioregsel & 0xFF) << 2, 4, value)

    @on_command(EOIR)
    def _write_eoir(self, value: int) -> None:
        self.eoi(value & 0xFF)
