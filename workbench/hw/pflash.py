"""Parallel flash with Intel's command set, in which UEFI keeps its variables: an 8-bit device below
the end of the first 4 GiB (Intel 28F128J3 data sheet 290667, 9 to 11; JEDEC JESD68.01 for CFI).

Reads of the array need no access: the processor finds its pages like those of a ROM. Every write is
a command or its data; while another mode than the array is read, the pages are left to this device.
A write of more than one byte is as many bus cycles. Blocks have 4 KiB, as firmware for virtual
machines expects. Clearing the status clears SR.7 as well, until the next operation: by that, EDK2
tells flash from ROM. What is done is done at once. Deliberately not modelled: suspending, lock
bits (a whole device is read-only, or not), the protection register.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from workbench.core.bus import Window
from workbench.core.config import FLASH_BLOCK
from workbench.core.state import StateError, decode, encode

if TYPE_CHECKING:
    from workbench.core.machine import Machine

__all__ = ["BLOCK_BYTES", "Flash", "FlashState", "Mode", "attach"]

FOUR_GIB: Final = 1 << 32

BLOCK_BYTES: Final = FLASH_BLOCK
BUFFER_BYTES: Final = 32
MANUFACTURER, DEVICE = 0x89, 0x18

# Commands (data sheet, table 15)
READ_ARRAY, READ_ID, READ_QUERY, READ_STATUS, CLEAR_STATUS = 0xFF, 0x90, 0x98, 0x70, 0x50
PROGRAM, PROGRAM_WORD, BUFFER, ERASE, LOCK, CONFIRM = 0x10, 0x40, 0xE8, 0x20, 0x60, 0xD0
READY, ERASE_ERROR, PROGRAM_ERROR, LOCKED = 0x80, 0x20, 0x10, 0x02  # status register


class Mode(IntEnum):
    """What reads give."""

    ARRAY = 0
    STATUS = 1
    ID = 2
    QUERY = 3


_MODES: Final = {
    READ_ARRAY: Mode.ARRAY,
    READ_ID: Mode.ID,
    READ_QUERY: Mode.QUERY,
    READ_STATUS: Mode.STATUS,
}
_FIRST_OF_MORE: Final = (PROGRAM, PROGRAM_WORD, BUFFER, ERASE, LOCK)


class Pages(Protocol):
    """Where the processor finds the array."""

    def replace_rom(self, gpa: int, data: bytes) -> None:
        """New contents."""

    def show_rom(self, gpa: int, n: int, shown: bool) -> None:
        """Whether reads find them, or go to the device."""


@dataclass(slots=True)
class FlashState:
    """Mode and status; the command that waits for more (0: none); of a buffered program how many
    bytes it has (-1: not said yet), and those that came, as (offset, byte); the blocks that were
    written, by number.
    """

    mode: Mode = Mode.ARRAY
    status: int = READY
    command: int = 0
    expected: int = -1
    buffer: list[tuple[int, int]] = field(default_factory=list)
    blocks: dict[int, bytearray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.status <= 0xFF:
            raise ValueError(f"expected a status of one byte, not {self.status!r}")
        if self.command not in (0, *_FIRST_OF_MORE):
            raise ValueError(f"expected a command of more cycles, not {self.command!r}")
        if not -1 <= self.expected <= BUFFER_BYTES or len(self.buffer) > BUFFER_BYTES:
            raise ValueError(f"expected at most {BUFFER_BYTES} bytes in the buffer")
        if any(at < 0 or byte not in range(256) for at, byte in self.buffer):
            raise ValueError("expected bytes in the buffer")
        if any(len(data) != BLOCK_BYTES for data in self.blocks.values()):
            raise ValueError(f"expected blocks of {BLOCK_BYTES} bytes")


class Flash:
    """One device of `size` bytes from `base` on; `store(offset, data)` gets what changes in it."""

    def __init__(
        self, name: str, pages: Pages, base: int, size: int, *, read_only: bool = False
    ) -> None:
        # Wires
        self._pages = pages
        self.store: Callable[[int, bytes], None] | None = None
        # Book-keeping
        self.name = name
        self.base, self.size = base, size
        self._read_only = read_only
        self._image = b"\xff" * size
        self._query = _query(size)
        # State
        self.state = FlashState()

    def window(self) -> Window:
        """All of its addresses."""
        return Window(self.name, self.name, self.base, self.size, self.read, self.write)

    def plug(self, image: bytes) -> None:
        """What it holds at the start."""
        assert len(image) == self.size
        self._image = image
        self.state = FlashState()
        self._pages.replace_rom(self.base, image)

    def contents(self, offset: int, length: int) -> bytes:
        """The array as it is now."""
        at = offset % BLOCK_BYTES
        return bytes(self._block(offset // BLOCK_BYTES)[at : at + length])

    # -- state -----------------------------------------------------------------------------------

    def reset(self) -> None:
        """The array is read, and keeps its contents."""
        self.state = FlashState(blocks=self.state.blocks)
        self._pages.show_rom(self.base, self.size, True)

    def save(self) -> dict[str, Any]:
        """Mode, and the blocks that were written."""
        return encode(self.state, self.name)

    def restore(self, state: dict[str, Any]) -> None:
        """Take what `save` gave, and show the array as it was."""
        new = decode(FlashState, state, self.name)
        for number in new.blocks:
            if not 0 <= number < self.size // BLOCK_BYTES:
                raise StateError(f"{self.name}: expected a block of the flash, not {number}")
        if any(at >= self.size for at, _ in new.buffer):
            raise StateError(f"{self.name}: expected a buffer for addresses of the flash")
        changed = self.state.blocks.keys() | new.blocks.keys()
        self.state = new
        for number in sorted(changed):
            self._show_block(number)
        self._pages.show_rom(self.base, self.size, new.mode == Mode.ARRAY)

    # -- accesses --------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        """What the mode shows."""
        cells = (self._read_byte(offset + n) for n in range(size))
        return sum(value << 8 * n for n, value in enumerate(cells))

    def write(self, offset: int, size: int, value: int) -> None:
        """So many bus cycles."""
        for n in range(size):
            self._cycle(offset + n, value >> 8 * n & 0xFF)

    def _read_byte(self, offset: int) -> int:
        match self.state.mode:
            case Mode.ARRAY:
                return self._block(offset // BLOCK_BYTES)[offset % BLOCK_BYTES]
            case Mode.STATUS:
                return self.state.status
            case Mode.ID:
                return {0: MANUFACTURER, 1: DEVICE, 2: self._read_only}.get(offset & 0xFF, 0)
            case Mode.QUERY:
                return self._query.get(offset & 0xFF, 0)

    def _cycle(self, offset: int, value: int) -> None:
        state = self.state
        if state.command:
            self._go_on(offset, value)
        elif value in _FIRST_OF_MORE:
            state.command, state.expected = value, -1
            if value == BUFFER:
                state.status |= READY  # of the extended status: a buffer is free
            self._set_mode(Mode.STATUS)
        else:
            if value == CLEAR_STATUS:
                state.status = 0
            self._set_mode(_MODES.get(value, Mode.ARRAY))

    def _set_mode(self, mode: Mode) -> None:
        state = self.state
        if (mode == Mode.ARRAY) != (state.mode == Mode.ARRAY):
            self._pages.show_rom(self.base, self.size, mode == Mode.ARRAY)
        state.mode = mode

    def _go_on(self, offset: int, value: int) -> None:
        """A cycle after the first."""
        state = self.state
        if state.command == BUFFER and not self._is_full(offset, value):
            return
        command, state.command = state.command, 0
        if command == BUFFER:
            self._end_buffer(value)
        elif command in (PROGRAM, PROGRAM_WORD):
            self._program([(offset, value)])
        elif command == LOCK:
            self._done()
        elif value != CONFIRM:
            self._done(PROGRAM_ERROR | ERASE_ERROR)
        elif self._read_only:
            self._done(ERASE_ERROR | LOCKED)
        else:
            self._change(offset // BLOCK_BYTES * BLOCK_BYTES, b"\xff" * BLOCK_BYTES)
            self._done()

    def _end_buffer(self, value: int) -> None:
        """The cycle behind the data of a buffered program, all of which lie close together."""
        cells, self.state.buffer = self.state.buffer, []
        first = cells[0][0] if cells else 0
        if value != CONFIRM or any(at - first not in range(BUFFER_BYTES) for at, _ in cells):
            self._done(PROGRAM_ERROR | ERASE_ERROR)
        else:
            self._program(cells)

    def _is_full(self, offset: int, value: int) -> bool:
        """Take a cycle of a buffered program; is it the one behind the data?"""
        state = self.state
        if state.expected < 0:
            if value >= BUFFER_BYTES:
                state.command = 0
                self._done(PROGRAM_ERROR | ERASE_ERROR)
            else:
                state.expected = value + 1
            return False
        if len(state.buffer) < state.expected:
            state.buffer.append((offset, value))
            return False
        return True

    # -- the array -------------------------------------------------------------------------------

    def _program(self, cells: list[tuple[int, int]]) -> None:
        """Programming clears bits; only erasing sets them."""
        if self._read_only:
            self._done(PROGRAM_ERROR | LOCKED)
            return
        for offset, value in cells:
            number, at = divmod(offset, BLOCK_BYTES)
            self._change(offset, bytes([self._block(number)[at] & value]))
        self._done()

    def _done(self, errors: int = 0) -> None:
        self.state.status |= READY | errors

    def _block(self, number: int) -> bytes | bytearray:
        start = number * BLOCK_BYTES
        return self.state.blocks.get(number) or self._image[start : start + BLOCK_BYTES]

    def _change(self, offset: int, data: bytes) -> None:
        """New bytes in one block."""
        number, at = divmod(offset, BLOCK_BYTES)
        old = self._block(number)
        if old[at : at + len(data)] == data:
            return
        block = self.state.blocks.setdefault(number, bytearray(old))
        block[at : at + len(data)] = data
        self._pages.replace_rom(self.base + offset, data)
        if self.store is not None:
            self.store(offset, data)

    def _show_block(self, number: int) -> None:
        self._pages.replace_rom(self.base + number * BLOCK_BYTES, bytes(self._block(number)))


def attach(machine: Machine) -> list[Flash]:
    """The devices of the configuration, empty; each lies below the one before it."""
    made: list[Flash] = []
    end = FOUR_GIB
    for part in machine.config.flash:
        end -= part.size_bytes
        flash = Flash(part.name, machine.memory, end, part.size_bytes, read_only=part.read_only)
        machine.mmio.map(flash.window())
        machine.attach(flash)
        made.append(flash)
    return made


def _query(size: int) -> dict[int, int]:
    """The CFI table (JESD68.01, tables 2 to 6), one erase region."""
    blocks = size // BLOCK_BYTES - 1
    table = {0x10: b"QRY" + bytes([1, 0, 0x31, 0, 0, 0, 0, 0])}
    table[0x1B] = bytes([0x45, 0x55, 0, 0, 7, 7, 10, 0, 4, 4, 4, 0])  # voltages and times
    table[0x27] = bytes([(size - 1).bit_length(), 0, 0, BUFFER_BYTES.bit_length() - 1, 0, 1])
    table[0x2D] = bytes([blocks & 0xFF, blocks >> 8, BLOCK_BYTES >> 8, 0])
    table[0x31] = b"PRI" + b"11" + bytes(9)
    return {at + n: value for at, data in table.items() for n, value in enumerate(data)}
