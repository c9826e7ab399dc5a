"""EEPROM behind the 82540EM: a 93C46 (64 words of 16 bits, Microwire), and what is in it.

317453, chapter 5: word 0-2 the Ethernet address, word 0x3F makes the sum of all words 0xBABA.
Deliberately not modelled: the time that writing takes (a write is done when CS falls).
"""

# ruff: noqa: RUF009 (`sized` specifies a field)
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from workbench.core.state import sized

__all__ = ["ICW3", "ICW3_APME", "WORDS", "Eeprom", "EepromState", "contents"]

WORDS: Final = 64
ADDRESS_BITS: Final = 6
CHECKSUM: Final = 0xBABA
ICW3: Final = 0x24  # initialization control word 3
ICW3_APME: Final = 1 << 10  # a magic packet may wake the system
SK, CS, DI, DO = 1, 2, 4, 8
_COMMAND_BITS = 3 + ADDRESS_BITS  # start bit, two bits of operation, address


def contents(mac: bytes) -> list[int]:
    """The words of a desktop adapter with this Ethernet address (317453 5.6)."""
    words = [0] * WORDS
    for n in range(3):
        words[n] = mac[2 * n] | mac[2 * n + 1] << 8
    words[0x03] = 0x0000  # compatibility: none
    words[0x05] = 0xFFFF  # version: none
    words[0x08], words[0x09] = 0x3000, 0x1000  # part number
    words[0x0A] = 0x640A  # ICW1: load vendor and subsystem ids, full duplex
    words[0x0B], words[0x0C] = 0x001E, 0x8086  # subsystem
    words[0x0D], words[0x0E] = 0x100E, 0x8086
    words[0x0F] = 0x3040  # ICW2
    words[0x21] = 0x7863  # management: none
    words[ICW3] = ICW3_APME
    words[0x2F] = 0x0602  # LEDs 0 and 2
    words[0x3F] = CHECKSUM - sum(words) & 0xFFFF
    return words


@dataclass(slots=True)
class EepromState:
    """Cells and the serial interface: bits shifted in since CS rose, word being shifted out."""

    words: list[int] = sized(WORDS, 0xFFFF)
    pins: int = 0
    bits: int = 0
    count: int = 0
    out: int = 0
    out_bits: int = 0
    address: int = 0
    writable: bool = False
    busy: bool = False


class Eeprom:
    """The chip, clocked by EECD."""

    def __init__(self, state: EepromState) -> None:
        self.state = state

    def word(self, address: int) -> int:
        """One word, addresses beyond the chip wrap."""
        return self.state.words[address % WORDS] & 0xFFFF

    @property
    def do(self) -> bool:
        """Level of DO: data while reading, else ready (which is also what the pull-up gives)."""
        state = self.state
        if not state.pins & CS or not state.busy:
            return True
        return bool(state.out & 1)

    def drive(self, pins: int) -> None:
        """SK, CS and DI are set."""
        state = self.state
        old, state.pins = state.pins, pins & (SK | CS | DI)
        if not pins & CS:
            if old & CS:
                self._finish()
            return
        if not old & CS:
            state.bits = state.count = state.out = state.out_bits = 0
            state.busy = False
        if pins & SK and not old & SK:
            self._clock(1 if pins & DI else 0)

    def _clock(self, bit: int) -> None:
        state = self.state
        if state.busy:
            self._shift_out()
            return
        if state.count == 0 and not bit:
            return  # leading zeros in front of the start bit
        if state.count < _COMMAND_BITS + 16:
            state.bits = (state.bits << 1 | bit) & 0xFFFF_FFFF
            state.count += 1
        if state.count == _COMMAND_BITS and state.bits >> ADDRESS_BITS == 0b110:
            state.busy = True
            state.address = state.bits & WORDS - 1
            state.out, state.out_bits = 0, 0  # the dummy zero

    def _shift_out(self) -> None:
        """Next bit of the word, most significant first; then the next word follows."""
        state = self.state
        state.out_bits += 1
        if state.out_bits > 16:
            state.out_bits = 1
            state.address = (state.address + 1) % WORDS
        state.out = self.word(state.address) >> 16 - state.out_bits & 1

    def _finish(self) -> None:
        """CS falls: what was shifted in is done."""
        state = self.state
        if state.busy or state.count < _COMMAND_BITS:
            state.busy = False
            return
        extra = state.count - _COMMAND_BITS
        command = state.bits >> extra
        operation, address = command >> ADDRESS_BITS & 3, command & WORDS - 1
        data = state.bits & 0xFFFF if extra == 16 else None
        if operation == 0b00:
            match address >> ADDRESS_BITS - 2:
                case 0b11:
                    state.writable = True
                case 0b00:
                    state.writable = False
                case 0b10 if state.writable:
                    state.words = [0xFFFF] * WORDS
                case 0b01 if state.writable and data is not None:
                    state.words = [data] * WORDS
        elif not state.writable:
            return
        elif operation == 0b11:
            state.words[address] = 0xFFFF
        elif operation == 0b01 and data is not None:
            state.words[address] = data
