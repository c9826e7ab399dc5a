"""Keyboard controller 8042 of a PC with a keyboard and without a mouse (IBM PS/2 Technical
Reference, keyboard and auxiliary device controller; keyboard 101/102-key).

Every command is done when it is written; IBF is never seen set. The keyboard sends scan code set
2, which the controller translates to set 1 as long as the command byte says so. The auxiliary port
is absent: its loop command answers into the keyboard's buffer and its test fails, so a driver
gives up on it at the first try. Not modelled: parity and time-out errors, password commands beyond
"none".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from workbench.core.bus import Window
from workbench.core.irq import IrqLine
from workbench.core.regs import RO, WO, Field, Reg, RegBank, RegMap, on_command, on_read
from workbench.hw.scancodes import translate

__all__ = ["I8042", "KbcState"]

REF = "IBM PS/2 TR, keyboard and auxiliary device controller"
DATA = Reg("KBC_DATA", 0x00, 1, ref=REF)
STATUS = Reg(
    "KBC_STATUS",
    0x04,
    1,
    access=RO,
    fields=(
        Field("OBF", 0),
        Field("IBF", 1),
        Field("SYS", 2),
        Field("CMD", 3),
        Field("UNLOCKED", 4),
        Field("AUX", 5),
        Field("TIMEOUT", 6),
        Field("PARITY", 7),
    ),
    ref=REF,
)
COMMAND = Reg(
    "KBC_COMMAND",
    0x04,
    1,
    access=WO,
    fields=(
        Field(
            "CMD",
            0,
            8,
            values={
                0x20: "read-command-byte",
                0x60: "write-command-byte",
                0xA7: "disable-aux",
                0xA8: "enable-aux",
                0xA9: "test-aux",
                0xAA: "self-test",
                0xAB: "test-keyboard",
                0xAD: "disable-keyboard",
                0xAE: "enable-keyboard",
                0xC0: "read-input-port",
                0xD0: "read-output-port",
                0xD1: "write-output-port",
                0xD2: "write-keyboard-buffer",
                0xD3: "write-aux-buffer",
                0xD4: "write-aux",
                0xFE: "pulse-reset",
            },
        ),
    ),
    ref=REF,
)

# Command byte
KBD_INT = 0x01
SYS = 0x04
KBD_DISABLE = 0x10
AUX_DISABLE = 0x20
XLAT = 0x40
POWER_ON = KBD_INT | SYS | XLAT | AUX_DISABLE
"""The command byte as the BIOS leaves it."""
# Output port
OUT_RESET = 0x01
OUT_A20 = 0x02

ACK, RESEND, BAT_OK, ECHO = 0xFA, 0xFE, 0xAA, 0xEE
QUEUE_BYTES = 16


@dataclass(slots=True)
class KbcState:
    """Controller and keyboard."""

    ram: bytearray = field(default_factory=lambda: bytearray((POWER_ON, *bytes(31))))
    """Controller RAM; byte 0 is the command byte."""
    obf: bool = False
    data: int = 0
    """The output buffer."""
    last_was_command: bool = False
    expect: int = 0
    """The controller command that takes the next data byte, 0 for the keyboard."""
    output_port: int = OUT_RESET | OUT_A20
    controller: list[int] = field(default_factory=list)
    """Controller replies that wait for the output buffer."""
    queue: list[int] = field(default_factory=list)
    """Bytes in the keyboard (set 2) that wait for the output buffer."""
    kbd_expect: int = 0
    """The keyboard command that takes the next byte, 0 if none."""
    scanning: bool = True
    scan_set: int = 2
    leds: int = 0
    typematic: int = 0x2B
    last_sent: int = 0
    break_prefix: bool = False
    """Translation: 0xF0 has been seen."""

    def __post_init__(self) -> None:
        if len(self.ram) != 32:
            raise ValueError(f"expected 32 bytes of controller RAM, not {len(self.ram)}")
        numbers = (self.data, self.expect, self.output_port, self.kbd_expect, self.last_sent)
        for byte in (*numbers, self.scan_set, *self.controller, *self.queue):
            if not 0 <= byte <= 0xFF:
                raise ValueError(f"expected bytes, not {byte!r}")


class I8042(RegBank[KbcState]):
    """Ports 0x60 and 0x64. `reset_cpu` is called for the reset line, `a20` is driven by output
    port bit 1.
    """

    MAP = RegMap("i8042", 5, (DATA, STATUS, COMMAND), REF, fill=0xFF)
    STATE = KbcState

    def __init__(
        self,
        irq1: IrqLine,
        reset_cpu: Callable[[str], None],
        a20: IrqLine | None = None,
        name: str = "kbc",
    ) -> None:
        self._irq1 = irq1
        self._reset_cpu = reset_cpu
        self._a20 = a20
        super().__init__(name)
        if a20 is not None:
            a20.restore(True)

    def windows(self) -> tuple[Window, ...]:
        """The windows in port space: 0x60 and 0x64, one byte each; what lies between belongs to
        others.
        """
        return (
            Window.of(self, self.name, 0x60, name="i8042-data", size=1),
            Window.of(self, self.name, 0x64, name="i8042-command", size=1, start=4),
        )

    # -- host side -------------------------------------------------------------------------------

    def receive(self, kind: str, data: bytes) -> None:
        """Input of the run: `scan` brings scan codes of set 2 as the keyboard sends them."""
        if kind == "scan" and self.state.scanning:
            self.state.queue += data
            self._pump()

    # -- registers -------------------------------------------------------------------------------

    @on_read(STATUS)
    def _status(self) -> int:
        s = self.state
        return s.obf | (s.ram[0] & SYS) | s.last_was_command << 3 | 0x10

    @on_read(DATA)
    def _read_data(self) -> int:
        s = self.state
        s.obf = False
        self._irq1.set(False)
        value = s.data
        self._pump()
        return value

    @on_command(COMMAND)
    def _command(self, value: int) -> None:
        s = self.state
        s.last_was_command = True
        s.expect = 0
        if value < 0x40:
            self._reply(s.ram[value & 0x1F])
        elif value < 0x80:
            s.expect = value
        elif value == 0xA4:
            self._reply(0xF1)  # no password
        elif value == 0xA7:
            self._set_command_byte(s.ram[0] | AUX_DISABLE)
        elif value == 0xA8:
            self._set_command_byte(s.ram[0] & ~AUX_DISABLE)
        elif value == 0xA9:
            self._reply(0x02)  # auxiliary clock line stuck high: nothing there
        elif value == 0xAA:
            self._set_command_byte(s.ram[0] | SYS)
            self._reply(0x55)
        elif value == 0xAB:
            self._reply(0x00)
        elif value == 0xAD:
            self._set_command_byte(s.ram[0] | KBD_DISABLE)
        elif value == 0xAE:
            self._set_command_byte(s.ram[0] & ~KBD_DISABLE)
        elif value == 0xC0:
            self._reply(0x80)  # keyboard not locked
        elif value == 0xD0:
            self._reply(s.output_port & 0xCF | s.obf << 4)
        elif value in (0xD1, 0xD2, 0xD3, 0xD4):
            s.expect = value
        elif value in (0xDD, 0xDF):
            self._set_output_port(s.output_port & ~OUT_A20 | (value & OUT_A20))
        elif value >= 0xF0 and not value & 1:
            self._reset_cpu("i8042")

    @on_command(DATA)
    def _write_data(self, value: int) -> None:
        s = self.state
        s.last_was_command = False
        command, s.expect = s.expect, 0
        if command == 0:
            if s.ram[0] & KBD_DISABLE:
                self._set_command_byte(s.ram[0] & ~KBD_DISABLE)
            self._keyboard(value)
        elif command in (0x40, 0x60):
            self._set_command_byte(value)
        elif command < 0x80:
            s.ram[command & 0x1F] = value
        elif command == 0xD1:
            self._set_output_port(value)
        elif command in (0xD2, 0xD3):
            self._reply(value)
        # 0xD4: nobody at the auxiliary port, no answer

    def _set_command_byte(self, value: int) -> None:
        self.state.ram[0] = value
        self._pump()
        self._sync_irq()

    def _set_output_port(self, value: int) -> None:
        s = self.state
        s.output_port = value
        if self._a20 is not None:
            self._a20.set(bool(value & OUT_A20))
        if not value & OUT_RESET:
            self._reset_cpu("i8042")

    def _reply(self, value: int) -> None:
        self.state.controller.append(value)
        del self.state.controller[:-QUEUE_BYTES]
        self._pump()

    # -- output buffer ---------------------------------------------------------------------------

    def _pump(self) -> None:
        """Fill the output buffer if it is empty: the controller's own replies first."""
        s = self.state
        if s.obf:
            return
        if s.controller:
            s.data = s.controller.pop(0)
            s.obf = True
            self._sync_irq()
            return
        while s.queue and not s.ram[0] & KBD_DISABLE:
            byte = s.queue.pop(0)
            if s.ram[0] & XLAT:
                if byte == 0xF0:
                    s.break_prefix = True
                    continue
                byte = translate(byte) | (0x80 if s.break_prefix else 0)
                s.break_prefix = False
            s.data = byte
            s.obf = True
            self._sync_irq()
            return

    def _sync_irq(self) -> None:
        s = self.state
        self._irq1.set(s.obf and bool(s.ram[0] & KBD_INT))

    # -- keyboard --------------------------------------------------------------------------------

    def _send(self, *data: int) -> None:
        s = self.state
        if len(s.queue) + len(data) <= QUEUE_BYTES:
            s.queue += data
        s.last_sent = data[-1]
        self._pump()

    def _keyboard(self, value: int) -> None:
        """A byte to the keyboard."""
        s = self.state
        command, s.kbd_expect = s.kbd_expect, 0
        if command == 0xED and value < 0x80:
            s.leds = value & 7
            self._send(ACK)
        elif command == 0xF3 and value < 0x80:
            s.typematic = value
            self._send(ACK)
        elif command == 0xF0 and value < 4:
            if value:
                s.scan_set = value
                self._send(ACK)
            else:
                self._send(ACK, s.scan_set)
        elif value in (0xED, 0xF0, 0xF3):
            s.kbd_expect = value
            self._send(ACK)
        elif value == 0xEE:
            self._send(ECHO)
        elif value == 0xF2:
            self._send(ACK, 0xAB, 0x83)
        elif value == 0xF4:
            s.queue.clear()
            s.scanning = True
            self._send(ACK)
        elif value in (0xF5, 0xF6):
            s.queue.clear()
            s.scanning = value == 0xF6
            s.scan_set, s.typematic = 2, 0x2B
            self._send(ACK)
        elif 0xF7 <= value <= 0xFD:
            self._send(ACK)
        elif value == 0xFE:
            self._send(s.last_sent)
        elif value == 0xFF:
            s.queue.clear()
            s.scanning, s.scan_set, s.typematic, s.leds = True, 2, 0x2B, 0
            self._send(ACK, BAT_OK)
        else:
            self._send(RESEND)

    # -- state -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """Reset as the BIOS leaves it: translation and keyboard interrupt on, A20 open."""
        self.set_state(KbcState())
        self._sync_irq()
        if self._a20 is not None:
            self._a20.set(True)

    def restore(self, data: dict[str, Any]) -> None:
        """Take what `save` gave; no edges."""
        super().restore(data)
        s = self.state
        self._irq1.restore(s.obf and bool(s.ram[0] & KBD_INT))
        if self._a20 is not None:
            self._a20.restore(bool(s.output_port & OUT_A20))
