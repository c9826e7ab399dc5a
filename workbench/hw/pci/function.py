"""Base class of PCI functions: configuration space, address decoding, INTx, bus mastering.

A device derives from `PciFunction`, gives its `MAP` (from `config_map`), its `STATE` (a subclass of
`PciState` that holds the state of the whole device) and its `BARS`, and calls `add_bar` with the
window behind each of them. PCI Local Bus Specification 3.0, chapter 6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

from workbench.core.bus import Bus, Window
from workbench.core.irq import IrqLine
from workbench.core.regs import RegBank, on_command, on_read, on_write
from workbench.core.spans import Spans
from workbench.hw.decode import MovableWindow
from workbench.hw.pci.config import (
    BAR,
    BME,
    COMMAND,
    DEVSEL_MEDIUM,
    INTD,
    IOSE,
    MSE,
    ROM,
    STATUS,
    STATUS_CAPL,
    STATUS_INTS,
    STATUS_RMA,
    Bar,
    PciState,
)

__all__ = ["DmaHandle", "PciFunction", "PciPort"]

S = TypeVar("S", bound=PciState)
ROM_EN, LEAST_ROM_BYTES = 1 << 0, 2048


class PciPort(Protocol):
    """What a slot of the bus gives to the function in it."""

    pio: Bus
    mmio: Bus
    intx: IrqLine | None

    def dma_read(self, device: str, gpa: int, length_bytes: int) -> bytes:
        """Guest memory, as a bus master sees it."""
        ...

    def dma_write(self, device: str, gpa: int, data: bytes) -> None:
        """Write guest memory as bus master."""
        ...

    def dma_scatter(self, device: str, spans: Spans, data: bytes | memoryview) -> None:
        """Write data into spans, one after the other, as bus master."""
        ...

    def dma_burst(self, spans: Spans, data: bytes | memoryview) -> None:
        """Likewise, for a burst of requests, which the device reports with its transfers."""
        ...

    def is_memory(self, gpa: int, length_bytes: int) -> bool:
        """Whether all of a range is RAM."""
        ...

    def msi(self, address: int, data: int) -> None:
        """Message-signalled interrupt: a dword write to the interrupt controllers."""
        ...


class DmaHandle:
    """A function's way to guest memory; refused while COMMAND.BME is 0."""

    def __init__(self, function: PciFunction[Any]) -> None:
        self._function = function
        self.refused = 0

    @property
    def allowed(self) -> bool:
        """Whether the function may master the bus."""
        return bool(self._function.state.command & BME)

    def contains(self, gpa: int, length_bytes: int) -> bool:
        """Whether all of a range is RAM: for devices that must not do peer-to-peer transfers."""
        port = self._function.port
        return port is not None and port.is_memory(gpa, length_bytes)

    def read(self, gpa: int, length_bytes: int) -> bytes:
        """Bytes from guest memory; all ones and STATUS.RMA when refused."""
        function = self._function
        if function.state.command & BME and function.port is not None:
            return function.port.dma_read(function.name, gpa, length_bytes)
        self.refuse()
        return b"\xff" * length_bytes

    def write(self, gpa: int, data: bytes) -> bool:
        """Write guest memory; False and STATUS.RMA when refused."""
        function = self._function
        if function.state.command & BME and function.port is not None:
            function.port.dma_write(function.name, gpa, data)
            return True
        self.refuse()
        return False

    def scatter(self, spans: Spans, data: bytes | memoryview) -> bool:
        """As many writes as there are spans; the data lie in them one after the other."""
        function = self._function
        if function.state.command & BME and function.port is not None:
            function.port.dma_scatter(function.name, spans, data)
            return True
        self.refuse()
        return False

    def burst(self, spans: Spans, data: bytes | memoryview) -> bool:
        """As `scatter`, for requests of which `Requests.burst` reports, each with its span."""
        function = self._function
        if function.state.command & BME and function.port is not None:
            function.port.dma_burst(spans, data)
            return True
        self.refuse()
        return False

    def refuse(self) -> None:
        """Count a transfer that did not take place, in STATUS.RMA."""
        self.refused += 1
        self._function.state.status |= STATUS_RMA


class PciFunction(RegBank[S]):
    """One function: a bank of configuration registers with the side effects that all share."""

    BARS: tuple[Bar, ...] = ()  # of the class, or set before `super().__init__`
    COMMAND_WRITABLE: ClassVar[int] = IOSE | MSE | BME | 1 << 8 | INTD
    COMMAND_FIXED: ClassVar[int] = 0
    STATUS_FIXED: ClassVar[int] = DEVSEL_MEDIUM

    def __init__(self, name: str, **kwargs: Any) -> None:
        # Wires
        self.port: PciPort | None = None
        self.dma = DmaHandle(self)
        # Book-keeping
        self._by_index = {bar.index: bar for bar in self.BARS}
        self._upper = {bar.index + 1: bar for bar in self.BARS if bar.wide}
        self._windows: dict[int, MovableWindow] = {}
        self._rom_bytes = 0
        self._rom_window: MovableWindow | None = None
        # State
        super().__init__(name, **kwargs)
        self._status_fixed = self.STATUS_FIXED
        if self.map["CAP_PTR"].reset:
            self._status_fixed |= STATUS_CAPL
        self._init_state(self.state)

    # -- life ------------------------------------------------------------------------------------

    def _init_state(self, state: S) -> None:
        state.command = self.COMMAND_FIXED
        for bar in self.BARS:
            state.bar[bar.index] = bar.type_bits

    def reset(self) -> None:
        """Reset of the function: nothing is decoded, INTx is released."""
        state = self.STATE()
        self._init_state(state)
        self.set_state(state)
        self._decode()
        self.sync_intx()

    def restore(self, data: dict[str, Any]) -> None:
        """Take a saved state; INTx gets its level without an edge."""
        super().restore(data)
        self._decode()
        if self.port is not None and self.port.intx is not None:
            self.port.intx.restore(self._intx_level())

    def connect(self, port: PciPort) -> None:
        """Called once by the bus when the function is put into a slot."""
        assert self.port is None, f"{self.name} is in a slot already"
        self.port = port
        self.connected()
        self._decode()

    def post(self) -> None:
        """What firmware does with the registers that only this function has."""

    def connected(self) -> None:
        """The place where a device calls `add_bar`."""

    def add_bar(
        self,
        index: int,
        read: Callable[[int, int], int],
        write: Callable[[int, int, int], None],
        *,
        name: str = "",
        regmap: Any = None,
    ) -> MovableWindow:
        """Put a window behind base address register `index`; for a bank its read, write and map."""
        assert self.port is not None, f"{self.name}: add_bar is for connected()"
        bar = self._by_index[index]
        bus = self.port.pio if bar.io else self.port.mmio
        window = Window(name or f"bar{index}", self.name, 0, bar.size, read, write, regmap)
        self._windows[index] = MovableWindow(bus, window)
        return self._windows[index]

    def plug_rom(self, image: bytes) -> None:
        """Put an expansion ROM behind the register ROM (6.2.5.2); its window is a power of two."""
        assert self.port is not None, f"{self.name}: plug_rom is for a function in a slot"
        size = max(1 << (len(image) - 1).bit_length(), LEAST_ROM_BYTES)
        rom = image.ljust(size, b"\xff")

        def read(offset: int, count: int) -> int:
            return int.from_bytes(rom[offset : offset + count], "little")

        def write(offset: int, count: int, value: int) -> None:
            """A ROM."""

        self._rom_bytes = size
        window = Window(f"{self.name}-rom", self.name, 0, size, read, write)
        self._rom_window = MovableWindow(self.port.mmio, window)
        self._decode()

    # -- interrupts ------------------------------------------------------------------------------

    def send_msi(self, address: int, data: int) -> None:
        """A message is a write by the function as bus master (6.8)."""
        if self.port is not None and self.dma.allowed:
            self.port.msi(address, data)
        else:
            self.dma.refuse()

    def set_intx(self, level: bool) -> None:
        """The device's wish for its INTx pin."""
        if self.state.intx != level:
            self.state.intx = int(level)
            self.sync_intx()

    def sync_intx(self) -> None:
        """Drive the pin from the state."""
        if self.port is not None and self.port.intx is not None:
            self.port.intx.set(self._intx_level())

    def _intx_level(self) -> bool:
        return bool(self.state.intx) and not self.state.command & INTD

    # -- decoding --------------------------------------------------------------------------------

    def bar_base(self, index: int) -> int:
        """Address in a base address register, whether decoded or not."""
        bar = self._by_index[index]
        base = self.state.bar[index] & (~3 if bar.io else ~15)
        return base | self.state.bar[index + 1] << 32 if bar.wide else base

    def _decode(self) -> None:
        command = self.state.command
        for index, window in self._windows.items():
            base = self.bar_base(index)
            enabled = command & (IOSE if self._by_index[index].io else MSE)
            window.place(base if enabled and base else None)  # 0 is where software has put nothing
        if self._rom_window is not None:
            rom = self.state.rom
            enabled = command & MSE and rom & ROM_EN and rom & ~ROM_EN
            self._rom_window.place(rom & ~ROM_EN if enabled else None)
        self.decode_changed()

    def decode_changed(self) -> None:
        """For windows that COMMAND switches but no base address register places (IDE's 0x1F0)."""

    @on_write(COMMAND)
    def _write_command(self, old: int, new: int) -> None:
        state = self.state
        state.command = new & self.COMMAND_WRITABLE | self.COMMAND_FIXED
        changed = old ^ state.command
        if changed & (IOSE | MSE):
            self._decode()
        if changed & INTD:
            self.sync_intx()
        if changed & BME:
            self.bus_master_changed(bool(state.command & BME))

    def bus_master_changed(self, allowed: bool) -> None:
        """For devices that stop their engines when COMMAND.BME goes away."""

    @on_read(STATUS)
    def _read_status(self) -> int:
        state = self.state
        return state.status | self._status_fixed | (STATUS_INTS if state.intx else 0)

    @on_write(*BAR)
    def _write_bar(self, index: int, old: int, new: int) -> None:
        state = self.state
        bar = self._by_index.get(index)
        if bar is not None:
            state.bar[index] = new & ~(bar.size - 1) & 0xFFFF_FFFF | bar.type_bits
        elif index in self._upper:
            state.bar[index] = new & ~(self._upper[index].size - 1 >> 32)
        else:
            state.bar[index] = 0
            return
        if state.bar[index] != old:
            self._decode()

    @on_command(ROM)
    def _write_rom(self, value: int) -> None:
        if self._rom_bytes:
            self.state.rom = value & (~(self._rom_bytes - 1) & 0xFFFF_F800 | ROM_EN)
            self._decode()
