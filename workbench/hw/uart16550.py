"""16550A UART with FIFOs (National Semiconductor PC16550D, June 1995), as a PC wires it.

Transmission takes no time: a byte goes to `output` when it is written and THRE and TEMT are always
set, so that a guest that prints needs one LSR read and one THR write for each byte. Received bytes
wait in a host-side backlog, which is state, and enter the FIFO when there is room and the guest
can take them: received-data interrupts are enabled, or LSR has been read twice in a row (a guest
that prints does not do that, one that waits for input does). So nothing typed ahead is lost, not
even over a FIFO reset. A FIFO below its trigger level reports the time-out at once. INTR is gated
by MCR.OUT2, as on a PC. Not modelled: the duration of characters, parity and framing errors,
16-times oversampling.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core.bus import Window
from workbench.core.irq import IrqLine
from workbench.core.regs import (
    RO,
    WO,
    Field,
    Reg,
    RegBank,
    RegMap,
    Select,
    on_command,
    on_read,
    on_write,
)

__all__ = ["Uart16550", "UartState"]

REF = "PC16550D 8.0"
RBR = Reg("RBR", 0, 1, access=RO, when="DLAB=0", ref="PC16550D 8.0")
THR = Reg("THR", 0, 1, access=WO, when="DLAB=0", ref="PC16550D 8.0")
DLL = Reg("DLL", 0, 1, 0x0C, when="DLAB=1", ref="PC16550D 8.3")
DLM = Reg("DLM", 1, 1, when="DLAB=1", ref="PC16550D 8.3")
IER = Reg(
    "IER",
    1,
    1,
    when="DLAB=0",
    fields=(Field("ERBFI", 0), Field("ETBEI", 1), Field("ELSI", 2), Field("EDSSI", 3)),
    ref="PC16550D 8.7",
)
IIR = Reg(
    "IIR",
    2,
    1,
    access=RO,
    fields=(
        Field(
            "ID",
            0,
            4,
            values={
                1: "none",
                6: "line-status",
                4: "data",
                12: "timeout",
                2: "thr-empty",
                0: "modem",
            },
        ),
        Field("FIFO", 6, 2),
    ),
    ref="PC16550D 8.6",
)
FCR = Reg(
    "FCR",
    2,
    1,
    access=WO,
    fields=(
        Field("ENABLE", 0),
        Field("RFR", 1),
        Field("XFR", 2),
        Field("DMA", 3),
        Field("TRIGGER", 6, 2, values={0: "1", 1: "4", 2: "8", 3: "14"}),
    ),
    ref="PC16550D 8.5",
)
LCR = Reg(
    "LCR",
    3,
    1,
    fields=(
        Field("WLS", 0, 2, values={0: "5", 1: "6", 2: "7", 3: "8"}),
        Field("STB", 2),
        Field("PEN", 3),
        Field("EPS", 4),
        Field("STICK", 5),
        Field("BREAK", 6),
        Field("DLAB", 7),
    ),
    ref="PC16550D 8.1",
)
MCR = Reg(
    "MCR",
    4,
    1,
    fields=(
        Field("DTR", 0),
        Field("RTS", 1),
        Field("OUT1", 2),
        Field("OUT2", 3),
        Field("LOOP", 4),
    ),
    ref="PC16550D 8.8",
)
LSR = Reg(
    "LSR",
    5,
    1,
    0x60,
    access=RO,
    fields=(
        Field("DR", 0),
        Field("OE", 1),
        Field("PE", 2),
        Field("FE", 3),
        Field("BI", 4),
        Field("THRE", 5),
        Field("TEMT", 6),
        Field("ERR", 7),
    ),
    ref="PC16550D 8.4",
)
MSR = Reg(
    "MSR",
    6,
    1,
    access=RO,
    fields=(
        Field("DCTS", 0),
        Field("DDSR", 1),
        Field("TERI", 2),
        Field("DDCD", 3),
        Field("CTS", 4),
        Field("DSR", 5),
        Field("RI", 6),
        Field("DCD", 7),
    ),
    ref="PC16550D 8.9",
)
SCR = Reg("SCR", 7, 1, ref="PC16550D 8.10")

FIFO_BYTES = 16
BREAK = 0x100
"""Flag of a FIFO entry: the byte is a break."""
_TRIGGER = (1, 4, 8, 14)


@dataclass(slots=True)
class UartState:
    """Registers, FIFO and the bytes that wait for it."""

    dll: int = 0x0C
    dlm: int = 0
    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    scr: int = 0
    msr_delta: int = 0
    fifo: list[int] = field(default_factory=list)
    """Received bytes, with BREAK or'ed in; at most one without FIFO mode."""
    overrun: bool = False
    break_seen: bool = False
    """LSR.BI, cleared by reading LSR."""
    thre_interrupt: bool = False
    """Not derivable: reading IIR clears it while the register stays empty."""
    lsr_reads: int = 0
    """LSR reads in a row."""
    backlog: list[int] = field(default_factory=list)
    """Host input that has not reached the FIFO, with BREAK or'ed in."""

    def __post_init__(self) -> None:
        if len(self.fifo) > FIFO_BYTES:
            raise ValueError(
                f"expected at most {FIFO_BYTES} bytes in the FIFO, not {len(self.fifo)}"
            )
        for entry in (*self.fifo, *self.backlog):
            if not 0 <= entry <= BREAK | 0xFF:
                raise ValueError(f"expected bytes in FIFO and backlog, not {entry!r}")
        if self.fcr & ~0xFF or self.msr_delta & ~0x0F:
            raise ValueError(f"expected 8-bit registers, not {self.fcr!r} and {self.msr_delta!r}")


class Uart16550(RegBank[UartState]):
    """One serial port. `output` gets each byte that the guest sends."""

    MAP = RegMap(
        "uart16550",
        8,
        (RBR, THR, DLL, DLM, IER, IIR, FCR, LCR, MCR, LSR, MSR, SCR),
        REF,
        fill=0xFF,
        select=Select(LCR, "DLAB", {0: "DLAB=0", 1: "DLAB=1"}),
    )
    STATE = UartState

    def __init__(self, name: str, base: int, irq: IrqLine, output: Callable[[bytes], None]) -> None:
        self._base = base
        self._irq = irq
        self._output = output
        super().__init__(name)

    def windows(self) -> tuple[Window, ...]:
        """The window in port space."""
        return (Window.of(self, self.name, self._base),)

    # -- host side -------------------------------------------------------------------------------

    def receive(self, kind: str, data: bytes) -> None:
        """Input of the run: `rx` brings bytes, `break` a break; other kinds are ignored."""
        if kind == "rx":
            self.state.backlog += data
        elif kind == "break":
            self.state.backlog.append(BREAK)
        if self.state.ier & 1:
            self._fill()
        self._sync_irq()

    def _fill(self) -> None:
        """Move what waits into the FIFO as far as it has room."""
        s = self.state
        if s.backlog and not s.mcr & 0x10:
            room = (FIFO_BYTES if s.fcr & 1 else 1) - len(s.fifo)
            if room > 0:
                s.fifo += s.backlog[:room]
                del s.backlog[:room]
                self._note_break()

    def _note_break(self) -> None:
        """A break at the head of the FIFO shows in LSR."""
        s = self.state
        if s.fifo and s.fifo[0] & BREAK:
            s.break_seen = True

    # -- data ------------------------------------------------------------------------------------

    @on_read(RBR)
    def _receive(self) -> int:
        s = self.state
        s.lsr_reads = 0
        if not s.fifo:
            return 0
        value = s.fifo.pop(0) & 0xFF
        if s.ier & 1 or not s.fifo:
            self._fill()
        self._note_break()
        self._sync_irq()
        return value

    @on_command(THR)
    def _transmit(self, value: int) -> None:
        s = self.state
        s.lsr_reads = 0
        if s.mcr & 0x10:
            if len(s.fifo) < (FIFO_BYTES if s.fcr & 1 else 1):
                s.fifo.append(value)
            else:
                s.overrun = True
        else:
            self._output(bytes((value,)))
        s.thre_interrupt = True
        self._sync_irq()

    # -- control ---------------------------------------------------------------------------------

    @on_write(IER)
    def _enable(self, old: int, new: int) -> None:
        s = self.state
        s.lsr_reads = 0
        if new & ~old & 2:
            s.thre_interrupt = True
        if new & 1:
            self._fill()
        self._sync_irq()

    @on_read(IIR)
    def _identify(self) -> int:
        s = self.state
        s.lsr_reads = 0
        value = self._interrupt()
        if value == 2:
            s.thre_interrupt = False
            self._sync_irq()
        return value | (0xC0 if s.fcr & 1 else 0)

    @on_command(FCR)
    def _fifo_control(self, value: int) -> None:
        s = self.state
        s.lsr_reads = 0
        if (value ^ s.fcr) & 1 or value & 3 == 3:
            if not s.mcr & 0x10:
                # The sender has more patience than a wire: what the guest did not read comes again.
                s.backlog[:0] = s.fifo
            s.fifo.clear()
        s.fcr = value & 0xC9 if value & 1 else 0
        if s.ier & 1:
            self._fill()
        self._sync_irq()

    @on_write(LCR, SCR)
    def _stored(self, old: int, new: int) -> None:
        self.state.lsr_reads = 0

    @on_write(MCR)
    def _modem_control(self, old: int, new: int) -> None:
        s = self.state
        s.lsr_reads = 0
        before, after = self._modem(old), self._modem(new)
        changed = before ^ after
        # TERI tells the trailing edge of RI only.
        s.msr_delta |= changed >> 4 & 0x0B | (4 if before & ~after & 0x40 else 0)
        if s.ier & 1:
            self._fill()
        self._sync_irq()

    @staticmethod
    def _modem(mcr: int) -> int:
        """MSR bits 4-7: a ready peer, or MCR in loopback (RTS, DTR, OUT1, OUT2 to CTS, DSR, RI,
        DCD).
        """
        if not mcr & 0x10:
            return 0xB0
        return (mcr & 2) << 3 | (mcr & 1) << 5 | (mcr & 4) << 4 | (mcr & 8) << 4

    @on_read(LSR)
    def _line_status(self) -> int:
        s = self.state
        s.lsr_reads += 1
        if not (s.fifo or s.backlog or s.overrun or s.break_seen):
            return 0x60
        if s.lsr_reads >= 2:
            self._fill()
        value = 0x60
        if s.fifo:
            value |= 1
        if s.overrun:
            value |= 2
            s.overrun = False
        if s.break_seen:
            value |= 0x10
            s.break_seen = False
        if s.fcr & 1 and any(entry & BREAK for entry in s.fifo):
            value |= 0x80
        self._sync_irq()
        return value

    @on_read(MSR)
    def _modem_status(self) -> int:
        s = self.state
        s.lsr_reads = 0
        value = self._modem(s.mcr) | s.msr_delta
        s.msr_delta = 0
        self._sync_irq()
        return value

    # -- interrupt -------------------------------------------------------------------------------

    def _interrupt(self) -> int:
        """IIR bits 0-3: the pending interrupt with the highest priority."""
        s = self.state
        ier = s.ier
        if ier & 4 and (s.overrun or s.break_seen):
            return 6
        if ier & 1 and s.fifo:
            return 4 if not s.fcr & 1 or len(s.fifo) >= _TRIGGER[s.fcr >> 6] else 12
        if ier & 2 and s.thre_interrupt:
            return 2
        if ier & 8 and s.msr_delta:
            return 0
        return 1

    def _level(self) -> bool:
        return self._interrupt() != 1 and self.state.mcr & 0x18 == 8

    def _sync_irq(self) -> None:
        self._irq.set(self._interrupt() != 1 and self.state.mcr & 0x18 == 8)

    def reset(self) -> None:
        """Master reset (PC16550D table 1); host input that waits stays."""
        old = self.state
        waiting = old.backlog if old.mcr & 0x10 else old.fifo + old.backlog
        self.set_state(UartState(dll=old.dll, dlm=old.dlm, scr=old.scr, backlog=waiting))
        self._sync_irq()

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; no edge."""
        super().restore(data)
        self._irq.restore(self._level())
