"""fw_cfg: the board hands its configuration to firmware (QEMU fw_cfg Device Specification).

Items are selected by a 16-bit key and read as bytes, through the data port or by a transfer into
memory (the DMA interface). Key 0x19 holds the directory of the named items. What the items hold is
put there before the machine runs and never changes. Deliberately not modelled: writable items
(a write is an error), the memory-mapped form of other boards.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from workbench.core.bus import Window
from workbench.core.regs import RO, WO, Field, Reg, RegBank, RegMap, on_command, on_read
from workbench.hw.layout import PORT_FW_CFG

__all__ = ["FILE_DIR", "FILE_FIRST", "FwCfg", "FwCfgState"]

REF = "fw_cfg specification"
SELECTOR = Reg(
    "FW_CFG_SELECTOR", 0, 2, access=WO, exact=True, ref=f"{REF}, selector register",
    fields=(Field("INDEX", 0, 14), Field("WRITE", 14), Field("ARCH", 15)),
)  # fmt: skip
DATA = Reg("FW_CFG_DATA", 1, 1, access=RO, exact=True, ref=f"{REF}, data register")
DMA_HIGH = Reg("FW_CFG_DMA_HIGH", 4, 4, ref=f"{REF}, DMA address register, big endian")
DMA_LOW = Reg("FW_CFG_DMA_LOW", 8, 4, ref=f"{REF}, DMA address register, big endian")

SIGNATURE, ID, FILE_DIR, FILE_FIRST = 0x0000, 0x0001, 0x0019, 0x0020
ID_TRADITIONAL, ID_DMA = 1 << 0, 1 << 1
DMA_SIGNATURE = b"QEMU CFG"
DMA_ERROR, DMA_READ, DMA_SKIP, DMA_SELECT, DMA_WRITE = (1 << n for n in range(5))
FILE_NAME_BYTES: Final = 56
MOST_FILES: Final = 256
_PIECE_BYTES: Final = 1 << 20


@dataclass(slots=True)
class FwCfgState:
    """The item that is selected, how much of it was read, and the upper half of a DMA address."""

    selector: int = 0
    offset: int = 0
    dma_high: int = 0

    def __post_init__(self) -> None:
        if self.offset < 0:
            raise ValueError(f"expected an offset from 0, not {self.offset!r}")


class FwCfg(RegBank[FwCfgState]):
    """The device at ports 0x510 to 0x51B.

    `memory_read(gpa, n)` and `memory_write(gpa, data)` are its way to memory, `trace_dma(device,
    gpa, n, is_write)` hears of the data that go there. `end` gives the first address behind RAM:
    what is longer than that goes nowhere.
    """

    MAP = RegMap("fw_cfg", 12, (SELECTOR, DATA, DMA_HIGH, DMA_LOW), REF, fill=0xFF)
    STATE = FwCfgState

    def __init__(
        self,
        memory_read: Callable[[int, int], bytes],
        memory_write: Callable[[int, bytes], None],
        trace_dma: Callable[[str, int, int, bool], None],
        memory_end: int,
        name: str = "fw_cfg",
    ) -> None:
        # Wires
        self._memory_read = memory_read
        self._memory_write = memory_write
        self._trace_dma = trace_dma
        self._memory_end = memory_end
        # Book-keeping: the items are part of the machine, as its wires are
        self.items: dict[int, bytes] = {
            SIGNATURE: b"QEMU",
            ID: struct.pack("<I", ID_TRADITIONAL | ID_DMA),
        }
        self.live: dict[int, Callable[[], bytes]] = {}  # contents that depend on other devices
        self.files: dict[str, int] = {}
        # State
        super().__init__(name)

    def windows(self) -> tuple[Window, Window]:
        """Selector and data; the DMA address."""
        port = PORT_FW_CFG
        ports = Window.of(self, self.name, port, size=2)
        ports.read_block = self.read_block
        return ports, Window.of(self, self.name, port + 4, name=f"{self.name}-dma", size=8, start=4)

    @property
    def _data(self) -> bytes:
        key = self.state.selector
        live = self.live.get(key)
        return self.items.get(key, b"") if live is None else live()

    # -- what firmware is told -------------------------------------------------------------------

    def add_item(self, key: int, data: bytes) -> None:
        """Put an item there before the machine runs."""
        self.items[key] = data

    def add_file(self, name: str, data: bytes) -> None:
        """Put a named item there; raises ValueError for a name that does not fit, or too many."""
        if name in self.files or len(self.files) >= MOST_FILES:
            raise ValueError(f"expected a new one of {MOST_FILES} fw_cfg files, not {name!r}")
        if not name or len(name.encode()) >= FILE_NAME_BYTES:
            raise ValueError(f"expected a name below {FILE_NAME_BYTES} bytes, not {name!r}")
        self.files[name] = FILE_FIRST + len(self.files)
        self.add_item(self.files[name], data)
        self.add_item(FILE_DIR, self._directory())

    def make_live(self, name: str, content: Callable[[], bytes]) -> None:
        """From now on a file has what `content` says, always as many bytes as it has now."""
        self.live[self.files[name]] = content

    def file(self, name: str) -> bytes:
        """The contents of a named item."""
        return self.items[self.files[name]]

    def _directory(self) -> bytes:
        entries = [
            struct.pack(">IHH56s", len(self.items[key]), key, 0, name.encode())
            for name, key in sorted(self.files.items())
        ]
        return struct.pack(">I", len(entries)) + b"".join(entries)

    # -- registers -------------------------------------------------------------------------------

    @on_command(SELECTOR)
    def _select(self, value: int) -> None:
        state = self.state
        state.selector, state.offset = value, 0

    @on_read(DATA)
    def _read_data(self) -> int:
        state, data = self.state, self._data
        at = state.offset
        if at >= len(data):
            return 0
        state.offset = at + 1
        return data[at]

    def read_block(self, offset: int, size: int, count: int) -> bytes | None:
        """As many bytes as REP INSB takes from the data port."""
        if offset != DATA.offset or size != 1:
            return None
        return self._take(count)

    def _take(self, count: int) -> bytes:
        state = self.state
        data = self._data[state.offset : state.offset + count]
        state.offset += len(data)
        return data.ljust(count, b"\0")

    @on_read(DMA_HIGH)
    def _read_high(self) -> int:
        return int.from_bytes(DMA_SIGNATURE[:4], "little")

    @on_read(DMA_LOW)
    def _read_low(self) -> int:
        return int.from_bytes(DMA_SIGNATURE[4:], "little")

    @on_command(DMA_HIGH)
    def _write_high(self, value: int) -> None:
        self.state.dma_high = int.from_bytes(value.to_bytes(4, "little"), "big")

    @on_command(DMA_LOW)
    def _write_low(self, value: int) -> None:
        state = self.state
        gpa = state.dma_high << 32 | int.from_bytes(value.to_bytes(4, "little"), "big")
        state.dma_high = 0
        control, length, address = struct.unpack(">IIQ", self._memory_read(gpa, 16))
        if control & DMA_SELECT:
            self._select(control >> 16)
        failed = self._transfer(control, address, length)
        self._memory_write(gpa, struct.pack(">I", DMA_ERROR if failed else 0))

    def _transfer(self, control: int, gpa: int, length: int) -> bool:
        """One DMA command; whether it failed. A read behind the end of an item gives zeros."""
        if control & DMA_READ:
            self._trace_dma(self.name, gpa, length, True)
            end = min(gpa + length, self._memory_end)
            while gpa < end:
                n = min(end - gpa, _PIECE_BYTES)
                self._memory_write(gpa, self._take(n))
                gpa += n
        elif control & DMA_WRITE:
            return True
        elif control & DMA_SKIP:
            self._take_none(length)
        return False

    def _take_none(self, length: int) -> None:
        state = self.state
        state.offset = min(state.offset + length, len(self._data))
